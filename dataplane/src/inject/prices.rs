//! What super-frames cost by either way out.

use std::cmp::Ordering;

/// CPU time of one thread for the same super-frames, sent by both ways to the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prices {
    /// Written whole into the TAP of the host, in nanoseconds.
    pub injected_ns: u64,
    /// Segmented here and sent with `UDP_SEGMENT`, in nanoseconds.
    pub segmented_ns: u64,
}

impl Prices {
    /// Of pairs of measurements, injected and segmented, the one in the middle by how the two
    /// compare. None of no pairs; pairs that the clock was too coarse for do not count.
    pub(super) fn of(pairs: &[(u64, u64)]) -> Option<Self> {
        let pairs = pairs.iter().filter(|(a, b)| *a > 0 && *b > 0);
        let mut pairs: Vec<Self> = pairs
            .map(|&(injected_ns, segmented_ns)| Self {
                injected_ns,
                segmented_ns,
            })
            .collect();
        pairs.sort_unstable_by(Self::by_ratio);
        pairs.get(pairs.len() / 2).copied()
    }

    fn by_ratio(&self, other: &Self) -> Ordering {
        let product = |a: u64, b: u64| u128::from(a) * u128::from(b);
        product(self.injected_ns, other.segmented_ns)
            .cmp(&product(other.injected_ns, self.segmented_ns))
    }

    /// Whether super-frames are cheaper whole.
    pub(crate) const fn injector_is_ahead(&self) -> bool {
        self.injected_ns < self.segmented_ns
    }

    /// How many times the dearer way costs the other, for people: `1.3x`.
    pub(crate) fn ratio(&self) -> String {
        let dear = self.injected_ns.max(self.segmented_ns);
        let cheap = self.injected_ns.min(self.segmented_ns).max(1);
        let tenths = dear.saturating_mul(10).saturating_add(cheap / 2) / cheap;
        format!("{}.{}x", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn prices(injected_ns: u64, segmented_ns: u64) -> Prices {
        Prices {
            injected_ns,
            segmented_ns,
        }
    }

    #[test]
    fn the_pair_in_the_middle_decides_whatever_the_machine_did_meanwhile() {
        // The machine was twice as slow in the second pair, and interrupted one side of the others.
        let pairs = [(100, 130), (200, 264), (900, 130), (100, 131), (100, 900)];
        assert_eq!(Prices::of(&pairs), Some(prices(100, 131)));
        assert_eq!(Prices::of(&[(0, 5), (5, 0)]), None);
        assert_eq!(Prices::of(&[]), None);
    }

    #[test]
    fn the_cheaper_way_is_ahead_and_a_tie_is_no_lead() {
        assert!(prices(99, 100).injector_is_ahead());
        assert!(!prices(100, 100).injector_is_ahead());
        assert!(!prices(101, 100).injector_is_ahead());
    }

    #[test]
    fn ratios_are_rounded_to_tenths() {
        for (a, b, text) in [
            (100, 131, "1.3x"),
            (131, 100, "1.3x"),
            (100, 100, "1.0x"),
            (100, 396, "4.0x"),
            (1, 12, "12.0x"),
        ] {
            assert_eq!(prices(a, b).ratio(), text);
        }
    }
}
