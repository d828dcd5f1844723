//! The picture: rates as bars, and how round trip times are spread.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::figures::{QUANTILES, median};
use crate::pairs::{Test, median_of, shown};
use crate::run::Run;
use crate::setting::Setting;

/// Width in pixels.
const WIDTH: u32 = 1100;

/// Height of the title, and of what stands below it.
const TITLE: u32 = 102;

/// Height of a test with its two bars.
const ROW: u32 = 46;

/// Height of the headline of a part.
const HEAD: u32 = 46;

/// Height of one chart of times.
const CHART: u32 = 330;

/// Where the bars begin; their names are left of it.
const LEFT: i32 = 340;

/// Right of the longest bar: room for its figure.
const RIGHT: i32 = 170;

const WEFT: RGBColor = RGBColor(0xd9, 0x5f, 0x02);
const OTHER: RGBColor = RGBColor(0x5b, 0x6b, 0x7b);
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const FONT: &str = "sans-serif";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws it into a file of that name.
pub(crate) fn draw(tests: &[Test], setting: &Setting, file: &Path) -> anyhow::Result<()> {
    std::fs::write(file, svg(tests, setting)?)
        .with_context(|| format!("cannot write the picture {}", file.display()))
}

fn svg(tests: &[Test], setting: &Setting) -> anyhow::Result<String> {
    let units = ["Gbit/s", "1/s"]
        .map(|unit| -> Vec<&Test> { tests.iter().filter(|t| t.meaning.unit == unit).collect() });
    let timed: Vec<&Test> = tests.iter().filter(|t| spread(t).is_some()).collect();
    let bars: u32 = units
        .iter()
        .filter(|part| !part.is_empty())
        .map(|part| HEAD + ROW * count(part))
        .sum();
    let height = TITLE + bars + CHART * count(&timed);
    let mut out = String::new();
    {
        let root = SVGBackend::with_string(&mut out, (WIDTH, height)).into_drawing_area();
        // The backend's errors borrow from it, so only their text goes on.
        paint(&root, setting, &units, &timed)
            .map_err(|e| anyhow!("cannot draw the picture: {e}"))?;
    }
    Ok(out)
}

fn count(tests: &[&Test]) -> u32 {
    u32::try_from(tests.len()).unwrap_or(u32::MAX)
}

fn paint(
    root: &Area<'_>,
    setting: &Setting,
    units: &[Vec<&Test>; 2],
    timed: &[&Test],
) -> Result<(), Box<dyn std::error::Error>> {
    root.fill(&WHITE)?;
    let (head, mut rest) = root.split_vertically(TITLE);
    title(&head, setting)?;
    let titles = [
        "Throughput, Gbit/s (longer is better)",
        "Delivered, or answered, per second (longer is better)",
    ];
    for (part, headline) in units.iter().zip(titles) {
        if !part.is_empty() {
            let (area, below) = rest.split_vertically(HEAD + ROW * count(part));
            bars(&area, part, headline)?;
            rest = below;
        }
    }
    for test in timed {
        let (area, below) = rest.split_vertically(CHART);
        times(&area, test)?;
        rest = below;
    }
    root.present()?;
    Ok(())
}

fn style(size: i32) -> TextStyle<'static> {
    TextStyle::from((FONT, size).into_font()).color(&INK)
}

fn title(area: &Area<'_>, setting: &Setting) -> Result<(), Box<dyn std::error::Error>> {
    area.draw(&Text::new(setting.bench.to_owned(), (20, 14), style(24)))?;
    for (y, line) in [
        (46, &setting.machine),
        (64, &setting.runs),
        (82, &setting.conditions),
    ] {
        if !line.is_empty() {
            area.draw(&Text::new(line.clone(), (20, y), style(13)))?;
        }
    }
    Ok(())
}

fn bars(
    area: &Area<'_>,
    tests: &[&Test],
    headline: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    area.draw(&Text::new(headline.to_owned(), (20, 14), style(20)))?;
    let both = |test: &Test| {
        [
            median_of(&test.weft, |run| run.rate),
            median_of(&test.other, |run| run.rate),
        ]
    };
    let most = tests.iter().flat_map(|test| both(test)).fold(0.0, f64::max);
    let room = f64::from(WIDTH.cast_signed() - LEFT - RIGHT);
    for (row, test) in (0i32..).zip(tests) {
        let top = HEAD.cast_signed() + row * ROW.cast_signed();
        area.draw(&Text::new(test.title(), (20, top + 12), style(15)))?;
        let sides = [(test.side, WEFT), (test.against, OTHER)];
        for (index, (value, (side, color))) in (0i32..).zip(both(test).into_iter().zip(sides)) {
            let y = top + index * 19;
            let length = (value / most * room).max(1.0) as i32;
            let bar = [(LEFT, y), (LEFT + length, y + 17)];
            area.draw(&Rectangle::new(bar, color.filled()))?;
            let figure = format!("{} {side}", shown(value, test.meaning.unit));
            area.draw(&Text::new(figure, (LEFT + length + 6, y + 3), style(13)))?;
        }
    }
    Ok(())
}

/// Median over the runs of each quantile in microseconds, of weft and the other side.
fn spread(test: &Test) -> Option<[Vec<f64>; 2]> {
    let of = |runs: &[Run]| -> Option<Vec<f64>> {
        let times: Vec<_> = runs.iter().map(|run| run.latency).collect::<Option<_>>()?;
        let at = |index: usize| median(&times.iter().map(|run| run[index]).collect::<Vec<_>>());
        (!times.is_empty()).then(|| (0..QUANTILES.len()).map(at).collect())
    };
    Some([of(&test.weft)?, of(&test.other)?])
}

/// Where a share is on the axis: 0 %, 90 %, 99 %, 99.9 % … at equal distances.
fn place(share: f64) -> f64 {
    -(1.0 - share).log10()
}

fn times(area: &Area<'_>, test: &Test) -> Result<(), Box<dyn std::error::Error>> {
    let Some(both) = spread(test) else {
        return Ok(());
    };
    // The slowest one of all has no place on this axis.
    let shares = &QUANTILES[..QUANTILES.len() - 1];
    let range = limits(both.iter().flat_map(|side| &side[..shares.len()]));
    let mut chart = ChartBuilder::on(area)
        .caption(
            format!("{}: time of a round trip, µs", test.title()),
            (FONT, 20).into_font().color(&INK),
        )
        .margin(14)
        .x_label_area_size(34)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..4.05, range.log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(BLACK.mix(0.12))
        .x_labels(5)
        .x_label_formatter(&|x| percent(*x))
        .y_label_formatter(&|y| format!("{y}"))
        .label_style((FONT, 13).into_font().color(&INK))
        .x_desc("share of the round trips that took no longer")
        .draw()?;
    for (side, (name, color)) in both.iter().zip([(test.side, WEFT), (test.against, OTHER)]) {
        let points = shares.iter().zip(side).map(|(q, time)| (place(*q), *time));
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(3)))?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], color.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK.mix(0.2))
        .label_font((FONT, 14).into_font().color(&INK))
        .draw()?;
    Ok(())
}

/// A range with some room that holds them all, above zero.
fn limits<'a>(values: impl Iterator<Item = &'a f64>) -> Range<f64> {
    let (mut low, mut high) = (f64::MAX, f64::MIN);
    for value in values.filter(|value| value.is_finite() && **value > 0.0) {
        (low, high) = (low.min(*value), high.max(*value));
    }
    if low > high {
        return 1.0..10.0;
    }
    low * 0.8..high * 1.3
}

/// The share at a place, in percent.
fn percent(place: f64) -> String {
    let share = 100.0 * (1.0 - 10f64.powf(-place));
    let text = format!("{share:.2}");
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use weft_lab::Bed;

    use super::*;
    use crate::conditions::{Conditions, FastPath};
    use crate::measure::Work;

    #[test]
    fn shares_have_equal_distances() {
        assert_eq!(place(0.0), 0.0);
        assert!((place(0.99) - 2.0).abs() < 1e-9);
        let labels = [0.0, 1.0, 2.0, 3.0, 4.0].map(percent);
        assert_eq!(labels, ["0%", "90%", "99%", "99.9%", "99.99%"]);
    }

    #[test]
    fn limits_hold_everything_and_stay_above_zero() {
        assert_eq!(limits([10.0, f64::NAN, 0.0, 100.0].iter()), 8.0..130.0);
        assert_eq!(limits([].iter()), 1.0..10.0);
    }

    #[test]
    fn the_picture_names_every_test_and_both_sides() {
        let run = |rate, factor: f64| Run {
            rate,
            latency: Some(QUANTILES.map(|share| 10.0 * factor + share)),
            ..Run::default()
        };
        let trips = Work::RoundTrips { concurrent: 1 };
        let mut tests = [
            Test::new("one stream", Work::streams(1, "bbr").meaning(), "kernel"),
            Test::new("trips", trips.meaning(), "kernel").under(Conditions {
                bed: Bed::Nic,
                busy_loops: 2,
                fast_path: FastPath::Auto,
            }),
        ];
        tests[0].weft = vec![Run {
            rate: 8e9,
            ..Run::default()
        }];
        tests[0].other = vec![Run {
            rate: 12.5e9,
            ..Run::default()
        }];
        tests[1].weft = vec![run(40_000.0, 2.0)];
        tests[1].other = vec![run(20_000.0, 1.0)];
        let setting = Setting {
            bench: "weft bench overlay",
            machine: "EPYC, 2 CPUs, Linux 6.18.2".to_owned(),
            runs: "weft 0.1.0, medians of 5 alternating pairs of 2 s, 2026-01-02".to_owned(),
            conditions: "Bed nic; beside 2 busy loops".to_owned(),
        };
        let text = svg(&tests, &setting).unwrap();
        assert!(text.starts_with("<svg"), "{text}");
        for word in [
            "weft bench overlay",
            "EPYC, 2 CPUs, Linux 6.18.2",
            "weft 0.1.0, medians of 5 alternating pairs of 2 s, 2026-01-02",
            "one stream",
            "trips, fast path (nic)",
            "Bed nic; beside 2 busy loops",
            "8.00 weft",
            "12.50 kernel",
            "40000 fast path",
            "99.9%",
            "time of a round trip",
        ] {
            assert!(text.contains(word), "{word} is missing:\n{text}");
        }
        // A thick line for each side of the test with times.
        assert_eq!(text.matches("stroke-width=\"3\"").count(), 2, "{text}");
        assert!(svg(&[], &setting).unwrap().starts_with("<svg"));
    }
}
