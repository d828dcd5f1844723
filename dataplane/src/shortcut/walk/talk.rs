//! What the ends of connections do.

use weft_wire::frame::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

use super::bed::Bed;
use super::connection::{Connection, End, Target};
use super::world::{Place, vtep};

/// A frame of bulk, in bytes of data.
const BULK: u32 = 60_000;
/// A question, and an answer.
const SMALL: u32 = 64;

impl Bed {
    /// A new connection, whether it opens or not; its number.
    pub(super) fn connect(&mut self, client: usize, target: Target) -> usize {
        let at = self.connections.len();
        self.connections.push(Connection::new(client, target, at));
        self.open(at);
        at
    }

    /// Opens a connection, by the ports that it may have had before.
    pub(super) fn open(&mut self, at: usize) {
        self.connections[at].over = true;
        let opened = self.send(at, End::Client, TCP_SYN, 0, 0)
            && self.send(at, End::Server, TCP_SYN | TCP_ACK, 0, 0)
            && self.send(at, End::Client, TCP_ACK, 0, 0);
        self.connections[at].over = !opened;
        self.settle();
    }

    fn talk(&mut self, at: usize, end: End, data: u32, size: u16) {
        if !self.connections[at].over {
            self.send(at, end, TCP_ACK, data, size);
        }
    }

    /// More than is worth an entry, in super-frames of packets with `size` bytes of data.
    pub(super) fn bulk(&mut self, at: usize, end: End, size: u16) {
        for _ in 0..7 {
            self.talk(at, end, BULK, size);
        }
    }

    /// Questions and answers.
    pub(super) fn exchange(&mut self, at: usize, times: usize) {
        for _ in 0..times {
            self.talk(at, End::Client, SMALL, 0);
            self.talk(at, End::Server, SMALL, 0);
        }
    }

    /// Both ends close, one after the other.
    pub(super) fn close(&mut self, at: usize, first: End) {
        for end in [first, first.other()] {
            if !self.connections[at].over {
                self.send(at, end, TCP_FIN | TCP_ACK, 0, 0);
            }
        }
        self.connections[at].over = true;
    }

    /// One end resets the connection, unless nobody hears of that.
    pub(super) fn abort(&mut self, at: usize, end: End) {
        if !self.connections[at].over {
            let went = self.send(at, end, TCP_RST | TCP_ACK, 0, 0);
            self.connections[at].over |= went;
            self.settle();
        }
    }

    /// A node sends in the name of an endpoint that is somewhere else.
    pub(super) fn forge(&mut self, at: usize, end: End, node: usize) {
        let from = self.connections[at].endpoint(end);
        let place = self.world.endpoints[from].place;
        if place == Place::Gone || place == Place::Behind(node) {
            return;
        }
        let segment = self.connections[at].segment(end, TCP_ACK, 0, 0);
        let by = (vtep(node), self.world.routes[node].device);
        let taken = self.programs.borrow_mut().pop(by, &segment, self.now);
        assert!(taken.is_none(), "{taken:?}");
        assert!(!self.comes(at, end, node, &segment), "no worker would");
        self.settle();
    }
}
