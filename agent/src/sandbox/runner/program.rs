//! Where a program is on this node.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::RunError;

/// The search path of tasks that are given none: Docker's, not the agent's, so that a task is the same
/// on every node.
pub(super) const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The full path of a program: as given when it has a `/` (relative to `/`, where tasks start), else
/// the first of that name in the search path, which is the last `PATH` of `env` or else Docker's.
/// `node` is named in errors.
///
/// # Errors
/// [`RunError::NoProgram`], [`RunError::NotExecutable`], [`RunError::NoCommand`] when it is empty.
pub(crate) fn find_program(program: &str, env: &[String], node: &str) -> Result<PathBuf, RunError> {
    let given = env.iter().rev().find_map(|pair| pair.strip_prefix("PATH="));
    find_in(program, node, given.unwrap_or(SEARCH_PATH))
}

fn find_in(program: &str, node: &str, path: &str) -> Result<PathBuf, RunError> {
    if program.is_empty() {
        return Err(RunError::NoCommand);
    }
    let missing = |looked_in: String| RunError::NoProgram {
        program: program.to_owned(),
        node: node.to_owned(),
        looked_in,
    };
    if program.contains('/') {
        let full = Path::new("/").join(program);
        return match std::fs::metadata(&full) {
            Ok(metadata) if is_executable(&metadata) => Ok(full),
            Ok(_) => Err(RunError::NotExecutable {
                program: full,
                node: node.to_owned(),
            }),
            Err(_) => Err(missing(format!("{full:?}"))),
        };
    }
    std::env::split_paths(path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(program))
        .find(|full| std::fs::metadata(full).is_ok_and(|metadata| is_executable(&metadata)))
        .ok_or_else(|| missing(path.to_owned()))
}

fn is_executable(metadata: &std::fs::Metadata) -> bool {
    metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_path_and_by_name() {
        assert_eq!(
            find_program("/bin/sh", &[], "n1").expect("path"),
            Path::new("/bin/sh")
        );
        assert_eq!(
            find_program("bin/sh", &[], "n1").expect("relative"),
            Path::new("/bin/sh")
        );
        let given = ["PATH=/bin".to_owned(), "PATH=/no:/usr/bin".to_owned()];
        let found = find_program("env", &given, "n1").expect("in the task's own path");
        assert_eq!(found, Path::new("/usr/bin/env"));
        let error = find_program("sh", &["PATH=/no".to_owned()], "n1").expect_err("not there");
        assert!(error.to_string().contains("looked in /no)"), "{error}");
        let found = find_in("sh", "n1", "relative:/no/such/dir:/bin").expect("name");
        assert_eq!(found, Path::new("/bin/sh"));
    }

    #[test]
    fn the_agents_own_search_path_does_not_count() {
        let error = find_program("no-such-program", &[], "n1").expect_err("not there");
        let dockers = "(looked in /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)";
        assert!(error.to_string().contains(dockers), "{error}");
    }

    #[test]
    fn what_is_missing_is_named_with_the_places_looked_at() {
        let error = find_in("webserver", "n1", "/usr/bin:/bin").expect_err("missing");
        assert_eq!(
            error.to_string(),
            "program \"webserver\" was not found on node n1 (looked in /usr/bin:/bin): \
             install it on every node, or give its full path"
        );
        // Names are the user's: a terminal and a log must not obey them.
        let error = find_program("/opt/\u{1b}[2Jevil\r", &[], "n1").expect_err("missing");
        assert!(!error.to_string().contains(char::is_control), "{error}");
        assert!(matches!(
            find_program("/no/such", &[], "n1"),
            Err(RunError::NoProgram { .. })
        ));
        assert!(matches!(
            find_program("/etc/passwd", &[], "n1"),
            Err(RunError::NotExecutable { .. })
        ));
        assert!(matches!(
            find_program("/tmp/", &[], "n1"),
            Err(RunError::NotExecutable { .. })
        ));
        assert!(matches!(
            find_program("", &[], "n1"),
            Err(RunError::NoCommand)
        ));
    }
}
