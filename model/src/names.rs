//! Names that people give: what one may be, and when two are the same.
//!
//! Names of services, networks and endpoints, and further names of the latter two's members, are
//! asked for over DNS. So what DNS cannot carry is refused where it is given, by one rule, and two
//! names that differ in case only are one name, as they are to a resolver.

use std::collections::BTreeMap;

/// Longest name, in bytes: one label of DNS (RFC 1035 section 2.3.4). Also for names of several
/// labels, so that `tasks.NAME.NETWORK` always fits into 253.
pub const MAX_NAME: usize = 63;

/// Longest name of a secret or a config, as in swarmkit.
pub const MAX_PAYLOAD_NAME: usize = 64;

/// Longest key of a label, in bytes.
const MAX_LABEL_KEY: usize = 256;

/// A name, or a key of a label, that nothing may have. The text says why, and how one has to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidName {
    /// For people.
    pub message: String,
}

const fn invalid(message: String) -> InvalidName {
    InvalidName { message }
}

/// What is wrong with a label of a name; the first letter is looked at elsewhere.
fn label_fault(label: &str) -> Option<&'static str> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if label.is_empty() {
        Some("there is nothing before or after a '.'")
    } else if label.starts_with('-') || label.ends_with('-') {
        Some("a part of it starts or ends with '-'")
    } else if !label.bytes().all(legal) {
        Some("it has other characters than letters, digits, '_', '-' and '.'")
    } else {
        None
    }
}

fn fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name.len() > MAX_NAME {
        Some("it is too long")
    } else if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        Some("it does not start with a letter or digit")
    } else {
        name.split('.').find_map(label_fault)
    }
}

/// Checks a name or alias that may have dots. `what` names its kind in the text.
///
/// # Errors
/// What is wrong with it, and how a name has to be.
pub fn check(what: &str, name: &str) -> Result<(), InvalidName> {
    let Some(fault) = fault(name) else {
        return Ok(());
    };
    let shown: String = name.chars().take(MAX_NAME + 1).collect();
    Err(invalid(format!(
        "invalid {what} name {shown:?}: {fault}; a name that DNS can carry starts with a letter or \
         digit, goes on with letters, digits, '_' and '-' in parts between single dots, and has \
         {MAX_NAME} characters at most"
    )))
}

/// Checks the name of a service, which is one label of DNS.
///
/// # Errors
/// What is wrong with it, and how a name has to be.
pub fn check_service(name: &str) -> Result<(), InvalidName> {
    let fault = match fault(name) {
        _ if name.len() > MAX_NAME => {
            return Err(invalid("name must be 63 characters or fewer".to_owned()));
        }
        Some(fault) => fault,
        None if name.contains('.') => "it has a '.'",
        None if name.ends_with('_') => "it ends with '_'",
        None => return Ok(()),
    };
    Err(invalid(format!(
        "name must be valid as a DNS name component: {name:?} is not: {fault}; write letters, \
         digits, '_' and '-', with a letter or digit at both ends"
    )))
}

/// Checks the name of a secret or a config, which no resolver sees; `what` names its kind.
///
/// # Errors
/// What is wrong with it, and how a name has to be.
pub fn check_payload(what: &str, name: &str) -> Result<(), InvalidName> {
    let ends = |c: char| c.is_ascii_alphanumeric();
    let legal = |c: char| ends(c) || matches!(c, '-' | '_' | '.');
    let fine = name.len() <= MAX_PAYLOAD_NAME
        && name.starts_with(ends)
        && name.ends_with(ends)
        && name.chars().all(legal);
    if fine {
        return Ok(());
    }
    let shown: String = name.chars().take(MAX_PAYLOAD_NAME + 1).collect();
    Err(invalid(format!(
        "invalid {what} name {shown:?}, only {MAX_PAYLOAD_NAME} [a-zA-Z0-9-_.] characters allowed, and the \
         start and end character must be [a-zA-Z0-9]"
    )))
}

/// True when DNS takes them for one name.
#[must_use]
pub fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// Checks what a user notes at an object (`--label`): keys that can be asked for.
///
/// # Errors
/// The key that cannot, and how it has to be.
pub fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), InvalidName> {
    let bad = |key: &&String| {
        !crate::text::is_plain(key, MAX_LABEL_KEY) || key.contains(|c: char| c.is_whitespace())
    };
    match labels.keys().find(bad) {
        None => Ok(()),
        Some(key) => Err(invalid(format!(
            "invalid label {:?}: its key must have 1 to {MAX_LABEL_KEY} printable characters \
             without spaces",
            key.chars().take(64).collect::<String>()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dns_carries_is_a_name() {
        let longest = "x".repeat(63);
        for good in [
            "a",
            "Web",
            "web-1",
            "db.prod.example",
            "stack_web.1.abc",
            "1",
            "x_",
            "a._tcp",
            &longest,
        ] {
            check("alias", good).unwrap();
        }
        for (bad, why) in [
            ("", "empty"),
            ("web.", "before or after"),
            (".web", "start with"),
            ("x..y", "before or after"),
            ("db-.x", "starts or ends"),
            ("db-", "starts or ends"),
            ("a.-b", "starts or ends"),
            ("_a", "start with"),
            ("a b", "other characters"),
            ("a/b", "other characters"),
            ("bücher", "other characters"),
            ("a\u{1b}[2J", "other characters"),
            (&"x".repeat(64), "too long"),
        ] {
            let error = check("alias", bad).unwrap_err().message;
            assert!(error.contains(why), "{bad:?}: {error}");
            assert!(!error.contains('\u{1b}'), "{error:?}");
        }
    }

    #[test]
    fn a_service_has_one_label() {
        for good in ["web", "shop_web", "a-1"] {
            check_service(good).unwrap();
        }
        for bad in ["web.x", "web_", "web-", ""] {
            check_service(bad).unwrap_err();
        }
    }

    #[test]
    fn secrets_and_configs_have_dockers_names() {
        for good in ["a", "db_password.v2", "A-b", &"x".repeat(64)] {
            check_payload("secret", good).unwrap();
        }
        for bad in ["", "-a", "a.", "a b", "a/b", "bücher", &"x".repeat(65)] {
            let error = check_payload("secret", bad).unwrap_err().message;
            assert!(error.starts_with("invalid secret name \""), "{error}");
        }
    }

    #[test]
    fn keys_of_labels_can_be_read() {
        let labels = |key: &str| BTreeMap::from([(key.to_owned(), "any\nvalue".to_owned())]);
        check_labels(&labels("com.example.x/y")).unwrap();
        for bad in ["", "a b", "a\u{1b}[m", &"k".repeat(257)] {
            check_labels(&labels(bad)).unwrap_err();
        }
    }
}
