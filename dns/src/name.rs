//! Names as the zone keeps them: lower-case text with dots, no dot at the end.

use hickory_proto::rr::Name;

/// Longest name in text, in bytes (RFC 1035 section 2.3.4 allows 255 on the wire).
const NAME_MAX_BYTES: usize = 253;
const LABEL_MAX_BYTES: usize = 63;

/// The zone's spelling of a queried name; `None` for the root and for names that no object of a
/// cluster can have (bytes outside printable ASCII, a dot inside a label).
pub(crate) fn zone_spelling(name: &Name) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        if !text.is_empty() {
            text.push('.');
        }
        for &byte in label {
            if !byte.is_ascii_graphic() || byte == b'.' {
                return None;
            }
            text.push(char::from(byte.to_ascii_lowercase()));
        }
    }
    (!text.is_empty()).then_some(text)
}

/// The zone's spelling of a configured name; `None` when it cannot be asked for over DNS.
pub(crate) fn from_config(name: &str) -> Option<String> {
    let fits = name.len() <= NAME_MAX_BYTES
        && name
            .split('.')
            .all(|label| !label.is_empty() && label.len() <= LABEL_MAX_BYTES)
        && name.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| name.to_ascii_lowercase())
}

/// The wire name of a spelling; `None` when it is too long once joined with a network.
pub(crate) fn to_wire(spelling: &str) -> Option<Name> {
    Name::from_labels(spelling.split('.').map(str::as_bytes)).ok()
}

/// Whether the last label could be a public top-level domain: those are letters only, or
/// punycode.
pub(crate) fn may_be_public(spelling: &str) -> bool {
    let last = spelling.rsplit('.').next().unwrap_or(spelling);
    last.starts_with("xn--") || (last.len() >= 2 && last.bytes().all(|b| b.is_ascii_alphabetic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_is_lower_case_without_the_root_dot() {
        let name = Name::from_ascii("Web.FRONT.").unwrap();
        assert_eq!(zone_spelling(&name).as_deref(), Some("web.front"));
        assert_eq!(zone_spelling(&Name::root()), None);
    }

    #[test]
    fn a_dot_inside_a_label_is_not_a_separator() {
        let name = Name::from_labels([&b"web.front"[..]]).unwrap();
        assert_eq!(zone_spelling(&name), None);
    }

    #[test]
    fn rfc1035_s2_3_4_configured_names_that_dns_cannot_carry_are_refused() {
        for bad in [
            "",
            "a..b",
            ".a",
            "a.",
            "a b",
            "ü",
            &"x".repeat(64),
            &"a.".repeat(130),
        ] {
            assert_eq!(from_config(bad), None, "{bad:?}");
        }
        assert_eq!(from_config("Stack_Web.1").as_deref(), Some("stack_web.1"));
    }

    #[test]
    fn public_domains_are_letters_or_punycode() {
        assert!(may_be_public("tasks.org"));
        assert!(may_be_public("x.xn--p1ai"));
        assert!(!may_be_public("x.stack_default"));
        assert!(!may_be_public("x.net1"));
    }
}
