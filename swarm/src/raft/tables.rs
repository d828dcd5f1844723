//! The tables of the log's file: what stands where, and the steps that change them.
//!
//! Objects are JSON, closed by a [`Seal`]. What belongs together is changed by one transaction of the
//! caller.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase as _, ReadableTable, TableDefinition,
    TableError, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::known::{Applied, Known};
use super::seal::Seal;
use super::snapshot::{self, NoSnapshot};
use super::types::{LogEntry, LogId, RaftId, SnapshotMeta, Vote};

/// Numbers that are read before anything else.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("weft.meta");
/// Single values, by the names below.
const NOTES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("weft.raft.notes");
/// Entries by their index.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("weft.raft.log");

/// Of the tables and the objects in them; docs/compatibility.md says when it grows. 1 and 2 were those
/// of the state of a single manager, without a log.
pub(super) const FORMAT: u64 = 3;

const FORMAT_KEY: &str = "format";
const MEMBER: &str = "member";
const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";
const SNAPSHOT: &str = "snapshot";
const STATE: &str = "state";

fn corrupt(what: &str, why: impl std::fmt::Display) -> redb::Error {
    redb::Error::Corrupted(format!("{what}: {why}"))
}

/// Place of every entry; its index is in it.
const ENTRY: &str = "an entry of the log";

fn to_row<T: Serialize>(seal: &Seal, place: &str, value: &T) -> Result<Vec<u8>, redb::Error> {
    let json = serde_json::to_vec(value).map_err(|e| redb::Error::Io(io::Error::other(e)))?;
    Ok(seal.close(place, &json))
}

fn from_row<T: DeserializeOwned>(seal: &Seal, place: &str, row: &[u8]) -> Result<T, redb::Error> {
    let json = seal.open(place, row).map_err(|e| corrupt(place, e))?;
    serde_json::from_slice(&json).map_err(|e| corrupt(place, e))
}

fn note<T: Serialize>(
    transaction: &WriteTransaction,
    seal: &Seal,
    name: &str,
    value: &T,
) -> Result<(), redb::Error> {
    let row = to_row(seal, name, value)?;
    transaction
        .open_table(NOTES)?
        .insert(name, row.as_slice())?;
    Ok(())
}

fn noted<T: DeserializeOwned>(
    notes: &impl ReadableTable<&'static str, &'static [u8]>,
    seal: &Seal,
    name: &str,
) -> Result<Option<T>, redb::Error> {
    match notes.get(name)? {
        Some(row) => from_row(seal, name, row.value()).map(Some),
        None => Ok(None),
    }
}

/// One durable transaction.
pub(super) fn transact<T>(
    database: &Database,
    work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    let value = work(&transaction)?;
    transaction.commit()?;
    Ok(value)
}

/// Version of the tables; nothing in a new file.
pub(super) fn format(transaction: &ReadTransaction) -> Result<Option<u64>, redb::Error> {
    match transaction.open_table(META) {
        Ok(meta) => Ok(meta.get(FORMAT_KEY)?.map(|format| format.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether nobody has written to the file yet.
pub(super) fn is_new(database: &Database) -> Result<bool, redb::Error> {
    Ok(format(&database.begin_read()?)?.is_none())
}

/// Makes the tables of a member that has heard of nothing yet.
pub(super) fn found(database: &Database, seal: &Seal, member: RaftId) -> Result<(), redb::Error> {
    transact(database, |transaction| {
        put_name(transaction, seal, member)?;
        transaction.open_table(LOG)?;
        Ok(())
    })
}

/// Whose the file is.
pub(super) fn put_name(
    transaction: &WriteTransaction,
    seal: &Seal,
    member: RaftId,
) -> Result<(), redb::Error> {
    transaction.open_table(META)?.insert(FORMAT_KEY, FORMAT)?;
    note(transaction, seal, MEMBER, &member)
}

pub(super) fn put_vote(
    transaction: &WriteTransaction,
    seal: &Seal,
    vote: &Vote,
) -> Result<(), redb::Error> {
    note(transaction, seal, VOTE, vote)
}

pub(super) fn put_committed(
    transaction: &WriteTransaction,
    seal: &Seal,
    committed: Option<&LogId>,
) -> Result<(), redb::Error> {
    match committed {
        Some(committed) => note(transaction, seal, COMMITTED, committed),
        None => Ok(()),
    }
}

/// Adds entries; the bytes of each.
pub(super) fn append(
    transaction: &WriteTransaction,
    seal: &Seal,
    entries: &[LogEntry],
) -> Result<Vec<usize>, redb::Error> {
    let mut log = transaction.open_table(LOG)?;
    let mut lengths = Vec::with_capacity(entries.len());
    for entry in entries {
        let row = to_row(seal, ENTRY, entry)?;
        log.insert(entry.log_id.index, row.as_slice())?;
        lengths.push(row.len());
    }
    Ok(lengths)
}

/// Removes this entry and all after it; the last one that stays.
pub(super) fn truncate(
    transaction: &WriteTransaction,
    seal: &Seal,
    since: u64,
) -> Result<Option<LogId>, redb::Error> {
    let mut log = transaction.open_table(LOG)?;
    log.retain_in(since.., |_, _| false)?;
    last_row(&log, seal)
}

/// Removes entries up to this one, for good.
pub(super) fn purge(
    transaction: &WriteTransaction,
    seal: &Seal,
    upto: &LogId,
) -> Result<(), redb::Error> {
    let mut log = transaction.open_table(LOG)?;
    log.retain_in(..=upto.index, |_, _| false)?;
    note(transaction, seal, PURGED, upto)
}

/// Puts a snapshot in place of the one before.
pub(super) fn put_snapshot(
    transaction: &WriteTransaction,
    seal: &Seal,
    meta: &SnapshotMeta,
    state: &[u8],
) -> Result<(), redb::Error> {
    note(transaction, seal, SNAPSHOT, meta)?;
    let row = seal.close(STATE, state);
    transaction
        .open_table(NOTES)?
        .insert(STATE, row.as_slice())?;
    Ok(())
}

/// The snapshot, with the bytes of its state.
pub(super) fn stored_snapshot(
    transaction: &ReadTransaction,
    seal: &Seal,
) -> Result<Option<(SnapshotMeta, Vec<u8>)>, redb::Error> {
    let notes = transaction.open_table(NOTES)?;
    let Some(meta) = noted::<SnapshotMeta>(&notes, seal, SNAPSHOT)? else {
        return Ok(None);
    };
    let row = notes.get(STATE)?;
    let row = row.ok_or_else(|| corrupt(STATE, "it is missing"))?;
    let state = seal
        .open(STATE, row.value())
        .map_err(|e| corrupt(STATE, e))?;
    Ok(Some((meta, state)))
}

/// Entries of these indices, each with its bytes; the first of them up to `limit` bytes, and one at
/// least.
pub(super) fn entries(
    transaction: &ReadTransaction,
    seal: &Seal,
    indices: Range<u64>,
    limit: usize,
) -> Result<Vec<(LogEntry, usize)>, redb::Error> {
    let mut found = Vec::new();
    if indices.is_empty() {
        return Ok(found);
    }
    let log = transaction.open_table(LOG)?;
    let mut total = 0_usize;
    for row in log.range(indices)? {
        let (index, row) = row?;
        let row = row.value();
        total = total.saturating_add(row.len());
        if total > limit && !found.is_empty() {
            break;
        }
        let entry: LogEntry = from_row(seal, ENTRY, row)?;
        if entry.log_id.index != index.value() {
            return Err(corrupt(ENTRY, "it is at another's place"));
        }
        found.push((entry, row.len()));
    }
    Ok(found)
}

/// Writes all that a file holds into a new one, sealed by the newest key: each row at its place, as long
/// as before.
pub(super) fn copy_anew(from: &Database, to: &Database, seal: &Seal) -> Result<(), redb::Error> {
    let from = from.begin_read()?;
    let (numbers, notes) = (from.open_table(META)?, from.open_table(NOTES)?);
    let log = from.open_table(LOG)?;
    transact(to, |to| {
        let mut copy = to.open_table(META)?;
        for row in numbers.iter()? {
            let (name, number) = row?;
            copy.insert(name.value(), number.value())?;
        }
        let mut copy = to.open_table(NOTES)?;
        for row in notes.iter()? {
            let (name, row) = row?;
            let anew = seal.anew(name.value(), row.value());
            let anew = anew.map_err(|error| corrupt(name.value(), error))?;
            copy.insert(name.value(), anew.as_slice())?;
        }
        let mut copy = to.open_table(LOG)?;
        for row in log.iter()? {
            let (index, row) = row?;
            let anew = seal.anew(ENTRY, row.value());
            let anew = anew.map_err(|error| corrupt(ENTRY, error))?;
            copy.insert(index.value(), anew.as_slice())?;
        }
        Ok(())
    })
}

fn last_row(
    log: &impl ReadableTable<u64, &'static [u8]>,
    seal: &Seal,
) -> Result<Option<LogId>, redb::Error> {
    let Some((_, row)) = log.last()? else {
        return Ok(None);
    };
    let entry: LogEntry = from_row(seal, ENTRY, row.value())?;
    Ok(Some(entry.log_id))
}

/// Why tables cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// Written by another version. Nothing else was read.
    #[error("its format is {0}")]
    Format(u64),
    /// Of a version to come, in a part of it.
    #[error(transparent)]
    Snapshot(#[from] NoSnapshot),
    /// Damaged, or the disk's fault.
    #[error(transparent)]
    File(#[from] redb::Error),
}

impl From<redb::TransactionError> for Unreadable {
    fn from(error: redb::TransactionError) -> Self {
        Self::File(error.into())
    }
}

impl From<TableError> for Unreadable {
    fn from(error: TableError) -> Self {
        Self::File(error.into())
    }
}

/// All that the file says: whose it is, and what it holds. Nothing in a new file.
pub(super) fn load(
    database: &Database,
    seal: &Seal,
) -> Result<Option<(RaftId, Known)>, Unreadable> {
    let transaction = database.begin_read()?;
    match format(&transaction)? {
        None => return Ok(None),
        Some(FORMAT) => {}
        Some(other) => return Err(Unreadable::Format(other)),
    }
    let mut known = Known::default();
    let notes = transaction.open_table(NOTES)?;
    let member = noted(&notes, seal, MEMBER)?.ok_or_else(|| corrupt(MEMBER, "it is missing"))?;
    known.vote = noted(&notes, seal, VOTE)?;
    known.committed = noted(&notes, seal, COMMITTED)?;
    known.purged = noted(&notes, seal, PURGED)?;
    if let Some((meta, state)) = stored_snapshot(&transaction, seal)? {
        known.applied = Applied {
            state: Arc::new(snapshot::decode(&state)?),
            last: meta.last_log_id,
            membership: meta.last_membership.clone(),
        };
        known.snapshot = Some(meta);
    }
    let purged = known.purged.map(|purged| purged.index);
    let rows = whole(&transaction, purged)?;
    let start = known.applied.index().map_or(rows.start, |last| last + 1);
    let start = start.clamp(rows.start, rows.end);
    if start == rows.end {
        known.row = last_row(&transaction.open_table(LOG)?, seal)?;
    }
    let newest = entries(&transaction, seal, start..rows.end, usize::MAX)?;
    let (newest, bytes) = newest.into_iter().unzip();
    known.appended(newest, bytes);
    Ok(Some((member, known)))
}

/// The indices of the entries that there are. None of them is missing, and none between them and the
/// last one that was removed.
fn whole(transaction: &ReadTransaction, purged: Option<u64>) -> Result<Range<u64>, redb::Error> {
    let log = transaction.open_table(LOG)?;
    let (first, last) = match (log.first()?, log.last()?) {
        (Some((first, _)), Some((last, _))) => (first.value(), last.value()),
        _ => {
            let next = purged.map_or(0, |purged| purged + 1);
            return Ok(next..next);
        }
    };
    let count = log.range(first..=last)?.count() as u64;
    let follows = purged.is_none_or(|purged| first <= purged + 1);
    if count != last - first + 1 || !follows {
        return Err(corrupt("the log", "entries are missing"));
    }
    Ok(first..last + 1)
}

/// Brings a file in line with what is known of it: it may hold what a failed transaction left there,
/// or have lost its contents.
pub(super) fn agree(
    database: &Database,
    seal: &Seal,
    member: RaftId,
    known: &mut Known,
) -> Result<(), redb::Error> {
    // What cannot be read is written anew as well.
    let Ok(Some((found, mut file))) = load(database, seal) else {
        return fill(database, seal, member, known);
    };
    let next = known.row.or(file.purged).map_or(0, |row| row.index + 1);
    if file.row.is_some_and(|row| row.index >= next) {
        // Nobody was told that these are there.
        file.row = transact(database, |transaction| truncate(transaction, seal, next))?;
    }
    let is_behind = found != member
        || file.row != known.row
        || file.vote < known.vote
        || file.in_snapshot() < known.in_snapshot();
    if is_behind {
        return fill(database, seal, member, known);
    }
    Ok(())
}

/// Replaces whatever the file holds: a snapshot of the state, and the entries after it.
pub(super) fn fill(
    database: &Database,
    seal: &Seal,
    member: RaftId,
    known: &mut Known,
) -> Result<(), redb::Error> {
    let meta = known
        .applied
        .last
        .map(|_| snapshot::describe(&known.applied, member));
    let entries: Vec<LogEntry> = known.tail.after(known.applied.index()).cloned().collect();
    let row = transact(database, |transaction| {
        transaction.delete_table(LOG)?;
        transaction.delete_table(NOTES)?;
        put_name(transaction, seal, member)?;
        if let Some(vote) = &known.vote {
            put_vote(transaction, seal, vote)?;
        }
        put_committed(transaction, seal, known.committed.as_ref())?;
        if let Some(meta) = &meta {
            let state = snapshot::encode(&known.applied.state);
            put_snapshot(transaction, seal, meta, &state)?;
            if let Some(last) = &meta.last_log_id {
                note(transaction, seal, PURGED, last)?;
            }
        }
        append(transaction, seal, &entries)?;
        last_row(&transaction.open_table(LOG)?, seal)
    })?;
    known.row = row;
    if let Some(meta) = meta {
        known.purged = known.purged.max(meta.last_log_id);
        known.snapshot_stored(meta);
    }
    Ok(())
}
