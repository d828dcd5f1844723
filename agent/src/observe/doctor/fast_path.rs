//! Whether established flows are carried by the kernel.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;

use super::{Checks, DataPath, Handles};
use crate::names::MERGING_PORT;
use crate::parts::shortcuts::SandboxCounts;

/// What came of the fast path.
#[derive(Debug)]
enum Found {
    /// Nobody wants it.
    Off,
    /// Its programs are being loaded.
    Unknown,
    /// The kernel does not take them, for that reason.
    Refused(String),
    /// It carries so many flows.
    Carries(u64),
}

/// Looks at it.
pub(super) fn examine(checks: &mut Checks, handles: &Handles, data_path: &DataPath) {
    let plane = &data_path.plane;
    let found = if !handles.config.fast_path {
        Found::Off
    } else if plane.flow_cache().is_some() {
        let workers = plane.counters().iter();
        Found::Carries(workers.map(|w| w.shortcuts.load(Ordering::Relaxed)).sum())
    } else {
        match plane.fast_path() {
            Some(Err(error)) => Found::Refused(error.to_string()),
            _ => Found::Unknown,
        }
    };
    let ways = Ways {
        by_segments: data_path.by_segments.load().values().cloned().collect(),
        closed: (*data_path.second_ports.closed()).clone(),
        kept: !data_path.second_ports.arrives(),
    };
    say(checks, &found, **data_path.shortcuts.load(), &ways);
}

/// Ways to other nodes that are not the fastest ones.
#[derive(Debug, Default)]
struct Ways {
    /// Devices by which no flow goes.
    by_segments: BTreeSet<String>,
    /// Nodes that do not answer at their second port.
    closed: BTreeSet<Ipv4Addr>,
    /// This node's own rules keep what comes to its second port.
    kept: bool,
}

impl Ways {
    /// Of the nodes behind devices.
    fn devices(&self) -> String {
        let say = |device: &String| {
            format!("; user space on {device}: it segments datagrams and not tunnels")
        };
        self.by_segments.iter().map(say).collect()
    }
}

fn say(checks: &mut Checks, found: &Found, sandboxes: SandboxCounts, ways: &Ways) {
    let name = "fast path";
    match found {
        Found::Off => checks.ok(name, "off (--fast-path off)"),
        Found::Unknown => checks.ok(name, "its programs are being tested"),
        Found::Refused(why) => checks.warn(
            name,
            format!("user space, because {why}"),
            "every packet is carried by weftd, as it was made for; the kernel takes established flows over with CAP_BPF and CAP_NET_ADMIN outside of user namespaces, from Linux 5.13 on, where the data path is IPv4",
        ),
        Found::Carries(flows) => {
            let mut text = format!("kernel (tc): {flows} flows, {} sandboxes", sandboxes.attached);
            if sandboxes.without_second > 0 {
                text += &format!(
                    "; {} without a second device, on internal networks only, go by user space",
                    sandboxes.without_second
                );
            }
            text += &ways.devices();
            if sandboxes.refused == 0 {
                match ways.closed.first() {
                    None if ways.kept => checks.warn(
                        name,
                        format!("{text}; answers through published ports do not pass this host's rules"),
                        &format!("weftd carries them, slower: let UDP {MERGING_PORT} of other nodes into the input of this host"),
                    ),
                    None => checks.ok(name, text),
                    Some(node) => checks.warn(
                        name,
                        format!(
                            "{text}; {} nodes do not answer on UDP {MERGING_PORT}, {node} first",
                            ways.closed.len()
                        ),
                        &format!("flows to them use the data path's port, where the kernel merges less: open UDP {MERGING_PORT} between the nodes"),
                    ),
                }
                return;
            }
            text += &format!("; {} could not be taken in", sandboxes.refused);
            checks.warn(
                name,
                text,
                "their packets are carried by weftd; its log says why, or their eth1 is down or narrower than the overlay",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::api::Health;

    #[test]
    fn the_line_says_who_carries_flows_and_whose_it_does_not() {
        let said = |found: Found, [attached, without_second, refused]: [usize; 3]| {
            let mut checks = Checks::default();
            let counts = SandboxCounts {
                attached,
                without_second,
                refused,
            };
            say(&mut checks, &found, counts, &Ways::default());
            let check = checks.0.remove(0);
            assert_eq!(check.health == Health::Ok, check.next.is_empty());
            check.found
        };
        assert_eq!(said(Found::Off, [0; 3]), "off (--fast-path off)");
        let refused = Found::Refused("the data path's address is IPv6".to_owned());
        assert_eq!(
            said(refused, [0; 3]),
            "user space, because the data path's address is IPv6"
        );
        assert_eq!(
            said(Found::Carries(7), [2, 0, 0]),
            "kernel (tc): 7 flows, 2 sandboxes"
        );
        assert_eq!(
            said(Found::Carries(0), [2, 1, 3]),
            "kernel (tc): 0 flows, 2 sandboxes; 1 without a second device, on internal networks \
             only, go by user space; 3 could not be taken in"
        );
        assert!(said(Found::Unknown, [0; 3]).contains("tested"));
    }

    #[test]
    fn devices_without_flows_and_closed_ports_are_named() {
        let said = |ways: &Ways| {
            let mut checks = Checks::default();
            let found = Found::Carries(1);
            say(&mut checks, &found, SandboxCounts::default(), ways);
            checks.0.remove(0)
        };
        let mut ways = Ways {
            by_segments: BTreeSet::from(["eth0".to_owned()]),
            closed: BTreeSet::new(),
            kept: false,
        };
        let check = said(&ways);
        assert_eq!(
            check.found,
            "kernel (tc): 1 flows, 0 sandboxes; user space on eth0: it segments datagrams and not tunnels"
        );
        assert_eq!(check.health, Health::Ok);
        ways.kept = true;
        let check = said(&ways);
        assert_eq!(check.health, Health::Warn);
        assert!(check.next.ends_with("into the input of this host"));
        ways.closed.insert(Ipv4Addr::new(192, 0, 2, 7));
        let check = said(&ways);
        assert_eq!(check.health, Health::Warn);
        assert!(
            check
                .found
                .ends_with("1 nodes do not answer on UDP 4790, 192.0.2.7 first"),
            "{check:?}"
        );
        assert!(check.next.ends_with("open UDP 4790 between the nodes"));
    }
}
