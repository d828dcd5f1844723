use proptest::prelude::*;

use super::*;

/// What may be added, and taken back where the builder can.
#[derive(Debug, Clone, PartialEq)]
enum Entry {
    Local(Vni, Mac, Vec<IpAddr>, PortId),
    Remote(Vni, Mac, Vec<IpAddr>, SocketAddr),
}

impl Entry {
    fn add(&self, to: &mut SwitchBuilder) {
        match self {
            Self::Local(vni, mac, ips, port) => to.local(*vni, *mac, ips, *port),
            Self::Remote(vni, mac, ips, vtep) => to.remote(*vni, *mac, ips, *vtep),
        };
    }

    fn remove(&self, from: &mut SwitchBuilder) {
        match self {
            Self::Local(vni, mac, ips, port) => from.remove_local(*vni, *mac, ips, *port),
            Self::Remote(vni, mac, ips, vtep) => from.remove_remote(*vni, *mac, ips, *vtep),
        };
    }
}

fn vni(n: u8) -> Vni {
    Vni::new(4096 + u32::from(n)).unwrap()
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 1, last])
}

/// Few addresses, so that many claims meet.
fn entry() -> impl Strategy<Value = Entry> {
    let ips = prop::collection::vec(0_u8..5, 1..3);
    (any::<bool>(), 0_u8..2, 0_u8..4, ips, 0_u8..3).prop_map(|(local, net, mac, ips, at)| {
        let ips = ips.into_iter().map(ip).collect();
        let mac = mac_for_ip(ip(mac));
        if local {
            Entry::Local(vni(net), mac, ips, PortId(at.into()))
        } else {
            let vtep = SocketAddr::from(([192, 0, 2, at], 4789));
            Entry::Remote(vni(net), mac, ips, vtep)
        }
    })
}

fn start() -> SwitchBuilder {
    let mut builder = SwitchBuilder::new();
    for net in 0..2 {
        builder.network(NetworkEntry {
            vni: vni(net),
            mtu: 1450,
            gateways: vec![ip(0)],
        });
    }
    builder
        .vtep([192, 0, 2, 1].into())
        .virtual_ip(vni(0), ip(1));
    builder
}

proptest! {
    /// Tables that were changed step by step are those that are made anew of what is left, in any
    /// order.
    #[test]
    fn tables_are_those_of_what_is_left(
        steps in prop::collection::vec((any::<bool>(), entry(), any::<usize>()), 0..40),
    ) {
        let mut kept = start();
        let mut there: Vec<Entry> = Vec::new();
        for (adds, entry, which) in steps {
            if adds || there.is_empty() {
                entry.add(&mut kept);
                there.push(entry);
            } else {
                let gone = there.swap_remove(which % there.len());
                gone.remove(&mut kept);
            }
            let mut anew = start();
            for entry in there.iter().rev() {
                entry.add(&mut anew);
            }
            prop_assert_eq!(kept.build(), anew.build());
        }
    }
}
