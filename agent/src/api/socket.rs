//! The unix socket of the API: who owns the file, and who may talk.

use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use tokio::net::UnixListener;
use tokio::sync::watch;

use super::error::ApiError;
use super::images::ImageCalls;
use super::payloads::PayloadCalls;
use super::routes::router;
use super::service::{NodeService, SwarmCalls};

/// How long open calls may take to finish once the node stops.
const DRAIN: Duration = Duration::from_secs(5);

/// The socket could not be made. Nothing was changed, except that missing parent directories may
/// have been created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// Another process answers on the socket.
    #[error(
        "another process answers on {path}: is weftd running already? Stop it, or choose another \
         socket with `-H unix://PATH`"
    )]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The path holds something that is no socket.
    #[error(
        "{path} exists and is not a socket: move it away, or choose another path with `-H unix://PATH`"
    )]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// A listening API socket. The file is removed when this value is dropped.
#[derive(Debug)]
pub(crate) struct ApiSocket {
    listener: Option<UnixListener>,
    file: SocketFile,
}

impl ApiSocket {
    /// Listens on `path` with mode 0660; missing parent directories are made with mode 0755.
    ///
    /// A socket file that a killed process left behind is replaced; one that somebody answers on
    /// is an error. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub(crate) fn bind(path: &Path) -> Result<Self, SocketError> {
        let io_error = |what| {
            move |source| SocketError::Io {
                what,
                path: path.to_owned(),
                source,
            }
        };
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)
                .map_err(io_error("create the directory of"))?;
        }
        remove_stale(path)?;
        let listener = UnixListener::bind(path).map_err(io_error("listen on"))?;
        let file = SocketFile::own(path).map_err(io_error("examine"))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
            .map_err(io_error("set the mode of"))?;
        Ok(Self {
            listener: Some(listener),
            file,
        })
    }

    /// Where the socket is.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.file.path
    }

    /// Answers calls until `shutdown` becomes true (or its sender is gone), then lets open calls
    /// finish for at most five seconds and removes the socket file.
    ///
    /// Cancel-safe: dropping the future closes the socket and removes the file.
    ///
    /// # Errors
    /// The listener failed.
    pub(crate) async fn serve<S>(
        mut self,
        service: Arc<S>,
        shutdown: watch::Receiver<bool>,
    ) -> io::Result<()>
    where
        S: NodeService + SwarmCalls + PayloadCalls + ImageCalls,
    {
        let Some(listener) = self.listener.take() else {
            return Ok(());
        };
        let app = router(service)
            .layer(from_fn_with_state(
                rustix::process::geteuid().as_raw(),
                only_owner,
            ))
            .into_make_service_with_connect_info::<Peer>();
        let mut stop = shutdown.clone();
        let server = axum::serve(listener, app).with_graceful_shutdown(async move {
            stopped(&mut stop).await;
        });
        let mut stop = shutdown;
        let deadline = async move {
            stopped(&mut stop).await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            result = async { server.await } => result,
            () = deadline => {
                tracing::warn!("calls of the node API were still open at shutdown and were cut off");
                Ok(())
            }
        }
    }
}

/// Waits until the flag is true; a sender that is gone counts as true.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    if let Err(gone) = shutdown.wait_for(|stop| *stop).await {
        tracing::debug!(%gone, "shutdown flag lost its owner");
    }
}

/// Removes the socket of a process that is gone.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let io_error = |what, source| SocketError::Io {
        what,
        path: path.to_owned(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io_error("examine", e)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(SocketError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse {
            path: path.to_owned(),
        }),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    Err(io_error("remove the stale socket", e))
                }
                _ => Ok(()),
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io_error("find out who answers on", e)),
    }
}

/// A socket file that we made; removed on drop, unless somebody has replaced it meanwhile.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl SocketFile {
    fn own(path: &Path) -> io::Result<Self> {
        let meta = std::fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            device_and_inode: (meta.dev(), meta.ino()),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| (meta.dev(), meta.ino()) == self.device_and_inode);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the API socket");
        }
    }
}

/// The process at the other end.
#[derive(Debug, Clone, Copy)]
struct Peer {
    /// `None` when the kernel does not tell.
    uid: Option<u32>,
    /// It is in a PID namespace below this one's.
    nested: bool,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let peer = stream.io().peer_cred().ok();
        Self {
            uid: peer.map(|peer| peer.uid()),
            nested: peer.and_then(|peer| peer.pid()).is_some_and(is_nested),
        }
    }
}

/// Whether a process is in a container or a task. One that this process cannot see, which the
/// kernel calls 0, is in a namespace above or beside; one that is gone needs no answer.
fn is_nested(pid: i32) -> bool {
    let namespace = |process: &str| {
        let path = format!("/proc/{process}/ns/pid");
        std::fs::metadata(path).ok().map(|file| file.ino())
    };
    // A `/proc` of another namespace would name another process by that number.
    let own = std::process::id().to_string();
    let ours = std::fs::read_link("/proc/self").is_ok_and(|link| link == Path::new(&own));
    pid > 0 && ours && namespace(&pid.to_string()) != namespace("self")
}

/// Lets root and the user that weftd runs as through, unless a task is root.
async fn only_owner(
    State(own): State<u32>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let checked = check_peer(own, peer.uid).and_then(|()| {
        if peer.nested {
            // A mask over the socket's path is gone with the next agent, which makes it anew.
            return Err(ApiError::forbidden(
                "processes of tasks and containers may not use this socket. Run the command on \
                 the node itself.",
            ));
        }
        Ok(())
    });
    match checked {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// The rule of [`only_owner`].
pub(super) fn check_peer(own: u32, peer: Option<u32>) -> Result<(), ApiError> {
    match peer {
        Some(uid) if uid == 0 || uid == own => Ok(()),
        Some(uid) => Err(ApiError::forbidden(format!(
            "user id {uid} may not use this socket: only root and user id {own}, which weftd \
             runs as. Run the command with sudo."
        ))),
        None => Err(ApiError::forbidden(
            "the kernel did not tell who is at the other end of this socket",
        )),
    }
}
