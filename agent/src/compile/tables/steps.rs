//! Tables that follow each other step by step are those that are made anew.

mod world;

use proptest::prelude::*;
use weft_dataplane::PortCounters;
use weft_model::assignment::Own;
use weft_model::objects::{Protocol, PublishMode};
use weft_wire::Instant;

use self::world::{SERVICES, World, node, service_id, tap};
use super::*;
use crate::compile::known::KnownEndpoint;

/// The world before and after some steps, as tables are made of it.
struct Run {
    world: World,
    orders: Assignment,
    compiler: Compiler,
    loads: Loads,
    tables: Compiled,
    epoch: u64,
    mesh: Arc<Port>,
}

impl Run {
    fn new() -> Self {
        let mut world = World::new();
        world.hear();
        let orders = Assignment {
            shared: Arc::new(world.shared.clone()),
            own: Arc::new(Own {
                version: 1,
                node: node(0),
                tasks: Vec::new(),
                endpoints: Vec::new(),
            }),
            payloads: Arc::default(),
        };
        let mesh = Arc::new(Port {
            id: PortId(0),
            name: "mesh".into(),
            vni: Vni::new(0).unwrap(),
            mac: mac_for_ip([169, 254, 77, 2].into()),
            ips: Vec::new(),
            tap: tap(),
            worker: 0,
            counters: Arc::new(PortCounters::default()),
            shortcut: Default::default(),
        });
        let (mut compiler, mut loads) = (Compiler::default(), Loads::new(2));
        let none = Services::default();
        let inputs = inputs(&world, &orders, &[], &mesh, &none);
        let tables = compiler.compile(&inputs, &mut loads).expect("the first");
        Self {
            world,
            orders,
            compiler,
            loads,
            tables,
            epoch: 1,
            mesh,
        }
    }

    /// What was made for it, if anything was.
    fn step(&mut self, step: (u8, u8, u8)) -> Option<Work> {
        self.world.step(step);
        self.follow()
    }

    fn follow(&mut self) -> Option<Work> {
        self.world.hear();
        if *self.orders.shared != self.world.shared {
            self.orders.shared = Arc::new(self.world.shared.clone());
        }
        let local: Vec<LocalPort> = self.world.ports.values().cloned().collect();
        let before = &self.tables.snapshot.services;
        let inputs = inputs(&self.world, &self.orders, &local, &self.mesh, before);
        let made = self.compiler.compile(&inputs, &mut self.loads);
        let again = self.compiler.compile(&inputs, &mut self.loads);
        assert!(again.is_none(), "nothing is new");
        let work = made.as_ref().map(|made| made.work);
        if let Some(made) = made {
            self.epoch += 1;
            self.loads.follow(&made.changes, Instant(self.epoch));
            self.tables = made;
        }
        work
    }

    fn anew(&mut self) -> Compiled {
        let local: Vec<LocalPort> = self.world.ports.values().cloned().collect();
        let none = Services::default();
        let inputs = inputs(&self.world, &self.orders, &local, &self.mesh, &none);
        let made = Compiler::default().compile(&inputs, &mut self.loads);
        made.expect("the first")
    }
}

fn inputs<'a>(
    world: &'a World,
    orders: &'a Assignment,
    local: &'a [LocalPort],
    mesh: &'a Arc<Port>,
    before: &'a Services,
) -> Inputs<'a> {
    Inputs {
        assignment: orders,
        heard: &world.heard,
        local,
        mesh_port: Some(mesh),
        mesh_ip: [169, 254, 77, 2].into(),
        mesh_ip6: None,
        mtus: &world.mtus,
        epoch: 1,
        before,
    }
}

/// Everything that services of tables say; of counters, which ones they are.
fn said_of(services: &Services) -> Vec<String> {
    let mut said = Vec::new();
    for service in services.all() {
        let load = Arc::as_ptr(&service.balancer.load);
        said.push(format!(
            "{} {} {} {:?} {load:?} {:?} {}",
            service.id,
            service.name,
            service.local_first,
            service.balancer.affinity,
            service.limits,
            service.in_gap
        ));
        for r in &service.replicas {
            let load = Arc::as_ptr(&r.load);
            let place = (r.key, r.vni, r.ip, r.mac, r.local, r.draining);
            said.push(format!("{place:?} {load:?}"));
            let found = services.replica(r.vni, r.key).map(|r| (r.ip, r.local));
            let of = services.service_of_replica(r.vni, r.key).map(|s| &s.id);
            said.push(format!(
                "{found:?} {of:?} {}",
                services.is_replica(r.vni, r.ip)
            ));
        }
    }
    for net in 0..3 {
        let vni = Vni::new(4097 + net).unwrap();
        said.push(format!("{:?}", services.mss(vni, true)));
        for last in (10..18).chain(100..104) {
            let ip = IpAddr::from([10, 0, net as u8, last]);
            let behind = services.vip(vni, ip).map(|s| &s.id);
            said.push(format!("{behind:?} {}", services.is_replica(vni, ip)));
        }
    }
    let mut ports: Vec<String> = services
        .all_published()
        .map(|(protocol, p)| {
            let load = Arc::as_ptr(p.load);
            let replicas: Vec<u64> = p.service.replicas.iter().map(|r| r.key).collect();
            format!("{protocol:?} {} {replicas:?} {load:?}", p.target_port)
        })
        .collect();
    ports.sort();
    said.extend(ports);
    said
}

fn shown(there: &There) -> Vec<&KnownEndpoint> {
    let services = (0..SERVICES).map(service_id);
    let of_services = services.flat_map(|id| there.of_service(&id).collect::<Vec<_>>());
    there.all().chain(of_services).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Endpoints come, go, move and change their service; nodes fall silent and speak again; what
    /// the orders say changes; and after each step the tables are those of a compiler that knows
    /// nothing of before.
    #[test]
    fn tables_of_many_steps_are_those_made_anew(
        steps in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 1..60),
    ) {
        let mut run = Run::new();
        for step in steps {
            run.step(step);
            let anew = run.anew();
            let kept = &run.tables;
            prop_assert_eq!(&kept.snapshot.switch, &anew.snapshot.switch);
            prop_assert_eq!(&kept.zone, &anew.zone);
            prop_assert_eq!(&kept.published, &anew.published);
            prop_assert_eq!(&kept.problems, &anew.problems);
            prop_assert_eq!(
                said_of(&kept.snapshot.services),
                said_of(&anew.snapshot.services)
            );
            prop_assert_eq!(shown(&kept.there), shown(&anew.there));
            let mesh = |c: &Compiled| format!("{:?}", c.snapshot.mesh);
            prop_assert_eq!(mesh(kept), mesh(&anew));
            let ports = |c: &Compiled| c.snapshot.ports.keys().copied().collect::<BTreeSet<_>>();
            prop_assert_eq!(ports(kept), ports(&anew));
        }
    }
}

#[test]
fn for_one_endpoint_one_network_and_one_service_are_made() {
    let mut run = Run::new();
    // Six replicas, two of each service, on `back` and `front` of nodes 1 and 2.
    for n in 0..6 {
        let (service, network) = (n / 2, n % 2);
        run.world.order(n, 1 + n % 2, 3 * service + network);
        run.world.say(1 + n % 2, n, true);
    }
    let all = run.follow().expect("all are new");
    assert_eq!((all.endpoints, all.networks, all.services), (6, 2, 3));
    let before = run.tables.snapshot.services.all().to_vec();
    run.world.say(2, 3, false);
    let work = run.follow().expect("it is no longer ready");
    assert_eq!((work.endpoints, work.services), (1, 1));
    assert_eq!(work.networks, 0, "it is where it was");
    // Its service has other names on both of its networks; it has none.
    assert_eq!(work.names, 2);
    let after = run.tables.snapshot.services.all();
    let shared = before.iter().zip(after).filter(|(a, b)| Arc::ptr_eq(a, b));
    assert_eq!((before.len(), shared.count()), (9, 6));
    // It goes.
    run.world.said.remove(&(2, 3));
    let work = run.follow().expect("it is gone");
    assert_eq!((work.endpoints, work.networks, work.services), (1, 1, 1));
    // Other orders that say the same, and what nobody is asked about, make nothing.
    run.world.shared.version += 1;
    assert_eq!(run.follow(), None);
    run.world.said.remove(&(2, 3));
    assert_eq!(run.follow(), None);
    // A limit concerns one service.
    run.world.shared.services[0].connections.limit = 7;
    let work = run.follow().expect("a limit");
    assert_eq!((work.endpoints, work.networks, work.services), (0, 0, 1));
}

/// Also of tasks about which nothing else is new.
#[test]
fn names_come_and_go_with_the_switch_of_their_service() {
    let mut run = Run::new();
    // One that starts, and one that drains, of service 0.
    for n in 0..2 {
        run.world.order(n, 1, 0);
        run.world.say(1, n, false);
    }
    run.world.drain(1, 1, true);
    run.follow().expect("both are new");
    let before = run.tables.zone.clone();
    run.world.shared.services[0].names_before_healthy = true;
    let work = run.follow().expect("a switch");
    // The names of the service on both networks, and of the task that starts.
    assert_eq!((work.endpoints, work.services, work.names), (0, 1, 3));
    assert_ne!(run.tables.zone, before);
    let anew = run.anew().zone;
    assert_eq!(run.tables.zone, anew);
    // It is ready: the same names.
    run.world.say(1, 0, true);
    let work = run.follow().expect("it is ready");
    assert_eq!((work.endpoints, work.names), (1, 2));
    run.world.say(1, 0, false);
    run.follow().expect("it is not");
    run.world.shared.services[0].names_before_healthy = false;
    let work = run.follow().expect("a switch");
    assert_eq!((work.endpoints, work.names), (0, 2));
    assert_eq!(run.tables.zone, before);
}

#[test]
fn ports_of_both_kinds_are_accepted_where_their_replicas_are() {
    let mut run = Run::new();
    // Of service 0, on the ingress network: one here, one elsewhere.
    for (n, at) in [(0, 0), (1, 1)] {
        run.world.order(n, at, 2);
    }
    run.world.say(1, 1, true);
    run.world.plug(0, true);
    run.follow().expect("both are new");
    let host = |run: &Run| {
        let published = run.tables.published.iter();
        let host = published.filter(|p| p.mode == PublishMode::Host);
        host.map(|p| (p.port, p.protocol, p.serving))
            .collect::<Vec<_>>()
    };
    assert_eq!(host(&run), [(9000, Protocol::Tcp, true)]);
    let services = &run.tables.snapshot.services;
    let behind = services.published(weft_mesh::Protocol::Tcp, 9000).unwrap();
    assert_eq!(behind.service.replicas.len(), 1, "this node's own");
    run.world.plug(0, false);
    run.follow().expect("it drains");
    assert_eq!(host(&run), [(9000, Protocol::Tcp, false)]);
    run.world.ports.clear();
    run.follow().expect("it is gone");
    assert_eq!(host(&run), []);
}
