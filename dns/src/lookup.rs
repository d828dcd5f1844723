//! Who a queried name is, seen from one client: the order of Swarm's `ResolveName`, gone through
//! for the client's own stack first.

use std::net::IpAddr;

use hickory_proto::rr::Name;

use crate::name;
use crate::zone::{ClientView, Entry, Holder, NetworkZone, Whose, Zone};

/// What a name stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A name of the cluster with its addresses of both families, maybe none at the moment.
    Addresses(Vec<IpAddr>),
    /// Only the cluster can hold such a name, and it does not.
    Missing,
    /// Not ours.
    Outside,
    /// A reverse name that cannot stand for an address (moby issue 46928).
    Malformed,
}

/// A target of an SRV answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) port: u16,
    pub(crate) name: Name,
    pub(crate) addresses: Vec<IpAddr>,
}

/// Addresses of `spelling`. The first network with a hit wins; networks are never merged.
///
/// `outside` says whether a name that we do not hold could be asked elsewhere.
pub(crate) fn addresses(zone: &Zone, client: &ClientView, spelling: &str, outside: bool) -> Found {
    match hit(zone, client, spelling) {
        Some(hit) => {
            let mut addresses = Vec::new();
            for holder in hit.entry.holders(hit.whose) {
                for ip in hit.addresses(holder) {
                    if !addresses.contains(ip) {
                        addresses.push(*ip);
                    }
                }
            }
            Found::Addresses(addresses)
        }
        None => unknown(zone, client, spelling, outside),
    }
}

/// Owner of the address in a reverse name, as `name.network.`.
pub(crate) fn pointer(zone: &Zone, client: &ClientView, name: &Name) -> Result<Name, Found> {
    let ip = match reverse_address(name) {
        Reverse::Address(ip) => ip,
        Reverse::Partial => return Err(Found::Outside),
        Reverse::Malformed => return Err(Found::Malformed),
    };
    attached(zone, client)
        .find_map(|network| {
            let owner = network.owner_of(&ip)?;
            network.full_name(owner)
        })
        .ok_or(Found::Outside)
}

/// What `_port._proto.service` stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ServicePorts {
    /// The service has no such port.
    Unknown,
    /// Where to reach it; empty while nothing of it is ready.
    At(Vec<Target>),
}

/// Targets of `_port._proto.service` (RFC 2782); `None` when the name is not of that form or the
/// service is not known, so that it may be asked elsewhere.
pub(crate) fn service_targets(
    zone: &Zone,
    client: &ClientView,
    spelling: &str,
) -> Option<ServicePorts> {
    let mut parts = spelling.splitn(3, '.');
    let port = parts.next()?.strip_prefix('_')?;
    let protocol = parts.next()?.strip_prefix('_')?;
    let service = parts.next()?;
    let hit = hit(zone, client, service)?;
    let network = hit.network;
    // The name of a service stands for all its tasks; `tasks.` lists them one by one.
    let each_task = hit.all || hit.name.starts_with("tasks.");
    let mut targets = Vec::new();
    let mut known_port = false;
    for holder in hit.entry.holders(hit.whose) {
        let wanted = holder.ports.iter().find(|known| {
            known.protocol.eq_ignore_ascii_case(protocol)
                && (known
                    .name
                    .as_deref()
                    .is_some_and(|n| n.eq_ignore_ascii_case(port))
                    || port.parse() == Ok(known.port))
        });
        let Some(wanted) = wanted else { continue };
        known_port = true;
        let mut add = |owner: &str, addresses: Vec<IpAddr>| {
            if let Some(name) = network.full_name(owner) {
                targets.push(Target {
                    port: wanted.port,
                    name,
                    addresses,
                });
            }
        };
        if each_task {
            // A task without a name of its own, as those have that are not ready, is no target.
            for ip in hit.addresses(holder) {
                if let Some(owner) = network.owner_of(ip) {
                    add(owner, vec![*ip]);
                }
            }
        } else if !holder.addresses.is_empty() {
            add(hit.name, holder.addresses.to_vec());
        }
    }
    Some(if known_port {
        ServicePorts::At(targets)
    } else {
        ServicePorts::Unknown
    })
}

/// A name that somebody has.
struct Hit<'z, 'q> {
    network: &'z NetworkZone,
    /// The name on that network.
    name: &'q str,
    entry: &'z Entry,
    /// The claims of it that count.
    whose: Whose<'z>,
    /// It is that of all tasks, and `entry` that of `tasks.`.
    all: bool,
}

impl<'z, 'q> Hit<'z, 'q> {
    /// `name` on `network`, where a claim counts.
    fn on(network: &'z NetworkZone, name: &'q str, whose: Whose<'z>) -> Option<Self> {
        let known = |name: &str| network.names.get(name).filter(|entry| entry.is_for(whose));
        let all = || {
            let tasks = name.strip_prefix("all-")?;
            known(tasks).filter(|_| tasks.starts_with("tasks."))
        };
        let (entry, all) = match known(name) {
            Some(entry) => (entry, false),
            None => (all()?, true),
        };
        Some(Self {
            network,
            name,
            entry,
            whose,
            all,
        })
    }

    fn addresses<'h>(&self, holder: &'h Holder) -> impl Iterator<Item = &'h IpAddr> {
        let others: &[IpAddr] = if self.all { &holder.others } else { &[] };
        holder.addresses.iter().chain(others)
    }
}

/// The claims on `spelling`: whole on any attached network, then split at each dot from the right
/// into a name and the name of an attached network. Those of the client's stack come first, on all
/// of its networks.
fn hit<'z, 'q>(zone: &'z Zone, client: &'z ClientView, spelling: &'q str) -> Option<Hit<'z, 'q>> {
    let own = client.stack.as_deref().map(Whose::Stack);
    own.into_iter().chain([Whose::Everybody]).find_map(|whose| {
        attached(zone, client)
            .find_map(|network| Hit::on(network, spelling, whose))
            .or_else(|| {
                splits(spelling).find_map(|(left, right)| {
                    attached(zone, client)
                        .filter(|network| network.is_named(right))
                        .find_map(|network| Hit::on(network, left, whose))
                })
            })
    })
}

/// Names that a public domain could hold too are asked outside when there is an outside: a
/// network named `dev` must not hide every site under `.dev`.
fn unknown(zone: &Zone, client: &ClientView, spelling: &str, outside: bool) -> Found {
    let under_network = splits(spelling)
        .any(|(_, right)| attached(zone, client).any(|network| network.is_named(right)));
    let of_tasks = spelling
        .strip_prefix("all-")
        .unwrap_or(spelling)
        .strip_prefix("tasks.")
        .is_some_and(|rest| !rest.contains('.'));
    if (under_network || of_tasks) && !(outside && name::may_be_public(spelling)) {
        Found::Missing
    } else {
        Found::Outside
    }
}

fn attached<'z>(zone: &'z Zone, client: &'z ClientView) -> impl Iterator<Item = &'z NetworkZone> {
    client
        .networks
        .iter()
        .filter_map(|id| zone.networks.get(id).map(|network| &**network))
}

fn splits(spelling: &str) -> impl Iterator<Item = (&str, &str)> {
    spelling
        .rmatch_indices('.')
        .map(|(at, _)| (&spelling[..at], &spelling[at + 1..]))
}

enum Reverse {
    Address(IpAddr),
    /// A zone cut, or a name that has other uses than one address (RFC 2317, DNS-SD).
    Partial,
    Malformed,
}

fn reverse_address(name: &Name) -> Reverse {
    let (labels, full) = {
        let mut top = name.iter().rev();
        let arpa = top.next().is_some_and(|l| l.eq_ignore_ascii_case(b"arpa"));
        let family = top.next().unwrap_or_default();
        if arpa && family.eq_ignore_ascii_case(b"in-addr") {
            (name.iter().len() - 2, 4)
        } else if arpa && family.eq_ignore_ascii_case(b"ip6") {
            (name.iter().len() - 2, 32)
        } else {
            return Reverse::Partial;
        }
    };
    if labels != full {
        return Reverse::Partial;
    }
    match name.parse_arpa_name() {
        Ok(net) => Reverse::Address(net.addr()),
        Err(_) => Reverse::Malformed,
    }
}
