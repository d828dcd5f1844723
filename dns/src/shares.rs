//! Who holds how much of something that all sandboxes of a node share.

use std::collections::BTreeMap;

/// Names one sandbox; chosen by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tenant(pub u64);

/// Amounts by tenant. Those who hold nothing are not in it.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    held: BTreeMap<Tenant, usize>,
}

impl Shares {
    pub(crate) fn add(&mut self, tenant: Tenant, amount: usize) {
        *self.held.entry(tenant).or_default() += amount;
    }

    pub(crate) fn remove(&mut self, tenant: Tenant, amount: usize) {
        if let Some(held) = self.held.get_mut(&tenant) {
            *held = held.saturating_sub(amount);
            if *held == 0 {
                self.held.remove(&tenant);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.held.clear();
    }

    /// Who has to give way where `asking` wants `amount` more and there is no room: who holds the
    /// most, unless `asking` would then hold as much. So whoever keeps below an equal share is
    /// never refused, and two never take from each other in turn. O(tenants), for a full table only.
    pub(crate) fn greediest(&self, asking: Tenant, amount: usize) -> Option<Tenant> {
        let own = self.held.get(&asking).copied().unwrap_or(0);
        let (tenant, most) = self.held.iter().max_by_key(|(_, held)| **held)?;
        (*most > own + amount).then_some(*tenant)
    }
}

/// Numbered things, each on the account of one tenant; lower numbers are older.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// With what the caller wants to know of them.
    things: BTreeMap<(Tenant, u64), u64>,
    shares: Shares,
}

impl Ledger {
    pub(crate) fn len(&self) -> usize {
        self.things.len()
    }

    pub(crate) fn insert(&mut self, tenant: Tenant, number: u64, value: u64) {
        if self.things.insert((tenant, number), value).is_none() {
            self.shares.add(tenant, 1);
        }
    }

    pub(crate) fn remove(&mut self, tenant: Tenant, number: u64) {
        if self.things.remove(&(tenant, number)).is_some() {
            self.shares.remove(tenant, 1);
        }
    }

    /// The oldest thing of the tenant that has to give way to `asking`: whose, its number, its value.
    pub(crate) fn gives_way(&self, asking: Tenant) -> Option<(Tenant, u64, u64)> {
        let tenant = self.shares.greediest(asking, 1)?;
        let mut of = self.things.range((tenant, 0)..=(tenant, u64::MAX));
        of.next()
            .map(|(&(tenant, number), &value)| (tenant, number, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_the_greediest_gives_way() {
        let [a, b] = [1, 2].map(Tenant);
        let mut ledger = Ledger::default();
        for number in [7, 3, 9] {
            ledger.insert(a, number, number * 10);
        }
        ledger.insert(b, 1, 10);
        assert_eq!((ledger.len(), ledger.gives_way(a)), (4, None));
        assert_eq!(ledger.gives_way(b), Some((a, 3, 30)));
        ledger.remove(a, 3);
        ledger.remove(a, 3);
        assert_eq!((ledger.len(), ledger.gives_way(b)), (3, None));
    }

    #[test]
    fn who_holds_the_most_gives_way_to_who_holds_less() {
        let [a, b, c] = [1, 2, 3].map(Tenant);
        let mut shares = Shares::default();
        assert_eq!(shares.greediest(a, 1), None);
        shares.add(a, 5);
        shares.add(b, 3);
        assert_eq!(shares.greediest(c, 1), Some(a));
        assert_eq!(shares.greediest(b, 1), Some(a));
        // Nobody takes from himself, nor from who would then have less.
        assert_eq!(shares.greediest(a, 1), None);
        shares.remove(a, 1);
        assert_eq!(shares.greediest(b, 1), None);
        assert_eq!(shares.greediest(c, 4), None);
        shares.remove(a, 4);
        shares.remove(b, 3);
        assert!(shares.held.is_empty());
    }
}
