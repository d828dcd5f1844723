//! A stack as YAML, in docker's layout: plain blocks, keys in order, texts in quotes where they could be
//! read as something else. Of YAML only this much is written, so no library is.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::Stack;

/// The whole stack. Equal stacks come to equal texts.
///
/// # Panics
/// Never: all of a stack can be written.
#[must_use]
pub fn render(stack: &Stack) -> String {
    let mut text = format!("version: {}\n", quoted(&stack.version));
    if let Some(name) = &stack.name {
        line(&mut text, 0, "name", &Value::String(name.clone()));
    }
    let services = stack.services.iter();
    let services = services.map(|service| (service.name.as_str(), service));
    section(&mut text, "services", services);
    section(&mut text, "networks", by_name(&stack.networks));
    section(&mut text, "volumes", by_name(&stack.volumes));
    section(&mut text, "secrets", by_name(&stack.secrets));
    section(&mut text, "configs", by_name(&stack.configs));
    text
}

fn by_name<T>(objects: &std::collections::BTreeMap<String, T>) -> impl Iterator<Item = (&str, &T)> {
    objects.iter().map(|(name, object)| (name.as_str(), object))
}

fn section<'a, T: Serialize + 'a>(
    text: &mut String,
    name: &str,
    objects: impl Iterator<Item = (&'a str, &'a T)>,
) {
    let objects: Map<String, Value> = objects
        .map(|(name, object)| {
            let value = serde_json::to_value(object).expect("keys are texts, numbers are finite");
            (name.to_owned(), value)
        })
        .collect();
    if !objects.is_empty() {
        line(text, 0, name, &Value::Object(objects));
    }
}

/// A key with its value, and what is below.
fn line(text: &mut String, indent: usize, key: &str, value: &Value) {
    let blanks = " ".repeat(indent);
    let key = scalar(key);
    text.push_str(&blanks);
    text.push_str(&key);
    text.push(':');
    block(text, indent, value);
}

/// What stands behind a key and its colon.
fn block(text: &mut String, indent: usize, value: &Value) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            for (key, value) in map {
                line(text, indent + 2, key, value);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            for item in items {
                text.push_str(&" ".repeat(indent));
                text.push('-');
                entry(text, indent, item);
            }
        }
        value => {
            text.push(' ');
            text.push_str(&flat(value));
            text.push('\n');
        }
    }
}

/// What stands behind a dash.
fn entry(text: &mut String, indent: usize, value: &Value) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (index, (key, value)) in map.iter().enumerate() {
                if index == 0 {
                    text.push(' ');
                    text.push_str(&scalar(key));
                    text.push(':');
                    block(text, indent + 2, value);
                } else {
                    line(text, indent + 2, key, value);
                }
            }
        }
        Value::Array(items) if !items.is_empty() => {
            // Lists of lists are in no stack; flow style is right for them too.
            let items: Vec<String> = items.iter().map(flat).collect();
            text.push_str(&format!(" [{}]\n", items.join(", ")));
        }
        value => {
            text.push(' ');
            text.push_str(&flat(value));
            text.push('\n');
        }
    }
}

/// A value in one line.
fn flat(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => scalar(text),
        // JSON is YAML.
        Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// A text, without quotes where every reader of YAML 1.1 and 1.2 takes it for itself.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 10] = [
        "y", "n", "yes", "no", "true", "false", "on", "off", "null", "~",
    ];
    let inside = |c: char| c.is_ascii_alphanumeric() || " _-./:@=,+()$<>;*!?%^|\\&".contains(c);
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '/')
        && text.chars().all(inside)
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.ends_with([':', ' '])
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if is_plain {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// In double quotes, with escapes.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            // What a terminal would act on, what turns the direction of writing, and what other readers
            // take for the end of a line.
            c if c.is_control() || weft_model::text::is_unsafe(c) || c == '\u{feff}' => {
                // A String takes everything.
                let written = match u32::from(c) {
                    code @ 0..=0xff => write!(quoted, "\\x{code:02x}"),
                    code @ 0x100..=0xffff => write!(quoted, "\\u{code:04x}"),
                    code => write!(quoted, "\\U{code:08x}"),
                };
                written.expect("a String takes everything");
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_where_they_could_be_something_else() {
        for (text, is) in [
            ("nginx:1.27", "nginx:1.27"),
            ("/var/lib/data", "/var/lib/data"),
            ("node.labels.disk == ssd", "node.labels.disk == ssd"),
            ("5432", "\"5432\""),
            ("0.5", "\"0.5\""),
            ("", "\"\""),
            ("No", "\"No\""),
            ("null", "\"null\""),
            ("a: b", "\"a: b\""),
            ("a #b", "\"a #b\""),
            ("{{.Node.ID}}", "\"{{.Node.ID}}\""),
            ("*a", "\"*a\""),
            ("- a", "\"- a\""),
            ("say \"hi\"", "\"say \\\"hi\\\"\""),
            ("a\nb\\", "\"a\\nb\\\\\""),
            ("bell\u{7}", "\"bell\\x07\""),
            ("over\u{202e}", "\"over\\u202e\""),
            ("café", "\"café\""),
        ] {
            assert_eq!(scalar(text), is, "{text}");
        }
    }

    #[test]
    fn blocks_are_indented_as_docker_indents_them() {
        let value = serde_json::json!({
            "a": {"b": [{"c": 1, "d": ["x"]}, "y", {}], "e": null, "f": []},
        });
        let mut text = String::new();
        line(&mut text, 0, "top", &value);
        let is = "top:\n  a:\n    b:\n    - c: 1\n      d:\n      - x\n    - \"y\"\n    - {}\n    e: null\n    f: []\n";
        assert_eq!(text, is);
    }
}
