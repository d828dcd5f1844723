//! Times and sizes, as Go and docker print them.

use std::time::Duration;

/// As Go prints a duration: `1m30s`.
#[must_use]
pub(crate) fn duration(duration: Duration) -> String {
    let secs = duration.as_secs();
    if secs == 0 && !duration.is_zero() {
        // `500ms`, as there.
        return format!("{duration:?}");
    }
    let rest = duration - Duration::from_secs(secs - secs % 60);
    let (hours, minutes) = (secs / 3600, secs / 60 % 60);
    let rest = rest.as_secs_f64();
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

/// As docker prints sizes (docker/go-units `BytesSize`): four digits, and a unit.
#[must_use]
pub(crate) fn bytes(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while size >= 1024.0
        && let Some(next) = units.next()
    {
        size /= 1024.0;
        unit = next;
    }
    let decimals = match size {
        size if size >= 1000.0 => 0,
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        _ => 3,
    };
    let digits = format!("{size:.decimals$}");
    let digits = if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.')
    } else {
        digits.as_str()
    };
    format!("{digits}{unit}")
}

/// As docker prints sizes of images (docker/go-units `HumanSizeWithPrecision`): three digits, and a
/// unit of a thousand.
#[must_use]
pub(crate) fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while size >= 1000.0
        && let Some(next) = units.next()
    {
        size /= 1000.0;
        unit = next;
    }
    let decimals = match size {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let digits = format!("{size:.decimals$}");
    let digits = if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.')
    } else {
        digits.as_str()
    };
    format!("{digits}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_images_are_gos() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (187_400_000, "187MB"),
            (18_740_000, "18.7MB"),
            (1_874_000_000, "1.87GB"),
            (5_000_000, "5MB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn durations_and_sizes_are_gos() {
        for (millis, text) in [
            (0, "0s"),
            (500, "500ms"),
            (2500, "2.5s"),
            (60_000, "1m0s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
        for (size, text) in [
            (512, "512B"),
            (1 << 20, "1MiB"),
            (3 << 29, "1.5GiB"),
            (1_000_000, "976.6KiB"),
            (4000 << 20, "3.906GiB"),
        ] {
            assert_eq!(bytes(size), text);
        }
    }
}
