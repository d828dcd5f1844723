//! The data plane in real namespaces, against itself and against the kernel. Needs root; all
//! namespaces are anonymous and end with the test.

pub(crate) mod common;
mod datagram_shortcuts;
mod ecn;
mod full;
mod hostile;
mod inject;
mod ipv6;
mod kernel_peer;
mod loopback;
mod merging;
mod mtu;
mod published_shortcuts;
mod service_paths;
mod service_shortcuts;
mod shortcuts;
mod tunnels;
mod two_nodes;
