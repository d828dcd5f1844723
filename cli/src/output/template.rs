//! Go templates, as `--format` takes them.

use std::collections::HashMap;

use anyhow::anyhow;
use gtmpl::{Context, Func, FuncError, Template, Value};

use super::terminal;

/// Stand for a line end and a tab of a value while a template is rendered, so that they can be told
/// from those of the template. Noncharacters, which no text is meant to have.
const LINE_END: char = '\u{fdd0}';
const TAB: char = '\u{fdd1}';

/// A template that was read once and is rendered for each row.
pub(super) struct Format(Template);

impl Format {
    /// Reads a template; `\t` and `\n` may be written with two characters, as in a shell.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut template = Template::default();
        template.add_funcs(&[
            ("json", json as Func),
            ("lower", lower as Func),
            ("upper", upper as Func),
            ("title", title as Func),
            ("join", join as Func),
            ("split", split as Func),
            ("truncate", truncate as Func),
        ]);
        template
            .parse(text.replace("\\t", "\t").replace("\\n", "\n"))
            .map_err(|e| anyhow!("template parsing error: {e}"))?;
        Ok(Self(template))
    }

    /// Renders one object.
    pub(super) fn render(&self, object: &serde_json::Value) -> anyhow::Result<String> {
        self.0
            .render(&Context::from(to_template(object)))
            .map(|text| {
                terminal::lines(&text)
                    .replace(LINE_END, &terminal::value("\n"))
                    .replace(TAB, &terminal::value("\t"))
            })
            .map_err(|e| {
                let text = e.to_string();
                // The library prints the whole object; its fields are what helps.
                let what = text
                    .split_once(" for {")
                    .map_or(text.as_str(), |(what, _)| what);
                let fields: Vec<&str> = object
                    .as_object()
                    .map(|map| map.keys().map(String::as_str).collect())
                    .unwrap_or_default();
                anyhow!(
                    "template rendering error: {what}; there are: {}",
                    fields.join(", ")
                )
            })
    }
}

fn to_template(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(b) => Value::Bool(*b),
        serde_json::Value::String(s) => Value::String(
            s.replace('\n', LINE_END.encode_utf8(&mut [0; 4]))
                .replace('\t', TAB.encode_utf8(&mut [0; 4])),
        ),
        serde_json::Value::Number(n) => match (n.as_u64(), n.as_i64(), n.as_f64()) {
            (Some(n), _, _) => Value::from(n),
            (_, Some(n), _) => Value::from(n),
            (_, _, Some(n)) => Value::from(n),
            _ => Value::String(n.to_string()),
        },
        serde_json::Value::Array(items) => Value::Array(items.iter().map(to_template).collect()),
        serde_json::Value::Object(map) => Value::Object(
            map.iter()
                .map(|(k, v)| (k.clone(), to_template(v)))
                .collect::<HashMap<_, _>>(),
        ),
    }
}

fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::NoValue | Value::Nil | Value::Function(_) => serde_json::Value::Null,
        Value::Bool(b) => (*b).into(),
        Value::String(s) => s.replace(LINE_END, "\n").replace(TAB, "\t").into(),
        Value::Number(n) => match (n.as_u64(), n.as_i64(), n.as_f64()) {
            (Some(n), _, _) => n.into(),
            (_, Some(n), _) => n.into(),
            (_, _, Some(n)) => n.into(),
            _ => serde_json::Value::Null,
        },
        Value::Array(items) => items.iter().map(to_json).collect(),
        Value::Object(map) | Value::Map(map) => {
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort();
            keys.into_iter()
                .map(|k| (k.clone(), to_json(&map[k])))
                .collect::<serde_json::Map<_, _>>()
                .into()
        }
    }
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
    Ok(arg("lower", args, 0, 1)?.to_string().to_lowercase().into())
}

fn upper(args: &[Value]) -> Result<Value, FuncError> {
    Ok(arg("upper", args, 0, 1)?.to_string().to_uppercase().into())
}

fn title(args: &[Value]) -> Result<Value, FuncError> {
    let text = arg("title", args, 0, 1)?.to_string();
    let mut letters = text.chars();
    Ok(letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect::<String>())
        .unwrap_or_default()
        .into())
}

fn join(args: &[Value]) -> Result<Value, FuncError> {
    let Value::Array(items) = arg("join", args, 0, 2)? else {
        return Err(FuncError::Generic(
            "join: the first argument is no list".to_owned(),
        ));
    };
    let separator = arg("join", args, 1, 2)?.to_string();
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    Ok(items.join(&separator).into())
}

fn split(args: &[Value]) -> Result<Value, FuncError> {
    let text = arg("split", args, 0, 2)?.to_string();
    let separator = arg("split", args, 1, 2)?.to_string();
    Ok(Value::Array(
        text.split(&separator).map(Value::from).collect(),
    ))
}

fn truncate(args: &[Value]) -> Result<Value, FuncError> {
    let text = arg("truncate", args, 0, 2)?.to_string();
    let length: usize = arg("truncate", args, 1, 2)?
        .to_string()
        .parse()
        .map_err(|_| FuncError::Generic("truncate: the second argument is no number".to_owned()))?;
    Ok(text.chars().take(length).collect::<String>().into())
}
