//! Which manager to ask instead: a refusal of one that does not lead names the one that does, for
//! programs. For people its text does.

use std::net::SocketAddr;

use tonic::Status;
use tonic::metadata::MetadataValue;

/// Name of the gRPC metadata: `ADDRESS:PORT` of the manager that leads, or [`NOBODY`].
const LEADER: &str = "weft-leader";
/// No leader is known.
const NOBODY: &str = "none";

/// Adds where the leader is reached, if that is known.
pub(crate) fn name_leader(mut status: Status, leader: Option<SocketAddr>) -> Status {
    let value = leader.and_then(|leader| MetadataValue::try_from(leader.to_string()).ok());
    let value = value.unwrap_or(MetadataValue::from_static(NOBODY));
    status.metadata_mut().insert(LEADER, value);
    status
}

/// Whether a refusal is that of a manager which does not lead: nothing was done.
pub(crate) fn is_not_led(status: &Status) -> bool {
    status.metadata().contains_key(LEADER)
}

/// The leader, where a refusal names it.
pub(crate) fn named_leader(status: &Status) -> Option<SocketAddr> {
    let value = status.metadata().get(LEADER)?;
    value.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_read() {
        for leader in ["192.0.2.7:2377", "[2001:db8::7]:2377"] {
            let leader: SocketAddr = leader.parse().unwrap();
            let status = name_leader(Status::unavailable("ask there"), Some(leader));
            assert_eq!(named_leader(&status), Some(leader));
            assert_eq!(status.message(), "ask there");
            assert!(is_not_led(&status));
        }
        let nobody = name_leader(Status::unavailable("nobody"), None);
        assert_eq!(named_leader(&nobody), None);
        assert!(is_not_led(&nobody));
        assert!(!is_not_led(&Status::unavailable("a broken line")));
        let mut hostile = Status::unavailable("?");
        let nonsense = MetadataValue::from_static("all of you");
        hostile.metadata_mut().insert(LEADER, nonsense);
        assert_eq!(named_leader(&hostile), None);
    }
}
