//! Messages between nodes, in protobuf so that versions can differ during an upgrade.

use bytes::Bytes;

#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct PbIdentity {
    #[prost(string, tag = "1")]
    pub(crate) node: String,
    #[prost(uint64, tag = "2")]
    pub(crate) incarnation: u64,
    #[prost(uint32, tag = "3")]
    pub(crate) renewal: u32,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) ip: Vec<u8>,
    #[prost(uint32, tag = "5")]
    pub(crate) port: u32,
}

#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct PbMember {
    #[prost(message, optional, tag = "1")]
    pub(crate) id: Option<PbIdentity>,
    #[prost(uint32, tag = "2")]
    pub(crate) swim_incarnation: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) state: u32,
}

#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct PbHeader {
    #[prost(message, optional, tag = "1")]
    pub(crate) src: Option<PbIdentity>,
    #[prost(uint32, tag = "2")]
    pub(crate) src_incarnation: u32,
    #[prost(message, optional, tag = "3")]
    pub(crate) dst: Option<PbIdentity>,
    #[prost(uint32, tag = "4")]
    pub(crate) kind: u32,
    #[prost(message, optional, tag = "5")]
    pub(crate) third: Option<PbIdentity>,
    #[prost(uint32, tag = "6")]
    pub(crate) probe: u32,
}

/// One change of one entry; or, with `left`, of a whole owner.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct Update {
    #[prost(string, tag = "1")]
    pub(crate) owner: String,
    #[prost(uint64, tag = "2")]
    pub(crate) incarnation: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) seq: u64,
    #[prost(uint32, tag = "4")]
    pub(crate) table: u32,
    #[prost(string, tag = "5")]
    pub(crate) key: String,
    #[prost(bytes = "bytes", tag = "6")]
    pub(crate) value: Bytes,
    #[prost(bool, tag = "7")]
    pub(crate) deleted: bool,
    #[prost(bool, tag = "8")]
    pub(crate) left: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct Updates {
    #[prost(message, repeated, tag = "1")]
    pub(crate) updates: Vec<Update>,
}

/// "I am here": sent to addresses of which the sender knows nothing but the address.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct Hello {
    #[prost(message, optional, tag = "1")]
    pub(crate) from: Option<PbIdentity>,
}

/// Tells a member to its face what is said of it, so that it can object at once.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct Accuse {
    #[prost(message, optional, tag = "1")]
    pub(crate) from: Option<PbIdentity>,
    #[prost(message, optional, tag = "2")]
    pub(crate) target: Option<PbMember>,
}

#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct Datagram {
    #[prost(oneof = "Body", tags = "1, 2, 3, 4")]
    pub(crate) body: Option<Body>,
}

#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub(crate) enum Body {
    #[prost(bytes = "bytes", tag = "1")]
    Swim(Bytes),
    #[prost(message, tag = "2")]
    Updates(Updates),
    #[prost(message, tag = "3")]
    Hello(Hello),
    #[prost(message, tag = "4")]
    Accuse(Accuse),
}

/// What a node has of one owner, in short.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct OwnerDigest {
    #[prost(string, tag = "1")]
    pub(crate) owner: String,
    #[prost(uint64, tag = "2")]
    pub(crate) incarnation: u64,
    /// Every change up to this number is known.
    #[prost(uint64, tag = "3")]
    pub(crate) complete: u64,
    /// Highest number known.
    #[prost(uint64, tag = "4")]
    pub(crate) highest: u64,
    /// Over the live entries.
    #[prost(fixed64, tag = "5")]
    pub(crate) hash: u64,
    #[prost(bool, tag = "6")]
    pub(crate) left: bool,
}

/// What one owner changed after number `from`; all of it up to number `to`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct OwnerDelta {
    #[prost(string, tag = "1")]
    pub(crate) owner: String,
    #[prost(uint64, tag = "2")]
    pub(crate) incarnation: u64,
    #[prost(bool, tag = "3")]
    pub(crate) left: bool,
    #[prost(uint64, tag = "4")]
    pub(crate) from: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) to: u64,
    /// `owner` and `incarnation` are left empty in these.
    #[prost(message, repeated, tag = "6")]
    pub(crate) entries: Vec<Update>,
}

/// First message of a comparison.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct SyncRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) from: Option<PbIdentity>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) members: Vec<PbMember>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) digest: Vec<OwnerDigest>,
}

/// Second message: what the first side lacks, and a digest of what this side lacks.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct SyncReply {
    #[prost(message, optional, tag = "1")]
    pub(crate) from: Option<PbIdentity>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) members: Vec<PbMember>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) deltas: Vec<OwnerDelta>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) wanted: Vec<OwnerDigest>,
}

/// Third message; or, unasked, changes that fit no datagram.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct SyncPush {
    #[prost(message, repeated, tag = "1")]
    pub(crate) deltas: Vec<OwnerDelta>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) updates: Vec<Update>,
}

/// "Do you live?", where datagrams bring no answer. Earlier versions do not answer it.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct Probe {
    #[prost(message, optional, tag = "1")]
    pub(crate) from: Option<PbIdentity>,
    /// The receiver, as the sender sees it.
    #[prost(message, optional, tag = "2")]
    pub(crate) target: Option<PbMember>,
}

/// "I do."
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct Answer {
    #[prost(message, optional, tag = "1")]
    pub(crate) from: Option<PbIdentity>,
    /// What was said of the sender in lower SWIM incarnations is void.
    #[prost(uint32, tag = "2")]
    pub(crate) swim_incarnation: u32,
}

#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct StreamMessage {
    #[prost(oneof = "StreamBody", tags = "1, 2, 3, 4, 5")]
    pub(crate) body: Option<StreamBody>,
}

#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub(crate) enum StreamBody {
    #[prost(message, tag = "1")]
    Request(SyncRequest),
    #[prost(message, tag = "2")]
    Reply(SyncReply),
    #[prost(message, tag = "3")]
    Push(SyncPush),
    #[prost(message, tag = "4")]
    Probe(Probe),
    #[prost(message, tag = "5")]
    Answer(Answer),
}
