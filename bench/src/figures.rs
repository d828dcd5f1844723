//! Medians and percentiles.

/// Shares of the distribution of times that every run keeps: enough for tables and pictures.
pub(crate) const QUANTILES: [f64; 12] = [
    0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 1.0,
];

/// Positions in [`QUANTILES`].
pub(crate) const P50: usize = 3;
pub(crate) const P90: usize = 5;
pub(crate) const P99: usize = 7;
pub(crate) const P99_9: usize = 9;

/// The middle value; the mean of the two middle ones when their number is even. NaN for nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[half],
        _ => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

/// The value that this share of the sorted values does not exceed (nearest rank). NaN for nothing.
pub(crate) fn quantile(sorted: &[u64], share: f64) -> f64 {
    let exact = sorted.len() as f64 * share;
    // 0.99 of 100 is 99, not the 99.00000000000001 that a float makes of it.
    let rank = (exact - 1e-6).ceil().max(1.0) as usize;
    sorted.get(rank - 1).map_or(f64::NAN, |value| *value as f64)
}

/// What the true median of paired values lies between in at least 95 of 100 cases, whatever their
/// distribution (order statistics, by the sign test; W. J. Conover, Practical Nonparametric
/// Statistics, section 3.2). None for fewer than six values: nothing is that sure then.
pub(crate) fn interval(values: &[f64]) -> Option<[f64; 2]> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    // How many values may lie beyond each end: while that many heads or fewer in `count` throws of a
    // coin are rarer than one in 40.
    let (mut term, mut below, mut beyond) = (0.5_f64.powi(i32::try_from(count).ok()?), 0.0, 0);
    while beyond < count && below + term <= 0.025 {
        below += term;
        term *= (count - beyond) as f64 / (beyond + 1) as f64;
        beyond += 1;
    }
    let last = beyond.checked_sub(1)?;
    Some([sorted[last], sorted[count - 1 - last]])
}

/// Microseconds at each of [`QUANTILES`], from nanoseconds in any order.
pub(crate) fn microseconds(mut nanos: Vec<u64>) -> [f64; QUANTILES.len()] {
    nanos.sort_unstable();
    QUANTILES.map(|share| quantile(&nanos, share) / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_one() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn intervals_are_those_of_the_sign_test() {
        let first = |count: u32| (1..=count).map(f64::from).collect::<Vec<_>>();
        for (count, expected) in [
            (0, None),
            (5, None),
            (6, Some([1.0, 6.0])),
            (9, Some([2.0, 8.0])),
            (15, Some([4.0, 12.0])),
            (25, Some([8.0, 18.0])),
            (40, Some([14.0, 27.0])),
        ] {
            assert_eq!(interval(&first(count)), expected, "{count}");
        }
    }

    #[test]
    fn nearest_ranks() {
        let thousand: Vec<u64> = (1..=1000).collect();
        assert_eq!(quantile(&thousand, 0.0), 1.0);
        assert_eq!(quantile(&thousand, 0.5), 500.0);
        assert_eq!(quantile(&thousand, 0.99), 990.0);
        assert_eq!(quantile(&thousand, 0.999), 999.0);
        assert_eq!(quantile(&thousand, 1.0), 1000.0);
        assert_eq!(quantile(&[7], 0.99), 7.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn named_positions_are_what_they_say() {
        let named = [P50, P90, P99, P99_9].map(|at| QUANTILES[at]);
        assert_eq!(named, [0.5, 0.9, 0.99, 0.999]);
        let times = microseconds(vec![3000, 1000, 2000]);
        assert_eq!((times[0], times[P50], times[11]), (1.0, 2.0, 3.0));
    }
}
