//! Times and sizes as docker writes them: `1m30s`, `50M`.

use serde::{Serialize, Serializer};

/// A span of time, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanoseconds(pub u64);

/// Units of Go's `time.ParseDuration` with their nanoseconds; longer names first.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl Nanoseconds {
    /// As Go reads it: numbers with units, `1h30m`, `1.5s`. None for anything else, and what is below
    /// zero.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "0" {
            return Some(Self(0));
        }
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest.is_empty() {
            return None;
        }
        let mut sum = 0_u64;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, behind) = rest.split_at(end);
            let unit_end = behind
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(behind.len());
            let (unit, behind) = behind.split_at(unit_end);
            let (_, nanoseconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
            sum = sum.checked_add(scaled(number, *nanoseconds)?)?;
            rest = behind;
        }
        // Go counts in signed numbers.
        i64::try_from(sum).ok().map(|_| Self(sum))
    }
}

/// A decimal number times a unit.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let whole = if whole.is_empty() {
        0
    } else {
        whole.parse::<u64>().ok()?
    };
    let mut sum = whole.checked_mul(unit)?;
    let mut unit = unit;
    for digit in part.chars() {
        unit /= 10;
        sum = sum.checked_add(u64::from(digit.to_digit(10)?) * unit)?;
    }
    Some(sum)
}

/// As Go's `Duration.String` writes it: `1m0s`, `1.5s`, `200ms`.
impl std::fmt::Display for Nanoseconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (unit, name) = match self.0 {
            0 => return f.write_str("0s"),
            1..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "µs"),
            1_000_000..1_000_000_000 => (1_000_000, "ms"),
            _ => (1_000_000_000, "s"),
        };
        let mut whole = self.0 / unit;
        if name == "s" && whole >= 60 {
            let minutes = whole / 60;
            if minutes >= 60 {
                write!(f, "{}h", minutes / 60)?;
            }
            write!(f, "{}m", minutes % 60)?;
            whole %= 60;
        }
        write!(f, "{whole}")?;
        let part = self.0 % unit;
        if part > 0 {
            let width = unit.to_string().len() - 1;
            let digits = format!("{part:0width$}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str(name)
    }
}

impl Serialize for Nanoseconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Bytes, as `units.RAMInBytes` of docker reads them: `50M`, `1.5gb`, `64kib`, `100`, with powers of
/// 1024.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.strip_suffix('b').unwrap_or(&unit) {
        "" => 0,
        "k" | "ki" => 1,
        "m" | "mi" => 2,
        "g" | "gi" => 3,
        "t" | "ti" => 4,
        "p" | "pi" => 5,
        _ => return None,
    };
    // Of `1.5b` docker keeps whole bytes, too.
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if !part.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let factor = 1_u64 << (10 * power);
    let whole = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    let part = if part.is_empty() {
        0.0
    } else {
        format!("0.{part}").parse::<f64>().ok()?
    };
    whole.checked_add((part * factor as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_gos() {
        for (text, nanoseconds, written) in [
            ("0", 0, "0s"),
            ("10s", 10_000_000_000, "10s"),
            ("1m", 60_000_000_000, "1m0s"),
            ("90s", 90_000_000_000, "1m30s"),
            ("1h", 3_600_000_000_000, "1h0m0s"),
            ("1.5s", 1_500_000_000, "1.5s"),
            ("1h1m1s", 3_661_000_000_000, "1h1m1s"),
            ("200ms", 200_000_000, "200ms"),
            ("1500us", 1_500_000, "1.5ms"),
            ("5ns", 5, "5ns"),
            (".5s", 500_000_000, "500ms"),
        ] {
            let span = Nanoseconds::parse(text).expect(text);
            assert_eq!(span, Nanoseconds(nanoseconds), "{text}");
            assert_eq!(span.to_string(), written);
        }
        for bad in [
            "",
            "10",
            "s",
            "1 s",
            "-1s",
            "1d",
            "1..5s",
            "9999999999h",
            ".",
        ] {
            assert_eq!(Nanoseconds::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_are_dockers() {
        for (text, bytes) in [
            ("100", 100),
            ("50M", 50 << 20),
            ("50mb", 50 << 20),
            ("64kib", 64 << 10),
            ("1.5g", 3 << 29),
            ("1 GB", 1 << 30),
            ("10b", 10),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for bad in ["", "M", "-1", "1.5.5m", "1x", "99999999p"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
