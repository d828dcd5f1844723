//! Who holds how much of a table, and what each may hold when it is full.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use weft_wire::PortId;

use crate::flow::Origin;

/// Entries by where their client is: one tenant for each port, and one for published ports, whose
/// clients are outside and cannot be told apart reliably.
#[derive(Debug)]
pub(crate) struct Tenants {
    mesh: usize,
    ports: HashMap<PortId, usize, FixedState>,
}

impl Tenants {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            mesh: 0,
            ports: HashMap::with_hasher(FixedState::with_seed(seed)),
        }
    }

    pub(crate) fn add(&mut self, origin: &Origin) {
        match origin {
            Origin::Mesh { .. } => self.mesh += 1,
            Origin::Port { port, .. } => *self.ports.entry(*port).or_default() += 1,
        }
    }

    pub(crate) fn take(&mut self, origin: &Origin) {
        match origin {
            Origin::Mesh { .. } => self.mesh = self.mesh.saturating_sub(1),
            Origin::Port { port, .. } => {
                if let Some(held) = self.ports.get_mut(port) {
                    *held = held.saturating_sub(1);
                    if *held == 0 {
                        self.ports.remove(port);
                    }
                }
            }
        }
    }

    /// Entries of a tenant.
    pub(crate) fn held(&self, origin: &Origin) -> usize {
        match origin {
            Origin::Mesh { .. } => self.mesh,
            Origin::Port { port, .. } => self.ports.get(port).copied().unwrap_or(0),
        }
    }

    /// What a tenant may hold of a full table of `capacity` entries, with `newcomer` among the
    /// tenants: published ports one half, because many clients share it, and each port an equal
    /// part of the other half. At least one entry.
    ///
    /// The parts add up to no more than the table: when it is full and somebody holds less than
    /// his part, somebody else holds more.
    pub(crate) fn part(&self, origin: &Origin, newcomer: &Origin, capacity: usize) -> usize {
        let mesh = self.mesh > 0 || matches!(newcomer, Origin::Mesh { .. });
        let known = match newcomer {
            Origin::Mesh { .. } => true,
            Origin::Port { port, .. } => self.ports.contains_key(port),
        };
        let ports = self.ports.len() + usize::from(!known);
        let for_mesh = match (mesh, ports) {
            (false, _) => 0,
            (true, 0) => capacity,
            (true, _) => capacity / 2,
        };
        match origin {
            Origin::Mesh { .. } => for_mesh,
            Origin::Port { .. } => (capacity - for_mesh) / ports.max(1),
        }
        .max(1)
    }
}
