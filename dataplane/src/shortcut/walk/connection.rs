//! A TCP connection, as its ends have it.

use weft_wire::frame::{TCP, TCP_ACK, TCP_FIN, TCP_SYN};
use weft_wire::{FiveTuple, PortId};

use super::segment::Segment;
use super::world::{SERVED, WORKERS, ip, vip};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Client,
    Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Endpoint(usize),
    Service(usize),
}

#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) client: usize,
    pub(super) target: Target,
    /// The endpoint that it was opened to; of a service the replica that was chosen.
    pub(super) server: usize,
    /// Key of that replica.
    pub(super) key: u64,
    /// The client's, as it was opened.
    pub(super) port: Option<PortId>,
    /// No other connection has it.
    cport: u16,
    /// Sequence numbers of what each end sends next.
    next: [u32; 2],
    /// Not open, or not any more.
    pub(super) over: bool,
    /// Workers that were shown last that it opens or ends, and no data since.
    pub(super) ended: [bool; WORKERS],
}

impl Connection {
    pub(super) fn new(client: usize, target: Target, number: usize) -> Self {
        Self {
            client,
            target,
            server: match target {
                Target::Endpoint(server) => server,
                // Nobody is until the balancer has chosen.
                Target::Service(_) => client,
            },
            key: 0,
            port: None,
            cport: u16::try_from(10_000 + number).unwrap(),
            next: [u32::MAX - 400_000, 77],
            over: true,
            ended: [false; WORKERS],
        }
    }

    pub(super) fn is_balanced(&self) -> bool {
        matches!(self.target, Target::Service(_))
    }

    /// The endpoint that is one end.
    pub(super) fn endpoint(&self, end: End) -> usize {
        match end {
            End::Client => self.client,
            End::Server => self.server,
        }
    }

    /// What one end sends has these addresses.
    pub(super) fn flow(&self, end: End) -> FiveTuple {
        let to = match self.target {
            Target::Service(service) if end == End::Client => vip(service),
            _ => ip(self.server),
        };
        let request = FiveTuple {
            src: ip(self.client),
            dst: to,
            sport: self.cport,
            dport: SERVED,
            proto: TCP,
        };
        match end {
            End::Client => request,
            End::Server => request.reversed(),
        }
    }

    /// The next segment of one end, which has received all that the other one has sent.
    pub(super) fn segment(&mut self, end: End, flags: u8, data: u32, size: u16) -> Segment {
        let (own, other) = match end {
            End::Client => (0, 1),
            End::Server => (1, 0),
        };
        let segment = Segment {
            flow: self.flow(end),
            flags,
            seq: self.next[own],
            ack: if flags & TCP_ACK == 0 {
                0
            } else {
                self.next[other]
            },
            data,
            size,
        };
        let more = data + u32::from(flags & (TCP_SYN | TCP_FIN) != 0);
        self.next[own] = self.next[own].wrapping_add(more);
        segment
    }
}

impl End {
    pub(super) const BOTH: [Self; 2] = [Self::Client, Self::Server];

    pub(super) fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}
