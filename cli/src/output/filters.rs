//! `--filter` of lists: with one key any of the values, with several keys all of them, as docker has it.

use anyhow::bail;
use serde_json::{Map, Value};

use crate::args::FilterArgs;

/// How a filter looks at a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Match {
    /// They are equal, in whatever case, and with `-` for spaces.
    Is,
    /// The field begins so.
    Begins,
    /// That is a part of the field.
    Part,
    /// Labels have `KEY`, or `KEY=VALUE`.
    Label,
}

/// A key, and fields of rows that it looks at: one of them is enough. A command that has no field for a
/// key looks itself.
pub(crate) type Key = (&'static str, &'static [(&'static str, Match)]);

/// What rows have to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filters<'a> {
    given: &'a [(String, String)],
    keys: &'static [Key],
}

impl<'a> Filters<'a> {
    /// Those of the command line.
    ///
    /// # Errors
    /// One has another key; in docker's words, with the keys that there are.
    pub(crate) fn of(args: &'a FilterArgs, keys: &'static [Key]) -> anyhow::Result<Self> {
        let given = args.filters.as_slice();
        for (key, _) in given {
            if !keys.iter().any(|(known, _)| known == key) {
                let known: Vec<&str> = keys.iter().map(|(known, _)| *known).collect();
                bail!("invalid filter '{key}': there is {}", known.join(", "));
            }
        }
        Ok(Self { given, keys })
    }

    /// The values of a key.
    pub(crate) fn values(&self, key: &str) -> impl Iterator<Item = &'a str> {
        let of_key = self.given.iter().filter(move |(given, _)| given == key);
        of_key.map(|(_, value)| value.as_str())
    }

    /// Whether a row is one of those.
    pub(crate) fn let_through(&self, row: &Value) -> bool {
        self.keys.iter().all(|(key, fields)| {
            let mut values = self.values(key).peekable();
            let any = fields.is_empty() || values.peek().is_none();
            any || values.any(|value| {
                let mut fields = fields.iter();
                fields.any(|(field, how)| how.holds(&row[*field], value))
            })
        })
    }
}

impl Match {
    fn holds(self, field: &Value, wanted: &str) -> bool {
        if let (Self::Label, Some(labels)) = (self, field.as_object()) {
            return has_label(labels, wanted);
        }
        let text = match field {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return false,
        };
        match self {
            Self::Is => text.replace(' ', "-").eq_ignore_ascii_case(wanted),
            Self::Begins => text.starts_with(wanted),
            Self::Part => text.contains(wanted),
            // As docker writes them in a row: KEY=VALUE,KEY=VALUE.
            Self::Label => {
                let end = if wanted.contains('=') { "," } else { "=" };
                format!(",{text},").contains(&format!(",{wanted}{end}"))
            }
        }
    }
}

fn has_label(labels: &Map<String, Value>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        None => labels.contains_key(wanted),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KEYS: [Key; 6] = [
        ("id", &[("ID", Match::Begins)]),
        ("name", &[("Name", Match::Part)]),
        ("mode", &[("Mode", Match::Is)]),
        ("node", &[("Node", Match::Is), ("NodeID", Match::Begins)]),
        ("label", &[("Labels", Match::Label)]),
        ("other", &[]),
    ];

    fn given(filters: &[(&str, &str)]) -> FilterArgs {
        let pairs = filters.iter();
        FilterArgs {
            filters: pairs
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        }
    }

    fn holds(filters: &[(&str, &str)], row: &Value) -> bool {
        let args = given(filters);
        Filters::of(&args, &KEYS).unwrap().let_through(row)
    }

    #[test]
    fn one_value_of_a_key_is_enough_and_every_key_counts() {
        let row = json!({
            "ID": "abc", "Name": "a-longer-name", "Mode": "replicated job",
            "Node": "node1", "NodeID": "xyz", "Labels": {"disk": "ssd", "zone": "a=b"},
        });
        for filters in [
            &[("id", "ab")][..],
            &[],
            &[("id", "x"), ("id", "abc")],
            &[("name", "longer"), ("mode", "Replicated-Job")],
            &[("node", "NODE1")],
            &[("node", "xy")],
            &[("label", "disk")],
            &[("label", "zone=a=b")],
            &[("other", "is looked at elsewhere")],
        ] {
            assert!(holds(filters, &row), "{filters:?}");
        }
        for filters in [
            &[("id", "bc")][..],
            &[("id", "abc"), ("name", "short")],
            &[("mode", "replicated")],
            &[("node", "node")],
            &[("label", "disk=hdd")],
            &[("label", "ssd")],
        ] {
            assert!(!holds(filters, &row), "{filters:?}");
        }
    }

    #[test]
    fn labels_of_one_text_are_found_as_well() {
        let row = json!({"Labels": "disk=ssd,hosts=a,b,zone="});
        for label in ["disk", "hosts", "hosts=a,b", "zone", "zone="] {
            assert!(holds(&[("label", label)], &row), "{label}");
        }
        for label in ["dis", "ssd", "disk=s", "host"] {
            assert!(!holds(&[("label", label)], &row), "{label}");
        }
    }

    #[test]
    fn unknown_keys_are_refused_in_dockers_words() {
        let args = given(&[("id", "a"), ("role", "x")]);
        let error = Filters::of(&args, &KEYS).unwrap_err().to_string();
        assert_eq!(
            error,
            "invalid filter 'role': there is id, name, mode, node, label, other"
        );
    }
}
