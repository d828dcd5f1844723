//! The name that somebody may have meant.

/// Letters that two names may differ in, and still be one mistyped.
const TYPOS: usize = 2;

/// Of some names the nearest one to a word that is none of them; nothing where all are far.
pub(crate) fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let names = names.into_iter();
    let names = names.map(|name| (distance(name, word), name));
    let near = names.filter(|(distance, name)| *distance <= TYPOS && *distance < name.len());
    near.min().map(|(_, name)| name)
}

/// How many letters are to be put in, taken away or changed (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    const LONGEST: usize = 64;
    if one.len().abs_diff(other.len()) > TYPOS || other.len() > LONGEST {
        return usize::MAX;
    }
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut corner = row[0];
        row[0] = index + 1;
        for (column, there) in other.iter().enumerate() {
            let change = corner + usize::from(*there != letter);
            corner = row[column + 1];
            row[column + 1] = change.min(corner + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_near() {
        for (one, other, far) in [
            ("image", "image", 0),
            ("image", "imgae", 2),
            ("ports", "port", 1),
            ("volumes", "volume", 1),
            ("tty", "user", usize::MAX),
        ] {
            let is = distance(one, other);
            assert!(
                is == far || (far == usize::MAX && is > 2),
                "{one} {other} {is}"
            );
        }
    }

    #[test]
    fn the_nearest_name_is_meant() {
        let names = ["a", "back", "black", "front"];
        for (word, meant) in [
            ("bakc", Some("back")),
            ("blak", Some("black")),
            ("frnt", Some("front")),
            // Another letter is another name.
            ("b", None),
            ("data", None),
        ] {
            assert_eq!(nearest(word, names), meant, "{word}");
        }
    }
}
