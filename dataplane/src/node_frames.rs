//! Frames that the node itself exchanges with replicas, from its own address on the ingress
//! network: probes and their answers. They are few and short, and wait in queues of fixed size.

use weft_mesh::PROBE_PORTS;
use weft_vxlan::Destination;
use weft_wire::frame::{TCP, TCP_ACK, TCP_RST, TCP_SYN};
use weft_wire::{DropReason, Fragment, IpInfo, PortId, VnetHdr};

use crate::handover::NodeFrame;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::worker::Worker;

/// Keeps an answer to the node; true when it is one. No flow has such a frame. Only what ends or
/// answers a handshake of the node's own is kept, so that others cannot fill the queue by chance.
pub(crate) fn keep_for_node(
    shared: &Shared,
    snapshot: &Snapshot,
    to: PortId,
    frame: &[u8],
    info: &IpInfo,
) -> bool {
    let Some(mesh) = snapshot.mesh.as_ref().filter(|mesh| mesh.port == to) else {
        return false;
    };
    let answers =
        info.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN | TCP_ACK || info.tcp_flags & TCP_RST != 0;
    info.proto == TCP
        && info.fragment == Fragment::None
        && answers
        && info.dst == mesh.v4.node_ip
        && PROBE_PORTS.contains(&info.dport)
        && frame
            .get(..info.len)
            .and_then(NodeFrame::new)
            .is_some_and(|frame| shared.for_node.push(frame).is_ok())
}

impl Worker {
    /// Sends what the node has to say.
    pub(crate) fn send_for_node(&mut self, snapshot: &Snapshot) {
        while let Some(frame) = self.shared.inboxes[self.index].from_node.pop() {
            if let Err(reason) = self.send_node_frame(snapshot, &frame) {
                self.counters().underlay.add(reason);
            }
        }
    }

    fn send_node_frame(
        &mut self,
        snapshot: &Snapshot,
        frame: &NodeFrame,
    ) -> Result<(), DropReason> {
        let mesh = snapshot.mesh.as_ref().ok_or(DropReason::PortGone)?;
        let bytes = frame.bytes();
        let destination = snapshot
            .switch
            .lookup(mesh.vni, weft_wire::frame::dst_mac(bytes))
            .ok_or(DropReason::UnknownMac)?;
        match destination {
            Destination::Local(to) => {
                let port = snapshot.ports.get(&to).ok_or(DropReason::PortGone)?;
                self.write_pieces(port, &VnetHdr::NONE, bytes);
                Ok(())
            }
            Destination::Remote(vtep) => {
                self.scratch
                    .get_mut(..bytes.len())
                    .ok_or(DropReason::Oversized)?
                    .copy_from_slice(bytes);
                self.send_scratch(mesh.vni, vtep, bytes.len())
            }
        }
    }
}
