//! `--user` and `--group`: who a container is, by the files of its image, as Docker reads them.

use std::io;
use std::path::Path;

use crate::image_files;

/// Docker's range of ids.
const MAX_ID: u32 = i32::MAX.unsigned_abs();

/// A user or a group that an image does not have. The texts begin as Docker's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnknownUser {
    /// Config: no such name.
    #[error(
        "unable to find user {0}: no matching entries in the image's /etc/passwd: add the user to the image, or give a number"
    )]
    User(String),
    /// Config: no such name.
    #[error(
        "unable to find group {0}: no matching entries in the image's /etc/group: add the group to the image, or give a number"
    )]
    Group(String),
    /// Config: a number that is no id.
    #[error("uids and gids must be in range 0-2147483647: {0}")]
    Range(String),
    /// Remote: what the image has in their place.
    #[error("cannot read {file} of the image: {source}")]
    File {
        /// Path in the image.
        file: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A user, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// All of them, `gid` first.
    pub(crate) groups: Vec<u32>,
}

/// Looks `NAME|UID[:GROUP|GID]` (root when empty), and more groups, up in the image at `root`.
///
/// # Errors
/// See [`UnknownUser`].
pub(crate) fn find(root: &Path, user: &str, more: &[String]) -> Result<ImageUser, UnknownUser> {
    let read = |file: &'static str| {
        let bytes = image_files::read(root, file);
        let bytes = bytes.map_err(|source| UnknownUser::File { file, source })?;
        // Lines of others may hold any bytes.
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    find_in(user, more, &read("/etc/passwd")?, &read("/etc/group")?)
}

struct Entry<'a> {
    name: &'a str,
    id: u32,
    /// Of passwd the group, of group the members.
    fourth: &'a str,
}

/// Lines that are none, and those without a number, count for nothing.
fn entries(text: &str) -> impl Iterator<Item = Entry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let id = fields.nth(1)?.parse().ok()?;
        let fourth = fields.next().unwrap_or_default();
        Some(Entry { name, id, fourth })
    })
}

/// A number, where the text is one.
fn number(text: &str) -> Result<Option<u32>, UnknownUser> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let id = text.parse::<u32>().ok().filter(|id| *id <= MAX_ID);
    // It may come from anywhere, and a message is read by people.
    let range = || UnknownUser::Range(text.chars().take(40).collect());
    id.map(Some).ok_or_else(range)
}

/// As moby/sys/user: a number need not be listed, and is of group 0 then; other groups of a user
/// count unless a group is named.
fn find_in(
    text: &str,
    more: &[String],
    passwd: &str,
    group: &str,
) -> Result<ImageUser, UnknownUser> {
    let (user, wanted) = text.split_once(':').unwrap_or((text, ""));
    let user = if user.is_empty() { "0" } else { user };
    let uid = number(user)?;
    let listed = entries(passwd).find(|entry| entry.name == user || Some(entry.id) == uid);
    let (uid, primary, name) = match (listed, uid) {
        (Some(entry), _) => (
            entry.id,
            entry.fourth.parse().unwrap_or(0),
            Some(entry.name),
        ),
        (None, Some(uid)) => (uid, 0, None),
        (None, None) => return Err(UnknownUser::User(user.to_owned())),
    };
    let group_named = |wanted: &str| {
        let gid = number(wanted)?;
        let listed = entries(group).find(|entry| entry.name == wanted || Some(entry.id) == gid);
        listed
            .map(|entry| entry.id)
            .or(gid)
            .ok_or_else(|| UnknownUser::Group(wanted.to_owned()))
    };
    let mut groups = Vec::new();
    let gid = if wanted.is_empty() {
        let is_in = |entry: &Entry<'_>| {
            let mut members = entry.fourth.split(',');
            name.is_some_and(|name| members.any(|member| member == name))
        };
        groups.extend(entries(group).filter(is_in).map(|entry| entry.id));
        primary
    } else {
        group_named(wanted)?
    };
    for wanted in more {
        groups.push(group_named(wanted)?);
    }
    groups.insert(0, gid);
    let mut seen = Vec::with_capacity(groups.len());
    groups.retain(|group| {
        let new = !seen.contains(group);
        seen.push(*group);
        new
    });
    Ok(ImageUser { uid, gid, groups })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        www:x:33:34:www:/var/www:/usr/sbin/nologin\n\
        odd:x:-1:0::/:/bin/sh\n\
        broken\n";
    const GROUP: &str =
        "root:x:0:\nwww:x:34:\nssl:x:110:www,other\nadm:x:4:other\nwheel:x:10:root\n";

    fn ids(text: &str, more: &[&str]) -> (u32, u32, Vec<u32>) {
        let more: Vec<String> = more.iter().map(|&group| group.to_owned()).collect();
        let user = find_in(text, &more, PASSWD, GROUP).expect("found");
        (user.uid, user.gid, user.groups)
    }

    #[test]
    fn users_are_found_as_docker_finds_them() {
        assert_eq!(ids("", &[]), (0, 0, vec![0, 10]));
        assert_eq!(ids("www", &[]), (33, 34, vec![34, 110]));
        assert_eq!(ids("33", &[]), (33, 34, vec![34, 110]));
        assert_eq!(ids("www:adm", &[]), (33, 4, vec![4]));
        assert_eq!(ids("www:4000", &[]), (33, 4000, vec![4000]));
        assert_eq!(ids("12345", &[]), (12_345, 0, vec![0]));
        assert_eq!(ids(":ssl", &[]), (0, 110, vec![110]));
        assert_eq!(
            ids("www", &["adm", "5000", "34"]),
            (33, 34, vec![34, 110, 4, 5000])
        );
    }

    #[test]
    fn who_is_missing_is_named() {
        for (text, more, says) in [
            (
                "nobody-here",
                &[][..],
                "unable to find user nobody-here: no matching",
            ),
            ("www:none", &[], "unable to find group none: no matching"),
            ("www", &["none".to_owned()][..], "unable to find group none"),
            ("odd", &[], "unable to find user odd"),
            ("-1", &[], "unable to find user -1"),
            ("4294967295", &[], "must be in range 0-2147483647"),
            ("99999999999999999999", &[], "must be in range"),
        ] {
            let error = find_in(text, more, PASSWD, GROUP).expect_err("missing");
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn an_image_shows_no_files_of_the_node() {
        let dir = tempfile::tempdir().expect("dir");
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("etc")).expect("made");
        std::fs::write(dir.path().join("passwd"), PASSWD).expect("written");
        symlink("../../passwd", root.join("etc/passwd")).expect("link");
        find(&root, "www", &[]).expect_err("that is outside");
        assert_eq!(find(&root, "33", &[]).expect("a number").gid, 0);
        std::fs::write(root.join("passwd"), PASSWD).expect("written");
        assert_eq!(find(&root, "www", &[]).expect("inside").gid, 34);
        std::fs::create_dir(root.join("etc/group")).expect("made");
        let error = find(&root, "www", &[]).expect_err("no file").to_string();
        assert!(
            error.starts_with("cannot read /etc/group of the image"),
            "{error}"
        );
    }
}
