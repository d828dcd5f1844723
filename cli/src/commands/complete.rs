//! `weft completion`, and the manual pages: both are made of what the parser knows.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap_complete::Shell;

use crate::args::ShellArg;
use crate::output::Printer;

/// Prints the script that makes a shell complete the commands of `program`.
pub(super) fn completion(
    program: clap::Command,
    shell: ShellArg,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let shell = match shell {
        ShellArg::Bash => Shell::Bash,
        ShellArg::Zsh => Shell::Zsh,
        ShellArg::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown(program), "weft", &mut script);
    out.text(&String::from_utf8(script).context("the script is no text")?)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a page for each command of `program`.
pub(super) fn manual(program: clap::Command, dir: &Path) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    clap_mangen::generate_to(shown(program), dir)
        .with_context(|| format!("cannot write the pages into {}", dir.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// The command without those of its own that are not for people: the scripts would offer them.
fn shown(command: clap::Command) -> clap::Command {
    let visible: Vec<clap::Command> = command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set())
        .cloned()
        .collect();
    let mut bare = clap::Command::new("weft")
        .version(env!("CARGO_PKG_VERSION"))
        .args(command.get_arguments().cloned())
        .subcommands(visible);
    if let Some(about) = command.get_about() {
        bare = bare.about(about.clone());
    }
    bare
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::tests::shared;
    use crate::program::whole;

    #[test]
    fn scripts_know_the_commands_that_are_for_people() {
        for shell in [ShellArg::Bash, ShellArg::Zsh, ShellArg::Fish] {
            let (reader, writer) = shared();
            completion(whole(&[]), shell, &mut Printer::to(writer)).unwrap();
            let script = reader.text();
            for word in [
                "service",
                "publish-add",
                "secret-add",
                "doctor",
                "join-token",
            ] {
                assert!(script.contains(word), "{shell:?} lacks {word}");
            }
            for word in ["lab-enter", "demo-http"] {
                assert!(!script.contains(word), "{shell:?} offers {word}");
            }
            assert!(!script.contains('\u{1b}'), "{shell:?}");
        }
    }

    #[test]
    fn there_is_a_page_for_each_command() {
        let dir = tempfile::tempdir().unwrap();
        manual(whole(&[]), &dir.path().join("man1")).unwrap();
        let page = |name: &str| std::fs::read_to_string(dir.path().join("man1").join(name));
        assert!(page("weft.1").unwrap().contains("weft\\-doctor(1)"));
        assert!(
            page("weft-service-create.1")
                .unwrap()
                .contains("stop\\-grace\\-period")
        );
        assert!(page("weft-man.1").is_err());
    }
}
