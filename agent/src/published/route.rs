//! Where the connections of an open port go, and whether it takes any.
//!
//! A port of a service without replicas stays reserved, but does not listen: the kernel refuses
//! its clients at once, and a check that only connects sees that nobody is there.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use arc_swap::ArcSwap;
use socket2::SockRef;
use tokio::sync::watch;
use weft_model::objects::ClientAddress;

use super::listen::BACKLOG;
use super::port::Published;

/// Shared by a listener and its accept loop; changed while the port stays open.
#[derive(Debug)]
pub(crate) struct Route {
    mesh_addr: IpAddr,
    mesh_port: AtomicU16,
    client_address: ArcSwap<ClientAddress>,
    service: ArcSwap<String>,
    limit_per_client: AtomicU32,
    serving: watch::Sender<bool>,
}

impl Route {
    pub(crate) fn new(mesh_addr: IpAddr, published: &Published) -> Arc<Self> {
        Arc::new(Self {
            mesh_addr,
            mesh_port: AtomicU16::new(published.mesh_port),
            client_address: ArcSwap::from_pointee(published.client_address),
            service: ArcSwap::from_pointee(published.service.clone()),
            limit_per_client: AtomicU32::new(published.limit_per_client),
            serving: watch::Sender::new(published.serving),
        })
    }

    /// Where to connect for a new client.
    pub(crate) fn to(&self) -> SocketAddr {
        SocketAddr::new(self.mesh_addr, self.mesh_port.load(Ordering::Relaxed))
    }

    /// What the replica of a new client learns of it.
    pub(crate) fn client_address(&self) -> ClientAddress {
        **self.client_address.load()
    }

    /// Name of the service.
    pub(crate) fn service(&self) -> Arc<String> {
        self.service.load_full()
    }

    /// Connections of one client address at most; 0 is no limit.
    pub(crate) fn limit_per_client(&self) -> u32 {
        self.limit_per_client.load(Ordering::Relaxed)
    }

    /// Whether a replica takes new clients.
    pub(crate) fn is_serving(&self) -> bool {
        *self.serving.borrow()
    }

    /// Waits until the port takes connections, or takes none any more.
    pub(crate) async fn until_serving(&self, serving: bool) {
        // The sender lives as long as this value.
        drop(self.serving.subscribe().wait_for(|s| *s == serving).await);
    }

    /// Takes over what has changed; `listener` is that of a TCP port.
    ///
    /// # Errors
    /// The port went to somebody else while it did not listen.
    pub(crate) fn follow(
        &self,
        published: &Published,
        listener: Option<&TcpListener>,
    ) -> io::Result<()> {
        self.mesh_port.store(published.mesh_port, Ordering::Relaxed);
        self.client_address
            .store(Arc::new(published.client_address));
        if **self.service.load() != published.service {
            self.service.store(Arc::new(published.service.clone()));
        }
        self.limit_per_client
            .store(published.limit_per_client, Ordering::Relaxed);
        let serving = published.serving;
        if *self.serving.borrow() == serving {
            return Ok(());
        }
        let Some(listener) = listener.map(SockRef::from) else {
            self.serving.send_replace(serving);
            return Ok(());
        };
        if serving {
            listener.listen(BACKLOG)?;
            self.serving.send_replace(true);
        } else {
            // First, so that the accept loop does not take the end for an error.
            self.serving.send_replace(false);
            listener.shutdown(std::net::Shutdown::Both)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{Ipv4Addr, TcpStream};

    use weft_model::objects::{Protocol, PublishMode};

    use super::*;
    use crate::published::listen;

    #[test]
    fn a_port_without_replicas_is_kept_and_refuses() {
        let mut published = Published {
            host_ip: Some(Ipv4Addr::LOCALHOST.into()),
            port: 0,
            protocol: Protocol::Tcp,
            service: "web".to_owned(),
            mode: PublishMode::Ingress,
            client_address: ClientAddress::Keep,
            mesh_port: 1,
            serving: true,
            limit_per_client: 0,
            ipv6: true,
        };
        let route = Route::new(Ipv4Addr::LOCALHOST.into(), &published);
        // By its number: a port that the kernel chose is not kept.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let listener = listen::tcp(published.host_ip, port, true).unwrap();
        let addr = listener.local_addr().unwrap();
        let mut waiting = TcpStream::connect(addr).unwrap();
        published.serving = false;
        published.mesh_port = 2;
        route.follow(&published, Some(&listener)).unwrap();
        assert_eq!(route.to().port(), 2);
        // Who was not accepted yet learns it, too.
        assert!(waiting.read(&mut [0]).is_err());
        let refused = TcpStream::connect(addr).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        published.serving = true;
        route.follow(&published, Some(&listener)).unwrap();
        TcpStream::connect(addr).unwrap();
    }
}
