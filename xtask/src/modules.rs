//! The files of a crate, found as the compiler finds them: from the root by `mod NAME;`. What only
//! tests compile is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context;
use cargo_metadata::{Package, TargetKind};

use crate::paths::{self, Named, text};
use crate::rust_text::{self, Token, is_word};

/// A file of a crate.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) file: PathBuf,
    /// Code alone, with the lines of the file.
    pub(crate) code: String,
    /// Names of the modules that have files of their own.
    pub(crate) children: BTreeSet<String>,
    pub(crate) named: Vec<Named>,
}

/// The modules of a library or program that have a file, by path. Modules written out inside a file
/// count as that file.
pub(crate) type Modules = BTreeMap<Vec<String>, Module>;

/// The library and the programs of `package`, from the disk; files are told below `root`.
pub(crate) fn of(package: &Package, root: &Path) -> anyhow::Result<Vec<Modules>> {
    let source = |file: &Path| std::fs::read_to_string(root.join(file)).ok();
    let product = |kind: &TargetKind| matches!(kind, TargetKind::Lib | TargetKind::Bin);
    let targets = package.targets.iter();
    targets
        .filter(|target| target.kind.iter().any(product))
        .map(|target| {
            let file = target.src_path.as_std_path();
            read(file.strip_prefix(root).unwrap_or(file), &source)
        })
        .collect()
}

/// The modules below the root file `root`; `source` gives the text of a file that exists.
pub(crate) fn read(
    root: &Path,
    source: &dyn Fn(&Path) -> Option<String>,
) -> anyhow::Result<Modules> {
    let text = source(root).with_context(|| format!("cannot read {}", root.display()))?;
    let mut reader = Reader {
        source,
        modules: Modules::new(),
    };
    let folder = root.parent().unwrap_or(Path::new(""));
    reader.add(Vec::new(), root.to_path_buf(), folder, &text)?;
    Ok(reader.modules)
}

struct Reader<'a> {
    source: &'a dyn Fn(&Path) -> Option<String>,
    modules: Modules,
}

impl Reader<'_> {
    /// Adds the module at `path`, whose children have their files in `folder`.
    fn add(
        &mut self,
        path: Vec<String>,
        file: PathBuf,
        folder: &Path,
        source: &str,
    ) -> anyhow::Result<()> {
        let code = rust_text::without_tests(&rust_text::code_only(source));
        let tokens = rust_text::tokens(&code);
        let (named, children) = (paths::named(&tokens), declared(&tokens));
        for child in &children {
            let below = folder.join(child);
            let places = [folder.join(format!("{child}.rs")), below.join("mod.rs")];
            let (found, text) = places
                .into_iter()
                .find_map(|place| (self.source)(&place).map(|text| (place, text)))
                .with_context(|| format!("{}: mod {child} has no file", file.display()))?;
            let path = [path.as_slice(), std::slice::from_ref(child)].concat();
            self.add(path, found, &below, &text)?;
        }
        let module = Module {
            file,
            code,
            children,
            named,
        };
        self.modules.insert(path, module);
        Ok(())
    }
}

fn declared(tokens: &[Token<'_>]) -> BTreeSet<String> {
    (0..tokens.len())
        .filter(|at| text(tokens, *at) == "mod" && text(tokens, at + 2) == ";")
        .map(|at| text(tokens, at + 1).to_owned())
        .filter(|name| is_word(name))
        .collect()
}

/// Modules for the tests of those who look at them: files by path, the first one is the root.
#[cfg(test)]
pub(crate) fn from_texts(files: &[(&str, &str)]) -> Modules {
    let source = |file: &Path| {
        let found = files.iter().find(|(path, _)| Path::new(path) == file);
        found.map(|(_, text)| (*text).to_owned())
    };
    let root = files.first().map_or("", |(path, _)| *path);
    read(Path::new(root), &source).expect("each module of a test has its file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_as_the_compiler_finds_them() {
        let modules = from_texts(&[
            (
                "a/src/lib.rs",
                "mod b;\npub mod c;\n#[cfg(test)]\nmod tests;\nmod inside { fn f() {} }",
            ),
            ("a/src/b.rs", "mod d;"),
            ("a/src/b/d.rs", ""),
            ("a/src/c/mod.rs", "pub(crate) mod e; // mod no;"),
            ("a/src/c/e.rs", ""),
            ("a/src/stray.rs", ""),
        ]);
        let found: Vec<String> = modules
            .iter()
            .map(|(path, module)| format!("{} {}", path.join("::"), module.file.display()))
            .collect();
        assert_eq!(
            found,
            [
                " a/src/lib.rs",
                "b a/src/b.rs",
                "b::d a/src/b/d.rs",
                "c a/src/c/mod.rs",
                "c::e a/src/c/e.rs",
            ]
        );
    }

    #[test]
    fn a_module_without_a_file_is_an_error() {
        let source = |file: &Path| (file == Path::new("lib.rs")).then(|| "mod gone;".to_owned());
        let error = read(Path::new("lib.rs"), &source).unwrap_err();
        assert!(
            error.to_string().contains("mod gone has no file"),
            "{error}"
        );
    }
}
