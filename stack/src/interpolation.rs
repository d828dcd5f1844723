//! `$VARIABLE` in values, as docker reads it (docker/cli `cli/compose/template`), but for defaults in
//! defaults, which nest as the Compose Specification says.

use crate::problem::{Findings, Position, below};
use crate::tree::{Node, Style, Value};

/// Sections whose values are interpolated; `name` is the Compose Specification's.
const SECTIONS: [&str; 6] = [
    "services", "volumes", "networks", "secrets", "configs", "name",
];

/// Most bytes that variables of a file may come to.
const MAX_BYTES: usize = 16 << 20;
/// Most defaults in each other.
const MAX_DEPTH: usize = 16;

/// Puts the values of variables into a file. Keys stay as they are.
pub(crate) fn interpolate(
    file: &mut Node,
    variable: &dyn Fn(&str) -> Option<String>,
    findings: &mut Findings,
) {
    let Value::Map(entries) = &mut file.value else {
        return;
    };
    let mut walk = Walk {
        variable,
        findings,
        left: MAX_BYTES,
    };
    for entry in entries {
        if SECTIONS.contains(&entry.key.as_str()) {
            walk.node(&mut entry.value, &entry.key);
        }
    }
}

struct Walk<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    findings: &'a mut Findings,
    left: usize,
}

impl Walk<'_> {
    fn node(&mut self, node: &mut Node, path: &str) {
        match &mut node.value {
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.node(item, &below(path, index));
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    self.node(&mut entry.value, &below(path, &entry.key));
                }
            }
            Value::Scalar(scalar) if scalar.text.contains('$') => {
                let mut notes = Notes::default();
                let done = substitute(&scalar.text, self.variable, &mut notes, self.left);
                self.tell(&node.at, path, &notes);
                match done {
                    Ok(text) => {
                        self.left = self.left.saturating_sub(text.len());
                        scalar.text = text;
                        scalar.style = Style::Interpolated;
                    }
                    Err(error) => {
                        let what = error.to_string();
                        let what = format!("invalid interpolation format for {path}: {what}");
                        self.findings.error(&node.at, "", what, error.mend());
                    }
                }
            }
            Value::Scalar(_) => {}
        }
    }

    fn tell(&mut self, at: &Position, path: &str, notes: &Notes) {
        for name in &notes.unset {
            let what = format!("uses the variable {name:?}, which is not set: it is empty here");
            let mend = format!("set it, or write ${{{name}:-DEFAULT}}");
            self.findings.warn(at, path, what, mend);
        }
        if notes.nested {
            let what = "has a default inside of a default, which `docker stack deploy` would give \
                        as text";
            self.findings
                .warn(at, path, what, "it nests here, as in docker compose");
        }
    }
}

/// What is fine, and worth knowing.
#[derive(Debug, Default, PartialEq, Eq)]
struct Notes {
    /// Variables that are not set and have no default.
    unset: Vec<String>,
    /// A default held another one, and was used.
    nested: bool,
}

/// Why a text is not to be interpolated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Invalid {
    #[error("{0:?}; you may need to escape any $ with another $")]
    Format(String),
    #[error(
        "\"required variable {0} is missing a value: {1}\"; you may need to escape any $ with another $"
    )]
    Required(String, String),
    #[error("its variables come to more than {} bytes", MAX_BYTES)]
    Large,
    #[error("it has more than {} defaults in each other", MAX_DEPTH)]
    Deep,
}

impl Invalid {
    fn mend(&self) -> String {
        match self {
            // Docker's sentence says it.
            Self::Format(_) => String::new(),
            Self::Required(name, _) => format!("set {name} where weft is called"),
            Self::Large => "put large texts into a config".to_owned(),
            Self::Deep => "give a value".to_owned(),
        }
    }
}

/// The text with values in place of variables.
fn substitute(
    text: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    notes: &mut Notes,
    left: usize,
) -> Result<String, Invalid> {
    let mut template = Template {
        whole: text,
        variable,
        notes,
        left,
    };
    template.text(text, 0)
}

struct Template<'a> {
    whole: &'a str,
    variable: &'a dyn Fn(&str) -> Option<String>,
    notes: &'a mut Notes,
    left: usize,
}

impl Template<'_> {
    fn text(&mut self, text: &str, depth: usize) -> Result<String, Invalid> {
        if depth > MAX_DEPTH {
            return Err(Invalid::Deep);
        }
        let mut done = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            done.push_str(&rest[..dollar]);
            rest = &rest[dollar + 1..];
            if let Some(behind) = rest.strip_prefix('$') {
                done.push('$');
                rest = behind;
            } else if let Some(inside) = rest.strip_prefix('{') {
                let end = closing(inside).ok_or_else(|| self.invalid())?;
                done.push_str(&self.braced(&inside[..end], depth)?);
                rest = &inside[end + 1..];
            } else {
                let name = name(rest).ok_or_else(|| self.invalid())?;
                done.push_str(&self.value(name));
                rest = &rest[name.len()..];
            }
            if done.len() > self.left {
                return Err(Invalid::Large);
            }
        }
        done.push_str(rest);
        if done.len() > self.left {
            return Err(Invalid::Large);
        }
        Ok(done)
    }

    /// `NAME`, `NAME:-DEFAULT`, `NAME-DEFAULT`, `NAME:?ERROR`, `NAME?ERROR`.
    fn braced(&mut self, inside: &str, depth: usize) -> Result<String, Invalid> {
        let name = name(inside).ok_or_else(|| self.invalid())?;
        let behind = &inside[name.len()..];
        if behind.is_empty() {
            return Ok(self.value(name));
        }
        let (is_empty_unset, behind) = match behind.strip_prefix(':') {
            Some(behind) => (true, behind),
            None => (false, behind),
        };
        let mut value = (self.variable)(name);
        if is_empty_unset {
            value = value.filter(|value| !value.is_empty());
        }
        if let Some(default) = behind.strip_prefix('-') {
            if let Some(value) = value {
                return Ok(value);
            }
            self.notes.nested |= default.contains("${");
            self.text(default, depth + 1)
        } else if let Some(error) = behind.strip_prefix('?') {
            if let Some(value) = value {
                return Ok(value);
            }
            let error = self.text(error, depth + 1)?;
            Err(Invalid::Required(name.to_owned(), error))
        } else {
            Err(self.invalid())
        }
    }

    fn value(&mut self, name: &str) -> String {
        (self.variable)(name).unwrap_or_else(|| {
            self.notes.unset.push(name.to_owned());
            String::new()
        })
    }

    fn invalid(&self) -> Invalid {
        Invalid::Format(self.whole.to_owned())
    }
}

/// `[_a-zA-Z][_a-zA-Z0-9]*` at the beginning of a text.
fn name(text: &str) -> Option<&str> {
    let is_first = |c: char| c == '_' || c.is_ascii_alphabetic();
    if !text.starts_with(is_first) {
        return None;
    }
    let end = text.find(|c: char| c != '_' && !c.is_ascii_alphanumeric());
    Some(&text[..end.unwrap_or(text.len())])
}

/// Where the brace ends that is open where the text begins.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                depth += 1;
                at += 1;
            }
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str) -> Option<String> {
        match name {
            "SET" => Some("value".to_owned()),
            "EMPTY" => Some(String::new()),
            "DOLLAR" => Some("$SET".to_owned()),
            _ => None,
        }
    }

    fn done(text: &str) -> Result<String, String> {
        let mut notes = Notes::default();
        substitute(text, &variable, &mut notes, MAX_BYTES).map_err(|error| error.to_string())
    }

    #[test]
    fn values_take_the_place_of_variables() {
        for (text, is) in [
            ("$SET", "value"),
            ("a-$SET.b", "a-value.b"),
            ("${SET}s", "values"),
            ("$UNSET", ""),
            ("${UNSET:-d}", "d"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${UNSET-d}", "d"),
            ("${UNSET:-}", ""),
            ("${UNSET:-a:b/c d}", "a:b/c d"),
            ("${SET:?e}${SET?e}", "valuevalue"),
            ("${EMPTY?e}", ""),
            ("$$SET $${SET} $$$SET", "$SET ${SET} $value"),
            // What a value holds is not looked at again.
            ("$DOLLAR", "$SET"),
            ("${A:-${B:-c}}", "c"),
            ("${A:-${SET}-x}", "value-x"),
            ("${SET:-${B:?e}}", "value"),
            ("${A:-{}}", "{}"),
            ("{{.Node.ID}}", "{{.Node.ID}}"),
        ] {
            assert_eq!(done(text), Ok(is.to_owned()), "{text}");
        }
    }

    #[test]
    fn the_sentences_are_dockers() {
        for text in [
            "echo $5 ${}",
            "${X:+y}",
            "$",
            "a $ b",
            "${SET",
            "${1}",
            "${SET!}",
            "${ SET}",
        ] {
            let says = format!("{text:?}; you may need to escape any $ with another $");
            assert_eq!(done(text), Err(says), "{text}");
        }
        let says = "\"required variable B is missing a value: need b\"; you may need to escape \
                    any $ with another $";
        assert_eq!(done("${B:?need b}"), Err(says.to_owned()));
        assert_eq!(done("${A:-${B?need b}}"), Err(says.to_owned()));
        let deep = format!("{}x{}", "${A:-".repeat(100), "}".repeat(100));
        assert!(done(&deep).is_err_and(|error| error.contains("in each other")));
        let mut notes = Notes::default();
        let large = substitute("$SET$SET", &variable, &mut notes, 9);
        assert_eq!(large, Err(Invalid::Large));
    }

    #[test]
    fn what_is_unset_or_nested_is_noted() {
        let mut notes = Notes::default();
        let done = substitute("$A ${B} ${C:-${D:-e}}", &variable, &mut notes, MAX_BYTES);
        assert_eq!(done.as_deref(), Ok("  e"));
        assert_eq!(notes.unset, ["A", "B"]);
        assert!(notes.nested);
    }
}
