//! os-release(5): assignments as a shell reads them, without its expansions.

/// The last value of `key` in the text of the file; `None` also where it is no value of a shell.
pub(super) fn value(text: &str, key: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.trim().split_once('='))
        .rfind(|(name, _)| *name == key)
        .and_then(|(_, value)| unquoted(value))
}

fn unquoted(value: &str) -> Option<String> {
    if let Some(value) = value.strip_prefix('\'') {
        return value.strip_suffix('\'').map(str::to_owned);
    }
    let Some(value) = value.strip_prefix('"') else {
        return Some(value.to_owned());
    };
    let mut plain = String::new();
    let mut rest = value.chars();
    loop {
        match rest.next()? {
            '"' => return rest.as_str().is_empty().then_some(plain),
            '\\' => match rest.next()? {
                escaped @ ('"' | '\\' | '$' | '`') => plain.push(escaped),
                other => plain.extend(['\\', other]),
            },
            other => plain.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_a_shell_reads_them() {
        let text = "# a comment: ID=none\n\nNAME=\"Debian \\\"GNU\\\" \\$5 \\\\ \\x\"\nID=debian\n \
             ID_LIKE='a \"b\" \\c'\nEMPTY=\nQUOTED=\"\"\nURL=\"https://a/?b=c\"\nVERSION_ID=1\nVERSION_ID=2\n";
        for (key, expected) in [
            ("NAME", Some("Debian \"GNU\" $5 \\ \\x")),
            ("ID", Some("debian")),
            ("ID_LIKE", Some("a \"b\" \\c")),
            ("EMPTY", Some("")),
            ("QUOTED", Some("")),
            ("URL", Some("https://a/?b=c")),
            ("VERSION_ID", Some("2")),
            ("VERSION", None),
        ] {
            assert_eq!(value(text, key).as_deref(), expected, "{key}");
        }
    }

    #[test]
    fn what_no_shell_takes_is_no_value() {
        for text in ["ID=\"a", "ID='a", "ID=\"", "ID=\"a\\", "ID=\"a\"b"] {
            assert_eq!(value(text, "ID"), None, "{text}");
        }
    }
}
