//! What the mesh's balancer has to be worth, whatever the age of reports.

use weft_benches::balancers::{Setup, Way, simulate};
use weft_mesh::Policy;

const ADAPTIVE: Way = Way::Mesh(Policy::Adaptive);

fn setup(skew: f64, interval: f64, seed: u64) -> Setup {
    Setup {
        skew,
        interval,
        seed,
        connections: 60_000,
        ..Setup::default()
    }
}

#[test]
fn fresh_reports_are_nearly_as_good_as_a_perfect_view() {
    for (seed, skew) in [(1, 0.0), (2, 0.0), (3, 0.7)] {
        let perfect = simulate(&setup(skew, 0.0, seed), Way::Perfect);
        for interval in [0.0, 0.1, 0.3] {
            let ours = simulate(&setup(skew, interval, seed), ADAPTIVE);
            assert!(
                ours.mean <= 1.3 * perfect.mean,
                "seed {seed}, interval {interval}: {ours:?}, perfect {perfect:?}"
            );
        }
    }
}

#[test]
fn stale_reports_are_never_worse_than_none() {
    for (seed, skew) in [(1, 0.0), (2, 0.0), (3, 0.7)] {
        let own = simulate(&setup(skew, 0.0, seed), Way::Mesh(Policy::LeastOwn));
        for interval in [1.0, 10.0, 100.0, f64::INFINITY] {
            let ours = simulate(&setup(skew, interval, seed), ADAPTIVE);
            assert!(
                ours.mean <= own.mean && ours.p99 <= own.p99,
                "seed {seed}, interval {interval}: {ours:?}, own counts {own:?}"
            );
        }
    }
}

#[test]
fn one_setup_has_one_result() {
    let run = || simulate(&setup(0.2, 0.5, 9), ADAPTIVE);
    assert_eq!(run().mean.to_bits(), run().mean.to_bits());
}
