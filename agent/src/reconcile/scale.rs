//! What one node of a large cluster spends on what the others say, in virtual time: 1,000 nodes,
//! 10,000 endpoints, four load reports a second from each node.
//!
//! `cargo test --release -p weft-agent --lib scale -- --ignored --nocapture --test-threads=1`

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_gossip::{Config, Gossip, Identity, NetdbView};
use weft_model::assignment::{Assignment, EndpointView, NodeView, Own, ServiceView, Shared};
use weft_model::id::{EndpointId, NetworkId, NodeId, ServiceId};
use weft_model::objects::{
    ConnectionPolicy, Description, EndpointMode, Ipam, Mac, Meta, Network, NetworkAttachmentSpec,
    NetworkSpec, Node, NodeSpec, NodeState, NodeStatus, ServiceMode, Subnet, Vip,
};
use weft_model::records::Table;

use super::intake::{Intake, Sources, differ_in_loads_only};
use crate::compile::known::{self, KnownEndpoint};
use crate::compile::loads::Loads;
use crate::compile::mtus::Mtus;
use crate::compile::reports::Balanced;
use crate::compile::tables::{Inputs, compile};

const NODES: usize = 1000;
const ENDPOINTS_OF_EACH: usize = 10;
const SERVICES: usize = 100;
/// Replicas that a node has connections to.
const REPLICAS_OF_EACH: usize = 8;
const SPAN: Duration = Duration::from_secs(10);
/// Between two views for loads alone.
const VIEW: Duration = Duration::from_millis(50);
const VIEWS_IN_A_TICK: u32 = 5;
/// Of one endpoint.
const CHANGES: u32 = 20;
/// What fits a datagram.
const BATCH: usize = 8;

fn addr(node: usize) -> SocketAddr {
    let [_, _, hi, lo] = u32::try_from(node).unwrap().to_be_bytes();
    SocketAddr::from(([10, 1, hi, lo], 7946))
}

fn node_id(node: usize) -> String {
    format!("node{node:021}")
}

fn endpoint_id(endpoint: usize) -> String {
    // As long as others are, and with another beginning each.
    format!("{:0<25}", format!("e{endpoint:05}"))
}

fn ip_of(endpoint: usize) -> std::net::IpAddr {
    let [_, _, hi, lo] = u32::try_from(endpoint).unwrap().to_be_bytes();
    [10, 100, hi, lo].into()
}

/// Protobuf, as the members of gossip write it.
fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn number(out: &mut Vec<u8>, tag: u64, n: u64) {
    varint(out, tag << 3);
    varint(out, n);
}

fn field(out: &mut Vec<u8>, tag: u64, bytes: &[u8]) {
    varint(out, (tag << 3) | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn wrapped(tag: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    field(&mut out, tag, bytes);
    out
}

fn hello(node: usize) -> Vec<u8> {
    let SocketAddr::V4(at) = addr(node) else {
        panic!("IPv4");
    };
    let mut id = Vec::new();
    field(&mut id, 1, node_id(node).as_bytes());
    number(&mut id, 2, 1);
    field(&mut id, 4, &at.ip().octets());
    number(&mut id, 5, at.port().into());
    wrapped(3, &wrapped(1, &id))
}

/// This node's gossip, and what the others have said so far.
struct Cluster {
    gossip: Gossip,
    now: Duration,
    sequence: Vec<u64>,
}

impl Cluster {
    fn new() -> Self {
        let now = Duration::from_secs(1);
        let own = Identity::new(node_id(0).as_str().into(), addr(0), 1);
        let mut this = Self {
            gossip: Gossip::new(Config::default(), own, [7; 32], now),
            now,
            sequence: vec![0; NODES],
        };
        for node in 1..NODES {
            this.hear(node, &hello(node));
            let id = node_id(node);
            let first = node * ENDPOINTS_OF_EACH;
            let mut said: Vec<_> = (first..first + ENDPOINTS_OF_EACH)
                .map(|e| this.endpoint(node, e, true))
                .collect();
            said.push(this.update(node, Table::Node, &id, r#"{"mtu":1500}"#));
            this.updates(&said);
        }
        this
    }

    fn hear(&mut self, from: usize, datagram: &[u8]) {
        self.gossip
            .handle_datagram(self.now, addr(from), datagram)
            .unwrap();
        while self.gossip.poll_transmit().is_some() {}
        while self.gossip.poll_stream().is_some() {}
        while self.gossip.poll_event().is_some() {}
    }

    fn update(&mut self, node: usize, table: Table, key: &str, value: &str) -> Vec<u8> {
        self.sequence[node] += 1;
        let mut out = Vec::new();
        field(&mut out, 1, node_id(node).as_bytes());
        number(&mut out, 2, 1);
        number(&mut out, 3, self.sequence[node]);
        let code = match table {
            Table::Node => 1,
            Table::Endpoint => 2,
            Table::Load => 3,
        };
        number(&mut out, 4, code);
        field(&mut out, 5, key.as_bytes());
        field(&mut out, 6, value.as_bytes());
        out
    }

    fn endpoint(&mut self, node: usize, endpoint: usize, ready: bool) -> Vec<u8> {
        let id = endpoint_id(endpoint);
        let value = format!(r#"{{"id":"{id}","ready":{ready}}}"#);
        self.update(node, Table::Endpoint, &id, &value)
    }

    fn updates(&mut self, updates: &[Vec<u8>]) {
        for batch in updates.chunks(BATCH) {
            let mut out = Vec::new();
            for update in batch {
                field(&mut out, 1, update);
            }
            self.hear(1, &wrapped(2, &out));
        }
    }

    /// What a fifth of the nodes report in this round: each does so once in a tick.
    fn reports(&mut self, round: usize) -> Vec<Vec<u8>> {
        let in_turn = VIEWS_IN_A_TICK as usize;
        let (turn, tick) = (round % in_turn, round / in_turn);
        let nodes = (1..NODES).filter(|node| node % in_turn == turn);
        let mut reports = Vec::new();
        for node in nodes {
            let replica = node * 97 + (tick % REPLICAS_OF_EACH) * 1013;
            let replica = endpoint_id(replica % (NODES * ENDPOINTS_OF_EACH));
            let active = 1 + (node * 31 + round) % 50;
            let value = format!(r#"{{"active":{active},"draining":false}}"#);
            reports.push(self.update(node, Table::Load, &replica, &value));
        }
        reports
    }

    fn view(&self) -> Arc<NetdbView> {
        Arc::new(self.gossip.view())
    }
}

fn node(n: usize) -> Node {
    Node {
        id: NodeId(node_id(n)),
        meta: Meta::default(),
        spec: NodeSpec::default(),
        description: Description {
            hostname: format!("node{n}"),
            ..Description::default()
        },
        status: NodeStatus {
            state: NodeState::Ready,
            message: String::new(),
            addr: addr(n).ip(),
            impaired: None,
        },
        manager_status: None,
        data_path_addr: addr(n).ip(),
        gossip_port: 7946,
        certified: 0,
        ingress_ip: None,
    }
}

fn orders() -> Assignment {
    let network = NetworkId::from("back");
    let service = |n: usize| ServiceId(format!("service{n}"));
    let services = (0..SERVICES).map(|n| ServiceView {
        id: service(n),
        name: format!("service{n}"),
        mode: ServiceMode::Replicated { replicas: 100 },
        networks: vec![NetworkAttachmentSpec {
            target: network.to_string(),
            aliases: Vec::new(),
        }],
        endpoint_mode: EndpointMode::Vip,
        connections: ConnectionPolicy::default(),
        vips: vec![Vip {
            network: network.clone(),
            addr: ip_of(60_000 + n).into(),
        }],
        ports: Vec::new(),
    });
    let endpoints = (ENDPOINTS_OF_EACH..NODES * ENDPOINTS_OF_EACH).map(|n| EndpointView {
        id: EndpointId(endpoint_id(n)),
        network: network.clone(),
        node: NodeId(node_id(n / ENDPOINTS_OF_EACH)),
        name: format!("service{}.{n}", n % SERVICES),
        ips: vec![ip_of(n)],
        mac: Mac::for_ip(ip_of(n)),
        aliases: Vec::new(),
        service: Some(service(n % SERVICES)),
        task: None,
    });
    Assignment {
        shared: Arc::new(Shared {
            version: 1,
            cluster_id: "c".to_owned(),
            data_path_port: 4789,
            nodes: (0..NODES).map(|n| NodeView::from(&node(n))).collect(),
            networks: vec![Network {
                id: network.clone(),
                meta: Meta::default(),
                spec: NetworkSpec {
                    name: "back".to_owned(),
                    ipam: Ipam {
                        config: vec![Subnet {
                            cidr: "10.100.0.0/16".parse().unwrap(),
                            // Apart from the endpoints, which begin with the first address.
                            gateway: [10, 100, 255, 254].into(),
                        }],
                    },
                    ..NetworkSpec::default()
                },
                vni: 4097,
            }],
            services: services.collect(),
            ending: Vec::new(),
            endpoints: endpoints.map(Arc::new).collect(),
            peers: Vec::new(),
            gossip_keys: Vec::new(),
        }),
        own: Arc::new(Own {
            version: 1,
            node: node(0),
            tasks: Vec::new(),
            endpoints: Vec::new(),
        }),
    }
}

/// What the reconciler has of all this, without what needs a kernel.
struct Agent {
    orders: Arc<Assignment>,
    mtus: Arc<Mtus>,
    loads: Loads,
    intake: Intake,
    epoch: u64,
    remote: Vec<KnownEndpoint>,
}

impl Agent {
    fn new() -> Self {
        Self {
            orders: Arc::new(orders()),
            mtus: Arc::new(Mtus {
                port: 1450,
                receives: 1450,
                paths: BTreeMap::new(),
            }),
            loads: Loads::new(2),
            intake: Intake::default(),
            epoch: 0,
            remote: Vec::new(),
        }
    }

    fn sources(&self, view: &Arc<NetdbView>) -> Sources {
        Sources {
            orders: Arc::clone(&self.orders),
            local: 0,
            view: Arc::clone(view),
            mtus: Arc::clone(&self.mtus),
        }
    }

    fn compile(&mut self, view: &NetdbView) {
        let said = |(owner, record): (&NodeId, &Arc<_>)| (owner.clone(), Arc::clone(record));
        let heard = view.endpoints().map(said).collect();
        let nodes: Vec<(NodeId, ())> = view.nodes().map(|(id, _)| (id.clone(), ())).collect();
        let own = self.orders.node_id();
        let remote = known::of_others(&self.orders.shared, own, &heard, &mut Vec::new());
        self.epoch += 1;
        let compiled = compile(
            &Inputs {
                assignment: &self.orders,
                remote: &remote,
                nodes: &known::speaking(&nodes),
                local: &[],
                mesh_port: None,
                mesh_ip: [169, 254, 77, 2].into(),
                mesh_ip6: None,
                mtus: &self.mtus,
                epoch: self.epoch,
            },
            &mut self.loads,
        );
        assert_eq!(compiled.problems, Vec::<String>::new());
        self.remote = remote;
    }

    fn take_reports(&mut self, view: &Arc<NetdbView>, ticked: bool, now: Instant) {
        let due = self.intake.look(self.epoch, view, ticked, now);
        if due.replicas {
            let limits = BTreeMap::new();
            let replicas = self.remote.iter().filter_map(|record| {
                Some(Balanced {
                    ready: record.ready,
                    replica: &record.id,
                    group: (record.service.as_ref()?, &record.network),
                })
            });
            self.loads.set_replicas(replicas, &limits);
        }
        if due.hear {
            self.loads.hear(view.reports());
        }
        if due.count {
            self.loads.set_others(weft_wire::Instant(1));
        }
        if std::mem::take(&mut self.intake.tell) {
            assert_eq!(self.loads.take_changes(), []);
        }
    }
}

fn timed<T>(spent: &mut Duration, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = work();
    *spent += begun.elapsed();
    result
}

#[test]
#[ignore = "second tier: a measurement, which needs a release build"]
fn reports_of_a_thousand_nodes_cost_little_and_one_change_what_tables_cost() {
    let (mut cluster, mut agent) = (Cluster::new(), Agent::new());
    let mut seen = cluster.view();
    assert_eq!(seen.members.len(), NODES);
    assert_eq!(seen.endpoints().count(), (NODES - 1) * ENDPOINTS_OF_EACH);
    agent.compile(&seen);
    let start = Instant::now();
    agent.take_reports(&seen, true, start);
    let rounds = usize::try_from(SPAN.as_millis() / VIEW.as_millis()).unwrap();
    let settling = REPLICAS_OF_EACH * VIEWS_IN_A_TICK as usize;
    // Until every node has told of all that it will.
    for round in 0..settling {
        let reports = cluster.reports(round);
        cluster.updates(&reports);
    }
    let [mut gossip, mut views, mut checks, mut loads] = [Duration::ZERO; 4];
    let mut updates = 0;
    let mut at = Duration::ZERO;
    for round in settling..settling + rounds {
        at += VIEW;
        let reports = cluster.reports(round);
        updates += reports.len();
        timed(&mut gossip, || cluster.updates(&reports));
        let view = timed(&mut views, || cluster.view());
        let same = timed(&mut checks, || {
            differ_in_loads_only(&seen, &view) && agent.sources(&seen).are(&agent.sources(&view))
        });
        assert!(same, "reports make no tables");
        let ticked = round.is_multiple_of(VIEWS_IN_A_TICK as usize);
        timed(&mut loads, || agent.take_reports(&view, ticked, start + at));
        seen = view;
    }
    let percent = |spent: Duration| 100.0 * spent.as_secs_f64() / SPAN.as_secs_f64();
    let each = |spent: Duration| spent / u32::try_from(rounds).unwrap();
    println!(
        "{NODES} nodes, {} endpoints, {} reports known, {updates} in {SPAN:?}, a view every {VIEW:?}:",
        seen.endpoints().count(),
        seen.loads().count()
    );
    println!(
        "  taking in and decoding updates {:5.2} % of a core",
        percent(gossip)
    );
    println!(
        "  views                          {:5.2} %, {:?} each",
        percent(views),
        each(views)
    );
    println!(
        "  seeing that tables are as were {:5.2} %, {:?} each",
        percent(checks),
        each(checks)
    );
    println!(
        "  loads for the balancers        {:5.2} %, {:?} each",
        percent(loads),
        each(loads)
    );
    println!(
        "  views, tables and loads        {:5.2} %",
        percent(views + checks + loads)
    );

    let [mut arrives, mut shown, mut tables, mut counters] = [Duration::ZERO; 4];
    for change in 0..CHANGES {
        let update = cluster.endpoint(7, 7 * ENDPOINTS_OF_EACH, change % 2 == 1);
        timed(&mut arrives, || cluster.updates(&[update]));
        let view = timed(&mut shown, || cluster.view());
        assert!(!agent.sources(&seen).are(&agent.sources(&view)));
        timed(&mut tables, || agent.compile(&view));
        timed(&mut counters, || {
            agent.take_reports(&view, false, start + at)
        });
        seen = view;
    }
    println!("one endpoint changes:");
    for (what, spent) in [
        ("taking in", arrives),
        ("view", shown),
        ("tables", tables),
        ("counters", counters),
    ] {
        println!("  {what:<10} {:?}", spent / CHANGES);
    }
}
