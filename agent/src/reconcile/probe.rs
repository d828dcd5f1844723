//! Probes of replicas that this node left out: the [`Prober`] over the data plane.
//!
//! The node has one address of its own on an overlay network, that on `ingress`, so what it can
//! ask are replicas of published ports. Those of a virtual address on another network are tried by
//! a connection: an answer at one address says nothing of another one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use weft_dataplane::{MeshPort, NODE_FRAME_LEN, Snapshot};
use weft_mesh::{NodeAddress, ProbeTarget, Prober, Protocol, Published};
use weft_wire::Instant;

use crate::parts::data_path::DataPath;

/// Between two looks for replicas whose back-off is over.
const LOOK: Duration = Duration::from_millis(100);
/// Between two looks for answers while probes are under way.
const LISTEN: Duration = Duration::from_millis(10);

/// Probes until `stop` is true.
pub(crate) async fn run(data_path: Arc<DataPath>, mut stop: watch::Receiver<bool>) {
    let mut prober = Prober::new(rand::random());
    loop {
        let now = Instant(weft_sys::clock::monotonic_nanos());
        step(&data_path, &mut prober, now);
        let pause = if prober.running() > 0 { LISTEN } else { LOOK };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

fn step(data_path: &DataPath, prober: &mut Prober, now: Instant) {
    let plane = &data_path.plane;
    let snapshot = plane.snapshot();
    let own = snapshot.mesh.as_ref().map(|mesh| NodeAddress {
        ip: mesh.v4.node_ip,
        mac: mesh.node_mac,
    });
    prober.set_address(now, own);
    let mut frame = [0; NODE_FRAME_LEN];
    while let Some(len) = plane.receive_for_node(&mut frame) {
        prober.handle_frame(now, frame.get(..len).unwrap_or_default());
    }
    prober.settle(now);
    let Some(mesh) = &snapshot.mesh else { return };
    for target in targets(&snapshot, mesh, now) {
        let health = target.load.health();
        health.set_probed(prober.can_reach(target.to.ip()));
        prober.begin(now, &target);
    }
    let neighbor = |ip| snapshot.switch.neighbor(mesh.vni, ip);
    while let Some(frame) = prober.poll_transmit(now, neighbor) {
        // What finds no room is sent again, as if it had been lost.
        plane.send_from_node(&frame);
    }
    data_path.probes.store(prober.counters());
}

/// Replicas of published ports that are left out at this moment.
fn targets<'a>(
    snapshot: &'a Snapshot,
    mesh: &'a MeshPort,
    now: Instant,
) -> impl Iterator<Item = ProbeTarget> + 'a {
    tcp(snapshot).flat_map(move |published| {
        let replicas = published.service.replicas.iter();
        replicas.filter_map(move |replica| {
            let health = replica.load.health();
            health.ejection(now)?;
            // A port may have been published no more since then.
            let port = health.probe_port().filter(|port| {
                let mut ports = tcp(snapshot).filter(|p| p.service.id == published.service.id);
                ports.any(|p| p.target_port == *port)
            });
            // A replica has one health, whatever the family; it is asked by IPv4, which every one has.
            let asked = replica.ip.is_ipv4();
            let takes = asked && !replica.draining && replica.vni == mesh.vni;
            takes.then(|| ProbeTarget {
                to: (replica.ip, port.unwrap_or(published.target_port)).into(),
                load: Arc::clone(&replica.load),
            })
        })
    })
}

fn tcp(snapshot: &Snapshot) -> impl Iterator<Item = Published<'_>> {
    let published = snapshot.services.all_published();
    published.filter_map(|(protocol, p)| (protocol == Protocol::Tcp).then_some(p))
}
