//! VXLAN switching: where a frame goes, and what is answered on the way.
//!
//! The agent compiles networks, endpoints and peers into a [`Switch`] with a [`SwitchBuilder`], which
//! it keeps while endpoints come and go; workers read the switch. Nothing is learnt from the wire and
//! nothing is flooded: a frame goes to one place, or is answered from the tables, or is dropped for a
//! counted reason.
//!
//! Every verdict is O(1), a few hash look-ups, and allocates nothing.

#![forbid(unsafe_code)]

mod answer;
mod builder;
mod claims;
mod fdb;
mod mtu;
mod network;
mod switch;

pub use answer::Answer;
pub use builder::SwitchBuilder;
pub use mtu::{OVERHEAD_V4, OVERHEAD_V6, TooBig, inner_mtu};
pub use network::NetworkEntry;
pub use switch::{Destination, Egress, Ingress, PortSource, Switch};
