//! A value with its path, and how values of the table's kinds are taken out of it.
//!
//! What is of another kind was told before, and counts as not there.

use std::collections::BTreeMap;

use crate::amount::{Nanoseconds, parse_size};
use crate::problem::{Findings, Position, below};
use crate::tree::{Entry, Node, Value};

/// A value and its path.
#[derive(Debug, Clone)]
pub(super) struct Place<'a> {
    pub(super) node: &'a Node,
    pub(super) path: String,
}

impl<'a> Place<'a> {
    pub(super) fn get(&self, key: &str) -> Option<Self> {
        let node = self.node.get(key)?;
        let path = below(&self.path, key);
        Some(Self { node, path })
    }

    pub(super) fn at(&self) -> &Position {
        &self.node.at
    }

    pub(super) fn items(&self) -> impl Iterator<Item = Self> {
        let items = self.node.items().iter().enumerate();
        items.map(move |(index, node)| Self {
            node,
            path: below(&self.path, index),
        })
    }

    /// The entries of a mapping. Of one whose keys people choose, a name that begins with `x-` is one.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a Entry, Self)> {
        let entries = self.node.entries().iter();
        entries.map(move |entry| {
            let node = &entry.value;
            let path = below(&self.path, &entry.key);
            (entry, Self { node, path })
        })
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.node.get(key)?.text().map(str::to_owned)
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.node.get(key)?.flag()
    }

    /// The items of a list, or a text as the only one.
    pub(super) fn texts(&self, key: &str) -> Vec<String> {
        let Some(node) = self.node.get(key) else {
            return Vec::new();
        };
        match node.text() {
            Some(text) => vec![text.to_owned()],
            None => {
                let items = node.items().iter();
                items.filter_map(Node::text).map(str::to_owned).collect()
            }
        }
    }

    /// A mapping of variables, or a list of `K=V`; None is a `K` alone.
    pub(super) fn pairs(&self, key: &str) -> BTreeMap<String, Option<String>> {
        let Some(node) = self.node.get(key) else {
            return BTreeMap::new();
        };
        let named = node.entries().iter();
        let named = named.map(|entry| (entry.key.clone(), entry.value.text().map(str::to_owned)));
        let listed = node.items().iter().filter_map(Node::text);
        let listed = listed.map(|text| match text.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (text.to_owned(), None),
        });
        named.chain(listed).collect()
    }

    /// The same where nothing is an empty text.
    pub(super) fn labels(&self, key: &str) -> BTreeMap<String, String> {
        let pairs = self.pairs(key).into_iter();
        pairs
            .map(|(key, value)| (key, value.unwrap_or_default()))
            .collect()
    }

    /// A number from zero on, `most` at most.
    pub(super) fn count(&self, key: &str, most: u64, findings: &mut Findings) -> Option<u64> {
        let place = self.get(key)?;
        let number = place.node.whole()?;
        let count = u64::try_from(number).ok().filter(|count| *count <= most);
        if count.is_none() {
            let what = format!("is {number}, and must be from 0 to {most}");
            findings.error(place.at(), &place.path, what, "write another number");
        }
        count
    }

    /// A mode of a file.
    pub(super) fn mode(&self, key: &str, findings: &mut Findings) -> Option<u32> {
        const MOST: u64 = 0o7777;
        let mode = self.count(key, MOST, findings)?;
        u32::try_from(mode).ok()
    }

    pub(super) fn duration(&self, key: &str, findings: &mut Findings) -> Option<Nanoseconds> {
        let place = self.get(key)?;
        let text = place.node.text()?;
        let duration = Nanoseconds::parse(text);
        if duration.is_none() {
            let what = format!("is {text:?}, which is no duration");
            findings.error(
                place.at(),
                &place.path,
                what,
                "write it as 10s, 1m30s or 500ms",
            );
        }
        duration
    }

    pub(super) fn size(&self, key: &str, findings: &mut Findings) -> Option<u64> {
        let place = self.get(key)?;
        let text = place.node.text()?;
        let size = parse_size(text);
        if size.is_none() {
            let what = format!("is {text:?}, which is no size");
            findings.error(
                place.at(),
                &place.path,
                what,
                "write it as 50M, 1.5g or a number of bytes",
            );
        }
        size
    }

    /// A text that is one of these.
    pub(super) fn one_of(
        &self,
        key: &str,
        words: &[&str],
        findings: &mut Findings,
    ) -> Option<String> {
        let place = self.get(key)?;
        let text = place.node.text()?;
        if !words.contains(&text) {
            let what = format!("is {text:?}");
            let mend = format!("write one of {}", words.join(", "));
            findings.error(place.at(), &place.path, what, mend);
            return None;
        }
        Some(text.to_owned())
    }
}
