//! "2 hours ago", in docker's words (docker/go-units `HumanDuration`).

use std::time::Duration;

use jiff::Timestamp;

/// Says how long a time is, as docker does.
#[must_use]
pub(crate) fn human_duration(d: Duration) -> String {
    let secs = d.as_secs();
    let (mins, hours) = (secs / 60, (secs + 1800) / 3600);
    match () {
        () if secs < 1 => "Less than a second".to_owned(),
        () if secs == 1 => "1 second".to_owned(),
        () if secs < 60 => format!("{secs} seconds"),
        () if mins == 1 => "About a minute".to_owned(),
        () if mins < 60 => format!("{mins} minutes"),
        () if hours <= 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// Says how long ago `since` was at `now`; both in Unix milliseconds. A clock that runs behind
/// the manager's shows as no time at all.
#[must_use]
pub(crate) fn ago(since_ms: u64, now: Timestamp) -> String {
    capital_ago(since_ms, now).to_lowercase()
}

/// The same as docker's tables of secrets and configs have it: "About an hour ago".
#[must_use]
pub(crate) fn capital_ago(since_ms: u64, now: Timestamp) -> String {
    let now_ms = u64::try_from(now.as_millisecond()).unwrap_or(0);
    let passed = Duration::from_millis(now_ms.saturating_sub(since_ms));
    format!("{} ago", human_duration(passed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_dockers_words() {
        for (secs, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3_599, "59 minutes"),
            (3_600, "About an hour"),
            (7_200, "2 hours"),
            (86_400 * 3, "3 days"),
            (86_400 * 21, "3 weeks"),
            (86_400 * 90, "3 months"),
            (86_400 * 365 * 3, "3 years"),
        ] {
            assert_eq!(human_duration(Duration::from_secs(secs)), text);
        }
    }

    #[test]
    fn a_future_time_is_now() {
        let now = Timestamp::from_millisecond(10_000).unwrap();
        assert_eq!(ago(4_000, now), "6 seconds ago");
        assert_eq!(ago(99_000, now), "less than a second ago");
        assert_eq!(capital_ago(99_000, now), "Less than a second ago");
    }
}
