//! Tests of `x`, the script that README starts with, among programs that say what they were told.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::packager::Packager;
use super::table::CC;

/// Makes programs in the folder `$0`: `id`, a `cc` that has what begins a program, one that has not, and
/// those that say their name and their words. By a shell, as what another thread starts meanwhile would
/// keep a file open that this process writes, and then it does not run.
const MAKE: &str = r#"
    cd "$0"
    for name; do
        case $name in
        cc) printf '#!/bin/sh\necho /usr/lib/Scrt1.o\n' > cc ;;
        bare-cc) name=cc; printf '#!/bin/sh\necho Scrt1.o\n' > cc ;;
        id) printf '#!/bin/sh\necho $USER_ID\n' > id ;;
        *) printf '#!/bin/sh\necho "%s $*"\n' "$name" > "$name" ;;
        esac
        chmod 755 "$name"
    done"#;

/// A machine that has these programs and no others.
struct Machine {
    folder: TempDir,
    user_id: u32,
}

impl Machine {
    fn with(programs: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new("/bin/sh")
            .args(["-c", MAKE])
            .arg(folder.path())
            .arg("id")
            .args(programs)
            .status();
        assert!(made.unwrap().success());
        Self { folder, user_id: 0 }
    }

    /// Nobody is at a terminal.
    fn run(&self, words: &[&str]) -> Output {
        let output = Command::new("/bin/sh")
            .arg(script())
            .args(words)
            .env("PATH", self.folder.path())
            .env("USER_ID", self.user_id.to_string())
            .stdin(Stdio::null())
            .output();
        output.unwrap()
    }

    /// Lines that it printed.
    fn said(&self, words: &[&str]) -> Vec<String> {
        let output = self.run(words);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Why it did nothing.
    fn refused(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../x")
}

#[test]
fn with_a_compiler_it_is_cargo_xtask() {
    let machine = Machine::with(&["cc", "cargo", "apt-get"]);
    assert_eq!(
        machine.said(&["demo", "--name", "a b"]),
        ["cargo xtask demo --name a b"]
    );
}

#[test]
fn without_one_it_is_installed_by_what_is_there() {
    for (packager, name) in [
        (Packager::Apt, "apt-get"),
        (Packager::Dnf, "dnf"),
        (Packager::Apk, "apk"),
    ] {
        let machine = Machine::with(&["cargo", "env", name]);
        let said = machine.said(&["test", "--yes"]);
        let packages: Vec<&str> = CC.package(packager).split(' ').collect();
        let packages = [&packages[..], &["ca-certificates"]].concat();
        let commands = packager.install(&packages).into_iter();
        let mut expected: Vec<String> = commands.map(|words| words.join(" ")).collect();
        expected.push("cargo xtask test --yes".to_owned());
        assert!(said[0].starts_with("A C compiler is missing"), "{said:?}");
        assert_eq!(said[1..], expected);
    }
}

#[test]
fn a_compiler_that_cannot_link_is_none() {
    let machine = Machine::with(&["bare-cc", "cargo", "env", "apt-get"]);
    let said = machine.said(&["demo", "--yes"]);
    assert!(
        said.iter().any(|line| line.contains("libc6-dev")),
        "{said:?}"
    );
}

#[test]
fn nothing_is_installed_unless_somebody_agrees() {
    let machine = Machine::with(&["cargo", "env", "apt-get"]);
    for (words, reason) in [
        (&["demo"][..], "--yes installs it"),
        (
            &["demo", "--no-install"],
            "--no-install: nothing was installed",
        ),
        (&["demo", "--yes", "--no-install"], "--no-install"),
    ] {
        let text = machine.refused(words);
        assert!(text.contains(reason), "{text}");
        assert!(text.contains("apt-get has it: gcc libc6-dev"), "{text}");
    }
}

#[test]
fn an_ordinary_user_needs_sudo() {
    let user = |programs: &[&str]| Machine {
        user_id: 1000,
        ..Machine::with(programs)
    };
    let text = user(&["cargo", "env", "apt-get"]).refused(&["demo", "--yes"]);
    assert!(text.contains("takes root"), "{text}");
    let said = user(&["cargo", "env", "apt-get", "sudo"]).said(&["demo", "--yes"]);
    assert!(said[1].starts_with("sudo -n env "), "{said:?}");
}

#[test]
fn what_it_cannot_do_it_says() {
    let text = Machine::with(&["cargo"]).refused(&["demo", "--yes"]);
    assert!(text.contains("not known here"), "{text}");
    let text = Machine::with(&["cc"]).refused(&["demo"]);
    assert!(text.contains("cargo is not in PATH"), "{text}");
}
