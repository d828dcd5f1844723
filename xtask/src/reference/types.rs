//! Types that go over the wire, as their source tells them. No parser: files are formatted, and the
//! compiler has seen them.

use std::collections::BTreeMap;

/// A public type.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Type {
    pub(super) doc: String,
    pub(super) attributes: String,
    pub(super) kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Struct(Vec<Field>),
    Enum(Vec<Variant>),
    /// What it looks like is up to its doc.
    Other,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) attributes: String,
    /// As in the source.
    pub(super) of: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) attributes: String,
    /// Of one with braces; there may be nothing between them.
    pub(super) fields: Option<Vec<Field>>,
    /// What stands in the parentheses of one that has them.
    pub(super) holds: Option<String>,
}

/// The types of a file, by name; what only tests compile is left out. Those that are not public say
/// how others are written.
pub(super) fn read(source: &str) -> BTreeMap<String, Type> {
    let mut lines = source.lines().take_while(|line| *line != "mod tests {");
    let mut found = BTreeMap::new();
    let mut head = Head::default();
    while let Some(line) = lines.next() {
        if head.takes(line, &mut lines) {
            continue;
        }
        let Head { doc, attributes } = std::mem::take(&mut head);
        let line = line.strip_prefix("pub ").unwrap_or(line);
        let is_enum = line.starts_with("enum ");
        let Some(rest) = line
            .strip_prefix("struct ")
            .or_else(|| line.strip_prefix("enum "))
        else {
            continue;
        };
        let kind = if rest.ends_with('{') {
            let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "}").collect();
            if is_enum {
                Kind::Enum(variants(&body))
            } else {
                Kind::Struct(fields(&body))
            }
        } else {
            Kind::Other
        };
        let name = rest.split(|c: char| !c.is_alphanumeric()).next();
        let name = name.unwrap_or_default().to_owned();
        found.insert(
            name,
            Type {
                doc,
                attributes,
                kind,
            },
        );
    }
    found
}

/// Docs and attributes above an item.
#[derive(Debug, Default)]
struct Head {
    doc: String,
    attributes: String,
}

impl Head {
    /// Takes a line of docs, or an attribute with all its lines; true when it was one.
    fn takes<'a>(&mut self, line: &'a str, more: &mut impl Iterator<Item = &'a str>) -> bool {
        let line = line.trim_start();
        if let Some(words) = line.strip_prefix("///") {
            if !self.doc.is_empty() {
                self.doc.push(' ');
            }
            self.doc.push_str(words.trim());
            return true;
        }
        if !line.starts_with("#[") {
            // A note between the two belongs to neither.
            return line.starts_with("//");
        }
        let mut attribute = line.to_owned();
        while attribute.matches('[').count() > attribute.matches(']').count() {
            let Some(line) = more.next() else { break };
            attribute.push_str(line.trim());
        }
        self.attributes.push_str(&attribute);
        true
    }
}

/// The public fields between the braces.
fn fields(body: &[&str]) -> Vec<Field> {
    let mut lines = body.iter().copied();
    let mut found = Vec::new();
    let mut head = Head::default();
    while let Some(line) = lines.next() {
        if head.takes(line, &mut lines) {
            continue;
        }
        let Head { doc, attributes } = std::mem::take(&mut head);
        let line = line.trim().trim_end_matches(',');
        // Those of a variant are public without saying so.
        let line = line.strip_prefix("pub ").unwrap_or(line);
        if let Some((name, of)) = line.split_once(": ")
            && name.chars().all(|c| c.is_alphanumeric() || c == '_')
        {
            found.push(Field {
                name: name.to_owned(),
                doc,
                attributes,
                of: of.to_owned(),
            });
        }
    }
    found
}

fn variants(body: &[&str]) -> Vec<Variant> {
    let mut lines = body.iter().copied();
    let mut found = Vec::new();
    let mut head = Head::default();
    while let Some(line) = lines.next() {
        if head.takes(line, &mut lines) {
            continue;
        }
        let Head { doc, attributes } = std::mem::take(&mut head);
        let line = line.trim();
        let end = line.find(|c: char| !c.is_alphanumeric());
        let (name, rest) = line.split_at(end.unwrap_or(line.len()));
        if name.is_empty() {
            continue;
        }
        let rest = rest.trim().trim_end_matches(',');
        let inner: Option<Vec<&str>> = match rest {
            "{" => Some(
                lines
                    .by_ref()
                    .take_while(|line| line.trim() != "},")
                    .collect(),
            ),
            "{}" => Some(Vec::new()),
            _ => None,
        };
        let holds = rest.strip_prefix('(').and_then(|r| r.strip_suffix(')'));
        found.push(Variant {
            name: name.to_owned(),
            doc,
            attributes,
            fields: inner.map(|inner| fields(&inner)),
            holds: holds.map(str::to_owned),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
//! A file.

use std::net::IpAddr;

/// Not public.
struct Hidden;

/// A node,
/// with a name.
#[derive(
    Debug, Clone,
)]
#[serde(default)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Maybe.
    #[serde(default, skip_serializing_if = \"Option::is_none\")]
    pub addr: Option<IpAddr>,
}

impl Node {
    /// Not a field.
    pub fn of(name: String) -> Self {
        todo()
    }
}

/// A mode.
#[serde(rename_all = \"lowercase\")]
pub enum Mode {
    /// So many.
    Replicated {
        /// Wanted.
        replicas: u32,
    },
    /// Everywhere.
    #[default]
    Global = 7,
    /// One of another kind.
    Other(String),
}

/// Six bytes.
pub struct Mac(pub [u8; 6]);

#[serde(deny_unknown_fields)]
enum ModeObject {
    #[serde(rename_all = \"PascalCase\")]
    Replicated {
        #[serde(default)]
        replicas: u32,
    },
    Global {},
}

#[cfg(test)]
mod tests {
    /// Not this.
    pub struct Test;
}
";

    fn field(name: &str, doc: &str, attributes: &str, of: &str) -> Field {
        Field {
            name: name.to_owned(),
            doc: doc.to_owned(),
            attributes: attributes.to_owned(),
            of: of.to_owned(),
        }
    }

    #[test]
    fn types_are_read_with_their_docs() {
        let found = read(SOURCE);
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["Hidden", "Mac", "Mode", "ModeObject", "Node"]);
        let node = &found["Node"];
        assert_eq!(node.doc, "A node, with a name.");
        assert!(node.attributes.ends_with(")]#[serde(default)]"));
        let optional = "#[serde(default, skip_serializing_if = \"Option::is_none\")]";
        assert_eq!(
            node.kind,
            Kind::Struct(vec![
                field("name", "Its name.", "", "String"),
                field("addr", "Maybe.", optional, "Option<IpAddr>"),
            ])
        );
        assert_eq!(found["Mac"].kind, Kind::Other);
    }

    #[test]
    fn variants_are_read_with_what_they_hold() {
        let found = read(SOURCE);
        let Kind::Enum(variants) = &found["Mode"].kind else {
            panic!("an enum");
        };
        let names: Vec<&str> = variants.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(names, ["Replicated", "Global", "Other"]);
        let replicas = vec![field("replicas", "Wanted.", "", "u32")];
        assert_eq!(variants[0].fields, Some(replicas));
        assert_eq!(variants[1].doc, "Everywhere.");
        assert_eq!(variants[1].fields, None);
        assert_eq!(variants[2].holds.as_deref(), Some("String"));
        let Kind::Enum(variants) = &found["ModeObject"].kind else {
            panic!("an enum");
        };
        assert!(variants[0].attributes.contains("PascalCase"));
        let replicas = vec![field("replicas", "", "#[serde(default)]", "u32")];
        assert_eq!(variants[0].fields, Some(replicas));
        assert_eq!(variants[1].fields, Some(Vec::new()));
    }
}
