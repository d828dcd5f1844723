//! The host's resolvers, as `resolv.conf`(5) names them.

use std::fs::{self, Metadata};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use resolv_conf::{Config, ScopedIp};

/// Where the host keeps it.
pub const HOST_PATH: &str = "/etc/resolv.conf";

/// Address of the resolver inside sandboxes. As an upstream it would be ourselves.
pub const SANDBOX_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

const PORT: u16 = 53;

/// Resolvers of a `resolv.conf`, in its order, without ourselves.
///
/// Lines are read one by one, as libc does: one that cannot be read does not cost the others.
/// Without a `nameserver` line there are none.
#[must_use]
pub fn upstreams(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| Config::parse(line).ok())
        .flat_map(|config| config.nameservers)
        .filter_map(address)
        .filter(|upstream| upstream.ip() != IpAddr::V4(SANDBOX_ADDRESS))
        .collect()
}

fn address(nameserver: ScopedIp) -> Option<SocketAddr> {
    match nameserver {
        ScopedIp::V4(ip) => Some(SocketAddr::new(ip.into(), PORT)),
        ScopedIp::V6(ip, None) => Some(SocketAddr::new(ip.into(), PORT)),
        ScopedIp::V6(ip, Some(interface)) => {
            let index = interface
                .parse()
                .ok()
                .or_else(|| interface_index(&interface))?;
            Some(SocketAddrV6::new(ip, PORT, 0, index).into())
        }
    }
}

fn interface_index(name: &str) -> Option<u32> {
    if name.contains('/') {
        return None;
    }
    let text = fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?;
    text.trim().parse().ok()
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
    pub(super) fn changed(&mut self) -> io::Result<Option<Vec<SocketAddr>>> {
        let stamp = match fs::metadata(&self.path) {
            Ok(metadata) => stamp(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Stamp::default(),
            Err(error) => return Err(error),
        };
        if self.seen == Some(stamp) {
            return Ok(None);
        }
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        self.seen = Some(stamp);
        Ok(Some(upstreams(&text)))
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
        assert_eq!(upstreams(text), expected);
    }

    #[test]
    fn a_loopback_stub_of_the_host_counts() {
        assert_eq!(
            upstreams("nameserver 127.0.0.53\n"),
            ["127.0.0.53:53".parse().unwrap()]
        );
    }

    #[test]
    fn bad_lines_do_not_cost_the_others() {
        let text = "nameserver\nnameserver 1.2.3\nfrobnicate yes\noptions ndots:foobar\n\
                    nameserver 192.0.2.9\n";
        assert_eq!(upstreams(text), ["192.0.2.9:53".parse().unwrap()]);
        assert!(upstreams("").is_empty());
    }

    #[test]
    fn link_local_addresses_keep_their_interface() {
        let found = upstreams("nameserver fe80::1%lo\nnameserver fe80::2%nosuchif0\n");
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
        assert_eq!(watched.changed().unwrap(), Some(vec![]));
        assert_eq!(watched.changed().unwrap(), None);
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(
            watched.changed().unwrap(),
            Some(vec!["192.0.2.1:53".parse().unwrap()])
        );
        assert_eq!(watched.changed().unwrap(), None);
        let new = dir.path().join("new");
        fs::write(&new, "nameserver 192.0.2.2\n").unwrap();
        fs::rename(&new, &path).unwrap();
        assert_eq!(
            watched.changed().unwrap(),
            Some(vec!["192.0.2.2:53".parse().unwrap()])
        );
    }
}
