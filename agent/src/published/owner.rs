//! Which program holds a port: socket tables of the kernel, then the descriptors of processes.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;

use weft_model::objects::Protocol;

/// A process that holds a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) program: String,
    pub(crate) pid: u32,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.program, self.pid)
    }
}

/// The holder of a port in words, for an error of this agent's own sockets.
pub(crate) fn named(protocol: Protocol, port: u16) -> String {
    of_port(protocol, port).map_or_else(
        || {
            let flags = match protocol {
                Protocol::Tcp => "-ltnp",
                Protocol::Udp => "-lunp",
            };
            format!("another process (`ss {flags} 'sport = :{port}'` may name it)")
        },
        |holder| holder.to_string(),
    )
}

/// What has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A program that waits there for others.
    Program(Owner),
    /// The near end of a connection, which the kernel gave that number: of a program, or of none any
    /// more.
    Connection(Option<Owner>),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(owner) => owner.fmt(f),
            Self::Connection(Some(owner)) => write!(f, "a connection of {owner}"),
            Self::Connection(None) => f.write_str(
                "a connection that ended less than a minute ago, or that of a namespace",
            ),
        }
    }
}

/// Finds it, in this thread's network namespace. Best effort: processes of other users or other
/// process namespaces stay unknown. Reads `/proc`, so it takes some milliseconds.
pub(crate) fn of_port(protocol: Protocol, port: u16) -> Option<Holder> {
    let (mut waiting, mut connected) = (BTreeSet::new(), None);
    for table in tables(protocol) {
        // A kernel without IPv6 has no table for it.
        let text = fs::read_to_string(table).unwrap_or_default();
        for (state, inode) in sockets(text.lines(), port) {
            if waits(protocol, state) {
                waiting.insert(inode);
            } else {
                connected.get_or_insert_with(BTreeSet::new).insert(inode);
            }
        }
    }
    if !waiting.is_empty() {
        return process(&waiting).map(Holder::Program);
    }
    connected.map(|inodes| Holder::Connection(process(&inodes)))
}

/// Whether anybody waits for connections to a port, on whatever address. The kernel names listeners
/// first, so a host with many connections answers as quickly.
pub(crate) fn listens(port: u16) -> bool {
    tables(Protocol::Tcp).iter().any(|table| {
        let Ok(file) = fs::File::open(table) else {
            return false;
        };
        let lines = BufReader::new(file).lines().map_while(Result::ok);
        let listeners = lines.take_while(|line| !is_past_listeners(line));
        sockets(listeners, port).next().is_some()
    })
}

fn tables(protocol: Protocol) -> [&'static str; 2] {
    match protocol {
        Protocol::Tcp => ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"],
        Protocol::Udp => ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"],
    }
}

fn is_past_listeners(line: &str) -> bool {
    let state = line.split_ascii_whitespace().nth(3);
    state.is_some_and(|state| state != "st" && state != TCP_LISTEN)
}

const TCP_LISTEN: &str = "0A";

/// Every UDP socket with a port takes datagrams there, some of one sender only.
fn waits(protocol: Protocol, state: State) -> bool {
    match protocol {
        Protocol::Tcp => state.0 == *TCP_LISTEN.as_bytes(),
        Protocol::Udp => true,
    }
}

/// Two digits of a table of `/proc/net`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State([u8; 2]);

/// State and inode of the sockets in a table of `/proc/net` that have a port; the inode is 0 where
/// no process has the socket.
fn sockets<L: AsRef<str>>(
    table: impl Iterator<Item = L>,
    port: u16,
) -> impl Iterator<Item = (State, u64)> {
    table.skip(1).filter_map(move |line| {
        let mut fields = line.as_ref().split_ascii_whitespace();
        let (_, local_port) = fields.nth(1)?.rsplit_once(':')?;
        let state = State(fields.nth(1)?.as_bytes().try_into().ok()?);
        let inode = fields.nth(5)?.parse().ok()?;
        let local_port = u16::from_str_radix(local_port, 16).ok()?;
        (local_port == port).then_some((state, inode))
    })
}

/// The first process that has one of these sockets.
fn process(inodes: &BTreeSet<u64>) -> Option<Owner> {
    let processes = fs::read_dir("/proc").ok()?;
    processes
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            holds_any(&entry.path(), inodes).then(|| Owner {
                program: program(&entry.path()),
                pid,
            })
        })
        .min_by_key(|owner| owner.pid)
}

fn holds_any(process: &Path, inodes: &BTreeSet<u64>) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    descriptors.flatten().any(|descriptor| {
        fs::read_link(descriptor.path())
            .ok()
            .and_then(|target| {
                let inode = target.to_str()?.strip_prefix("socket:[")?;
                inode.strip_suffix(']')?.parse().ok()
            })
            .is_some_and(|inode| inodes.contains(&inode))
    })
}

fn program(process: &Path) -> String {
    fs::read_to_string(process.join("comm"))
        .map_or_else(|_| "unnamed".to_owned(), |name| name.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0
   1: 0100007F:1F40 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0
   2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0
   3: garbage
   4: 00000000:1F40 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4714 2 0
";

    #[test]
    fn sockets_of_a_port_are_found_in_every_state() {
        let of = |port| sockets(TABLE.lines(), port).collect::<Vec<_>>();
        let expected = [(*b"0A", 4711), (*b"01", 4712), (*b"07", 4714)];
        assert_eq!(
            of(8000),
            expected.map(|(state, inode)| (State(state), inode))
        );
        assert_eq!(of(80), [(State(*b"0A"), 4713)]);
        assert_eq!(of(8001), []);
    }

    #[test]
    fn listeners_come_first() {
        let lines: Vec<&str> = TABLE.lines().collect();
        let past: Vec<bool> = lines.iter().map(|line| is_past_listeners(line)).collect();
        assert_eq!(past, [false, false, true, false, false, true]);
    }

    #[test]
    fn a_listener_of_this_process_is_found() {
        let me = |holder: &Holder| match holder {
            Holder::Program(owner) | Holder::Connection(Some(owner)) => {
                owner.pid == std::process::id() && !owner.program.is_empty()
            }
            Holder::Connection(None) => false,
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let holder = of_port(Protocol::Tcp, port).unwrap();
        assert!(
            matches!(holder, Holder::Program(_)) && me(&holder),
            "{holder}"
        );
        assert!(
            holder
                .to_string()
                .ends_with(&format!("(pid {})", std::process::id()))
        );
        assert!(listens(port));
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let near = client.local_addr().unwrap().port();
        let holder = of_port(Protocol::Tcp, near).unwrap();
        assert!(
            matches!(holder, Holder::Connection(_)) && me(&holder),
            "{holder}"
        );
        assert!(!listens(near));
        let socket = std::net::UdpSocket::bind("[::1]:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let holder = of_port(Protocol::Udp, port).unwrap();
        assert!(
            matches!(holder, Holder::Program(_)) && me(&holder),
            "{holder}"
        );
        assert_eq!(named(Protocol::Udp, port), holder.to_string());
        drop(socket);
        // A child that another test forks has a copy of every socket until it executes its program.
        let nobody = (0..200)
            .map(|_| named(Protocol::Udp, port))
            .find(|text| text.starts_with("another process"))
            .unwrap();
        assert!(nobody.starts_with("another process (`ss -lunp"), "{nobody}");
    }
}
