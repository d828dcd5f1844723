//! Answers of published ports leave by the way that the host has for the address that was asked.
//!
//! A host with several uplinks often decides by source address (`ip rule from ADDRESS lookup TABLE`).
//! What the frame front end sends back is routed before the mesh address becomes the one that the
//! client asked, so no such rule would see it. Each is therefore repeated with a mark in place of the
//! source (`ip rule fwmark`), at the same priority, and connection tracking, which knows the address
//! that was asked, sets the mark.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use weft_sys::netlink::{Mark, Netlink, NetlinkError, Rule};
use weft_sys::nft::NftError;

use crate::kept::HostRules;
use crate::names::{MESH_IFNAME, MESH_IP, MESH_IP6, TABLE};

/// Bits of a packet's mark that are weft's: apart from those of kube-proxy (0xc000), tailscale
/// (0xff0000) and the Amazon CNI (0x80).
const MASK: u32 = 0x3f00_0000;

/// Rules that are repeated at most: as many marks as fit.
const RULES: usize = 63;

/// Name of the chain, and of the part of the host's rules.
const CHAIN: &str = "published_back";

/// Tables of the kernel: what leads there decides nothing.
const OWN_TABLES: [u32; 3] = [253, 254, 255];

/// Why answers may leave by another uplink than their questions came in by.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UplinkError {
    /// The rules of routing.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The rules that set marks.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// More than marks.
    #[error(
        "{0} rules of routing by source address are more than {RULES}: answers to published ports follow the first ones only"
    )]
    Many(usize),
}

/// Keeps the repeated rules in step with those of the host.
#[derive(Debug, Default)]
pub(crate) struct Uplinks {
    /// What the kernel was given to set marks by.
    given: Mutex<String>,
}

impl Uplinks {
    /// Compares and repairs; to be called every second. Blocks.
    ///
    /// # Errors
    /// See [`UplinkError`].
    pub(crate) fn keep(&self, host: &HostRules) -> Result<(), UplinkError> {
        let mut netlink = Netlink::open()?;
        let there = netlink.rules()?;
        let sources = by_source(&there);
        let wanted = repeated(&sources);
        let text = marks(&sources);
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let (own, others): (Vec<Rule>, _) = there.into_iter().partition(is_own);
        // An earlier agent may have left some.
        if *given != text || (text.is_empty() && !own.is_empty()) {
            if sources.is_empty() {
                host.remove(CHAIN, &removal())?;
            } else {
                host.set(CHAIN, text.clone())?;
            }
            *given = text;
        }
        for rule in wanted.iter().filter(|rule| !own.contains(rule)) {
            netlink.add_rule(rule)?;
        }
        for stale in own.iter().filter(|rule| !wanted.contains(rule)) {
            netlink.delete_rule(stale)?;
        }
        let all = others.iter().filter(|rule| decides(rule)).count();
        if all > RULES {
            return Err(UplinkError::Many(all));
        }
        Ok(())
    }
}

/// Takes away the rules of routing that an agent made. Blocks.
///
/// # Errors
/// [`NetlinkError::Kernel`].
pub(crate) fn remove() -> Result<(), NetlinkError> {
    let mut netlink = Netlink::open()?;
    for rule in netlink.rules()?.iter().filter(|rule| is_own(rule)) {
        netlink.delete_rule(rule)?;
    }
    Ok(())
}

fn is_own(rule: &Rule) -> bool {
    rule.mark.is_some_and(|mark| mark.mask == MASK)
}

/// A rule of the host that routes by source address and nothing else.
fn decides(rule: &Rule) -> bool {
    let mesh = [IpAddr::from(MESH_IP), MESH_IP6.into()];
    rule.from.prefix_len() > 0
        && rule.mark.is_none()
        && !OWN_TABLES.contains(&rule.table)
        && !mesh.iter().any(|ip| rule.from.contains(ip))
}

fn by_source(rules: &[Rule]) -> Vec<Rule> {
    let deciding = rules.iter().filter(|rule| decides(rule));
    deciding.take(RULES).cloned().collect()
}

fn mark_of(at: usize) -> u32 {
    u32::try_from(at + 1).map_or(0, |number| (number << 24) & MASK)
}

/// The same rules by mark.
fn repeated(sources: &[Rule]) -> Vec<Rule> {
    let repeat = |(at, rule): (usize, &Rule)| {
        let mark = Mark {
            value: mark_of(at),
            mask: MASK,
        };
        Rule::by_mark(mark, rule.from.addr().is_ipv4(), rule.table, rule.priority)
    };
    sources.iter().enumerate().map(repeat).collect()
}

/// What sets the marks: the first rule that holds, as the kernel asks them. Before routing, after
/// connection tracking.
fn marks(sources: &[Rule]) -> String {
    if sources.is_empty() {
        return String::new();
    }
    let mut text = format!("{}table inet {TABLE} {{ chain {CHAIN} {{\n", frame());
    for (at, rule) in sources.iter().enumerate() {
        let family = if rule.from.addr().is_ipv4() {
            "ip"
        } else {
            "ip6"
        };
        let _infallible = writeln!(
            text,
            "iifname \"{MESH_IFNAME}\" ct original {family} daddr {} meta mark set meta mark & {:#x} | {:#x} return",
            rule.from,
            !MASK,
            mark_of(at)
        );
    }
    text.push_str("}\n}\n");
    text
}

fn frame() -> String {
    format!(
        "\
table inet {TABLE} {{
    chain {CHAIN} {{
        type filter hook prerouting priority mangle; policy accept;
    }}
}}
flush chain inet {TABLE} {CHAIN}
"
    )
}

/// Takes the chain away, there or not.
fn removal() -> String {
    format!("{}delete chain inet {TABLE} {CHAIN}\n", frame())
}

#[cfg(test)]
mod tests {
    use weft_sys::netns::Netns;
    use weft_sys::nft;

    use super::*;

    fn rules(netns: &Netns) -> Vec<Rule> {
        Netlink::open_in(netns)
            .and_then(|mut n| n.rules())
            .expect("rules")
    }

    fn from(text: &str, table: u32, priority: u32) -> Rule {
        Rule::by_source(text.parse().expect("a prefix"), table, priority)
    }

    #[test]
    fn rules_of_the_host_are_repeated_and_follow_it() {
        let netns = Netns::create_anonymous().expect("netns");
        let host = HostRules::default();
        let uplinks = Uplinks::default();
        let keep = || {
            let kept = netns.run_in(|| uplinks.keep(&host));
            kept.expect("enter").expect("kept");
        };
        let own = || rules(&netns).into_iter().filter(is_own).collect::<Vec<_>>();
        let listed = || {
            let json = netns.run_in(|| nft::list_table("inet", TABLE));
            let json = json.expect("enter").expect("nft");
            json.map_or_else(String::new, |json| json.to_string())
        };
        keep();
        assert_eq!((own(), listed()), (vec![], String::new()), "nothing to do");

        let mut netlink = Netlink::open_in(&netns).expect("nl");
        let first = from("198.51.100.1/32", 77, 1000);
        let second = from("2001:db8:1::/64", 78, 1001);
        for rule in [&first, &second, &from("10.0.0.0/8", 254, 900)] {
            netlink.add_rule(rule).expect("a rule");
        }
        // One with more conditions is not repeated.
        netns
            .run_in(|| {
                let words = "rule add from 192.0.2.1 iif lo lookup 79 pref 1002";
                let mut ip = std::process::Command::new("ip");
                ip.args(words.split(' ')).status().expect("ip").success()
            })
            .expect("enter");
        keep();
        let made: Vec<_> = own().iter().map(|r| (r.table, r.priority)).collect();
        assert_eq!(made, [(77, 1000), (78, 1001)]);
        let text = listed();
        assert!(
            text.contains("198.51.100.1") && text.contains("2001:db8:1::"),
            "{text}"
        );
        let before = own();
        keep();
        assert_eq!(own(), before);

        netlink.delete_rule(&first).expect("gone");
        keep();
        let made: Vec<_> = own().iter().map(|r| (r.table, r.priority)).collect();
        assert_eq!(made, [(78, 1001)]);
        assert!(!listed().contains("198.51.100.1"));
        netlink.delete_rule(&second).expect("gone");
        keep();
        assert_eq!(own(), []);
        assert!(!listed().contains(CHAIN));
        assert_eq!(rules(&netns).iter().filter(|r| r.table == 254).count(), 3);
    }

    #[test]
    fn a_leave_takes_away_its_own_rules_only() {
        let netns = Netns::create_anonymous().expect("netns");
        let mut netlink = Netlink::open_in(&netns).expect("nl");
        let theirs = from("198.51.100.1/32", 77, 1000);
        netlink.add_rule(&theirs).expect("a rule");
        let uplinks = Uplinks::default();
        let run = || {
            uplinks.keep(&HostRules::default()).expect("kept");
            remove()
        };
        netns.run_in(run).expect("enter").expect("removed");
        let left = rules(&netns);
        assert!(
            left.contains(&theirs) && !left.iter().any(is_own),
            "{left:?}"
        );
    }
}
