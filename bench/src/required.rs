//! Figures that stand beside what is required of them, where there is no other side.

use std::process::ExitCode;

use serde_json::{Value, json};
use weft_cli::{FormatArgs, Listing, Printer};

use crate::figures::median;

const HEADINGS: &[(&str, &str)] = &[
    ("Test", "TEST"),
    ("Unit", "UNIT"),
    ("Median", "MEDIAN"),
    ("Worst", "WORST"),
    ("Count", "RUNS"),
    ("Required", "REQUIRED"),
    ("Aim", "AIM"),
    ("Held", "HELD"),
];

const TABLE: &str =
    "{{.Test}}\t{{.Unit}}\t{{.Median}}\t{{.Worst}}\t{{.Count}}\t{{.Required}}\t{{.Aim}}\t{{.Held}}";

/// What was measured, and what it is held against.
#[derive(Debug)]
pub(crate) struct Measured {
    /// In the words of its row.
    pub(crate) test: String,
    /// `s`, `MB` and `images` have decimals.
    pub(crate) unit: &'static str,
    /// In the order of the runs.
    pub(crate) runs: Vec<f64>,
    pub(crate) required: f64,
    pub(crate) aim: f64,
    /// More is better; of times and failures less is.
    pub(crate) more_is_better: bool,
}

impl Measured {
    /// Times in seconds.
    pub(crate) fn times(test: String, runs: Vec<f64>, required: f64, aim: f64) -> Self {
        Self {
            test,
            unit: "s",
            runs,
            required,
            aim,
            more_is_better: false,
        }
    }

    /// Requests that failed, of which there may be none.
    pub(crate) fn failures(test: String, runs: Vec<f64>) -> Self {
        Self {
            unit: "failed",
            ..Self::times(test, runs, 0.0, 0.0)
        }
    }

    /// The run that is furthest from what is wanted.
    fn worst(&self) -> f64 {
        let runs = self.runs.iter().copied();
        if self.more_is_better {
            runs.fold(f64::INFINITY, f64::min)
        } else {
            runs.fold(0.0, f64::max)
        }
    }

    fn row(&self) -> Value {
        let shown = |value: f64| {
            if ["s", "MB", "images"].contains(&self.unit) {
                format!("{value:.2}")
            } else {
                format!("{value:.0}")
            }
        };
        let worst = self.worst();
        let held = if self.more_is_better {
            worst >= self.required
        } else {
            worst <= self.required
        };
        json!({
            "Test": self.test,
            "Unit": self.unit,
            "Median": shown(median(&self.runs)),
            "Worst": shown(worst),
            "Count": self.runs.len(),
            "Required": shown(self.required),
            "Aim": shown(self.aim),
            "Held": if held { "yes" } else { "no" },
            "Runs": self.runs,
        })
    }
}

/// Prints a row for each; the exit status says whether all that is required held.
pub(crate) fn print(
    measured: &[Measured],
    format: &FormatArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let mut listing = Listing::new(HEADINGS, TABLE, "Test");
    let rows: Vec<Value> = measured.iter().map(Measured::row).collect();
    let all_held = rows.iter().all(|row| row["Held"] == "yes");
    for row in rows {
        listing.push(row);
    }
    out.text(&listing.render(format)?)?;
    Ok(if all_held {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_run_is_held_against_what_is_required() {
        let times = Measured::times("x".to_owned(), vec![1.0, 3.5, 2.0], 3.0, 1.5);
        let row = times.row();
        assert_eq!(
            (&row["Median"], &row["Worst"]),
            (&json!("2.00"), &json!("3.50"))
        );
        assert_eq!(row["Held"], "no");
        let rates = Measured {
            unit: "1/s",
            more_is_better: true,
            ..Measured::times("x".to_owned(), vec![900.0, 400.0, 500.0], 300.0, 2000.0)
        };
        let row = rates.row();
        assert_eq!(
            (&row["Worst"], &row["Held"]),
            (&json!("400"), &json!("yes"))
        );
    }

    #[test]
    fn one_request_that_failed_is_one_too_many() {
        let none = Measured::failures("x".to_owned(), vec![0.0, 0.0]).row();
        assert_eq!(
            (&none["Worst"], &none["Held"]),
            (&json!("0"), &json!("yes"))
        );
        let one = Measured::failures("x".to_owned(), vec![0.0, 1.0, 0.0]).row();
        assert_eq!((&one["Worst"], &one["Held"]), (&json!("1"), &json!("no")));
    }
}
