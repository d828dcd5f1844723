//! Rules of others that drop what weft sends through this host: a chain at the hook `forward` whose
//! policy is to drop, as docker and ufw leave it. An `accept` of weft's own does not help against it,
//! because every chain at a hook is asked.
//!
//! The chains are read, not tried: nothing comes back from a packet that is dropped, and a packet of
//! weft's own would come from an interface that no rule speaks of. Only what is certain counts; a rule
//! that cannot be judged may accept.

use serde_json::Value;

use crate::names::{BRIDGE, HOLD, MESH_IFNAME, TABLE};

/// A way of packets through the hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    from: Option<&'static str>,
    to: Option<&'static str>,
    /// The first packet of a connection, or a later one.
    new: bool,
    /// To a published port, and so translated.
    translated: bool,
}

/// Clients to replicas, and back; sandboxes to the outside, and back.
const TO_MESH: [Way; 2] = [
    Way {
        from: None,
        to: Some(MESH_IFNAME),
        new: true,
        translated: true,
    },
    Way {
        from: Some(MESH_IFNAME),
        to: None,
        new: false,
        translated: true,
    },
];
const OUT: [Way; 2] = [
    Way {
        from: Some(BRIDGE),
        to: None,
        new: true,
        translated: false,
    },
    Way {
        from: None,
        to: Some(BRIDGE),
        new: false,
        translated: false,
    },
];

/// What others drop, each with the chain that does and what to do about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    /// Connections to published ports, over IPv4 and IPv6.
    pub(super) mesh: [Option<String>; 2],
    /// What sandboxes send outside.
    pub(super) egress: Option<String>,
}

impl Dropped {
    /// Reads what `nft -j list ruleset` says. Packets from elsewhere come by the device `uplink`, and
    /// leave by it.
    pub(super) fn by(ruleset: &Value, uplink: Option<&str>) -> Self {
        let rules = Ruleset {
            objects: ruleset["nftables"]
                .as_array()
                .map_or(&[][..], Vec::as_slice),
            uplink,
        };
        Self {
            mesh: [false, true].map(|ipv6| rules.dropped(&TO_MESH, ipv6)),
            egress: rules.dropped(&OUT, false),
        }
    }
}

struct Ruleset<'a> {
    objects: &'a [Value],
    uplink: Option<&'a str>,
}

/// What becomes of a packet in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Accepted,
    Dropped,
    /// Some rule may have ended its way.
    Unknown,
    /// No rule did.
    Goes,
}

impl Ruleset<'_> {
    /// The first foreign chain that drops one of the ways, in words.
    fn dropped(&self, ways: &[Way], ipv6: bool) -> Option<String> {
        let own = if ipv6 { "ip6" } else { "ip" };
        let chains = self.objects.iter().map(|object| &object["chain"]);
        for chain in chains.filter(|chain| chain["hook"] == "forward") {
            let [family, table, name] =
                ["family", "table", "name"].map(|key| chain[key].as_str().unwrap_or_default());
            let foreign = family != "inet" || (table != TABLE && table != HOLD);
            if !foreign || (family != "inet" && family != own) {
                continue;
            }
            let drops = |way: &&Way| match self.walk((family, table, name), **way, 0) {
                Fate::Dropped => true,
                Fate::Goes => chain["policy"] == "drop",
                Fate::Accepted | Fate::Unknown => false,
            };
            let dropped: Vec<&Way> = ways.iter().filter(drops).collect();
            if dropped.is_empty() {
                continue;
            }
            let rules = dropped.iter().map(|way| {
                let device = match (way.from, way.to) {
                    (Some(from), _) => format!("iifname \"{from}\""),
                    (None, to) => format!("oifname \"{}\"", to.unwrap_or_default()),
                };
                format!("nft insert rule {family} {table} {name} {device} accept")
            });
            return Some(format!(
                "chain {name} of table {family} {table} drops what this host forwards; let it pass: {}",
                rules.collect::<Vec<_>>().join("; ")
            ));
        }
        None
    }

    fn walk(&self, (family, table, chain): (&str, &str, &str), way: Way, depth: u32) -> Fate {
        /// Chains that call each other; the kernel allows 16.
        const DEEPEST: u32 = 16;
        let mut unknown = depth > DEEPEST;
        let rules = self.objects.iter().map(|object| &object["rule"]);
        let rules = rules.filter(|rule| {
            rule["family"] == family && rule["table"] == table && rule["chain"] == chain
        });
        for rule in rules.take_while(|_| depth <= DEEPEST) {
            let Some(expressions) = rule["expr"].as_array() else {
                continue;
            };
            let mut certain = true;
            let mut verdict = None;
            for expression in expressions {
                let Some((kind, body)) = expression.as_object().and_then(|o| o.iter().next())
                else {
                    continue;
                };
                match kind.as_str() {
                    "counter" | "comment" | "log" | "mangle" | "notrack" => {}
                    "match" => match self.matches(body, way) {
                        Some(true) => {}
                        Some(false) => {
                            verdict = None;
                            certain = true;
                            break;
                        }
                        None => certain = false,
                    },
                    "accept" => verdict = Some(Fate::Accepted),
                    "drop" | "reject" => verdict = Some(Fate::Dropped),
                    "return" => verdict = Some(Fate::Goes),
                    "jump" | "goto" => {
                        let target = body["target"].as_str().unwrap_or_default();
                        let fate = self.walk((family, table, target), way, depth + 1);
                        match (kind.as_str(), fate) {
                            ("jump", Fate::Goes) => {}
                            (_, fate) => verdict = Some(fate),
                        }
                    }
                    _ => certain = false,
                }
            }
            match (verdict, certain) {
                (None, _) => {}
                (Some(fate), true) if !unknown => return fate,
                _ => unknown = true,
            }
        }
        if unknown { Fate::Unknown } else { Fate::Goes }
    }

    /// Whether a packet on its way matches; nothing where that cannot be told.
    fn matches(&self, body: &Value, way: Way) -> Option<bool> {
        let (left, right) = (&body["left"], &body["right"]);
        let any = |has: &dyn Fn(&str) -> bool| -> Option<bool> {
            let list = right.as_array().or_else(|| right["set"].as_array());
            match (right.as_str(), list) {
                (Some(one), _) => Some(has(one)),
                (None, Some(list)) => list
                    .iter()
                    .try_fold(false, |found, one| Some(found || has(one.as_str()?))),
                (None, None) => None,
            }
        };
        let found = match (left["meta"]["key"].as_str(), left["ct"]["key"].as_str()) {
            (Some("iifname" | "iif"), _) => {
                let device = way.from.or(self.uplink)?;
                any(&|name| is_named(device, name))
            }
            (Some("oifname" | "oif"), _) => {
                let device = way.to.or(self.uplink)?;
                any(&|name| is_named(device, name))
            }
            (_, Some("state")) => {
                let state = if way.new { "new" } else { "established" };
                any(&|name| name == state)
            }
            (_, Some("status")) if way.translated => {
                any(&|name| name == "dnat").filter(|found| *found)
            }
            _ => None,
        };
        match body["op"].as_str() {
            Some("==" | "in") => found,
            Some("!=") => found.map(|found| !found),
            _ => None,
        }
    }
}

/// Whether a device has a name as rules write it: `eth0`, or `eth*`.
fn is_named(device: &str, name: &str) -> bool {
    name.strip_suffix('*')
        .map_or(device == name, |start| device.starts_with(start))
}

#[cfg(test)]
mod tests {
    use weft_sys::netns::Netns;
    use weft_sys::nft;

    use super::*;

    /// What is found with these rules in a namespace of its own.
    fn found(rules: &str) -> Dropped {
        let netns = Netns::create_anonymous().expect("netns");
        let look = || {
            nft::apply(rules).expect("rules");
            Dropped::by(&nft::list_ruleset().expect("a list"), Some("up0"))
        };
        netns.run_in(look).expect("enter")
    }

    fn with(family: &str, policy: &str, rules: &str) -> Dropped {
        found(&format!(
            "table {family} filter {{ chain USER {{ return; }}; chain FORWARD {{ type filter hook forward priority 0; policy {policy}; {rules} }}; }}"
        ))
    }

    #[test]
    fn a_policy_that_drops_is_named_with_the_rule_to_add() {
        let docker = "jump USER; oifname docker0 ct state related,established accept; iifname docker0 oifname != docker0 accept; iifname docker0 oifname docker0 accept;";
        let seen = with("ip", "drop", docker);
        let said = seen.mesh[0].clone().expect("dropped");
        assert!(
            said.contains("chain FORWARD of table ip filter drops"),
            "{said}"
        );
        assert!(said.contains("nft insert rule ip filter FORWARD oifname \"weft0\" accept; nft insert rule ip filter FORWARD iifname \"weft0\" accept"), "{said}");
        assert_eq!(seen.mesh[1], None, "a table of IPv4");
        assert!(
            seen.egress
                .expect("dropped")
                .contains("iifname \"weft_gwbridge\" accept")
        );
        let both = with("inet", "drop", "");
        assert!(both.mesh[0].is_some() && both.mesh[1].is_some());
        // A rule at the end does the same.
        assert!(with("ip", "accept", "oifname lo accept; counter drop;").mesh[0].is_some());
        assert!(with("ip", "accept", "reject;").mesh[0].is_some());
    }

    #[test]
    fn what_lets_weft_pass_is_no_trouble() {
        let advice = "oifname weft0 accept; iifname weft0 accept; iifname weft_gwbridge accept; oifname weft_gwbridge accept;";
        for (policy, rules) in [
            ("accept", ""),
            ("accept", "iifname docker0 drop;"),
            ("drop", advice),
            (
                "drop",
                "iifname \"weft*\" accept; oifname \"weft*\" accept;",
            ),
            // As firewalld has it, with a rule for the zone of the bridge.
            (
                "drop",
                "ct state established,related accept; ct status dnat accept; iifname { lo, weft_gwbridge } accept;",
            ),
            // That may be so.
            ("drop", "ip saddr 10.0.0.0/8 accept;"),
            ("drop", "iifname up0 accept; oifname up0 accept;"),
        ] {
            assert_eq!(
                with("ip", policy, rules),
                Dropped::default(),
                "{policy} {rules}"
            );
        }
        assert_eq!(
            found(
                "table inet weft { chain c { type filter hook forward priority 0; policy drop; }; }"
            ),
            Dropped::default()
        );
    }
}
