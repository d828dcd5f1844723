//! Rows of `ls`, `ps` and the like, in every form that `--format` asks for.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::filters::Filters;
use super::template::Format;
use super::terminal::{json as json_text, value};
use super::wrap::columns;
use crate::args::FormatArgs;

/// Rows with named fields and the table that people see when they ask for nothing else.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Field and its heading.
    headings: &'static [(&'static str, &'static str)],
    /// Go template of a table row, cells separated by tabs.
    table: &'static str,
    /// Field that `-q` prints.
    quiet: &'static str,
    rows: Vec<Value>,
}

impl Listing {
    /// An empty listing.
    #[must_use]
    pub fn new(
        headings: &'static [(&'static str, &'static str)],
        table: &'static str,
        quiet: &'static str,
    ) -> Self {
        Self {
            headings,
            table,
            quiet,
            rows: Vec::new(),
        }
    }

    /// Adds a row: a JSON object.
    pub fn push(&mut self, row: Value) {
        self.rows.push(row);
    }

    /// Keeps rows that filters let through.
    pub(crate) fn keep(&mut self, filters: &Filters<'_>) {
        self.rows.retain(|row| filters.let_through(row));
    }

    /// Renders it, with a line feed after each line.
    ///
    /// # Errors
    /// The template cannot be read, or names a field that does not exist.
    pub fn render(&self, args: &FormatArgs) -> anyhow::Result<String> {
        self.render_in(args, None)
    }

    /// The same, with tables in so many columns of a screen where words allow.
    ///
    /// # Errors
    /// As [`Listing::render`].
    pub(crate) fn render_in(
        &self,
        args: &FormatArgs,
        width: Option<usize>,
    ) -> anyhow::Result<String> {
        let mut out = String::new();
        match args.format.as_deref() {
            _ if args.quiet && args.format.is_none() => {
                for row in &self.rows {
                    out.push_str(&value(row[self.quiet].as_str().unwrap_or_default()));
                    out.push('\n');
                }
            }
            None | Some("" | "table") => out = self.render_table(self.table, width)?,
            Some("json") => {
                for row in &self.rows {
                    out.push_str(&json_text(&row.to_string()));
                    out.push('\n');
                }
            }
            Some(template) => match template.strip_prefix("table ") {
                Some(cells) => out = self.render_table(cells, width)?,
                None => {
                    let format = Format::parse(template)?;
                    for row in &self.rows {
                        out.push_str(&format.render(row)?);
                        out.push('\n');
                    }
                }
            },
        }
        Ok(out)
    }

    fn render_table(&self, cells: &str, width: Option<usize>) -> anyhow::Result<String> {
        let format = Format::parse(cells)?;
        // A field without a heading of its own is headed by its name.
        let mut headings: Map<String, Value> = self
            .rows
            .iter()
            .filter_map(Value::as_object)
            .flat_map(Map::keys)
            .map(|field| (field.clone(), json!(field.to_uppercase())))
            .collect();
        for (field, heading) in self.headings {
            headings.insert((*field).to_owned(), json!(heading));
        }
        let mut rows = vec![format.render(&Value::Object(headings))?];
        for row in &self.rows {
            rows.push(format.render(row)?);
        }
        Ok(columns(rows.iter().map(String::as_str), width))
    }
}

/// Renders what `inspect` found: a JSON array like docker's, a table of fields, a template for
/// each object, or only ids.
///
/// # Errors
/// The template cannot be read, or names a field that does not exist.
pub(crate) fn render_inspect(objects: &[Value], args: &FormatArgs) -> anyhow::Result<String> {
    let mut out = String::new();
    match args.format.as_deref() {
        None if args.quiet => {
            for object in objects {
                let object = with_id(object);
                out.push_str(&value(object["ID"].as_str().unwrap_or_default()));
                out.push('\n');
            }
        }
        None | Some("" | "json") => {
            let mut bytes = Vec::new();
            let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, indent);
            serde::Serialize::serialize(objects, &mut serializer)?;
            out = json_text(&String::from_utf8(bytes)?).into_owned();
            out.push('\n');
        }
        Some("table") => {
            let mut lines = vec!["FIELD\tVALUE".to_owned()];
            for object in objects {
                flatten("", object, &mut lines);
            }
            out = columns(lines.iter().map(String::as_str), None);
        }
        Some(template) => {
            let format = Format::parse(template)?;
            for object in objects {
                out.push_str(&format.render(&with_id(object))?);
                out.push('\n');
            }
        }
    }
    Ok(out)
}

/// Docker writes the id of a network as `Id`, and templates may name it either way.
fn with_id(object: &Value) -> Cow<'_, Value> {
    match object.get("Id") {
        Some(id) if object.get("ID").is_none() => {
            let mut object = object.clone();
            object["ID"] = id.clone();
            Cow::Owned(object)
        }
        _ => Cow::Borrowed(object),
    }
}

fn flatten(path: &str, found: &Value, lines: &mut Vec<String>) {
    let below = |key: &str| match path {
        "" => value(key).into_owned(),
        path => format!("{path}.{}", value(key)),
    };
    match found {
        Value::Object(map) => map.iter().for_each(|(k, v)| flatten(&below(k), v, lines)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(i, v)| flatten(&below(&i.to_string()), v, lines)),
        Value::String(text) => lines.push(format!("{path}\t{}", value(text))),
        Value::Null => {}
        other => lines.push(format!("{path}\t{other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::filters::{Key, Match};
    use super::*;
    use crate::args::FilterArgs;

    fn sample() -> Listing {
        let mut listing = Listing::new(
            &[
                ("ID", "ID"),
                ("Self", ""),
                ("Name", "HOSTNAME"),
                ("State", "STATUS"),
            ],
            "{{.ID}} {{if .Self}}*{{else}} {{end}}\t{{.Name}}\t{{.State}}",
            "ID",
        );
        listing.push(json!({"ID": "aaa", "Self": true, "Name": "node1", "State": "Ready"}));
        listing.push(json!({"ID": "bbb", "Self": false, "Name": "a-longer-name", "State": ""}));
        listing
    }

    fn render(format: Option<&str>, quiet: bool) -> anyhow::Result<String> {
        sample().render(&FormatArgs {
            format: format.map(str::to_owned),
            quiet,
        })
    }

    #[test]
    fn the_table_is_dockers() {
        let expected = "\
ID      HOSTNAME        STATUS
aaa *   node1           Ready
bbb     a-longer-name
";
        assert_eq!(render(None, false).unwrap(), expected);
        assert_eq!(render(Some("table"), false).unwrap(), expected);
    }

    #[test]
    fn filters_keep_rows() {
        let keys: &'static [Key] = &[("name", &[("Name", Match::Part)])];
        let args = FilterArgs {
            filters: vec![("name".to_owned(), "longer".to_owned())],
        };
        let mut listing = sample();
        listing.keep(&Filters::of(&args, keys).unwrap());
        let quiet = FormatArgs {
            quiet: true,
            ..FormatArgs::default()
        };
        assert_eq!(listing.render(&quiet).unwrap(), "bbb\n");
    }

    #[test]
    fn every_other_form() {
        assert_eq!(render(None, true).unwrap(), "aaa\nbbb\n");
        assert_eq!(
            render(Some("{{.Name}}={{upper .State}}"), false).unwrap(),
            "node1=READY\na-longer-name=\n"
        );
        assert_eq!(
            render(Some("table {{.Name}}\\t{{.ID}}"), false).unwrap(),
            "HOSTNAME        ID\nnode1           aaa\na-longer-name   bbb\n"
        );
        let lines = render(Some("json"), false).unwrap();
        let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        assert_eq!(first["Name"], "node1");
        assert_eq!(lines.lines().count(), 2);
        assert_eq!(
            render(Some("{{json .}}"), false).unwrap().lines().next(),
            Some(r#"{"ID":"aaa","Name":"node1","Self":true,"State":"Ready"}"#)
        );
    }

    #[test]
    fn words_of_others_do_not_steer_the_terminal() {
        let hostile = "a\u{1b}]0;x\u{7}\nbbb\tc\u{9b}1m\u{202e}";
        let mut listing = sample();
        listing.push(json!({"ID": hostile, "Self": false, "Name": hostile, "State": "Ready"}));
        let inspected = [json!({"ID": hostile, hostile: [hostile]})];
        let steers = |text: &str| text.contains(|c| c != '\n' && weft_model::text::is_unsafe(c));
        for format in [
            None,
            Some("table"),
            Some("json"),
            Some("{{.Name}}"),
            Some("{{json .}}"),
        ] {
            for quiet in [false, true] {
                let args = FormatArgs {
                    format: format.map(str::to_owned),
                    quiet,
                };
                let text = listing.render(&args).unwrap();
                assert!(!steers(&text), "{text:?}");
                let lines = text.lines().count();
                let heading = usize::from(!quiet && format.is_none() || format == Some("table"));
                assert_eq!(lines, 3 + heading, "a row is one line: {text}");
                let args = FormatArgs {
                    format: format.map(|f| f.replace(".Name", ".ID")),
                    quiet,
                };
                let text = render_inspect(&inspected, &args).unwrap();
                assert!(!steers(&text), "{text:?}");
            }
        }
        // Programs get what was said.
        for format in ["json", "{{json .}}"] {
            let args = FormatArgs {
                format: Some(format.to_owned()),
                quiet: false,
            };
            let text = listing.render(&args).unwrap();
            let row: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
            assert_eq!(row["Name"], hostile);
        }
    }

    #[test]
    fn a_bad_template_is_an_error() {
        let unread = render(Some("{{.Name"), false).unwrap_err().to_string();
        assert!(unread.starts_with("template parsing error: "), "{unread}");
        let unknown = render(Some("{{nosuch .Name}}"), false)
            .unwrap_err()
            .to_string();
        assert!(unknown.starts_with("template "), "{unknown}");
    }

    #[test]
    fn inspect_prints_an_array_with_four_spaces() {
        let objects = [json!({"ID": "abc", "Spec": {"Name": "web"}, "Ports": [80]})];
        let all = render_inspect(&objects, &FormatArgs::default()).unwrap();
        assert_eq!(
            all,
            "[\n    {\n        \"ID\": \"abc\",\n        \"Ports\": [\n            80\n        ],\n        \"Spec\": {\n            \"Name\": \"web\"\n        }\n    }\n]\n"
        );
        let table = FormatArgs {
            format: Some("table".into()),
            quiet: false,
        };
        assert_eq!(
            render_inspect(&objects, &table).unwrap(),
            "FIELD       VALUE\nID          abc\nPorts.0     80\nSpec.Name   web\n"
        );
        let one = FormatArgs {
            format: Some("{{.Spec.Name}}".into()),
            quiet: false,
        };
        assert_eq!(render_inspect(&objects, &one).unwrap(), "web\n");
        assert_eq!(render_inspect(&[], &FormatArgs::default()).unwrap(), "[]\n");
    }
}
