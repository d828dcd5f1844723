//! Go templates, as `--format` takes them.

mod actions;
mod functions;
mod printing;
mod ranges;

use std::collections::HashMap;

use anyhow::anyhow;
use gtmpl::{Context, Template, Value};

use super::terminal;

/// Stand for a line end and a tab of a value while a template is rendered, so that they can be told
/// from those of the template. Noncharacters, which no text is meant to have.
const LINE_END: char = '\u{fdd0}';
const TAB: char = '\u{fdd1}';

/// A template that was read once and is rendered for each row.
pub(super) struct Format(Template);

impl Format {
    /// Reads a template; `\t` and `\n` may be written with two characters, as in a shell. What it
    /// prints is Go's `fmt`, a list `[a b]` and a map `map[a:1 b:2]`.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut template = Template::default();
        template.add_funcs(&functions::ALL);
        template
            .parse(actions::prepare(text))
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

/// Maps of which a key that is not there is no mistake: keys of the user, and the one mode of those
/// that a service may have.
const LOOSE_MAPS: [&str; 4] = ["Attributes", "Labels", "Options", "Mode"];

/// A text of a value with its line ends and tabs.
fn restored(text: &str) -> String {
    text.replace(LINE_END, "\n").replace(TAB, "\t")
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
                .map(|(k, v)| {
                    let value = match to_template(v) {
                        Value::Object(map) if LOOSE_MAPS.contains(&k.as_str()) => Value::Map(map),
                        other => other,
                    };
                    (k.clone(), value)
                })
                .collect::<HashMap<_, _>>(),
        ),
    }
}

fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::NoValue | Value::Nil | Value::Function(_) => serde_json::Value::Null,
        Value::Bool(b) => (*b).into(),
        Value::String(s) => restored(s).into(),
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(template: &str) -> String {
        let object = json!({
            "ID": "abcdef", "Name": "a<b", "Count": 2, "None": null, "Ports": [80, 443],
            "Empty": [], "Zeros": [0, ""], "Many": {
                "h": 8, "b": 2, "f": 6, "d": 4, "a": 1, "c": 3, "g": 7, "e": 5,
            },
            "Spec": {
                "Labels": {"com.example.x": "1", "b": "2"},
                "Mode": {"Replicated": {"Replicas": 2}},
            },
        });
        match Format::parse(template).and_then(|format| format.render(&object)) {
            Ok(text) => text,
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn templates_are_gos() {
        for (template, expected) in [
            ("{{slice .ID 0 4}}", "abcd"),
            ("{{slice .ID 4}}", "ef"),
            ("{{pad .Name 1 2}}|", " a<b  |"),
            ("{{html .Name}}", "a&lt;b"),
            (r#"{{.Name | upper | printf "%q"}}"#, "\"A<B\""),
            (r#"{{printf "%-8s%03d" .ID .Count}}"#, "abcdef  002"),
            ("{{.Spec.Labels}}", "map[b:2 com.example.x:1]"),
            ("{{.Spec.Mode}}", "map[Replicated:map[Replicas:2]]"),
            ("{{.Ports}}", "[80 443]"),
            ("{{.Spec.Labels.b}}", "2"),
            ("{{.Spec.Labels.nope}}", "<no value>"),
            (r#"{{index .Spec.Labels "com.example.x"}}"#, "1"),
            (r#"{{index .Spec.Labels "nope"}}"#, "<no value>"),
            ("{{index .Ports 1}}", "443"),
            ("{{.None}}", "<no value>"),
            (r#"{{.ID}}{{"\n"}}{{.Count}}"#, "abcdef\n2"),
            (r#"{{range .Ports}}{{.}}{{"\t"}}{{end}}"#, "80\t443\t"),
            (
                "{{range $i, $p := .Ports}}{{$i}}={{$p}} {{end}}",
                "0=80 1=443 ",
            ),
            ("{{with .Spec}}{{.Mode.Replicated.Replicas}}{{end}}", "2"),
            ("{{if eq .Count 2}}two{{end}}", "two"),
            ("{{$x := .ID}}{{$x}}", "abcdef"),
            ("{{len .Ports}}{{print .Count .Count}}", "22 2"),
            ("{{title \"two words\"}}", "Two Words"),
            ("{{json .Spec.Labels}}", r#"{"b":"2","com.example.x":"1"}"#),
        ] {
            assert_eq!(rendered(template), expected, "{template}");
        }
    }

    #[test]
    fn ranges_are_gos() {
        for (template, expected) in [
            ("{{range .Many}}{{.}}{{end}}", "12345678"),
            ("{{range $n := .Many}}{{$n}}{{end}}", "12345678"),
            (
                "{{range $k, $n := .Many}}{{$k}}{{$n}}{{end}}",
                "a1b2c3d4e5f6g7h8",
            ),
            ("{{range $i, $z := .Zeros}}{{$i}}={{.}} {{end}}", "0=0 1= "),
            ("{{range .Ports}}{{.}} {{else}}none{{end}}", "80 443 "),
            (
                "{{range .Empty}}x{{else}}none of {{.ID}}{{end}}",
                "none of abcdef",
            ),
            ("{{range $i, $p := .Empty}}x{{else}}none{{end}}", "none"),
            (
                "{{range .Ports -}} {{.}} {{- else -}} none {{- end -}} .",
                "80443.",
            ),
            (
                "{{range .Ports}}{{if eq . 80}}http{{else}}other{{end}} {{else}}none{{end}}",
                "http other ",
            ),
            (
                "{{range $i, $p := .Ports}}{{range $k, $l := $.Spec.Labels}}{{$i}}{{$p}}{{$k}}{{.}} {{end}}{{end}}",
                "080b2 080com.example.x1 1443b2 1443com.example.x1 ",
            ),
            (
                r#"{{range $k, $v := index .Spec "Labels"}}{{$k}} {{end}}"#,
                "b com.example.x ",
            ),
        ] {
            assert_eq!(rendered(template), expected, "{template}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (template, says) in [
            ("{{.Nope}}", "there are: Count"),
            ("{{slice .ID 0 9}}", "out of range"),
            ("{{slice .ID 3 1}}", "out of range"),
            ("{{pad .ID 1}}", "pad"),
            ("{{.ID", "template parsing error"),
            ("{{range .Count}}{{end}}", "range can't iterate over 2"),
            ("{{range}}{{end}}", "template parsing error"),
            ("{{range .Ports}}", "template parsing error"),
        ] {
            let text = rendered(template);
            assert!(text.contains(says), "{template}: {text}");
        }
    }
}
