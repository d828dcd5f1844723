//! What one node of a large cluster spends on what the others say, in virtual time: 1,000 nodes,
//! 10,000 endpoints of 200 services, four load reports a second from each node.
//!
//! `cargo test --release -p weft-agent --lib scale -- --ignored --nocapture --test-threads=1`

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

mod cluster;
mod orders;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_dataplane::{PortMap, Snapshot};
use weft_dns::Zone;
use weft_gossip::NetdbView;
use weft_mesh::Services;
use weft_model::assignment::Assignment;
use weft_vxlan::Switch;

use self::cluster::Cluster;
use self::orders::orders;
use super::intake::{Intake, Sources, has_same_nodes};
use super::remembered::Remembered;
use crate::compile::loads::Loads;
use crate::compile::mtus::Mtus;
use crate::compile::tables::{Compiler, Inputs, Work};
use crate::compile::there::There;
use crate::gossip::GossipStats;
use crate::metrics::{Metrics, Sample};
use crate::observe::counters::{self, Once};
use crate::observe::replicas::Seen;
use crate::published::{PortEntry, Published};

const NODES: usize = 1000;
const ENDPOINTS_OF_EACH: usize = 10;
/// The second half of them are published.
const SERVICES: usize = 200;
/// Replicas that a node has connections to.
const REPLICAS_OF_EACH: usize = 8;
const SPAN: Duration = Duration::from_secs(10);
/// Between two views for loads alone.
const VIEW: Duration = Duration::from_millis(50);
const VIEWS_IN_A_TICK: u32 = 5;
/// Of one endpoint.
const CHANGES: u32 = 20;
const SCRAPES: u32 = 5;

/// What the reconciler has of all this, without what needs a kernel.
struct Agent {
    orders: Arc<Assignment>,
    mtus: Arc<Mtus>,
    remembered: Remembered,
    compiler: Compiler,
    loads: Loads,
    intake: Intake,
    epoch: u64,
    tables: Arc<Snapshot>,
    zone: Arc<Zone>,
    there: Arc<There>,
    published: BTreeSet<Published>,
}

impl Agent {
    fn new(folder: &tempfile::TempDir) -> Self {
        Self {
            orders: Arc::new(orders()),
            mtus: Arc::new(Mtus {
                port: 1450,
                receives: 1450,
                paths: BTreeMap::new(),
            }),
            remembered: Remembered::load(folder.path().join("heard.json"), Instant::now()),
            compiler: Compiler::default(),
            loads: Loads::new(2),
            intake: Intake::default(),
            epoch: 0,
            tables: Arc::new(Snapshot {
                epoch: 0,
                switch: Switch::default(),
                services: Services::default(),
                ports: PortMap::default(),
                mesh: None,
                flow_epochs: weft_dataplane::FlowEpochs::default(),
            }),
            zone: Arc::default(),
            there: Arc::default(),
            published: BTreeSet::new(),
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

    /// Whether a view makes tables, as far as that is seen at once; and is no news of nodes.
    fn sees_change(&self, before: &Arc<NetdbView>, view: &Arc<NetdbView>) -> bool {
        assert!(has_same_nodes(before, view));
        !self.sources(before).are(&self.sources(view))
    }

    fn compile(&mut self, before: &NetdbView, view: &NetdbView) -> Option<Work> {
        let own = self.orders.node_id();
        self.remembered.follow(before, view, own, Instant::now());
        let tables = Arc::clone(&self.tables);
        let inputs = Inputs {
            assignment: &self.orders,
            heard: self.remembered.heard(),
            local: &[],
            mesh_port: None,
            mesh_ip: [169, 254, 77, 2].into(),
            mesh_ip6: None,
            mtus: &self.mtus,
            epoch: self.epoch + 1,
            before: &tables.services,
        };
        let compiled = self.compiler.compile(&inputs, &mut self.loads)?;
        self.epoch += 1;
        assert_eq!(compiled.problems, Vec::<String>::new());
        let now = weft_wire::Instant(self.epoch);
        self.loads.follow(&compiled.changes, now);
        self.tables = Arc::new(compiled.snapshot);
        self.zone = Arc::new(compiled.zone);
        self.there = Arc::new(compiled.there);
        self.published = compiled.published;
        Some(compiled.work)
    }

    fn take_reports(&mut self, view: &Arc<NetdbView>, ticked: bool, now: Instant) {
        let due = self.intake.look(view, ticked, now);
        due.give(view, &mut self.loads, |_| true, weft_wire::Instant(1));
        if std::mem::take(&mut self.intake.tell) {
            self.loads.take_changes();
        } else if self.loads.is_urgent() {
            self.loads.take_urgent();
        }
    }

    /// `/metrics`, but for what the kernel and the workers count; of a node that has had a connection
    /// to none of the replicas, or to each.
    fn scrape(&self, view: &NetdbView, used: bool) -> String {
        let entries = self.published.iter().map(|published| PortEntry {
            published: published.clone(),
            stats: None,
            closed: None,
            held_by: None,
            frame: true,
        });
        let mut seen = Seen::new(
            Arc::clone(&self.orders),
            Arc::clone(&self.there),
            Arc::clone(&self.tables),
            None,
            weft_wire::Instant(1),
        );
        seen.entries = entries.collect();
        let (mesh_ports, mut mesh_replicas) = counters::mesh(&seen);
        for replica in &mut mesh_replicas {
            replica.accepted = used.into();
        }
        let sample = Sample {
            mesh_ports,
            mesh_replicas,
            gossip: counters::gossip(&GossipStats::default(), view),
            gossip_undecodable: view.undecodable() as u64,
            ..Sample::default()
        };
        let source = Once::from(sample);
        Metrics::new(Arc::new(source)).encode().unwrap()
    }
}

fn timed<T>(spent: &mut Duration, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = work();
    *spent += begun.elapsed();
    result
}

/// A figure; one that has to be met with what is required.
fn figure(what: &str, figure: &str, required: &str) {
    let required = match required {
        "" => String::new(),
        required => format!("   required: {required}"),
    };
    println!("  {what:<48} {figure:>14}{required}");
}

fn duration(what: &str, spent: Duration, required: &str) {
    figure(what, &format!("{spent:.1?}"), required);
}

#[test]
#[ignore = "second tier: a measurement, which needs a release build"]
fn what_a_thousand_nodes_say_costs_little_and_a_change_what_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let (mut cluster, mut agent) = (Cluster::new(), Agent::new(&folder));
    let nobody = NetdbView::default();
    let seen = cluster.view(&nobody);
    assert_eq!(seen.members.len(), NODES);
    assert_eq!(seen.endpoints().count(), (NODES - 1) * ENDPOINTS_OF_EACH);
    println!(
        "{NODES} nodes, {SERVICES} services, {} endpoints:",
        seen.endpoints().count()
    );
    let mut first = Duration::ZERO;
    let all = timed(&mut first, || agent.compile(&nobody, &seen)).unwrap();
    assert_eq!((all.networks, all.services), (2, SERVICES));
    assert!(agent.zone.names() > NODES * ENDPOINTS_OF_EACH / 2);
    let start = Instant::now();
    timed(&mut first, || agent.take_reports(&seen, true, start));
    let (seen, at) = reports(&mut cluster, &mut agent, seen, start);
    let seen = changes(&mut cluster, &mut agent, seen, at);
    orders_change(&mut agent, &seen);
    duration("the first tables, of everything", first, "");
    scrapes(&agent, &seen);
}

fn scrapes(agent: &Agent, seen: &NetdbView) {
    for (used, of, required) in [
        (false, "of replicas never used", "below 50 ms"),
        (true, "of replicas used, all of them", ""),
    ] {
        let (mut spent, mut bytes) = (Duration::ZERO, 0);
        for _ in 0..SCRAPES {
            bytes = timed(&mut spent, || agent.scrape(seen, used)).len();
        }
        duration(&format!("/metrics, {of}"), spent / SCRAPES, required);
        figure("/metrics: bytes", &bytes.to_string(), "");
    }
}

/// Load reports alone, for a while; the last view, and when that was.
fn reports(
    cluster: &mut Cluster,
    agent: &mut Agent,
    mut seen: Arc<NetdbView>,
    start: Instant,
) -> (Arc<NetdbView>, Instant) {
    let rounds = usize::try_from(SPAN.as_millis() / VIEW.as_millis()).unwrap();
    let settling = REPLICAS_OF_EACH * VIEWS_IN_A_TICK as usize;
    // Until every node has told of all that it will.
    for round in 0..settling {
        let reports = cluster.reports(round);
        cluster.updates(&reports);
    }
    let [mut gossip, mut views, mut checks, mut loads] = [Duration::ZERO; 4];
    let mut updates = 0;
    let mut at = start;
    for round in settling..settling + rounds {
        at += VIEW;
        let reports = cluster.reports(round);
        updates += reports.len();
        timed(&mut gossip, || cluster.updates(&reports));
        let view = timed(&mut views, || cluster.view(&seen));
        let other = timed(&mut checks, || agent.sees_change(&seen, &view));
        assert!(!other, "reports make no tables");
        let ticked = round.is_multiple_of(VIEWS_IN_A_TICK as usize);
        timed(&mut loads, || agent.take_reports(&view, ticked, at));
        seen = view;
    }
    println!(
        "{} reports known, {updates} in {SPAN:?}, a view every {VIEW:?}, of a core:",
        seen.loads().count()
    );
    let percent = |what: &str, spent: Duration, required: &str| {
        let percent = 100.0 * spent.as_secs_f64() / SPAN.as_secs_f64();
        figure(what, &format!("{percent:.2} %"), required);
    };
    percent("taking in and decoding updates", gossip, "");
    percent("views", views, "");
    percent("seeing that tables are as they were", checks, "");
    percent("loads for the balancers", loads, "");
    percent(
        "views, tables and loads",
        views + checks + loads,
        "below 5 %",
    );
    (seen, at)
}

/// One endpoint takes connections no more, and again.
fn changes(
    cluster: &mut Cluster,
    agent: &mut Agent,
    mut seen: Arc<NetdbView>,
    mut at: Instant,
) -> Arc<NetdbView> {
    let [mut arrives, mut shown, mut tables, mut counted] = [Duration::ZERO; 4];
    for change in 0..CHANGES {
        at += VIEW;
        let ready = change % 2 == 1;
        let update = cluster.endpoint(7, 7 * ENDPOINTS_OF_EACH, ready);
        timed(&mut arrives, || cluster.updates(&[update]));
        let view = timed(&mut shown, || cluster.view(&seen));
        let other = timed(&mut tables, || agent.sees_change(&seen, &view));
        assert!(other);
        let work = timed(&mut tables, || agent.compile(&seen, &view));
        let only_this = Work {
            endpoints: 1,
            networks: 0,
            services: 1,
            names: 1 + usize::from(ready),
        };
        assert_eq!(work, Some(only_this));
        timed(&mut counted, || agent.take_reports(&view, false, at));
        seen = view;
    }
    println!("one endpoint changes:");
    duration("taking it in", arrives / CHANGES, "");
    duration("a view", shown / CHANGES, "");
    duration("tables", tables / CHANGES, "");
    duration("counters", counted / CHANGES, "");
    let all = arrives + shown + tables + counted;
    duration("all of it", all / CHANGES, "below 2 ms");
    seen
}

/// The orders name one endpoint less, and again.
fn orders_change(agent: &mut Agent, seen: &Arc<NetdbView>) {
    let all = Arc::clone(&agent.orders);
    let mut less = Assignment::clone(&all);
    let shared = Arc::make_mut(&mut less.shared);
    shared.version += 1;
    shared.endpoints.remove(5_000);
    let less = Arc::new(less);
    let mut spent = Duration::ZERO;
    for change in 0..CHANGES {
        agent.orders = Arc::clone(if change % 2 == 0 { &less } else { &all });
        let work = timed(&mut spent, || agent.compile(seen, seen)).unwrap();
        assert_eq!((work.endpoints, work.networks, work.services), (1, 1, 1));
    }
    duration(
        "tables for orders with one endpoint less or more",
        spent / CHANGES,
        "",
    );
}
