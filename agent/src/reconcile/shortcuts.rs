//! Keeps the programs of the kernel's flow cache in front of the devices that flows go by, and tells
//! them that the agent lives (ARCHITECTURE.md, "Life of a flow that the kernel carries").
//!
//! A loop of its own. It compares what should be with what is, once a second and a moment after ports
//! have changed: so it makes no difference whether a port, a second device or the cache comes first,
//! nor what an earlier agent has left.

mod answering;
mod devices;
mod merging;
mod mesh;
mod plan;
mod sandboxes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use weft_dataplane::{Dataplane, Port};
use weft_sys::netlink::{Hook, Link, Netlink, NetlinkError};
use weft_wire::PortId;

use self::devices::UnderlayDevices;
use self::merging::Merging;
use self::mesh::MeshDevice;
use self::plan::{Devices, HostEnd, Inode, Present, Sandboxes, State, Wanted, Without};
use crate::blocking::blocking;
use crate::config::MeshFrontEnd;
use crate::parts::data_path::DataPath;
use crate::parts::handles::Handles;

/// Between two looks whether ports are others.
const TICK: Duration = Duration::from_millis(250);

/// Ticks between two comparisons of everything.
const SLOW: u32 = 4;

/// Ticks between two words to the programs that somebody decides: they go on for ten minutes without.
const BEAT: u32 = 20;

/// Ports whose programs are put again in one second, should anybody have taken them away, or changed
/// a setting in the sandbox; the next ones have their turn in the next.
const TURN: usize = 20;

/// Comparisons after which those of the underlay are put again.
const AGAIN: u32 = 10;

/// By then what ran under an earlier agent is attached again, and what is left of its programs is in
/// nobody's use.
const SETTLED: Duration = Duration::from_secs(10);

/// Whether this node has a flow cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    On,
    /// Nobody wants one, or the kernel has refused it.
    Off,
}

impl Mode {
    /// None while that is found out.
    fn of(plane: &Dataplane, wanted: bool) -> Option<Self> {
        if plane.flow_cache().is_some() {
            Some(Self::On)
        } else if !wanted || matches!(plane.fast_path(), Some(Err(_))) {
            Some(Self::Off)
        } else {
            None
        }
    }
}

/// Compares until `end` is true; then nothing is on its way any more.
pub(crate) async fn run(
    handles: Arc<Handles>,
    data_path: Arc<DataPath>,
    end: watch::Receiver<bool>,
) {
    let asking = answering::run(Arc::clone(&data_path), end.clone());
    tokio::join!(keep(handles, data_path, end), asking);
}

async fn keep(handles: Arc<Handles>, data_path: Arc<DataPath>, mut end: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let started = Instant::now();
    let mut keeper = Keeper::default();
    let mut seen = None;
    let mut ticks = 0_u32;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = end.wait_for(|end| *end) => return,
        }
        let slow = ticks.is_multiple_of(SLOW);
        if ticks.is_multiple_of(BEAT) {
            data_path.plane.beat();
        }
        ticks = ticks.wrapping_add(1);
        let Some(mode) = Mode::of(&data_path.plane, handles.config.fast_path) else {
            continue;
        };
        let now = Some((mode, handles.local.generation()));
        if now == seen && !slow {
            continue;
        }
        seen = now;
        let look = Look {
            mode,
            frames: handles.config.mesh == MeshFrontEnd::Frame,
            slow,
            settled: started.elapsed() > SETTLED,
        };
        let (this, ports) = (Arc::clone(&data_path), handles.local.ports());
        let looked = blocking(move || {
            let looked = keeper.look(&this, &ports, look);
            (keeper, looked)
        });
        keeper = match looked.await {
            Ok((keeper, Ok(()))) => {
                handles.warnings.clear("fast path");
                keeper
            }
            Ok((keeper, Err(error))) => {
                let text = format!("flows that the kernel could carry are not left to it: {error}");
                handles.warnings.set("fast path", text);
                keeper
            }
            Err(error) => {
                tracing::error!(%error, "the programs of the fast path were not looked at");
                Keeper::default()
            }
        };
    }
}

/// Takes away the programs in front of devices of the underlay, and the device at which packets are
/// merged: the node leaves its swarm. Programs of sandboxes go with their devices. Blocks.
///
/// # Errors
/// [`NetlinkError`] when devices cannot be listed, or that one not removed.
pub(crate) fn remove() -> Result<(), NetlinkError> {
    devices::remove_all()?;
    mesh::remove()?;
    merging::remove_device()
}

/// What a comparison is to do.
#[derive(Debug, Clone, Copy)]
struct Look {
    mode: Mode,
    /// Published ports send packets to `weft0` as they are.
    frames: bool,
    /// Also what should be there already.
    slow: bool,
    /// An earlier agent's programs that nobody has replaced are in nobody's use.
    settled: bool,
}

/// The host, as one comparison finds it.
struct Host {
    netlink: Netlink,
    links: Vec<Link>,
    ends: BTreeMap<Inode, HostEnd>,
}

/// What was done so far.
#[derive(Debug, Default)]
struct Keeper {
    sandboxes: Sandboxes,
    present: Present,
    underlay: UnderlayDevices,
    merging: Merging,
    mesh: MeshDevice,
    /// What was said of ports that were refused.
    said: BTreeMap<PortId, String>,
    /// The port that had its turn last.
    last: Option<PortId>,
    /// Host ends without a program.
    idle: BTreeSet<u32>,
    /// Devices of the underlay have no program of an earlier agent.
    swept: bool,
    looks: u32,
}

impl Keeper {
    fn look(
        &mut self,
        data_path: &DataPath,
        ports: &[Arc<Port>],
        look: Look,
    ) -> Result<(), NetlinkError> {
        let mut netlink = Netlink::open()?;
        let links = netlink.links()?;
        let ends = sandboxes::host_ends(&links);
        let mut host = Host {
            netlink,
            links,
            ends,
        };
        let plane = &data_path.plane;
        let again = look.slow && self.looks.is_multiple_of(AGAIN);
        if look.slow {
            self.looks = self.looks.wrapping_add(1);
        }
        Merging::begin(plane, data_path.at);
        let way = (&mut host.netlink, host.links.as_slice());
        let (hops, merging) = (data_path.hops.load(), data_path.second_ports.answering());
        self.underlay.keep(plane, way, (&**hops, &*merging), again);
        if look.slow {
            // Not before the programs in front of the underlay are this agent's: those of another one
            // know entries that the new one at the device does not.
            if self.underlay.is_any() || look.settled {
                let way = (&mut host.netlink, host.links.as_slice());
                self.merging.keep(data_path, way, again);
            }
            let way = (&mut host.netlink, host.links.as_slice());
            let wanted = look.mode == Mode::On && look.frames;
            self.mesh.keep(data_path, way, (wanted, again));
        }
        if !self.swept && (look.settled || look.mode == Mode::Off) {
            self.underlay.sweep(&mut host.netlink, &host.links);
            self.swept = true;
        }
        let ports: BTreeMap<PortId, &Port> = ports.iter().map(|p| (p.id, &**p)).collect();
        let places = places(&ports);
        let wanted = match look.mode {
            Mode::On => {
                let mtu = u32::from(data_path.mtu());
                self.sandboxes.wanted(&places, &host.ends, mtu)
            }
            Mode::Off => places
                .iter()
                .map(|(id, _)| (*id, Err(Without::Off)))
                .collect(),
        };
        self.present.retain(|id, _| wanted.contains_key(id));
        self.said.retain(|id, _| wanted.contains_key(id));
        self.keep_ports(plane, &mut host, &ports, &wanted, look.slow);
        if look.settled {
            self.clear_ends(&mut host, &places);
        }
        let counts = plan::count(&places, &wanted, &self.present);
        if **data_path.shortcuts.load() != counts {
            data_path.shortcuts.store(Arc::new(counts));
        }
        Ok(())
    }

    /// Gives ports what they are to have.
    fn keep_ports(
        &mut self,
        plane: &Dataplane,
        host: &mut Host,
        ports: &BTreeMap<PortId, &Port>,
        wanted: &Wanted,
        slow: bool,
    ) {
        let steps = plan::steps(wanted, &self.present);
        for id in steps.clear {
            let Some(port) = ports.get(&id) else {
                continue;
            };
            match sandboxes::clear(port) {
                Ok(()) => {
                    self.present.insert(id, State::Clear);
                }
                Err(error) => tracing::debug!(port = %port.name, %error, "it keeps its program"),
            }
        }
        let mut attach = steps.attach;
        if slow {
            let turn = plan::turn(&self.present, self.last, TURN);
            self.last = turn.last().map(|(id, _)| *id);
            let as_before = |(id, at): &(PortId, Devices)| wanted.get(id) == Some(&Ok(*at));
            attach.extend(turn.into_iter().filter(as_before));
        }
        for (id, at) in attach {
            if let Some(port) = ports.get(&id) {
                self.attach(plane, host, port, at);
            }
        }
    }

    fn attach(&mut self, plane: &Dataplane, host: &mut Host, port: &Port, at: Devices) {
        let end = host.ends.values().find(|end| end.index == at.host_end);
        let (Some(cache), Some(end)) = (plane.flow_cache(), end) else {
            return;
        };
        let way = (&mut host.netlink, end.name.as_str());
        let state = match sandboxes::attach(cache, port, way, at) {
            Ok(()) => {
                self.said.remove(&port.id);
                State::Attached(at)
            }
            Err(error) => {
                if let Err(error) = sandboxes::clear(port) {
                    tracing::debug!(port = %port.name, %error, "it keeps its program");
                }
                let text = error.to_string();
                // One that ends meanwhile has no namespace.
                if port.tap.netns().is_ok() && self.said.get(&port.id) != Some(&text) {
                    tracing::warn!(
                        port = %port.name, %error,
                        "flows of a sandbox are carried by this process alone"
                    );
                    self.said.insert(port.id, text);
                }
                State::Refused(at)
            }
        };
        self.present.insert(port.id, state);
    }

    /// Takes programs away from host ends whose sandboxes send nothing by them.
    fn clear_ends(&mut self, host: &mut Host, places: &[(PortId, Inode)]) {
        let idle = plan::idle_ends(places, &host.ends, &self.present);
        self.idle.retain(|index| idle.contains_key(index));
        for (index, name) in idle {
            if !self.idle.insert(index) {
                continue;
            }
            if let Err(error) = host.netlink.remove_program(&name, Hook::Ingress) {
                tracing::debug!(device = name, %error, "a program was not taken away");
            }
        }
    }
}

/// Where ports are; those whose device is gone are nowhere.
fn places(ports: &BTreeMap<PortId, &Port>) -> Vec<(PortId, Inode)> {
    let place = |(id, port): (&PortId, &&Port)| {
        let netns = port.tap.netns().ok()?;
        Some((*id, netns.inode().ok()?))
    };
    ports.iter().filter_map(place).collect()
}
