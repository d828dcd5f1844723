//! Moments as docker reads them (moby `api/types/time`): how long ago, seconds since 1970, or a date
//! and time, of the place where nothing says otherwise.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::duration::parse_duration_ms;

/// Parses `10m`, `1700000000.5`, `2026-01-02`, `2026-01-02T15:04:05` or RFC 3339, to Unix
/// milliseconds.
///
/// # Errors
/// It is none of these, or before 1970; the text says how to write one.
pub(crate) fn parse_moment(text: &str, now: Timestamp, zone: &TimeZone) -> Result<u64, String> {
    moment(text, now, zone).ok_or_else(|| {
        format!(
            "invalid time {text:?}: write how long ago, such as 10m, seconds since 1970, or a moment, \
             such as 2026-01-02T15:04:05"
        )
    })
}

fn moment(text: &str, now: Timestamp, zone: &TimeZone) -> Option<u64> {
    // The one number that is a duration too.
    if let Ok(ago) = parse_duration_ms(text)
        && text != "0"
    {
        return Some(unix_ms(now)?.saturating_sub(ago));
    }
    if text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_digit() || c == '.')
    {
        return seconds(text);
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return unix_ms(moment);
    }
    let local: DateTime = text.parse().ok()?;
    unix_ms(local.to_zoned(zone.clone()).ok()?.timestamp())
}

fn unix_ms(moment: Timestamp) -> Option<u64> {
    u64::try_from(moment.as_millisecond()).ok()
}

/// `SECONDS[.NANOSECONDS]`
fn seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.chars().chain("000".chars()).take(3);
    let ms: String = digits.collect();
    let whole: u64 = whole.parse().ok()?;
    whole.checked_mul(1000)?.checked_add(ms.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use jiff::tz::Offset;

    use super::*;

    #[test]
    fn moments_are_dockers() {
        let now = Timestamp::from_millisecond(1_767_366_245_000).unwrap();
        let east = TimeZone::fixed(Offset::constant(2));
        for (text, ms) in [
            ("0", 0),
            ("10m", 1_767_365_645_000),
            ("1h30m", 1_767_360_845_000),
            ("1767366245", 1_767_366_245_000),
            ("1767366245.5", 1_767_366_245_500),
            ("1767366245.123456789", 1_767_366_245_123),
            ("2026-01-02T15:04:05Z", 1_767_366_245_000),
            ("2026-01-02T16:04:05.25+01:00", 1_767_366_245_250),
            ("2026-01-02T17:04:05", 1_767_366_245_000),
            ("2026-01-02T17:04", 1_767_366_240_000),
            ("2026-01-02", 1_767_304_800_000),
        ] {
            assert_eq!(parse_moment(text, now, &east), Ok(ms), "{text}");
        }
        for text in ["", "yesterday", "1.2.3", "-", "1960-01-01", "5 minutes"] {
            let error = parse_moment(text, now, &east).unwrap_err();
            assert!(error.starts_with("invalid time "), "{error}");
        }
    }
}
