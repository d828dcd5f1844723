//! Entries of flows whose client belongs to one worker and whose replica to another: who reads the
//! replica's frames has to know whose they are.

use weft_mesh::Install;
use weft_sys::udp::worker_for;
use weft_vxlan::Destination;
use weft_wire::DropReason;

use crate::handover::Entry;
use crate::snapshot::Snapshot;
use crate::worker::Worker;

impl Worker {
    /// Takes in what other workers say about flows whose replica's frames this one reads.
    pub(crate) fn take_entries(&mut self) {
        let inbox = &self.shared.inboxes[self.index];
        while let Some(entry) = inbox.entries.pop() {
            match entry {
                // When the table is full the answer reaches the client as from a stranger, and
                // the client resets the connection.
                Entry::Install(install) => {
                    self.flows.install(self.now, install);
                }
                Entry::Remove(removal) => self.flows.uninstall(removal),
            }
        }
    }

    /// Gives the worker that reads the replica's frames its entry, unless that is this one.
    pub(crate) fn hand_entry(
        &self,
        snapshot: &Snapshot,
        replica: Destination,
        install: Install,
    ) -> Result<(), DropReason> {
        let Destination::Local(id) = replica else {
            return Ok(());
        };
        let port = snapshot.ports.get(&id).ok_or(DropReason::PortGone)?;
        if port.worker == self.index {
            return Ok(());
        }
        self.shared
            .inboxes
            .get(port.worker)
            .ok_or(DropReason::PortGone)?
            .entries
            .push(Entry::Install(install))
            .map_err(|_| DropReason::FlowTableFull)
    }

    /// Takes entries back from the workers that hold them.
    pub(crate) fn hand_removals(&mut self, snapshot: &Snapshot) {
        while let Some(removal) = self.flows.poll_removal() {
            let Some(vni) = removal.vni() else { continue };
            let port = snapshot
                .switch
                .neighbor(vni, removal.replica_ip())
                .and_then(|mac| snapshot.switch.lookup(vni, mac))
                .and_then(|to| match to {
                    Destination::Local(id) => snapshot.ports.get(&id),
                    Destination::Remote(_) => None,
                });
            // The rule that gave the port its worker still holds when the port is gone.
            let worker = port.map_or_else(
                || worker_for(removal.replica_ip(), self.shared.inboxes.len()),
                |p| p.worker,
            );
            if worker == self.index {
                continue;
            }
            let inbox = &self.shared.inboxes[worker];
            if inbox.entries.push(Entry::Remove(removal)).is_err() {
                tracing::debug!("letter box full: a guest entry lives until its table evicts it");
            } else if inbox.entries.len() == 1 {
                // An idle worker would keep the entry until its next frame.
                inbox.wakeup.notify();
            }
        }
    }
}
