//! Which program installs packages on a distribution, and how it is told to.

use super::os_release;

/// A program that installs packages; distributions that share one share the names of packages here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packager {
    /// Debian, Ubuntu and theirs.
    Apt,
    /// Fedora, RHEL and theirs.
    Dnf,
    /// Alpine.
    Apk,
}

impl Packager {
    /// Of the distribution that the text of an os-release is about, or of the nearest that it is like.
    pub(super) fn of(text: &str) -> Option<Self> {
        let [id, like] =
            ["ID", "ID_LIKE"].map(|key| os_release::value(text, key).unwrap_or_default());
        std::iter::once(id.as_str())
            .chain(like.split_whitespace())
            .find_map(|id| match id {
                "debian" | "ubuntu" => Some(Self::Apt),
                "fedora" | "rhel" | "centos" => Some(Self::Dnf),
                "alpine" => Some(Self::Apk),
                _ => None,
            })
    }

    /// Its program.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Apt => "apt-get",
            Self::Dnf => "dnf",
            Self::Apk => "apk",
        }
    }

    /// Commands that install `packages` without a question and without what is only recommended.
    pub(super) fn install<'a>(self, packages: &[&'a str]) -> Vec<Vec<&'a str>> {
        let commands: &[&[&str]] = match self {
            // A new machine has no lists of packages. `env` also behind sudo, which drops variables.
            Self::Apt => &[
                &[
                    "env",
                    "DEBIAN_FRONTEND=noninteractive",
                    "apt-get",
                    "-q",
                    "update",
                ],
                &[
                    "env",
                    "DEBIAN_FRONTEND=noninteractive",
                    "apt-get",
                    "-q",
                    "install",
                    "-y",
                    "--no-install-recommends",
                ],
            ],
            Self::Dnf => &[&["dnf", "install", "-y", "--setopt=install_weak_deps=False"]],
            Self::Apk => &[&["apk", "add", "--update-cache"]],
        };
        let mut commands: Vec<Vec<&str>> = commands.iter().map(|words| words.to_vec()).collect();
        if let Some(last) = commands.last_mut() {
            last.extend(packages);
        }
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_known_by_their_own_name_or_by_what_they_are_like() {
        for (text, expected) in [
            ("ID=debian\nVERSION_ID=\"12\"\n", Some(Packager::Apt)),
            (
                "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n",
                Some(Packager::Apt),
            ),
            ("NAME=Fedora\nID=fedora\n", Some(Packager::Dnf)),
            (
                "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n",
                Some(Packager::Dnf),
            ),
            ("ID=alpine\n", Some(Packager::Apk)),
            ("ID=arch\n", None),
            ("ID=opensuse-leap\nID_LIKE=\"suse opensuse\"\n", None),
            ("", None),
        ] {
            assert_eq!(Packager::of(text), expected, "{text}");
        }
    }

    #[test]
    fn packages_are_the_last_words_of_the_last_command() {
        for packager in [Packager::Apt, Packager::Dnf, Packager::Apk] {
            let commands = packager.install(&["a", "b"]);
            assert!(
                commands
                    .iter()
                    .all(|words| words.contains(&packager.name()))
            );
            let ends: Vec<bool> = commands.iter().map(|w| w.ends_with(&["a", "b"])).collect();
            assert_eq!(ends.iter().filter(|ends| **ends).count(), 1);
            assert_eq!(ends.last(), Some(&true));
        }
    }
}
