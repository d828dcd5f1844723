//! Packets for a replica that do not fit in its network.

use std::net::IpAddr;
use std::sync::Arc;

use weft_mesh::Reverse;
use weft_wire::frame::{Frame, parse};
use weft_wire::{DropReason, IpInfo, Vni};

use crate::frame_slot::Held;
use crate::port::Port;
use crate::snapshot::Snapshot;
use crate::worker::{Worker, context};

impl Worker {
    /// Tells the sender of a packet that does not fit, after the balancer has rewritten it for its
    /// replica on network `vni` behind `vtep`, or on this node. The answer speaks of the packet as
    /// it was sent: it takes the way back that a router's would take.
    ///
    /// # Errors
    /// `Oversized` when it does not fit, whether the sender could be told or not.
    pub(crate) fn check_service_mtu(
        &mut self,
        snapshot: &Snapshot,
        port: &Arc<Port>,
        (vni, vtep): (Vni, Option<IpAddr>),
        held: &Held,
        info: &IpInfo,
    ) -> Result<(), DropReason> {
        let too_big = |info| snapshot.switch.too_big(vni, vtep, info, &held.vnet);
        if too_big(info).is_none() {
            return Ok(());
        }
        let frame = self.queue.bytes(held.frame.clone());
        // The addresses in `info` are those before the rewrite.
        if let Ok(Frame::Ip(now)) = parse(frame)
            && let Some(answer) = too_big(&now).and_then(|found| found.answer)
        {
            let len = answer.write(frame, &mut self.scratch);
            let answer = self.scratch.get_mut(..len).unwrap_or_default();
            let cx = context(self.now, snapshot);
            if let Ok(Frame::Ip(error)) = parse(answer)
                && let Reverse::Rewritten { .. } =
                    self.flows.reverse(&cx, vni, answer, &error, false)
            {
                self.answer(port, len)?;
            }
        }
        Err(DropReason::Oversized)
    }
}
