//! The node API: JSON over HTTP/1 on a unix socket, between `weft` and `weftd`.
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | GET /v1/info | | [`Info`] |
//! | POST /v1/swarm/init | [`SwarmInit`] | [`SwarmInitReply`] |
//! | POST /v1/swarm/join | [`SwarmJoin`] | [`SwarmJoinReply`] |
//! | POST /v1/swarm/leave | [`SwarmLeave`] | [`SwarmLeft`] |
//! | GET /v1/swarm | | [`SwarmDetail`] |
//! | POST /v1/swarm/update?[`VersionQuery`] | [`SwarmUpdate`] | [`SwarmDetail`] |
//! | POST /v1/swarm/ca/rotate | [`CaRotate`] | [`SwarmDetail`] |
//! | GET /v1/swarm/token/{role} | | [`JoinToken`] |
//! | POST /v1/swarm/token/{role}/rotate | | [`JoinToken`] |
//! | POST /v1/swarm/unlock | [`SwarmUnlock`] | `{}` |
//! | GET /v1/swarm/unlock-key | | [`UnlockKeyReply`] |
//! | POST /v1/swarm/unlock-key/rotate | | [`UnlockKeyReply`] |
//! | GET /v1/swarm/backup | | a backup, as a file |
//! | POST /v1/swarm/restore?[`RestoreQuery`] | a backup | [`SwarmRestoreReply`] |
//! | GET /v1/nodes | | list of [`NodeRow`] |
//! | GET, DELETE /v1/nodes/{ref} | [`NodeRemove`] | [`NodeRow`], `{}` |
//! | POST /v1/nodes/{ref}/update?[`VersionQuery`] | [`NodeUpdate`] | [`NodeUpdated`] |
//! | GET /v1/nodes/{ref}/tasks | | list of [`TaskRow`] |
//! | GET, POST /v1/networks | `NetworkSpec` | `[Network]`, `Network` |
//! | GET, DELETE /v1/networks/{ref} | | [`NetworkDetail`], `{}` |
//! | POST /v1/networks/{ref}/connect | [`Connect`] | [`Connected`] |
//! | POST /v1/networks/{ref}/disconnect | [`Disconnect`] | `{}` |
//! | GET, POST /v1/networks/{ref}/peers | [`PeerAdd`] | `[StaticPeer]`, `StaticPeer` |
//! | DELETE /v1/networks/{ref}/peers/{ip} | | `{}` |
//! | GET, POST /v1/services | `ServiceSpec` | `[ServiceDetail]`, `Service` |
//! | GET, DELETE /v1/services/{ref} | | [`ServiceDetail`], `{}` |
//! | POST /v1/services/{ref}/scale?[`VersionQuery`] | [`Scale`] | `Service` |
//! | POST /v1/services/{ref}/update?[`VersionQuery`] | [`ServiceUpdate`] | `Service` |
//! | POST /v1/services/{ref}/plan?[`VersionQuery`] | [`ServiceUpdate`] | [`UpdatePlan`] |
//! | POST /v1/services/{ref}/rebalance | [`Rebalance`] | [`Rebalanced`] |
//! | GET /v1/services/{ref}/tasks | | list of [`TaskRow`] |
//! | GET /v1/services/{ref}/logs?[`LogsQuery`] | | lines of [`LogItem`], also of a task by its id |
//! | GET /v1/tasks/{ref} | | [`TaskRow`] |
//! | GET, POST /v1/secrets | `PayloadSpec` | `[Payload]`, `Payload` |
//! | GET, DELETE /v1/secrets/{ref} | | `Payload`, `{}` |
//! | POST /v1/secrets/{ref}/update?[`VersionQuery`] | `PayloadSpec` | `Payload` |
//! | GET, POST /v1/configs | `PayloadSpec` | `[Payload]`, `Payload` |
//! | GET, DELETE /v1/configs/{ref} | | `Payload`, `{}` |
//! | POST /v1/configs/{ref}/update?[`VersionQuery`] | `PayloadSpec` | `Payload` |
//! | POST /v1/tasks/{ref}/exec | frames | frames of `weft_model::exec`, both ways at once |
//! | GET, POST /v1/volumes?[`VolumesQuery`] | [`VolumeRequest`] | [`Volumes`] |
//! | GET, DELETE /v1/volumes/{name}?[`VolumesQuery`] | | [`Volumes`] |
//! | POST /v1/volumes/{name}?[`VolumesQuery`], whose name is `prune` | [`VolumePrune`] | [`Volumes`] |
//! | GET /v1/events?[`EventsQuery`] | | lines of [`Event`], as they happen |
//! | GET /v1/mesh/ports | | list of [`MeshPort`] |
//! | GET /v1/mesh/conns?[`ConnsQuery`] | | [`MeshConns`] |
//! | GET /v1/mesh/why/{asked} | | [`Why`] |
//! | GET /v1/drops?[`DropsQuery`] | | [`Drops`] |
//! | GET /v1/doctor | | list of [`Check`] |
//! | GET /v1/ping/{node}?[`PingQuery`] | | [`Pong`] |
//! | GET /v1/capture?[`CaptureQuery`] | | pcapng, as frames pass |
//! | GET /v1/images/json | | list of [`ImageSummary`] |
//! | GET /v1/images/{ref}/json | | [`ImageDetail`] |
//! | DELETE /v1/images/{ref}?[`ImageRemoveQuery`] | | list of [`ImageRemoved`] |
//! | POST /v1/images/create?[`PullQuery`] | | lines of [`ImageProgress`], as it is pulled |
//! | POST /v1/images/load | an archive | lines of [`ImageProgress`] |
//! | GET /v1/images/get?[`SaveQuery`] | | an archive |
//! | POST /v1/images/prune?[`ImagePruneQuery`] | | [`ImagesPruned`] |
//! | GET /v1/images/resolve?[`ResolveQuery`] | | [`ResolvedImage`] |
//! | GET /metrics | | OpenMetrics text |
//!
//! `{ref}` is a full id, an exact name, or a unique prefix of an id; slashes in it are `%2F`. Calls
//! about images are about those of the node that is asked; the header [`REGISTRY_AUTH`] has
//! credentials for a registry. Every error is an
//! [`ErrorBody`] with status 400 (bad request), 403 (not permitted), 404 (no such object),
//! 409 (conflict), 413 (larger than [`MAX_REQUEST`], for secrets and configs than
//! [`MAX_PAYLOAD_REQUEST`]; archives have no limit), 503 (not part of a swarm, not a manager, or the manager is unreachable).
//!
//! Objects, and calls that Docker's API has too, have its names and shapes; durations are
//! nanoseconds, moments RFC 3339. A body or a query with a field that is not listed here is
//! refused, as nobody would carry it out.

mod event;
mod health;
mod image;
mod logs;
mod mesh;
mod network;
mod node;
mod packets;
mod redacted;
mod service;
mod swarm;
mod volume;

use serde::{Deserialize, Serialize};

pub use event::{Event, EventAction, EventActor, EventKind, EventsQuery};
pub use health::{Check, Health, Passage, PingQuery, Pong};
pub use image::{
    ImageConfig, ImageDetail, ImageProgress, ImagePruneQuery, ImageRemoveQuery, ImageRemoved,
    ImageSummary, ImagesPruned, ProgressDetail, PullQuery, REGISTRY_AUTH, ResolveQuery,
    ResolvedImage, RootFs, SaveQuery,
};
pub use logs::{LogItem, LogLine, LogStream, LogTask, LogsQuery};
pub use mesh::{
    ConnectTime, ConnsQuery, MeshConn, MeshConns, MeshPort, MeshPortState, MeshReplica, Why,
};
pub use network::{
    AddressUsage, Connect, Connected, Disconnect, EndpointRow, NetworkDetail, PeerAdd,
};
pub use node::{NodeClone, NodeRemove, NodeRow, NodeSight, NodeUpdate, NodeUpdated, TlsStatus};
pub use packets::{CaptureDir, CaptureQuery, DropCount, Drops, DropsQuery, PortDrops};
pub use service::{
    PlacementUpdate, Rebalance, Rebalanced, Scale, ServiceDetail, ServiceStatus, ServiceUpdate,
    TaskMove, TaskRow, UpdatePlan,
};
pub use swarm::{
    CaRotate, ClusterInfo, ContainersInfo, Info, JoinToken, RemoteManager, RestoreQuery,
    RootRotation, SwarmDetail, SwarmInfo, SwarmInit, SwarmInitReply, SwarmJoin, SwarmJoinReply,
    SwarmLeave, SwarmLeft, SwarmRestoreReply, SwarmState, SwarmUnlock, SwarmUpdate, TlsInfo,
    UnlockKeyReply,
};
pub use volume::{
    ANONYMOUS_VOLUME, Volume, VolumeAnswer, VolumeAsk, VolumePrune, VolumeRefusal, VolumeRequest,
    VolumeUsage, Volumes, VolumesQuery,
};

/// Largest body of a request, in bytes: 1 MiB. A larger one is answered with 413.
pub const MAX_REQUEST: usize = 1 << 20;

/// The same of a POST about secrets and configs, in bytes: 2 MiB. Base64 makes 1.3 MiB of the longest
/// config ([`crate::objects::PayloadKind::max_bytes`]).
pub const MAX_PAYLOAD_REQUEST: usize = 2 << 20;

/// Bytes that the body of a request may have, by its method and its path with or without a query.
#[must_use]
pub fn max_request(method: &str, path: &str) -> usize {
    let is_below = |place: &str| {
        let rest = path.strip_prefix(place);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    };
    if method == "POST" && (is_below("/v1/secrets") || is_below("/v1/configs")) {
        MAX_PAYLOAD_REQUEST
    } else {
        MAX_REQUEST
    }
}

/// Header of a GET about the swarm with the value `true`: a manager answers from what it knows, also
/// while it cannot tell whether that is the newest.
pub const STALE: &str = "weft-stale";

/// Of which version of an object a change is, as parameters of the query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionQuery {
    /// `Version.Index` of the object as it was read; where it is another one by now, nothing changes
    /// ("update out of sequence", 409). Absent, whatever it is now is changed.
    pub version: Option<u64>,
}

/// Every error of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong, where, and the next step; one or more sentences.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_makes_a_secret_or_a_config_is_longer() {
        for path in [
            "/v1/secrets",
            "/v1/configs",
            "/v1/configs?x=1",
            "/v1/secrets/a/update?version=3",
        ] {
            assert_eq!(max_request("POST", path), MAX_PAYLOAD_REQUEST, "{path}");
            assert_eq!(max_request("GET", path), MAX_REQUEST, "{path}");
        }
        for path in [
            "/v1/secretsandmore",
            "/v1/services",
            "/v1/networks/v1/configs",
            "",
        ] {
            assert_eq!(max_request("POST", path), MAX_REQUEST, "{path}");
        }
    }
}
