//! Why a frame was not delivered. A drop is not an error: it is counted, by reason and by port.

macro_rules! drop_reasons {
    ($($variant:ident => $name:literal, $help:literal;)*) => {
        /// Why a frame was not delivered.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $help] $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Number of reasons: the size of a table of counters.
            pub const COUNT: usize = Self::ALL.len();

            /// Short name, as in metrics and `weft drops`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }
        }
    };
}

drop_reasons! {
    Truncated => "truncated", "Shorter than its headers say.";
    BadEthertype => "bad_ethertype", "Neither IPv4, IPv6 nor ARP (VLAN tags included).";
    BadArp => "bad_arp", "ARP for something else than IPv4 over Ethernet.";
    BadIpHeader => "bad_ip_header", "IP version, header length or total length is wrong.";
    BadTransportHeader => "bad_transport_header", "TCP, UDP or ICMP header does not fit.";
    BadChecksum => "bad_checksum", "A checksum that had to be verified was wrong.";
    BadOffload => "bad_offload", "The virtio header asks for what the frame is not, or for a checksum in its headers.";
    Oversized => "oversized", "Larger than the inner MTU and not divisible.";
    SpoofedMac => "spoofed_mac", "Source MAC is not the port's own.";
    SpoofedIp => "spoofed_ip", "Source address is not the port's own.";
    Multicast => "multicast", "Broadcast or multicast: nothing is flooded.";
    UnknownMac => "unknown_mac", "No endpoint on the network has this destination MAC.";
    UnknownNeighbor => "unknown_neighbor", "ARP or ND asked for an address that nobody has.";
    OtherNetwork => "other_network", "Addressed to the gateway, which routes nothing.";
    UnknownVtep => "unknown_vtep", "VXLAN datagram from an address that is no VTEP of the cluster.";
    UnknownVni => "unknown_vni", "VXLAN network identifier that this node does not know.";
    BadVxlanHeader => "bad_vxlan_header", "VXLAN header without the I flag.";
    Hairpin => "hairpin", "Came from the underlay and would go back to it.";
    PortGone => "port_gone", "The port was removed while the frame was on its way.";
    TapFull => "tap_full", "The kernel did not take the frame into the sandbox: counted at its port, by whatever way the frame came.";
    UnderlayFull => "underlay_full", "The kernel did not take the datagram (socket buffer full).";
    UnderlayError => "underlay_error", "The kernel refused the datagram (no route, too big, …).";
    NoReplica => "no_replica", "The service has no replica that can take the flow.";
    NoService => "no_service", "To the mesh on a port that no service publishes, or to a VIP from outside the cluster.";
    ConnectionLimit => "connection_limit", "The service, or the client at it, has as many connections as it may.";
    FlowTableFull => "flow_table_full", "The flow table is full and nothing could be evicted.";
    NotAFlow => "not_a_flow", "A TCP packet of no known connection.";
    Retried => "retried", "A refusal swallowed because the flow went to the next replica.";
    Fragment => "fragment", "A fragment on a path that needs whole packets.";
    FragmentEarly => "fragment_early", "A later fragment to a service whose first one was not seen.";
    FragmentOverlap => "fragment_overlap", "A fragment that overlaps the first one of its datagram.";
    BadFragment => "bad_fragment", "A fragment whose offset or length no sender makes.";
    OtherPeer => "other_peer", "From a static peer, on a network where it is none.";
    ForeignSource => "foreign_source", "From the underlay, in the name of an address that the tables place elsewhere: here, behind another VTEP, or at a service.";
    Congestion => "congestion", "A router marked congestion on the packet around the frame, whose sender does not know such marks.";
    BadLoopback => "bad_loopback", "On the network of loopback messages (`weft ping`), and none of them.";
    LoopbackLimit => "loopback_limit", "A loopback message beyond what a node answers another one in a second.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_positions_and_names_are_unique() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        for (i, r) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*r as usize, i);
            assert!(r.help().ends_with('.'));
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::COUNT);
    }
}
