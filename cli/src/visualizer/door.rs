//! Where the page is asked for.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::args::Listen;

/// A socket that listens. A file is removed when this is dropped.
#[derive(Debug)]
pub(super) enum Door {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

/// Somebody who asks.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Door {
    /// # Errors
    /// The address is taken or not this machine's, or the file cannot be made.
    pub(super) async fn open(listen: &Listen) -> anyhow::Result<Self> {
        match listen {
            Listen::Tcp(addr) => {
                let listener = TcpListener::bind(addr).await;
                let listener = listener.with_context(|| {
                    format!("cannot listen on {addr}; choose another one with --listen ADDR:PORT")
                })?;
                let addr = listener.local_addr()?;
                Ok(Self::Tcp(listener, addr))
            }
            Listen::Unix(path) => {
                remove_stale(path).await?;
                let listener = UnixListener::bind(path);
                let listener =
                    listener.with_context(|| format!("cannot listen on {}", path.display()))?;
                let door = Self::Unix(listener, path.clone());
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
                Ok(door)
            }
        }
    }

    /// Whether only programs of this machine come through.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(_, addr) => addr.ip().is_loopback(),
            // Nobody's browser opens it.
            Self::Unix(..) => false,
        }
    }

    /// Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener, _) => Ok(Accepted::Tcp(listener.accept().await?.0)),
            Self::Unix(listener, _) => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(_, addr) => write!(f, "http://{addr}/"),
            Self::Unix(_, path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // One that is gone already is what was wanted.
            drop(std::fs::remove_file(path));
        }
    }
}

/// Removes a socket that a process left behind which was killed.
async fn remove_stale(path: &Path) -> anyhow::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot look at {}", path.display()));
        }
        Ok(file) if !file.file_type().is_socket() => bail!(
            "{} exists and is not a socket: move it away, or choose another path",
            path.display()
        ),
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot tell who has {}", path.display())),
        Ok(_) => bail!(
            "another process listens on {}: choose another path",
            path.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_of_a_dead_process_is_replaced_and_one_of_a_living_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listen = Listen::Unix(path.clone());
        let door = Door::open(&listen).await.unwrap();
        let error = Door::open(&listen).await.unwrap_err();
        assert!(error.to_string().contains("another process"), "{error:#}");
        drop(door);
        assert!(!path.exists());
        std::fs::write(&path, "").unwrap();
        let error = Door::open(&listen).await.unwrap_err();
        assert!(error.to_string().contains("not a socket"), "{error:#}");
        assert!(path.exists());
    }
}
