//! The TOML file: keys and lines. Values are parsed later, together with the flags'.

use std::collections::BTreeMap;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::registries::{self, Registry};
use super::{KEYS, Origin, Problem, Setting};

/// Key of the tables of registries, which no flag has.
const REGISTRIES: &str = "registries";

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) settings: Vec<Setting>,
    pub(super) registries: BTreeMap<String, Registry>,
}

/// Settings of the file `path`, whose text is `text`; adds what is wrong to `problems`.
pub(super) fn parse(path: &Path, text: &str, problems: &mut Vec<Problem>) -> Told {
    let at = |offset: usize| Origin::Line(path.to_owned(), line_of(text, offset));
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What follows a syntax error may be read wrongly, so values are not looked at.
        problems.extend(errors.into_iter().map(|error| Problem {
            origin: match error.span() {
                Some(span) => at(span.start),
                None => Origin::File(path.to_owned()),
            },
            message: error.message().to_owned(),
        }));
        return Told::default();
    }

    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let mut settings: Vec<Setting> = Vec::new();
    let mut registries = BTreeMap::new();
    for (key, value) in entries {
        let origin = at(key.span().start);
        let written = key.get_ref().as_ref();
        if written == REGISTRIES {
            registries = registries::parse(value, origin, at, problems);
            continue;
        }
        let wanted = written.replace('_', "-");
        let Some(known) = KEYS.into_iter().find(|known| *known == wanted) else {
            problems.push(Problem {
                origin,
                message: format!("unknown key {written:?}{}", suggestion(&wanted)),
            });
            continue;
        };
        if let Some(first) = settings.iter().find(|s| s.key == known) {
            problems.push(Problem {
                message: format!("{known:?} is set again: {} has it already", first.origin),
                origin,
            });
            continue;
        }
        match texts(known, value) {
            Ok(texts) => settings.push(Setting {
                key: known,
                texts,
                origin,
            }),
            Err(message) => problems.push(Problem { origin, message }),
        }
    }
    Told {
        settings,
        registries,
    }
}

/// The value as text; lists only where the setting is a list.
fn texts(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, String> {
    match value.get_ref() {
        DeValue::Array(items) if key == "dns-upstreams" => items
            .iter()
            .map(|item| {
                scalar(item.get_ref())
                    .ok_or_else(|| format!("{key}: expected a list of texts, as [\"192.0.2.1\"]"))
            })
            .collect(),
        other => match scalar(other) {
            Some(text) => Ok(vec![text]),
            None => Err(format!("{key}: expected one value, not {}", kind(other))),
        },
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.as_ref().to_owned()),
        DeValue::Integer(number) => Some(match number.radix() {
            10 => number.as_str().to_owned(),
            radix => u64::from_str_radix(number.as_str(), radix)
                .ok()?
                .to_string(),
        }),
        DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => None,
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number too large",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Line of a byte offset, from 1.
fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// The known key that differs least, when it is close enough to be a slip.
fn suggestion(wanted: &str) -> String {
    KEYS.into_iter()
        .map(|known| (distance(wanted, known), known))
        .min()
        .filter(|(distance, known)| distance * 3 <= known.len())
        .map_or_else(
            || format!(": the keys are {}, {REGISTRIES}", KEYS.join(", ")),
            |(_, known)| format!(": did you mean {known:?}?"),
        )
}

/// Levenshtein distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
