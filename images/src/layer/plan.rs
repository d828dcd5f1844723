//! What an entry comes to, or why it is refused: a function of the entry alone.

use super::entry::{Entry, Kind};
use super::error::{Refusal, shown};
use super::limits::Limits;

/// OCI image specification, layer.md, "Whiteouts".
const WHITEOUT: &[u8] = b".wh.";
/// … "Opaque Whiteout".
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What aufs kept for itself in layers of old: nothing of the image.
const AUFS: &[u8] = b".wh..wh.";

/// Longest name of one file: NAME_MAX of linux/limits.h.
const COMPONENT: usize = 255;

/// A place in the layer: a folder, from the root and without a slash at either end, and a name in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Empty for the root.
    pub(crate) folder: Vec<u8>,
    pub(crate) name: Vec<u8>,
}

impl Place {
    /// From the root.
    pub(crate) fn path(&self) -> Vec<u8> {
        if self.folder.is_empty() {
            return self.name.clone();
        }
        [&self.folder[..], &self.name].join(&b'/')
    }
}

/// Which kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    Char,
    Block,
}

/// What is done for an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing.
    Skip,
    /// Nothing of lower layers shows in this folder.
    Opaque {
        folder: Vec<u8>,
    },
    /// What lower layers have here is gone.
    Whiteout(Place),
    /// The root gets owner, permissions and time.
    Root,
    Folder(Place),
    File(Place),
    Symlink {
        place: Place,
        to: Vec<u8>,
    },
    HardLink {
        place: Place,
        to: Place,
    },
    Device {
        place: Place,
        kind: Device,
        major: u32,
        minor: u32,
    },
    Fifo(Place),
}

/// Who owns an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Its owner, where the kernel has such ones.
///
/// # Errors
/// [`Refusal::Number`].
pub(crate) fn owner(entry: &Entry) -> Result<Owner, Refusal> {
    // The last number stands for "as it is" in chown(2).
    let id = |id: i64, what| match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(Refusal::Number(what)),
    };
    Ok(Owner {
        uid: id(entry.uid, "owner")?,
        gid: id(entry.gid, "group")?,
    })
}

/// What `entry` comes to. A name that begins with a slash begins at the layer's root, as for Docker.
///
/// # Errors
/// Why it is refused.
pub(crate) fn plan(entry: &Entry, limits: &Limits) -> Result<Action, Refusal> {
    let components = components(&entry.name, limits)?;
    let Some((name, folders)) = components.split_last() else {
        return match entry.kind {
            Kind::Folder => Ok(Action::Root),
            _ if entry.name.is_empty() => Err(Refusal::NoName),
            _ => Err(Refusal::Root),
        };
    };
    if components
        .iter()
        .any(|name| name.starts_with(AUFS) && *name != OPAQUE)
    {
        return Ok(Action::Skip);
    }
    if folders.iter().any(|name| name.starts_with(WHITEOUT)) {
        return Err(Refusal::Whiteout);
    }
    let folder = folders.join(&b'/');
    if *name == OPAQUE {
        return Ok(Action::Opaque { folder });
    }
    if let Some(gone) = name.strip_prefix(WHITEOUT) {
        // `.wh...` would be one of the parent.
        if matches!(gone, b"" | b"." | b"..") {
            return Err(Refusal::Whiteout);
        }
        return Ok(Action::Whiteout(Place {
            folder,
            name: gone.to_vec(),
        }));
    }
    let place = Place {
        folder,
        name: name.to_vec(),
    };
    match entry.kind {
        Kind::Folder => Ok(Action::Folder(place)),
        Kind::File if entry.size > limits.bytes => Err(Refusal::Bytes(limits.bytes)),
        Kind::File => Ok(Action::File(place)),
        Kind::Fifo => Ok(Action::Fifo(place)),
        Kind::Symlink => Ok(Action::Symlink {
            place,
            to: link(&entry.link, limits)?,
        }),
        Kind::HardLink => hard_link(place, &entry.link, limits),
        Kind::Char => device(place, Device::Char, entry.device),
        Kind::Block => device(place, Device::Block, entry.device),
        Kind::Other(kind) => Err(Refusal::Kind(kind.into())),
    }
}

/// The components of a name from the root.
fn components<'a>(name: &'a [u8], limits: &Limits) -> Result<Vec<&'a [u8]>, Refusal> {
    if name.len() > limits.name {
        return Err(Refusal::LongName {
            bytes: name.len(),
            limit: limits.name,
        });
    }
    if name.contains(&0) {
        return Err(Refusal::Zero);
    }
    let mut components = Vec::new();
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(Refusal::Parent),
            _ if component.len() > COMPONENT => {
                return Err(Refusal::LongName {
                    bytes: component.len(),
                    limit: COMPONENT,
                });
            }
            _ => components.push(component),
        }
    }
    if components.len() > limits.depth + 1 {
        return Err(Refusal::Deep(limits.depth));
    }
    Ok(components)
}

/// What a symbolic link says: anything, as it is followed inside of a container only.
fn link(to: &[u8], limits: &Limits) -> Result<Vec<u8>, Refusal> {
    if to.is_empty() {
        return Err(Refusal::Target(String::new()));
    }
    // The kernel counts a zero byte at its end.
    if to.len() >= limits.name {
        return Err(Refusal::LongName {
            bytes: to.len(),
            limit: limits.name - 1,
        });
    }
    if to.contains(&0) {
        return Err(Refusal::Zero);
    }
    Ok(to.to_vec())
}

fn hard_link(place: Place, to: &[u8], limits: &Limits) -> Result<Action, Refusal> {
    let components = components(to, limits)?;
    let Some((name, folders)) = components.split_last() else {
        return Err(Refusal::Target(shown(to)));
    };
    let to = Place {
        folder: folders.join(&b'/'),
        name: name.to_vec(),
    };
    if to == place {
        return Ok(Action::Skip);
    }
    Ok(Action::HardLink { place, to })
}

fn device(place: Place, kind: Device, (major, minor): (i64, i64)) -> Result<Action, Refusal> {
    // MINORBITS of linux/kdev_t.h is 20.
    let in_range = |number: i64, bits: u32| {
        u32::try_from(number)
            .ok()
            .filter(|number| *number < 1 << bits)
            .ok_or(Refusal::Number("device"))
    };
    Ok(Action::Device {
        place,
        kind,
        major: in_range(major, 12)?,
        minor: in_range(minor, 20)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::entry::Time;

    fn entry(kind: Kind, name: &str) -> Entry {
        Entry {
            number: 1,
            name: name.as_bytes().to_vec(),
            link: Vec::new(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            modified: Time::default(),
            device: (1, 3),
            size: 0,
            sparse: None,
            attributes: Vec::new(),
        }
    }

    fn of(kind: Kind, name: &str) -> Result<Action, Refusal> {
        plan(&entry(kind, name), &Limits::default())
    }

    fn place(folder: &str, name: &str) -> Place {
        Place {
            folder: folder.into(),
            name: name.into(),
        }
    }

    #[test]
    fn names_are_below_the_root() {
        for name in [
            "etc/passwd",
            "./etc/passwd",
            "/etc/passwd",
            "//etc/.//./passwd",
        ] {
            let expected = Action::File(place("etc", "passwd"));
            assert_eq!(of(Kind::File, name), Ok(expected), "{name}");
        }
        assert_eq!(of(Kind::Folder, "a/"), Ok(Action::Folder(place("", "a"))));
        for root in ["./", ".", "/"] {
            assert_eq!(of(Kind::Folder, root), Ok(Action::Root));
            assert_eq!(of(Kind::File, root), Err(Refusal::Root));
        }
        for name in ["..", "../x", "/../x", "a/../../x", "a/../b", "a/.."] {
            assert_eq!(of(Kind::File, name), Err(Refusal::Parent), "{name}");
        }
        assert_eq!(of(Kind::File, ""), Err(Refusal::NoName));
        assert_eq!(of(Kind::File, "a\0b"), Err(Refusal::Zero));
        assert_eq!(place("a/b", "c").path(), b"a/b/c");
        assert_eq!(place("", "c").path(), b"c");
    }

    #[test]
    fn long_and_deep_names_are_refused() {
        let long = |bytes, limit| Err(Refusal::LongName { bytes, limit });
        let component = "n".repeat(255);
        assert!(of(Kind::File, &component).is_ok());
        assert_eq!(of(Kind::File, &format!("{component}n")), long(256, 255));
        let whole = "nnnnnnn/".repeat(512);
        assert_eq!(of(Kind::File, &format!("{whole}n")), long(4097, 4096));
        assert_eq!(of(Kind::File, &"d/".repeat(400)), Err(Refusal::Deep(255)));
        assert!(of(Kind::File, &format!("{}f", "d/".repeat(255))).is_ok());
    }

    #[test]
    fn whiteouts_name_something_in_their_folder() {
        let gone = Action::Whiteout(place("a", "b"));
        assert_eq!(of(Kind::File, "a/.wh.b"), Ok(gone));
        let folder = b"a/b".to_vec();
        assert_eq!(
            of(Kind::File, "a/b/.wh..wh..opq"),
            Ok(Action::Opaque { folder })
        );
        let folder = Vec::new();
        assert_eq!(
            of(Kind::File, ".wh..wh..opq"),
            Ok(Action::Opaque { folder })
        );
        assert_eq!(of(Kind::Folder, ".wh..wh.plnk"), Ok(Action::Skip));
        assert_eq!(of(Kind::HardLink, ".wh..wh.plnk/12.34"), Ok(Action::Skip));
        for name in [".wh.", ".wh..", ".wh...", "a/.wh...", ".wh.a/b"] {
            assert_eq!(of(Kind::File, name), Err(Refusal::Whiteout), "{name}");
        }
        let hidden = Action::Whiteout(place("", ".hidden"));
        assert_eq!(of(Kind::File, ".wh..hidden"), Ok(hidden));
    }

    #[test]
    fn links_say_what_they_like_and_hard_links_stay_inside() {
        let with = |kind, to: &str| {
            let mut entry = entry(kind, "x");
            entry.link = to.as_bytes().to_vec();
            plan(&entry, &Limits::default())
        };
        let to = b"../../etc/passwd".to_vec();
        let expected = Action::Symlink {
            place: place("", "x"),
            to,
        };
        assert_eq!(with(Kind::Symlink, "../../etc/passwd"), Ok(expected));
        assert!(with(Kind::Symlink, "").is_err());
        assert!(with(Kind::Symlink, &"l".repeat(4096)).is_err());
        let expected = Action::HardLink {
            place: place("", "x"),
            to: place("etc", "passwd"),
        };
        assert_eq!(with(Kind::HardLink, "/etc/passwd"), Ok(expected));
        assert_eq!(with(Kind::HardLink, "../x"), Err(Refusal::Parent));
        assert_eq!(with(Kind::HardLink, "/"), Err(Refusal::Target("/".into())));
        assert_eq!(with(Kind::HardLink, "./x"), Ok(Action::Skip), "itself");
    }

    #[test]
    fn numbers_have_to_be_the_kernels() {
        let mut device = entry(Kind::Char, "null");
        let made = Action::Device {
            place: place("", "null"),
            kind: Device::Char,
            major: 1,
            minor: 3,
        };
        assert_eq!(plan(&device, &Limits::default()), Ok(made));
        for numbers in [(1 << 12, 0), (0, 1 << 20), (-1, 0)] {
            device.device = numbers;
            let refused = plan(&device, &Limits::default());
            assert_eq!(refused, Err(Refusal::Number("device")));
        }
        let mut file = entry(Kind::File, "f");
        file.size = u64::MAX;
        assert!(matches!(
            plan(&file, &Limits::default()),
            Err(Refusal::Bytes(_))
        ));
        assert_eq!(owner(&file), Ok(Owner { uid: 0, gid: 0 }));
        for uid in [-1, i64::from(u32::MAX), i64::MAX] {
            file.uid = uid;
            assert_eq!(owner(&file), Err(Refusal::Number("owner")));
        }
        assert_eq!(of(Kind::Other(b'V'), "x"), Err(Refusal::Kind('V')));
    }
}
