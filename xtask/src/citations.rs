//! Rules of standards have tests: where a pure crate cites a section of an RFC, the name of a test
//! has it too, `rfc7348_s5_reserved_bits_ignored` for section 5 of RFC 7348 or a section of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::Context;
use cargo_metadata::Metadata;

use crate::arrows;
use crate::modules;
use crate::paths::text;
use crate::report::Report;
use crate::rust_text::{code_only, tokens};
use crate::sources;

/// Cited sections without such a test: those from before this rule. A figure above what is there is
/// an error, so that none comes back.
const LIMIT: usize = 16;

/// A section of an RFC.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Section {
    rfc: u32,
    numbers: Vec<u32>,
}

impl Section {
    /// True when a test of this section is one of `cited`, which may be the section around it.
    fn is_of(&self, cited: &Self) -> bool {
        self.rfc == cited.rfc && self.numbers.starts_with(&cited.numbers)
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.numbers.iter().map(u32::to_string).collect();
        write!(f, "RFC {} section {}", self.rfc, numbers.join("."))
    }
}

/// What is cited, each with a file that does, and what tests have in their names.
struct Found {
    cited: BTreeMap<Section, String>,
    tested: Vec<Section>,
}

impl Found {
    fn read(metadata: &Metadata) -> anyhow::Result<Self> {
        let root = metadata.workspace_root.as_std_path();
        let mut found = Self {
            cited: BTreeMap::new(),
            tested: Vec::new(),
        };
        for package in metadata.workspace_packages() {
            if !arrows::is_pure(package.name.as_str()) {
                continue;
            }
            for module in modules::of(package, root)?
                .iter()
                .flat_map(BTreeMap::values)
            {
                for section in cited(product(&read(&root.join(&module.file))?)) {
                    let file = || module.file.display().to_string();
                    found.cited.entry(section).or_insert_with(file);
                }
            }
        }
        for path in sources::files(root, &["rs"])? {
            found.tested.extend(tested(&read(&path)?));
        }
        Ok(found)
    }

    /// What no test has in its name.
    fn untested(&self) -> Vec<String> {
        self.cited
            .iter()
            .filter(|(cited, _)| !self.tested.iter().any(|tested| tested.is_of(cited)))
            .map(|(cited, file)| format!("{cited} ({file})"))
            .collect()
    }
}

/// Reports more untested sections than the limit, and a limit above them.
pub(crate) fn check(metadata: &Metadata, report: &mut Report) -> anyhow::Result<()> {
    let found = Found::read(metadata)?;
    compare(&found.untested(), LIMIT, report);
    report.checked(format!(
        "citations: {} sections of RFCs in pure crates",
        found.cited.len()
    ));
    Ok(())
}

/// Every cited section without a test, for whoever wants to write one.
pub(crate) fn list(metadata: &Metadata) -> anyhow::Result<String> {
    Ok(Found::read(metadata)?.untested().join("\n") + "\n")
}

fn compare(untested: &[String], limit: usize, report: &mut Report) {
    let count = untested.len();
    if count > limit {
        report.fail(format!(
            "{count} cited sections of RFCs have no test, at most {limit}: name the test of the \
             new one rfcNUMBER_sSECTION_…, with _ for the dots: {}",
            untested.join(", ")
        ));
    } else if count < limit {
        report.fail(format!(
            "{count} cited sections of RFCs have no test, LIMIT in xtask/src/citations.rs still \
             has {limit}: lower it, it never rises again"
        ));
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// `source` without the tests at its end.
fn product(source: &str) -> &str {
    let parts = source.split_once("#[cfg(test)]\nmod tests {");
    parts.map_or(source, |(before, _)| before)
}

/// The sections that comments in `source` cite, over breaks of lines.
fn cited(source: &str) -> Vec<Section> {
    let words: Vec<&str> = source
        .split_whitespace()
        .filter(|word| !matches!(*word, "//" | "///" | "//!"))
        .collect();
    let bare = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_owned();
    words
        .windows(4)
        .filter(|words| bare(words[0]) == "RFC" && words[2] == "section")
        .filter_map(|words| {
            let numbers = bare(words[3]);
            let numbers: Option<Vec<u32>> = numbers.split('.').map(|n| n.parse().ok()).collect();
            Some(Section {
                rfc: words[1].parse().ok()?,
                numbers: numbers?,
            })
        })
        .collect()
}

/// The sections in the names of the functions of `source`.
fn tested(source: &str) -> Vec<Section> {
    let code = code_only(source);
    let tokens = tokens(&code);
    let names = (1..tokens.len()).filter(|at| text(&tokens, at - 1) == "fn");
    names
        .flat_map(|at| sections_of(text(&tokens, at)))
        .collect()
}

/// The sections in a name: `rfc768_rfc8200_s8_1_zero_…` has section 8.1 of RFC 8200.
fn sections_of(name: &str) -> Vec<Section> {
    let mut found = Vec::new();
    let mut parts = name.split('_').peekable();
    while let Some(part) = parts.next() {
        let Some(rfc) = part.strip_prefix("rfc").and_then(|n| n.parse().ok()) else {
            continue;
        };
        let first = parts.peek().and_then(|part| part.strip_prefix('s'));
        let Some(first) = first.and_then(|n| n.parse().ok()) else {
            continue;
        };
        parts.next();
        let mut numbers = vec![first];
        while let Some(number) = parts.peek().and_then(|part| part.parse().ok()) {
            numbers.push(number);
            parts.next();
        }
        found.push(Section { rfc, numbers });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(sections: Vec<Section>) -> Vec<String> {
        sections.iter().map(Section::to_string).collect()
    }

    #[test]
    fn citations_are_read_over_breaks_of_lines() {
        let source = "\
/// As copied (RFC 6040 section 4.1, normal mode), and RFC 4443 section
/// 2.4 (c); RFC 791 leaves it to any hop. RFC 2317 has sections.
fn f() {} // RFC 768: no section
#[cfg(test)]
mod tests {
    // RFC 1 section 1
}
";
        assert_eq!(
            shown(cited(product(source))),
            ["RFC 6040 section 4.1", "RFC 4443 section 2.4"]
        );
    }

    #[test]
    fn names_of_tests_have_sections() {
        let source = "fn rfc9293_s3_10_7_3_a_reset() {}\nfn rfc768_rfc8200_s8_1_zero() { rfc1_s1() }\n\
                      fn rfc4291_appendix_a() {} fn plain() {} // fn rfc2_s2()";
        assert_eq!(
            shown(tested(source)),
            ["RFC 9293 section 3.10.7.3", "RFC 8200 section 8.1"]
        );
    }

    #[test]
    fn a_section_is_tested_by_itself_or_by_a_part_of_it() {
        let section = |numbers: &[u32]| Section {
            rfc: 7348,
            numbers: numbers.to_vec(),
        };
        assert!(section(&[5]).is_of(&section(&[5])));
        assert!(section(&[4, 3]).is_of(&section(&[4])));
        assert!(!section(&[4]).is_of(&section(&[4, 3])));
        assert!(!section(&[43]).is_of(&section(&[4])));
        let cited = [([4], "a.rs"), ([6], "b.rs")];
        let found = Found {
            cited: cited
                .iter()
                .map(|(numbers, file)| (section(numbers), (*file).to_owned()))
                .collect(),
            tested: vec![section(&[4, 3])],
        };
        assert_eq!(found.untested(), ["RFC 7348 section 6 (b.rs)"]);
    }

    #[test]
    fn the_limit_holds_and_only_falls() {
        let failures = |count: usize, limit| {
            let mut report = Report::default();
            compare(
                &vec!["RFC 1 section 1".to_owned(); count],
                limit,
                &mut report,
            );
            report.failures().to_vec()
        };
        assert!(failures(2, 2).is_empty());
        assert!(failures(3, 2)[0].contains("at most 2"));
        assert!(failures(1, 2)[0].contains("lower it"));
    }
}
