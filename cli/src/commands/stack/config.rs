//! `weft stack config`: reads files and the environment for `weft-stack`, which knows neither.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use weft_stack::{Interpolation, Loaded, Source, Surroundings, load, render};

use crate::args::StackConfigArgs;
use crate::output::{Printer, complain};

/// More bytes than a file of a stack, or one of variables, may have. The stack says so.
const MOST: u64 = (4 << 20) + 1;

/// `weft stack config`
///
/// # Errors
/// As of [`loaded`].
pub(in crate::commands) fn config(
    args: &StackConfigArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let interpolation = if args.skip_interpolation {
        Interpolation::Skipped
    } else {
        Interpolation::Done
    };
    let loaded = loaded(&args.files, interpolation)?;
    for warning in &loaded.warnings {
        complain(warning);
    }
    out.text(&render(&loaded.stack))?;
    Ok(ExitCode::SUCCESS)
}

/// The stack of these files.
///
/// # Errors
/// A file cannot be read, or all that is wrong in them.
pub(super) fn loaded(files: &[String], interpolation: Interpolation) -> anyhow::Result<Loaded> {
    if files.iter().filter(|file| *file == "-").count() > 1 {
        bail!("-c - reads standard input, which is there once: keep one of them");
    }
    let texts = files.iter().map(|file| text(file));
    let texts: Vec<String> = texts.collect::<anyhow::Result<_>>()?;
    let sources: Vec<Source<'_>> = files
        .iter()
        .zip(&texts)
        .map(|(name, text)| Source { name, text })
        .collect();
    let folder = folder(files.first().map_or("-", String::as_str))?;
    let home = std::env::var("HOME").ok();
    let surroundings = Surroundings {
        variable: &|name| std::env::var(name).ok(),
        file: &|path| read(Path::new(path)).map_err(|error| format!("{error:#}")),
        folder: &folder,
        home: home.as_deref(),
        interpolation,
    };
    load(&sources, &surroundings).map_err(|problems| anyhow!("invalid stack\n{problems}"))
}

/// Where relative paths begin: at the first file, or here.
fn folder(first: &str) -> anyhow::Result<String> {
    let here = std::env::current_dir().context("cannot tell the current folder")?;
    let folder = match Path::new(first).parent() {
        Some(parent) if first != "-" => here.join(parent),
        _ => here,
    };
    folder
        .into_os_string()
        .into_string()
        .map_err(|folder| anyhow!("the folder {} is no UTF-8: rename it", folder.display()))
}

fn text(file: &str) -> anyhow::Result<String> {
    if file != "-" {
        return read(Path::new(file)).with_context(|| format!("cannot read {file}"));
    }
    let mut text = String::new();
    let read = std::io::stdin().lock().take(MOST).read_to_string(&mut text);
    read.context("cannot read standard input")?;
    Ok(text)
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MOST).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_beside_the_first_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let one = "services:\n  web:\n    image: web\n    env_file: web.env\n    volumes: [./data:/data]\n";
        std::fs::write(path("one.yml"), one).expect("a file");
        std::fs::write(path("web.env"), "A=1\n").expect("a file");
        std::fs::write(
            path("two.yml"),
            "services: {web: {user: $WEFT_TEST_THAT_NOBODY_SETS}}\n",
        )
        .expect("a file");
        let files = [path("one.yml"), path("two.yml")];
        let loaded = loaded(&files, Interpolation::Skipped).expect("a stack");
        let shown = render(&loaded.stack);
        assert!(shown.contains("      A: \"1\"\n"), "{shown}");
        assert!(
            shown.contains(&format!("source: {}\n", path("data"))),
            "{shown}"
        );
        assert!(shown.contains("    user: \"$WEFT_TEST"), "{shown}");
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let missing = ["/nonexistent/stack.yml".to_owned()];
        let error = loaded(&missing, Interpolation::Done).expect_err("no file");
        assert!(
            error
                .to_string()
                .contains("cannot read /nonexistent/stack.yml"),
            "{error:#}"
        );
        let twice = ["-".to_owned(), "-".to_owned()];
        let error = loaded(&twice, Interpolation::Done).expect_err("one input");
        assert!(error.to_string().contains("there once"), "{error:#}");
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("bad.yml").display().to_string();
        std::fs::write(&path, "services:\n  web:\n    imgae: web\n").expect("a file");
        let error = loaded(std::slice::from_ref(&path), Interpolation::Done).expect_err("a typo");
        let told = format!("{error:#}");
        let says = format!(
            "{path}:3:5: services.web Additional property imgae is not allowed; did you mean image?"
        );
        assert!(told.contains(&says), "{told}");
    }
}
