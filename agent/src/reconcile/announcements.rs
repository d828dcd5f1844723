//! Neighbours in sandboxes learn that an address has another Ethernet address.
//!
//! That of a member follows from its IP address, so it is the addresses of static peers that change
//! hands: a peer gets another `--mac`, or a member takes an address that was a peer's. The kernels of
//! sandboxes would go on sending to the old one until they doubt it, half a minute and more.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weft_sys::tap::VNET_HEADER_LEN;
use weft_vxlan::Switch;
use weft_wire::reply::{ANNOUNCEMENT_LEN, announcement};
use weft_wire::{Mac, Vni};

use crate::compile::known::LocalPort;

/// Addresses that are remembered; more static peers than this in the life of an agent are not.
const REMEMBERED: usize = 4096;

/// What neighbours were last told of addresses that are, or were, those of static peers.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    told: BTreeMap<(Vni, IpAddr), Mac>,
    started: bool,
}

impl Announcements {
    /// Takes in new tables, and the addresses of static peers; what is to be announced.
    pub(super) fn take(
        &mut self,
        switch: &Switch,
        peers: impl Iterator<Item = (Vni, IpAddr)>,
    ) -> Vec<(Vni, IpAddr, Mac)> {
        let mut changed = Vec::new();
        for ((vni, ip), told) in &mut self.told {
            let now = switch.neighbor(*vni, *ip).filter(|mac| mac != told);
            if let Some(mac) = now {
                *told = mac;
                changed.push((*vni, *ip, mac));
            }
        }
        for (vni, ip) in peers {
            let Some(mac) = switch.neighbor(vni, ip) else {
                continue;
            };
            if self.told.len() < REMEMBERED && !self.told.contains_key(&(vni, ip)) {
                self.told.insert((vni, ip), mac);
                // Who starts knows nothing of before, and a member may have had it.
                if self.started {
                    changed.push((vni, ip, mac));
                }
            }
        }
        self.started = true;
        changed
    }
}

/// Writes announcements to the ports of their networks on this node. One that is not taken is lost:
/// its sandbox asks again by itself, later.
pub(super) fn announce(changed: &[(Vni, IpAddr, Mac)], local: &[LocalPort]) {
    for (vni, ip, mac) in changed {
        let mut frame = [0; VNET_HEADER_LEN + ANNOUNCEMENT_LEN];
        let Some((_, out)) = frame.split_first_chunk_mut::<VNET_HEADER_LEN>() else {
            return;
        };
        let Some(out) = out.first_chunk_mut() else {
            return;
        };
        let len = VNET_HEADER_LEN + announcement(*ip, *mac, out);
        let mut told = 0;
        for port in local.iter().filter(|port| port.port.vni == *vni) {
            let written = frame.get(..len).map(|frame| port.port.tap.write(frame));
            told += usize::from(matches!(written, Some(Ok(_))));
        }
        tracing::info!(%ip, %mac, told, "an address has another Ethernet address");
    }
}

#[cfg(test)]
mod tests {
    use weft_vxlan::{NetworkEntry, SwitchBuilder};

    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 1, 220));
    const PEER: Mac = Mac([2, 0xaa, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0xaa, 0, 0, 0, 2]);
    const MEMBER: Mac = Mac([2, 0x42, 10, 0, 1, 220]);

    fn vni() -> Vni {
        Vni::new(4096).expect("24 bits")
    }

    fn with(mac: Option<Mac>) -> Switch {
        let mut builder = SwitchBuilder::new();
        builder.network(NetworkEntry {
            vni: vni(),
            mtu: 1450,
            gateways: Vec::new(),
        });
        if let Some(mac) = mac {
            let vtep = "192.0.2.1:4789".parse().expect("an address");
            builder.remote(vni(), mac, &[IP], vtep);
        }
        builder.build()
    }

    #[test]
    fn who_takes_over_an_address_of_a_peer_is_announced_once() {
        let mut announcements = Announcements::default();
        let mut take = |mac: Option<Mac>, is_peer: bool| {
            let peers = is_peer.then_some((vni(), IP)).into_iter();
            let changed = announcements.take(&with(mac), peers);
            changed
                .into_iter()
                .map(|(_, _, mac)| mac)
                .collect::<Vec<_>>()
        };
        assert_eq!(take(Some(PEER), true), [], "at the start");
        assert_eq!(take(Some(PEER), true), []);
        assert_eq!(take(Some(OTHER), true), [OTHER], "another --mac");
        assert_eq!(take(None, false), [], "nobody has it");
        assert_eq!(take(Some(MEMBER), false), [MEMBER]);
        assert_eq!(take(Some(MEMBER), false), []);
        assert_eq!(take(None, false), []);
        assert_eq!(take(Some(PEER), true), [PEER], "and back");
    }

    #[test]
    fn a_peer_that_comes_later_is_announced() {
        let mut announcements = Announcements::default();
        announcements.take(&with(Some(MEMBER)), std::iter::empty());
        let changed = announcements.take(&with(Some(PEER)), std::iter::once((vni(), IP)));
        assert_eq!(changed, [(vni(), IP, PEER)]);
    }
}
