use proptest::prelude::*;

use super::*;

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

/// Few names and addresses, so that many objects claim the same; one that DNS cannot carry.
fn object() -> impl Strategy<Value = Object> {
    let name = || prop::sample::select(vec!["web", "db", "WEB", "w", "tasks.db", "sp ace"]);
    let names = prop::collection::vec(name(), 0..3);
    let ips = prop::collection::vec(0_u8..4, 0..3);
    (any::<bool>(), name(), names, ips, any::<bool>()).prop_map(
        |(is_service, name, aliases, ips, flag)| {
            let aliases = aliases.into_iter().map(str::to_owned).collect();
            let ips: Vec<IpAddr> = ips.into_iter().map(|n| [10, 0, 0, n].into()).collect();
            let stack = flag.then(|| "shop".to_owned());
            if is_service {
                Object::Service(ServiceNames {
                    name: name.to_owned(),
                    stack,
                    aliases,
                    mode: if flag {
                        ResolutionMode::Vip
                    } else {
                        ResolutionMode::Dnsrr
                    },
                    vips: ips.clone(),
                    tasks: ips,
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
        let holders = entry.holders_for(None);
        holders
            .flat_map(|holder| holder.addresses.clone())
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
