//! openraft's own suite for stores.

use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;
use tokio::sync::watch;

use super::*;
use crate::raft::file::RaftFile;
use crate::raft::log::LogStore;
use crate::raft::machine::Machine;
use crate::raft::medium::OnDisk;
use crate::raft::seal::Seal;
use crate::raft::types::{StorageError, Types};

struct Builder;

impl StoreBuilder<Types, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError> {
        let dir = tempfile::tempdir().expect("a folder");
        let medium = Box::new(OnDisk(dir.path().join("raft.redb")));
        let disk = DiskThread::start("test-store");
        let file = Arc::new(RaftFile::found(medium, Seal::new(key()), 0, disk).expect("a file"));
        let machine = Machine {
            file: Arc::clone(&file),
            states: watch::Sender::new(Arc::default()),
        };
        Ok((dir, LogStore(file), machine))
    }
}

#[test]
fn the_file_passes_openrafts_suite() {
    Suite::<Types, LogStore, Machine, Builder, TempDir>::test_all(Builder).expect("it passes");
}
