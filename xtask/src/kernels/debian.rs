//! Kernels of Debian's releases, from the mirrors that this machine's apt has: packages are checked by
//! Debian's signatures, and nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use super::{Kernel, run};

/// Archives by the names that they give themselves, and releases in them.
const RELEASES: [(&str, &str); 3] = [
    // Linux 5.10; its newest kernels are those of long-term support.
    ("Debian-Security", "bullseye-security"),
    // 6.1.
    ("Debian", "bookworm"),
    // 6.12.
    ("Debian", "trixie"),
];

/// Of machines that are virtual: small, and with all that networks need.
const PACKAGE: &str = "linux-image-cloud-amd64";
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const OTHERWISE: &str = "this takes a Debian; elsewhere, give --kernel VMLINUZ --modules DIR";

/// The newest kernel of each release, unpacked below `folder`. One that is there already is not fetched
/// again.
pub(super) fn kernels(folder: &Path) -> anyhow::Result<Vec<Kernel>> {
    let format = "$(LABEL) $(REPO_URI)";
    let mut known = Command::new("apt-get");
    known.args(["indextargets", "--format", format, "Created-By: Packages"]);
    let known = run(&mut known).context(OTHERWISE)?;
    let mut kernels = Vec::new();
    for (archive, release) in RELEASES {
        let uri = address(&known, archive).with_context(|| {
            format!("apt knows no archive {archive}: run `apt-get update`; {OTHERWISE}")
        })?;
        let source = format!("deb [arch=amd64 signed-by={KEYS}] {uri} {release} main\n");
        kernels.push(kernel(&Apt::new(&folder.join(release), &source)?, folder)?);
    }
    Ok(kernels)
}

/// Where an archive is, by what apt says of those that it knows.
fn address<'a>(known: &'a str, archive: &str) -> Option<&'a str> {
    known.lines().find_map(|line| {
        let (label, uri) = line.split_once(' ')?;
        (label == archive).then_some(uri)
    })
}

fn kernel(apt: &Apt, folder: &Path) -> anyhow::Result<Kernel> {
    run(apt.command("apt-get").args(["-q", "update"]))?;
    let shown = run(apt.command("apt-cache").args(["show", PACKAGE]))?;
    let package = dependency(&shown)
        .with_context(|| format!("{PACKAGE} of {} has no kernel", apt.folder.display()))?;
    let unpacked = folder.join(package);
    if !unpacked.exists() {
        run(apt.command("apt-get").args(["-q", "download", package]))?;
        let archive = downloaded(&apt.folder, package)?;
        let part = folder.join("part");
        run(Command::new("dpkg-deb").arg("-x").args([&archive, &part]))?;
        fs::rename(&part, &unpacked)
            .with_context(|| format!("cannot rename {}", part.display()))?;
    }
    let release = package.trim_start_matches("linux-image-");
    let modules = ["usr/lib/modules", "lib/modules"]
        .map(|name| unpacked.join(name).join(release))
        .into_iter()
        .find(|path| path.exists());
    Ok(Kernel {
        image: unpacked.join(format!("boot/vmlinuz-{release}")),
        modules: modules.with_context(|| format!("{package} has no modules"))?,
    })
}

/// The first package that a package needs, as `apt-cache show` has it: the newest version is first.
fn dependency(shown: &str) -> Option<&str> {
    let needed = shown
        .lines()
        .find_map(|line| line.strip_prefix("Depends: "))?;
    needed.split([' ', ',']).next()
}

/// The file of a package. Its name has the version, in which apt writes some signs otherwise.
fn downloaded(folder: &Path, package: &str) -> anyhow::Result<PathBuf> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let beginning = format!("{package}_");
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(&beginning) && name.ends_with(".deb") {
            return Ok(entry.path());
        }
    }
    bail!("apt-get has not left {package} in {}", folder.display())
}

/// apt with one source, and lists of its own: what this machine has installed does not matter.
#[derive(Debug)]
struct Apt {
    /// It works in there.
    folder: PathBuf,
}

impl Apt {
    fn new(folder: &Path, source: &str) -> anyhow::Result<Self> {
        ensure!(Path::new(KEYS).exists(), "{KEYS} is missing: {OTHERWISE}");
        for name in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(name))
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        for (name, text) in [("sources.list", source), ("status", "")] {
            fs::write(folder.join(name), text)
                .with_context(|| format!("cannot write {name} in {}", folder.display()))?;
        }
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (option, name) in [
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::State", "state"),
            ("Dir::State::Status", "status"),
            ("Dir::Cache", "cache"),
        ] {
            let path = self.folder.join(name);
            command
                .arg("-o")
                .arg(format!("{option}={}", path.display()));
        }
        for option in [
            "Dir::Etc::SourceParts=-",
            "Acquire::Languages=none",
            // Its own user may not write here.
            "APT::Sandbox::User=root",
        ] {
            command.args(["-o", option]);
        }
        command.current_dir(&self.folder);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_where_apt_has_it() {
        let known = "Debian http://mirror.example/debian/\n\
                     Debian-Security http://mirror.example/security/\n\
                     Debian http://other.example/debian/\n";
        let address = |archive| address(known, archive);
        assert_eq!(address("Debian"), Some("http://mirror.example/debian/"));
        assert_eq!(
            address("Debian-Security"),
            Some("http://mirror.example/security/")
        );
        assert_eq!(address("Ubuntu"), None);
    }

    #[test]
    fn the_kernel_is_what_the_newest_version_needs() {
        let shown = "Package: linux-image-cloud-amd64\nVersion: 6.1.2-1\n\
                     Depends: linux-image-6.1.0-2-cloud-amd64 (= 6.1.2-1)\n\n\
                     Version: 6.1.1-1\nDepends: linux-image-6.1.0-1-cloud-amd64 (= 6.1.1-1)\n";
        assert_eq!(dependency(shown), Some("linux-image-6.1.0-2-cloud-amd64"));
        assert_eq!(dependency("Package: a\n"), None);
    }
}
