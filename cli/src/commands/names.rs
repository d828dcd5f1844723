//! Names for services that are given none: an adjective and an animal or a thing, nobody's name.

use std::hash::{BuildHasher, Hasher, RandomState};

const FIRST: [&str; 40] = [
    "agile", "bold", "brave", "bright", "brisk", "calm", "clear", "clever", "cool", "crisp",
    "deep", "eager", "early", "fair", "fast", "fine", "fresh", "gentle", "glad", "golden", "green",
    "happy", "keen", "kind", "light", "lively", "lucky", "merry", "mild", "neat", "noble", "plain",
    "proud", "quick", "quiet", "ready", "round", "silver", "sunny", "warm",
];

const SECOND: [&str; 40] = [
    "acorn", "anchor", "badger", "beacon", "beaver", "birch", "bridge", "brook", "canyon", "cedar",
    "comet", "crane", "falcon", "fennel", "finch", "fox", "garden", "harbor", "heron", "island",
    "kettle", "lantern", "lynx", "maple", "meadow", "moose", "otter", "owl", "pebble", "pine",
    "puffin", "raven", "reed", "river", "salmon", "sparrow", "swan", "trout", "walnut", "willow",
];

/// As many names as asked for, each another one. Chance chooses where they begin.
pub(super) fn some(count: u64) -> impl Iterator<Item = String> {
    // Every one of these has keys of its own, by chance.
    let begin = RandomState::new().build_hasher().finish() >> 1;
    (begin..begin + count).map(name)
}

fn name(number: u64) -> String {
    let pick = |words: &[&'static str; 40], number: u64| {
        let nth = usize::try_from(number % 40).unwrap_or_default();
        words[nth]
    };
    format!("{}_{}", pick(&FIRST, number), pick(&SECOND, number / 40))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_is_one_that_a_service_may_have_and_another() {
        let names: BTreeSet<String> = (0..40 * 40).map(name).collect();
        assert_eq!(names.len(), 40 * 40);
        for name in &names {
            weft_model::names::check_service(name).unwrap();
        }
        assert_eq!(name(5 + 26 * 40), "calm_otter");
        assert_eq!(name(40 * 40), name(0));
    }

    #[test]
    fn chance_chooses_and_none_comes_twice() {
        let five: BTreeSet<String> = some(5).collect();
        assert_eq!(five.len(), 5);
        let firsts: BTreeSet<String> = (0..100).flat_map(|_| some(1)).collect();
        assert!(firsts.len() > 10, "{firsts:?}");
    }
}
