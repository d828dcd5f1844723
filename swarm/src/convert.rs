//! How errors and objects travel inside gRPC messages.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::{Code, Status};
use weft_cluster::{CommandError, ErrorKind, MAX_UNSEEN, Sight, Vitals};
use weft_model::id::{ID_LEN, NodeId};

use crate::proto;

/// Number of the JSON schema that this version speaks; docs/compatibility.md says when it grows.
pub(crate) const SCHEMA: u32 = 3;

/// The status of a refused command; the text travels unchanged.
pub(crate) fn to_status(error: CommandError) -> Status {
    let code = match error.kind {
        ErrorKind::BadRequest => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Conflict => Code::AlreadyExists,
        ErrorKind::Unavailable | ErrorKind::NotLed => Code::Unavailable,
        ErrorKind::Forbidden => Code::PermissionDenied,
    };
    Status::new(code, error.message)
}

/// The reverse of [`to_status`].
pub(crate) fn from_status(status: &Status) -> CommandError {
    let kind = match status.code() {
        Code::InvalidArgument => ErrorKind::BadRequest,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::Conflict,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Forbidden,
        _ => ErrorKind::Unavailable,
    };
    CommandError::new(kind, status.message())
}

/// What a node says of itself, for the wire.
pub(crate) fn vitals_to_proto(vitals: Vitals) -> proto::Vitals {
    let Vitals { off, sight } = vitals.bounded();
    proto::Vitals {
        off,
        sight: sight.map(|sight| proto::Sight {
            others: sight.others,
            unseen: sight.unseen,
            unseen_nodes: sight.unseen_nodes.into_iter().map(|id| id.0).collect(),
        }),
    }
}

/// The reverse, of a node that may be anybody's: what is too much is left out.
pub(crate) fn vitals_from_proto(vitals: proto::Vitals) -> Vitals {
    let sight = vitals.sight.map(|sight| {
        let nodes = sight.unseen_nodes.into_iter().take(MAX_UNSEEN);
        Sight {
            others: sight.others,
            unseen: sight.unseen,
            unseen_nodes: nodes.filter(|id| id.len() <= ID_LEN).map(NodeId).collect(),
        }
    });
    let off = vitals.off;
    Vitals { off, sight }.bounded()
}

/// Objects to bytes.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Status> {
    serde_json::to_vec(value).map_err(|e| Status::internal(format!("cannot encode: {e}")))
}

/// Bytes of a peer to objects; a schema that is not ours is refused by name.
pub(crate) fn decode<T: DeserializeOwned>(schema: u32, json: &[u8]) -> Result<T, Status> {
    if schema != SCHEMA {
        return Err(Status::invalid_argument(format!(
            "the peer speaks schema {schema} of the node protocol, this node speaks {SCHEMA}; run \
             the same version of weftd on all nodes"
        )));
    }
    serde_json::from_slice(json)
        .map_err(|e| Status::invalid_argument(format!("the peer sent a damaged object: {e}")))
}
