//! Senders of packets that the way to their receiver does not carry learn what it does.

use std::net::IpAddr;
use std::sync::Arc;

use weft_wire::frame::{Frame, parse};
use weft_wire::rewrite::{Side, rewrite_endpoint};
use weft_wire::{DropReason, IpInfo};

use crate::frame_slot::Held;
use crate::port::Port;
use crate::snapshot::Snapshot;
use crate::worker::Worker;

impl Worker {
    /// Refuses a frame that is too big for the way to `vtep`, or for the network where the receiver is
    /// on this node, and tells its sender.
    ///
    /// # Errors
    /// `Oversized` when it does not fit, whether the sender could be told or not.
    pub(crate) fn check_mtu(
        &mut self,
        snapshot: &Snapshot,
        port: &Arc<Port>,
        vtep: Option<IpAddr>,
        held: &Held,
        info: Option<&IpInfo>,
    ) -> Result<(), DropReason> {
        let too_big =
            info.and_then(|info| snapshot.switch.too_big(port.vni, vtep, info, &held.vnet));
        let Some(too_big) = too_big else {
            return Ok(());
        };
        if let Some(answer) = too_big.answer {
            let frame = self.queue.bytes(held.frame.clone());
            // A replica knows the port at which it sees a client outside, and not the client's own.
            if let Some(info) = info
                && let Ok(Frame::Ip(now)) = parse(frame)
                && now.dport != info.dport
            {
                let (ip, port) = (info.dst, Some(info.dport));
                let partial = held.vnet.needs_csum();
                rewrite_endpoint(frame, &now, Side::Destination, ip, port, partial);
            }
            let len = answer.write(frame, &mut self.scratch);
            // Nothing to say about errors, later fragments and groups.
            if len > 0 {
                self.answer(port, len)?;
            }
        }
        Err(DropReason::Oversized)
    }
}
