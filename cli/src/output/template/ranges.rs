//! `range` as Go has it: maps by their sorted keys, and `else` for what is empty.
//!
//! The library goes through maps in the order of their hashes, and through `else` in any case; its
//! tree of a template is its own. So each range is written anew before it is read: over lists alone,
//! and inside an `if` that has the `else`.

use std::collections::HashMap;

use gtmpl::{FuncError, Value};

use super::printing::text;

/// Names under which the library knows the functions below.
pub(super) const ANY: &str = "_any";
pub(super) const VALUES: &str = "_values";
pub(super) const PAIRS: &str = "_pairs";

/// What is open at a place of a template, the innermost last.
#[derive(Debug, Default)]
pub(super) struct Open(Vec<Block>);

#[derive(Debug, Clone, Copy)]
enum Block {
    /// It ends as it stands there.
    Plain,
    /// An `if`, and so many ranges of the library in it.
    Range(usize),
}

impl Open {
    /// The actions in place of one that begins, divides or ends a range; nothing where it stays.
    pub(super) fn replaced(&mut self, action: &str) -> Option<Vec<String>> {
        let action = action.trim();
        let end = action.find(|c: char| !c.is_alphanumeric() && c != '_');
        let (word, rest) = action.split_at(end.unwrap_or(action.len()));
        match word {
            "range" => {
                let begun = range(rest);
                let block = match &begun {
                    Some((ranges, _)) => Block::Range(*ranges),
                    None => Block::Plain,
                };
                self.0.push(block);
                begun.map(|(_, actions)| actions)
            }
            "if" | "with" | "define" | "block" => {
                self.0.push(Block::Plain);
                None
            }
            "else" if rest.is_empty() => {
                let block = self.0.last_mut()?;
                let Block::Range(ranges) = *block else {
                    return None;
                };
                *block = Block::Plain;
                let mut actions = vec!["end".to_owned(); ranges];
                actions.push("else".to_owned());
                Some(actions)
            }
            "end" => match self.0.pop()? {
                Block::Plain => None,
                Block::Range(ranges) => Some(vec!["end".to_owned(); ranges + 1]),
            },
            _ => None,
        }
    }
}

/// How many ranges of the library stand for one, and the actions that begin them; nothing for one
/// that the library is to refuse.
fn range(rest: &str) -> Option<(usize, Vec<String>)> {
    let (names, list): (Vec<&str>, &str) = match rest.split_once(":=") {
        Some((names, list)) if are_names(names) => {
            (names.split(',').map(str::trim).collect(), list.trim())
        }
        _ => (Vec::new(), rest.trim()),
    };
    if list.is_empty() {
        return None;
    }
    let some = format!("if {ANY} ({list})");
    match *names {
        [] => Some((1, vec![some, format!("range {VALUES} ({list})")])),
        [value] => Some((1, vec![some, format!("range {value} := {VALUES} ({list})")])),
        [key, value] => {
            let each = format!("range {PAIRS} ({list})");
            let key = format!("{key} := .Key");
            // Of one element: what is inside of a range has it for its dot.
            let value = format!("range {value} := .Value");
            Some((2, vec![some, each, key, value]))
        }
        _ => None,
    }
}

fn are_names(text: &str) -> bool {
    let in_names = |c: char| c.is_alphanumeric() || c.is_whitespace() || "$_,".contains(c);
    text.trim_start().starts_with('$') && text.chars().all(in_names)
}

/// What a range goes through, in its order.
fn elements(args: &[Value]) -> Result<Vec<(Value, Value)>, FuncError> {
    match args {
        [Value::Array(items)] => {
            let items = items.iter().cloned().enumerate();
            Ok(items.map(|(at, item)| (Value::from(at), item)).collect())
        }
        [Value::Object(map) | Value::Map(map)] => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            let pair = |key: &String| (Value::from(key.clone()), map[key].clone());
            Ok(keys.into_iter().map(pair).collect())
        }
        [other] => Err(FuncError::Generic(format!(
            "range can't iterate over {}",
            text(other)
        ))),
        _ => Err(FuncError::ExactlyXArgs("range".to_owned(), 1)),
    }
}

/// Whether there is anything to go through.
pub(super) fn any(args: &[Value]) -> Result<Value, FuncError> {
    Ok(Value::Bool(!elements(args)?.is_empty()))
}

/// The values of a list or a map.
pub(super) fn values(args: &[Value]) -> Result<Value, FuncError> {
    let values = elements(args)?.into_iter().map(|(_, value)| value);
    Ok(Value::Array(values.collect()))
}

/// The indices of a list or the keys of a map, each with a list of its one value.
pub(super) fn pairs(args: &[Value]) -> Result<Value, FuncError> {
    let pair = |(key, value)| {
        let value = Value::Array(vec![value]);
        let pair = [("Key".to_owned(), key), ("Value".to_owned(), value)];
        Value::Object(HashMap::from(pair))
    };
    Ok(Value::Array(
        elements(args)?.into_iter().map(pair).collect(),
    ))
}
