//! The device at which the kernel merges the packets of flows: the engine for that (GRO) looks into
//! tunnels only at a port that a tunnel device has. It is idle otherwise: `pop` stands in front of the
//! underlay. What comes past it are answers to clients of published ports, which the device takes out of
//! the tunnel as devices outside must not see its marks; all else is dropped.

use std::net::{SocketAddr, SocketAddrV4};

use weft_dataplane::Dataplane;
use weft_fastpath::FlowCache;
use weft_sys::netlink::{Link, Netlink, NetlinkError};

use crate::names::{MERGING, MERGING_PORT};
use crate::parts::data_path::DataPath;
use crate::sandbox::{SandboxError, sysctl};

/// What became of it.
#[derive(Debug, Default)]
pub(super) struct Merging {
    is_open: bool,
    refused: Option<String>,
}

impl Merging {
    /// Before programs are in front of the underlay: what comes to the second port goes on to that of
    /// the data path from their first packet on. That needs no device, so nobody loses packets who has
    /// not heard yet that there is none.
    pub(super) fn begin(plane: &Dataplane, at: SocketAddr) {
        if let (Some(cache), Some(own)) = (plane.flow_cache(), second(at)) {
            cache.second_port.open(own, at.port());
        }
    }

    /// Makes the device and keeps it, or takes it away where no flow is carried by the kernel. With
    /// `again`, what failed is tried once more.
    pub(super) fn keep(
        &mut self,
        data_path: &DataPath,
        (host, links): (&mut Netlink, &[Link]),
        again: bool,
    ) {
        let found = links.iter().find(|link| link.name == MERGING);
        self.look(data_path, (host, found), again);
        // What comes there goes on to the workers without it, but for answers to clients outside.
        let answered = data_path.plane.set_decapsulation(self.is_open);
        if !answered && data_path.second_ports.arrives() {
            tracing::warn!(
                port = MERGING_PORT,
                "rules of this host keep UDP of other nodes from its input: answers through published \
                 ports are carried by this process"
            );
        }
        data_path.second_ports.set_arrives(answered);
    }

    fn look(
        &mut self,
        data_path: &DataPath,
        (host, found): (&mut Netlink, Option<&Link>),
        again: bool,
    ) {
        let wanted = data_path.plane.flow_cache();
        let (Some(cache), Some(_)) = (wanted, second(data_path.at)) else {
            // Of an earlier agent.
            if found.is_some() {
                remove(host);
            }
            self.is_open = false;
            return;
        };
        let is_up = self.is_open && found.is_some_and(|link| link.up);
        if (is_up || self.refused.is_some()) && !again {
            return;
        }
        let made = make(cache, host);
        self.is_open = made.is_ok();
        match made {
            Ok(()) => {
                self.refused = None;
                data_path.second_ports.set_own(MERGING_PORT);
            }
            Err(error) => {
                data_path.second_ports.set_own(0);
                // Without its program it would take packets for the host.
                remove(host);
                let text = error.to_string();
                if self.refused.as_ref() != Some(&text) {
                    tracing::warn!(
                        device = MERGING, port = MERGING_PORT, %error,
                        "the kernel merges no packets of flows that it carries: they are slower where \
                         devices deliver them one by one"
                    );
                }
                self.refused = Some(text);
            }
        }
    }
}

/// Takes the device away, of whatever agent: the node leaves its swarm.
///
/// # Errors
/// [`NetlinkError`].
pub(super) fn remove_device() -> Result<(), NetlinkError> {
    Netlink::open()?.delete_link(MERGING)
}

fn remove(host: &mut Netlink) {
    if let Err(error) = host.delete_link(MERGING) {
        tracing::debug!(device = MERGING, %error, "a device was not taken away");
    }
}

/// Where it is, of a node with this end of the data path; nowhere where that has the port itself.
fn second(at: SocketAddr) -> Option<SocketAddrV4> {
    match at {
        SocketAddr::V4(at) if at.port() != MERGING_PORT => {
            Some(SocketAddrV4::new(*at.ip(), MERGING_PORT))
        }
        _ => None,
    }
}

fn make(cache: &FlowCache, host: &mut Netlink) -> Result<(), SandboxError> {
    host.add_vxlan_external(MERGING, MERGING_PORT)?;
    sysctl::set_if_there(&format!("net/ipv6/conf/{MERGING}/disable_ipv6"), "1")?;
    host.set_arp(MERGING, false)?;
    // Before it is up: from then on packets come.
    cache.attach_sink(host, MERGING)?;
    Ok(host.set_up(MERGING, true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_at_the_data_paths_address_and_never_at_its_port() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let expected = "192.0.2.1:4790".parse().ok();
        assert_eq!(second(at("192.0.2.1:4789")), expected);
        assert_eq!(second(at("192.0.2.1:8472")), expected);
        assert_eq!(second(at("192.0.2.1:4790")), None);
        assert_eq!(second(at("[2001:db8::1]:4789")), None);
    }
}
