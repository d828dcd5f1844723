//! Programs in front of the devices of the underlay.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use weft_dataplane::{Dataplane, UnderlayRoute};
use weft_sys::netlink::{Hook, Link, Netlink, NetlinkError};

use crate::names::{MERGING, MERGING_PORT, PORT_PREFIX};
use crate::parts::underlay::Hop;

/// Devices by number.
type Devices = BTreeMap<u32, String>;

/// The devices that programs are in front of, or cannot be.
#[derive(Debug, Default)]
pub(super) struct UnderlayDevices {
    present: Devices,
    refused: BTreeSet<u32>,
}

impl UnderlayDevices {
    /// Puts programs in front of the devices that lead to other nodes, tells the workers of those
    /// ways, and takes programs away that are on no way any more. `merging` are the VTEPs that answer at
    /// their second port. With `again`, those that are there
    /// are put there once more, should anybody have taken them away.
    pub(super) fn keep(
        &mut self,
        plane: &Dataplane,
        (host, links): (&mut Netlink, &[Link]),
        (hops, merging): (&BTreeMap<Ipv4Addr, Hop>, &BTreeSet<Ipv4Addr>),
        again: bool,
    ) {
        let Some(cache) = plane.flow_cache() else {
            return;
        };
        let wanted = devices(hops, links);
        for (index, name) in &wanted {
            if self.present.contains_key(index) && !again {
                continue;
            }
            match cache.attach_underlay(host, name) {
                Ok(()) => {
                    self.present.insert(*index, name.clone());
                    self.refused.remove(index);
                }
                Err(error) => {
                    self.present.remove(index);
                    if self.refused.insert(*index) {
                        tracing::warn!(
                            device = name, %error,
                            "flows by this device are carried by this process"
                        );
                    }
                }
            }
        }
        // Before any of them goes: no entry is made anew for a device without a program.
        plane.set_underlay_routes(routes(hops, &self.present, merging));
        let gone: Vec<u32> = self
            .present
            .keys()
            .filter(|index| !wanted.contains_key(index))
            .copied()
            .collect();
        for index in gone {
            self.present.remove(&index);
            // It may have another name by now.
            if let Some(link) = links.iter().find(|link| link.index == index) {
                remove(host, &link.name);
            }
        }
        self.refused.retain(|index| wanted.contains_key(index));
    }

    /// Whether a program of this agent is in front of any.
    pub(super) fn is_any(&self) -> bool {
        !self.present.is_empty()
    }

    /// Takes away what an earlier agent has put in front of other devices.
    pub(super) fn sweep(&self, host: &mut Netlink, links: &[Link]) {
        for link in links.iter().filter(|link| may_have_program(link)) {
            if !self.present.contains_key(&link.index) {
                remove(host, &link.name);
            }
        }
    }
}

/// Takes all programs away that are in front of devices of the underlay, of whatever agent: the node
/// leaves its swarm.
///
/// # Errors
/// [`NetlinkError`] when devices cannot be listed.
pub(super) fn remove_all() -> Result<(), NetlinkError> {
    let mut host = Netlink::open()?;
    let links = host.links()?;
    UnderlayDevices::default().sweep(&mut host, &links);
    Ok(())
}

fn remove(host: &mut Netlink, name: &str) {
    if let Err(error) = host.remove_program(name, Hook::Ingress) {
        tracing::debug!(device = name, %error, "a program was not taken away");
    }
}

/// Those of sandboxes, and the one at which packets are merged, have programs of other kinds.
fn may_have_program(link: &Link) -> bool {
    link.ethernet && !link.name.starts_with(PORT_PREFIX) && link.name != MERGING
}

/// The devices that lead to other nodes, by the names that they have by now.
fn devices(hops: &BTreeMap<Ipv4Addr, Hop>, links: &[Link]) -> Devices {
    let numbers: BTreeSet<u32> = hops.values().map(|hop| hop.index).collect();
    let links = links.iter().filter(|link| numbers.contains(&link.index));
    links.map(|link| (link.index, link.name.clone())).collect()
}

/// The ways by devices with a program.
fn routes(
    hops: &BTreeMap<Ipv4Addr, Hop>,
    present: &Devices,
    merging: &BTreeSet<Ipv4Addr>,
) -> Vec<(Ipv4Addr, UnderlayRoute)> {
    let hops = hops.iter();
    hops.filter(|(_, hop)| present.contains_key(&hop.index))
        .map(|(vtep, hop)| {
            let route = UnderlayRoute {
                device: hop.index,
                next_hop: hop.next_hop,
                second_port: merging.contains(vtep).then_some(MERGING_PORT),
            };
            (*vtep, route)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            mac: None,
            mtu: 1500,
            up: true,
            carrier: true,
            ethernet: true,
            tied_to: None,
            kind: None,
            master: None,
            alias: None,
            arp: true,
            locked: false,
        }
    }

    #[test]
    fn ways_lead_by_devices_that_are_there_and_have_a_program() {
        let vtep = |host| Ipv4Addr::new(192, 0, 2, host);
        let hop = |index: u32, next_hop| Hop {
            device: "before".to_owned(),
            index,
            next_hop,
        };
        let router = vtep(1);
        let hops = BTreeMap::from([
            (vtep(2), hop(3, vtep(2))),
            (vtep(3), hop(3, vtep(3))),
            (vtep(4), hop(4, router)),
            (vtep(5), hop(9, router)),
        ]);
        let links = [link(2, "eth0"), link(3, "eth1"), link(4, "eth2")];
        let found = devices(&hops, &links);
        let expected = [(3, "eth1"), (4, "eth2")].map(|(index, name)| (index, name.to_owned()));
        assert_eq!(found, Devices::from(expected));
        let present = Devices::from([(4, "eth2".to_owned())]);
        let route = UnderlayRoute {
            device: 4,
            next_hop: router,
            second_port: None,
        };
        let merging = BTreeSet::from([vtep(3)]);
        assert_eq!(routes(&hops, &present, &merging), [(vtep(4), route)]);
        let route = UnderlayRoute {
            second_port: Some(4790),
            ..route
        };
        let merging = BTreeSet::from([vtep(4)]);
        assert_eq!(routes(&hops, &present, &merging), [(vtep(4), route)]);
        assert!(!may_have_program(&link(7, "weftgro0")));
        assert!(may_have_program(&links[0]));
        assert!(!may_have_program(&link(5, "wgw4026532281")));
        let tunnel = Link {
            ethernet: false,
            ..link(6, "wg0")
        };
        assert!(!may_have_program(&tunnel));
    }
}
