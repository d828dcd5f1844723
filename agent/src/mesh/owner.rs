//! Which program holds a port: socket tables of the kernel, then the descriptors of processes.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use weft_control::objects::Protocol;

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
        |owner| owner.to_string(),
    )
}

/// Finds it, in this thread's network namespace. Best effort: processes of other users or other
/// process namespaces stay unknown. Reads `/proc`, so it takes some milliseconds.
pub(crate) fn of_port(protocol: Protocol, port: u16) -> Option<Owner> {
    let tables = match protocol {
        Protocol::Tcp => ["tcp", "tcp6"],
        Protocol::Udp => ["udp", "udp6"],
    };
    let mut inodes = BTreeSet::new();
    for table in tables {
        // A kernel without IPv6 has no table for it.
        if let Ok(text) = fs::read_to_string(format!("/proc/thread-self/net/{table}")) {
            inodes.extend(holders(&text, protocol, port));
        }
    }
    if inodes.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?;
    processes
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            holds_any(&entry.path(), &inodes).then(|| Owner {
                program: program(&entry.path()),
                pid,
            })
        })
        .min_by_key(|owner| owner.pid)
}

/// Inodes of the sockets in a table of `/proc/net` that wait on a port.
fn holders(table: &str, protocol: Protocol, port: u16) -> Vec<u64> {
    let waiting = match protocol {
        // TCP_LISTEN, and TCP_CLOSE which is what an unconnected UDP socket is in.
        Protocol::Tcp => "0A",
        Protocol::Udp => "07",
    };
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (_, local_port) = fields.nth(1)?.rsplit_once(':')?;
            let state = fields.nth(1)?;
            let inode = fields.nth(5)?.parse().ok()?;
            let local_port = u16::from_str_radix(local_port, 16).ok()?;
            (local_port == port && state == waiting).then_some(inode)
        })
        .collect()
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
    fn only_sockets_that_wait_on_the_port_count() {
        assert_eq!(holders(TABLE, Protocol::Tcp, 8000), [4711]);
        assert_eq!(holders(TABLE, Protocol::Udp, 8000), [4714]);
        assert!(holders(TABLE, Protocol::Tcp, 8001).is_empty());
        assert!(holders("", Protocol::Tcp, 8000).is_empty());
    }

    #[test]
    fn a_listener_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let owner = of_port(Protocol::Tcp, port).unwrap();
        assert_eq!(owner.pid, std::process::id());
        assert!(owner.to_string().ends_with(&format!("(pid {})", owner.pid)));
        let socket = std::net::UdpSocket::bind("[::1]:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let owner = of_port(Protocol::Udp, port).unwrap();
        assert_eq!(owner.pid, std::process::id());
        assert!(!owner.program.is_empty());
        assert_eq!(named(Protocol::Udp, port), owner.to_string());
        drop(socket);
        // A child that another test forks has a copy of every socket until it executes its program.
        let nobody = (0..200)
            .map(|_| named(Protocol::Udp, port))
            .find(|text| text.starts_with("another process"))
            .unwrap();
        assert!(nobody.starts_with("another process (`ss -lunp"), "{nobody}");
    }
}
