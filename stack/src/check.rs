//! Holds a file against the table of keys. All that is wrong is told at once, and nothing stops here:
//! what reads values later on passes over those that are of another kind.

use crate::near::nearest;
use crate::problem::{Findings, Position, below};
use crate::schema::{Fate, Key, Kind, name_of};
use crate::tree::{Entry, Meaning, Node, Scalar, Style, Value};

/// Tells what is wrong with a value at a path, and below.
pub(crate) fn check(node: &Node, kind: Kind, path: &str, findings: &mut Findings) {
    let fits = match (kind, &node.value) {
        (Kind::Any, _) => true,
        (Kind::OrNull(_), _) if node.is_null() => true,
        (Kind::OrNull(kind), _) => {
            check(node, *kind, path, findings);
            true
        }
        (Kind::Either(kinds), _) => match kinds.iter().find(|kind| has_shape(node, **kind)) {
            Some(kind) => {
                check(node, *kind, path, findings);
                true
            }
            None => false,
        },
        (Kind::Keys(keys), Value::Map(entries)) => {
            check_keys(entries, keys, path, findings);
            true
        }
        (Kind::Named(kind), Value::Map(entries)) => {
            for entry in entries {
                check(&entry.value, *kind, &below(path, &entry.key), findings);
            }
            true
        }
        (Kind::Pairs, Value::Map(entries)) => {
            for entry in entries {
                check(
                    &entry.value,
                    Kind::Variable,
                    &below(path, &entry.key),
                    findings,
                );
            }
            true
        }
        (Kind::List(kind), Value::List(items)) => {
            for (index, item) in items.iter().enumerate() {
                check(item, *kind, &below(path, index), findings);
            }
            true
        }
        (Kind::Pairs, Value::List(items)) => {
            for (index, item) in items.iter().enumerate() {
                check(item, Kind::Text, &below(path, index), findings);
            }
            true
        }
        (_, Value::Scalar(scalar)) => check_scalar(scalar, kind, &node.at, path, findings),
        _ => false,
    };
    if !fits {
        let path = if path.is_empty() {
            "top-level object"
        } else {
            path
        };
        let what = format!("must be {}", name_of(kind));
        findings.error(&node.at, path, what, mend(node, kind));
    }
}

/// True of keys that docker leaves to others.
fn is_extension(entry: &Entry) -> bool {
    entry.key.starts_with("x-")
}

/// True where a value is a scalar, a list or a mapping as a kind wants it.
fn has_shape(node: &Node, kind: Kind) -> bool {
    match (kind, &node.value) {
        (Kind::Keys(_) | Kind::Named(_), Value::Map(_)) | (Kind::List(_), Value::List(_)) => true,
        (Kind::Pairs, Value::Map(_) | Value::List(_)) => true,
        (
            Kind::Text | Kind::Amount | Kind::Variable | Kind::Whole | Kind::Number | Kind::Flag,
            Value::Scalar(_),
        ) => !node.is_null(),
        _ => false,
    }
}

fn check_keys(entries: &[Entry], keys: &[Key], path: &str, findings: &mut Findings) {
    for entry in entries {
        let inner = below(path, &entry.key);
        let Some(key) = keys.iter().find(|key| key.name == entry.key) else {
            if !is_extension(entry) {
                unknown(entry, keys, path, findings);
            }
            continue;
        };
        match key.fate {
            Fate::Used | Fate::Extra if entry.value.is_null() => {
                let what = "is empty, and counts as left out";
                let mend = "give it a value, or take the key away, as docker refuses it";
                findings.warn(&entry.at, &inner, what, mend);
            }
            Fate::Used => check(&entry.value, key.kind, &inner, findings),
            Fate::Extra => {
                let what = "is used here, and refused by `docker stack deploy`";
                findings.warn(&entry.at, &inner, what, "");
                check(&entry.value, key.kind, &inner, findings);
            }
            Fate::Unsupported => {
                findings.unsupported.insert(key.name);
            }
            Fate::Deprecated(why) => {
                findings.deprecated.insert(key.name, why);
            }
            Fate::Forbidden(why) => {
                findings.error(&entry.at, &inner, "is an unsupported option", why);
            }
            Fate::Foreign(instead) => {
                let what = "has no meaning in a cluster";
                findings.error(&entry.at, &inner, what, instead);
            }
        }
    }
}

fn unknown(entry: &Entry, keys: &[Key], path: &str, findings: &mut Findings) {
    let path = if path.is_empty() { "(root)" } else { path };
    let what = format!("Additional property {} is not allowed", entry.key);
    let known = keys
        .iter()
        .filter(|key| !matches!(key.fate, Fate::Forbidden(_) | Fate::Foreign(_)));
    let mend = match nearest(&entry.key, known.map(|key| key.name)) {
        Some(name) => format!("did you mean {name}?"),
        None => format!("take it away, or name it x-{} if it is a note", entry.key),
    };
    findings.error(&entry.at, path, what, mend);
}

/// True where a scalar is, or can be taken for, what its place wants.
fn check_scalar(
    scalar: &Scalar,
    kind: Kind,
    at: &Position,
    path: &str,
    findings: &mut Findings,
) -> bool {
    let meaning = scalar.meaning();
    // What docker casts comes out of variables; other quoted numbers it refuses.
    let is_quoted = scalar.style == Style::Quoted;
    match kind {
        Kind::Text | Kind::Amount | Kind::Variable if meaning == Meaning::Null => {
            return matches!(kind, Kind::Variable);
        }
        Kind::Text => {
            if meaning != Meaning::Text {
                let what = format!(
                    "is taken as the text {:?}; docker refuses it, as it must be a string",
                    scalar.text
                );
                findings.warn(at, path, what, "put it in quotes");
            }
        }
        Kind::Amount | Kind::Variable => as_docker_writes(scalar, at, path, findings),
        Kind::Whole if scalar.whole().is_some() => {
            quoted(is_quoted, "an integer", at, path, findings);
        }
        Kind::Number if scalar.number().is_some() => {
            quoted(is_quoted, "a number", at, path, findings);
        }
        Kind::Flag if scalar.flag().is_some() => {
            let is_word = scalar.style == Style::Plain && meaning == Meaning::Text;
            quoted(is_quoted || is_word, "a boolean", at, path, findings);
        }
        _ => return false,
    }
    true
}

fn quoted(is_quoted: bool, name: &str, at: &Position, path: &str, findings: &mut Findings) {
    if is_quoted {
        let what = format!("is taken as {name}; docker refuses the text");
        let mend = if name == "a boolean" {
            "write true or false"
        } else {
            "take the quotes away"
        };
        findings.warn(at, path, what, mend);
    }
}

/// Tells where docker would make another text of a number.
fn as_docker_writes(scalar: &Scalar, at: &Position, path: &str, findings: &mut Findings) {
    let written = match scalar.meaning() {
        Meaning::Whole(number) => number.to_string(),
        Meaning::Real(number) => real(number),
        Meaning::Flag(_) => {
            let what = format!(
                "is taken as the text {:?}; docker refuses it, as it must be a string, number or null",
                scalar.text
            );
            findings.warn(at, path, what, "put it in quotes");
            return;
        }
        Meaning::Null | Meaning::Text => return,
    };
    if written != scalar.text {
        let what = format!(
            "stays {:?}; docker would make {written:?} of it",
            scalar.text
        );
        findings.warn(at, path, what, "put it in quotes");
    }
}

/// A number as Go's `%v` writes it, but for very large and very small ones.
fn real(number: f64) -> String {
    const LARGE: f64 = 1e21;
    const SMALL: f64 = 1e-4;
    let size = number.abs();
    if size != 0.0 && !(SMALL..LARGE).contains(&size) {
        format!("{number:e}")
    } else {
        format!("{number}")
    }
}

/// What to write instead.
fn mend(node: &Node, kind: Kind) -> String {
    match (kind, &node.value) {
        (_, Value::Scalar(scalar)) if scalar.style != Style::Plain && scalar.text.contains('$') => {
            "a variable is not replaced here (--skip-interpolation)".to_owned()
        }
        (Kind::Keys(_) | Kind::Named(_), Value::List(_)) => {
            "write `name: value` lines without dashes".to_owned()
        }
        (Kind::Keys(_) | Kind::Named(_), _) => {
            "write `name: value` lines below it, indented by two blanks more".to_owned()
        }
        (Kind::List(_), _) => {
            "write each item in a line of its own that begins with a dash".to_owned()
        }
        (Kind::Whole, _) => "write digits only".to_owned(),
        (Kind::Flag, _) => "write true or false".to_owned(),
        (Kind::Text, Value::Map(_)) => {
            "put it in quotes where it has a colon and a blank behind it".to_owned()
        }
        (Kind::Text | Kind::Amount | Kind::Variable, _) => {
            "write one value in its place".to_owned()
        }
        (Kind::Number, _) => "write a number, such as 0.5".to_owned(),
        (Kind::Pairs, _) => {
            "write `NAME: value` lines below it, indented by two blanks more".to_owned()
        }
        (Kind::Either(kinds), _) => {
            let mut ways: Vec<String> = kinds.iter().map(|kind| mend(node, *kind)).collect();
            ways.dedup();
            ways.join(", or ")
        }
        (Kind::OrNull(kind), _) => mend(node, *kind),
        // Whatever there is fits.
        (Kind::Any, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_mend() {
        let node = |value| Node {
            at: Position::default(),
            value,
        };
        let (list, map) = (node(Value::List(Vec::new())), node(Value::Map(Vec::new())));
        let words = Kind::Either(&[Kind::Text, Kind::List(&Kind::Text)]);
        for (node, kind, says) in [
            (&list, Kind::Text, "write one value in its place"),
            (&list, Kind::Number, "write a number, such as 0.5"),
            (&list, Kind::OrNull(&Kind::Flag), "write true or false"),
            (
                &map,
                words,
                "put it in quotes where it has a colon and a blank behind it, or write each item in a \
                 line of its own that begins with a dash",
            ),
        ] {
            assert_eq!(mend(node, kind), says, "{kind:?}");
        }
    }

    #[test]
    fn numbers_are_written_as_go_does() {
        assert_eq!(real(1.1), "1.1");
        assert_eq!(real(1000.0), "1000");
        assert_eq!(real(0.0), "0");
        assert_eq!(real(1e30), "1e30");
    }
}
