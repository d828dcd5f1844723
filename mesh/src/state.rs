//! How far a flow is, and what a TCP segment makes of that.

use weft_wire::frame::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

/// How far a flow is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlowState {
    /// The replica has not answered the SYN.
    SynSent,
    /// The replica has answered, the client has not confirmed.
    SynAnswered,
    /// Open. Never ends by being idle.
    Established,
    /// The client has closed its side.
    FinClient,
    /// The replica has closed its side.
    FinReplica,
    /// Both have closed.
    Closing,
    /// One of them has reset the connection.
    Reset,
    /// Datagrams from the client only.
    Datagrams,
    /// Datagrams in both directions.
    DatagramsAnswered,
}

impl FlowState {
    /// True while a connection may be moved to another replica: none has answered it.
    #[must_use]
    pub const fn is_unanswered(self) -> bool {
        matches!(self, Self::SynSent)
    }

    /// True when nothing more than stray segments can follow.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Closing | Self::Reset)
    }

    /// The state after a TCP segment from the client.
    pub(crate) const fn after_client(self, flags: u8) -> Self {
        if flags & TCP_RST != 0 {
            return Self::Reset;
        }
        if flags & TCP_FIN != 0 {
            return match self {
                Self::FinReplica | Self::Closing => Self::Closing,
                Self::Reset => Self::Reset,
                _ => Self::FinClient,
            };
        }
        match self {
            // Only who got the SYN-ACK can acknowledge it.
            Self::SynSent | Self::SynAnswered if flags & (TCP_ACK | TCP_SYN) == TCP_ACK => {
                Self::Established
            }
            _ => self,
        }
    }

    /// The state after a TCP segment from the replica.
    pub(crate) const fn after_replica(self, flags: u8) -> Self {
        if flags & TCP_RST != 0 {
            return Self::Reset;
        }
        if flags & TCP_FIN != 0 {
            return match self {
                Self::FinClient | Self::Closing => Self::Closing,
                Self::Reset => Self::Reset,
                _ => Self::FinReplica,
            };
        }
        match self {
            Self::SynSent if flags & (TCP_ACK | TCP_SYN) == TCP_ACK | TCP_SYN => Self::SynAnswered,
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_follow_the_handshake_and_both_closes() {
        use FlowState as S;
        let (syn, ack, fin) = (TCP_SYN, TCP_ACK, TCP_FIN | TCP_ACK);
        let mut s = S::SynSent;
        s = s.after_client(syn);
        assert_eq!(s, S::SynSent);
        s = s.after_replica(syn | ack);
        assert_eq!(s, S::SynAnswered);
        s = s.after_client(ack);
        assert_eq!(s, S::Established);
        s = s.after_replica(syn | ack);
        assert_eq!(s, S::Established);
        assert_eq!(s.after_client(fin), S::FinClient);
        assert_eq!(s.after_client(fin).after_client(fin), S::FinClient);
        assert_eq!(s.after_client(fin).after_replica(fin), S::Closing);
        assert_eq!(s.after_replica(fin).after_client(fin), S::Closing);
        assert_eq!(s.after_replica(fin).after_client(ack), S::FinReplica);
        assert_eq!(s.after_client(TCP_RST), S::Reset);
        assert_eq!(s.after_replica(TCP_RST | ack), S::Reset);
        assert_eq!(S::Reset.after_client(fin).after_replica(fin), S::Reset);
    }
}
