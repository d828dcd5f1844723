//! A file as a tree of which each part knows its place.

use crate::problem::Position;

/// A value and where it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Position,
    pub(crate) value: Node,
}

/// Text as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    pub(crate) style: Style,
}

/// How a text came here, which says what it may stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Without quotes: it may be a number, a boolean or nothing.
    Plain,
    /// With quotes, or as a block.
    Quoted,
    /// Out of variables: docker casts it to what its place wants.
    Interpolated,
}

/// What YAML 1.1, as docker reads it (yaml.v3), makes of a scalar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Meaning {
    Null,
    Flag(bool),
    Whole(i64),
    Real(f64),
    Text,
}

impl Node {
    /// The value of a key of a mapping, unless it is null.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let entry = self.entries().iter().find(|entry| entry.key == key)?;
        (!entry.value.is_null()).then_some(&entry.value)
    }

    /// The entries of a mapping; none of anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; none of anything else.
    pub(crate) fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    pub(crate) fn scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The text of a scalar that is not null.
    pub(crate) fn text(&self) -> Option<&str> {
        let scalar = self.scalar()?;
        (scalar.meaning() != Meaning::Null).then_some(scalar.text.as_str())
    }

    pub(crate) fn whole(&self) -> Option<i64> {
        self.scalar().and_then(Scalar::whole)
    }

    pub(crate) fn flag(&self) -> Option<bool> {
        self.scalar().and_then(Scalar::flag)
    }

    pub(crate) fn is_null(&self) -> bool {
        self.scalar()
            .is_some_and(|scalar| scalar.meaning() == Meaning::Null)
    }
}

impl Scalar {
    /// What it is by itself, wherever it stands.
    pub(crate) fn meaning(&self) -> Meaning {
        if self.style != Style::Plain {
            return Meaning::Text;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => return Meaning::Null,
            "true" | "True" | "TRUE" => return Meaning::Flag(true),
            "false" | "False" | "FALSE" => return Meaning::Flag(false),
            _ => {}
        }
        if let Some(number) = whole(&self.text) {
            Meaning::Whole(number)
        } else if let Some(number) = real(&self.text) {
            Meaning::Real(number)
        } else {
            Meaning::Text
        }
    }

    /// As an integer, also where it is quoted or out of a variable.
    pub(crate) fn whole(&self) -> Option<i64> {
        whole(&self.text)
    }

    /// As a number.
    pub(crate) fn number(&self) -> Option<f64> {
        // Beyond 2^53 it is near enough: ratios and processors are small.
        whole(&self.text)
            .map(|number| number as f64)
            .or_else(|| real(&self.text))
    }

    /// As a boolean, with docker's words for values out of variables.
    pub(crate) fn flag(&self) -> Option<bool> {
        match self.text.to_ascii_lowercase().as_str() {
            "y" | "yes" | "true" | "on" => Some(true),
            "n" | "no" | "false" | "off" => Some(false),
            _ => None,
        }
    }
}

/// An integer with a base by its beginning, as Go's `ParseInt` with base 0 reads it.
fn whole(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) || digits.ends_with('_') {
        return None;
    }
    let digits = digits.replace('_', "").to_ascii_lowercase();
    let (base, digits) = if let Some(hex) = digits.strip_prefix("0x") {
        (16, hex)
    } else if let Some(octal) = digits.strip_prefix("0o") {
        (8, octal)
    } else if let Some(binary) = digits.strip_prefix("0b") {
        (2, binary)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (8, &digits[1..])
    } else {
        (10, digits.as_str())
    };
    if digits.is_empty() || digits.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{digits}"), base).ok()
}

/// A number with a point or an exponent: `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`.
fn real(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let begins = unsigned.starts_with(|c: char| c.is_ascii_digit())
        || unsigned
            .strip_prefix('.')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let fits = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-' | '_');
    if !begins || !unsigned.chars().all(fits) {
        return None;
    }
    text.replace('_', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Scalar {
        Scalar {
            text: text.to_owned(),
            style: Style::Plain,
        }
    }

    #[test]
    fn scalars_mean_what_docker_takes_them_for() {
        for (text, meaning) in [
            ("", Meaning::Null),
            ("~", Meaning::Null),
            ("true", Meaning::Flag(true)),
            ("yes", Meaning::Text),
            ("n", Meaning::Text),
            ("3", Meaning::Whole(3)),
            ("-3", Meaning::Whole(-3)),
            ("0440", Meaning::Whole(288)),
            ("0x1f", Meaning::Whole(31)),
            ("1_000", Meaning::Whole(1000)),
            ("1e3", Meaning::Real(1000.0)),
            ("1.10", Meaning::Real(1.1)),
            ("22:22", Meaning::Text),
            ("1.2.3", Meaning::Text),
            ("-", Meaning::Text),
            ("0x", Meaning::Text),
            (".5", Meaning::Real(0.5)),
            ("é", Meaning::Text),
        ] {
            assert_eq!(plain(text).meaning(), meaning, "{text}");
        }
        let quoted = Scalar {
            text: "3".to_owned(),
            style: Style::Quoted,
        };
        assert_eq!(quoted.meaning(), Meaning::Text);
        assert_eq!(quoted.whole(), Some(3));
        assert_eq!(plain("On").flag(), Some(true));
        assert_eq!(plain("2").flag(), None);
    }
}
