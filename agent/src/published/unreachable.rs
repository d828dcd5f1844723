//! Tells clients that a replica refused their datagrams: its kernel told this node's, which tells the
//! socket that carried them on.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use weft_sys::udp::send_addressed;
use weft_wire::reply::{UDP_UNREACHABLE_LEN, udp_unreachable};

use crate::metrics::UnreachableCounters;

/// Messages in a second, to all clients (`icmp_msgs_per_sec` of Linux): who forges datagrams of others
/// brings them no more than that.
const PER_SECOND: u32 = 1000;

/// The sockets, opened when the first message is sent.
#[derive(Debug, Default)]
pub(crate) struct Unreachable(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    v4: Option<Socket>,
    v6: Option<Socket>,
    budget: Budget,
    counters: UnreachableCounters,
}

/// How many messages were sent in this second.
#[derive(Debug, Default)]
struct Budget(Option<(Instant, u32)>);

impl Budget {
    fn take(&mut self, now: Instant) -> bool {
        match &mut self.0 {
            Some((since, sent)) if now.duration_since(*since) < Duration::from_secs(1) => {
                *sent += 1;
                *sent <= PER_SECOND
            }
            other => {
                *other = Some((now, 1));
                true
            }
        }
    }
}

impl Unreachable {
    /// Tells `client` that nothing listens at `asked`, from there. No more than an error of ICMP is:
    /// one that cannot be sent is lost.
    pub(crate) fn tell(&self, client: SocketAddr, asked: SocketAddr) {
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let asked = SocketAddr::new(asked.ip().to_canonical(), asked.port());
        let mut message = [0; UDP_UNREACHABLE_LEN];
        let len = udp_unreachable(client, asked, &mut message);
        if len == 0 {
            return;
        }
        let mut state = self.lock();
        if !state.budget.take(Instant::now()) {
            state.counters.held_back += 1;
            return;
        }
        // The port of a raw socket's address is a protocol, or none.
        let to = SocketAddr::new(client.ip(), 0);
        let sent = state
            .socket(to.ip())
            .and_then(|socket| send_addressed(socket, &message[..len], to, Some(asked.ip())));
        match sent {
            Ok(_) => state.counters.sent += 1,
            Err(error) => {
                state.counters.failed += 1;
                tracing::debug!(%client, %asked, %error, "cannot tell a client of a refused datagram");
            }
        }
    }

    /// What came of the messages until now.
    pub(crate) fn counters(&self) -> UnreachableCounters {
        self.lock().counters
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in there is left half changed by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn socket(&mut self, like: IpAddr) -> io::Result<&Socket> {
        let (place, domain, protocol) = match like {
            IpAddr::V4(_) => (&mut self.v4, Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (&mut self.v6, Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = match place.take() {
            Some(socket) => socket,
            None => {
                let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
                socket.set_nonblocking(true)?;
                // It only sends, and a raw socket hears all of its protocol: as little as may be.
                socket.set_recv_buffer_size(0)?;
                socket
            }
        };
        Ok(place.insert(socket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_messages_and_the_next_one_as_many() {
        let mut budget = Budget::default();
        let start = Instant::now();
        let taken =
            |budget: &mut Budget, at| (0..2 * PER_SECOND).filter(|_| budget.take(at)).count();
        assert_eq!(taken(&mut budget, start), PER_SECOND as usize);
        let later = start + Duration::from_millis(999);
        assert_eq!(taken(&mut budget, later), 0);
        let next = start + Duration::from_secs(1);
        assert_eq!(taken(&mut budget, next), PER_SECOND as usize);
    }

    #[test]
    fn the_socket_of_a_client_hears_of_it() {
        for ip in ["127.0.0.1", "::1"] {
            let ip: IpAddr = ip.parse().unwrap();
            let server = std::net::UdpSocket::bind((ip, 0)).unwrap();
            let client = std::net::UdpSocket::bind((ip, 0)).unwrap();
            let asked = server.local_addr().unwrap();
            client.connect(asked).unwrap();
            client
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            let own = client.local_addr().unwrap();
            let unreachable = Unreachable::default();
            unreachable.tell(own, asked);
            let error = client.recv(&mut [0; 1]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{ip}");
            // Those that a second has no room for are counted, and nobody hears of them.
            let later = Instant::now() + Duration::from_secs(60);
            unreachable.lock().budget = Budget(Some((later, PER_SECOND)));
            unreachable.tell(own, asked);
            let counted = UnreachableCounters {
                sent: 1,
                held_back: 1,
                failed: 0,
            };
            assert_eq!(unreachable.counters(), counted, "{ip}");
            client.set_nonblocking(true).unwrap();
            let error = client.recv(&mut [0; 1]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{ip}");
        }
    }
}
