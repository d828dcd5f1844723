//! A manager that goes on alone: the others will not come back, or there is a backup of their state.

use std::collections::BTreeMap;
use std::sync::Arc;

use openraft::{CommittedLeaderId, EntryPayload};
use rand::RngExt as _;
use redb::Database;
use weft_cluster::ClusterState;

use super::known::{Applied, Known};
use super::medium::{Medium, StoreError, write_error};
use super::seal::Seal;
use super::tables;
use super::types::{LogEntry, LogId, Member, Membership, RaftId, StoredMembership, Vote};
use crate::sealing::DataKeys;

/// Makes the file of a new member whose log begins with this state, as if entries before it had made
/// it. Whoever opens it goes on alone.
///
/// # Errors
/// The disk's, or there is a file already: it is as it was.
pub(crate) fn lay_down(
    medium: &dyn Medium,
    keys: DataKeys,
    member: Member,
    state: ClusterState,
) -> Result<(), StoreError> {
    let database = medium.open(true)?;
    let failed = |error: &redb::Error| write_error(medium.name(), error);
    let is_new = tables::is_new(&database).map_err(|error| failed(&error))?;
    if !is_new {
        return Err(StoreError::Damaged {
            path: medium.name(),
            why: "it is there already".to_owned(),
        });
    }
    let id: RaftId = rand::rng().random();
    let first = LogId::new(CommittedLeaderId::new(1, id), 1);
    let list = Membership::new(vec![[id].into()], BTreeMap::from([(id, member)]));
    let mut known = Known {
        committed: Some(first),
        applied: Applied {
            state: Arc::new(state),
            last: Some(first),
            membership: StoredMembership::new(Some(first), list),
        },
        ..Known::default()
    };
    tables::fill(&database, &Seal::new(keys), id, &mut known).map_err(|error| failed(&error))
}

/// Makes the owner of a file that nobody runs on the only member of its log, and the leader of a new
/// term. Every entry that it has stays, also those of which it does not know whether a quorum had
/// them: one may have been acknowledged. It has another name from now on, which is returned: the others,
/// should they come back, know the one before, and go on without it.
///
/// # Errors
/// The disk's; nothing changed.
pub(super) fn go_on_alone(
    database: &Database,
    seal: &Seal,
    known: &mut Known,
    member: Member,
) -> Result<RaftId, redb::Error> {
    let id: RaftId = rand::rng().random();
    let last = known.last();
    let voted = known.vote.map_or(0, |vote| vote.leader_id.term);
    let written = last.map_or(0, |last| last.leader_id.term);
    let term = voted.max(written) + 1;
    let list = Membership::new(vec![[id].into()], BTreeMap::from([(id, member)]));
    let entry = LogEntry {
        log_id: LogId::new(
            CommittedLeaderId::new(term, id),
            last.map_or(0, |last| last.index + 1),
        ),
        payload: EntryPayload::Membership(list),
    };
    let (vote, log_id) = (Vote::new_committed(term, id), entry.log_id);
    let entries = vec![entry];
    let lengths = tables::transact(database, |transaction| {
        tables::put_name(transaction, seal, id)?;
        tables::put_vote(transaction, seal, &vote)?;
        tables::put_committed(transaction, seal, Some(&log_id))?;
        tables::append(transaction, seal, &entries)
    })?;
    known.vote = Some(vote);
    known.committed = Some(log_id);
    known.appended(entries, lengths);
    Ok(id)
}
