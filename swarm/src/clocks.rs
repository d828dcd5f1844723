//! Words about certificates that do not count: such a reason has two clocks in it, and a person has
//! to see both to know which one is wrong.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

/// A moment as a person of this machine reads it: `2026-03-01 14:05:09 CET`.
pub fn local(time: SystemTime) -> String {
    let Ok(stamp) = Timestamp::try_from(time) else {
        return "a time out of all calendars".to_owned();
    };
    let zoned = stamp.to_zoned(TimeZone::system());
    zoned.strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

fn moment(time: UnixTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

/// Why a TLS connection with the manager at `remote` did not come about, when certificates are the
/// reason.
pub(crate) fn certificate_trouble(remote: &str, error: &Error, now: SystemTime) -> Option<String> {
    const MEND: &str = "one of both clocks is wrong: compare `date` on both machines, and set the \
                        wrong one right (NTP)";
    let text = match error {
        Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after }) => format!(
            "the certificate of the manager at {remote} counted until {}, and the clock of this \
             node says {}; {MEND}",
            local(moment(*not_after)),
            local(moment(*time))
        ),
        Error::InvalidCertificate(CertificateError::NotValidYetContext { time, not_before }) => {
            format!(
                "the certificate of the manager at {remote} counts from {} on, and the clock of \
                 this node says {}; {MEND}",
                local(moment(*not_before)),
                local(moment(*time))
            )
        }
        Error::InvalidCertificate(
            why @ (CertificateError::UnknownIssuer | CertificateError::BadSignature),
        ) => format!(
            "the machine at {remote} does not prove to be a manager of this swarm: {why}; look \
             whether the address is right. Where it is, the root certificate of the swarm was replaced \
             while this node was away: leave the swarm (`weft swarm leave --force`) and join again"
        ),
        Error::InvalidCertificate(why) => format!(
            "the machine at {remote} does not prove to be a manager of this swarm: {why}; look \
             whether the address is right"
        ),
        Error::AlertReceived(
            alert @ (AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA),
        ) => format!(
            "the manager at {remote} refuses the certificate of this node ({alert:?}), whose clock \
             says {}; where the clocks of both agree, the node belongs to another swarm, or was away \
             while the root certificate was replaced: leave the swarm (`weft swarm leave --force`) \
             and join again",
            local(now)
        ),
        _ => return None,
    };
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_are_named_and_nobody_is_sent_to_the_firewall() {
        let at = |secs| UnixTime::since_unix_epoch(Duration::from_secs(secs));
        let day = 24 * 3600;
        let errors = [
            CertificateError::ExpiredContext {
                time: at(20_100 * day),
                not_after: at(20_000 * day),
            },
            CertificateError::NotValidYetContext {
                time: at(20_000 * day),
                not_before: at(20_100 * day),
            },
        ];
        for error in errors {
            let error = Error::InvalidCertificate(error);
            let text = certificate_trouble("m:2377", &error, UNIX_EPOCH).unwrap();
            for secs in [20_000, 20_100] {
                let time = local(moment(at(secs * day)));
                assert!(text.contains(&time), "{text}: {time}");
            }
            assert!(time_is_readable(&text), "{text}");
            assert!(
                !text.contains("firewall") && !text.contains("UNIX"),
                "{text}"
            );
        }
        let refused = Error::AlertReceived(AlertDescription::CertificateExpired);
        let text = certificate_trouble("m:2377", &refused, UNIX_EPOCH).unwrap();
        assert!(text.contains(&local(UNIX_EPOCH)), "{text}");
        let other = Error::AlertReceived(AlertDescription::InternalError);
        assert_eq!(certificate_trouble("m:2377", &other, UNIX_EPOCH), None);
    }

    fn time_is_readable(text: &str) -> bool {
        text.contains("2024-") && text.contains(':')
    }

    #[test]
    fn any_time_has_words() {
        for time in [UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(u64::MAX >> 1)] {
            assert!(!local(time).is_empty());
        }
    }
}
