//! `--user`: who a task is, by the node's own files.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{Gid, Uid};

/// A user of the node, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) groups: Vec<Gid>,
    pub(crate) home: Option<PathBuf>,
}

/// Looks `NAME|UID[:GROUP|GID]` up in the node's `/etc/passwd` and `/etc/group`.
///
/// # Errors
/// There is no such user or group.
pub(crate) fn find(text: &str) -> anyhow::Result<User> {
    // Other people's lines may hold any bytes.
    let read = |path: &str| {
        let bytes = std::fs::read(Path::new(path)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    find_in(text, &read("/etc/passwd"), &read("/etc/group"))
}

/// Home of a user in the node's `/etc/passwd`.
pub(crate) fn home_of(uid: u32) -> Option<PathBuf> {
    let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
    find_in(&uid.to_string(), &String::from_utf8_lossy(&passwd), "")
        .ok()?
        .home
}

/// As Docker: a number need not be listed, and is of group 0 then; other groups of a user count
/// unless a group is named.
fn find_in(text: &str, passwd: &str, group: &str) -> anyhow::Result<User> {
    let (user, wanted) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let number: Option<u32> = user.parse().ok().filter(|id| *id != u32::MAX);
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(|fields| fields.len() >= 6)
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
        (None, None) => bail!(
            "user {user:?} is not in /etc/passwd of this node: create it on every node, or give a number"
        ),
    };
    let lines = || {
        group
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .filter(|fields| fields.len() >= 3)
    };
    let (gid, mut groups) = match wanted {
        Some(wanted) => {
            let listed = lines().find(|fields| fields[0] == wanted);
            let id = match listed {
                Some(fields) => fields[2].parse().ok(),
                None => wanted.parse().ok(),
            };
            let id: Option<u32> = id.filter(|id| *id != u32::MAX);
            let id = id.with_context(|| {
                format!(
                    "group {wanted:?} is not in /etc/group of this node: create it on every node, or give a number"
                )
            })?;
            (id, Vec::new())
        }
        None => {
            let of_user = |fields: &Vec<&str>| {
                let members = fields.get(3).copied().unwrap_or_default();
                name.is_some_and(|name| members.split(',').any(|member| member == name))
            };
            let groups: Vec<u32> = lines()
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
        let user = find_in(text, PASSWD, GROUP).expect("found");
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
        let www = find_in("www", PASSWD, GROUP).expect("found");
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
            let error = find_in(text, PASSWD, GROUP)
                .expect_err("missing")
                .to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
