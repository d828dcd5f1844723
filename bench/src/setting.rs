//! What a bench ran on, and how: figures without that compare with nothing.

use std::fs;

use jiff::Timestamp;

use crate::pairs::Pace;

/// What stands below the title of a picture.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    /// Name of the bench.
    pub(crate) bench: &'static str,
    /// Processor, CPUs and memory, and the kernel.
    pub(crate) machine: String,
    /// Version of weft, pairs, seconds of each measurement, and when it was.
    pub(crate) runs: String,
    /// What else was chosen; empty where there is no choice.
    pub(crate) conditions: String,
}

impl Setting {
    /// Of this machine, now.
    pub(crate) fn of_now(bench: &'static str, pace: Pace) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            bench,
            machine: machine(
                &read("/proc/cpuinfo"),
                &read("/proc/meminfo"),
                &read("/proc/sys/kernel/osrelease"),
            ),
            runs: runs(pace, Timestamp::now()),
            conditions: String::new(),
        }
    }

    /// The same under such conditions.
    pub(crate) fn under(self, conditions: String) -> Self {
        Self { conditions, ..self }
    }
}

fn machine(cpuinfo: &str, meminfo: &str, release: &str) -> String {
    let lines = |key: &'static str| {
        let words = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        let named = words.filter(move |(name, _)| name.trim() == key);
        named.map(|(_, value)| value.trim())
    };
    // Some architectures do not name the model.
    let model = lines("model name").next();
    let cpus = lines("processor").count();
    let kib = meminfo.lines().find_map(|line| {
        let value = line.strip_prefix("MemTotal:")?;
        value.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    let mut text = model.unwrap_or(std::env::consts::ARCH).to_owned();
    let plural = if cpus == 1 { "" } else { "s" };
    text.push_str(&format!(", {cpus} CPU{plural}"));
    if let Some(kib) = kib {
        text.push_str(&format!(", {:.1} GiB", kib as f64 / f64::from(1 << 20)));
    }
    text.push_str(&format!(", Linux {}", release.trim()));
    text
}

fn runs(pace: Pace, now: Timestamp) -> String {
    format!(
        "weft {}, medians of {} alternating pairs of {} s, {}",
        env!("CARGO_PKG_VERSION"),
        pace.pairs,
        pace.length.as_secs(),
        now.strftime("%Y-%m-%d %H:%M UTC")
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_machine_is_named_as_its_kernel_does() {
        let cpuinfo = "\
processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 7B13

processor\t: 1
model name\t: AMD EPYC 7B13
";
        let meminfo = "MemTotal:        8127648 kB\nMemFree:         1000000 kB\n";
        assert_eq!(
            machine(cpuinfo, meminfo, "6.18.2\n"),
            "AMD EPYC 7B13, 2 CPUs, 7.8 GiB, Linux 6.18.2"
        );
        let bare = machine("processor\t: 0\n", "", "6.12.0\n");
        let expected = format!("{}, 1 CPU, Linux 6.12.0", std::env::consts::ARCH);
        assert_eq!(bare, expected);
    }

    #[test]
    fn runs_have_a_version_and_a_date() {
        let pace = Pace {
            pairs: 5,
            length: Duration::from_secs(2),
        };
        let now = Timestamp::from_millisecond(1_700_000_000_000).unwrap();
        let expected = concat!(
            "weft ",
            env!("CARGO_PKG_VERSION"),
            ", medians of 5 alternating pairs of 2 s, 2023-11-14 22:13 UTC"
        );
        assert_eq!(runs(pace, now), expected);
    }
}
