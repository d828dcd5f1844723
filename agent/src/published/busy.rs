//! Wanted ports that could not be opened, and who holds them.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use super::owner::Holder;
use super::port::{BusyPort, Key, Published};

/// Who holds a port is looked up again after this time: it reads all of `/proc`.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct BusyPorts(BTreeMap<Key, Busy>);

#[derive(Debug)]
struct Busy {
    port: BusyPort,
    kind: io::ErrorKind,
    asked: Instant,
    told: bool,
    /// Only near ends of connections have the port: nobody else waits for clients there.
    connections: bool,
}

/// Said in place of a holder where a port is published on an address of another node.
pub(crate) const NO_ADDRESS: &str = "nobody: this node does not have the address";

impl BusyPorts {
    pub(super) fn get(&self, key: &Key) -> Option<&BusyPort> {
        self.0.get(key).map(|busy| &busy.port)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &BusyPort> {
        self.0.values().map(|busy| &busy.port)
    }

    pub(super) fn retain(&mut self, wanted: impl Fn(&Key) -> bool) {
        self.0.retain(|key, _| wanted(key));
    }

    pub(super) fn remove(&mut self, key: &Key) {
        self.0.remove(key);
    }

    /// Takes note of why a port could not be opened. True when its holder is to be looked up, and
    /// told by [`BusyPorts::held_by`]: the reason is new, or the last look was long ago.
    pub(super) fn note(
        &mut self,
        key: Key,
        published: &Published,
        error: &io::Error,
        now: Instant,
    ) -> bool {
        let kind = error.kind();
        let known = self.0.get(&key).filter(|busy| busy.kind == kind);
        let due = known.is_none_or(|busy| now.duration_since(busy.asked) >= LOOK_UP_AGAIN);
        if known.is_none() {
            let busy = Busy {
                port: busy_port(published, error),
                kind,
                asked: now,
                told: false,
                connections: false,
            };
            self.0.insert(key, busy);
        }
        let Some(busy) = self.0.get_mut(&key) else {
            return false;
        };
        busy.port.service.clone_from(&published.service);
        if kind == io::ErrorKind::AddrNotAvailable {
            // As it should be on every node but that of the address.
            return false;
        }
        if busy.connections {
            // And no front end that could do without the listener.
            busy.tell();
        }
        if kind != io::ErrorKind::AddrInUse {
            busy.tell();
            return false;
        }
        if due {
            busy.asked = now;
        }
        due
    }

    /// Who holds a port, as far as it could be found out.
    pub(super) fn held_by(&mut self, key: &Key, holder: Option<&Holder>) {
        let Some(busy) = self.0.get_mut(key) else {
            return;
        };
        if busy.kind == io::ErrorKind::AddrInUse {
            busy.port.owner = holder.map_or_else(unknown_holder, Holder::to_string);
            busy.connections = matches!(holder, Some(Holder::Connection(_)));
            // The frame front end does without the listener.
            if !busy.connections {
                busy.tell();
            }
        }
    }

    /// The connection that has a port, where nothing else does.
    pub(super) fn connection_at(&self, key: &Key) -> Option<&str> {
        let busy = self.0.get(key).filter(|busy| busy.connections)?;
        Some(&busy.port.owner)
    }
}

impl Busy {
    /// Once for each port and reason.
    fn tell(&mut self) {
        if !self.told {
            self.told = true;
            tracing::warn!(
                service = self.port.service,
                port = self.port.port,
                protocol = %self.port.protocol,
                owner = self.port.owner,
                "cannot accept a published port on this node; free it, or publish another one"
            );
        }
    }
}

fn unknown_holder() -> String {
    "another process".to_owned()
}

fn busy_port(published: &Published, error: &io::Error) -> BusyPort {
    let owner = match error.kind() {
        io::ErrorKind::AddrInUse => unknown_holder(),
        io::ErrorKind::AddrNotAvailable => NO_ADDRESS.to_owned(),
        io::ErrorKind::PermissionDenied => "nobody: weftd may not open this port".to_owned(),
        _ => format!("unknown: {error}"),
    };
    BusyPort {
        host_ip: published.host_ip,
        port: published.port,
        protocol: published.protocol,
        service: published.service.clone(),
        owner,
    }
}

#[cfg(test)]
mod tests {
    use weft_model::objects::Protocol;

    use super::super::owner::Owner;
    use super::*;

    #[test]
    fn the_holder_is_looked_up_when_the_reason_is_new_and_then_seldom() {
        let published = Published {
            host_ip: None,
            port: 80,
            protocol: Protocol::Tcp,
            service: "web".to_owned(),
            mode: weft_model::objects::PublishMode::Ingress,
            client_address: weft_model::objects::ClientAddress::Keep,
            mesh_port: 80,
            serving: true,
            limit_per_client: 0,
            ipv6: true,
        };
        let key = (None, 80, Protocol::Tcp);
        let in_use = io::Error::from(io::ErrorKind::AddrInUse);
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let mut busy = BusyPorts::default();
        let owner = |busy: &BusyPorts| busy.iter().next().map(|b| b.owner.clone());
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        assert!(busy.note(key, &published, &in_use, at(0)));
        assert_eq!(owner(&busy).as_deref(), Some("another process"));
        let nginx = Owner {
            program: "nginx".to_owned(),
            pid: 812,
        };
        let nginx = Holder::Program(nginx);
        busy.held_by(&key, Some(&nginx));
        assert!(!busy.note(key, &published, &in_use, at(29)));
        assert_eq!(owner(&busy).as_deref(), Some("nginx (pid 812)"));
        assert!(busy.note(key, &published, &in_use, at(30)));
        assert!(!busy.note(key, &published, &in_use, at(31)));
        assert!(!busy.note(key, &published, &denied, at(32)));
        // An answer that comes late.
        busy.held_by(&key, Some(&nginx));
        assert_eq!(
            owner(&busy).as_deref(),
            Some("nobody: weftd may not open this port")
        );
        assert!(busy.note(key, &published, &in_use, at(33)));
        busy.remove(&key);
        busy.held_by(&key, None);
        assert_eq!(owner(&busy), None);
    }
}
