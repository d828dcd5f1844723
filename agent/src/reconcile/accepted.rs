//! Connections of a task that its clients have open, by the kernel of its sandbox. Balancers count
//! their own; whoever found the task by a name of its own came without one.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader};
use std::net::IpAddr;
use std::path::PathBuf;

use weft_sys::netns::Netns;

use super::listening::address;
use crate::blocking::blocking;
use crate::sandbox::Sandbox;

/// State of a socket that listens (include/net/tcp_states.h).
const LISTENS: &str = "0A";

/// Established, in the middle of the handshake, and with a client that has said all and waits for its
/// answer. Others have been answered.
const OPEN: [&str; 3] = ["01", "03", "08"];

/// A socket in a table of the kernel.
#[derive(Debug)]
struct Socket {
    local: (IpAddr, u16),
    remote: (IpAddr, u16),
    /// In base 16.
    state: String,
}

impl Socket {
    /// `sl local remote st …`
    fn read(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        Some(Self {
            local: address(fields.next()?)?,
            remote: address(fields.next()?)?,
            state: fields.next()?.to_owned(),
        })
    }

    /// Of the task with itself, as by a check, or with its resolver.
    fn is_own(&self) -> bool {
        self.remote.0.is_loopback() || self.remote.0 == self.local.0
    }
}

/// Whether clients have connections to a task, by the path of its namespace. Of one that cannot be
/// looked at nobody knows any.
pub(super) async fn serves(netns: PathBuf) -> bool {
    let open = blocking(move || {
        let sandbox = Sandbox::open(&netns.to_string_lossy())?;
        Ok::<_, anyhow::Error>(accepted(sandbox.netns())?)
    });
    match open.await.and_then(|open| open) {
        Ok(open) => open > 0,
        Err(error) => {
            let error = format!("{error:#}");
            tracing::debug!(error, "no look at the connections of a task");
            false
        }
    }
}

/// How many TCP connections from elsewhere are open to what listens in a namespace.
///
/// # Errors
/// The namespace or its tables cannot be read.
fn accepted(netns: &Netns) -> io::Result<usize> {
    netns.run_in(|| {
        let mut sockets = table("tcp")?;
        sockets.extend(table("tcp6")?);
        Ok(count(&sockets))
    })?
}

/// A table of the calling thread's namespace.
fn table(name: &str) -> io::Result<Vec<Socket>> {
    match std::fs::File::open(format!("/proc/thread-self/net/{name}")) {
        Ok(file) => read(BufReader::new(file)),
        // A kernel without IPv6 has no table for it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn read(table: impl BufRead) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for line in table.lines().skip(1) {
        sockets.extend(Socket::read(&line?));
    }
    Ok(sockets)
}

fn count(sockets: &[Socket]) -> usize {
    let listening = sockets.iter().filter(|socket| socket.state == LISTENS);
    let ports: BTreeSet<u16> = listening.map(|socket| socket.local.1).collect();
    let open = sockets.iter().filter(|socket| {
        OPEN.contains(&socket.state.as_str()) && ports.contains(&socket.local.1) && !socket.is_own()
    });
    open.count()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn clients_that_wait_for_something_are_counted() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr
   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000
   1: 0B00007F:0035 00000000:0000 0A 00000000:00000000 00:00000000
   2: 0500000A:0050 0700000A:C350 01 00000000:00000000 00:00000000
   3: 0500000A:0050 0700000A:C351 08 00000000:00000000 00:00000000
   4: 0500000A:0050 0700000A:C352 03 00000000:00000000 00:00000000
   5: 0500000A:0050 0700000A:C353 06 00000000:00000000 00:00000000
   6: 0500000A:0050 0700000A:C354 05 00000000:00000000 00:00000000
   7: 0500000A:C360 0900000A:1538 01 00000000:00000000 00:00000000
   8: 0500000A:0050 0500000A:C355 01 00000000:00000000 00:00000000
   9: 0B00007F:0035 0100007F:C356 01 00000000:00000000 00:00000000
   garbage
";
        let sockets = read(table.as_bytes()).unwrap();
        assert_eq!(sockets.len(), 10);
        // Not those that are over, that it opened itself, or that are with itself.
        assert_eq!(count(&sockets), 3);
        assert_eq!(count(&[]), 0);
    }

    #[test]
    fn the_kernel_names_both_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let own = client.local_addr().unwrap();
        let all = table("tcp").unwrap();
        let found = all.iter().find(|s| s.remote == (own.ip(), own.port()));
        let found = found.expect("nobody has accepted it yet");
        assert_eq!(found.local.1, listener.local_addr().unwrap().port());
        assert!(OPEN.contains(&found.state.as_str()) && found.is_own());
    }
}
