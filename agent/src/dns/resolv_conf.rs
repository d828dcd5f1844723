//! The host's resolvers, as `resolv.conf`(5) names them.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::names::DNS_ADDR;

const PORT: u16 = 53;

/// Resolvers of a `resolv.conf`, in its order, without ourselves.
///
/// Read as libc reads it: any bytes, since comments may be in any encoding; line by line, so that
/// one that cannot be read does not cost the others; and of a `nameserver` line the first word,
/// whatever follows. Without such a line there are none.
#[must_use]
pub(crate) fn upstreams(text: &[u8]) -> Vec<SocketAddr> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| value(line, b"nameserver"))
        .filter_map(address)
        .filter(|upstream| upstream.ip() != *DNS_ADDR.ip())
        .collect()
}

/// The first word behind a keyword.
fn value<'l>(line: &'l [u8], keyword: &[u8]) -> Option<&'l [u8]> {
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    words.next().filter(|word| *word == keyword)?;
    words.next()
}

/// An address, of IPv6 perhaps with the name or number of an interface behind a `%`. Names of
/// interfaces may have any bytes but `/` and white space.
fn address(word: &[u8]) -> Option<SocketAddr> {
    let zone = word.iter().position(|byte| *byte == b'%');
    let (ip, zone) = match zone {
        Some(at) => (word.get(..at)?, word.get(at + 1..)),
        None => (word, None),
    };
    let ip: IpAddr = std::str::from_utf8(ip).ok()?.parse().ok()?;
    match (ip, zone) {
        (IpAddr::V6(ip), Some(zone)) => {
            Some(SocketAddrV6::new(ip, PORT, 0, interface_index(zone)?).into())
        }
        (ip, _) => Some(SocketAddr::new(ip, PORT)),
    }
}

fn interface_index(zone: &[u8]) -> Option<u32> {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.trim().parse().ok();
    if let Some(index) = text(zone) {
        return Some(index);
    }
    if zone.is_empty() || zone.contains(&b'/') || zone.starts_with(b".") {
        return None;
    }
    let path = Path::new("/sys/class/net").join(OsStr::from_bytes(zone));
    text(&fs::read(path.join("ifindex")).ok()?)
}

/// What a `resolv.conf` holds now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The resolvers that it names.
    pub(super) upstreams: Vec<SocketAddr>,
    /// It has text, and still names none that can be asked.
    pub(super) useless: bool,
}

/// Notices changes of a `resolv.conf`, also when it is replaced or is a link that moves.
#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    seen: Option<Stamp>,
}

type Stamp = (u64, u64, i64, i64, u64);

impl Watched {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            seen: None,
        }
    }

    /// The resolvers when the file is not what it was at the last call; `None` when it is. A file
    /// that is gone is empty.
    ///
    /// # Errors
    /// The file is there and cannot be read; tried again at the next call.
    pub(super) fn changed(&mut self) -> io::Result<Option<Found>> {
        let stamp = match fs::metadata(&self.path) {
            Ok(metadata) => stamp(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Stamp::default(),
            Err(error) => return Err(error),
        };
        if self.seen == Some(stamp) {
            return Ok(None);
        }
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        self.seen = Some(stamp);
        let upstreams = upstreams(&text);
        let useless = upstreams.is_empty() && !text.trim_ascii().is_empty();
        Ok(Some(Found { upstreams, useless }))
    }
}

fn stamp(metadata: &Metadata) -> Stamp {
    (
        metadata.dev(),
        metadata.ino(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.len(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_in_order_and_never_ourselves() {
        let text = "# made by hand\nsearch example.org\nnameserver 192.0.2.1\n\
                    nameserver 127.0.0.11\nnameserver 2001:db8::1\noptions ndots:0\n";
        let expected: Vec<SocketAddr> = vec![
            "192.0.2.1:53".parse().unwrap(),
            "[2001:db8::1]:53".parse().unwrap(),
        ];
        assert_eq!(upstreams(text.as_bytes()), expected);
    }

    #[test]
    fn a_loopback_stub_of_the_host_counts() {
        assert_eq!(
            upstreams(b"nameserver 127.0.0.53\n"),
            ["127.0.0.53:53".parse().unwrap()]
        );
    }

    #[test]
    fn bad_lines_do_not_cost_the_others() {
        let text = "nameserver\nnameserver 1.2.3\nfrobnicate yes\noptions ndots:foobar\n\
                    nameserver 192.0.2.9\n";
        assert_eq!(
            upstreams(text.as_bytes()),
            ["192.0.2.9:53".parse().unwrap()]
        );
        assert!(upstreams(b"").is_empty());
    }

    /// Seen in the field: a second word behind the address, comments in Latin-1.
    #[test]
    fn files_are_read_as_libc_reads_them() {
        for (text, expected) in [
            (&b"nameserver 10.77.0.254 eth0\n"[..], "10.77.0.254:53"),
            (b"nameserver 192.0.2.1 192.0.2.2\n", "192.0.2.1:53"),
            (b"# caf\xe9\nnameserver 192.0.2.1\n", "192.0.2.1:53"),
            (b"nameserver\t192.0.2.1\t; x\r\n", "192.0.2.1:53"),
            (b"nameserver 192.0.2.1 \xff\n", "192.0.2.1:53"),
            (b"nameserver 192.0.2.1\xff\nnameserver ::1", "[::1]:53"),
            (b"nameservers 192.0.2.9\nnameserver ::1", "[::1]:53"),
            (b"#nameserver 192.0.2.9\nnameserver ::1", "[::1]:53"),
        ] {
            let found = upstreams(text);
            assert_eq!(found, [expected.parse().unwrap()], "{text:?}");
        }
        assert!(upstreams(b"nameserver fe80::1%../lo\nnameserver fe80::1%\n").is_empty());
        assert_eq!(interface_index(b"lo"), Some(1));
        assert_eq!(interface_index(b"br-no.such_0@x"), None);
    }

    fn found(upstreams: &[&str], useless: bool) -> Found {
        let upstreams = upstreams.iter().map(|text| text.parse().unwrap());
        Found {
            upstreams: upstreams.collect(),
            useless,
        }
    }

    #[test]
    fn a_file_that_names_nobody_is_told_from_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let mut watched = Watched::new(&path);
        fs::write(&path, "nameserver resolver.example\n").unwrap();
        assert_eq!(watched.changed().unwrap(), Some(found(&[], true)));
        fs::write(&path, " \n").unwrap();
        assert_eq!(watched.changed().unwrap(), Some(found(&[], false)));
    }

    #[test]
    fn link_local_addresses_keep_their_interface() {
        let found = upstreams(b"nameserver fe80::1%lo\nnameserver fe80::2%nosuchif0\n");
        let SocketAddr::V6(first) = found[0] else {
            panic!("not v6: {found:?}")
        };
        assert_eq!((found.len(), first.scope_id()), (1, 1));
    }

    #[test]
    fn changes_are_noticed_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let mut watched = Watched::new(&path);
        assert_eq!(watched.changed().unwrap(), Some(found(&[], false)));
        assert_eq!(watched.changed().unwrap(), None);
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(
            watched.changed().unwrap(),
            Some(found(&["192.0.2.1:53"], false))
        );
        assert_eq!(watched.changed().unwrap(), None);
        let new = dir.path().join("new");
        fs::write(&new, "nameserver 192.0.2.2\n").unwrap();
        fs::rename(&new, &path).unwrap();
        assert_eq!(
            watched.changed().unwrap(),
            Some(found(&["192.0.2.2:53"], false))
        );
    }
}
