//! How moments and durations are written: moments as text (RFC 3339), durations in nanoseconds, as
//! Docker's API has both. In memory a moment is in Unix milliseconds.

use jiff::Timestamp;

/// What cannot be written, far in the future, becomes the last moment that can.
fn timestamp(unix_ms: u64) -> Timestamp {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

fn unix_ms<E: serde::de::Error>(text: &str) -> Result<u64, E> {
    let time: Timestamp = text
        .parse()
        .map_err(|error| E::custom(format_args!("{text:?} is no time: {error}")))?;
    u64::try_from(time.as_millisecond())
        .map_err(|_| E::custom(format_args!("{text:?} is before 1970")))
}

/// A moment: `2026-01-02T03:04:05.678Z`.
pub(crate) mod rfc3339 {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(ms: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&super::timestamp(*ms))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        super::unix_ms(&String::deserialize(from)?)
    }
}

/// A moment that may not have been: `null` then.
pub(crate) mod maybe_rfc3339 {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(crate) fn serialize<S: Serializer>(ms: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        ms.map(|ms| super::timestamp(ms).to_string()).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| super::unix_ms(&text)).transpose()
    }
}

/// Moments, one after the other.
pub(crate) mod rfc3339_list {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(moments: &[u64], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(moments.iter().map(|ms| super::timestamp(*ms).to_string()))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u64>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        texts.iter().map(|text| super::unix_ms(text)).collect()
    }
}

/// A duration: `5000000000` are five seconds.
pub(crate) mod nanoseconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_nanos)
    }
}

/// A duration that may be absent.
pub(crate) mod maybe_nanoseconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let nanos = duration.map(|d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX));
        nanos.serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let nanos = Option::<u64>::deserialize(from)?;
        Ok(nanos.map(Duration::from_nanos))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Times {
        #[serde(with = "super::rfc3339")]
        at: u64,
        #[serde(with = "super::maybe_rfc3339")]
        perhaps: Option<u64>,
        #[serde(with = "super::nanoseconds")]
        long: Duration,
        #[serde(default, with = "super::rfc3339_list")]
        all: Vec<u64>,
    }

    #[test]
    fn times_are_written_as_dockers() {
        let times = Times {
            at: 1_767_323_045_678,
            perhaps: Some(0),
            long: Duration::from_secs(5),
            all: vec![0, 1_767_323_045_678],
        };
        let text = serde_json::to_string(&times).expect("written");
        assert_eq!(
            text,
            r#"{"at":"2026-01-02T03:04:05.678Z","perhaps":"1970-01-01T00:00:00Z","long":5000000000,"all":["1970-01-01T00:00:00Z","2026-01-02T03:04:05.678Z"]}"#
        );
        assert_eq!(serde_json::from_str::<Times>(&text).expect("read"), times);
        // Go's have nanoseconds, and perhaps another zone.
        let gos = r#"{"at":"2026-01-02T04:04:05.678901234+01:00","perhaps":null,"long":0}"#;
        let read: Times = serde_json::from_str(gos).expect("read");
        assert_eq!((read.at, read.perhaps), (times.at, None));
    }

    #[test]
    fn what_is_no_time_is_refused_and_what_is_too_late_is_the_last() {
        let late = Times {
            at: u64::MAX,
            perhaps: None,
            long: Duration::MAX,
            all: Vec::new(),
        };
        let text = serde_json::to_string(&late).expect("written");
        assert!(text.contains(r#""at":"9999-12-3"#), "{text}");
        let read: Times = serde_json::from_str(&text).expect("read");
        assert_eq!(read.long, Duration::from_nanos(u64::MAX));
        for (wrong, says) in [
            (r#""yesterday""#, "is no time"),
            ("7", "expected a string"),
            (r#""0001-01-01T00:00:00Z""#, "is before 1970"),
        ] {
            let text = format!(r#"{{"at":{wrong},"perhaps":null,"long":0}}"#);
            let error = serde_json::from_str::<Times>(&text).expect_err(wrong);
            assert!(error.to_string().contains(says), "{error}");
        }
        let negative = r#"{"at":"1970-01-01T00:00:00Z","perhaps":null,"long":-1}"#;
        assert!(serde_json::from_str::<Times>(negative).is_err());
    }
}
