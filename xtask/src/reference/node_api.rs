//! The node API: the table of its calls from the head of `model/src/api.rs`, and every type that a
//! call takes or gives, down to the last field.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, ensure};

use super::types::{self, Field, Kind, Type, Variant};
use super::{cell, read};
use crate::report::Report;
use crate::sources;

const TABLE: &str = "model/src/api.rs";
const ROUTES: &str = "agent/src/api/routes.rs";
const MODEL: &str = "model/src";

/// Types that are written as what they hold.
const HOLDERS: &[&str] = &["Option<", "Arc<", "Box<"];
const METHODS: &[&str] = &["get", "post", "put", "patch", "delete"];

type Types = BTreeMap<String, Type>;
/// Names of the types that stand on the page.
type Known = BTreeSet<String>;

pub(super) fn write(root: &Path) -> anyhow::Result<String> {
    let mut types = Types::new();
    for file in sources::files(&root.join(MODEL), &["rs"])? {
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        for (name, found) in types::read(&text) {
            types.entry(name).or_insert(found);
        }
    }
    page(&read(root, TABLE)?, &types)
}

/// Compares the table of calls with what the agent serves.
pub(super) fn check_routes(root: &Path, report: &mut Report) -> anyhow::Result<()> {
    let told = told(&read(root, TABLE)?);
    let served = served(&read(root, ROUTES)?);
    for call in served.difference(&told) {
        report.fail(format!("{TABLE}: the table of calls does not have {call}"));
    }
    for call in told.difference(&served) {
        report.fail(format!(
            "{TABLE}: the table of calls has {call}, which {ROUTES} does not serve"
        ));
    }
    report.checked(format!("node API: {} calls", served.len()));
    Ok(())
}

/// What the head of a file says: paragraphs, each in one line, and rows of tables.
fn head(source: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut goes_on = false;
    let lines = source.lines();
    for line in lines.map_while(|line| line.strip_prefix("//!")) {
        let line = line.trim();
        let is_row = line.starts_with('|');
        match found.last_mut() {
            Some(last) if goes_on && !is_row && !line.is_empty() => {
                last.push(' ');
                last.push_str(line);
            }
            _ if line.is_empty() => {}
            _ => found.push(line.to_owned()),
        }
        goes_on = !line.is_empty() && !is_row;
    }
    found
}

/// Method and path of each call in the table, such as `GET /v1/info`.
fn told(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for row in head(source).iter().filter(|line| line.starts_with('|')) {
        let Some((methods, path)) = call_of(row) else {
            continue;
        };
        let path = path.split('?').next().unwrap_or_default();
        for method in methods.split(',') {
            found.insert(format!("{} {path}", method.trim()));
        }
    }
    found
}

/// Methods and path in the first cell of a row.
fn call_of(row: &str) -> Option<(&str, &str)> {
    let first = row.split('|').nth(1)?.trim();
    let at = first.find('/')?;
    let (methods, path) = first.split_at(at);
    let methods = methods.trim();
    let is_method = |word: &str| METHODS.contains(&word.trim().to_lowercase().as_str());
    methods.split(',').all(is_method).then_some((methods, path))
}

/// The same of what the agent serves.
fn served(routes: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for route in routes.split(".route(").skip(1) {
        let mut parts = route.splitn(3, '"').skip(1);
        let (Some(path), Some(handlers)) = (parts.next(), parts.next()) else {
            continue;
        };
        let handlers = handlers.split(".fallback(").next().unwrap_or_default();
        for method in METHODS {
            let call = format!("{method}(");
            let mut calls = handlers.match_indices(call.as_str());
            if calls.any(|(at, _)| !handlers.split_at(at).0.ends_with(in_word)) {
                found.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    found
}

fn in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The table, and the types that it leads to.
fn page(source: &str, types: &Types) -> anyhow::Result<String> {
    let head = head(source);
    ensure!(
        head.iter().any(|line| call_of(line).is_some()),
        "{TABLE} has no table of calls"
    );
    let asked = head.iter().flat_map(|line| words(line));
    let asked = asked.filter(|word| types.contains_key(*word));
    let known = reached(asked.map(str::to_owned).collect(), types);

    let mut out = String::new();
    let mut in_table = false;
    for line in &head {
        let is_row = line.starts_with('|');
        if !(is_row && in_table) {
            out.push('\n');
        }
        in_table = is_row;
        let line = if is_row {
            row_linked(&with_code(line), &known)
        } else {
            linked(line, &known)
        };
        writeln!(out, "{line}")?;
    }
    out.push_str(
        "\n## Types\n\nA field that is *optional* may be left out of what is sent, and may be \
         missing or `null` in an answer.\n",
    );
    for name in &known {
        let found = types.get(name).context("a type that was there")?;
        writeln!(out, "\n### {name}\n\n{}", linked(&found.doc, &known))?;
        match &found.kind {
            Kind::Struct(fields) if !fields.is_empty() => {
                out.push_str("\n| field | type | what it is |\n|---|---|---|\n");
                for (field, above) in with_flat(found, types) {
                    row(&mut out, field, above, &known)?;
                }
            }
            Kind::Enum(variants) => {
                out.push_str("\n| value | what it means |\n|---|---|\n");
                let as_written = match as_written(found, types).map(|of| &of.kind) {
                    Some(Kind::Enum(variants)) => variants.as_slice(),
                    _ => &[],
                };
                for (index, variant) in variants.iter().enumerate() {
                    let form = as_written.get(index).unwrap_or(variant);
                    value(&mut out, variant, form, &found.attributes, &known)?;
                }
            }
            Kind::Struct(_) | Kind::Other => {}
        }
    }
    Ok(out)
}

/// A row of the table of calls with its path as code.
fn with_code(line: &str) -> String {
    let Some((_, path)) = call_of(line) else {
        return line.to_owned();
    };
    let bare = path.split('?').next().unwrap_or_default().trim();
    line.replacen(bare, &format!("`{bare}`"), 1)
}

/// The types that can be reached from `asked`, themselves included.
fn reached(asked: Known, types: &Types) -> Known {
    let mut open: Vec<String> = asked.iter().cloned().collect();
    let mut known = asked;
    while let Some(name) = open.pop() {
        let Some(found) = types.get(&name) else {
            continue;
        };
        for of in held(&found.kind) {
            for used in words(of) {
                if types.contains_key(used) && known.insert(used.to_owned()) {
                    open.push(used.to_owned());
                }
            }
        }
    }
    known
}

/// The types of all fields.
fn held(kind: &Kind) -> Vec<&str> {
    match kind {
        Kind::Struct(fields) => fields.iter().map(|field| field.of.as_str()).collect(),
        Kind::Enum(variants) => {
            let fields = variants
                .iter()
                .filter_map(|variant| variant.fields.as_ref());
            let fields = fields.flatten().map(|field| field.of.as_str());
            let others = variants
                .iter()
                .filter_map(|variant| variant.holds.as_deref());
            fields.chain(others).collect()
        }
        Kind::Other => Vec::new(),
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !in_word(c))
        .filter(|word| !word.is_empty())
}

/// The fields of a struct, as it is written, with the attributes of the types that they stand in:
/// those of another type may lie flat between its own.
fn with_flat<'a>(found: &'a Type, types: &'a Types) -> Vec<(&'a Field, &'a str)> {
    let found = as_written(found, types).unwrap_or(found);
    let Kind::Struct(fields) = &found.kind else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for field in fields {
        let flat = field.attributes.contains("flatten");
        match types.get(&field.of).filter(|_| flat) {
            Some(inner) if matches!(inner.kind, Kind::Struct(_)) => {
                all.extend(with_flat(inner, types));
            }
            _ => all.push((field, found.attributes.as_str())),
        }
    }
    all
}

/// The type that another one is written as.
fn as_written<'a>(found: &Type, types: &'a Types) -> Option<&'a Type> {
    let name = ["(from = ", ", from = "]
        .iter()
        .find_map(|before| setting(&found.attributes, before))?;
    types.get(name)
}

/// What an attribute of serde has in quotes behind `before`.
fn setting<'a>(attributes: &'a str, before: &str) -> Option<&'a str> {
    let (_, rest) = attributes.split_once(before)?;
    let (value, _) = rest.strip_prefix('"')?.split_once('"')?;
    Some(value)
}

/// A field or variant as it is written: by its own name, or by the rule above it.
fn name_of(name: &str, own: &str, above: &str) -> String {
    match ["(rename = ", ", rename = ", ",rename = "]
        .iter()
        .find_map(|before| setting(own, before))
    {
        Some(name) => name.to_owned(),
        None => written(name, above),
    }
}

/// The type of a field in words, by how it is written.
fn type_of(field: &Field, known: &Known) -> String {
    match setting(&field.attributes, "with = ") {
        Some(with) if with.ends_with("rfc3339") => "time".to_owned(),
        Some(with) if with.ends_with("rfc3339_list") => "list of times".to_owned(),
        Some(with) if with.ends_with("nanoseconds") => "number of nanoseconds".to_owned(),
        Some(with) if with.ends_with("or_empty") => shown(&field.of, known),
        Some(_) => "object".to_owned(),
        None => shown(&field.of, known),
    }
}

/// `above` are the attributes of the whole type.
fn row(out: &mut String, field: &Field, above: &str, known: &Known) -> anyhow::Result<()> {
    let may_lack = |attributes: &str| {
        attributes.contains("serde(default") || attributes.contains("skip_serializing_if")
    };
    let optional =
        field.of.starts_with("Option<") || may_lack(&field.attributes) || may_lack(above);
    writeln!(
        out,
        "| `{}` | {}{} | {} |",
        name_of(&field.name, &field.attributes, above),
        type_of(field, known),
        if optional { ", optional" } else { "" },
        cell(&linked(&field.doc, known))
    )?;
    Ok(())
}

/// `form` is the variant as it is written, which has no docs of its own where it is another one.
fn value(
    out: &mut String,
    variant: &Variant,
    form: &Variant,
    above: &str,
    known: &Known,
) -> anyhow::Result<()> {
    let doc = cell(&linked(&variant.doc, known));
    let name = name_of(&form.name, &form.attributes, above);
    let tag = setting(above, "tag = ");
    match (&form.holds, &form.fields, tag) {
        (Some(of), _, Some(tag)) => {
            let of = shown(of, known);
            writeln!(
                out,
                "| `\"{tag}\": \"{name}\"` beside the fields of {of} | {doc} |"
            )?;
        }
        (Some(of), _, None) => {
            let of = shown(of, known);
            writeln!(out, "| `{{\"{name}\": …}}` with {of} | {doc} |")?;
        }
        (None, None, Some(tag)) => writeln!(out, "| `\"{tag}\": \"{name}\"` | {doc} |")?,
        (None, None, None) => writeln!(out, "| `\"{name}\"` | {doc} |")?,
        (None, Some(fields), _) if fields.is_empty() => {
            writeln!(out, "| `{{\"{name}\": {{}}}}` | {doc} |")?;
        }
        (None, Some(fields), _) => {
            writeln!(out, "| `{{\"{name}\": {{…}}}}` | {doc} |")?;
            let docs = variant.fields.as_deref().unwrap_or_default();
            for (field, told) in fields.iter().zip(docs) {
                let name = name_of(&field.name, &field.attributes, &form.attributes);
                let (of, doc) = (type_of(field, known), cell(&linked(&told.doc, known)));
                writeln!(out, "| in it `{name}`: {of} | {doc} |")?;
            }
        }
    }
    Ok(())
}

/// A variant as it is written, by the rule that stands above its type.
fn written(name: &str, attributes: &str) -> String {
    let rule = attributes.split_once("rename_all = \"");
    let rule = rule.and_then(|(_, rest)| rest.split_once('"'));
    let between = match rule {
        Some(("lowercase", _)) => return name.to_lowercase(),
        Some(("PascalCase", _)) => return name.split('_').map(capital).collect(),
        Some(("kebab-case", _)) => '-',
        Some(("snake_case", _)) => '_',
        _ => return name.to_owned(),
    };
    let mut out = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push(between);
        }
        out.extend(c.to_lowercase());
    }
    out
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|first| first.to_uppercase());
    first.into_iter().flatten().chain(letters).collect()
}

/// A type in words that say what its JSON is.
fn shown(of: &str, known: &Known) -> String {
    let of = of.trim();
    for holder in HOLDERS {
        if let Some(inner) = of.strip_prefix(*holder).and_then(|r| r.strip_suffix('>')) {
            return shown(inner, known);
        }
    }
    if let Some(inner) = of.strip_prefix("Vec<").and_then(|r| r.strip_suffix('>')) {
        return format!("list of {}", shown(inner, known));
    }
    if let Some(inner) = of
        .strip_prefix("BTreeMap<")
        .and_then(|r| r.strip_suffix('>'))
        && let Some((key, value)) = inner.split_once(", ")
    {
        return format!("map of {} to {}", shown(key, known), shown(value, known));
    }
    if let Some(inner) = of.strip_prefix('(').and_then(|r| r.strip_suffix(')')) {
        let parts: Vec<String> = inner.split(", ").map(|part| shown(part, known)).collect();
        return format!("list: {}", parts.join(", "));
    }
    let name = of.rsplit("::").next().unwrap_or(of);
    match name {
        "String" => "text".to_owned(),
        "bool" => "true or false".to_owned(),
        "u8" | "u16" | "u32" | "u64" | "i32" | "i64" | "usize" => "number".to_owned(),
        "IpAddr" | "Ipv4Addr" | "Ipv6Addr" => "address".to_owned(),
        "SocketAddr" => "address and port".to_owned(),
        "IpNet" => "subnet".to_owned(),
        _ if known.contains(name) => link(name),
        _ if name.ends_with("Id") => "id".to_owned(),
        _ => format!("`{name}`"),
    }
}

fn link(name: &str) -> String {
    format!("[`{name}`](#{})", name.to_lowercase())
}

/// A doc with its links as those of a page.
fn linked(doc: &str, known: &Known) -> String {
    with_links(doc, known, |in_brackets| in_brackets)
}

/// A row of the table of calls, where any code may be a type, and `[Name]` a list.
fn row_linked(row: &str, known: &Known) -> String {
    with_links(row, known, |_| true)
}

/// `text` with links where the code is a type, and is meant to be one; rustdoc has brackets around
/// it then.
fn with_links(text: &str, known: &Known, is_meant: impl Fn(bool) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut pieces = text.split('`');
    out.push_str(pieces.next().unwrap_or_default());
    while let Some(code) = pieces.next() {
        let after = pieces.next().unwrap_or_default();
        let (in_brackets, after) = match after.strip_prefix(']') {
            Some(rest) if out.ends_with('[') => {
                out.pop();
                (true, rest)
            }
            _ => (false, after),
        };
        let list = code.strip_prefix('[').and_then(|c| c.strip_suffix(']'));
        let name = list.unwrap_or(code);
        if known.contains(name) && is_meant(in_brackets) {
            out.push_str(if list.is_some() { "list of " } else { "" });
            out.push_str(&link(name));
        } else {
            out.push('`');
            out.push_str(code);
            out.push('`');
        }
        out.push_str(after);
    }
    out
}

#[cfg(test)]
mod tests;
