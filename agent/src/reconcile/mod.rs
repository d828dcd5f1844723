//! Makes what runs here what the orders say, again and again: tasks, endpoints, tables, gossip in
//! [`reconciler`], what weft has in the kernel in [`keeper`], programs that carry flows there in
//! [`shortcuts`], replicas that were left out in [`probe`].

mod accepted;
mod announcements;
mod asking;
mod attach;
mod checks;
mod delivery;
mod drain;
pub(crate) mod endpoints;
mod health;
mod intake;
pub(crate) mod keeper;
mod lifecycle;
mod listening;
mod mtu;
pub(crate) mod overlap;
pub(crate) mod places;
pub(crate) mod probe;
pub(crate) mod reconciler;
mod remembered;
#[cfg(test)]
mod scale;
pub(crate) mod shortcuts;
mod stacks;
pub(crate) mod tasks;
mod wall;
