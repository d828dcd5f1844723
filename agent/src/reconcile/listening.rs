//! Which replicas accept a published port over IPv4 and not over IPv6: programs that know one
//! family only. Clients of IPv6 cannot go to them as they are. And whether a program that has just
//! started accepts its published ports at all: what refuses everybody is no replica yet.
//!
//! The kernel does not tell when a program begins to listen, so sandboxes are looked at: often at
//! first, then rarely.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use weft_dataplane::Port;
use weft_model::assignment::Assignment;
use weft_model::id::{EndpointId, ServiceId};
use weft_model::objects::{
    ClientAddress, Network, PortSpec, Protocol, PublishMode, Task, TaskState,
};

use crate::blocking::blocking;
use crate::parts::local::LocalPorts;
use crate::sandbox::Sandbox;

/// Pause after the first look; each later one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(8);

/// How long a program may take to listen before it is taken for one that does not.
const OPENS_WITHIN: Duration = Duration::from_secs(3);
/// Between two looks whether it does.
const OPENING: Duration = Duration::from_millis(10);

/// When each replica of this node is looked at.
#[derive(Debug, Default)]
pub(super) struct Listening {
    next: BTreeMap<EndpointId, (Instant, Duration)>,
    looking: Option<JoinHandle<()>>,
    /// A look was waited for.
    began: bool,
}

/// One look.
struct Look {
    id: EndpointId,
    port: Arc<Port>,
    targets: BTreeSet<u16>,
}

impl Listening {
    /// Looks at the replicas whose turn it is, beside the caller, and writes down what is found. The
    /// first look is waited for: after a restart clients may come at once.
    pub(super) async fn keep(&mut self, local: &Arc<LocalPorts>, orders: &Assignment) {
        if self.looking.as_ref().is_some_and(|l| !l.is_finished()) {
            return;
        }
        let looks = self.due(local, orders, Instant::now());
        if looks.is_empty() {
            return;
        }
        let local = Arc::clone(local);
        let looking = tokio::task::spawn_blocking(move || {
            for look in &looks {
                if let Some(ports) = ipv4_only(look) {
                    local.set_ipv4_only(&look.id, ports);
                }
            }
        });
        if self.began {
            self.looking = Some(looking);
            return;
        }
        self.began = true;
        if let Err(error) = looking.await {
            tracing::warn!(%error, "the replicas of this node were not looked at");
        }
    }

    fn due(&mut self, local: &LocalPorts, orders: &Assignment, now: Instant) -> Vec<Look> {
        let ingress = orders.shared.networks.iter().find(|n| n.spec.ingress);
        let Some(ingress) = ingress.filter(|n| has_ipv6(n)) else {
            return Vec::new();
        };
        let all: BTreeMap<&ServiceId, BTreeSet<u16>> = orders
            .shared
            .services
            .iter()
            .map(|s| {
                (
                    &s.id,
                    s.ports.iter().filter(|p| goes_on(p)).map(|p| p.target),
                )
            })
            .map(|(id, targets)| (id, targets.collect()))
            .collect();
        let mut known = BTreeMap::new();
        let mut looks = Vec::new();
        for port in local.all() {
            let record = port.record;
            let targets = record.service.as_ref().and_then(|id| all.get(id));
            let Some(targets) = targets.filter(|t| !t.is_empty()) else {
                continue;
            };
            if record.network != ingress.id || !record.ready {
                continue;
            }
            let (mut next, mut pause) = self
                .next
                .get(&record.id)
                .copied()
                .unwrap_or((now, FIRST_PAUSE));
            if next <= now {
                (next, pause) = (now + pause, LAST_PAUSE.min(pause * 2));
                looks.push(Look {
                    id: record.id.clone(),
                    port: port.port,
                    targets: targets.clone(),
                });
            }
            known.insert(record.id.clone(), (next, pause));
        }
        self.next = known;
        looks
    }
}

/// Waits until the program of a task that has just started listens on its published TCP ports, in the
/// namespace at this path, for a while: until then it refuses all who are sent to it. One with a check
/// of its port waits for that instead.
pub(super) fn opened(
    task: &Task,
    orders: &Assignment,
    netns: PathBuf,
) -> impl Future<Output = ()> + Send + use<> {
    let waits = task.status.state < TaskState::Running && task.spec.container.ready.is_none();
    let mut services = orders.shared.services.iter();
    let service = services.find(|service| waits && service.id == task.service);
    let ports = service.into_iter().flat_map(|service| &service.ports);
    let tcp = ports.filter(|port| port.protocol == Protocol::Tcp);
    let targets = tcp.map(|port| port.target).collect();
    let own = task.attachments.iter().flat_map(|a| a.ips()).collect();
    wait_open(netns, own, targets)
}

/// Waits until all of these ports are listened on, on every address or one of `own`. A namespace that
/// cannot be looked at is not waited for.
async fn wait_open(netns: PathBuf, own: Vec<IpAddr>, targets: BTreeSet<u16>) {
    let begun = Instant::now();
    while !targets.is_empty() && begun.elapsed() < OPENS_WITHIN {
        let (netns, own, targets) = (netns.clone(), own.clone(), targets.clone());
        let open = blocking(move || {
            let sandbox = Sandbox::open(&netns.to_string_lossy())?;
            let open = sandbox.netns().run_in(|| are_open(&targets, &own))?;
            Ok::<_, anyhow::Error>(open?)
        });
        match open.await.and_then(|open| open) {
            Ok(true) => return,
            Ok(false) => tokio::time::sleep(OPENING).await,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::debug!(error, "no look at what a task listens on");
                return;
            }
        }
    }
}

/// Whether all of these ports are listened on in the namespace of the calling thread.
fn are_open(targets: &BTreeSet<u16>, own: &[IpAddr]) -> io::Result<bool> {
    let mut found = listeners("tcp")?;
    found.extend(listeners("tcp6")?);
    let is = |target: &u16| {
        let mut found = found.iter();
        found.any(|(ip, port)| port == target && is_open(*ip, own))
    };
    Ok(targets.iter().all(is))
}

fn has_ipv6(network: &Network) -> bool {
    network.subnets().iter().any(|s| s.cidr.addr().is_ipv6())
}

/// Whether clients of the port go to replicas as they are.
fn goes_on(port: &PortSpec) -> bool {
    port.protocol == Protocol::Tcp
        && port.mode == PublishMode::Ingress
        && port.client_address == ClientAddress::Keep
}

/// Nothing when the sandbox could not be looked at: it ends.
fn ipv4_only(look: &Look) -> Option<Vec<u16>> {
    let netns = look.port.tap.netns().ok()?;
    let tables = netns
        .run_in(|| (listeners("tcp"), listeners("tcp6")))
        .ok()?;
    let (Ok(v4), Ok(v6)) = tables else {
        return None;
    };
    let listeners: Vec<_> = v4.into_iter().chain(v6).collect();
    let of = |wanted: u16, ipv6| {
        listeners.iter().any(|(ip, port)| {
            // A socket for every IPv6 address takes IPv4, too.
            *port == wanted && ip.is_ipv6() == ipv6 && is_open(*ip, &look.port.ips)
        })
    };
    let ports = look.targets.iter().copied();
    Some(ports.filter(|p| of(*p, false) && !of(*p, true)).collect())
}

/// Whether a socket at `ip` hears what is for one of `own`.
fn is_open(ip: IpAddr, own: &[IpAddr]) -> bool {
    ip.is_unspecified() || own.contains(&ip)
}

/// Sockets that listen, by a table of `/proc/net` of the calling thread's namespace.
fn listeners(table: &str) -> io::Result<Vec<(IpAddr, u16)>> {
    match std::fs::File::open(format!("/proc/thread-self/net/{table}")) {
        Ok(file) => read(BufReader::new(file)),
        // A kernel without IPv6 has no table for it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Those that listen come first. The rest, which may be long, is not read.
fn read(table: impl BufRead) -> io::Result<Vec<(IpAddr, u16)>> {
    const LISTENS: &str = "0A";
    let mut found = Vec::new();
    for line in table.lines().skip(1) {
        let line = line?;
        let mut fields = line.split_ascii_whitespace();
        let (local, state) = (fields.nth(1), fields.nth(1));
        if state != Some(LISTENS) {
            break;
        }
        found.extend(local.and_then(address));
    }
    Ok(found)
}

/// `0100007F:1F40`: words of 32 bits in the machine's own order. An IPv4 address that a socket of
/// IPv6 is bound to is one of IPv4.
pub(super) fn address(text: &str) -> Option<(IpAddr, u16)> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = ip.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut octets = [0; 16];
            for (at, four) in octets.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
        }
        _ => return None,
    };
    Some((ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn only_sockets_that_listen_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr
   0: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000
   2: 00000000:1F40 0100007F:C350 01 00000000:00000000 00:00000000
   3: 00000000:0051 00000000:0000 0A 00000000:00000000 00:00000000
";
        let any: IpAddr = Ipv4Addr::UNSPECIFIED.into();
        assert_eq!(read(table.as_bytes()).unwrap(), [(any, 8000), (any, 80)]);
        assert_eq!(address("garbage"), None);
        assert_eq!(address("00:0050"), None);
    }

    #[test]
    fn the_kernels_tables_tell_the_families_apart() {
        let bound = |ip: &str| {
            let listener = TcpListener::bind((ip, 0)).unwrap();
            let addr = listener.local_addr().unwrap();
            (listener, (addr.ip().to_canonical(), addr.port()))
        };
        for (ip, table) in [
            ("127.0.0.1", "tcp"),
            ("0.0.0.0", "tcp"),
            ("::1", "tcp6"),
            ("::", "tcp6"),
            ("::ffff:127.0.0.1", "tcp6"),
        ] {
            let (_listener, addr) = bound(ip);
            let found = listeners(table).unwrap();
            assert!(found.contains(&addr), "{ip}: {addr:?} {found:?}");
        }
    }

    #[test]
    fn ports_are_open_once_all_are_listened_on_where_clients_reach_them() {
        let [first, second] = [(); 2].map(|()| TcpListener::bind("0.0.0.0:0").unwrap());
        let inside = TcpListener::bind("127.0.0.1:0").unwrap();
        let [first_port, second_port, inside_port] =
            [&first, &second, &inside].map(|l| l.local_addr().unwrap().port());
        let open = |ports: &[u16]| are_open(&ports.iter().copied().collect(), &[]).unwrap();
        assert!(open(&[first_port, second_port]));
        assert!(!open(&[first_port, inside_port]));
        drop(second);
        assert!(open(&[first_port]) && !open(&[first_port, second_port]));
    }

    #[test]
    fn a_socket_on_another_address_is_none_of_the_replicas() {
        let own: [IpAddr; 2] = ["10.0.0.5", "fd00::a00:5"].map(|ip| ip.parse().unwrap());
        for (ip, open) in [
            ("10.0.0.5", true),
            ("fd00::a00:5", true),
            ("0.0.0.0", true),
            ("::", true),
            ("127.0.0.1", false),
            ("::1", false),
        ] {
            assert_eq!(is_open(ip.parse().unwrap(), &own), open, "{ip}");
        }
    }
}
