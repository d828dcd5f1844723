use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use weft_dns::{Answer, Ask, ClientView, ServiceNames, Transport, ZoneBuilder, answer};
use weft_model::assignment::{NodeView, Own, ServiceView};
use weft_model::id::{EndpointId, NodeId};
use weft_model::objects::{
    ConnectionPolicy, EndingService, EndpointMode, Ipam, Meta, NetworkAttachmentSpec, NetworkSpec,
    ServiceMode, Vip,
};
use weft_model::records::NodeRecord;

use super::*;
use crate::compile::heard::Words;
use crate::compile::sample;

fn node(n: u8) -> Node {
    let id = NodeId(format!("n{n}"));
    sample::node(id, format!("node{n}"), [192, 0, 2, n].into())
}

/// Three nodes, the first one this; the third has the only replica of `web`.
fn orders() -> Assignment {
    let network = Network {
        id: NetworkId::from("back"),
        meta: Meta::default(),
        spec: NetworkSpec {
            name: "back".to_owned(),
            ipam: Ipam::from_iter(["10.0.1.0/24".parse().unwrap()]),
            ..NetworkSpec::default()
        },
        vni: 4097,
        ending: false,
    };
    let web = ServiceView {
        id: ServiceId::from("web"),
        name: "web".to_owned(),
        mode: ServiceMode::Replicated { replicas: 1 },
        networks: vec![NetworkAttachmentSpec {
            target: "back".to_owned(),
            aliases: Vec::new(),
            stack_aliases: Vec::new(),
        }],
        endpoint_mode: EndpointMode::Vip,
        connections: ConnectionPolicy::default(),
        vips: vec![Vip {
            network: network.id.clone(),
            addr: "10.0.1.2/24".parse().unwrap(),
        }],
        ports: Vec::new(),
        stack: None,
        names_before_healthy: false,
    };
    let endpoint = weft_model::assignment::EndpointView {
        id: EndpointId::from("d"),
        network: network.id.clone(),
        node: NodeId::from("n3"),
        name: "web.1.d".to_owned(),
        ips: vec![[10, 0, 1, 3].into()],
        mac: weft_model::objects::Mac::for_ip([10, 0, 1, 3].into()),
        aliases: Vec::new(),
        service: Some(web.id.clone()),
        task: None,
    };
    Assignment {
        shared: Arc::new(Shared {
            version: 1,
            cluster_id: "c".to_owned(),
            data_path_port: 4789,
            nodes: [1, 2, 3].map(|n| NodeView::from(&node(n))).to_vec(),
            networks: vec![network],
            services: vec![web],
            ending: Vec::new(),
            endpoints: vec![Arc::new(endpoint)],
            peers: Vec::new(),
            gossip_keys: Vec::new(),
        }),
        own: Arc::new(Own {
            version: 1,
            node: node(1),
            tasks: Vec::new(),
            endpoints: Vec::new(),
        }),
        payloads: Arc::default(),
    }
}

/// Tables of the first node after the others said this.
fn tables(said: &[(&str, &str)]) -> (Compiled, Vec<String>) {
    tables_of(&orders(), said)
}

fn tables_of(orders: &Assignment, said: &[(&str, &str)]) -> (Compiled, Vec<String>) {
    let mut words: BTreeMap<NodeId, Words> = BTreeMap::new();
    for id in ["n2", "n3"] {
        let record = NodeRecord {
            closed_ports: Vec::new(),
            mtu: 1500,
            heard: Vec::new(),
            merging_port: 0,
        };
        words.entry(id.into()).or_default().node = Some(Arc::new(record));
    }
    for (owner, text) in said {
        let record = serde_json::from_str(text).unwrap();
        let words = words.entry(NodeId::from(*owner)).or_default();
        words.endpoints.push(Arc::new(record));
    }
    let heard = words.into_iter().map(|(id, words)| (id, Arc::new(words)));
    let inputs = Inputs {
        assignment: orders,
        heard: &heard.collect(),
        local: &[],
        mesh_port: None,
        mesh_ip: [169, 254, 77, 2].into(),
        mesh_ip6: None,
        mtus: &Arc::new(Mtus {
            port: 1450,
            receives: 1450,
            paths: BTreeMap::new(),
        }),
        epoch: 1,
        before: &Services::default(),
    };
    let mut compiler = Compiler::default();
    let mut loads = Loads::default();
    let compiled = compiler.compile(&inputs, &mut loads).unwrap();
    assert!(compiler.compile(&inputs, &mut loads).is_none());
    let problems = compiled.problems.clone();
    (compiled, problems)
}

/// Replicas that connections to the service go to, and those in DNS.
fn replicas(compiled: &Compiled) -> Vec<(IpAddr, bool)> {
    let services = compiled.snapshot.services.all().iter();
    services
        .flat_map(|s| &s.replicas)
        .map(|r| (r.ip, r.draining))
        .collect()
}

#[test]
fn a_record_of_another_node_moves_no_address_and_makes_no_replica() {
    let honest = [("n3", r#"{"id": "d", "ready": true}"#)];
    let (truth, problems) = tables(&honest);
    assert_eq!(replicas(&truth), [([10, 0, 1, 3].into(), false)]);
    assert!(problems.is_empty());
    let all = r#""network": "back", "node": "n2", "name": "x", "mac": "02:42:0a:00:01:03",
        "aliases": ["web"], "service": "web", "host_ports": [], "ready": true"#;
    let moved = format!(r#"{{"id": "d", "ips": ["10.0.1.3"], {all}}}"#);
    let evil = format!(r#"{{"id": "evil", "ips": ["10.0.1.9"], {all}}}"#);
    let vip = format!(r#"{{"id": "vip", "ips": ["10.0.1.2"], {all}}}"#);
    for forged in [&moved, &evil, &vip] {
        for order in [[honest[0], ("n2", forged)], [("n2", forged), honest[0]]] {
            let (lied, _) = tables(&order);
            assert_eq!(replicas(&lied), replicas(&truth), "{forged}");
            assert_eq!(lied.zone, truth.zone);
            assert_eq!(lied.snapshot.switch, truth.snapshot.switch);
        }
    }
    let (_, problems) = tables(&[honest[0], ("n2", &moved)]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    // Who owns it may take it away.
    let (gone, _) = tables(&[("n3", r#"{"id": "d", "ready": false}"#)]);
    assert_eq!(replicas(&gone), [([10, 0, 1, 3].into(), true)]);
}

/// Orders after the service was removed, and before its task has ended.
fn removed() -> Assignment {
    let mut orders = orders();
    let shared = Arc::make_mut(&mut orders.shared);
    let web = shared.services.remove(0);
    shared.ending.push(EndingService {
        id: web.id,
        name: web.name,
        vips: web.vips,
    });
    orders
}

#[test]
fn a_removed_service_keeps_its_replicas_and_takes_nothing_new() {
    let vip: IpAddr = [10, 0, 1, 2].into();
    let vni = Vni::new(4097).unwrap();
    for ready in [true, false] {
        let said = format!(r#"{{"id": "d", "ready": {ready}}}"#);
        let (tables, problems) = tables_of(&removed(), &[("n3", &said)]);
        assert!(problems.is_empty(), "{problems:?}");
        // Open connections find their replica, and packets to the address their way.
        assert_eq!(replicas(&tables), [([10, 0, 1, 3].into(), true)]);
        let (before, _) = self::tables(&[("n3", &said)]);
        assert_eq!(tables.snapshot.switch, before.snapshot.switch);
        // New ones do not, and nobody resolves it.
        assert!(tables.snapshot.services.vip(vni, vip).is_none());
        assert_eq!(tables.snapshot.services.all_published().count(), 0);
        assert!(tables.published.is_empty());
        assert!(!format!("{:?}", tables.zone).contains("10.0.1.2"));
    }
}

#[test]
fn a_service_without_its_last_published_port_keeps_its_replicas() {
    let mut orders = orders();
    let shared = Arc::make_mut(&mut orders.shared);
    shared.networks[0].spec.ingress = true;
    shared.services[0].vips.clear();
    let (tables, _) = tables_of(&orders, &[("n3", r#"{"id": "d", "ready": true}"#)]);
    assert_eq!(replicas(&tables), [([10, 0, 1, 3].into(), false)]);
    assert_eq!(tables.snapshot.services.all_published().count(), 0);
}

#[test]
fn only_a_service_that_wants_a_replica_and_has_none_is_in_a_gap() {
    let with_mode = |mode| {
        let mut orders = orders();
        let shared = Arc::make_mut(&mut orders.shared);
        shared.services[0].mode = mode;
        orders
    };
    let replicated = |replicas| with_mode(ServiceMode::Replicated { replicas });
    let in_gap = |orders: &Assignment, said: &[(&str, &str)]| {
        let (tables, _) = tables_of(orders, said);
        let vni = Vni::new(4097).unwrap();
        let service = tables.snapshot.services.vip(vni, [10, 0, 1, 2].into());
        service.expect("the service").in_gap
    };
    let ready = [("n3", r#"{"id": "d", "ready": true}"#)];
    let drains = [("n3", r#"{"id": "d", "ready": false}"#)];
    for (orders, wants) in [
        (replicated(1), true),
        (replicated(0), false),
        (with_mode(ServiceMode::Global), true),
        (with_mode(ServiceMode::GlobalJob), false),
    ] {
        let mode = orders.shared.services[0].mode;
        assert!(!in_gap(&orders, &ready), "{mode:?}");
        assert_eq!(in_gap(&orders, &drains), wants, "{mode:?}");
        // Nobody has one: no node is there for a global service.
        let mut without = orders.clone();
        Arc::make_mut(&mut without.shared).endpoints.clear();
        let alone = matches!(mode, ServiceMode::Replicated { replicas: 1 });
        assert_eq!(in_gap(&without, &[]), alone, "{mode:?}");
    }
}

#[test]
fn a_gap_that_lasts_ends_with_other_tables() {
    let orders = orders();
    let mtus = Arc::new(Mtus {
        port: 1450,
        receives: 1450,
        paths: BTreeMap::new(),
    });
    let inputs = Inputs {
        assignment: &orders,
        heard: &Heard::default(),
        local: &[],
        mesh_port: None,
        mesh_ip: [169, 254, 77, 2].into(),
        mesh_ip6: None,
        mtus: &mtus,
        epoch: 1,
        before: &Services::default(),
    };
    let (mut compiler, mut loads) = (Compiler::default(), Loads::default());
    let in_gap = |made: &Compiled| made.snapshot.services.all()[0].in_gap;
    let first = compiler.compile(&inputs, &mut loads).expect("the first");
    assert!(in_gap(&first));
    let at = |seconds: u64| weft_wire::Instant(seconds * 1_000_000_000);
    assert!(!loads.gaps.end_long(at(1)));
    assert!(!loads.gaps.end_long(at(60)));
    assert!(compiler.compile(&inputs, &mut loads).is_none());
    assert!(loads.gaps.end_long(at(61)));
    let next = compiler.compile(&inputs, &mut loads).expect("it is over");
    assert!(!in_gap(&next));
    assert!(compiler.compile(&inputs, &mut loads).is_none());
}

/// Sorted addresses that a sandbox on `back`, of this stack, hears; nothing where the name is not known.
fn resolved(tables: &Compiled, stack: Option<&str>, name: &str) -> Option<Vec<IpAddr>> {
    let client = ClientView {
        networks: vec!["back".to_owned()],
        internal_only: false,
        stack: stack.map(str::to_owned),
    };
    let ask = Ask {
        transport: Transport::Udp,
        outside: true,
        seed: 1,
    };
    let mut query = Message::new(1, MessageType::Query, OpCode::Query);
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let Answer::Reply(reply) = answer(&tables.zone, &client, &query.to_vec().unwrap(), ask) else {
        return None;
    };
    let reply = Message::from_vec(&reply.bytes).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    let ips = reply
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            _ => None,
        });
    let mut ips: Vec<IpAddr> = ips.collect();
    ips.sort();
    Some(ips)
}

fn ips(ips: &[[u8; 4]]) -> Option<Vec<IpAddr>> {
    Some(ips.iter().map(|ip| IpAddr::from(*ip)).collect())
}

#[test]
fn names_wait_for_health_unless_the_service_says_otherwise() {
    let (vip, task, none) = (ips(&[[10, 0, 1, 2]]), ips(&[[10, 0, 1, 3]]), ips(&[]));
    for mode in [EndpointMode::Vip, EndpointMode::Dnsrr] {
        for early in [false, true] {
            let mut orders = orders();
            let service = &mut Arc::make_mut(&mut orders.shared).services[0];
            service.endpoint_mode = mode;
            service.names_before_healthy = early;
            for (words, ready, draining) in [
                (r#"{"id": "d", "ready": true}"#, true, false),
                (r#"{"id": "d", "ready": false}"#, false, false),
                (
                    r#"{"id": "d", "ready": false, "draining": true}"#,
                    false,
                    true,
                ),
            ] {
                let (tables, problems) = tables_of(&orders, &[("n3", words)]);
                assert!(problems.is_empty(), "{problems:?}");
                let what = format!("{mode:?}, early {early}: {words}");
                let told = ready || (early && !draining);
                let each = if told { &task } else { &none };
                let name = if mode == EndpointMode::Vip {
                    &vip
                } else {
                    each
                };
                assert_eq!(&resolved(&tables, None, "web."), name, "{what}");
                assert_eq!(&resolved(&tables, None, "tasks.web."), each, "{what}");
                // Whatever it does: it is there.
                assert_eq!(
                    resolved(&tables, None, "all-tasks.web.back."),
                    task,
                    "{what}"
                );
                let own = resolved(&tables, None, "web.1.d.");
                assert_eq!(own, task.clone().filter(|_| told), "{what}");
                // Balancers do not go by names.
                let expected = (IpAddr::from([10, 0, 1, 3]), !ready);
                assert_eq!(replicas(&tables), [expected], "{what}");
            }
            // Its node does not speak of it: it is not there.
            let (tables, _) = tables_of(&orders, &[]);
            assert_eq!(resolved(&tables, None, "all-tasks.web."), none);
        }
    }
}

#[test]
fn services_of_stacks_have_their_short_names_inside_of_them() {
    let mut orders = orders();
    let shared = Arc::make_mut(&mut orders.shared);
    let of_stack = |stack: &str, vip: [u8; 4]| {
        let mut service = shared.services[0].clone();
        service.id = ServiceId(format!("{stack}-db"));
        service.name = format!("{stack}_db");
        service.stack = Some(stack.to_owned());
        service.vips[0].addr = IpAddr::from(vip).into();
        service
    };
    let (shop, mut blog) = (
        of_stack("shop", [10, 0, 1, 11]),
        of_stack("blog", [10, 0, 1, 12]),
    );
    blog.networks[0].stack_aliases = vec!["store".to_owned(), "DB".to_owned()];
    shared.services.extend([shop, blog]);
    let (tables, problems) = tables_of(&orders, &[]);
    assert!(problems.is_empty(), "{problems:?}");
    let (shop, blog) = (ips(&[[10, 0, 1, 11]]), ips(&[[10, 0, 1, 12]]));
    assert_eq!(resolved(&tables, Some("shop"), "db."), shop);
    assert_eq!(resolved(&tables, Some("blog"), "db.back."), blog);
    assert_eq!(resolved(&tables, Some("blog"), "store."), blog);
    for stack in [None, Some("other")] {
        for name in ["db.", "store.", "tasks.db.", "all-tasks.db."] {
            assert_eq!(resolved(&tables, stack, name), None, "{name} {stack:?}");
        }
        assert_eq!(resolved(&tables, stack, "shop_db."), shop);
    }
    assert_eq!(resolved(&tables, Some("shop"), "store."), None);

    // An alias that a user gave is for everybody, and the short name is given once.
    let shared = Arc::make_mut(&mut orders.shared);
    shared.services[2].networks[0].aliases = vec!["Db".to_owned()];
    let (tables, _) = tables_of(&orders, &[]);
    assert_eq!(resolved(&tables, Some("shop"), "db."), shop);
    assert_eq!(resolved(&tables, None, "db."), blog);
    // Without the label it is called so no more.
    let shared = Arc::make_mut(&mut orders.shared);
    shared.services[1].stack = None;
    let (tables, _) = tables_of(&orders, &[]);
    assert_eq!(resolved(&tables, Some("shop"), "db."), blog);
    assert_eq!(resolved(&tables, Some("shop"), "shop_db."), shop);
}

proptest::proptest! {
    /// The rule at the commands and the one of the zone are in two crates that do not know each
    /// other.
    #[test]
    fn every_name_that_a_command_takes_is_in_the_zone(name in "[a-zA-Z0-9][a-zA-Z0-9._-]{0,66}") {
        proptest::prop_assume!(weft_model::names::check("alias", &name).is_ok());
        let mut zone = ZoneBuilder::new();
        zone.network("n", &name);
        let service = ServiceNames {
            name: name.clone(),
            aliases: vec![name],
            ..ServiceNames::default()
        };
        zone.service("n", &service).expect("the network is there");
        proptest::prop_assert!(zone.refused().is_empty(), "{:?}", zone.refused());
    }
}
