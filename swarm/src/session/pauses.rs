//! Pauses between requests for a certificate that are refused, or change nothing.

use std::time::Duration;

/// The first pause, and the longest.
const MIN: Duration = Duration::from_millis(100);
const MAX: Duration = Duration::from_secs(30);

/// Longer each time, while what a node was told is the same.
#[derive(Debug)]
pub(super) struct Pauses<T> {
    told: Option<T>,
    last: Duration,
}

impl<T> Default for Pauses<T> {
    fn default() -> Self {
        Self {
            told: None,
            last: Duration::ZERO,
        }
    }
}

impl<T: Clone + PartialEq> Pauses<T> {
    /// Before the next request, for one that was made by what `told` says.
    pub(super) fn next(&mut self, told: &T) -> Duration {
        if self.told.as_ref() == Some(told) {
            self.last = (self.last * 2).min(MAX);
        } else {
            self.told = Some(told.clone());
            self.last = MIN;
        }
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_is_asked_for_now_and_then() {
        let mut pauses = Pauses::default();
        let told = "managers a and b";
        let (mut passed, mut asked) = (Duration::ZERO, 0);
        while passed < Duration::from_secs(3600) {
            passed += pauses.next(&told);
            asked += 1;
            if asked == 3 {
                assert!(passed < Duration::from_secs(1), "most wait for a moment");
            }
        }
        assert!(asked < 150, "{asked} requests in an hour");
        // It may be what was waited for.
        assert_eq!(pauses.next(&"managers a, b and c"), MIN);
        assert_eq!(pauses.next(&"managers a, b and c"), MIN * 2);
    }
}
