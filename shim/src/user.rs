//! `--user`: who a task is, by the node's own files, or those of its container.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use rustix::fs::{Gid, Mode, OFlags, Uid};

use crate::spec::Spec;

/// Bytes of a file with names at most: one of an image holds what somebody likes.
const MOST_BYTES: u64 = 4 << 20;

/// The user of a container that names nobody.
const ROOT: &str = "0";

/// Whose `/etc/passwd` and `/etc/group` this process sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// The node's.
    Node,
    /// Those of a container that was entered.
    Image,
}

impl Names {
    fn no_user(self, name: &str) -> anyhow::Error {
        match self {
            Self::Node => anyhow!(
                "user {name:?} is not in /etc/passwd of this node: create it on every node, or give a number"
            ),
            // Docker's words.
            Self::Image => anyhow!(
                "unable to find user {name:?}: no matching entries in passwd file of the image; give a number"
            ),
        }
    }

    fn no_group(self, name: &str) -> anyhow::Error {
        match self {
            Self::Node => anyhow!(
                "group {name:?} is not in /etc/group of this node: create it on every node, or give a number"
            ),
            Self::Image => anyhow!(
                "unable to find group {name:?}: no matching entries in group file of the image; give a number"
            ),
        }
    }
}

/// A user, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) groups: Vec<Gid>,
    pub(crate) home: Option<PathBuf>,
}

/// Who a spec asks for, looked up in `/etc/passwd` and `/etc/group` that this process sees. `None` where
/// a program of the node is whoever starts it.
///
/// # Errors
/// There is no such user or group.
pub(crate) fn of(spec: &Spec) -> anyhow::Result<Option<User>> {
    let names = if spec.container.is_some() {
        Names::Image
    } else {
        Names::Node
    };
    let text = match spec.user.as_deref().filter(|user| !user.is_empty()) {
        Some(user) => user,
        None if names == Names::Node && spec.groups.is_empty() => return Ok(None),
        None => ROOT,
    };
    let (passwd, group) = (read("/etc/passwd"), read("/etc/group"));
    let mut user = find_in(text, &passwd, &group, names)?;
    for name in &spec.groups {
        let more = group_in(name, &group).ok_or_else(|| names.no_group(name))?;
        if !user.groups.contains(&more) {
            user.groups.push(more);
        }
    }
    Ok(Some(user))
}

/// Home of a user in `/etc/passwd` that this process sees.
pub(crate) fn home_of(uid: u32) -> Option<PathBuf> {
    find_in(&uid.to_string(), &read("/etc/passwd"), "", Names::Node)
        .ok()?
        .home
}

/// Empty where there is none. Other people's lines may hold any bytes, and other people's files may be
/// pipes that nobody writes to.
fn read(path: &str) -> String {
    let open = || -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(Path::new(path), flags, Mode::empty())?);
        let mut bytes = Vec::new();
        if file.metadata()?.is_file() {
            file.take(MOST_BYTES).read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    };
    String::from_utf8_lossy(&open().unwrap_or_default()).into_owned()
}

fn entries(text: &str, fields: usize) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(move |found| found.len() >= fields)
}

/// A name, else a number: that need not be listed.
fn group_in(wanted: &str, group: &str) -> Option<Gid> {
    let listed = entries(group, 3).find(|fields| fields[0] == wanted);
    let id: Option<u32> = match listed {
        Some(fields) => fields[2].parse().ok(),
        None => wanted.parse().ok(),
    };
    id.filter(|id| *id != u32::MAX).map(Gid::from_raw)
}

/// As Docker: a number need not be listed, and is of group 0 then; other groups of a user count
/// unless a group is named.
fn find_in(text: &str, passwd: &str, group: &str, names: Names) -> anyhow::Result<User> {
    let (user, wanted) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let number: Option<u32> = user.parse().ok().filter(|id| *id != u32::MAX);
    let entry = entries(passwd, 6)
        .find(|fields| fields[0] == user || number.is_some_and(|id| fields[2].parse() == Ok(id)));
    let (uid, primary, name, home) = match (&entry, number) {
        (Some(fields), _) => {
            let id = |text: &str| -> anyhow::Result<u32> {
                text.parse()
                    .with_context(|| format!("/etc/passwd: bad number {text:?} of user {user}"))
            };
            (
                id(fields[2])?,
                id(fields[3])?,
                Some(fields[0]),
                Some(PathBuf::from(fields[5])),
            )
        }
        (None, Some(id)) => (id, 0, None, None),
        (None, None) => return Err(names.no_user(user)),
    };
    let (gid, mut groups) = match wanted {
        Some(wanted) => {
            let id = group_in(wanted, group).ok_or_else(|| names.no_group(wanted))?;
            (id.as_raw(), Vec::new())
        }
        None => {
            let of_user = |fields: &Vec<&str>| {
                let members = fields.get(3).copied().unwrap_or_default();
                name.is_some_and(|name| members.split(',').any(|member| member == name))
            };
            let groups: Vec<u32> = entries(group, 3)
                .filter(of_user)
                .filter_map(|fields| fields[2].parse().ok())
                .collect();
            (primary, groups)
        }
    };
    groups.retain(|group| *group != gid);
    Ok(User {
        uid: Uid::from_raw(uid),
        gid: Gid::from_raw(gid),
        groups: [gid].into_iter().chain(groups).map(Gid::from_raw).collect(),
        home,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        www:x:33:34:www:/var/www:/usr/sbin/nologin\n\
        broken\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nssl:x:110:www,other\nadm:x:4:other\nbad\n";

    fn ids(text: &str) -> (u32, u32, Vec<u32>) {
        let user = find_in(text, PASSWD, GROUP, Names::Image).expect("found");
        let groups = user.groups.iter().map(|g| g.as_raw()).collect();
        (user.uid.as_raw(), user.gid.as_raw(), groups)
    }

    #[test]
    fn users_are_found_as_docker_finds_them() {
        assert_eq!(ids("www"), (33, 34, vec![34, 110]));
        assert_eq!(ids("33"), (33, 34, vec![34, 110]));
        assert_eq!(ids("www:adm"), (33, 4, vec![4]));
        assert_eq!(ids("www:4000"), (33, 4000, vec![4000]));
        assert_eq!(ids("12345"), (12345, 0, vec![0]));
        assert_eq!(ids("12345:ssl"), (12345, 110, vec![110]));
        let www = find_in("www", PASSWD, GROUP, Names::Node).expect("found");
        assert_eq!(www.home.as_deref(), Some(Path::new("/var/www")));
    }

    #[test]
    fn who_is_missing_is_named() {
        for (text, says) in [
            ("nobody-here", "user \"nobody-here\" is not in /etc/passwd"),
            ("www:none", "group \"none\" is not in /etc/group"),
            ("4294967295", "user \"4294967295\""),
            ("-1", "user \"-1\""),
        ] {
            let error = find_in(text, PASSWD, GROUP, Names::Node)
                .expect_err("missing")
                .to_string();
            assert!(error.contains(says), "{error}");
        }
        let missing = find_in("who", "", "", Names::Image).expect_err("missing");
        assert!(
            missing
                .to_string()
                .starts_with("unable to find user \"who\""),
            "{missing}"
        );
        let missing = find_in("0:none", "", "", Names::Image).expect_err("missing");
        assert!(
            missing
                .to_string()
                .starts_with("unable to find group \"none\""),
            "{missing}"
        );
    }

    #[test]
    fn groups_are_names_or_numbers() {
        let id = |wanted| group_in(wanted, GROUP).map(Gid::as_raw);
        assert_eq!(id("ssl"), Some(110));
        assert_eq!(id("110"), Some(110));
        assert_eq!(id("5000"), Some(5000));
        for none in ["none", "", "-1", "4294967295"] {
            assert_eq!(id(none), None, "{none}");
        }
    }

    #[test]
    fn what_is_no_file_has_no_names() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path.as_path(),
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .expect("fifo");
        let path = path.to_str().expect("text");
        assert_eq!(read(path), "");
        assert_eq!(read("/no/such"), "");
        assert_eq!(read("/dev/zero"), "");
    }
}
