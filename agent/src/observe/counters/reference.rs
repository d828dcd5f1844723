//! docs/metrics.md against what a scrape says. `cargo xtask docs` runs this with [`WRITE`] in the
//! environment, and the page is written anew.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use weft_fastpath::Event;
use weft_gossip::NetdbView;
use weft_swarm::RefusedOrders;
use weft_swarm::door::{Door, Limits};

use super::{Once, dns, gossip};
use crate::dns::DnsStats;
use crate::gossip::GossipStats;
use crate::metrics::tests::full;
use crate::metrics::{FastPathSample, Metrics, Sample};

const PAGE: &str = "docs/metrics.md";
const WRITE: &str = "WEFT_WRITE_DOCS";
/// Marks of the part that is written from the code, as in xtask/src/reference.rs.
const BEGIN: &str = "<!-- from the code, by cargo xtask docs -->";
const END: &str = "<!-- until here -->";

/// Labels whose values are words of weft's; reasons of drops have a page of their own.
const WORDS: &[&str] = &["door", "event", "kind", "outcome", "state"];

/// A series, with its labels and the values that they had.
#[derive(Debug, Default)]
struct Series {
    name: String,
    help: String,
    labels: Vec<(String, Vec<String>)>,
}

impl Series {
    /// Takes the labels of one of its lines.
    fn take(&mut self, labels: &str) {
        let labels = labels.rsplit_once('}').map_or(labels, |(labels, _)| labels);
        for pair in labels.split("\",") {
            let Some((key, value)) = pair.split_once("=\"") else {
                continue;
            };
            let value = value.trim_end_matches('"').to_owned();
            match self.labels.iter_mut().find(|(known, _)| known == key) {
                Some((_, values)) if values.contains(&value) => {}
                Some((_, values)) => values.push(value),
                None => self.labels.push((key.to_owned(), vec![value])),
            }
        }
    }

    /// Those whose values are words.
    fn words(&self) -> impl Iterator<Item = &(String, Vec<String>)> {
        let labels = self.labels.iter();
        labels.filter(|(key, _)| WORDS.contains(&key.as_str()))
    }
}

/// A scrape of a node that has one of everything.
fn scrape() -> String {
    let limits = Limits {
        strangers: 1,
        per_source: 1,
        per_known: 1,
        per_member: 1,
        burst: 1,
        per_second: 1,
    };
    let sample = Sample {
        dns: dns(&DnsStats::default()),
        gossip: gossip(&GossipStats::default(), &NetdbView::default()),
        doors: ["manager", "gossip", "images"]
            .map(|door| Door::new(door, limits).sample())
            .to_vec(),
        refused_orders: RefusedOrders::default().sample(),
        fast_path: FastPathSample {
            events: Event::ALL.map(|event| (event.name(), 1)).to_vec(),
            ..FastPathSample::default()
        },
        ..full()
    };
    let source = Once::from(sample);
    Metrics::new(Arc::new(source)).encode().unwrap()
}

fn series(text: &str) -> Vec<Series> {
    let mut found: Vec<Series> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            found.push(Series {
                name: name.to_owned(),
                help: help.to_owned(),
                labels: Vec::new(),
            });
            continue;
        }
        let Some(last) = found.last_mut() else {
            continue;
        };
        if line.starts_with("# TYPE ") {
            if line.ends_with(" counter") {
                last.name.push_str("_total");
            }
        } else if let Some((_, labels)) = line.split_once('{') {
            last.take(labels);
        }
    }
    found
}

fn code<'a>(words: impl IntoIterator<Item = &'a String>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    words.join(", ")
}

/// The code's part of the page.
fn tables(series: &[Series]) -> String {
    let mut out = "| series | labels | what it says |\n|---|---|---|\n".to_owned();
    for one in series {
        let labels = code(one.labels.iter().map(|(key, _)| key));
        writeln!(out, "| `{}` | {labels} | {} |", one.name, one.help).unwrap();
    }
    out.push_str("\nValues of labels that are words of weft's:\n\n");
    out.push_str("| series | label | values |\n|---|---|---|\n");
    for one in series {
        for (key, values) in one.words() {
            writeln!(out, "| `{}` | `{key}` | {} |", one.name, code(values)).unwrap();
        }
    }
    out
}

#[test]
fn every_series_is_in_the_docs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PAGE);
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let series = series(&scrape());
    for one in &series {
        assert!(!one.help.contains('|'), "{one:?}");
        for value in one.words().flat_map(|(_, values)| values) {
            assert!(
                after.contains(&format!("`{value}`")),
                "{PAGE} does not say what {value} means, a value of {}",
                one.name
            );
        }
    }
    let tables = tables(&series);
    let new = format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", tables.trim());
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, new).unwrap();
    } else {
        assert!(
            new == page,
            "{PAGE}: the code says something else by now; `cargo xtask docs` writes it anew:\n{tables}"
        );
    }
}
