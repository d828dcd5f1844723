//! The files that hold a node's last orders, so that a restart without managers changes nothing.
//!
//! The half of all nodes is large in a large cluster, and changes often: its file holds it as a whole
//! and, after it, what has changed since. Now and then it is written as a whole again.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use weft_model::assignment::change::SharedChange;
use weft_model::assignment::{Assignment, Own, Shared};
use weft_sys::state_file::{self, Found};

use crate::identity::{Identity, IdentityError, replace_private};
use crate::proto::SessionMessage;

/// The half of this node, and the one of all nodes.
pub(crate) const ASSIGNMENT_FILE: &str = "assignment.json";
pub(crate) const SHARED_FILE: &str = "shared.json";

/// Bytes of changes that a file may hold after the whole, if that has not more.
const SMALL: usize = 64 << 10;

/// Changes that a file may hold after the whole: each is carried out when the agent starts, on lists
/// as long as the cluster is large.
const MAX_CHANGES: usize = 256;

/// Where the last orders are.
#[derive(Debug, Clone)]
pub(crate) struct AssignmentFile {
    shared: PathBuf,
    own: PathBuf,
    written: Arc<Mutex<Written>>,
}

/// What this process has written of the half of all nodes, in bytes.
#[derive(Debug, Default)]
struct Written {
    /// As a whole; 0 before the first time, and when a change was perhaps written in part.
    whole: usize,
    /// After that.
    changes: usize,
    /// How many those are.
    count: usize,
}

impl AssignmentFile {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self {
            shared: data_dir.join(SHARED_FILE),
            own: data_dir.join(ASSIGNMENT_FILE),
            written: Arc::default(),
        }
    }

    /// Orders for this identity; nothing when there are none, or none that can be read. A manager
    /// sends them again.
    pub(crate) fn load(&self, identity: &Identity) -> Option<Assignment> {
        let shared: Arc<Shared> = Arc::new(read(&self.shared, with_changes)?);
        let own: Arc<Own> = Arc::new(read(&self.own, from_json)?);
        let mine = own.node.id == *identity.node_id() && shared.cluster_id == identity.cluster_id();
        mine.then_some(Assignment {
            shared,
            own,
            payloads: Arc::default(),
        })
    }

    /// Keeps what a message brings: first the half that the other one refers to, which is `shared`
    /// with the message. Who is killed after this finds them again; who loses power may not before
    /// [`Self::sync`].
    pub(crate) fn keep(
        &self,
        message: &SessionMessage,
        shared: &Shared,
    ) -> Result<(), IdentityError> {
        let changes = &message.shared_changes_json;
        if let Some(whole) = &message.shared_json {
            self.replace_shared(whole, changes)?;
        } else if !changes.is_empty() {
            self.append(changes, shared)?;
        }
        if let Some(own) = &message.own_json {
            replace_private(&self.own, own)?;
        }
        Ok(())
    }

    fn written(&self) -> std::sync::MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace_shared(&self, whole: &[u8], changes: &[Bytes]) -> Result<(), IdentityError> {
        let lines = lines(changes);
        let mut written = self.written();
        *written = Written::default();
        if lines.is_empty() {
            replace_private(&self.shared, whole)?;
        } else {
            replace_private(&self.shared, &[whole, lines.as_slice()].concat())?;
        }
        *written = Written {
            whole: whole.len(),
            changes: lines.len(),
            count: changes.len(),
        };
        Ok(())
    }

    /// Adds changes, which lead to `shared`, to what the file holds.
    fn append(&self, changes: &[Bytes], shared: &Shared) -> Result<(), IdentityError> {
        let lines = lines(changes);
        let mut written = self.written();
        let room = written.whole.max(SMALL);
        let many = written.count + changes.len() > MAX_CHANGES;
        if written.whole == 0 || many || written.changes + lines.len() > room {
            drop(written);
            let whole = serde_json::to_vec(shared).map_err(|e| self.failed(io::Error::other(e)))?;
            return self.replace_shared(&whole, &[]);
        }
        let file = std::fs::File::options().append(true).open(&self.shared);
        if let Err(source) = file.and_then(|mut file| file.write_all(&lines)) {
            written.whole = 0;
            return Err(self.failed(source));
        }
        written.changes += lines.len();
        written.count += changes.len();
        Ok(())
    }

    fn failed(&self, source: io::Error) -> IdentityError {
        IdentityError::File {
            action: "write",
            path: self.shared.clone(),
            source,
        }
    }

    /// Makes what was written last outlive the loss of power. Takes as long as the disk is busy;
    /// nothing to do when the files are gone.
    pub(crate) fn sync(&self) -> io::Result<()> {
        for path in [&self.shared, &self.own] {
            match std::fs::File::open(path) {
                Ok(file) => file.sync_all()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        match self.own.parent() {
            Some(dir) => std::fs::File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }
}

/// Each change on a line of its own, after the line before.
fn lines(changes: &[Bytes]) -> Vec<u8> {
    let lines = changes.iter().flat_map(|change| [&b"\n"[..], &change[..]]);
    lines.collect::<Vec<&[u8]>>().concat()
}

fn from_json<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(text)
}

/// The half of all nodes, with the changes after it up to the first that cannot be read: whoever was
/// killed at writing that one has not acted on it.
fn with_changes(text: &[u8]) -> serde_json::Result<Shared> {
    let mut rest = serde_json::Deserializer::from_slice(text);
    let mut shared = Shared::deserialize(&mut rest)?;
    for change in rest.into_iter::<SharedChange>() {
        let next = match &change {
            Ok(change) => shared.with(change).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match next {
            Ok(next) => shared = next,
            Err(error) => {
                let version = shared.version;
                tracing::warn!(
                    version,
                    error,
                    "the last orders end with a part of a change"
                );
                break;
            }
        }
    }
    Ok(shared)
}

/// One half; nothing when there is none, or none that can be read. A damaged one is set aside and
/// in the log.
fn read<T>(path: &Path, parse: fn(&[u8]) -> serde_json::Result<T>) -> Option<T> {
    match state_file::read_as(path, parse) {
        Ok(Found::Value(half)) => Some(half),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot read the last orders");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::orders::tests::{adds, message, next, own, payload, shared, using, with_payloads};

    fn held(files: &AssignmentFile) -> Shared {
        read(&files.shared, with_changes).expect("orders")
    }

    #[test]
    fn changes_follow_the_whole_until_that_is_written_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = AssignmentFile::new(dir.path());
        let size = || std::fs::metadata(&files.shared).expect("a file").len();
        let first = message(Some(&shared(1, &[])), &[], Some(&own(1)));
        let mut orders = next(None, &first).expect("orders");
        files.keep(&first, &orders.shared).expect("written");
        let (mut largest, mut anew) = (0, 0);
        for version in 1..2000 {
            // As in a cluster where things come and go: the whole does not grow.
            let mut change = adds(version, &format!("peer{version:04}"));
            change.peers.gone = vec![format!("peer{:04}", version - 1).as_str().into()];
            let message = message(None, &[change], None);
            orders = next(Some(&orders), &message).expect("orders");
            let before = size();
            files.keep(&message, &orders.shared).expect("written");
            anew += usize::from(size() < before);
            largest = largest.max(size());
            if version % 100 == 0 {
                assert_eq!(held(&files), *orders.shared);
            }
        }
        assert_eq!(held(&files), *orders.shared);
        assert!(anew > 1 && largest <= 2 * SMALL as u64, "{anew}, {largest}");
        let mode = std::fs::metadata(&files.shared)
            .expect("a file")
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        // Another process goes on from the whole.
        let files = AssignmentFile::new(dir.path());
        let version = orders.shared.version;
        let more = message(None, &[adds(version, "x")], None);
        let after = next(Some(&orders), &more).expect("orders");
        files.keep(&more, &after.shared).expect("written");
        assert_eq!(held(&files), *after.shared);
        let text = std::fs::read(&files.shared).expect("a file");
        assert!(
            serde_json::from_slice::<Shared>(&text).is_ok(),
            "as a whole"
        );
    }

    #[test]
    fn what_a_killed_writer_left_in_part_does_not_count() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = AssignmentFile::new(dir.path());
        let first = message(Some(&shared(1, &[])), &[adds(1, "a")], Some(&own(1)));
        let orders = next(None, &first).expect("orders");
        files.keep(&first, &orders.shared).expect("written");
        let more = message(None, &[adds(2, "b")], None);
        let after = next(Some(&orders), &more).expect("orders");
        files.keep(&more, &after.shared).expect("written");
        let text = std::fs::read(&files.shared).expect("a file");
        let last = text.iter().rposition(|b| *b == b'\n').expect("a line");
        for end in last..text.len() {
            std::fs::write(&files.shared, &text[..end]).expect("written");
            assert_eq!(held(&files), *orders.shared, "{end}");
        }
        // One that does not fit is as good as one that cannot be read.
        let mut stray = text;
        stray.extend_from_slice(&text_of(&adds(7, "z")));
        std::fs::write(&files.shared, stray).expect("written");
        assert_eq!(held(&files), *after.shared);
    }

    #[test]
    fn no_byte_of_a_secret_is_written_and_who_starts_has_none() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = AssignmentFile::new(dir.path());
        let secret = payload("a", b"correct horse battery staple");
        let first = message(Some(&shared(1, &[])), &[], Some(&using(1, &["a"])));
        let first = with_payloads(first, std::slice::from_ref(&secret));
        let orders = next(None, &first).expect("orders");
        assert_eq!(orders.payloads.len(), 1);
        files.keep(&first, &orders.shared).expect("written");
        let alone = with_payloads(message(None, &[], None), std::slice::from_ref(&secret));
        files
            .keep(&alone, &orders.shared)
            .expect("nothing to write");
        let mut whole = shared(1, &[]);
        whole.version += 1;
        let more = message(Some(&whole), &[], Some(&using(2, &["a"])));
        let more = with_payloads(more, &[secret]);
        files.keep(&more, &whole).expect("written");
        let written = std::fs::read_dir(dir.path()).expect("a folder");
        let written: Vec<Vec<u8>> = written
            .map(|file| std::fs::read(file.expect("a file").path()).expect("bytes"))
            .collect();
        assert_eq!(written.len(), 2, "both halves");
        // As it is, and in base64.
        for form in ["horse battery", "Bob3JzZSBiYXR0ZXJ5"] {
            let has = |text: &Vec<u8>| text.windows(form.len()).any(|w| w == form.as_bytes());
            assert!(!written.iter().any(has), "{form}");
        }
        let orders: Own = read(&files.own, from_json).expect("orders");
        let used = &orders.tasks[0].spec.container.secrets[0];
        assert_eq!(used.id.as_str(), "a", "which ones it uses is there");
    }

    fn text_of(change: &SharedChange) -> Vec<u8> {
        lines(&[Bytes::from(serde_json::to_vec(change).expect("JSON"))])
    }
}
