//! The environment of tasks: `--env`, `--env-file`, and how the two come together.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use weft_model::objects::Runtime;

/// Largest file of variables, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// `KEY=VALUE`; `KEY` alone is with the value that this process has, and stays alone where it has none:
/// a container then has what its image says.
pub(super) fn parse_variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some(("", _)) => Err(format!("invalid environment variable: {text}")),
        Some(_) => Ok(text.to_owned()),
        None if text.is_empty() => Err("invalid environment variable: the name is empty".into()),
        None => Ok(match std::env::var(text) {
            Ok(value) => format!("{text}={value}"),
            Err(_) => text.to_owned(),
        }),
    }
}

/// The same where nothing else could say what a `KEY` alone is.
pub(super) fn parse_env(text: &str) -> Result<String, String> {
    let pair = parse_variable(text)?;
    if pair.contains('=') {
        Ok(pair)
    } else {
        Err(unset(&pair))
    }
}

fn unset(name: &str) -> String {
    format!("environment variable {name} is not set here; write {name}=VALUE")
}

/// Name of a variable.
pub(crate) fn name(pair: &str) -> &str {
    pair.split_once('=').map_or(pair, |(name, _)| name)
}

/// The environment of a new service: files first, then single variables; the last one of a name counts,
/// and stands where it is given.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn environment(files: &[PathBuf], given: Vec<String>) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    for file in files {
        all.extend(read(file)?);
    }
    all.extend(given);
    let mut env: Vec<String> = Vec::new();
    for pair in all {
        env.retain(|there| name(there) != name(&pair));
        env.push(pair);
    }
    Ok(env)
}

/// A program of the node has no image that could say what a variable is.
///
/// # Errors
/// A variable without a value.
pub(crate) fn check(runtime: Runtime, env: &[String]) -> anyhow::Result<()> {
    let alone = env.iter().find(|pair| !pair.contains('='));
    match alone {
        Some(name) if runtime == Runtime::Host => {
            bail!(unset(name))
        }
        _ => Ok(()),
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<String>> {
    let shown = file.display();
    let size =
        std::fs::metadata(file).with_context(|| format!("cannot read --env-file {shown}"))?;
    if size.len() > MAX_FILE {
        bail!(
            "--env-file {shown} has {} bytes, and may have {MAX_FILE}",
            size.len()
        );
    }
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read --env-file {shown}"))?;
    lines(&text).with_context(|| format!("invalid --env-file {shown}"))
}

/// As docker reads it: one variable a line, comments behind `#` at its beginning, nothing quoted.
fn lines(text: &str) -> anyhow::Result<Vec<String>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut env = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let variable = name(line);
        if variable.contains(char::is_whitespace) {
            bail!("variable '{variable}' in line {number} contains whitespaces");
        }
        if variable.is_empty() {
            bail!("no variable name in line {number}: '{line}'");
        }
        if line.contains('=') {
            env.push(line.to_owned());
        } else if let Ok(value) = std::env::var(variable) {
            // Without a value here it is left out.
            env.push(format!("{variable}={value}"));
        }
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that every process of a test has.
    const SET: &str = "PATH";
    const UNSET: &str = "WEFT_TEST_THAT_NOBODY_SETS";

    #[test]
    fn a_name_alone_takes_the_value_from_here() {
        assert_eq!(parse_variable("A=b=c"), Ok("A=b=c".to_owned()));
        let value = std::env::var(SET).expect("a path");
        assert_eq!(parse_variable(SET), Ok(format!("{SET}={value}")));
        assert_eq!(parse_variable(UNSET), Ok(UNSET.to_owned()));
        for bad in ["", "=b"] {
            let error = parse_variable(bad).unwrap_err();
            assert!(error.starts_with("invalid environment variable"), "{error}");
        }
        assert_eq!(parse_env(UNSET), Err(unset(UNSET)));
        let env = [UNSET.to_owned()];
        check(Runtime::Container, &env).unwrap();
        let error = check(Runtime::Host, &env).unwrap_err().to_string();
        assert!(error.ends_with(&format!("write {UNSET}=VALUE")), "{error}");
    }

    #[test]
    fn files_are_read_as_docker_reads_them() {
        let text = format!("\u{feff}# none\n\n  A=1 \nB='x y'\nC=\n{UNSET}\n{SET}\n");
        let value = std::env::var(SET).expect("a path");
        let path = format!("{SET}={value}");
        assert_eq!(lines(&text).unwrap(), ["A=1 ", "B='x y'", "C=", &path]);
        for (bad, says) in [
            (
                "A=1\nB C=2",
                "variable 'B C' in line 2 contains whitespaces",
            ),
            ("=2", "no variable name in line 1: '=2'"),
        ] {
            assert_eq!(lines(bad).unwrap_err().to_string(), says);
        }
    }

    #[test]
    fn the_last_one_of_a_name_counts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("env");
        std::fs::write(&file, "A=1\nB=2\n").unwrap();
        let given = vec!["A=3".to_owned(), "C".to_owned(), "C=4".to_owned()];
        let env = environment(std::slice::from_ref(&file), given).unwrap();
        assert_eq!(env, ["B=2", "A=3", "C=4"]);
        let missing = dir.path().join("missing");
        let error = environment(&[missing], Vec::new()).unwrap_err();
        assert!(
            error.to_string().contains("cannot read --env-file"),
            "{error}"
        );
        std::fs::write(&file, "A B=1").unwrap();
        let error = environment(&[file], Vec::new()).unwrap_err();
        let told = format!("{error:#}");
        assert!(told.contains("contains whitespaces"), "{told}");
    }
}
