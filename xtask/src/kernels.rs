//! The fast path on other kernels than this machine's: `cargo xtask kernels` boots each under qemu,
//! and looks what the programs are trusted with there, and that what they carry arrives.
//!
//! Kernels differ in what they let programs do with a packet, and in what comes of it. Without further
//! words three kernels of Debian's are booted ([`debian`]): one that is too old and has to be refused
//! in so many words, the oldest there is of those that carry IPv4 alone, and one that carries IPv6 too.
//! What a kernel is to do follows from its version, as docs/fast-path.md has it.
//!
//! The processor is an emulated one: that works in machines that are virtual themselves. It is slow,
//! so tests that wait for time-outs are left out ([`FILTERS`]).

mod debian;
mod guest;

use std::env::consts::ARCH;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use cargo_metadata::{Message, Metadata};

use crate::report::Report;

/// Prints what the programs are trusted with.
const SELF_TEST: &str = "self_test";
/// Tests of the programs.
const STREAMS: &str = "streams";
/// Tests of the data plane, with the programs.
const FAST_PATH: &str = "fast_path";

/// Tests of [`FAST_PATH`] that are about what the kernel carries.
const FILTERS: &str = "carried by_the_kernel merging:: other_tables";
/// In the names of tests that need the programs to carry IPv6 between nodes.
const IN_IPV6: &str = "in_ipv6";

/// A kernel that can be booted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    image: PathBuf,
    /// Folder that has the name of the kernel's release.
    modules: PathBuf,
}

impl Kernel {
    fn release(&self) -> anyhow::Result<&str> {
        let name = self.modules.file_name().and_then(OsStr::to_str);
        name.with_context(|| format!("{} has no name", self.modules.display()))
    }
}

/// What a kernel is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Refused,
    Ipv4,
    Both,
}

impl Expected {
    /// Of a kernel of the mainline; those with features of later ones are none of Debian's.
    fn of(release: &str) -> anyhow::Result<Self> {
        let mut numbers = release
            .split(|c: char| !c.is_ascii_digit())
            .map(str::parse::<u32>);
        let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
            bail!(
                "{release} is no release of a kernel: --modules is a folder such as 6.1.0-50-amd64"
            );
        };
        Ok(match (major, minor) {
            version if version < (5, 13) => Self::Refused,
            version if version < (6, 3) => Self::Ipv4,
            _ => Self::Both,
        })
    }

    /// As [`SELF_TEST`] prints it.
    const fn verdict(self) -> &'static str {
        match self {
            Self::Refused => {
                "user space, because the kernel refuses to change tunnelled packets of IPv4"
            }
            Self::Ipv4 => "kernel, IPv4",
            Self::Both => "kernel, IPv4 and IPv6",
        }
    }

    /// Programs that have to end well, with their arguments.
    fn tests(self) -> Vec<(&'static str, String)> {
        let skip = match self {
            Self::Refused => return Vec::new(),
            Self::Ipv4 => format!("--skip {IN_IPV6}"),
            Self::Both => String::new(),
        };
        vec![
            (STREAMS, skip.clone()),
            (FAST_PATH, format!("{FILTERS} {skip}")),
        ]
    }
}

/// The kernels that are named by `words`, none for those of Debian; `None` where that is no command.
pub(crate) fn asked(words: &[&str]) -> Option<Vec<Kernel>> {
    let mut kernels = Vec::new();
    let mut words = words;
    while let ["--kernel", image, "--modules", modules, rest @ ..] = words {
        kernels.push(Kernel {
            image: image.into(),
            modules: modules.into(),
        });
        words = rest;
    }
    words.is_empty().then_some(kernels)
}

/// Boots `asked`, or kernels of Debian's, and reports those that do not do what they are to. `path` is
/// where programs are found.
pub(crate) fn check(
    metadata: &Metadata,
    asked: Vec<Kernel>,
    path: &OsStr,
    report: &mut Report,
) -> anyhow::Result<()> {
    ensure!(
        ARCH == "x86_64",
        "guests run what is built here, and are machines of x86_64; this one is of {ARCH}"
    );
    let folder = metadata.target_directory.as_std_path().join("kernels");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let kernels = if asked.is_empty() {
        debian::kernels(&folder)?
    } else {
        asked
    };
    let programs = built(metadata.workspace_root.as_std_path())?;
    for kernel in &kernels {
        let release = kernel.release()?;
        let expected = Expected::of(release)?;
        let folder = folder.join(format!("guest-{release}"));
        let console = guest::boot(kernel, &programs, &expected.tests(), path, &folder)?;
        match problem(&console, expected) {
            None => report.checked(format!("Linux {release}: {}", expected.verdict())),
            Some(problem) => report.fail(format!(
                "Linux {release}: {problem}; {} has all that it printed",
                guest::console(&folder).display()
            )),
        }
    }
    Ok(())
}

/// What guests run of ours, compiled: names, and where they are.
fn built(root: &Path) -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let mut programs = Vec::new();
    // With `--workspace`, as everything else is built: a package alone has other features.
    let build = ["build", "--example", SELF_TEST];
    let test = ["test", "--no-run", "--test", STREAMS, "--test", FAST_PATH];
    for (what, names) in [
        (&build[..], &[SELF_TEST][..]),
        (&test[..], &[STREAMS, FAST_PATH][..]),
    ] {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(root)
            .args(what)
            .args(["--workspace", "--locked"])
            .arg("--message-format=json-render-diagnostics");
        let messages = run(&mut cargo)?;
        for message in Message::parse_stream(messages.as_bytes()) {
            if let Message::CompilerArtifact(artifact) = message?
                && let Some(path) = artifact.executable
                && let Some(name) = names.iter().find(|name| **name == artifact.target.name)
            {
                programs.push((*name, path.into_std_path_buf()));
            }
        }
    }
    ensure!(
        programs.len() == 3,
        "cargo has built {programs:?}, and not each of {SELF_TEST}, {STREAMS} and {FAST_PATH}"
    );
    Ok(programs)
}

/// What is wrong with a guest that has printed this.
fn problem(console: &str, expected: Expected) -> Option<String> {
    let Some(verdict) = said(console, SELF_TEST) else {
        return Some("it did not come as far as the self-test".to_owned());
    };
    if verdict != expected.verdict() {
        return Some(format!(
            "the self-test says `{verdict}` in place of `{}`",
            expected.verdict()
        ));
    }
    let tests = expected.tests();
    for (name, _) in &tests {
        match said(console, name) {
            Some("0") => {}
            Some(_) => return Some(format!("tests of {name} fail")),
            None => return Some(format!("the tests of {name} did not end")),
        }
    }
    // A program whose filters fit nothing ends well, too.
    let passed = |line: &str| -> Option<u32> {
        let rest = line.trim().strip_prefix("test result: ok. ")?;
        rest.split(' ').next()?.parse().ok()
    };
    let ran = console.lines().filter_map(passed).filter(|n| *n > 0);
    (ran.count() != tests.len()).then(|| "a program ran no tests".to_owned())
}

/// What a guest says of a program: what [`SELF_TEST`] printed, or how another one ended. The firmware
/// leaves what clears the screen in front of the first line.
fn said<'a>(console: &'a str, name: &str) -> Option<&'a str> {
    console.lines().find_map(|line| {
        let (_, rest) = line.split_once(guest::SAYS)?;
        rest.strip_prefix(name)?.strip_prefix(':').map(str::trim)
    })
}

/// Runs a program to its end; what it printed. Its errors go where ours go.
fn run(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    ensure!(output.status.success(), "{name} failed: {}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("{name} printed no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_is_to_do_follows_from_its_version() {
        for (release, expected) in [
            ("5.10.0-46-cloud-amd64", Expected::Refused),
            ("5.13.0", Expected::Ipv4),
            ("6.1.0-50-cloud-amd64", Expected::Ipv4),
            ("6.3-rc1", Expected::Both),
            ("6.12.117+deb13-cloud-amd64", Expected::Both),
            ("10.0.1", Expected::Both),
        ] {
            assert_eq!(Expected::of(release).unwrap(), expected, "{release}");
        }
        assert!(Expected::of("modules").is_err());
    }

    #[test]
    fn kernels_are_named_in_pairs() {
        let kernel = |image: &str, modules: &str| Kernel {
            image: image.into(),
            modules: modules.into(),
        };
        assert_eq!(asked(&[]), Some(Vec::new()));
        let words = ["--kernel", "a", "--modules", "b"];
        assert_eq!(asked(&words), Some(vec![kernel("a", "b")]));
        let twice = [&words[..], &["--kernel", "c", "--modules", "d"]].concat();
        assert_eq!(
            asked(&twice),
            Some(vec![kernel("a", "b"), kernel("c", "d")])
        );
        for words in [&words[..2], &words[..3], &words[1..], &["--all"]] {
            assert_eq!(asked(words), None, "{words:?}");
        }
    }

    #[test]
    fn a_guest_has_to_say_what_is_expected_and_to_pass_every_program() {
        let whole = "weft: self_test: kernel, IPv4\r\n\
                     test result: ok. 9 passed; 0 failed\r\nweft: streams: 0\r\n\
                     test result: ok. 17 passed; 0 failed\r\nweft: fast_path: 0\r\n";
        assert_eq!(problem(whole, Expected::Ipv4), None);
        let cleared = format!("\u{1b}c\u{1b}[?7l\u{1b}[2J{whole}");
        assert_eq!(problem(&cleared, Expected::Ipv4), None);
        for (from, to, expected) in [
            ("weft: self_test", "", "did not come as far"),
            ("kernel, IPv4", "", "says `` in place of `kernel, IPv4`"),
            (", IPv4", ", IPv4 and IPv6", "in place of `kernel, IPv4`"),
            ("fast_path: 0", "fast_path: 101", "tests of fast_path fail"),
            ("weft: fast_path: 0", "", "fast_path did not end"),
            ("17 passed", "0 passed", "ran no tests"),
        ] {
            let said = problem(&whole.replace(from, to), Expected::Ipv4).unwrap();
            assert!(said.contains(expected), "{said}");
        }
        let refused = format!("weft: self_test: {}\r\n", Expected::Refused.verdict());
        assert_eq!(problem(&refused, Expected::Refused), None);
        assert!(problem(&refused, Expected::Both).is_some());
    }

    #[test]
    fn what_a_program_prints_is_its_standard_output_where_it_ends_well() {
        assert_eq!(run(Command::new("echo").arg("a")).unwrap(), "a\n");
        let error = run(&mut Command::new("false")).unwrap_err();
        assert!(error.to_string().starts_with("false failed: "), "{error}");
    }
}
