//! `weft doctor`: what the node has, uses and lacks.

mod containers;
mod fast_path;
mod overlay;
mod walls;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use weft_cluster::ErrorKind;
use weft_dataplane::{SelfTest, Verdict, WorkerCounters};
use weft_gossip::MemberState;
use weft_model::api::{Check, Health};
use weft_swarm::clocks::local;
use weft_sys::clock::unix_ms;

use super::ways;
use crate::blocking::blocking;
use crate::parts::data_path::DataPath;
use crate::parts::handles::Handles;
use crate::parts::warnings::Warnings;
use crate::sandbox::runner::ContainerEngine;

/// Oldest kernel that everything was made for.
const LEAST_KERNEL: (u32, u32) = (6, 2);

/// Receive buffer below which bursts of super-frames are lost, in bytes.
const LEAST_BUFFER: usize = 4 << 20;

/// Checks in the order in which they are found out.
#[derive(Debug, Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn ok(&mut self, name: impl Into<String>, found: impl Into<String>) {
        self.add(name, Health::Ok, found, "");
    }

    fn warn(&mut self, name: impl Into<String>, found: impl Into<String>, next: &str) {
        self.add(name, Health::Warn, found, next);
    }

    fn fail(&mut self, name: impl Into<String>, found: impl Into<String>, next: &str) {
        self.add(name, Health::Fail, found, next);
    }

    fn add(
        &mut self,
        name: impl Into<String>,
        health: Health,
        found: impl Into<String>,
        next: &str,
    ) {
        self.0.push(Check {
            name: name.into(),
            health,
            found: found.into(),
            next: next.to_owned(),
        });
    }
}

/// Looks at everything; nothing is changed. `handles` are those of the membership, where there is
/// one.
pub(crate) async fn examine(
    handles: Option<Arc<Handles>>,
    warnings: &Warnings,
    engine: &ContainerEngine,
) -> anyhow::Result<Vec<Check>> {
    let engine = engine.clone();
    let mut checks = blocking(move || {
        let mut checks = Checks::default();
        machine(&mut checks);
        containers::examine(&mut checks, &engine);
        checks
    })
    .await?;
    match handles {
        None => checks.warn(
            "swarm",
            "not part of a swarm",
            "make one with `weft swarm init`, or join one with `weft swarm join`",
        ),
        Some(handles) => {
            session(&mut checks, &handles);
            match handles.data_path.load_full() {
                Some(data_path) => {
                    data_plane(&mut checks, &data_path);
                    fast_path::examine(&mut checks, &handles, &data_path);
                    ports(&mut checks, &handles, &data_path);
                    mesh(&mut checks, &data_path);
                    mtus(&mut checks, &data_path);
                    gossip(&mut checks, &handles, &data_path);
                    overlay::examine(&mut checks, &handles, &data_path).await;
                    walls::keys(&mut checks, data_path.gossip.keys(), unix_ms());
                    let manager = handles.manager.get().map(|manager| manager.door());
                    let doors = manager.into_iter().chain([data_path.gossip.door()]);
                    for door in doors.chain(handles.images.door()) {
                        walls::door(&mut checks, &door);
                    }
                    checks = blocking(move || {
                        walls::files(&mut checks, &handles, &data_path);
                        walls::gateway(&mut checks);
                        checks
                    })
                    .await?;
                }
                None => checks.fail(
                    "data plane",
                    "it does not run",
                    "see the warnings below and the log of weftd",
                ),
            }
        }
    }
    for warning in warnings.all() {
        checks.warn("warning", warning, "");
    }
    Ok(checks.0)
}

/// What the machine offers.
fn machine(checks: &mut Checks) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    if kernel_version(release).is_some_and(|version| version >= LEAST_KERNEL) {
        checks.ok("kernel", release);
    } else {
        let (major, minor) = LEAST_KERNEL;
        checks.fail(
            "kernel",
            release,
            &format!("weft needs Linux {major}.{minor} or later"),
        );
    }
    match std::fs::metadata("/dev/net/tun") {
        Ok(_) => checks.ok("tun", "/dev/net/tun is there"),
        Err(error) => checks.fail(
            "tun",
            format!("/dev/net/tun: {error}"),
            "load the module (`modprobe tun`), or give the container the device",
        ),
    }
    if weft_sys::nft::installed() {
        checks.ok("nft", "it runs");
    } else {
        checks.warn(
            "nft",
            "the program nft does not run",
            "install nftables: sandboxes have no way out without it",
        );
    }
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn session(checks: &mut Checks, handles: &Handles) {
    if handles.session.connected() {
        checks.ok("manager", "the session is open");
    } else {
        let why = handles.session.last_error();
        let next = match &why {
            // Who is refused reaches the manager.
            Some(why) if why.kind != ErrorKind::Unavailable => "what runs goes on; do what it says",
            _ => "what runs goes on; look whether a manager runs and its port 2377 can be reached",
        };
        let found = why.map_or_else(|| "no session".to_owned(), |e| e.to_string());
        checks.fail("manager", found, next);
    }
    let (from, until) = handles.session.identity().validity();
    let now = SystemTime::now();
    let found = format!(
        "it counts from {} until {}; the clock says {}",
        local(from),
        local(until),
        local(now)
    );
    if (from..=until).contains(&now) {
        checks.ok("certificate", found);
    } else {
        checks.fail(
            "certificate",
            found,
            "look whether the clock is right; weftd renews the certificate as soon as a manager answers",
        );
    }
}

fn data_plane(checks: &mut Checks, data_path: &DataPath) {
    let plane = &data_path.plane;
    let workers = plane.counters();
    if plane.alive() {
        let count = workers.len();
        if workers.iter().any(WorkerCounters::pin_refused) {
            checks.warn(
                "workers",
                format!("{count}, not all of them pinned"),
                "the kernel moves them between CPUs, which costs latency; allow sched_setaffinity",
            );
        } else {
            let cpus = workers.iter().filter_map(WorkerCounters::pinned_to);
            let list: Vec<String> = cpus.map(|cpu| cpu.to_string()).collect();
            let found = match (list.len(), list.join(", ")) {
                (0, _) => format!("{count}, on any CPU"),
                (pinned, list) if pinned == count => format!("{count}, pinned to CPU {list}"),
                (pinned, list) => {
                    format!("{count}, {pinned} of them pinned to CPU {list}, the others on any")
                }
            };
            checks.ok("workers", found);
        }
    } else {
        checks.fail(
            "workers",
            "one has ended",
            "weftd ends by itself then; its log says why",
        );
    }
    let buffer = plane.receive_buffer();
    let found = format!("{} KiB", buffer >> 10);
    if buffer >= LEAST_BUFFER {
        checks.ok("receive buffer", found);
    } else {
        checks.warn(
            "receive buffer",
            found,
            "bursts are lost: give weftd CAP_NET_ADMIN, or raise net.core.rmem_max",
        );
    }
    for test in plane.self_tests() {
        self_test(checks, &test);
    }
    match plane.injection() {
        None => {}
        Some(Ok(())) => {
            let plain = data_path.plain.load();
            let devices: BTreeSet<&str> = plain.values().map(String::as_str).collect();
            let devices = Vec::from_iter(devices).join(", ");
            let mut found = "the kernel segments TCP with its tunnel headers".to_owned();
            if !plain.is_empty() {
                found = format!(
                    "{found}; not used for {} nodes behind {devices}, which does not segment tunnels (tx-udp_tnl-csum-segmentation of `ethtool -k`)",
                    plain.len()
                );
            }
            checks.ok("self-test tunnel-gso", found);
        }
        Some(Err(error)) => checks.warn(
            "self-test tunnel-gso",
            error.to_string(),
            "super-frames leave by UDP_SEGMENT, which is slower on some machines; Linux 6.17 and an IPv4 data path have it",
        ),
    }
    checks.ok("segments", plane.choice());
    let refused: u64 = workers.iter().map(|w| w.refused_segments()).sum();
    let path = plane.path();
    if refused > 0 {
        checks.warn(
            "path",
            format!("{path}; the kernel refused to segment {refused} times"),
            "every segment is sent on its own, which costs throughput: see the offloads of the underlay's device",
        );
    } else {
        checks.ok("path", path);
    }
}

fn self_test(checks: &mut Checks, test: &SelfTest) {
    let name = format!("self-test {}", test.name);
    match test.verdict {
        Verdict::Passed => checks.ok(name, test.reason.as_str()),
        Verdict::Failed => checks.warn(
            name,
            test.reason.as_str(),
            "weft goes another way where there is one; a kernel that passes is faster",
        ),
        Verdict::Untested => checks.warn(
            name,
            test.reason.as_str(),
            "it is used until the kernel refuses",
        ),
    }
}

fn ports(checks: &mut Checks, handles: &Handles, data_path: &DataPath) {
    let local = handles.local.all().into_iter().map(|p| p.port);
    for port in local.chain(data_path.mesh_port.clone()) {
        let offloads = port.tap.offloads();
        let has = [
            ("checksums", offloads.checksum()),
            ("TCP segmentation", offloads.tcp_segmentation()),
            ("UDP segmentation", offloads.udp_segmentation()),
        ];
        let names = |wanted| {
            let mut names = has
                .iter()
                .filter(|(_, has)| *has == wanted)
                .map(|(n, _)| *n);
            let first = names.next().unwrap_or("no offload").to_owned();
            names.fold(first, |list, name| list + ", " + name)
        };
        let name = format!("port {}", port.name);
        if has.iter().all(|(_, has)| *has) {
            checks.ok(name, names(true));
        } else {
            checks.warn(
                name,
                format!("{}, without {}", names(true), names(false)),
                "its kernel hands over packets one by one, which costs throughput; Linux 6.2 has all of them",
            );
        }
    }
}

/// Over which families published ports go to replicas, and what is in their way.
fn mesh(checks: &mut Checks, data_path: &DataPath) {
    let name = "published ports over IPv6";
    match &data_path.mesh_ipv6 {
        Ok(()) => checks.ok(name, "they go to replicas as they are"),
        Err(why) => checks.ok(name, format!("accepted by this node: {why}")),
    }
    if let Some(error) = data_path.mesh.frame_error() {
        checks.fail(
            "published ports",
            format!("this node accepts connections itself: {error}"),
            "add the rules that are named, or look why those of weft cannot be made; replicas see their clients again then",
        );
    }
    if let Some(dropped) = data_path.rules.dropped_outside() {
        checks.fail(
            "way out",
            format!("sandboxes do not reach the outside: {dropped}"),
            "add the rules that are named",
        );
    }
}

fn mtus(checks: &mut Checks, data_path: &DataPath) {
    let mtus = data_path.mtus.load();
    checks.ok("mtu", format!("{} bytes in sandboxes", mtus.port));
    for (vtep, mtu) in &mtus.paths {
        let name = format!("mtu to {vtep}");
        if *mtu < mtus.port {
            checks.warn(
                name,
                format!("{mtu} bytes"),
                "larger packets are answered with ICMP; widen the route or the devices on the way where that is possible",
            );
        } else {
            checks.ok(name, format!("{mtu} bytes"));
        }
    }
}

fn gossip(checks: &mut Checks, handles: &Handles, data_path: &DataPath) {
    let view = data_path.gossip.view().borrow().clone();
    let blocked = data_path.gossip.blocked();
    let orders = handles.session.assignments().borrow().clone();
    for (node, state) in view.members.iter() {
        if *node == handles.node_id {
            continue;
        }
        let mut nodes = orders.iter().flat_map(|o| &o.shared.nodes);
        let name = nodes
            .find(|n| n.id == *node)
            .map_or_else(|| node.short().to_owned(), |n| n.hostname.clone());
        let name = format!("node {name}");
        let way = blocked.iter().find(|way| way.node == *node);
        if let (true, Some(way), Some(orders)) = (state.state.is_active(), way, &orders) {
            checks.warn(name, ways::text(way, orders), ways::NEXT);
            continue;
        }
        match state.state {
            MemberState::Alive => checks.ok(name, "it answers gossip"),
            MemberState::Suspect => checks.warn(
                name,
                "it has not answered for a moment",
                "look again; if it stays so, UDP and TCP 7946 are blocked",
            ),
            MemberState::Down => checks.warn(
                name,
                "it does not answer",
                "start its weftd, or open UDP and TCP 7946 between the nodes",
            ),
            MemberState::Left => {}
        }
    }
    let routeless = orders.iter().flat_map(|o| &o.shared.nodes).filter(|n| {
        n.id != handles.node_id && !data_path.mtus.load().paths.contains_key(&n.data_path_addr)
    });
    for node in routeless {
        checks.fail(
            format!("mtu to {}", node.data_path_addr),
            "no route leads there",
            "add one, or let that node join again with another --data-path-addr",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions() {
        for (text, version) in [
            ("6.18.44", Some((6, 18))),
            ("6.2-rc1", Some((6, 2))),
            ("5.15.0-91-generic", Some((5, 15))),
            ("unknown", None),
        ] {
            assert_eq!(kernel_version(text), version, "{text}");
        }
        assert!(kernel_version("10.0.1") > Some(LEAST_KERNEL));
    }

    #[test]
    fn a_failed_self_test_is_a_warning_with_the_reason() {
        let mut checks = Checks::default();
        for verdict in [Verdict::Passed, Verdict::Failed, Verdict::Untested] {
            self_test(
                &mut checks,
                &SelfTest {
                    name: "udp-gro",
                    verdict,
                    reason: "because".to_owned(),
                },
            );
        }
        let found: Vec<Health> = checks.0.iter().map(|c| c.health).collect();
        assert_eq!(found, [Health::Ok, Health::Warn, Health::Warn]);
        for check in checks.0 {
            assert_eq!(
                (&*check.name, &*check.found),
                ("self-test udp-gro", "because")
            );
        }
    }
}
