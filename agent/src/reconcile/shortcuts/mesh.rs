//! The program in front of `weft0`, by which clients of published ports come.

use std::sync::Arc;

use weft_dataplane::{Port, Shortcut};
use weft_sys::netlink::{Hook, Link, Netlink, NetlinkError};
use weft_wire::Mac;

use crate::names::MESH_IFNAME;
use crate::parts::data_path::DataPath;

/// What became of it.
#[derive(Debug, Default)]
pub(super) struct MeshDevice {
    /// It is in front of this one.
    present: Option<Shortcut>,
    /// What was said when it could not be.
    refused: Option<String>,
    /// What an earlier agent has put there was taken away.
    cleared: bool,
}

impl MeshDevice {
    /// Puts the program there where it is `wanted`, or takes it away. With `again`, one that is there
    /// is put there once more, should anybody have taken it away, and what failed is tried again.
    pub(super) fn keep(
        &mut self,
        data_path: &DataPath,
        (host, links): (&mut Netlink, &[Link]),
        (wanted, again): (bool, bool),
    ) {
        let Some(port) = &data_path.mesh_port else {
            return;
        };
        let cache = data_path.plane.flow_cache().filter(|_| wanted);
        let (Some(cache), Some(at)) = (cache, shortcut(links)) else {
            self.clear(port, host);
            return;
        };
        let done = self.present == Some(at) || self.refused.is_some();
        if done && !again {
            return;
        }
        self.cleared = false;
        match cache.attach_mesh(host, MESH_IFNAME) {
            Ok(()) => {
                port.shortcut.store(Some(Arc::new(at)));
                self.present = Some(at);
                self.refused = None;
            }
            Err(error) => {
                let (before, text) = (self.refused.take(), error.to_string());
                self.clear(port, host);
                if before.as_ref() != Some(&text) {
                    tracing::warn!(
                        device = MESH_IFNAME, %error,
                        "connections through published ports are carried by this process alone"
                    );
                }
                self.refused = Some(text);
            }
        }
    }

    fn clear(&mut self, port: &Port, host: &mut Netlink) {
        self.present = None;
        self.refused = None;
        port.shortcut.store(None);
        if self.cleared {
            return;
        }
        match host.remove_program(MESH_IFNAME, Hook::Egress) {
            Ok(()) => self.cleared = true,
            Err(error) => tracing::debug!(device = MESH_IFNAME, %error, "it keeps its program"),
        }
    }
}

/// Takes the program away, of whatever agent: the node leaves its swarm. A device that is gone is
/// success.
///
/// # Errors
/// [`NetlinkError`].
pub(super) fn remove() -> Result<(), NetlinkError> {
    Netlink::open()?.remove_program(MESH_IFNAME, Hook::Egress)
}

/// The device as it is by now: one that was made anew has another number.
fn shortcut(links: &[Link]) -> Option<Shortcut> {
    let link = links.iter().find(|link| link.name == MESH_IFNAME)?;
    Some(Shortcut::of_mesh(link.index, Mac(link.mac?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_is_found_by_its_name() {
        let link = |index, name: &str, mac| Link {
            index,
            name: name.to_owned(),
            mac,
            mtu: 1450,
            up: true,
            carrier: true,
            ethernet: true,
            tied_to: None,
            kind: Some("tun".to_owned()),
            master: None,
            alias: None,
            arp: true,
            locked: false,
        };
        let own = [2, 0x42, 169, 254, 77, 1];
        let links = [
            link(2, "eth0", Some([2; 6])),
            link(7, MESH_IFNAME, Some(own)),
        ];
        let expected = Shortcut::of_mesh(7, Mac(own));
        assert_eq!(shortcut(&links), Some(expected));
        assert_eq!((expected.second, expected.host_end), (7, 7));
        assert_eq!(expected.number, weft_fastpath::MESH_NUMBER);
        assert_eq!(shortcut(&links[..1]), None);
        assert_eq!(shortcut(&[link(7, MESH_IFNAME, None)]), None);
    }
}
