//! Mounts what a volume has instead of a folder: a share, a device, memory, another folder.

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs as _};
use std::path::Path;

use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind, mount_bind_recursive, mount_change,
    mount_remount,
};

use crate::options::Options;

/// Words of `-o` that are flags of mount(2), whether they take theirs away, and which it is.
const FLAGS: [(&str, bool, MountFlags); 22] = [
    ("defaults", true, MountFlags::empty()),
    ("ro", false, MountFlags::RDONLY),
    ("rw", true, MountFlags::RDONLY),
    ("suid", true, MountFlags::NOSUID),
    ("nosuid", false, MountFlags::NOSUID),
    ("dev", true, MountFlags::NODEV),
    ("nodev", false, MountFlags::NODEV),
    ("exec", true, MountFlags::NOEXEC),
    ("noexec", false, MountFlags::NOEXEC),
    ("sync", false, MountFlags::SYNCHRONOUS),
    ("async", true, MountFlags::SYNCHRONOUS),
    ("dirsync", false, MountFlags::DIRSYNC),
    ("atime", true, MountFlags::NOATIME),
    ("noatime", false, MountFlags::NOATIME),
    ("diratime", true, MountFlags::NODIRATIME),
    ("nodiratime", false, MountFlags::NODIRATIME),
    ("relatime", false, MountFlags::RELATIME),
    ("norelatime", true, MountFlags::RELATIME),
    ("strictatime", false, MountFlags::STRICTATIME),
    ("nostrictatime", true, MountFlags::STRICTATIME),
    ("lazytime", false, MountFlags::LAZYTIME),
    ("nosymfollow", false, MountFlags::NOSYMFOLLOW),
];

/// The same of words about how mounts travel.
const PROPAGATION: [(&str, MountPropagationFlags); 4] = [
    ("private", MountPropagationFlags::PRIVATE),
    ("shared", MountPropagationFlags::SHARED),
    ("slave", MountPropagationFlags::DOWNSTREAM),
    ("unbindable", MountPropagationFlags::UNBINDABLE),
];

/// Whether a folder is mounted instead of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bind {
    No,
    Folder,
    WithAllBelow,
}

/// `-o`, read.
struct Words {
    flags: MountFlags,
    bind: Bind,
    propagation: Option<MountPropagationFlags>,
    /// What the file system itself understands.
    data: String,
}

fn read(options: &str) -> Words {
    let mut words = Words {
        flags: MountFlags::empty(),
        bind: Bind::No,
        propagation: None,
        data: String::new(),
    };
    for word in options.split(',').filter(|word| !word.is_empty()) {
        match word {
            "bind" => words.bind = Bind::Folder,
            "rbind" => words.bind = Bind::WithAllBelow,
            _ => {}
        }
        if matches!(word, "bind" | "rbind") {
            continue;
        }
        if let Some((_, takes_away, flag)) = FLAGS.iter().find(|(name, ..)| *name == word) {
            words.flags.set(*flag, !takes_away);
            continue;
        }
        let (name, below) = match word.strip_prefix('r') {
            Some(name) if PROPAGATION.iter().any(|(known, _)| *known == name) => {
                (name, MountPropagationFlags::REC)
            }
            _ => (word, MountPropagationFlags::empty()),
        };
        if let Some((_, flags)) = PROPAGATION.iter().find(|(known, _)| *known == name) {
            words.propagation = Some(*flags | below);
            continue;
        }
        if !words.data.is_empty() {
            words.data.push(',');
        }
        words.data.push_str(word);
    }
    words
}

/// The value of `addr` in options.
fn address(options: &str) -> Option<&str> {
    let mut words = options.split(',');
    words.find_map(|word| word.strip_prefix("addr="))
}

fn resolve(name: &str) -> Result<IpAddr, String> {
    let failed = |why: String| {
        format!(
            "error resolving passed in network volume address: {name}: {why}; the node itself has \
             to know this name, services of weft are not asked"
        )
    };
    let mut found = (name, 0)
        .to_socket_addrs()
        .map_err(|error| failed(error.to_string()))?;
    let first = found
        .next()
        .ok_or_else(|| failed("it has no address".to_owned()))?;
    Ok(first.ip())
}

/// Names in the options of shares become addresses, as the kernel resolves none.
fn with_addresses(options: &Options) -> Result<String, String> {
    let given = &options.mount_opts;
    if !matches!(options.mount_type.as_str(), "nfs" | "nfs4" | "cifs") {
        return Ok(given.clone());
    }
    match address(given) {
        Some(name) if !name.is_empty() && name.parse::<Ipv4Addr>().is_err() => {
            let ip = resolve(name)?;
            Ok(given.replacen(&format!("addr={name}"), &format!("addr={ip}"), 1))
        }
        Some(_) => Ok(given.clone()),
        // `//host/share` alone: mount.cifs would have resolved the host.
        None if options.mount_type == "cifs" => {
            let rest = options.mount_device.trim_start_matches("smb:");
            let host = rest.trim_start_matches('/').split('/').next();
            let host = host.unwrap_or_default().trim_matches(['[', ']']);
            let ip = resolve(host)?;
            let comma = if given.is_empty() { "" } else { "," };
            Ok(format!("{given}{comma}addr={ip}"))
        }
        None => Ok(given.clone()),
    }
}

/// Says what went wrong without the options: one may be a password.
fn told(options: &Options, at: &Path, error: &io::Error) -> String {
    let hint = match error.raw_os_error() {
        Some(raw) if raw == rustix::io::Errno::NODEV.raw_os_error() => {
            "; the kernel of this node knows no such file system (/proc/filesystems)"
        }
        Some(raw) if raw == rustix::io::Errno::NOENT.raw_os_error() => {
            "; the device has to be there, on the node of the task"
        }
        Some(raw) if raw == rustix::io::Errno::INVAL.raw_os_error() => {
            "; the log of the kernel (dmesg) may say which option it does not take"
        }
        _ => "",
    };
    format!(
        "mount {} at {} (type {}): {error}{hint}",
        options.mount_device,
        at.display(),
        options.mount_type
    )
}

/// Mounts it at the folder of a volume.
///
/// # Errors
/// What the kernel or the resolver says, in a sentence that repeats no option.
pub(crate) fn mount_at(options: &Options, at: &Path) -> Result<(), String> {
    let words = read(&with_addresses(options)?);
    let done = match words.bind {
        Bind::No => mount_new(options, &words, at),
        bind => mount_folder(options, &words, bind, at),
    };
    done.map_err(|error| told(options, at, &error))?;
    if let Some(propagation) = words.propagation {
        mount_change(at, propagation)
            .map_err(|error| told(options, at, &io::Error::from(error)))?;
    }
    Ok(())
}

fn mount_new(options: &Options, words: &Words, at: &Path) -> io::Result<()> {
    let data = CString::new(words.data.as_str())?;
    let (device, kind) = (options.mount_device.as_str(), options.mount_type.as_str());
    Ok(mount(device, at, kind, words.flags, Some(data.as_c_str()))?)
}

fn mount_folder(options: &Options, words: &Words, bind: Bind, at: &Path) -> io::Result<()> {
    let device = options.mount_device.as_str();
    match bind {
        Bind::WithAllBelow => mount_bind_recursive(device, at)?,
        _ => mount_bind(device, at)?,
    }
    if !words.flags.is_empty() {
        // mount(2): a bind takes no other flags, those come in a second step.
        mount_remount(at, MountFlags::BIND | words.flags, "")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(kind: &str, device: &str, o: &str) -> Options {
        Options {
            mount_type: kind.to_owned(),
            mount_device: device.to_owned(),
            mount_opts: o.to_owned(),
            ..Options::default()
        }
    }

    #[test]
    fn words_become_flags_and_the_rest_is_data() {
        let words = read("ro,noexec,size=100m,,rw,uid=33,rshared");
        assert_eq!(words.flags, MountFlags::NOEXEC);
        assert_eq!(words.data, "size=100m,uid=33");
        assert_eq!(words.bind, Bind::No);
        let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
        assert_eq!(words.propagation, Some(shared));
        let words = read("bind,ro");
        assert_eq!(
            (words.bind, words.flags),
            (Bind::Folder, MountFlags::RDONLY)
        );
        assert!(words.data.is_empty());
        assert_eq!(read("rbind").bind, Bind::WithAllBelow);
        assert!(read("relatime").flags.contains(MountFlags::RELATIME));
    }

    #[test]
    fn names_of_servers_become_addresses() {
        let given = |kind: &str, device: &str, o: &str| with_addresses(&options(kind, device, o));
        assert_eq!(
            given("nfs", ":/srv", "addr=127.0.0.1,nfsvers=4").as_deref(),
            Ok("addr=127.0.0.1,nfsvers=4")
        );
        let resolved = given("nfs", ":/srv", "nfsvers=4,addr=localhost").expect("known");
        assert!(
            resolved == "nfsvers=4,addr=127.0.0.1" || resolved == "nfsvers=4,addr=::1",
            "{resolved}"
        );
        assert_eq!(
            given("tmpfs", "tmpfs", "addr=localhost").as_deref(),
            Ok("addr=localhost")
        );
        let resolved = given("cifs", "//localhost/share", "username=u").expect("known");
        assert!(resolved.starts_with("username=u,addr="), "{resolved}");
    }

    #[test]
    fn what_cannot_be_mounted_is_told_without_passwords() {
        let dir = tempfile::tempdir().expect("a folder");
        let bad = options("nosuchfs", "none", "password=geheim");
        let why = mount_at(&bad, dir.path()).expect_err("no such file system");
        assert!(why.contains("type nosuchfs"), "{why}");
        assert!(!why.contains("geheim"), "{why}");
    }
}
