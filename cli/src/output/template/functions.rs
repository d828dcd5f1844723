//! Functions of templates: docker's, and those of Go's `text/template` that the library lacks or
//! that print otherwise there.

use gtmpl::{Func, FuncError, Value};

use super::actions::SHOW;
use super::printing::{sprint, sprintf, text};
use super::{ranges, terminal, to_json};

/// Widest padding, in spaces.
const MAX_PADDING: usize = 4096;

/// Name and function.
pub(super) const ALL: [(&str, Func); 18] = [
    (SHOW, show as Func),
    (ranges::ANY, ranges::any as Func),
    (ranges::VALUES, ranges::values as Func),
    (ranges::PAIRS, ranges::pairs as Func),
    ("json", json as Func),
    ("lower", lower as Func),
    ("upper", upper as Func),
    ("title", title as Func),
    ("join", join as Func),
    ("split", split as Func),
    ("truncate", truncate as Func),
    ("slice", slice as Func),
    ("pad", pad as Func),
    ("html", html as Func),
    ("index", index as Func),
    ("print", print as Func),
    ("println", println as Func),
    ("printf", printf as Func),
];

/// What is between an action and the output.
fn show(args: &[Value]) -> Result<Value, FuncError> {
    Ok(text(arg(SHOW, args, 0, 1)?).into())
}

fn refuse(message: String) -> FuncError {
    FuncError::Generic(message)
}

fn number(name: &str, value: &Value) -> Result<usize, FuncError> {
    let parsed = value.to_string().parse();
    parsed.map_err(|_| {
        refuse(format!(
            "{name}: {} is no number of characters",
            text(value)
        ))
    })
}

fn print(args: &[Value]) -> Result<Value, FuncError> {
    Ok(sprint(args).into())
}

fn println(args: &[Value]) -> Result<Value, FuncError> {
    let texts: Vec<String> = args.iter().map(text).collect();
    Ok((texts.join(" ") + "\n").into())
}

fn printf(args: &[Value]) -> Result<Value, FuncError> {
    match args.split_first() {
        Some((Value::String(format), args)) => Ok(sprintf(format, args).into()),
        _ => Err(refuse("printf: the first argument is no format".to_owned())),
    }
}

/// An element of a list, or of a map, where one that is not there has no value.
fn index(args: &[Value]) -> Result<Value, FuncError> {
    let (first, keys) = args
        .split_first()
        .ok_or_else(|| FuncError::AtLeastXArgs("index".to_owned(), 1))?;
    let mut found = first.clone();
    for key in keys {
        found = match &found {
            Value::Object(map) | Value::Map(map) => {
                map.get(&text(key)).cloned().unwrap_or(Value::NoValue)
            }
            Value::Array(items) => {
                let at = number("index", key)?;
                let item = items.get(at).cloned();
                item.ok_or_else(|| refuse(format!("index out of range: {at}")))?
            }
            Value::Nil | Value::NoValue => {
                return Err(refuse("index: there is no value to look in".to_owned()));
            }
            other => return Err(refuse(format!("index: {} has no elements", text(other)))),
        };
    }
    Ok(found)
}

/// `slice x 1 2` is `x[1:2]`, of a text or a list.
fn slice(args: &[Value]) -> Result<Value, FuncError> {
    let (whole, bounds) = args
        .split_first()
        .filter(|(_, bounds)| bounds.len() <= 2)
        .ok_or_else(|| {
            refuse("slice: wanted is what to slice, and up to two numbers".to_owned())
        })?;
    let letters: Vec<char> = match whole {
        Value::String(text) => text.chars().collect(),
        _ => Vec::new(),
    };
    let length = match whole {
        Value::String(_) => letters.len(),
        Value::Array(items) => items.len(),
        other => return Err(refuse(format!("slice: {} cannot be sliced", text(other)))),
    };
    let bound = |at: usize, or: usize| match bounds.get(at) {
        Some(value) => number("slice", value),
        None => Ok(or),
    };
    let (from, to) = (bound(0, 0)?, bound(1, length)?);
    let outside = || {
        refuse(format!(
            "slice: {from}:{to} is out of range, length is {length}"
        ))
    };
    match whole {
        Value::Array(items) => {
            let part = items.get(from..to).ok_or_else(outside)?;
            Ok(Value::Array(part.to_vec()))
        }
        _ => {
            let part = letters.get(from..to).ok_or_else(outside)?;
            Ok(part.iter().collect::<String>().into())
        }
    }
}

/// So many spaces before and after a text; none around one that is empty.
fn pad(args: &[Value]) -> Result<Value, FuncError> {
    let inner = text(arg("pad", args, 0, 3)?);
    let before = number("pad", arg("pad", args, 1, 3)?)?.min(MAX_PADDING);
    let after = number("pad", arg("pad", args, 2, 3)?)?.min(MAX_PADDING);
    if inner.is_empty() {
        return Ok(inner.into());
    }
    Ok(format!("{}{inner}{}", " ".repeat(before), " ".repeat(after)).into())
}

/// Escapes what HTML has a meaning for.
fn html(args: &[Value]) -> Result<Value, FuncError> {
    let escaped = sprint(args)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&#39;")
        .replace('"', "&#34;")
        .replace('\0', "\u{fffd}");
    Ok(escaped.into())
}

fn arg<'a>(
    name: &str,
    args: &'a [Value],
    index: usize,
    count: usize,
) -> Result<&'a Value, FuncError> {
    if args.len() == count {
        args.get(index)
    } else {
        None
    }
    .ok_or_else(|| FuncError::ExactlyXArgs(name.to_owned(), count))
}

fn json(args: &[Value]) -> Result<Value, FuncError> {
    let text = to_json(arg("json", args, 0, 1)?).to_string();
    Ok(terminal::json(&text).into_owned().into())
}

fn lower(args: &[Value]) -> Result<Value, FuncError> {
    Ok(text(arg("lower", args, 0, 1)?).to_lowercase().into())
}

fn upper(args: &[Value]) -> Result<Value, FuncError> {
    Ok(text(arg("upper", args, 0, 1)?).to_uppercase().into())
}

fn title(args: &[Value]) -> Result<Value, FuncError> {
    let mut out = String::new();
    let mut inside = false;
    for letter in text(arg("title", args, 0, 1)?).chars() {
        if inside {
            out.push(letter);
        } else {
            out.extend(letter.to_uppercase());
        }
        inside = letter.is_alphanumeric() || matches!(letter, '_' | '\'');
    }
    Ok(out.into())
}

fn join(args: &[Value]) -> Result<Value, FuncError> {
    let Value::Array(items) = arg("join", args, 0, 2)? else {
        return Err(FuncError::Generic(
            "join: the first argument is no list".to_owned(),
        ));
    };
    let separator = text(arg("join", args, 1, 2)?);
    let items: Vec<String> = items.iter().map(text).collect();
    Ok(items.join(&separator).into())
}

fn split(args: &[Value]) -> Result<Value, FuncError> {
    let whole = text(arg("split", args, 0, 2)?);
    let separator = text(arg("split", args, 1, 2)?);
    Ok(Value::Array(
        whole.split(&separator).map(Value::from).collect(),
    ))
}

fn truncate(args: &[Value]) -> Result<Value, FuncError> {
    let whole = text(arg("truncate", args, 0, 2)?);
    let length = number("truncate", arg("truncate", args, 1, 2)?)?;
    Ok(whole.chars().take(length).collect::<String>().into())
}
