//! Networks of both address families.

use weft_model::objects::Mac;

use super::*;

#[test]
fn a_host_that_routes_every_prefix_of_ipv6_gets_an_ingress_of_ipv4() {
    let init = InitCluster {
        cluster_id: "c".into(),
        node_id: node(1),
        node: description(1),
        default_address_pools: Vec::new(),
        subnet_prefix_len: None,
        data_path_port: None,
        autolock: false,
        availability: Availability::Active,
        reserved: ["fd00::/9", "fd80::/9"]
            .map(|dest| HostRoute::connected(dest.parse().unwrap(), "dev wg0"))
            .to_vec(),
        root: root(1),
    };
    let mut entropy = Entropy::from_seed([7; 32]);
    let mut state = ClusterState::default();
    let planned = init_cluster(&state, 1, &mut entropy, init).unwrap();
    state.apply(&planned.changes);
    let ingress = state.ingress().unwrap();
    assert_eq!((ingress.subnets().len(), ingress.spec.ipv6), (1, false));
    assert_eq!(planned.value.ips_on(ingress).count(), 1);
}

fn dual_stack(world: &mut World, name: &str, subnets: &[&str]) -> weft_model::objects::Network {
    let spec = NetworkSpec {
        name: name.into(),
        ipv6: true,
        ipam: asked_for(subnets),
        ..NetworkSpec::default()
    };
    world
        .run(|s, now, e| create_network(s, now, e, spec, &[]))
        .unwrap()
}

#[test]
fn dual_stack_networks_give_both_addresses() {
    let mut world = World::new(1);
    let network = dual_stack(&mut world, "six", &[]);
    assert_eq!(network.subnets().len(), 2);
    let v6 = network.subnets()[1].cidr;
    assert!("fd00::/8".parse::<ipnet::IpNet>().unwrap().contains(&v6) && v6.prefix_len() == 64);
    let service = world.create(on(spec("web", 1), "six")).unwrap();
    let task = world.wanted("web").remove(0);
    let vips = service.endpoint.vips.iter();
    let vips: Vec<IpAddr> = vips.map(|v| v.addr.addr()).collect();
    for ips in [vips, task.attachments[0].ips().collect()] {
        let [IpAddr::V4(four), IpAddr::V6(six)] = ips[..] else {
            panic!("one of each family: {ips:?}");
        };
        assert!(v6.contains(&IpAddr::V6(six)));
        assert_eq!(six.octets()[12..], four.octets());
        assert_eq!(Mac::for_ip(four.into()), Mac::for_ip(six.into()));
    }
}

#[test]
fn ipv6_subnets_come_from_the_cluster_and_overlap_with_nothing() {
    let mut world = World::new(1);
    let first = dual_stack(&mut world, "a", &[]).subnets()[1].cidr;
    let second = dual_stack(&mut world, "b", &[]).subnets()[1].cidr;
    assert_ne!(first, second);
    // The prefix that comes next is taken by hand: the one behind it is given out.
    let next = |cidr: ipnet::IpNet| -> ipnet::IpNet {
        let ipnet::IpNet::V6(v6) = cidr else {
            panic!("{cidr} is not IPv6")
        };
        let addr = std::net::Ipv6Addr::from(u128::from(v6.network()) + (1 << 64));
        ipnet::Ipv6Net::new_assert(addr, 64).into()
    };
    let third = next(second);
    let by_hand = dual_stack(&mut world, "c", &[&third.to_string()]);
    assert_eq!(by_hand.subnets()[1].cidr, third);
    let fourth = dual_stack(&mut world, "d", &[]).subnets()[1].cidr;
    assert_eq!(fourth, next(third));
    // Deterministic: the same commands give the same prefixes in a second world.
    let mut again = World::new(1);
    assert_eq!(dual_stack(&mut again, "a", &[]).subnets()[1].cidr, first);
}

#[test]
fn an_ipv6_pool_is_used_and_a_small_subnet_refused() {
    let mut world = World::new(1);
    let mut cluster = world.state.cluster.clone().unwrap();
    cluster
        .default_address_pools
        .push("fd01:2:3::/63".parse().unwrap());
    world.state.cluster = Some(cluster);
    for (name, cidr) in [("a", "fd01:2:3::/64"), ("b", "fd01:2:3:1::/64")] {
        assert_eq!(
            dual_stack(&mut world, name, &[]).subnets()[1]
                .cidr
                .to_string(),
            cidr
        );
    }
    let refused = |world: &mut World, subnets: &[&str], says: &str| {
        let spec = NetworkSpec {
            name: "c".into(),
            ipv6: true,
            ipam: asked_for(subnets),
            ..NetworkSpec::default()
        };
        let error = world
            .run(|s, now, e| create_network(s, now, e, spec, &[]))
            .unwrap_err();
        assert!(error.message.contains(says), "{error}");
    };
    refused(&mut world, &[], "no free IPv6 subnet for network c");
    refused(&mut world, &["fd09::/97"], "use /96 or larger");
    refused(&mut world, &["fe80::/64"], "link-local");
}

#[test]
fn an_address_that_was_asked_for_comes_with_one_of_the_other_family() {
    let mut world = World::new(1);
    dual_stack(&mut world, "six", &["10.9.0.0/24", "fd09::/64"]);
    let attach = |world: &mut World, ip: Option<&str>| {
        let cmd = Attach {
            network: "six".into(),
            ip: ip.map(|ip| ip.parse().unwrap()),
            ..Attach::default()
        };
        world
            .run(|s, now, e| attach_endpoint(s, now, e, &node(1), cmd))
            .map(|e| {
                e.attachment
                    .ips()
                    .map(|ip| ip.to_string())
                    .collect::<Vec<_>>()
            })
            .map_err(|e| e.message)
    };
    let pair = |a: &str, b: &str| Ok(vec![a.to_owned(), b.to_owned()]);
    assert_eq!(
        attach(&mut world, Some("10.9.0.7")),
        pair("10.9.0.7", "fd09::a09:7")
    );
    assert_eq!(
        attach(&mut world, Some("fd09::5")),
        pair("10.9.0.2", "fd09::5")
    );
    // The IPv6 address that 10.9.0.3 would bring along is held: the next one is given.
    assert_eq!(
        attach(&mut world, Some("fd09::a09:4")),
        pair("10.9.0.3", "fd09::a09:4")
    );
    assert_eq!(attach(&mut world, None), pair("10.9.0.5", "fd09::a09:5"));
    let error = attach(&mut world, Some("10.9.0.4")).unwrap_err();
    assert!(
        error.starts_with("address 10.9.0.4 comes with fd09::a09:4: ")
            && error.contains("already in use by endpoint"),
        "{error}"
    );
}
