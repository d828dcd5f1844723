//! Flows of an earlier process, taken up again.

use crate::context::{Context, port_load};
use crate::flow::{FlowKind, Origin};
use crate::journal::{Journal, Record, SavedOrigin, decode, is_shared};
use crate::store::{FlowId, Keyed};
use crate::table::FlowTable;

impl FlowTable {
    /// Keeps records from now on. Those of an earlier process may be in it, until
    /// [`FlowTable::clear_journal`].
    pub fn set_journal(&mut self, journal: Box<dyn Journal>) {
        self.records.set(journal);
    }

    /// Takes out the records of an earlier process: before the table has a flow, and not long before
    /// [`FlowTable::restore`], as a process that ends between both has lost them.
    pub fn clear_journal(&mut self) {
        self.records.clear();
    }

    /// Takes up flows of an earlier process, whose journal must be empty again by now. `origin`
    /// says where a client is; records of flows without one, or without their replica, stay in
    /// `records`, as these may come later. Returns how many there are.
    pub fn restore(
        &mut self,
        cx: &Context<'_>,
        records: &mut Vec<Record>,
        mut origin: impl FnMut(SavedOrigin) -> Option<Origin>,
    ) -> usize {
        let before = records.len();
        records.retain(|record| self.restore_one(cx, record, &mut origin).is_none());
        before - records.len()
    }

    fn restore_one(
        &mut self,
        cx: &Context<'_>,
        record: &Record,
        origin: &mut impl FnMut(SavedOrigin) -> Option<Origin>,
    ) -> Option<FlowId> {
        let mut flow = decode(record, cx.now, origin)?;
        flow.serial = self.next_serial();
        if flow.kind == FlowKind::Owned {
            let service = cx
                .services
                .service_of_replica(flow.origin.vni(), flow.replica_key)?;
            flow.limited = self.clients.limited(&flow.origin, service);
            let replica = cx.services.replica(flow.origin.vni(), flow.replica_key)?;
            let port = port_load(cx, &flow.origin, &flow.forward);
            flow.open = Some(replica.load.open().at_port(port));
        }
        let taken = self.store.find_reverse(&flow.reverse).is_some()
            || (flow.has_forward() && self.store.find_forward(&flow.forward).is_some());
        if taken {
            return None;
        }
        // Without a claim, should two of them meet in one place by chance: they differed before.
        flow.claimed = is_shared(&flow) && self.config.claims.claim(&flow.reverse);
        self.insert(flow)
    }
}
