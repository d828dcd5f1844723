//! A machine without a certificate that calls what only members may, with bodies that are small on
//! the wire and large in memory.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use tonic::Code;
use weft_sys::netns::Netns;

use crate::grpc::Caller;

/// What came of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The manager answered with this.
    Answered(Code),
    /// There was no connection to call on.
    TurnedAway,
}

/// Throws bombs from one machine.
pub(super) struct Thrower<'a> {
    caller: Caller<'a>,
    body: Bytes,
}

impl<'a> Thrower<'a> {
    /// `root` is the file of the cluster's root certificate.
    pub(super) fn new(from: &'a Netns, to: SocketAddr, root: &Path) -> Self {
        Self {
            caller: Caller::stranger(from, to, root),
            // UpdateTaskStatusRequest: 16 MiB of `updates`, all of them empty.
            body: Bytes::from([0x12, 0x00].repeat((8 << 20) - 16)),
        }
    }

    /// One connection, one call.
    pub(super) fn throw(&self) -> Outcome {
        let path = "/weft.v1.Dispatcher/UpdateTaskStatus";
        match self.caller.call(path, self.body.clone()) {
            Some(answer) => Outcome::Answered(answer.map_or_else(|s| s.code(), |_| Code::Ok)),
            None => Outcome::TurnedAway,
        }
    }
}
