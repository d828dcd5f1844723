//! The entries of one owner, table by table.
//!
//! Views share what they show with the tables, so a write copies what is shared: the rows of its
//! own table and owner, and nothing else. Rows that are the same allocation are the same, which is
//! how readers see what has not changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use weft_model::records::Table;

use super::said::Said;

/// Table code and key. Code 0 stands for the owner as a whole.
pub(crate) type EntryKey = (u32, String);

/// Table codes that this version does not know are kept and passed on.
pub(crate) const fn table_code(table: Table) -> u32 {
    match table {
        Table::Node => 1,
        Table::Endpoint => 2,
        Table::Load => 3,
    }
}

pub(crate) const fn table_of(code: u32) -> Option<Table> {
    match code {
        1 => Some(Table::Node),
        2 => Some(Table::Endpoint),
        3 => Some(Table::Load),
        _ => None,
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) seq: u64,
    pub(crate) value: Bytes,
    /// The value, decoded.
    pub(crate) said: Said,
    /// When this node learnt of the deletion.
    pub(crate) deleted: Option<Duration>,
}

/// Entries of one owner in one table, by key.
pub(crate) type Rows = BTreeMap<String, Entry>;

/// All entries of one owner.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entries {
    /// By table code; none is empty.
    tables: BTreeMap<u32, Arc<Rows>>,
    len: usize,
}

impl Entries {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The rows of a table, if there are any.
    pub(crate) fn rows(&self, code: u32) -> Option<&Arc<Rows>> {
        self.tables.get(&code)
    }

    pub(crate) fn get(&self, (code, key): &EntryKey) -> Option<&Entry> {
        self.tables.get(code)?.get(key)
    }

    /// Table code, key and entry, in this order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &str, &Entry)> {
        self.tables.iter().flat_map(|(code, rows)| {
            rows.iter()
                .map(move |(key, entry)| (*code, key.as_str(), entry))
        })
    }

    /// Returns what was there before.
    pub(crate) fn insert(&mut self, (code, key): EntryKey, entry: Entry) -> Option<Entry> {
        let rows = self.tables.entry(code).or_default();
        let old = Arc::make_mut(rows).insert(key, entry);
        self.len += usize::from(old.is_none());
        old
    }

    pub(crate) fn remove(&mut self, (code, key): &EntryKey) -> Option<Entry> {
        let rows = self.tables.get_mut(code)?;
        if !rows.contains_key(key) {
            return None;
        }
        let rows = Arc::make_mut(rows);
        let old = rows.remove(key);
        if rows.is_empty() {
            self.tables.remove(code);
        }
        self.len = self.len.saturating_sub(1);
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64) -> Entry {
        Entry {
            seq,
            value: Bytes::new(),
            said: Said::Nothing,
            deleted: None,
        }
    }

    #[test]
    fn a_write_copies_the_rows_of_its_table_only() {
        let mut entries = Entries::default();
        for (seq, code) in [(1, 2), (2, 3)] {
            assert_eq!(entries.insert((code, "k".to_owned()), entry(seq)), None);
        }
        let shown = entries.clone();
        let same = |now: &Entries, code| match (now.rows(code), shown.rows(code)) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        let old = entries.insert((3, "k".to_owned()), entry(3));
        assert_eq!(old, Some(entry(2)));
        assert!(same(&entries, 2) && !same(&entries, 3));
        assert_eq!(entries.remove(&(2, "other".to_owned())), None);
        assert!(same(&entries, 2), "nothing went");
        assert_eq!(entries.len(), 2);
        assert_eq!(entries.remove(&(2, "k".to_owned())), Some(entry(1)));
        assert!(entries.rows(2).is_none() && shown.rows(2).is_some());
        let left: Vec<_> = entries
            .iter()
            .map(|(code, key, e)| (code, key, e.seq))
            .collect();
        assert_eq!(left, [(3, "k", 3)]);
        assert_eq!(entries.len(), 1);
        entries.remove(&(3, "k".to_owned()));
        assert!(entries.is_empty());
    }
}
