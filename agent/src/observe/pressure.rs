//! How much what runs on this node waits, as far as the others are told: balancers everywhere prefer
//! replicas on calm nodes, among those with the same load.

/// What the others know is wrong by less than this, in hundredths of a percent; so a node tells
/// something seldom, and a calm one nothing.
const STEP: u16 = 500;

/// What the others were told last; 0 before the first time.
#[derive(Debug, Default)]
pub(crate) struct ToldPressure(u16);

impl ToldPressure {
    /// What to tell the others now that this node has such a pressure, in hundredths of a percent;
    /// 0 takes back what they know. None while that is right, or nearly so.
    pub(crate) fn news(&mut self, pressure: u16) -> Option<u16> {
        // Half a step: around a whole one it would come and go.
        let pressure = if pressure < STEP / 2 { 0 } else { pressure };
        let is_calm_again = pressure == 0 && self.0 != 0;
        if !is_calm_again && pressure.abs_diff(self.0) < STEP {
            return None;
        }
        self.0 = pressure;
        Some(pressure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_hear_of_steps_and_of_calm() {
        let mut told = ToldPressure::default();
        let seen = [0, 499, 500, 900, 260, 1000, 9000, 8600, 400, 240, 0, 499];
        let news: Vec<Option<u16>> = seen.into_iter().map(|p| told.news(p)).collect();
        let expected = [
            None,
            None,
            Some(500),
            None,
            None,
            Some(1000),
            Some(9000),
            None,
            Some(400),
            Some(0),
            None,
            None,
        ];
        assert_eq!(news, expected);
    }

    #[test]
    fn what_others_know_is_never_far_from_what_is() {
        let (mut told, mut known) = (ToldPressure::default(), 0);
        for pressure in (0..10_000).step_by(37).chain((0..10_000).rev().step_by(91)) {
            known = told.news(pressure).unwrap_or(known);
            assert!(known.abs_diff(pressure) < STEP, "{known}, {pressure}");
        }
    }
}
