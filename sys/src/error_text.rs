//! Texts of the kernel's errors, for people.

/// A text without the numbers that the standard library puts behind the kernel's words, such as
/// ` (os error 2)`: they say the same once more.
#[must_use]
pub fn without_numbers(text: &str) -> String {
    const BEFORE: &str = " (os error ";
    let mut whole = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((words, behind)) = rest.split_once(BEFORE) {
        whole.push_str(words);
        let number = behind.trim_start_matches(|c: char| c.is_ascii_digit());
        rest = match number.strip_prefix(')') {
            Some(after) if number.len() < behind.len() => after,
            _ => {
                whole.push_str(BEFORE);
                behind
            }
        };
    }
    whole.push_str(rest);
    whole
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_kernels_words_stay_and_their_numbers_go() {
        let missing = io::Error::from_raw_os_error(2);
        let text = format!("cannot read a: {missing}; nor b: {missing}: try again");
        let words = "No such file or directory";
        assert_eq!(
            without_numbers(&text),
            format!("cannot read a: {words}; nor b: {words}: try again")
        );
        for other in [
            "",
            "plain",
            "a (os error )",
            "a (os error 2",
            "a (os error x) b",
        ] {
            assert_eq!(without_numbers(other), other);
        }
        assert_eq!(
            without_numbers("a (os error x (os error 2)"),
            "a (os error x"
        );
    }
}
