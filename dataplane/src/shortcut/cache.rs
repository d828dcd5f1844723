//! What decisions need of the kernel's flow cache: tables that they are written to, and memory in which
//! both sides see what the other one says. Tests put a model of the programs in its place.

use weft_fastpath::{
    Epochs, FlowCache, FlowKey, Heartbeat, InEntry, InstallError, Installer, OutEntry, RecordId,
    Records,
};

/// The tables of entries, as one worker writes them ([`Installer`]).
pub(crate) trait Entries {
    /// Why an entry was not written.
    type Refusal: std::fmt::Display;

    /// From now on a flow leaves its sandbox by the programs. An entry of the same key is replaced.
    fn put_out(&mut self, key: FlowKey, entry: OutEntry) -> Result<(), Self::Refusal>;

    /// From now on a flow from another node reaches its sandbox by the programs.
    fn put_in(&mut self, key: FlowKey, entry: InEntry) -> Result<(), Self::Refusal>;

    /// Whether the entry of what leaves counts in this record: another worker may have written its own
    /// in the place.
    fn is_of(&self, key: FlowKey, record: RecordId) -> bool {
        self.record_of(key) == Some(record)
    }

    /// The record in which the entry of what leaves counts, where there is one.
    fn record_of(&self, key: FlowKey) -> Option<RecordId>;

    /// The same of the entry of what comes from another node.
    fn record_in(&self, key: FlowKey) -> Option<RecordId>;

    /// Deletes the entry of what leaves; none is success.
    fn remove_out(&mut self, key: FlowKey);

    /// Deletes the entry of what comes from another node; none is success.
    fn remove_in(&mut self, key: FlowKey);
}

impl Entries for Installer {
    type Refusal = InstallError;

    fn put_out(&mut self, key: FlowKey, entry: OutEntry) -> Result<(), InstallError> {
        Self::put_out(self, key, entry)
    }

    fn put_in(&mut self, key: FlowKey, entry: InEntry) -> Result<(), InstallError> {
        Self::put_in(self, key, entry)
    }

    fn record_of(&self, key: FlowKey) -> Option<RecordId> {
        Self::record_of(self, key)
    }

    fn record_in(&self, key: FlowKey) -> Option<RecordId> {
        Self::record_in(self, key)
    }

    fn remove_out(&mut self, key: FlowKey) {
        Self::remove_out(self, key);
    }

    fn remove_in(&mut self, key: FlowKey) {
        Self::remove_in(self, key);
    }
}

/// Memory that the programs see as well.
pub(crate) trait Memory {
    /// What was carried, flow by flow.
    fn records(&self) -> &Records;

    /// Which entries hold.
    fn epochs(&self) -> &Epochs;

    /// Until when.
    fn heartbeat(&self) -> &Heartbeat;
}

impl Memory for FlowCache {
    fn records(&self) -> &Records {
        &self.records
    }

    fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    fn heartbeat(&self) -> &Heartbeat {
        &self.heartbeat
    }
}
