//! What is mounted, as proc_pid_mountinfo(5) tells.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount of the calling thread's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// Where it is.
    pub(crate) point: PathBuf,
    /// `shared:N`, `master:N`, …
    pub(crate) optional: Vec<String>,
    /// Kind of file system, such as `ext4`.
    pub(crate) kind: String,
    /// Options of the file system, with commas.
    pub(crate) options: String,
}

impl Mounted {
    /// Mounts below it appear where it is bound to.
    pub(crate) fn is_shared(&self) -> bool {
        self.optional.iter().any(|word| word.starts_with("shared:"))
    }

    /// Mounts of where it comes from appear here.
    pub(crate) fn is_slave(&self) -> bool {
        self.optional.iter().any(|word| word.starts_with("master:"))
    }
}

/// Everything that is mounted, in the order of mounting.
///
/// # Errors
/// There is no `/proc`.
pub(crate) fn read() -> io::Result<Vec<Mounted>> {
    // Of the thread: it may be in a mount namespace of its own.
    std::fs::read("/proc/thread-self/mountinfo").map(|text| parse(&text))
}

/// Lines that are none are left out.
pub(crate) fn parse(text: &[u8]) -> Vec<Mounted> {
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

fn line(text: &[u8]) -> Option<Mounted> {
    let mut fields = text.split(|byte| *byte == b' ');
    let point = unescaped(fields.nth(4)?);
    let word = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    fields.next()?;
    let optional = fields.by_ref().take_while(|field| *field != b"-");
    let optional = optional.map(word).collect();
    let kind = word(fields.next()?);
    Some(Mounted {
        point,
        optional,
        kind,
        options: word(fields.nth(1)?),
    })
}

/// Octal escapes stand for blanks and backslashes.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *byte == b'\\');
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) => {
                out.push(escaped);
                rest = &after[3..];
            }
            None => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

/// The mount that `path`, which has no links in it, is on.
pub(crate) fn holding<'a>(mounts: &'a [Mounted], path: &Path) -> Option<&'a Mounted> {
    // Of two at one place the later one is seen.
    mounts
        .iter()
        .filter(|mounted| path.starts_with(&mounted.point))
        .max_by_key(|mounted| mounted.point.components().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_with_blanks_and_propagation() {
        let text = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
            30 22 0:26 / /mnt/a\\040b rw,nosuid shared:7 master:2 - tmpfs tmpfs rw,mode=755\n\
            31 22 0:27 / /mnt rw - tmpfs tmpfs rw\n\
            nonsense\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 3, "{mounts:?}");
        assert_eq!(mounts[1].point, Path::new("/mnt/a b"));
        assert!(mounts[1].is_shared() && mounts[1].is_slave());
        assert!(!mounts[2].is_shared() && !mounts[2].is_slave());
        assert_eq!(
            (&*mounts[1].kind, &*mounts[1].options),
            ("tmpfs", "rw,mode=755")
        );
        let on = |path: &str| holding(&mounts, Path::new(path)).map(|m| m.point.clone());
        assert_eq!(on("/mnt/a b/c"), Some("/mnt/a b".into()));
        assert_eq!(on("/mnt/x"), Some("/mnt".into()));
        assert_eq!(on("/home"), Some("/".into()));
    }
}
