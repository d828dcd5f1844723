//! Durations with units, as docker (Go's `time.ParseDuration`) reads them.

/// Nanoseconds of a millisecond.
const MILLI: u128 = 1_000_000;

/// Parses `250ms`, `1.5s`, `100us`, `1h30m`, `0` to milliseconds. A part of a millisecond counts as
/// a whole one, so that only nothing is none.
///
/// # Errors
/// What is wrong with the text: no unit, an unknown one, less than nothing, or more than fits.
pub(crate) fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let bad = |why: &str| {
        format!(
            "invalid duration {text:?}: {why}; write a number and ns, us, ms, s, m or h, like 1.5s \
             or 1m30s"
        )
    };
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, unsigned),
    };
    if rest.is_empty() {
        return Err(bad("there is no number"));
    }
    // The one number that needs no unit.
    if rest == "0" {
        return Ok(0);
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (number, behind) = split(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, behind) = split(behind, |c| !c.is_ascii_digit() && c != '.');
        let factor: u128 = match unit {
            "ns" => 1,
            // Two letters mu: the micro sign, and the Greek one.
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => MILLI,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err(bad("a unit is missing")),
            _ => return Err(bad(&format!("the unit {unit:?} is not known"))),
        };
        let part = times(number, factor).ok_or_else(|| bad("there is no number"))?;
        nanos = nanos.saturating_add(part);
        rest = behind;
    }
    if negative && nanos > 0 {
        return Err(bad("it is less than nothing"));
    }
    u64::try_from(nanos.div_ceil(MILLI)).map_err(|_| bad("it is too long"))
}

fn split(text: &str, first: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !first(c)).unwrap_or(text.len()))
}

/// A decimal number times a unit; digits beyond a nanosecond do not count.
fn times(number: &str, factor: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || fraction.contains('.') {
        return None;
    }
    let mut total = match whole {
        "" => 0,
        // What does not fit is too long for every unit.
        digits => digits.parse::<u128>().unwrap_or(u128::MAX),
    }
    .saturating_mul(factor);
    let mut unit = factor;
    for digit in fraction.chars() {
        unit /= 10;
        total = total.saturating_add(unit.saturating_mul(digit.to_digit(10)?.into()));
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, ms) in [
            ("0", 0),
            ("0s", 0),
            ("-0", 0),
            ("250ms", 250),
            ("1.5s", 1_500),
            (".5s", 500),
            ("1.s", 1_000),
            ("+2s", 2_000),
            ("100us", 1),
            ("1500\u{b5}s", 2),
            ("1ns", 1),
            ("1h30m", 5_400_000),
            ("1m30.25s", 90_250),
            ("0.000001s", 1),
        ] {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_words() {
        for (text, says) in [
            ("", "no number"),
            ("-", "no number"),
            ("5", "a unit is missing"),
            ("1m30", "a unit is missing"),
            ("1m0", "a unit is missing"),
            ("s", "no number"),
            (".s", "no number"),
            ("1.2.3s", "no number"),
            ("5 s", "the unit \" s\" is not known"),
            ("5d", "the unit \"d\" is not known"),
            ("-1s", "less than nothing"),
            ("1e3s", "the unit \"e\" is not known"),
            (&"9".repeat(60), "a unit is missing"),
            (&format!("{}h", "9".repeat(60)), "too long"),
        ] {
            let error = parse_duration_ms(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
            assert!(error.contains("1m30s"), "{error}");
        }
    }
}
