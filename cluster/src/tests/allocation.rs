use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use weft_model::api::{PeerAdd, ServiceUpdate};
use weft_model::objects::{Availability, Mac, PayloadKind, PayloadSpec, PublishMode};

use super::payloads::seeing;
use super::updates::change;
use super::*;

/// No address is held twice on one network, whoever holds it, and no Ethernet address stands for two.
fn assert_unique(state: &ClusterState) {
    let mut seen = BTreeSet::new();
    let mut claim = |network: &weft_model::id::NetworkId, ip: IpAddr| {
        let net = &state.networks[network];
        assert!(
            net.subnets()
                .iter()
                .any(|s| s.cidr.contains(&ip) && s.gateway != ip),
            "{ip} is outside {}",
            net.spec.name
        );
        assert!(seen.insert((network.clone(), ip)), "{ip} is held twice");
    };
    for service in state.services.values() {
        for vip in &service.endpoint.vips {
            claim(&vip.network, vip.addr.addr());
        }
    }
    for task in state
        .tasks
        .values()
        .filter(|t| !t.status.state.is_terminal())
    {
        for a in &task.attachments {
            for ip in a.ips() {
                claim(&a.network, ip);
            }
        }
    }
    for e in state.endpoints.values() {
        for ip in e.attachment.ips() {
            claim(&e.attachment.network, ip);
        }
    }
    for p in state.peers.values() {
        claim(&p.network, p.ip);
    }
    let ingress = state.ingress().unwrap();
    for n in state.nodes.values() {
        for ip in n.ips_on(ingress) {
            claim(&ingress.id, ip);
        }
    }
    let mut macs: BTreeMap<_, String> = BTreeMap::new();
    let mut stands_for = |network: &weft_model::id::NetworkId, mac: Mac, holder: &str| {
        let known = macs
            .entry((network.clone(), mac.0))
            .or_insert(holder.to_owned());
        assert_eq!(known, holder, "{mac} stands for both");
    };
    for (service, vip) in state
        .services
        .values()
        .flat_map(|s| s.endpoint.vips.iter().map(move |v| (s, v)))
    {
        let mac = Mac::for_ip(vip.addr.addr());
        stands_for(&vip.network, mac, service.id.as_str());
    }
    let tasks = state
        .tasks
        .values()
        .filter(|t| !t.status.state.is_terminal())
        .flat_map(|t| &t.attachments);
    for a in tasks.chain(state.endpoints.values().map(|e| &e.attachment)) {
        stands_for(&a.network, a.mac, a.endpoint.as_str());
    }
    for net in state.networks.values() {
        let gateway = net.subnets()[0].gateway;
        stands_for(&net.id, Mac::for_ip(gateway), "gateway");
    }
    let mut vnis = BTreeSet::new();
    for n in state.networks.values() {
        assert!(n.vni >= FIRST_VNI && vnis.insert(n.vni));
    }
    let services = state.services.values();
    let ports: Vec<_> = services.flat_map(|s| &s.endpoint.ports).collect();
    let unique: BTreeSet<_> = ports.iter().map(|p| (p.published, p.protocol)).collect();
    assert_eq!(ports.len(), unique.len());
}

/// What a service uses is there, and no two have one name.
fn assert_payloads(state: &ClusterState) {
    for service in state.services.values() {
        for one in service.spec.task.container.payloads() {
            let there = &state.payloads[one.id];
            assert_eq!((there.kind, &*there.spec.name), (one.kind, one.name));
        }
    }
    let names = state.payloads.values().map(|p| (p.kind, &p.spec.name));
    let unique: BTreeSet<_> = names.collect();
    assert_eq!(unique.len(), state.payloads.len());
}

/// The index says what the objects say, however it came about.
fn assert_index(state: &ClusterState) {
    let mut again = ClusterState::default();
    for id in state.ids() {
        again.put(state.get(&id).unwrap());
    }
    assert!(again.index() == state.index(), "the index is out of step");
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Service(u8, u8, bool),
    Scale(u8, u8),
    RemoveService(u8),
    Attach(u8, Option<u8>),
    Detach(u8),
    Peer(u8, u8),
    Network(u8),
    RemoveNetwork(u8),
    Fail(u8),
    Down(u8),
    Up(u8),
    Time(u16),
    Global(u8),
    Publish(u8, bool),
    Availability(u8, bool),
    Impaired(u8, bool),
    Gone(u8),
    Secret(u8),
    Relabel(u8, u8),
    Sees(u8, u8),
    RemoveSecret(u8),
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4u8, 0..9u8, any::<bool>()).prop_map(|(s, r, p)| Step::Service(s, r, p)),
        (0..4u8, 0..9u8).prop_map(|(s, r)| Step::Scale(s, r)),
        (0..4u8).prop_map(Step::RemoveService),
        (0..3u8, proptest::option::of(0..48u8)).prop_map(|(n, ip)| Step::Attach(n, ip)),
        any::<u8>().prop_map(Step::Detach),
        (0..3u8, 0..48u8).prop_map(|(n, ip)| Step::Peer(n, ip)),
        (0..3u8).prop_map(Step::Network),
        (0..3u8).prop_map(Step::RemoveNetwork),
        any::<u8>().prop_map(Step::Fail),
        (1..4u8).prop_map(Step::Down),
        (1..4u8).prop_map(Step::Up),
        any::<u16>().prop_map(Step::Time),
        (0..4u8).prop_map(Step::Global),
        (0..4u8, any::<bool>()).prop_map(|(s, host)| Step::Publish(s, host)),
        (1..4u8, any::<bool>()).prop_map(|(n, drain)| Step::Availability(n, drain)),
        (1..4u8, any::<bool>()).prop_map(|(n, why)| Step::Impaired(n, why)),
        (2..4u8).prop_map(Step::Gone),
        (0..3u8).prop_map(Step::Secret),
        (0..3u8, any::<u8>()).prop_map(|(k, label)| Step::Relabel(k, label)),
        (0..4u8, 0..3u8).prop_map(|(s, k)| Step::Sees(s, k)),
        (0..3u8).prop_map(Step::RemoveSecret),
    ]
}

fn detach(world: &mut World, i: u8) -> Result<(), CommandError> {
    let all: Vec<_> = world.state.endpoints.values().cloned().collect();
    let Some(e) = all.get(usize::from(i) % all.len().max(1)) else {
        return Ok(());
    };
    let (network, id) = (
        e.attachment.network.0.clone(),
        e.attachment.endpoint.0.clone(),
    );
    world
        .run(|st, now, en| detach_endpoint(st, now, en, Detacher::Force, &network, &id))
        .map(drop)
}

fn fail(world: &mut World, i: u8) {
    let tasks = world.state.tasks.values();
    let running: Vec<_> = tasks
        .filter(|t| t.status.state == TaskState::Running)
        .map(|t| t.id.clone())
        .collect();
    if let Some(id) = running.get(usize::from(i) % running.len().max(1)) {
        world.report(id, TaskState::Failed);
    }
}

/// A secret or a config, by its number.
fn payload(world: &mut World, step: &Step) -> Result<(), CommandError> {
    let kind = |n: u8| {
        if n == 0 {
            PayloadKind::Config
        } else {
            PayloadKind::Secret
        }
    };
    let spec = |n: u8, label: u8| PayloadSpec {
        name: format!("key{n}"),
        labels: BTreeMap::from([("a".to_owned(), label.to_string())]),
        data: vec![7u8].into(),
        ..PayloadSpec::default()
    };
    match *step {
        Step::Secret(n) => world
            .run(|st, now, e| create_payload(st, now, e, kind(n), spec(n, 0)))
            .map(drop),
        Step::Relabel(n, label) => {
            let (name, spec) = (format!("key{n}"), spec(n, label));
            world
                .run(|st, now, e| update_payload(st, now, e, kind(n), &name, None, spec))
                .map(drop)
        }
        Step::RemoveSecret(n) => world
            .run(|st, now, e| remove_payload(st, now, e, kind(n), &format!("key{n}")))
            .map(drop),
        _ => Ok(()),
    }
}

/// A service sees that secret and no other.
fn sees(world: &mut World, s: u8, n: u8) -> Result<(), CommandError> {
    let name = format!("s{s}");
    if world.state.find_service(&name).is_err() {
        return Ok(());
    }
    change(world, &name, |spec| {
        let seen = seeing(spec.clone(), &[&format!("key{n}")]);
        *spec = seen;
    })
    .map(drop)
}

fn publish_more(world: &mut World, s: u8, host: bool) -> Result<(), CommandError> {
    let port = PortSpec {
        target: 81,
        mode: if host {
            PublishMode::Host
        } else {
            PublishMode::Ingress
        },
        ..PortSpec::default()
    };
    let update = ServiceUpdate {
        publish_add: vec![port],
        ..ServiceUpdate::default()
    };
    world
        .run(|st, now, e| update_service(st, now, e, &format!("s{s}"), &update))
        .map(drop)
}

/// Refusals are part of the game; what counts is what the state looks like afterwards.
pub(super) fn play(world: &mut World, step: Step) {
    let net = |n: u8| format!("net{n}");
    // An IPv4 address, one of IPv6 that nobody's IPv4 address leads to, or one that some does.
    let host = |n: u8, ip: u8| match (ip / 16, ip % 16) {
        (0, ip) => IpAddr::from([10, 99, n, ip]),
        (1, ip) => format!("fd99:{n}::{ip}").parse().unwrap(),
        (_, ip) => format!("fd99:{n}::10.99.{n}.{ip}").parse().unwrap(),
    };
    let result = match step {
        Step::Service(s, replicas, port) => {
            let mut spec = on(spec(&format!("s{s}"), replicas.into()), &net(s % 3));
            if port {
                spec = publish(spec, 0, 80);
            }
            world.create(spec).map(drop)
        }
        Step::Scale(s, replicas) => world
            .run(|st, now, e| scale_service(st, now, e, &format!("s{s}"), replicas.into()))
            .map(drop),
        Step::RemoveService(s) => {
            world.change(|st, now, e| remove_service(st, now, e, &format!("s{s}")))
        }
        Step::Attach(n, ip) => {
            let cmd = Attach {
                network: net(n),
                ip: ip.map(|ip| host(n, ip)),
                ..Attach::default()
            };
            world
                .run(|st, now, e| attach_endpoint(st, now, e, &node(1), cmd))
                .map(drop)
        }
        Step::Detach(i) => detach(world, i),
        Step::Peer(n, ip) => {
            let peer = PeerAdd {
                ip: host(n, ip),
                mac: "02:00:00:00:00:01".parse().unwrap(),
                vtep: "198.51.100.1".parse().unwrap(),
            };
            world
                .run(|st, now, e| add_peer(st, now, e, &net(n), &peer))
                .map(drop)
        }
        // A /28 each, so that networks run full; the first has IPv4 only.
        Step::Network(0) => world.network("net0", &["10.99.0.0/28"]),
        Step::Network(n) => {
            let (v4, v6) = (format!("10.99.{n}.0/28"), format!("fd99:{n}::/96"));
            world.network(&net(n), &[&v6, &v4])
        }
        Step::RemoveNetwork(n) => world.change(|st, now, e| remove_network(st, now, e, &net(n))),
        Step::Fail(i) => {
            fail(world, i);
            Ok(())
        }
        Step::Down(n) => {
            world.change(|st, now, e| set_node_state(st, now, e, &node(n), NodeState::Down, "test"))
        }
        Step::Up(n) => {
            if !world.state.nodes.contains_key(&node(n)) {
                world.add_node(n);
            }
            world.health(n, NodeState::Ready);
            Ok(())
        }
        Step::Global(s) => {
            let mut spec = on(spec(&format!("s{s}"), 0), &net(s % 3));
            spec.mode = ServiceMode::Global;
            world.create(spec).map(drop)
        }
        Step::Publish(s, host) => publish_more(world, s, host),
        Step::Sees(s, n) => sees(world, s, n),
        Step::Secret(_) | Step::Relabel(..) | Step::RemoveSecret(_) => payload(world, &step),
        Step::Availability(n, drain) => {
            let wanted = if drain {
                Availability::Drain
            } else {
                Availability::Active
            };
            world
                .run(|st, now, e| set_availability(st, now, e, node(n).as_str(), wanted))
                .map(drop)
        }
        Step::Impaired(n, why) => {
            world.change(|st, now, e| set_impaired(st, now, e, &node(n), why.then_some("test")))
        }
        Step::Gone(n) => world
            .run(|st, now, e| remove_node(st, now, e, node(n).as_str(), true))
            .map(drop),
        Step::Time(ms) => {
            world.advance(ms.into());
            Ok(())
        }
    };
    if let Err(e) = result {
        assert!(!e.message.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_allocated_twice(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new(3);
        for step in steps {
            play(&mut world, step);
            world.run_tasks();
            assert_unique(&world.state);
            assert_eq!(given_twice(&world.state), None);
            assert_index(&world.state);
            assert_payloads(&world.state);
        }
    }
}

#[test]
fn first_networks_follow_swarm() {
    let mut world = World::new(1);
    world.network("a", &[]).unwrap();
    world.network("b", &[]).unwrap();
    let cidr = |name: &str| {
        let n = world.state.find_network(name).unwrap();
        (
            n.vni,
            n.subnets()[0].cidr.to_string(),
            n.subnets()[0].gateway.to_string(),
        )
    };
    assert_eq!(
        cidr("ingress"),
        (4096, "10.0.0.0/24".into(), "10.0.0.1".into())
    );
    assert_eq!(cidr("a"), (4097, "10.0.1.0/24".into(), "10.0.1.1".into()));
    assert_eq!(cidr("b"), (4098, "10.0.2.0/24".into(), "10.0.2.1".into()));
    assert_eq!(
        world.state.nodes[&node(1)].ingress_ip,
        "10.0.0.2".parse().ok()
    );
}

#[test]
fn ingress_has_both_families_and_nodes_and_tasks_an_address_of_each() {
    let mut world = World::new(2);
    world.create(publish(spec("web", 2), 8000, 80)).unwrap();
    let ingress = world.state.ingress().unwrap();
    let v6 = ingress.subnets()[1].cidr;
    assert!(v6.addr().is_ipv6() && v6.prefix_len() == 64);
    for task in world.wanted("web") {
        let ips: Vec<IpAddr> = task.attachments[0].ips().collect();
        assert!(ips[0].is_ipv4() && v6.contains(&ips[1]), "{ips:?}");
    }
    let holder = |ip| ipam::holder(&world.state, &ingress.id, ip);
    for node in world.state.nodes.values() {
        let Some(IpAddr::V4(ip)) = node.ingress_ip else {
            panic!("{:?}", node.ingress_ip)
        };
        let twin = ingress.twin(ip).unwrap();
        assert_eq!(
            holder(twin.into()),
            Some(format!("node {}", node.description.hostname))
        );
    }
    assert_unique(&world.state);
}

#[test]
fn ingress_of_an_older_store_stays_as_it_is() {
    let mut world = World::new(1);
    let mut ingress = world.state.ingress().unwrap().clone();
    ingress.spec.ipv6 = false;
    ingress.spec.ipam.config.truncate(1);
    world.state.apply(&[Change::Put(ingress.into())]);
    world.create(publish(spec("web", 2), 8000, 80)).unwrap();
    for task in world.wanted("web") {
        assert_eq!(task.attachments[0].addresses.len(), 1);
    }
    assert_unique(&world.state);
}

#[test]
fn freed_numbers_rest() {
    let mut world = World::new(1);
    world.network("a", &[]).unwrap();
    world
        .change(|s, now, e| remove_network(s, now, e, "a"))
        .unwrap();
    world.network("b", &[]).unwrap();
    let b = world.state.find_network("b").unwrap();
    assert_eq!(
        (b.vni, b.subnets()[0].cidr.to_string().as_str()),
        (4098, "10.0.2.0/24")
    );

    let attach = |world: &mut World| {
        let cmd = Attach {
            network: "b".into(),
            ..Attach::default()
        };
        world
            .run(|s, now, e| attach_endpoint(s, now, e, &node(1), cmd))
            .unwrap()
    };
    let first = attach(&mut world);
    assert_eq!(first.attachment.addresses[0].to_string(), "10.0.2.2/24");
    assert_eq!(first.attachment.mac.to_string(), "02:42:0a:00:02:02");
    let name = first.name;
    world
        .run(|s, now, e| detach_endpoint(s, now, e, Detacher::Node(&node(1)), "b", &name))
        .unwrap();
    assert_eq!(
        attach(&mut world).attachment.addresses[0].to_string(),
        "10.0.2.3/24"
    );
}

/// An attempt that fails on the last network takes nothing of the ones before, not even a step of
/// their cursors: passes come to an end.
#[test]
fn a_task_whose_second_network_is_full_waits_without_a_change() {
    let mut world = World::new(1);
    world.network("tiny", &["10.9.0.0/29"]).unwrap();
    world.network("wide", &["10.8.0.0/24"]).unwrap();
    let both = on(on(spec("web", 6), "wide"), "tiny");
    world.create(both).unwrap();
    let wanted = world.wanted("web");
    let stuck = wanted.iter().filter(|t| t.status.state == TaskState::New);
    assert_eq!(stuck.count(), 2);
    assert_unique(&world.state);
}

#[test]
fn a_full_network_is_said_on_the_task_and_heals() {
    let mut world = World::new(1);
    world.network("tiny", &["10.9.0.0/29"]).unwrap();
    // Five addresses: one VIP and four tasks.
    world.create(on(spec("web", 6), "tiny")).unwrap();
    let stuck: Vec<_> = world
        .wanted("web")
        .into_iter()
        .filter(|t| t.status.state == TaskState::New)
        .collect();
    assert_eq!(stuck.len(), 2);
    for task in &stuck {
        assert!(
            task.status.err.starts_with(
                "could not find an available IP on network tiny (5 of 5 addresses of 10.9.0.0/29 are in use)"
            ),
            "{}",
            task.status.err
        );
    }
    let refused = world.create(on(spec("db", 1), "tiny")).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict);
    assert!(refused.message.contains("tiny (5 of 5"), "{refused}");
    world.run_tasks();
    let running = world
        .wanted("web")
        .into_iter()
        .find(|t| t.status.state == TaskState::Running);
    world.report(&running.unwrap().id, TaskState::Failed);
    // One address came free: one of those that waited has it.
    let stuck = world
        .wanted("web")
        .into_iter()
        .filter(|t| t.status.state == TaskState::New);
    assert_eq!(stuck.count(), 2, "the replacement waits in turn");
    let network = world.state.find_network("tiny").unwrap();
    assert_eq!(usage(&world.state, network), (5, 5));
}

#[test]
fn ingress_is_the_last_interface() {
    let mut world = World::new(2);
    world.network("back", &[]).unwrap();
    let web = world
        .create(publish(on(spec("web", 2), "back"), 8000, 80))
        .unwrap();
    let back = world.state.find_network("back").unwrap().id.clone();
    let ingress = world.state.ingress().unwrap().id.clone();
    let vips: Vec<_> = web
        .endpoint
        .vips
        .iter()
        .map(|v| v.network.clone())
        .collect();
    assert_eq!(vips, [back.clone(), ingress.clone(), ingress.clone()]);
    for task in world.wanted("web") {
        let order: Vec<_> = task.attachments.iter().map(|a| a.network.clone()).collect();
        assert_eq!(order, [back.clone(), ingress.clone()]);
    }
    world.create(publish(spec("only", 1), 8001, 80)).unwrap();
    assert_eq!(world.wanted("only")[0].attachments[0].network, ingress);
}
