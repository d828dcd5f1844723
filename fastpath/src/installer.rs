//! Writes entries of flows.

use aya::maps::{HashMap, Map, MapData, MapError};

use crate::entry::{FlowKey, IN, InEntry, KEY, OUT, OutEntry};
use crate::record::RecordId;

/// Why an entry was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// Local: the kernel refused; the table may be full.
    #[error("the kernel did not take an entry of the flow cache: {0}")]
    Kernel(#[from] MapError),
}

/// Writes and deletes entries; one for each worker. Each call is a call of the kernel, about 1 µs.
#[derive(Debug)]
pub struct Installer {
    out: HashMap<MapData, [u8; KEY], [u8; OUT]>,
    inward: HashMap<MapData, [u8; KEY], [u8; IN]>,
}

impl Installer {
    pub(crate) fn new(out: MapData, inward: MapData) -> Result<Self, MapError> {
        Ok(Self {
            out: HashMap::try_from(Map::HashMap(out))?,
            inward: HashMap::try_from(Map::HashMap(inward))?,
        })
    }

    /// From now on a flow leaves its sandbox by the programs. An entry of the same key is replaced.
    ///
    /// # Errors
    /// [`InstallError`]; the flow goes on by way of the worker.
    pub fn put_out(&mut self, key: FlowKey, entry: OutEntry) -> Result<(), InstallError> {
        Ok(self.out.insert(key.to_bytes(), entry.to_bytes(), 0)?)
    }

    /// From now on a flow from another node reaches its sandbox by the programs.
    ///
    /// # Errors
    /// As of [`Installer::put_out`].
    pub fn put_in(&mut self, key: FlowKey, entry: InEntry) -> Result<(), InstallError> {
        Ok(self.inward.insert(key.to_bytes(), entry.to_bytes(), 0)?)
    }

    /// The record in which the entry of what leaves counts, where there is one: another worker may have
    /// written its own in the place.
    #[must_use]
    pub fn record_of(&self, key: FlowKey) -> Option<RecordId> {
        let entry = self.out.get(&key.to_bytes(), 0).ok()?;
        let number = entry.first_chunk()?;
        Some(RecordId(u32::from_ne_bytes(*number)))
    }

    /// The same of the entry of what comes from another node.
    #[must_use]
    pub fn record_in(&self, key: FlowKey) -> Option<RecordId> {
        let entry = self.inward.get(&key.to_bytes(), 0).ok()?;
        let number = entry.first_chunk()?;
        Some(RecordId(u32::from_ne_bytes(*number)))
    }

    /// Deletes the entry of what leaves; none is success.
    pub fn remove_out(&mut self, key: FlowKey) {
        if let Err(error) = self.out.remove(&key.to_bytes()) {
            tracing::trace!(%error, "no entry to delete");
        }
    }

    /// Deletes the entry of what comes from another node; none is success.
    pub fn remove_in(&mut self, key: FlowKey) {
        if let Err(error) = self.inward.remove(&key.to_bytes()) {
            tracing::trace!(%error, "no entry to delete");
        }
    }

    /// How many there are, of both directions.
    #[cfg(test)]
    pub(crate) fn entries(&self) -> usize {
        self.out.keys().count() + self.inward.keys().count()
    }
}
