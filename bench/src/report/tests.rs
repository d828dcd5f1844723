use weft_lab::Bed;

use super::*;
use crate::conditions::{Conditions, FastPath};
use crate::figures::QUANTILES;
use crate::measure::Work;
use crate::mesh::Load;
use crate::run::Figure;
use crate::usage::Usage;

fn run(rate: f64) -> Run {
    Run {
        rate,
        bytes: 1e9,
        count: 500_000.0,
        lost: 0.25,
        latency: None,
        seconds: 2.0,
        usage: Usage {
            agents: 1.0,
            machine: 3.0,
            generator_user: 0.25,
            generator_system: 0.5,
            switches: 1234.0,
        },
        resident: 20e6,
        ..Run::default()
    }
}

fn sample() -> Vec<Test> {
    let mut streams = Test::new("TCP", Work::streams(1, "cubic").meaning(), "kernel");
    streams.weft = vec![run(5e9), run(6e9), run(90e9)];
    streams.other = vec![run(12e9)];
    let mut datagrams = Test::new("UDP", Work::Datagrams { payload: 64 }.meaning(), "kernel");
    datagrams.weft = vec![run(30_000.0)];
    datagrams.other = vec![Run {
        lost: 0.0,
        ..run(20_000.0)
    }];
    let mut trips = Test::new("RR", Work::RoundTrips { concurrent: 1 }.meaning(), "1 flow");
    let timed = |factor: f64| Run {
        latency: Some(QUANTILES.map(|share| share * factor)),
        lost: 0.0,
        ..run(10_000.0)
    };
    trips.weft = vec![timed(100.0)];
    trips.other = vec![timed(50.0)];
    let on_bed = |test: Test, bed, fast_path| {
        test.under(Conditions {
            bed,
            busy_loops: 2,
            fast_path,
        })
    };
    vec![
        on_bed(streams, Bed::Veth, FastPath::Off),
        on_bed(datagrams, Bed::Plain, FastPath::Off),
        on_bed(trips, Bed::Nic, FastPath::Auto),
    ]
}

#[test]
fn the_tables_show_medians_ratios_and_costs() {
    let text = render(&sample(), &FormatArgs::default(), OVERLAY).unwrap();
    let expected = "\
TEST            BED     UNIT     WEFT    OTHER   AGAINST   RATIO
TCP             veth    Gbit/s   6.00    12.00   kernel    0.50x
UDP             plain   1/s      30000   20000   kernel    1.50x
  lost          plain   %        25.0    0.0     kernel
RR, fast path   nic     1/s      10000   10000   1 flow    1.00x
  p50           nic     µs       50.0    25.0    1 flow    2.00x
  p90           nic     µs       90.0    45.0    1 flow    2.00x
  p99           nic     µs       99.0    49.5    1 flow    2.00x
  p99.9         nic     µs       99.9    50.0    1 flow    2.00x

TEST            BED     AGAINST   PER            AGENT CPUS   AGENT   MACHINE   OTHER MACHINE   GENERATOR   OTHER GENERATOR   SWITCHES   AGENT MB
TCP             veth    kernel    GB             0.50         1.00    3.00      3.00            0.75        0.75              1234       20.0
UDP             plain   kernel    1M datagrams   0.50         2.00    6.00      6.00            1.50        1.50              2468       20.0
RR, fast path   nic     1 flow    1M requests    0.50         2.00    6.00      6.00            1.50        1.50              2468       20.0
";
    assert_eq!(text.strip_suffix(OVERLAY.legend), Some(expected), "{text}");
}

#[test]
fn tests_of_one_name_say_what_they_are_against() {
    let tests = [("IPVS", 5e9), ("nftables", 4e9)].map(|(against, rate)| {
        let work = Work::streams(1, "cubic");
        let mut test = Test::new("TCP through a VIP, one stream", work.meaning(), against);
        (test.weft, test.other) = (vec![run(6e9)], vec![run(rate)]);
        test.under(Conditions {
            bed: Bed::Veth,
            busy_loops: 0,
            fast_path: FastPath::Auto,
        })
    });
    let text = render(&tests, &FormatArgs::default(), OVERLAY).unwrap();
    let results = "\
TEST                                       BED    UNIT     WEFT   OTHER   AGAINST    RATIO
TCP through a VIP, one stream, fast path   veth   Gbit/s   6.00   5.00    IPVS       1.20x
TCP through a VIP, one stream, fast path   veth   Gbit/s   6.00   4.00    nftables   1.50x

";
    let costs = text
        .strip_prefix(results)
        .unwrap_or_else(|| panic!("{text}"));
    for line in [
        "TCP through a VIP, one stream, fast path   veth   IPVS       GB    0.50",
        "TCP through a VIP, one stream, fast path   veth   nftables   GB    0.50",
    ] {
        let found = costs.lines().filter(|found| found.starts_with(line));
        assert_eq!(found.count(), 1, "{text}");
    }
}

#[test]
fn json_holds_every_run() {
    let format = FormatArgs {
        format: Some("json".to_owned()),
        quiet: false,
    };
    let text = render(&sample(), &format, OVERLAY).unwrap();
    let rows: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 8);
    let beds: Vec<&Value> = rows.iter().map(|row| &row["Bed"]).collect();
    let expected = [&["veth"][..], &["plain"; 2], &["nic"; 5]].concat();
    assert_eq!(beds, expected, "each row says where it was measured");
    assert_eq!(
        (&rows[0]["Side"], &rows[0]["FastPath"]),
        (&json!("weft"), &json!("off"))
    );
    assert_eq!(
        (&rows[3]["Side"], &rows[3]["FastPath"]),
        (&json!("fast path"), &json!("auto"))
    );
    assert_eq!(rows[0]["BusyLoops"], 2);
    assert_eq!(rows[0]["WeftRuns"], json!([5e9, 6e9, 90e9]));
    assert_eq!(rows[0]["OtherRuns"], json!([12e9]));
    assert_eq!(rows[0]["Runs"]["Weft"][2]["Rate"], 90e9);
    assert_eq!(rows[0]["Runs"]["Weft"][0]["AgentContextSwitches"], 1234.0);
    assert_eq!(rows[0]["SwitchesPer"], "1234");
    assert!(rows[0]["Runs"]["Weft"][0].get("Latency").is_none());
    assert_eq!(rows[1]["Runs"]["Weft"][0]["LossPercent"], 25.0);
    let trip = &rows[3]["Runs"]["Other"][0];
    assert_eq!(trip["Latency"]["P99.9"], 49.95);
    assert_eq!(trip["Quantiles"][0], json!([0.0, 0.0]));
    assert!(rows[4].get("Runs").is_none());
}

#[test]
fn balancers_have_a_second_table_of_their_own() {
    let mut test = Test::new("idle, socket", Load::Idle(10).meaning(), "haproxy");
    let with = |rate, growth| Run {
        more: vec![Figure {
            name: "  growth",
            unit: "MB",
            value: growth,
        }],
        overlay: 0.125,
        ..run(rate)
    };
    test.weft = vec![with(90.0, 30.0)];
    test.other = vec![with(60.0, 40.0)];
    let text = render(&[test], &FormatArgs::default(), MESH).unwrap();
    let expected = "\
TEST           UNIT   WEFT   OTHER   AGAINST   RATIO
idle, socket   MB     90.0   60.0    haproxy   1.50x
  growth       MB     30.0   40.0    haproxy   0.75x

TEST           AGAINST   PER              BALANCER   OTHER BALANCER   OTHER'S WEFTD   MACHINE   OTHER MACHINE   GENERATOR   OTHER GENERATOR   MB     OTHER MB
idle, socket   haproxy   1M connections   2.00       2.00             0.25            6.00      6.00            1.50        1.50              20.0   20.0
";
    assert_eq!(text.strip_suffix(MESH.legend), Some(expected), "{text}");
}
