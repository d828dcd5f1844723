//! Who is behind the connections that the listeners opened towards the mesh: the balancer sees the
//! node there, not the client.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weft_model::objects::Protocol;

/// Clients of all listeners. One short lock for each connection that begins or ends.
/// No two of its locks are held at once.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    /// Client by the node's own port towards the mesh.
    behind: Mutex<HashMap<(Protocol, u16), SocketAddr>>,
    /// Connections by service and client, where a limit applies.
    open: Mutex<HashMap<(Arc<String>, IpAddr), u32>>,
}

impl Clients {
    /// Counts one connection of a client to a service until the value is dropped; none when it has
    /// as many as it may. A limit of 0 is none.
    pub(crate) fn admit(
        self: &Arc<Self>,
        service: Arc<String>,
        client: IpAddr,
        limit: u32,
    ) -> Option<Admitted> {
        let mut admitted = Admitted {
            clients: Arc::clone(self),
            counted: None,
        };
        if limit > 0 {
            let key = (service, client.to_canonical());
            let mut open = lock(&self.open);
            let held = open.entry(key.clone()).or_default();
            if *held >= limit {
                return None;
            }
            *held += 1;
            admitted.counted = Some(key);
        }
        Some(admitted)
    }

    /// Notes the client behind a port of the node, until the value is dropped.
    pub(crate) fn note(
        self: &Arc<Self>,
        protocol: Protocol,
        own_port: u16,
        client: SocketAddr,
    ) -> Behind {
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        lock(&self.behind).insert((protocol, own_port), client);
        Behind {
            clients: Arc::clone(self),
            key: (protocol, own_port),
        }
    }

    /// The client behind a port of the node.
    pub(crate) fn behind(&self, protocol: Protocol, own_port: u16) -> Option<SocketAddr> {
        lock(&self.behind).get(&(protocol, own_port)).copied()
    }
}

fn lock<K: Eq + Hash, V>(map: &Mutex<HashMap<K, V>>) -> MutexGuard<'_, HashMap<K, V>> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that may be opened.
#[derive(Debug)]
pub(crate) struct Admitted {
    clients: Arc<Clients>,
    counted: Option<(Arc<String>, IpAddr)>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Some(key) = self.counted.take() else {
            return;
        };
        let mut open = lock(&self.clients.open);
        if let Some(held) = open.get_mut(&key) {
            *held -= 1;
            if *held == 0 {
                open.remove(&key);
            }
        }
    }
}

/// A client that is known by a port of the node.
#[derive(Debug)]
pub(crate) struct Behind {
    clients: Arc<Clients>,
    key: (Protocol, u16),
}

impl Drop for Behind {
    fn drop(&mut self) {
        lock(&self.clients.behind).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_as_many_as_it_may_whatever_its_address_is_written_like() {
        let clients = Arc::<Clients>::default();
        let web = Arc::new("web".to_owned());
        let v4: IpAddr = "192.0.2.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        let first = clients.admit(Arc::clone(&web), v4, 2).expect("one");
        let _second = clients.admit(Arc::clone(&web), mapped, 2).expect("two");
        assert!(clients.admit(Arc::clone(&web), v4, 2).is_none());
        assert!(clients.admit(Arc::new("db".to_owned()), v4, 2).is_some());
        assert!(clients.admit(Arc::clone(&web), v4, 0).is_some());
        drop(first);
        assert!(clients.admit(Arc::clone(&web), v4, 2).is_some());
    }

    #[test]
    fn clients_are_known_while_they_are_connected() {
        let clients = Arc::<Clients>::default();
        let from: SocketAddr = "[::ffff:192.0.2.1]:4000".parse().unwrap();
        let behind = clients.note(Protocol::Tcp, 5000, from);
        let known = clients.behind(Protocol::Tcp, 5000);
        assert_eq!(known, "192.0.2.1:4000".parse().ok());
        assert_eq!(clients.behind(Protocol::Udp, 5000), None);
        drop(behind);
        assert_eq!(clients.behind(Protocol::Tcp, 5000), None);
    }
}
