//! Addresses of one node's gateway bridge; nobody else sees them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Gives out host addresses of a range in turn, so that one that was freed is not reused at once:
/// connection tracking may still know it.
#[derive(Debug, Clone)]
pub(crate) struct AddressPool {
    range: Ipv4Net,
    used: BTreeSet<u32>,
    next: u32,
}

impl AddressPool {
    /// All host addresses of `range` but its own address, which is the bridge's.
    #[must_use]
    pub(crate) fn new(range: Ipv4Net) -> Self {
        Self {
            range,
            used: BTreeSet::from([u32::from(range.addr())]),
            next: u32::from(range.network()).saturating_add(1),
        }
    }

    /// A free address; `None` when all are used. O(log n) unless nearly full.
    pub(crate) fn allocate(&mut self) -> Option<Ipv4Addr> {
        let first = u32::from(self.range.network()).checked_add(1)?;
        let last = u32::from(self.range.broadcast()).checked_sub(1)?;
        if first > last {
            return None;
        }
        let start = self.next.clamp(first, last);
        let free = (start..=last)
            .chain(first..start)
            .find(|ip| !self.used.contains(ip))?;
        self.used.insert(free);
        self.next = if free == last { first } else { free + 1 };
        Some(Ipv4Addr::from(free))
    }

    /// Marks an address as used; false when it was already or is not of the range.
    pub(crate) fn reserve(&mut self, ip: Ipv4Addr) -> bool {
        self.range.contains(&ip) && self.used.insert(u32::from(ip))
    }

    /// Frees an address. The bridge's own is never freed.
    pub(crate) fn release(&mut self, ip: Ipv4Addr) {
        if ip != self.range.addr() {
            self.used.remove(&u32::from(ip));
        }
    }

    /// Frees every address that `other` does not have in use.
    pub(crate) fn retain(&mut self, other: &Self) {
        self.used.retain(|ip| other.used.contains(ip));
        self.used.insert(u32::from(self.range.addr()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(text: &str) -> AddressPool {
        AddressPool::new(text.parse().expect("net"))
    }

    #[test]
    fn every_host_address_but_the_bridges_is_given_once() {
        let mut pool = pool("172.18.0.1/29");
        let given: Vec<String> = std::iter::from_fn(|| pool.allocate())
            .map(|ip| ip.to_string())
            .collect();
        assert_eq!(
            given,
            [
                "172.18.0.2",
                "172.18.0.3",
                "172.18.0.4",
                "172.18.0.5",
                "172.18.0.6"
            ]
        );
        assert_eq!(pool.allocate(), None);
    }

    #[test]
    fn a_freed_address_comes_last() {
        let mut pool = pool("172.18.0.1/29");
        let first = pool.allocate().expect("first");
        pool.release(first);
        assert_ne!(pool.allocate(), Some(first));
        let rest: Vec<Ipv4Addr> = std::iter::from_fn(|| pool.allocate()).collect();
        assert_eq!(rest.last(), Some(&first));
    }

    #[test]
    fn reserved_addresses_are_skipped_and_the_bridges_stays() {
        let mut pool = pool("10.0.0.1/30");
        pool.release("10.0.0.1".parse().expect("ip"));
        assert!(pool.reserve("10.0.0.2".parse().expect("ip")));
        assert!(!pool.reserve("10.0.0.2".parse().expect("ip")));
        assert!(!pool.reserve("10.0.1.2".parse().expect("ip")));
        assert_eq!(pool.allocate(), None);
        pool.retain(&AddressPool::new("10.0.0.1/30".parse().expect("net")));
        assert_eq!(pool.used.len(), 1);
        assert_eq!(pool.allocate(), Some("10.0.0.2".parse().expect("ip")));
    }

    #[test]
    fn ranges_without_hosts_are_full() {
        for net in [
            "10.0.0.1/32",
            "10.0.0.0/31",
            "255.255.255.255/32",
            "0.0.0.0/32",
        ] {
            assert_eq!(pool(net).allocate(), None, "{net}");
        }
    }
}
