//! A manager that goes on alone, when the others will not come back.

use std::collections::BTreeMap;
use std::sync::Arc;

use openraft::{CommittedLeaderId, EntryPayload};

use super::file::{Failure, RaftFile};
use super::tables;
use super::types::{LogEntry, LogId, Member, Membership, Vote};

/// Makes the owner of a file that nobody runs on the only member of its log, and the leader of a new
/// term. Every entry that it has stays, also those of which it does not know whether a quorum had
/// them: one may have been acknowledged.
///
/// # Errors
/// The disk's; nothing changed.
pub(super) async fn go_on_alone(file: &Arc<RaftFile>, member: Member) -> Result<(), Failure> {
    let (vote, entry) = {
        let known = file.known();
        let last = known.last();
        let voted = known.vote.map_or(0, |vote| vote.leader_id.term);
        let written = last.map_or(0, |last| last.leader_id.term);
        let term = voted.max(written) + 1;
        let members = BTreeMap::from([(file.member, member)]);
        let list = Membership::new(vec![[file.member].into()], members);
        let entry = LogEntry {
            log_id: LogId::new(
                CommittedLeaderId::new(term, file.member),
                last.map_or(0, |last| last.index + 1),
            ),
            payload: EntryPayload::Membership(list),
        };
        (Vote::new_committed(term, file.member), entry)
    };
    let (seal, id) = (file.seal, entry.log_id);
    file.write(
        move |transaction| {
            let entries = vec![entry];
            let lengths = tables::append(transaction, seal, &entries)?;
            tables::put_vote(transaction, seal, &vote)?;
            tables::put_committed(transaction, seal, Some(&id))?;
            Ok((entries, lengths))
        },
        move |known, (entries, lengths)| {
            known.vote = Some(vote);
            known.committed = Some(id);
            known.appended(entries, lengths);
        },
    )
    .await
}
