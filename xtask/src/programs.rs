//! Programs that the demo and the tests run. What is missing is installed, where that can be done
//! and somebody agrees; else an error names each program, what it is for and the package with it.

mod os_release;
mod packager;
mod table;
#[cfg(test)]
mod x;

use std::collections::BTreeSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use packager::Packager;
use table::Program;
pub(crate) use table::{DEMO, KERNELS, STACK_DEMO, TESTS};

/// Where systems keep programs of root that leave these folders out of an ordinary user's path.
const SBIN: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Whether packages may be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consent {
    /// By who answers at the terminal.
    Ask,
    /// `--yes`.
    Given,
    /// `--no-install`.
    Refused,
}

impl Consent {
    /// Takes the flags that say it out of `words`; the last one counts.
    pub(crate) fn take<'a>(words: &[&'a str]) -> (Self, Vec<&'a str>) {
        let mut consent = Self::Ask;
        let mut others = Vec::new();
        for word in words {
            match *word {
                "--yes" => consent = Self::Given,
                "--no-install" => consent = Self::Refused,
                other => others.push(other),
            }
        }
        (consent, others)
    }
}

/// Sees to it that `programs` are there; the search path that has them.
pub(crate) fn provide(
    programs: &[Program],
    consent: Consent,
    out: &mut impl Write,
) -> anyhow::Result<OsString> {
    let folders = folders(&env::var_os("PATH").unwrap_or_default());
    let path = env::join_paths(&folders).context("PATH")?;
    let lacking = missing(programs, |name| find(name, &folders));
    if lacking.is_empty() {
        return Ok(path);
    }
    let host = Host::look(&folders)?;
    let commands = host.commands(&lacking);
    let shown = shown(&lacking, &host, &commands);
    match decide(consent, &host) {
        Decision::Refuse(reason) => bail!("{shown}{reason}"),
        Decision::Install => write!(out, "{shown}")?,
        Decision::Ask => {
            write!(out, "{shown}Install them now? [y/N] ")?;
            out.flush()?;
            let mut answer = String::new();
            io::stdin().read_line(&mut answer)?;
            ensure!(
                ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()),
                "nothing was installed or run"
            );
        }
    }
    out.flush()?;
    for words in &commands {
        let status = Command::new(&words[0])
            .args(&words[1..])
            .env("PATH", &path)
            .status()
            .with_context(|| format!("cannot run {}", words[0]))?;
        ensure!(status.success(), "`{}` failed: {status}", words.join(" "));
    }
    let names: Vec<&str> = missing(programs, |name| find(name, &folders))
        .iter()
        .map(|program| program.name)
        .collect();
    ensure!(
        names.is_empty(),
        "the packages are installed, but {} is not in PATH",
        names.join(", ")
    );
    Ok(path)
}

/// What decides whether and how packages can be installed here.
#[derive(Debug)]
struct Host {
    /// Of the distribution; `None` for one that is not known.
    packager: Option<Packager>,
    /// The packager's program is there.
    installs: bool,
    rights: Rights,
    /// Somebody can be asked.
    terminal: bool,
}

/// Who may install packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rights {
    Root,
    /// An ordinary user, where there is `sudo`.
    Sudo,
    None,
}

impl Host {
    fn look(folders: &[PathBuf]) -> anyhow::Result<Self> {
        let os_release = fs::read_to_string("/etc/os-release")
            .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
            .unwrap_or_default();
        let packager = Packager::of(&os_release);
        // The folder of a process belongs to its effective user.
        let user = fs::metadata("/proc/self").context("/proc/self")?.uid();
        Ok(Self {
            packager,
            installs: packager.is_some_and(|packager| find(packager.name(), folders).is_some()),
            rights: match user {
                0 => Rights::Root,
                _ if find("sudo", folders).is_some() => Rights::Sudo,
                _ => Rights::None,
            },
            terminal: io::stdin().is_terminal() && io::stdout().is_terminal(),
        })
    }

    /// What installs the packages of `programs`; empty where the distribution is not known.
    fn commands(&self, programs: &[&Program]) -> Vec<Vec<String>> {
        let Some(packager) = self.packager else {
            return Vec::new();
        };
        let before: &[&str] = match (self.rights, self.terminal) {
            (Rights::Root | Rights::None, _) => &[],
            (Rights::Sudo, true) => &["sudo"],
            // Nobody could type a password.
            (Rights::Sudo, false) => &["sudo", "-n"],
        };
        packager
            .install(&packages(programs, packager))
            .into_iter()
            .map(|words| {
                let words = words.into_iter().map(str::to_owned);
                before
                    .iter()
                    .map(|word| (*word).to_owned())
                    .chain(words)
                    .collect()
            })
            .collect()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Install,
    Ask,
    /// With what to do.
    Refuse(&'static str),
}

fn decide(consent: Consent, host: &Host) -> Decision {
    match consent {
        _ if host.packager.is_none() => Decision::Refuse(
            "This distribution is not known here: install what has these programs, then try again.",
        ),
        _ if !host.installs => Decision::Refuse(
            "The program that installs packages is not here: nothing was installed.",
        ),
        _ if host.rights == Rights::None => {
            Decision::Refuse("That takes root: nothing was installed.")
        }
        Consent::Refused => Decision::Refuse("--no-install: nothing was installed."),
        Consent::Given => Decision::Install,
        Consent::Ask if host.terminal => Decision::Ask,
        Consent::Ask => {
            Decision::Refuse("Nobody can be asked without a terminal: --yes installs them.")
        }
    }
}

/// Those of `programs` that `find` does not find.
fn missing(programs: &[Program], find: impl Fn(&str) -> Option<PathBuf>) -> Vec<&Program> {
    programs
        .iter()
        .filter(|program| match find(program.name) {
            None => true,
            // It has many programs under one roof, most with fewer options.
            Some(path) => {
                let is_enough =
                    program.name == "busybox" || program.package(Packager::Apk) == "busybox";
                !is_enough && path.ends_with("busybox")
            }
        })
        .collect()
}

/// Packages with `programs`, each once.
fn packages(programs: &[&Program], packager: Packager) -> Vec<&'static str> {
    let words = programs
        .iter()
        .flat_map(|program| program.package(packager).split(' '));
    words.collect::<BTreeSet<_>>().into_iter().collect()
}

/// What is missing, why it is needed, and what installs it.
fn shown(missing: &[&Program], host: &Host, commands: &[Vec<String>]) -> String {
    let (packager, whose) = match host.packager {
        Some(packager) => (packager, "package"),
        None => (Packager::Apt, "Debian's package"),
    };
    let mut text = "Programs are missing here:\n".to_owned();
    for program in missing {
        let Program { name, purpose, .. } = program;
        let package = program.package(packager);
        let _infallible = writeln!(text, "  {name:<8} {purpose} ({whose}: {package})");
    }
    if !commands.is_empty() {
        text += "This installs them:\n";
    }
    for words in commands {
        let _infallible = writeln!(text, "  {}", words.join(" "));
    }
    text
}

/// Folders of a search path, and those of [`SBIN`].
fn folders(path: &OsStr) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = env::split_paths(path).collect();
    for folder in SBIN.map(PathBuf::from) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// The file that runs as `name`, behind its links.
fn find(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let runs = |path: &Path| {
        fs::metadata(path)
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let path = folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|path| runs(path))?;
    Some(fs::canonicalize(&path).unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn host(packager: Option<Packager>, rights: Rights, terminal: bool) -> Host {
        Host {
            packager,
            installs: packager.is_some(),
            rights,
            terminal,
        }
    }

    fn names(programs: &[&Program]) -> Vec<&'static str> {
        programs.iter().map(|program| program.name).collect()
    }

    #[test]
    fn flags_about_consent_are_not_for_the_demo() {
        let take = |words: &[&'static str]| Consent::take(words);
        assert_eq!(take(&[]), (Consent::Ask, vec![]));
        assert_eq!(
            take(&["--keep", "--yes", "--name", "x"]),
            (Consent::Given, vec!["--keep", "--name", "x"])
        );
        assert_eq!(take(&["--yes", "--no-install"]), (Consent::Refused, vec![]));
    }

    #[test]
    fn what_is_not_found_is_missing() {
        let all = |name: &str| Some(Path::new("/usr/bin").join(name));
        assert!(missing(TESTS, all).is_empty());
        let some = |name: &str| all(name).filter(|_| name != "ip" && name != "curl");
        assert_eq!(names(&missing(TESTS, some)), ["ip", "curl"]);
        assert_eq!(missing(DEMO, |_| None).len(), DEMO.len());
    }

    #[test]
    fn busybox_is_enough_for_little() {
        let busybox = |_: &str| Some(PathBuf::from("/bin/busybox"));
        let missing = names(&missing(TESTS, busybox));
        assert!(missing.contains(&"ip") && missing.contains(&"nsenter"));
        assert!(!missing.contains(&"hostname"));
    }

    #[test]
    fn programs_are_looked_for_in_the_search_path_and_in_sbin() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        for folder in [&first, &second] {
            fs::create_dir(folder).unwrap();
        }
        let make = |path: &Path, mode| {
            fs::write(path, "").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        // Neither a text nor a folder runs.
        make(&first.join("weft-a"), 0o644);
        fs::create_dir(first.join("weft-b")).unwrap();
        make(&second.join("weft-a"), 0o755);
        symlink(second.join("weft-a"), first.join("weft-c")).unwrap();

        let folders = folders(&env::join_paths([&first, &second]).unwrap());
        assert_eq!(folders[2..], SBIN.map(PathBuf::from));
        let real = fs::canonicalize(second.join("weft-a")).unwrap();
        assert_eq!(find("weft-a", &folders).as_ref(), Some(&real));
        assert_eq!(find("weft-b", &folders), None);
        assert_eq!(find("weft-c", &folders), Some(real));
        assert_eq!(super::folders(OsStr::new("/sbin:/usr/sbin")).len(), 2);
    }

    #[test]
    fn packages_are_named_once() {
        let missing = missing(TESTS, |name| match name {
            "cc" | "ip" | "bridge" | "ss" => None,
            _ => Some(PathBuf::from(name)),
        });
        for (packager, expected) in [
            (Packager::Apt, &["gcc", "iproute2", "libc6-dev"][..]),
            (Packager::Dnf, &["gcc", "iproute"]),
            (Packager::Apk, &["gcc", "iproute2", "musl-dev"]),
        ] {
            assert_eq!(packages(&missing, packager), expected);
        }
    }

    #[test]
    fn who_is_asked_and_what_is_refused() {
        use Consent::{Ask, Given, Refused};
        let apt = Some(Packager::Apt);
        let decide = |consent, packager, rights, terminal| {
            decide(consent, &host(packager, rights, terminal))
        };
        assert_eq!(decide(Ask, apt, Rights::Root, true), Decision::Ask);
        assert_eq!(decide(Given, apt, Rights::Root, false), Decision::Install);
        assert_eq!(decide(Given, apt, Rights::Sudo, true), Decision::Install);
        for (consent, packager, rights, terminal, reason) in [
            (Ask, apt, Rights::Root, false, "--yes"),
            (Refused, apt, Rights::Root, true, "--no-install"),
            (Given, apt, Rights::None, true, "root"),
            (Given, None, Rights::Root, true, "not known"),
        ] {
            match decide(consent, packager, rights, terminal) {
                Decision::Refuse(text) => assert!(text.contains(reason), "{text}"),
                other => panic!("{reason}: {other:?}"),
            }
        }
        let without = Host {
            installs: false,
            ..host(apt, Rights::Root, true)
        };
        assert!(matches!(
            super::decide(Given, &without),
            Decision::Refuse(_)
        ));
    }

    #[test]
    fn a_person_reads_what_is_missing_why_and_what_installs_it() {
        let missing = missing(DEMO, |name| (name != "nft").then(|| PathBuf::from(name)));
        let known = host(Some(Packager::Dnf), Rights::Sudo, false);
        let text = shown(&missing, &known, &known.commands(&missing));
        let purpose = missing[0].purpose;
        assert!(text.contains(&format!("  nft      {purpose} (package: nftables)\n")));
        assert!(text.contains("\n  sudo -n dnf install -y "), "{text}");

        let unknown = host(None, Rights::Root, true);
        let text = shown(&missing, &unknown, &unknown.commands(&missing));
        assert!(text.contains("(Debian's package: nftables)"), "{text}");
        assert!(!text.contains("install"), "{text}");
    }
}
