//! What a flow knows of the sequence numbers of its ends, and which resets it believes for them.

use weft_wire::frame::{TCP, TCP_ACK, TCP_RST, TCP_SYN};
use weft_wire::reply::segment_end;

use crate::flow::{Flow, FlowKind};
use crate::packet::Packet;
use crate::state::FlowState;

impl Flow {
    /// Takes note of what the client has sent and received, for a reset that it will believe.
    pub(crate) fn track_client(&mut self, packet: &Packet<'_>) {
        let (frame, info) = (&*packet.frame, packet.info);
        if info.proto != TCP || frame.len() < info.len {
            return;
        }
        let end = segment_end(frame, info);
        // Zero is what a flow of an earlier process begins with.
        let follows = is_newer(end, self.client_end) && is_near(end, self.client_end);
        if info.tcp_flags & TCP_SYN != 0 || self.client_end == 0 || follows {
            self.client_end = end;
        }
        if info.tcp_flags & TCP_ACK != 0
            && let Some(ack) = read_u32(frame, info.l4 + 8)
        {
            self.client_ack = ack;
        }
    }

    /// Takes note of what the replica's packet says of the numbers of both: from where on the client
    /// counts, and how far what is here of the client is the client's own.
    pub(crate) fn track_replica(&mut self, packet: &Packet<'_>) {
        let (frame, info) = (&*packet.frame, packet.info);
        match self.state {
            FlowState::SynSent
                if info.tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST) == TCP_SYN | TCP_ACK =>
            {
                self.client_ack = segment_end(frame, info);
            }
            FlowState::Established | FlowState::FinClient | FlowState::FinReplica
                if info.tcp_flags & (TCP_ACK | TCP_RST) == TCP_ACK =>
            {
                self.replica_ack = read_u32(frame, info.l4 + 8).unwrap_or(0);
                // The client's own, whatever of it was missed here.
                let ahead = is_newer(self.replica_ack, self.client_end);
                if self.client_end != 0 && ahead && !is_near(self.replica_ack, self.client_end) {
                    self.client_end = self.replica_ack;
                }
            }
            _ => {}
        }
    }

    /// True when a client's reset may be the client's own. Whoever only guesses its port does not
    /// know its sequence numbers, and must not end the flow; the replica answers as RFC 5961
    /// section 3.2 has it. What is known of the client may be what a stranger has sent in its name,
    /// who then must not have the flow stay for ever: what the replica has acknowledged counts as well.
    pub(crate) fn believes_reset(&self, packet: &Packet<'_>) -> bool {
        let end = segment_end(packet.frame, packet.info);
        // What the kernel carries of the way back says what the replica has acknowledged, and a long
        // way holds more than that.
        let near = if self.kind == FlowKind::Return {
            FAR
        } else {
            NEAR
        };
        let belongs = |to: u32| distance(end, to) <= near;
        self.client_end == 0
            || belongs(self.client_end)
            || (self.replica_ack != 0 && belongs(self.replica_ack))
    }

    /// True when a reset from the replica may be one that the client believes (RFC 9293 sections
    /// 3.10.7.3 and 3.10.7.4): of its window, and not an answer to a segment of an earlier connection.
    pub(crate) fn may_reset(&self, packet: &Packet<'_>) -> bool {
        let opens = matches!(self.state, FlowState::SynSent | FlowState::SynAnswered);
        let ack = read_u32(packet.frame, packet.info.l4 + 8);
        // A client that is there anew may open once more what was never closed.
        if self.refuses_syn(packet) && (opens || ack == Some(self.client_end)) {
            return true;
        }
        if self.state.is_unanswered() {
            return false;
        }
        let Some(sequence) = read_u32(packet.frame, packet.info.l4 + 4) else {
            return false;
        };
        let ahead = sequence.wrapping_sub(self.client_ack);
        self.behind || self.client_ack == 0 || ahead <= WINDOW
    }

    /// True when a reset from the replica acknowledges the SYN that it answers (RFC 9293 section
    /// 3.10.7.3). With data in the SYN, part of it may be acknowledged too.
    pub(crate) fn refuses_syn(&self, packet: &Packet<'_>) -> bool {
        packet.info.tcp_flags & (TCP_RST | TCP_ACK) == TCP_RST | TCP_ACK
            && read_u32(packet.frame, packet.info.l4 + 8)
                .is_some_and(|ack| self.client_end.wrapping_sub(ack) < 0x1_0000)
    }
}

/// True when sequence number `a` is after `b` (RFC 9293 section 3.4).
fn is_newer(a: u32, b: u32) -> bool {
    let ahead = a.wrapping_sub(b);
    ahead != 0 && ahead < 0x8000_0000
}

/// Distance of sequence numbers that belong together: more than a client has in flight, and far less
/// than all that somebody who guesses would have to try.
const NEAR: u32 = 4 << 20;

/// The same of one whose flight nobody sees.
const FAR: u32 = 64 << 20;

const fn distance(a: u32, b: u32) -> u32 {
    let (ahead, back) = (a.wrapping_sub(b), b.wrapping_sub(a));
    if ahead < back { ahead } else { back }
}

const fn is_near(a: u32, b: u32) -> bool {
    distance(a, b) <= NEAR
}

/// The largest window, in bytes (RFC 7323 section 2.3).
const WINDOW: u32 = 1 << 30;

/// True when two sequence numbers may be of one window.
pub(crate) fn is_of_window(a: u32, b: u32) -> bool {
    distance(a, b) <= WINDOW
}

fn read_u32(frame: &[u8], at: usize) -> Option<u32> {
    frame
        .get(at..)?
        .first_chunk()
        .map(|bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9293_s3_4_sequence_numbers_wrap() {
        assert!(is_newer(1, 0));
        assert!(is_newer(5, u32::MAX - 5));
        assert!(!is_newer(u32::MAX - 5, 5));
        assert!(!is_newer(7, 7));
    }
}
