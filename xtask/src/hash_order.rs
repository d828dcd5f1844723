//! Walks through hash maps and sets: their order is that of the hashes, so what depends on it is
//! another result on each run, or each machine.
//!
//! Read from the text, as [`crate::rust_text`] gives it: a name counts as a map where a field, a
//! parameter or a variable is declared as one, also under the alias that the crate has for it, and
//! in the whole crate where the field is visible there. A map that comes out of a function or out
//! of another container is not seen.

use std::collections::BTreeSet;
use std::path::Path;

use crate::modules::{Module, Modules};
use crate::paths::text;
use crate::rust_text::{Token, is_word, tokens};

/// Types that have no order.
const TYPES: &[&str] = &["HashMap", "HashSet", "HashTable"];

/// Types whose methods are those of what is in them.
const WRAPPERS: &[&str] = &["Arc", "Box", "Rc", "Cow"];

/// Methods that go through all of it.
const WALKS: &[&str] = &[
    "iter",
    "iter_mut",
    "into_iter",
    "keys",
    "into_keys",
    "values",
    "values_mut",
    "into_values",
    "drain",
    "retain",
    "extract_if",
    "union",
    "intersection",
    "difference",
    "symmetric_difference",
];

/// A walk through a map without order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Walk<'a> {
    pub(crate) file: &'a Path,
    pub(crate) line: usize,
    /// The map and the method, `ports.iter`, or `for ports`.
    pub(crate) what: String,
}

/// Every walk in the files of a crate.
pub(crate) fn walks(modules: &Modules) -> Vec<Walk<'_>> {
    let read: Vec<_> = modules
        .values()
        .map(|module| (module, tokens(&module.code)))
        .collect();
    let types = types(modules, &read);
    let declared: Vec<_> = read
        .iter()
        .map(|(_, tokens)| Names::declared(tokens, &types))
        .collect();
    let visible: BTreeSet<&str> = declared
        .iter()
        .flat_map(|names| names.visible.iter().copied())
        .collect();
    let mut found = Vec::new();
    for ((module, tokens), names) in read.iter().zip(&declared) {
        for at in 0..tokens.len() {
            let is_map = |at: usize| {
                let name = text(tokens, at);
                let field = at > 0 && text(tokens, at - 1) == ".";
                names.maps.contains(name)
                    || (field && visible.contains(name) && !names.others.contains(name))
            };
            let what = method(tokens, at, is_map).or_else(|| for_loop(tokens, at, is_map));
            if let (Some(what), Some(token)) = (what, tokens.get(at)) {
                found.push(Walk {
                    file: &module.file,
                    line: token.line,
                    what,
                });
            }
        }
    }
    found
}

/// `NAME.METHOD(` at `at`.
fn method(tokens: &[Token<'_>], at: usize, is_map: impl Fn(usize) -> bool) -> Option<String> {
    let (name, method) = (text(tokens, at), text(tokens, at + 2));
    let called = text(tokens, at + 1) == "." && text(tokens, at + 3) == "(";
    (called && WALKS.contains(&method) && is_map(at)).then(|| format!("{name}.{method}"))
}

/// `for … in &mut self.NAME {` at `at`.
fn for_loop(tokens: &[Token<'_>], at: usize, is_map: impl Fn(usize) -> bool) -> Option<String> {
    if text(tokens, at) != "for" {
        return None;
    }
    let find = |from: usize, wanted: &str| {
        let until =
            |at: &usize| matches!(text(tokens, *at), "" | "{" | ";") || text(tokens, *at) == wanted;
        let end = (from..=tokens.len()).find(until)?;
        (text(tokens, end) == wanted).then_some(end)
    };
    let begin = find(at, "in")? + 1;
    let end = find(begin, "{")?;
    let place = |at: usize| matches!(text(tokens, at), "&" | ".") || is_word(text(tokens, at));
    let last = end - 1;
    ((begin..end).all(place) && is_map(last)).then(|| format!("for {}", text(tokens, last)))
}

/// What the crate calls a map or a set: aliases and names under which it is imported count.
fn types(modules: &Modules, read: &[(&Module, Vec<Token<'_>>)]) -> BTreeSet<String> {
    let mut types: BTreeSet<String> = TYPES.iter().map(|name| (*name).to_owned()).collect();
    loop {
        let mut more = BTreeSet::new();
        for named in modules.values().flat_map(|module| &module.named) {
            let last = named.segments.last();
            if let (Some(import), Some(last)) = (&named.import, last)
                && types.contains(last)
            {
                more.insert(import.alias.clone());
            }
        }
        for (_, tokens) in read {
            for at in (0..tokens.len()).filter(|at| text(tokens, *at) == "type") {
                let mut further = at..tokens.len();
                let equals = further.find(|at| matches!(text(tokens, *at), "=" | ";"));
                if let Some(equals) = equals
                    && text(tokens, equals) == "="
                    && type_name(tokens, equals + 1, &types)
                        .is_some_and(|name| types.contains(name))
                {
                    more.insert(text(tokens, at + 1).to_owned());
                }
            }
        }
        let before = types.len();
        types.append(&mut more);
        if types.len() == before {
            return types;
        }
    }
}

/// Names that a file declares.
#[derive(Debug, Default)]
struct Names<'a> {
    maps: BTreeSet<&'a str>,
    /// Maps that are fields which other files see.
    visible: BTreeSet<&'a str>,
    /// What has another type.
    others: BTreeSet<&'a str>,
}

impl<'a> Names<'a> {
    fn declared(tokens: &[Token<'a>], types: &BTreeSet<String>) -> Self {
        let mut names = Self::default();
        for at in 0..tokens.len() {
            let name = text(tokens, at);
            let is_let = matches!(before(tokens, at, 1), "let" | "mut");
            let typed = match text(tokens, at + 1) {
                ":" => type_name(tokens, at + 2, types),
                "=" if is_let => type_name(tokens, at + 2, types),
                _ => None,
            };
            let is_map = typed.is_some_and(|name| types.contains(name));
            if is_word(name) && is_map {
                names.maps.insert(name);
                if matches!(before(tokens, at, 1), "pub" | ")") {
                    names.visible.insert(name);
                }
            } else if typed.is_some_and(|name| name.starts_with(char::is_uppercase)) {
                names.others.insert(name);
            }
            if name == "collect" && types.contains(text(tokens, at + 3)) {
                names.maps.extend(variable(tokens, at));
            }
        }
        names
    }
}

fn before<'a>(tokens: &[Token<'a>], at: usize, back: usize) -> &'a str {
    at.checked_sub(back).map_or("", |at| text(tokens, at))
}

/// The variable that the statement around `at` declares.
fn variable<'a>(tokens: &[Token<'a>], at: usize) -> Option<&'a str> {
    let start = (0..at).rfind(|at| matches!(text(tokens, *at), ";" | "let"))?;
    let name = match text(tokens, start + 1) {
        "mut" => text(tokens, start + 2),
        name => name,
    };
    (text(tokens, start) == "let").then_some(name)
}

/// The name of the type at `at`, below references and wrappers; of another path its last word.
fn type_name<'a>(tokens: &[Token<'a>], mut at: usize, types: &BTreeSet<String>) -> Option<&'a str> {
    loop {
        let name = text(tokens, at);
        at += match name {
            "&" | "mut" => 1,
            // A lifetime.
            "'" => 2,
            _ if types.contains(name) => return Some(name),
            _ if !is_word(name) => return None,
            _ if text(tokens, at + 1) == "::" => 2,
            _ if WRAPPERS.contains(&name) && text(tokens, at + 1) == "<" => 2,
            _ => return Some(name),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::from_texts;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let modules = from_texts(files);
        let shown = |walk: Walk<'_>| format!("{}:{} {}", walk.file.display(), walk.line, walk.what);
        walks(&modules).into_iter().map(shown).collect()
    }

    #[test]
    fn walks_are_found_where_a_map_is_declared() {
        let text = "\
use hashbrown::HashMap;
struct A {
    ports: HashMap<u16, u8>,
    list: Vec<HashMap<u16, u8>>,
}
fn f(a: &A, names: &'static mut std::collections::HashSet<u8>) {
    a.ports.iter().next();
    a.ports.get(&1);
    a.list.iter().next();
    names
        .retain(|name| *name > 1);
    for (port, name) in &a.ports {}
    for port in a.ports.get(&1) {}
    let mut own = HashMap::new();
    own.drain();
    let ids = a.list.iter().map(|l| l.len()).collect::<HashSet<_>>();
    for id in ids {}
}
";
        assert_eq!(
            found(&[("lib.rs", text)]),
            [
                "lib.rs:7 ports.iter",
                "lib.rs:10 names.retain",
                "lib.rs:12 for ports",
                "lib.rs:15 own.drain",
                "lib.rs:17 for ids",
            ]
        );
    }

    #[test]
    fn aliases_and_visible_fields_count_in_the_whole_crate() {
        let files = [
            (
                "lib.rs",
                "mod a; mod b; mod c; type Map<K, V> = hashbrown::HashMap<K, V, Fixed>;",
            ),
            (
                "a.rs",
                "pub struct A { pub(crate) open: Map<u8, u8>, pub(crate) shut: Map<u8, u8>, own: Map<u8, u8> }",
            ),
            (
                "b.rs",
                "fn f(a: &A) { a.open.keys(); open.keys(); a.own.keys(); a.shut.values() }",
            ),
            (
                "c.rs",
                "struct C { open: BTreeMap<u8, u8> } fn f(c: &C) { c.open.keys() }",
            ),
        ];
        assert_eq!(found(&files), ["b.rs:1 open.keys", "b.rs:1 shut.values"]);
        let renamed =
            "use std::collections::HashMap as Table; fn f(t: Arc<Table<u8, u8>>) { t.keys(); }";
        assert_eq!(found(&[("lib.rs", renamed)]), ["lib.rs:1 t.keys"]);
    }

    #[test]
    fn maps_with_an_order_and_tests_are_left_alone() {
        let text = "\
fn f(a: &BTreeMap<u8, u8>) { a.iter(); for x in a {} }
impl A for B { }
#[cfg(test)]
mod tests {
    fn f(a: &HashMap<u8, u8>) { a.iter(); }
}
";
        assert!(found(&[("lib.rs", text)]).is_empty());
    }
}
