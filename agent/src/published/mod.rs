//! Published ports: how connections from outside get to the balancer, by two front ends.
//!
//! [`frame`] sends packets from elsewhere straight to the balancer (`--mesh frame`, the default).
//! The listeners of this module take what comes from the host itself, and everything with
//! `--mesh socket`; in any case they reserve the port.
//!
//! ```text
//! client ──► [::]:8000 ──► this module ──► 169.254.77.2:8000 ──weft0──► worker picks a replica
//! ```
//!
//! A connection is accepted, opened once more towards the mesh address over `weft0`, and copied
//! both ways. The worker behind `weft0` chooses the replica (crate `weft-mesh`), so service VIPs
//! and published ports are balanced by the same code. A real listener also reserves the port: one
//! that is busy is reported with the program that holds it.
//!
//! A port whose replicas are to see the node, or a header of the PROXY protocol (`proxy`), is left
//! to the listeners on any node.

mod buffers;
pub(crate) mod busy;
mod clients;
mod counters;
mod entries;
mod frame;
mod listen;
pub(crate) mod owner;
mod port;
mod proxy;
mod route;
mod rule_set;
mod shared;
mod tcp;
mod tracking;
mod udp;
mod unreachable;
pub(crate) mod uplinks;
mod wall_ports;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use weft_model::objects::Protocol;

use busy::BusyPorts;
use counters::PortCounters;
use frame::FrameFrontEnd;

use crate::config::MeshFrontEnd;
use crate::metrics::UnreachableCounters;
pub(crate) use entries::PortEntry;
pub(crate) use port::Published;
use port::{BusyPort, Key};
use route::Route;
use rule_set::RuleSet;
pub(crate) use shared::MeshConfig;
use shared::Shared;
use unreachable::Unreachable;

/// The listeners of a node.
///
/// Every method may be called from any task of the runtime; none waits. Dropping it closes the
/// listeners, not the connections.
#[derive(Debug)]
pub(crate) struct MeshSockets {
    shared: Arc<Shared>,
    state: Arc<Mutex<State>>,
    /// One for each address family; none with `--mesh socket`.
    frames: Vec<FrameFrontEnd>,
    /// What the wall lets sandboxes speak to.
    wall: RuleSet<(Option<Ipv4Addr>, Protocol, u16)>,
}

#[derive(Debug, Default)]
struct State {
    wanted: BTreeMap<Key, Published>,
    open: BTreeMap<Key, Listener>,
    busy: BusyPorts,
}

#[derive(Debug)]
struct Listener {
    published: Published,
    counters: Arc<PortCounters>,
    route: Arc<Route>,
    /// The socket of a TCP port.
    socket: Option<Arc<std::net::TcpListener>>,
    /// None while a port has no socket.
    task: Option<AbortHandle>,
    /// The connection that has the port in place of a listener: packets from elsewhere do without
    /// one, clients on this node do not.
    held_by: Option<String>,
}

impl Listener {
    /// True of a UDP port that has no socket: no replica took datagrams.
    fn is_closed(&self) -> bool {
        self.task.as_ref().is_none_or(AbortHandle::is_finished)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        if let Some(socket) = &self.socket {
            // At once; the task ends some time later. One that did not listen has nothing to end.
            drop(socket2::SockRef::from(&**socket).shutdown(std::net::Shutdown::Both));
        }
    }
}

impl MeshSockets {
    /// No listener yet.
    #[must_use]
    pub(crate) fn new(config: MeshConfig) -> Self {
        let slots = config.max_connections.min(Semaphore::MAX_PERMITS);
        let frames = match config.front_end {
            MeshFrontEnd::Frame => [config.mesh_addr, config.mesh_addr6.into()]
                .map(|ip| FrameFrontEnd::new(ip, Arc::clone(&config.rules)))
                .to_vec(),
            MeshFrontEnd::Socket => Vec::new(),
        };
        Self {
            frames,
            wall: wall_ports::wall_ports(Arc::clone(&config.rules)),
            shared: Arc::new(Shared {
                config,
                slots: Arc::new(Semaphore::new(slots)),
                clients: Arc::default(),
                unreachable: Unreachable::default(),
            }),
            state: Arc::default(),
        }
    }

    /// Opens what is wanted and not open, closes what is open and not wanted. Connections that
    /// were accepted go on either way, and other ports are not touched. Ports that are busy are
    /// tried again. Must be called inside the runtime.
    pub(crate) fn update(&self, wanted: &BTreeSet<Published>) {
        let mut state = self.lock();
        state.wanted.clear();
        for published in wanted {
            let key = (published.host_ip, published.port, published.protocol);
            state.wanted.entry(key).or_insert_with(|| published.clone());
        }
        let State { wanted, open, busy } = &mut *state;
        open.retain(|key, listener| {
            wanted.get(key).is_some_and(|published| {
                listener.published.clone_from(published);
                let socket = listener.socket.as_deref();
                // One that cannot go on is opened again, or found busy.
                listener.route.follow(published, socket).is_ok() && self.revive(listener).is_ok()
            })
        });
        busy.retain(|key| wanted.contains_key(key));
        self.open_missing(&mut state);
        self.update_frame(&state);
    }

    /// Tries again to open the ports that are busy, and looks whether the others still have their
    /// address. To be called every few seconds, inside the runtime.
    pub(crate) fn tick(&self) {
        let mut state = self.lock();
        state
            .open
            .retain(|_, listener| self.revive(listener).is_ok());
        note_lost_addresses(&mut state);
        self.open_missing(&mut state);
        self.update_frame(&state);
    }

    /// Why packets from elsewhere do not go straight to the balancer, though they should. They are
    /// accepted by the listeners then.
    #[must_use]
    pub(crate) fn frame_error(&self) -> Option<String> {
        self.frames.iter().find_map(FrameFrontEnd::error)
    }

    /// Why the mesh address is open to more than the front ends, or sandboxes do not reach the ports
    /// of this node's listeners.
    #[must_use]
    pub(crate) fn wall_error(&self) -> Option<String> {
        self.wall.error()
    }

    /// Takes away the rules of a frame front end that an earlier agent had. Blocks.
    ///
    /// # Errors
    /// The rules could not be changed.
    pub(crate) fn remove_frame_rules() -> anyhow::Result<()> {
        Ok(frame::remove()?)
    }

    /// A port that somebody else holds is his, also for packets from elsewhere.
    fn update_frame(&self, state: &State) {
        for frame in &self.frames {
            frame.follow(state.open.values().map(|l| &l.published));
        }
        let open = state.open.values().map(|l| &l.published);
        self.wall.update(wall_ports::elements(open));
    }

    /// Wanted ports that take nobody, and why. Who holds one is known some milliseconds after it was
    /// found busy, and looked up again now and then.
    #[must_use]
    pub(crate) fn busy(&self) -> Vec<BusyPort> {
        self.lock().busy.iter().cloned().collect()
    }

    /// The client whose connection a listener carries on from this port of the node.
    #[must_use]
    pub(crate) fn client_behind(&self, protocol: Protocol, own_port: u16) -> Option<SocketAddr> {
        self.shared.clients.behind(protocol, own_port)
    }

    /// Figures of every open port.
    #[cfg(test)]
    pub(crate) fn stats(&self) -> Vec<port::PortStats> {
        self.lock()
            .open
            .values()
            .map(|listener| listener.counters.stats(&listener.published))
            .collect()
    }

    /// What came of telling clients that a replica refused their datagrams.
    #[must_use]
    pub(crate) fn unreachable(&self) -> UnreachableCounters {
        self.shared.unreachable.counters()
    }

    fn open_missing(&self, state: &mut State) {
        let State { wanted, open, busy } = state;
        let now = Instant::now();
        let mut unknown = Vec::new();
        for (key, published) in wanted.iter() {
            if open.contains_key(key) {
                continue;
            }
            match self.open(published) {
                Ok(listener) => {
                    busy.remove(key);
                    open.insert(*key, listener);
                }
                Err(error) => {
                    let passes = error.kind() == io::ErrorKind::AddrInUse && self.passes(published);
                    if let Some(holder) = busy.connection_at(key).filter(|_| passes) {
                        let listener = self.without_listener(published, holder.to_owned());
                        busy.remove(key);
                        open.insert(*key, listener);
                    } else if busy.note(*key, published, &error, now) {
                        unknown.push(*key);
                    }
                }
            }
        }
        if !unknown.is_empty() {
            self.look_up(unknown);
        }
    }

    /// Finds out in the background who holds ports: all of `/proc` is read for it.
    fn look_up(&self, keys: Vec<Key>) {
        let state = Arc::clone(&self.state);
        tokio::task::spawn_blocking(move || {
            for key in keys {
                let (_, port, protocol) = key;
                let holder = owner::of_port(protocol, port);
                lock(&state).busy.held_by(&key, holder.as_ref());
            }
        });
    }

    /// Whether packets from elsewhere pass a listener by, and nobody else listens.
    fn passes(&self, published: &Published) -> bool {
        self.frames.iter().any(|f| f.takes(published)) && !owner::listens(published.port)
    }

    /// An open port that this node's own programs do not reach, until the connection that has its
    /// number is over.
    fn without_listener(&self, published: &Published, holder: String) -> Listener {
        tracing::warn!(
            service = published.service,
            port = published.port,
            holder,
            "a published port is taken for clients from elsewhere only: a connection has its number"
        );
        Listener {
            published: published.clone(),
            counters: Arc::default(),
            route: Route::new(self.shared.config.mesh_addr, published),
            socket: None,
            task: None,
            held_by: Some(holder),
        }
    }

    /// Gives a UDP port a socket again once a replica takes datagrams, and a TCP port a listener
    /// once its number is free.
    fn revive(&self, listener: &mut Listener) -> io::Result<()> {
        let published = &listener.published;
        if listener.held_by.is_some() {
            match listen::tcp(published.host_ip, published.port, published.serving) {
                Ok(socket) => {
                    let socket = Arc::new(socket);
                    let route = Arc::clone(&listener.route);
                    let counters = Arc::clone(&listener.counters);
                    let shared = Arc::clone(&self.shared);
                    let accept = tcp::accept(Arc::clone(&socket), route, shared, counters);
                    listener.task = Some(tokio::spawn(accept).abort_handle());
                    listener.socket = Some(socket);
                    listener.held_by = None;
                }
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse && self.passes(published) => {}
                Err(error) => return Err(error),
            }
        }
        if published.protocol == Protocol::Udp && published.serving && listener.is_closed() {
            let socket = listen::udp(published.host_ip, published.port)?;
            let serve = udp::serve(
                socket,
                Arc::clone(&listener.route),
                Arc::clone(&self.shared),
                Arc::clone(&listener.counters),
            );
            listener.task = Some(tokio::spawn(serve).abort_handle());
        }
        Ok(())
    }

    fn open(&self, published: &Published) -> io::Result<Listener> {
        let counters = Arc::<PortCounters>::default();
        let shared = Arc::clone(&self.shared);
        let route = Route::new(shared.config.mesh_addr, published);
        let to = (Arc::clone(&route), shared, Arc::clone(&counters));
        let (socket, task) = match published.protocol {
            Protocol::Tcp => {
                let socket = listen::tcp(published.host_ip, published.port, published.serving)?;
                let socket = Arc::new(socket);
                let accept = tcp::accept(Arc::clone(&socket), to.0, to.1, to.2);
                (Some(socket), Some(tokio::spawn(accept)))
            }
            Protocol::Udp => {
                // Without a replica only to see whether somebody else has the port.
                let socket = listen::udp(published.host_ip, published.port)?;
                let serve = udp::serve(socket, to.0, to.1, to.2);
                (None, published.serving.then(|| tokio::spawn(serve)))
            }
        };
        Ok(Listener {
            published: published.clone(),
            counters,
            route,
            socket,
            task: task.map(|task| task.abort_handle()),
            held_by: None,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Takes note of open ports whose address the node has no longer. They stay open, so that clients
/// are served as soon as it is back.
fn note_lost_addresses(state: &mut State) {
    let now = Instant::now();
    for (key, listener) in &state.open {
        let Some(ip) = listener.published.host_ip else {
            continue;
        };
        match std::net::UdpSocket::bind((ip, 0)) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                state.busy.note(*key, &listener.published, &error, now);
            }
            _ => state.busy.remove(key),
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Nothing under this lock leaves the state half changed.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
