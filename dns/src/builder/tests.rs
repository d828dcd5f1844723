use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::lookup::{Found, addresses};
use crate::zone::{ClientView, Whose};

#[derive(Debug, Clone)]
enum Object {
    Service(ServiceNames),
    Endpoint(EndpointNames),
}

impl Object {
    fn add(&self, network: &str, to: &mut ZoneBuilder) {
        match self {
            Self::Service(names) => to.service(network, names),
            Self::Endpoint(names) => to.endpoint(network, names),
        }
        .unwrap();
    }

    fn remove(&self, network: &str, from: &mut ZoneBuilder) {
        match self {
            Self::Service(names) => from.remove_service(network, names),
            Self::Endpoint(names) => from.remove_endpoint(network, names),
        }
        .unwrap();
    }
}

/// Those that services and clients are of.
const STACKS: [Option<&str>; 3] = [None, Some("shop"), Some("blog")];

/// Few names and addresses, so that many objects claim the same; one that DNS cannot carry.
fn object() -> impl Strategy<Value = Object> {
    let name = || prop::sample::select(vec!["web", "db", "WEB", "w", "tasks.db", "sp ace"]);
    let names = || prop::collection::vec(name(), 0..3);
    let ips = || prop::collection::vec(0_u8..4, 0..3);
    let what = (any::<bool>(), name(), any::<bool>(), 0..STACKS.len());
    (what, names(), names(), ips(), ips()).prop_map(
        |((is_service, name, flag, stack), aliases, inside, ips, others)| {
            let owned = |names: Vec<&str>| -> Vec<String> {
                names.into_iter().map(str::to_owned).collect()
            };
            let (aliases, stack_aliases) = (owned(aliases), owned(inside));
            let all = |ips: Vec<u8>| -> Vec<IpAddr> {
                ips.into_iter().map(|n| [10, 0, 0, n].into()).collect()
            };
            let (ips, other_tasks) = (all(ips), all(others));
            let stack = STACKS[stack].map(str::to_owned);
            if is_service {
                Object::Service(ServiceNames {
                    name: name.to_owned(),
                    stack,
                    aliases,
                    stack_aliases,
                    mode: if flag {
                        ResolutionMode::Vip
                    } else {
                        ResolutionMode::Dnsrr
                    },
                    vips: ips.clone(),
                    tasks: ips,
                    other_tasks,
                    ports: Vec::new(),
                })
            } else {
                Object::Endpoint(EndpointNames {
                    name: name.to_owned(),
                    stack,
                    hostnames: vec!["host".to_owned()],
                    aliases,
                    ips,
                })
            }
        },
    )
}

/// What a client of both networks, `a` first, is told of a name, by the rules alone: nothing where
/// nobody has it.
fn told(there: &[(&str, Object)], stack: Option<&str>, name: &str) -> Option<BTreeSet<IpAddr>> {
    let own = stack.map(|stack| (Some(stack), true));
    own.into_iter()
        .chain([(None, false)])
        .find_map(|(stack, inside)| {
            ["a", "b"].into_iter().find_map(|network| {
                let there = there.iter().filter(|(of, _)| *of == network);
                let claims = there.flat_map(|(_, object)| claims(object, name));
                let counts = |claim: &Simple| {
                    if inside {
                        claim.stack.as_deref() == stack
                    } else {
                        claim.open
                    }
                };
                let counting: Vec<Simple> = claims.filter(counts).collect();
                let strongest = counting.iter().map(|claim| claim.tier).min()?;
                let winners = counting.iter().filter(|claim| claim.tier == strongest);
                Some(winners.flat_map(|claim| claim.ips.clone()).collect())
            })
        })
}

/// A claim of one name.
struct Simple {
    tier: Tier,
    stack: Option<String>,
    /// Everybody is told.
    open: bool,
    ips: Vec<IpAddr>,
}

/// The claims of an object on a name.
fn claims(object: &Object, asked: &str) -> Vec<Simple> {
    let mut found = Vec::new();
    match object {
        Object::Service(service) => {
            let names = [(&service.name, Tier::ServiceName, true)];
            let aliases = service.aliases.iter();
            let aliases = aliases.map(|alias| (alias, Tier::ServiceAlias, true));
            let inside = service.stack_aliases.iter();
            let inside = inside.map(|alias| (alias, Tier::ServiceAlias, false));
            let inside = inside.filter(|_| service.stack.is_some());
            let each = service.tasks.clone();
            let own = match service.mode {
                ResolutionMode::Vip => (service.vips.clone(), Vec::new()),
                ResolutionMode::Dnsrr => (each.clone(), service.other_tasks.clone()),
            };
            for (name, tier, open) in names.into_iter().chain(aliases).chain(inside) {
                let name = name.to_lowercase();
                for (name, (ips, others)) in [
                    (
                        format!("tasks.{name}"),
                        (each.clone(), service.other_tasks.clone()),
                    ),
                    (name, own.clone()),
                ] {
                    let all = asked == format!("all-{name}") && name.starts_with("tasks.");
                    if name == asked || all {
                        let others = others.into_iter().filter(|_| all);
                        found.push(Simple {
                            tier,
                            stack: service.stack.clone(),
                            open,
                            ips: ips.into_iter().chain(others).collect(),
                        });
                    }
                }
            }
        }
        Object::Endpoint(endpoint) => {
            let names = [(&endpoint.name, Tier::EndpointName)];
            let aliases = endpoint.aliases.iter();
            let aliases = aliases.map(|alias| (alias, Tier::EndpointAlias));
            for (name, tier) in names.into_iter().chain(aliases) {
                let name = name.to_lowercase();
                let all = asked == format!("all-{name}") && name.starts_with("tasks.");
                if name == asked || all {
                    found.push(Simple {
                        tier,
                        stack: endpoint.stack.clone(),
                        open: true,
                        ips: endpoint.ips.clone(),
                    });
                }
            }
        }
    }
    found
}

fn start() -> ZoneBuilder {
    let mut builder = ZoneBuilder::new();
    builder.network("a", "front").network("b", "back");
    builder
}

proptest! {
    /// A zone that was changed step by step is the one that is made anew of what is left, in any
    /// order; and what was told before stays as it was.
    #[test]
    fn a_zone_is_that_of_what_is_left(
        steps in prop::collection::vec((any::<bool>(), any::<bool>(), object(), any::<usize>()), 0..40),
    ) {
        let mut kept = start();
        let mut there: Vec<(&str, Object)> = Vec::new();
        let mut told = Vec::new();
        for (adds, first, object, which) in &steps {
            let network = if *first { "a" } else { "b" };
            if *adds || there.is_empty() {
                object.add(network, &mut kept);
                there.push((network, object.clone()));
            } else {
                let (network, gone) = there.swap_remove(which % there.len());
                gone.remove(network, &mut kept);
            }
            let mut anew = start();
            for (network, object) in there.iter().rev() {
                object.add(network, &mut anew);
            }
            prop_assert_eq!(kept.build(), anew.build());
            prop_assert_eq!(kept.refused(), anew.refused());
            told.push((kept.build(), anew.build()));
        }
        for (kept, anew) in told {
            prop_assert_eq!(kept, anew);
        }
    }

    /// Who is told what, for every stack and sort of name.
    #[test]
    fn a_name_is_that_of_the_own_stack_first_and_never_one_of_another_stack_alone(
        objects in prop::collection::vec((any::<bool>(), object()), 0..12),
    ) {
        let mut builder = start();
        let mut there = Vec::new();
        for (first, object) in objects {
            let network = if first { "a" } else { "b" };
            object.add(network, &mut builder);
            there.push((network, object));
        }
        let zone = builder.build();
        for stack in STACKS {
            let client = ClientView {
                networks: vec!["a".to_owned(), "b".to_owned()],
                stack: stack.map(str::to_owned),
                ..ClientView::default()
            };
            for name in ["web", "db", "w"] {
                for name in [name.to_owned(), format!("tasks.{name}"), format!("all-tasks.{name}")] {
                    let found = match addresses(&zone, &client, &name, false) {
                        Found::Addresses(found) => Some(BTreeSet::from_iter(found)),
                        Found::Missing | Found::Outside => None,
                        Found::Malformed => unreachable!("no reverse name"),
                    };
                    prop_assert_eq!(found, told(&there, stack, &name), "{} for {:?}", name, stack);
                }
            }
        }
    }
}

#[test]
fn who_is_beaten_has_the_name_again_when_the_stronger_goes() {
    let mut builder = start();
    let task = EndpointNames {
        name: "web".to_owned(),
        ips: vec![[10, 0, 0, 1].into()],
        ..EndpointNames::default()
    };
    let service = ServiceNames {
        name: "web".to_owned(),
        vips: vec![[10, 0, 0, 9].into()],
        ..ServiceNames::default()
    };
    builder.endpoint("a", &task).unwrap();
    builder.service("a", &service).unwrap();
    let addresses = |zone: &Zone| -> Vec<IpAddr> {
        let entry = zone.networks["a"].names.get("web").unwrap();
        let holders = entry.holders(Whose::Everybody);
        holders
            .flat_map(|holder| holder.addresses.iter().copied())
            .collect()
    };
    let both = builder.build();
    assert_eq!(addresses(&both), service.vips);
    builder.remove_service("a", &service).unwrap();
    assert_eq!(addresses(&builder.build()), task.ips);
    assert_eq!(addresses(&both), service.vips, "told before");
    let unknown = builder.remove_endpoint("c", &task).unwrap_err();
    assert_eq!(unknown.network, "c");
}
