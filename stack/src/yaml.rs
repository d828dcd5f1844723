//! Text to a tree: anchors, aliases and merge keys (`<<`) are opened, keys are looked at.
//!
//! Events come from `saphyr-parser`. A file that grows while it is opened (a "billion laughs") meets
//! the same limits as a large one: what aliases stand for is counted before it is copied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};

use crate::problem::{Findings, Position, Problem, below, problem};
use crate::tree::{Entry, Meaning, Node, Scalar, Style, Value};

/// Largest file, in bytes.
pub(crate) const MAX_TEXT: usize = 4 << 20;
/// Most values in a file, with what aliases stand for.
pub(crate) const MAX_NODES: usize = 100_000;
/// Most bytes of text in its values, with what aliases stand for.
const MAX_BYTES: usize = 16 << 20;
/// Most levels of mappings and lists in each other.
const MAX_DEPTH: usize = 64;

/// Reads a file. None where it is no YAML; findings say why.
pub(crate) fn parse(file: &Arc<str>, text: &str, findings: &mut Findings) -> Option<Node> {
    let start = Position {
        file: Arc::clone(file),
        line: 1,
        column: 1,
    };
    if text.len() > MAX_TEXT {
        findings.error(
            &start,
            "",
            format!("the file has {} bytes, and may have {MAX_TEXT}", text.len()),
            "divide it into several files, with -c for each",
        );
        return None;
    }
    let read = Reader {
        parser: Parser::new_from_str(text),
        file: Arc::clone(file),
        anchors: BTreeMap::new(),
        size: Size::default(),
        kept: 0,
        findings: &mut *findings,
    }
    .document(&start);
    match read {
        Ok(node) => Some(node),
        Err(error) => {
            findings.errors.push(error);
            None
        }
    }
}

/// How much a part of a file is.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    nodes: usize,
    bytes: usize,
}

/// What an anchor names.
#[derive(Debug)]
struct Anchored {
    node: Node,
    size: Size,
}

struct Reader<'text, 'findings> {
    parser: Parser<'text, StrInput<'text>>,
    file: Arc<str>,
    anchors: BTreeMap<usize, Anchored>,
    /// Of all that was read and copied so far.
    size: Size,
    /// Values that anchors hold copies of.
    kept: usize,
    findings: &'findings mut Findings,
}

impl<'text> Reader<'text, '_> {
    fn document(&mut self, start: &Position) -> Result<Node, Problem> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
                Event::StreamEnd | Event::DocumentEnd => {
                    return Err(problem(
                        start,
                        "",
                        "the file is empty",
                        "write `services:` and below it what is to run",
                    ));
                }
                event => {
                    let node = self.node(event, span, "", 0)?;
                    self.end()?;
                    return Ok(node);
                }
            }
        }
    }

    /// Nothing may follow the document.
    fn end(&mut self) -> Result<(), Problem> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(()),
                Event::DocumentStart(_) => {
                    return Err(problem(
                        &self.at(span.start),
                        "",
                        "a second document begins here, which docker would not read",
                        "put it into a file of its own, with -c for each",
                    ));
                }
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'text>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let what = format!("is no YAML: {}", error.info());
                let mend = "look at the indentation, which is of blanks and not of tabs, and at \
                            colons and quotes here and one line above";
                Err(problem(&self.at(*error.marker()), "file", what, mend))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn at(&self, mark: Marker) -> Position {
        Position {
            file: Arc::clone(&self.file),
            line: mark.line().max(1),
            column: mark.col() + 1,
        }
    }

    /// Counts what is about to be made.
    fn take(&mut self, more: Size, at: &Position, path: &str) -> Result<(), Problem> {
        self.size.nodes = self.size.nodes.saturating_add(more.nodes);
        self.size.bytes = self.size.bytes.saturating_add(more.bytes);
        let what = if self.size.nodes > MAX_NODES {
            format!("has more than {MAX_NODES} values, with what aliases stand for")
        } else if self.size.bytes > MAX_BYTES {
            format!("has more than {MAX_BYTES} bytes of text, with what aliases stand for")
        } else {
            return Ok(());
        };
        let path = if path.is_empty() { "file" } else { path };
        Err(problem(
            at,
            path,
            what,
            "divide the file, and look at aliases of aliases",
        ))
    }

    fn node(
        &mut self,
        event: Event<'text>,
        span: Span,
        path: &str,
        depth: usize,
    ) -> Result<Node, Problem> {
        let at = self.at(span.start);
        if depth > MAX_DEPTH {
            let what = format!("is more than {MAX_DEPTH} levels deep");
            return Err(problem(&at, path, what, "a stack file needs 10 at most"));
        }
        let before = self.size;
        let (value, anchor) = match event {
            Event::Alias(id) => return self.alias(id, at, path),
            Event::Scalar(text, style, anchor, tag) => {
                let size = Size {
                    nodes: 1,
                    bytes: text.len(),
                };
                self.take(size, &at, path)?;
                let style = self.style(style, tag.as_deref(), &at, path);
                let text = text.into_owned();
                (Value::Scalar(Scalar { text, style }), anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.take(Size { nodes: 1, bytes: 0 }, &at, path)?;
                self.tag(tag.as_deref(), &at, path);
                (Value::List(self.list(path, depth)?), anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.take(Size { nodes: 1, bytes: 0 }, &at, path)?;
                self.tag(tag.as_deref(), &at, path);
                (Value::Map(self.map(path, depth)?), anchor)
            }
            _ => return Err(problem(&at, path, "ends too early", "finish it")),
        };
        let node = Node { at, value };
        if anchor > 0 {
            self.keep(anchor, &node, before, path)?;
        }
        Ok(node)
    }

    /// Remembers what an anchor names.
    fn keep(
        &mut self,
        anchor: usize,
        node: &Node,
        before: Size,
        path: &str,
    ) -> Result<(), Problem> {
        let size = Size {
            nodes: self.size.nodes - before.nodes,
            bytes: self.size.bytes - before.bytes,
        };
        self.kept += size.nodes;
        if self.kept > MAX_NODES {
            let what = format!("anchors name more than {MAX_NODES} values");
            return Err(problem(
                &node.at,
                path,
                what,
                "take anchors inside of anchors away",
            ));
        }
        let node = node.clone();
        self.anchors.insert(anchor, Anchored { node, size });
        Ok(())
    }

    /// What an alias stands for; an anchor that has not ended yet would hold itself.
    fn alias(&mut self, id: usize, at: Position, path: &str) -> Result<Node, Problem> {
        let Some(size) = self.anchors.get(&id).map(|anchored| anchored.size) else {
            return Err(problem(
                &at,
                path,
                "is an alias of what it is a part of",
                "an anchor cannot hold itself: write the value out",
            ));
        };
        self.take(size, &at, path)?;
        let anchored = self.anchors.get(&id).map(|anchored| &anchored.node.value);
        // Errors are shown where the alias is; parts of it where they are written.
        Ok(Node {
            value: anchored.cloned().unwrap_or_else(|| Value::List(Vec::new())),
            at,
        })
    }

    fn list(&mut self, path: &str, depth: usize) -> Result<Vec<Node>, Problem> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(items);
            }
            let path = below(path, items.len());
            items.push(self.node(event, span, &path, depth + 1)?);
        }
    }

    fn map(&mut self, path: &str, depth: usize) -> Result<Vec<Entry>, Problem> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut lines: BTreeMap<String, usize> = BTreeMap::new();
        let mut merged = None;
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node(event, span, path, depth + 1)?;
            let is_merge = key
                .scalar()
                .is_some_and(|scalar| scalar.text == "<<" && scalar.style == Style::Plain);
            let name = self.key(&key, path);
            let (event, span) = self.next()?;
            let inner = below(path, &name);
            let value = self.node(event, span, &inner, depth + 1)?;
            if let Some(line) = lines.get(&name) {
                let what = format!("mapping key {name:?} already defined at line {line}");
                let path = if path.is_empty() { "file" } else { path };
                self.findings.error(&key.at, path, what, "keep one of them");
                continue;
            }
            lines.insert(name.clone(), key.at.line);
            if is_merge {
                merged = Some(value);
            } else {
                entries.push(Entry {
                    key: name,
                    at: key.at,
                    value,
                });
            }
        }
        if let Some(from) = merged {
            self.merge(&mut entries, from, path);
        }
        Ok(entries)
    }

    /// The text of a key. What is no text is told, and goes on as it is written.
    fn key(&mut self, key: &Node, path: &str) -> String {
        let text = match key.scalar() {
            Some(scalar) if scalar.meaning() == Meaning::Text => return scalar.text.clone(),
            Some(scalar) => scalar.text.clone(),
            None => String::new(),
        };
        let place = if path.is_empty() {
            "at top level"
        } else {
            "in"
        };
        let what = if path.is_empty() {
            format!("Non-string key {place}: {text}")
        } else {
            format!("Non-string key {place} {path}: {text}")
        };
        self.findings
            .error(&key.at, "", what, "put the key in quotes");
        text
    }

    /// `<<`: a mapping, or a list of them. Keys that are there stay, and of a list the first one counts.
    fn merge(&mut self, entries: &mut Vec<Entry>, from: Node, path: &str) {
        let sources = match from.value {
            Value::List(items) => items,
            _ => vec![from],
        };
        let mut there: BTreeSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
        for source in sources {
            let Value::Map(more) = source.value else {
                self.findings.error(
                    &source.at,
                    &below(path, "<<"),
                    "must be a mapping or a list of mappings",
                    "write `<<: *NAME`, with `&NAME` at a mapping further up",
                );
                continue;
            };
            for entry in more {
                if there.insert(entry.key.clone()) {
                    entries.push(entry);
                }
            }
        }
    }

    fn style(&mut self, style: ScalarStyle, tag: Option<&Tag>, at: &Position, path: &str) -> Style {
        let plain = match tag {
            Some(tag) if tag.is_yaml_core_schema() => tag.suffix != "str",
            Some(_) => {
                self.tag(tag, at, path);
                style == ScalarStyle::Plain
            }
            None => style == ScalarStyle::Plain,
        };
        if plain { Style::Plain } else { Style::Quoted }
    }

    /// Tags of YAML itself say nothing new here; others have a meaning that docker drops.
    fn tag(&mut self, tag: Option<&Tag>, at: &Position, path: &str) {
        let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema() && !tag.handle.is_empty())
        else {
            return;
        };
        let what = format!("has the tag {tag}, which a stack file has no meaning for");
        let mend =
            "leave it out; with several files, the last one's values win, and maps are joined";
        self.findings.error(at, path, what, mend);
    }
}

#[cfg(test)]
mod tests;
