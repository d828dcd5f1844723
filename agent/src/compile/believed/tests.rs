use std::net::IpAddr;

use weft_model::assignment::NodeView;
use weft_model::id::{NetworkId, ServiceId};
use weft_model::objects::{Mac, Role};
use weft_model::records::NodeRecord;

use super::*;

fn node(n: u8) -> NodeView {
    NodeView {
        id: NodeId(format!("n{n}")),
        hostname: format!("node{n}"),
        role: Role::Worker,
        addr: [192, 0, 2, n].into(),
        data_path_addr: [192, 0, 2, n].into(),
        gossip_port: 7946,
        ingress_ip: None,
        manager_addr: None,
    }
}

fn view(id: &str, at: &str, last: u8) -> EndpointView {
    EndpointView {
        id: EndpointId::from(id),
        network: NetworkId::from("back"),
        node: NodeId::from(at),
        name: format!("{id}.1"),
        ips: vec![[10, 0, 1, last].into()],
        mac: Mac([2, 0x42, 10, 0, 1, last]),
        aliases: Vec::new(),
        service: Some(ServiceId::from("web")),
        task: None,
    }
}

fn shared(endpoints: Vec<EndpointView>) -> Arc<Shared> {
    Arc::new(Shared {
        version: 1,
        cluster_id: "c".to_owned(),
        data_path_port: 4789,
        nodes: (1..=3).map(node).collect(),
        networks: Vec::new(),
        services: Vec::new(),
        ending: Vec::new(),
        endpoints: endpoints.into_iter().map(Arc::new).collect(),
        peers: Vec::new(),
        gossip_keys: Vec::new(),
    })
}

/// What was said, by the texts that arrived, as the tables decode them.
fn heard(said: &[(&str, &str)]) -> Heard {
    let mut words: BTreeMap<NodeId, Words> = BTreeMap::new();
    for (owner, text) in said {
        let record = serde_json::from_str(text).unwrap();
        let words = words.entry(NodeId::from(*owner)).or_default();
        words.endpoints.push(Arc::new(record));
    }
    let words = words.into_iter();
    words.map(|(id, words)| (id, Arc::new(words))).collect()
}

/// This node is `n1`.
fn update(believed: &mut Believed, orders: &Arc<Shared>, heard: &Heard) -> Vec<String> {
    let differs = believed.update(orders, &NodeId::from("n1"), heard);
    assert_eq!(
        believed.update(orders, &NodeId::from("n1"), heard),
        Differs::default(),
        "nothing is new"
    );
    differs.endpoints.into_iter().map(|id| id.0).collect()
}

fn all(believed: &Believed) -> Vec<(&str, bool)> {
    let lists = believed.lists().values().flat_map(|list| list.iter());
    let mut all: Vec<_> = lists.map(|k| (k.id.as_str(), k.ready)).collect();
    all.sort_unstable();
    all
}

#[test]
fn a_node_speaks_of_its_own_endpoints_only() {
    let orders = shared(vec![view("d", "n3", 3), view("w", "n2", 4)]);
    let honest = [
        ("n3", r#"{"id": "d", "ready": true}"#),
        ("n2", r#"{"id": "w", "ready": false}"#),
    ];
    let mut believed = Believed::default();
    let found = update(&mut believed, &orders, &heard(&honest));
    assert_eq!(found, ["d", "w"]);
    assert_eq!(believed.problems().count(), 0);
    assert_eq!(all(&believed), [("d", true), ("w", false)]);
    // Another one's endpoint, with all that a record ever held; a replica and an address that
    // nobody gave.
    let claims = r#""network": "back", "node": "n2", "name": "d.1", "ips": ["10.0.1.3"],
        "mac": "02:42:0a:00:01:03", "aliases": ["db"], "service": "web", "task": null,
        "host_ports": [], "ready": true"#;
    let lies = ["d", "evil1", "evil2"].map(|id| format!(r#"{{"id": "{id}", {claims}}}"#));
    let mut forged = honest.to_vec();
    forged.extend(lies.iter().map(|lie| ("n2", lie.as_str())));
    let differs = believed.update(&orders, &NodeId::from("n1"), &heard(&forged));
    assert!(differs.lies && differs.endpoints.is_empty(), "{differs:?}");
    assert_eq!(all(&believed), [("d", true), ("w", false)]);
    let liar = "node node2 speaks of endpoint d.1 of node node3, which is not its own: ignored";
    assert!(believed.problems().eq([liar]));
    // The orders may still give it to him.
    let moved = shared(vec![view("d", "n2", 3), view("w", "n2", 4)]);
    assert_eq!(update(&mut believed, &moved, &heard(&forged)), ["d"]);
    let liar = "node node3 speaks of endpoint d.1 of node node2, which is not its own: ignored";
    assert!(believed.problems().eq([liar]));
    assert_eq!(believed.get(&"d".into()).unwrap().node.as_str(), "n2");
}

#[test]
fn what_orders_and_nodes_say_may_come_in_any_order() {
    let said = heard(&[("n2", r#"{"id": "w", "ready": true}"#)]);
    let (none, some) = (shared(Vec::new()), shared(vec![view("w", "n2", 4)]));
    // The node was faster than the manager.
    let mut believed = Believed::default();
    assert!(update(&mut believed, &none, &said).is_empty());
    assert_eq!(update(&mut believed, &some, &said), ["w"]);
    assert_eq!(update(&mut believed, &none, &said), ["w"], "removed");
    assert!(believed.get(&"w".into()).is_none());
    // The other way round.
    let mut believed = Believed::default();
    assert!(update(&mut believed, &some, &Heard::default()).is_empty());
    assert_eq!(update(&mut believed, &some, &said), ["w"]);
    assert_eq!(believed.problems().count(), 0);
    assert_eq!(
        update(&mut believed, &some, &Heard::default()),
        ["w"],
        "gone"
    );
}

#[test]
fn only_what_has_changed_is_another_one() {
    let views: Vec<_> = ["a", "b", "c"].map(|id| view(id, "n2", 4)).into();
    let ids = ["a", "b", "c"].map(EndpointId::from);
    let said = ["a", "b", "c"].map(|id| format!(r#"{{"id": "{id}", "ready": true}}"#));
    let mut said: Vec<_> = said.iter().map(|text| ("n2", text.as_str())).collect();
    let mut believed = Believed::default();
    update(&mut believed, &shared(views.clone()), &heard(&said));
    let before = ids.clone().map(|id| Arc::clone(believed.get(&id).unwrap()));
    let same = |believed: &Believed| {
        let now = ids.iter().map(|id| believed.get(id));
        now.zip(&before)
            .map(|(now, before)| now.is_some_and(|now| Arc::ptr_eq(now, before)))
            .collect::<Vec<_>>()
    };
    said[1] = ("n2", r#"{"id": "b", "ready": false}"#);
    assert_eq!(
        update(&mut believed, &shared(views.clone()), &heard(&said)),
        ["b"]
    );
    assert_eq!(same(&believed), [true, false, true]);
    let mut renamed = views;
    renamed[2].name = "c.2".to_owned();
    assert_eq!(
        update(&mut believed, &shared(renamed), &heard(&said)),
        ["c"]
    );
    assert_eq!(same(&believed), [true, false, false]);
}

#[test]
fn who_speaks_for_himself_is_known() {
    let orders = shared(Vec::new());
    let record: NodeRecord = serde_json::from_str(r#"{"mtu": 1500}"#).unwrap();
    let words = Words {
        node: Some(Arc::new(record)),
        endpoints: Vec::new(),
    };
    let own = NodeId::from("n1");
    let mut believed = Believed::default();
    let heard = Heard::from_iter([(NodeId::from("n2"), Arc::new(words))]);
    assert!(believed.update(&orders, &own, &heard).speakers);
    assert!(believed.speakers().eq([&NodeId::from("n2")]));
    assert!(!believed.update(&orders, &own, &heard).speakers);
    assert!(believed.update(&orders, &own, &Heard::default()).speakers);
    assert_eq!(believed.speakers().count(), 0);
}

#[test]
fn a_sandbox_without_ipv6_has_the_ipv4_address_only() {
    let mut with = view("w", "n2", 4);
    with.ips.extend("fd00::a00:104".parse::<IpAddr>());
    let orders = shared(vec![with.clone()]);
    let of = |said: &str| {
        let heard = heard(&[("n2", said)]);
        let mut believed = Believed::default();
        update(&mut believed, &orders, &heard);
        let known = believed.get(&"w".into()).unwrap();
        let said = heard.words().values();
        let said = said.flat_map(|words| words.endpoints.clone());
        (
            known.ips.clone(),
            said.map(|said| *said == known.said()).eq([true]),
        )
    };
    let all = of(r#"{"id": "w", "ready": true, "ipv4_only": [80]}"#);
    assert_eq!(all, (with.ips.clone(), true));
    let half = of(r#"{"id": "w", "ready": true, "without_ipv6": true}"#);
    assert_eq!(half, (with.ips[..1].to_vec(), true));
}
