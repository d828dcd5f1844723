//! Which upstreams there are, and which of them to ask first.

use std::net::SocketAddr;
use std::time::Duration;

use weft_wire::Instant;

/// Servers asked for one query; the same bound as in `resolv.conf`(5).
const UPSTREAMS_MAX: usize = 3;
/// Silences in a row after which an upstream is asked last.
const STRIKES_MAX: u8 = 3;
/// For how long it is asked last.
const SUSPECT_FOR: Duration = Duration::from_secs(30);

/// The upstreams in configured order, with what is known of their health.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    list: Vec<Upstream>,
}

#[derive(Debug)]
struct Upstream {
    address: SocketAddr,
    strikes: u8,
    suspect_until: Instant,
}

impl Upstreams {
    pub(crate) fn new(addresses: &[SocketAddr]) -> Self {
        let mut list: Vec<Upstream> = Vec::new();
        for address in addresses {
            if list.len() < UPSTREAMS_MAX && list.iter().all(|known| known.address != *address) {
                list.push(Upstream {
                    address: *address,
                    strikes: 0,
                    suspect_until: Instant::default(),
                });
            }
        }
        Self { list }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.list.iter().map(|upstream| upstream.address)
    }

    /// Configured order, with those that were silent lately at the end.
    pub(crate) fn order(&self, now: Instant) -> Vec<SocketAddr> {
        let (mut order, suspects): (Vec<_>, Vec<_>) = self
            .list
            .iter()
            .partition(|upstream| upstream.suspect_until <= now);
        order.extend(suspects);
        order.into_iter().map(|upstream| upstream.address).collect()
    }

    /// It answered something.
    pub(crate) fn answered(&mut self, address: SocketAddr) {
        if let Some(upstream) = self.find(address) {
            upstream.strikes = 0;
            upstream.suspect_until = Instant::default();
        }
    }

    /// It was silent for longer than another upstream needed, or could not be reached.
    pub(crate) fn silent(&mut self, now: Instant, address: SocketAddr) {
        if let Some(upstream) = self.find(address) {
            upstream.strikes = upstream.strikes.saturating_add(1);
            if upstream.strikes >= STRIKES_MAX {
                upstream.suspect_until = now.after(SUSPECT_FOR);
            }
        }
    }

    fn find(&mut self, address: SocketAddr) -> Option<&mut Upstream> {
        self.list
            .iter_mut()
            .find(|upstream| upstream.address == address)
    }
}
