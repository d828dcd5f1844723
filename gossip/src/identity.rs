//! A member's name in the membership protocol, and its encoding.

use std::net::{IpAddr, SocketAddr};

use bytes::{Buf, BufMut};
use foca::{Header, State};
use prost::Message as _;
use weft_model::id::NodeId;

use super::message::{PbHeader, PbIdentity, PbMember};

/// Longest node id that is accepted, in bytes.
pub(crate) const MAX_NODE_ID: usize = 64;

/// A node in one of its lives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// When its process started, in milliseconds since 1970; a later life wins over an earlier.
    pub incarnation: u64,
    /// Raised when the others took it for dead and it comes back.
    pub renewal: u32,
    /// Where its gossip sockets listen.
    pub addr: SocketAddr,
}

impl Identity {
    /// The identity of a process that starts now.
    #[must_use]
    pub const fn new(node: NodeId, addr: SocketAddr, incarnation: u64) -> Self {
        Self {
            node,
            incarnation,
            renewal: 0,
            addr,
        }
    }

    const fn rank(&self) -> (u64, u32, SocketAddr) {
        (self.incarnation, self.renewal, self.addr)
    }
}

/// A node id that compares without allocating: foca makes two for every member it looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeKey([u8; MAX_NODE_ID]);

impl foca::Identity for Identity {
    type Addr = NodeKey;

    // Not by foca: it would take its old opinions of others along. See `Membership::revive`.
    fn renew(&self) -> Option<Self> {
        None
    }

    fn addr(&self) -> NodeKey {
        let mut key = NodeKey([0; MAX_NODE_ID]);
        for (to, from) in key.0.iter_mut().zip(self.node.0.as_bytes()) {
            *to = *from;
        }
        key
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.rank() > adversary.rank()
    }
}

impl From<&Identity> for PbIdentity {
    fn from(id: &Identity) -> Self {
        Self {
            node: id.node.0.clone(),
            incarnation: id.incarnation,
            renewal: id.renewal,
            ip: match id.addr.ip() {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            },
            port: u32::from(id.addr.port()),
        }
    }
}

impl TryFrom<PbIdentity> for Identity {
    type Error = CodecError;

    fn try_from(pb: PbIdentity) -> Result<Self, CodecError> {
        if pb.node.is_empty() || pb.node.len() > MAX_NODE_ID {
            return Err(CodecError::Field("node id"));
        }
        let ip = if let Ok(v4) = <[u8; 4]>::try_from(pb.ip.as_slice()) {
            IpAddr::from(v4)
        } else if let Ok(v6) = <[u8; 16]>::try_from(pb.ip.as_slice()) {
            IpAddr::from(v6)
        } else {
            return Err(CodecError::Field("address"));
        };
        let port = u16::try_from(pb.port).map_err(|_| CodecError::Field("port"))?;
        if port == 0 {
            return Err(CodecError::Field("port"));
        }
        Ok(Self {
            node: NodeId(pb.node),
            incarnation: pb.incarnation,
            renewal: pb.renewal,
            addr: SocketAddr::new(ip, port),
        })
    }
}

/// Why a membership message does not encode or decode.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    #[error(transparent)]
    Decode(#[from] prost::DecodeError),
    #[error(transparent)]
    Encode(#[from] prost::EncodeError),
    #[error("{0} is missing or out of range")]
    Field(&'static str),
}

/// Encodes foca's headers and members as length-delimited protobuf.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IdentityCodec;

const PING: u32 = 1;
const ACK: u32 = 2;
const PING_REQ: u32 = 3;
const INDIRECT_PING: u32 = 4;
const INDIRECT_ACK: u32 = 5;
const FORWARDED_ACK: u32 = 6;
const ANNOUNCE: u32 = 7;
const FEED: u32 = 8;
const GOSSIP: u32 = 9;
const BROADCAST: u32 = 10;
const TURN_UNDEAD: u32 = 11;

fn state_code(state: State) -> u32 {
    match state {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    }
}

fn required(id: Option<PbIdentity>, what: &'static str) -> Result<Identity, CodecError> {
    id.ok_or(CodecError::Field(what))?.try_into()
}

pub(crate) fn member_to_pb(member: &foca::Member<Identity>) -> PbMember {
    PbMember {
        id: Some(member.id().into()),
        swim_incarnation: u32::from(member.incarnation()),
        state: state_code(member.state()),
    }
}

pub(crate) fn member_from_pb(pb: PbMember) -> Result<foca::Member<Identity>, CodecError> {
    let incarnation =
        u16::try_from(pb.swim_incarnation).map_err(|_| CodecError::Field("incarnation"))?;
    let state = match pb.state {
        0 => State::Alive,
        1 => State::Suspect,
        2 => State::Down,
        _ => return Err(CodecError::Field("state")),
    };
    Ok(foca::Member::new(
        required(pb.id, "member")?,
        incarnation,
        state,
    ))
}

impl foca::Codec<Identity> for IdentityCodec {
    type Error = CodecError;

    fn encode_header(
        &mut self,
        header: &Header<Identity>,
        mut buf: impl BufMut,
    ) -> Result<(), CodecError> {
        use foca::Message as M;
        let (kind, third, probe) = match &header.message {
            M::Ping(n) => (PING, None, *n),
            M::Ack(n) => (ACK, None, *n),
            M::PingReq {
                target,
                probe_number,
            } => (PING_REQ, Some(target), *probe_number),
            M::IndirectPing {
                origin,
                probe_number,
            } => (INDIRECT_PING, Some(origin), *probe_number),
            M::IndirectAck {
                target,
                probe_number,
            } => (INDIRECT_ACK, Some(target), *probe_number),
            M::ForwardedAck {
                origin,
                probe_number,
            } => (FORWARDED_ACK, Some(origin), *probe_number),
            M::Announce => (ANNOUNCE, None, 0),
            M::Feed => (FEED, None, 0),
            M::Gossip => (GOSSIP, None, 0),
            M::Broadcast => (BROADCAST, None, 0),
            M::TurnUndead => (TURN_UNDEAD, None, 0),
        };
        PbHeader {
            src: Some((&header.src).into()),
            src_incarnation: u32::from(header.src_incarnation),
            dst: Some((&header.dst).into()),
            kind,
            third: third.map(Into::into),
            probe: u32::from(probe),
        }
        .encode_length_delimited(&mut buf)?;
        Ok(())
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Identity>, CodecError> {
        use foca::Message as M;
        let pb = PbHeader::decode_length_delimited(&mut buf)?;
        let probe_number = u8::try_from(pb.probe).map_err(|_| CodecError::Field("probe number"))?;
        let third = || required(pb.third, "third party");
        let message = match pb.kind {
            PING => M::Ping(probe_number),
            ACK => M::Ack(probe_number),
            PING_REQ => M::PingReq {
                target: third()?,
                probe_number,
            },
            INDIRECT_PING => M::IndirectPing {
                origin: third()?,
                probe_number,
            },
            INDIRECT_ACK => M::IndirectAck {
                target: third()?,
                probe_number,
            },
            FORWARDED_ACK => M::ForwardedAck {
                origin: third()?,
                probe_number,
            },
            ANNOUNCE => M::Announce,
            FEED => M::Feed,
            GOSSIP => M::Gossip,
            BROADCAST => M::Broadcast,
            TURN_UNDEAD => M::TurnUndead,
            _ => return Err(CodecError::Field("message kind")),
        };
        Ok(Header {
            src: required(pb.src, "source")?,
            src_incarnation: u16::try_from(pb.src_incarnation)
                .map_err(|_| CodecError::Field("incarnation"))?,
            dst: required(pb.dst, "destination")?,
            message,
        })
    }

    fn encode_member(
        &mut self,
        member: &foca::Member<Identity>,
        mut buf: impl BufMut,
    ) -> Result<(), CodecError> {
        member_to_pb(member).encode_length_delimited(&mut buf)?;
        Ok(())
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<foca::Member<Identity>, CodecError> {
        member_from_pb(PbMember::decode_length_delimited(&mut buf)?)
    }
}
