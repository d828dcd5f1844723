//! Frames that come from a port: a sandbox's TAP, or `weft0`.

use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;

use weft_mesh::{Forward, Origin, Refusal, Reverse};
use weft_vxlan::{Destination, Egress, PortSource};
use weft_wire::frame::{self, Frame, parse};
use weft_wire::{DropReason, IpInfo, VnetHdr, offload, reply};

use crate::capture::Fate;
use crate::frame_slot::{Held, Slot};
use crate::node_frames::keep_for_node;
use crate::port::Port;
use crate::shortcut::acknowledged;
use crate::snapshot::{MeshPort, Snapshot};
use crate::worker::{PORT_BUDGET, Worker, context};

impl Worker {
    /// Reads what waits on `port`, up to the budget. False when the device is gone.
    pub(crate) fn read_port(&mut self, snapshot: &Snapshot, port: &Arc<Port>) -> bool {
        for _ in 0..PORT_BUDGET {
            let counters = &self.shared.counters[self.index];
            let slot = self.queue.free_slot(counters);
            let len = match port.tap.read(self.queue.bytes(slot.clone())) {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            // Looked at after the read: see `Inbox::entries`.
            self.take_entries();
            let copy = self.copy_of(port, slot.start..slot.start + len);
            let fate = match self.port_frame(snapshot, port, slot.start..slot.start + len) {
                Ok(Slot::Kept) => {
                    self.queue.keep_slot(slot.start + len);
                    Fate::Outgoing
                }
                Ok(Slot::Free) => Fate::Outgoing,
                Err(reason) => {
                    port.counters.drops.add(reason);
                    Fate::Dropped(reason)
                }
            };
            self.settle_copy(copy, fate);
        }
        true
    }

    fn port_frame(
        &mut self,
        snapshot: &Snapshot,
        port: &Arc<Port>,
        read: Range<usize>,
    ) -> Result<Slot, DropReason> {
        let bytes = self.queue.bytes(read.clone());
        let (header, frame) = bytes
            .split_first_chunk_mut::<{ VnetHdr::LEN }>()
            .ok_or(DropReason::Truncated)?;
        let asked = VnetHdr::parse(header);
        port.counters.sent(frame.len());
        let parsed = parse(frame)?;
        // Before any verdict: what is looked at below is what leaves.
        let vnet = offload::settle(frame, &asked, &parsed)?;
        if vnet != asked {
            vnet.emit(header);
        }
        let held = Held {
            frame: read.start + VnetHdr::LEN..read.end,
            vnet,
        };
        if let Some(mesh) = snapshot.mesh.as_ref().filter(|m| m.port == port.id) {
            return self.mesh_frame(snapshot, port, mesh, &held, &parsed);
        }
        let source = PortSource {
            port: port.id,
            mac: port.mac,
            ips: &port.ips,
        };
        let dst_mac = frame::dst_mac(frame);
        match snapshot.switch.egress(port.vni, source, frame, &parsed) {
            Egress::Local(to) => {
                self.check_mtu(snapshot, port, None, &held, parsed.ip())?;
                self.local_frame(snapshot, port, to, &held, &parsed)
            }
            Egress::Remote(vtep) => {
                let info = parsed.ip();
                self.check_mtu(snapshot, port, Some(vtep.ip()), &held, info)?;
                let to = Destination::Remote(vtep);
                self.saw_leave(port, to, (info, &vnet), dst_mac, None);
                let counters = &self.shared.counters[self.index];
                self.queue
                    .push(port.vni, vtep, &vnet, info, held.frame, counters)
            }
            Egress::Virtual => {
                let info = parsed.ip().ok_or(DropReason::BadEthertype)?;
                // A replica that answers its own request sees the service as its client.
                let cx = context(self.now, snapshot);
                let frame = self.queue.bytes(held.frame.clone());
                let partial = held.vnet.needs_csum();
                match self.flows.reverse(&cx, port.vni, frame, info, partial) {
                    Reverse::NotAFlow => {}
                    verdict => {
                        let to = self.settle(snapshot, port.vni, port.id, verdict, &vnet, |w| {
                            w.queue.bytes(held.frame.clone()).to_vec().into()
                        })?;
                        if let Some(to) = to {
                            self.write_held(snapshot, to, &held)?;
                        }
                        return Ok(Slot::Free);
                    }
                }
                let origin = Origin::Port {
                    vni: port.vni,
                    port: port.id,
                };
                self.service_frame(snapshot, port, &origin, &held, info)
            }
            Egress::Routed => {
                let info = parsed.ip().ok_or(DropReason::BadEthertype)?;
                self.routed_frame(snapshot, port, &held, info)
            }
            Egress::Answer(answer) => {
                let frame = self.queue.bytes(held.frame);
                let len = answer.write(frame, &mut self.scratch);
                self.answer(port, len)
            }
            Egress::Drop(reason) => Err(reason),
        }
    }

    /// A frame from the host to the address behind `weft0`.
    fn mesh_frame(
        &mut self,
        snapshot: &Snapshot,
        port: &Arc<Port>,
        mesh: &MeshPort,
        held: &Held,
        parsed: &Frame,
    ) -> Result<Slot, DropReason> {
        let info = match parsed {
            Frame::Arp(arp) => {
                if !arp.request || mesh.at(arp.target_ip.into()).is_none() {
                    return Err(DropReason::UnknownNeighbor);
                }
                let ip = arp.target_ip;
                let len = reply::arp_reply(arp, mesh.mesh_mac, ip, &mut self.scratch);
                return self.answer(port, len);
            }
            Frame::Ip(info) => info,
        };
        let frame = self.queue.bytes(held.frame.clone());
        if let Some(ip) = reply::nd_target(frame, info) {
            if mesh.at(ip.into()).is_none() {
                return Err(DropReason::UnknownNeighbor);
            }
            let mac = mesh.mesh_mac;
            let len = reply::nd_advertisement(frame, info, mac, ip, false, &mut self.scratch);
            return self.answer(port, len);
        }
        let Some(addresses) = mesh.at(info.dst) else {
            return Err(if info.dst.is_multicast() {
                DropReason::Multicast
            } else {
                DropReason::OtherNetwork
            });
        };
        if info.is_echo_request() {
            return self.echo(port, held, info);
        }
        let origin = mesh.origin(addresses, mesh.keeps(info.src));
        self.service_frame(snapshot, port, &origin, held, info)
    }

    /// A frame for an address outside of all networks: the answer of a replica to a client that
    /// came through a published port, here or on another node. Nothing else leaves this way.
    fn routed_frame(
        &mut self,
        snapshot: &Snapshot,
        port: &Arc<Port>,
        held: &Held,
        info: &IpInfo,
    ) -> Result<Slot, DropReason> {
        let mesh = snapshot.mesh.as_ref().filter(|m| m.vni == port.vni);
        let mesh = mesh.ok_or(DropReason::OtherNetwork)?;
        let cx = context(self.now, snapshot);
        let frame = self.queue.bytes(held.frame.clone());
        let partial = held.vnet.needs_csum();
        match self.flows.reverse(&cx, port.vni, frame, info, partial) {
            Reverse::NotAFlow => Err(DropReason::OtherNetwork),
            Reverse::Return { dst_mac } => {
                let Some(Destination::Remote(vtep)) = snapshot.switch.lookup(port.vni, dst_mac)
                else {
                    return Err(DropReason::UnknownMac);
                };
                self.check_mtu(snapshot, port, Some(vtep.ip()), held, Some(info))?;
                let to = Destination::Remote(vtep);
                self.saw_return(port, to, (info, &held.vnet), dst_mac);
                let counters = &self.shared.counters[self.index];
                let frame = held.frame.clone();
                self.queue
                    .push(port.vni, vtep, &held.vnet, Some(info), frame, counters)
            }
            verdict => {
                let to = self.settle(snapshot, port.vni, mesh.port, verdict, &held.vnet, |w| {
                    w.queue.bytes(held.frame.clone()).to_vec().into()
                })?;
                if let Some(to) = to {
                    self.write_held(snapshot, to, held)?;
                }
                Ok(Slot::Free)
            }
        }
    }

    /// A frame for the balancer: to a VIP, or to a published port.
    fn service_frame(
        &mut self,
        snapshot: &Snapshot,
        port: &Arc<Port>,
        origin: &Origin,
        held: &Held,
        info: &IpInfo,
    ) -> Result<Slot, DropReason> {
        let from_port = matches!(origin, Origin::Port { .. });
        self.catch_up(snapshot, origin, info);
        let cx = context(self.now, snapshot);
        let frame = self.queue.bytes(held.frame.clone());
        let partial = held.vnet.needs_csum();
        match self.flows.forward(&cx, origin, frame, info, partial) {
            Forward::Rewritten {
                vni,
                dst_mac,
                install,
            } => {
                let destination = snapshot
                    .switch
                    .lookup(vni, dst_mac)
                    .ok_or(DropReason::NoReplica)?;
                if let Some(install) = install {
                    self.hand_entry(snapshot, destination, install)?;
                }
                match destination {
                    Destination::Local(to) => {
                        // What comes from outside was as long there, and arrives.
                        if from_port {
                            self.check_service_mtu(snapshot, port, (vni, None), held, info)?;
                        }
                        self.saw_request((port, origin), destination, held, info, dst_mac);
                        self.write_held(snapshot, to, held)?;
                        Ok(Slot::Free)
                    }
                    Destination::Remote(vtep) => {
                        let way = (vni, Some(vtep.ip()));
                        self.check_service_mtu(snapshot, port, way, held, info)?;
                        self.saw_request((port, origin), destination, held, info, dst_mac);
                        let counters = &self.shared.counters[self.index];
                        let frame = held.frame.clone();
                        self.queue
                            .push(vni, vtep, &held.vnet, Some(info), frame, counters)
                    }
                }
            }
            Forward::AnswerEcho => self.echo(port, held, info),
            Forward::Held => Ok(Slot::Free),
            Forward::Refuse(refusal) => {
                let frame = self.queue.bytes(held.frame.clone());
                let len = match refusal {
                    Refusal::Reset(_) => reply::tcp_reset_for(frame, info, &mut self.scratch),
                    Refusal::PortUnreachable(_) => reply::icmp_unreachable(
                        frame,
                        info,
                        frame::dst_mac(frame),
                        info.dst,
                        &mut self.scratch,
                    ),
                };
                self.answer(port, len)?;
                Err(refusal.reason())
            }
            Forward::Drop(reason) => Err(reason),
        }
    }

    /// A frame whose destination is on this node: the answer of a local replica to a local
    /// client, or ordinary traffic between two sandboxes.
    fn local_frame(
        &mut self,
        snapshot: &Snapshot,
        port: &Arc<Port>,
        to: weft_wire::PortId,
        held: &Held,
        parsed: &Frame,
    ) -> Result<Slot, DropReason> {
        let vni = port.vni;
        let to = match parsed.ip() {
            Some(info) => {
                let frame = &mut self.queue.bytes(held.frame.clone())[..];
                // The two borrows are of different fields; the frame outlives the verdict only
                // as bytes of the queue.
                let cx = context(self.now, snapshot);
                let verdict = self
                    .flows
                    .reverse(&cx, vni, frame, info, held.vnet.needs_csum());
                if matches!(verdict, Reverse::NotAFlow) {
                    let frame = self.queue.bytes(held.frame.clone());
                    if keep_for_node(&self.shared, snapshot, to, frame, info) {
                        return Ok(Slot::Free);
                    }
                    let mac = frame::dst_mac(frame);
                    let ack = acknowledged(frame, info);
                    let to = Destination::Local(to);
                    self.saw_leave(port, to, (Some(info), &held.vnet), mac, Some(ack));
                }
                self.saw_answer(vni, info, &verdict, 1);
                match self.settle(snapshot, vni, to, verdict, &held.vnet, |w| {
                    w.queue.bytes(held.frame.clone()).into()
                })? {
                    Some(to) => to,
                    None => return Ok(Slot::Free),
                }
            }
            None => to,
        };
        self.write_held(snapshot, to, held)?;
        Ok(Slot::Free)
    }

    /// Answers a ping in place, in the name of the address that was pinged.
    fn echo(&mut self, port: &Arc<Port>, held: &Held, info: &IpInfo) -> Result<Slot, DropReason> {
        let frame = self.queue.bytes(held.frame.clone());
        let len = reply::icmp_echo_reply(frame, info);
        let start = held.frame.start - VnetHdr::LEN;
        let whole = self.queue.bytes(start..held.frame.start + len);
        let header = whole
            .first_chunk_mut::<{ VnetHdr::LEN }>()
            .ok_or(DropReason::Truncated)?;
        VnetHdr::NONE.emit(header);
        if len == 0 {
            return Err(DropReason::BadTransportHeader);
        }
        let written = port.tap.write(whole);
        let fate = port.took(&written, len);
        self.copy_held(port, held, fate);
        Ok(Slot::Free)
    }
}
