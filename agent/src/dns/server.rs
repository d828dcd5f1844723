//! The node's DNS: one zone, one way outside, many sandboxes.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::{JoinHandle, JoinSet};
use weft_dns::{ClientView, Zone};

use super::outside::Outside;
use super::resolv_conf::{Found, Watched};
use super::resolver::Resolver;
use super::shared::Shared;
use super::stats::{Counters, DnsStats};
use crate::sandbox::{DnsSockets, WayToResolver};

/// How often a `resolv.conf` is looked at. One `stat` each time.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Answers the sandboxes of this node. Dropping it stops everything.
///
/// Every method may be called from any task of the runtime in which it was made. No two of
/// its locks are held at once.
#[derive(Debug)]
pub(crate) struct DnsServer {
    shared: Arc<Shared>,
    sandboxes: Mutex<BTreeMap<String, Served>>,
    /// Aborted when dropped.
    background: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct Served {
    view: Arc<ArcSwap<ClientView>>,
    way: Option<Arc<WayToResolver>>,
    task: JoinHandle<()>,
    /// Of a way outside of its own.
    deadlines: Option<JoinHandle<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(deadlines) = &self.deadlines {
            deadlines.abort();
        }
    }
}

impl DnsServer {
    /// A server with an empty zone that forwards to `upstreams`, in this order, at most three.
    /// Must be called inside a tokio runtime, in the network namespace of the host.
    #[must_use]
    pub(crate) fn new(upstreams: &[SocketAddr]) -> Self {
        let counters = Arc::new(Counters::default());
        let outside = Arc::new(Outside::new(upstreams, Arc::clone(&counters)));
        let mut background = JoinSet::new();
        background.spawn(Arc::clone(&outside).keep_deadlines());
        Self {
            shared: Arc::new(Shared::new(outside, counters)),
            sandboxes: Mutex::new(BTreeMap::new()),
            background: Mutex::new(background),
        }
    }

    /// A server that forwards to the resolvers in a `resolv.conf`, and follows its changes.
    /// Usually of [`HOST_RESOLV_CONF`](crate::names::HOST_RESOLV_CONF). A file that cannot be read counts
    /// as empty, with a warning, until it can.
    #[must_use]
    pub(crate) fn following(resolv_conf: &Path) -> Self {
        let server = Self::new(&[]);
        let mut watched = Watched::new(resolv_conf);
        let outside = Arc::clone(&server.shared.outside);
        let path = resolv_conf.to_owned();
        let mut warned = false;
        let mut look = move || match watched.changed() {
            Ok(Some(Found { upstreams, useless })) => {
                if useless {
                    tracing::warn!(
                        path = %path.display(),
                        "the host's resolvers: the file names none that can be asked (lines of the \
                         form \"nameserver ADDRESS\"); names outside the cluster do not resolve"
                    );
                } else {
                    tracing::info!(path = %path.display(), ?upstreams, "resolvers of the host");
                }
                outside.set_upstreams(&upstreams);
                warned = false;
            }
            Ok(None) => {}
            Err(error) => {
                if !warned {
                    tracing::warn!(
                        path = %path.display(), %error,
                        "cannot read the host's resolvers; names outside the cluster do not resolve"
                    );
                }
                warned = true;
            }
        };
        look();
        lock(&server.background).spawn(async move {
            let mut interval = tokio::time::interval(WATCH_EVERY);
            loop {
                interval.tick().await;
                look();
            }
        });
        server
    }

    /// Upstreams in use.
    #[cfg(test)]
    pub(crate) fn upstreams(&self) -> Vec<SocketAddr> {
        self.shared.outside.upstreams()
    }

    /// Replaces the zone, for every sandbox at once.
    pub(crate) fn set_zone(&self, zone: Arc<Zone>) {
        self.shared.zone.store(zone);
    }

    /// Serves a sandbox on sockets that were opened inside its namespace. A sandbox that was served
    /// before is served on the new sockets only.
    ///
    /// # Errors
    /// A socket cannot be registered with the runtime; nothing was started.
    pub(crate) fn serve(
        &self,
        sandbox_id: &str,
        sockets: DnsSockets,
        client: ClientView,
    ) -> io::Result<()> {
        self.serve_asking(sandbox_id, sockets, client, &[])
    }

    /// The same for a sandbox that asks servers of its own for names outside the cluster, from the
    /// namespace of the host, in this order, at most three; without any it asks those of the node.
    ///
    /// # Errors
    /// As of [`DnsServer::serve`].
    pub(crate) fn serve_asking(
        &self,
        sandbox_id: &str,
        sockets: DnsSockets,
        client: ClientView,
        servers: &[SocketAddr],
    ) -> io::Result<()> {
        let DnsSockets { udp, tcp, way } = sockets;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let udp = tokio::net::UdpSocket::from_std(udp)?;
        let tcp = tokio::net::TcpListener::from_std(tcp)?;
        let view = Arc::new(ArcSwap::from_pointee(client));
        let (outside, deadlines) = if servers.is_empty() {
            (Arc::clone(&self.shared.outside), None)
        } else {
            let own = Outside::new(servers, Arc::clone(&self.shared.counters));
            let own = Arc::new(own);
            let deadlines = tokio::spawn(Arc::clone(&own).keep_deadlines());
            (own, Some(deadlines))
        };
        let resolver = Resolver::new(Arc::clone(&self.shared), Arc::clone(&view), outside);
        let task = tokio::spawn(Arc::new(resolver).run(udp, tcp));
        let served = Served {
            view,
            way,
            task,
            deadlines,
        };
        lock(&self.sandboxes).insert(sandbox_id.to_owned(), served);
        Ok(())
    }

    /// True when a sandbox is served.
    #[must_use]
    pub(crate) fn serves(&self, sandbox_id: &str) -> bool {
        lock(&self.sandboxes).contains_key(sandbox_id)
    }

    /// Rules that lead to the resolver in each sandbox, for whoever looks after them.
    #[must_use]
    pub(crate) fn ways(&self) -> Vec<Arc<WayToResolver>> {
        let sandboxes = lock(&self.sandboxes);
        sandboxes.values().filter_map(|s| s.way.clone()).collect()
    }

    /// Replaces what a sandbox may see. False when it is not served.
    pub(crate) fn update_client(&self, sandbox_id: &str, client: ClientView) -> bool {
        match lock(&self.sandboxes).get(sandbox_id) {
            Some(served) => {
                served.view.store(Arc::new(client));
                true
            }
            None => false,
        }
    }

    /// Says which stack a sandbox is part of by now; of one that is not served nothing.
    pub(crate) fn set_stack(&self, sandbox_id: &str, stack: Option<&str>) {
        let sandboxes = lock(&self.sandboxes);
        let Some(served) = sandboxes.get(sandbox_id) else {
            return;
        };
        let view = served.view.load_full();
        if view.stack.as_deref() != stack {
            let stack = stack.map(str::to_owned);
            let view = ClientView::clone(&view);
            served.view.store(Arc::new(ClientView { stack, ..view }));
        }
    }

    /// Stops serving a sandbox and waits until its listening sockets are closed. False when it
    /// was not served.
    pub(crate) async fn stop(&self, sandbox_id: &str) -> bool {
        let Some(mut served) = lock(&self.sandboxes).remove(sandbox_id) else {
            return false;
        };
        served.task.abort();
        // An abort is the expected end.
        drop((&mut served.task).await);
        true
    }

    /// What happened so far.
    #[must_use]
    pub(crate) fn stats(&self) -> DnsStats {
        self.shared.counters.read(self.shared.outside.cached())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
