//! How long connections take by the way that replicas are chosen, and by the age of reports.

#![allow(clippy::print_stdout, reason = "the table is what it is for")]

use weft_benches::balancers::{Setup, Times, Way, simulate};
use weft_mesh::Policy;

const INTERVALS: [f64; 9] = [0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, f64::INFINITY];

fn main() {
    println!("10 balancers, 20 replicas, 5 of them half as fast, load 0.8.");
    println!("Mean / p99 time that a connection is open, in mean service times.\n");
    for (skew, name) in [
        (0.0, "every balancer has a tenth of the connections"),
        (0.7, "one balancer has 73 % of the connections"),
    ] {
        println!("{name}:");
        let setup = Setup {
            skew,
            ..Setup::default()
        };
        for (way, name) in [
            (Way::RoundRobin, "round robin"),
            (Way::Mesh(Policy::TwoChoices), "two choices, own counts"),
            (Way::Mesh(Policy::LeastOwn), "least connections, own counts"),
            (Way::Perfect, "least connections, perfect view"),
        ] {
            let fewer = if way == Way::RoundRobin {
                100_000
            } else {
                setup.connections
            };
            let times = simulate(
                &Setup {
                    connections: fewer,
                    ..setup
                },
                way,
            );
            println!("  {name:<32} {}", show(times));
        }
        println!(
            "  {:<18} {:>15} {:>15}",
            "time of reports", "weft", "plain reports"
        );
        for interval in INTERVALS {
            let setup = Setup { interval, ..setup };
            let ours = simulate(&setup, Way::Mesh(Policy::Adaptive));
            let plain = simulate(&setup, Way::Mesh(Policy::LeastConnections));
            println!("  {interval:<18} {} {}", show(ours), show(plain));
        }
        println!();
    }
}

fn show(times: Times) -> String {
    format!("{:6.2} / {:6.1}", times.mean, times.p99)
}
