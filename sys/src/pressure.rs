//! How much what runs on this machine waits: pressure stall information of the kernel
//! (Documentation/accounting/psi.rst).

/// What there is to wait for.
const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];

/// The part of the last ten seconds in which some task waited for CPU, memory or I/O, the worst of
/// the three, in hundredths of a percent. None where the kernel does not say: before Linux 4.20, or
/// with `psi=0`.
#[must_use]
pub fn worst() -> Option<u16> {
    let waits = RESOURCES.iter().filter_map(|resource| {
        let text = std::fs::read_to_string(format!("/proc/pressure/{resource}")).ok()?;
        some_avg10(&text)
    });
    waits.max()
}

/// `some avg10=1.53 avg60=…`: always with two places.
fn some_avg10(text: &str) -> Option<u16> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let mut words = line.split_whitespace();
    let (percent, hundredths) = words
        .find_map(|word| word.strip_prefix("avg10="))?
        .split_once('.')?;
    let percent: u16 = percent.parse().ok()?;
    let hundredths: u16 = hundredths.parse().ok()?;
    percent.checked_mul(100)?.checked_add(hundredths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_average_of_some_is_read_and_nonsense_is_not() {
        let told = |avg10: &str| {
            let full = "full avg10=88.00 avg60=0.00 avg300=0.00 total=7";
            some_avg10(&format!("{full}\nsome avg10={avg10} avg60=99.00 total=7\n"))
        };
        assert_eq!(told("0.00"), Some(0));
        assert_eq!(told("1.53"), Some(153));
        assert_eq!(told("100.00"), Some(10_000));
        for nonsense in ["", "1", "x.00", "1.y", "99999.00", "-1.00"] {
            assert_eq!(told(nonsense), None, "{nonsense}");
        }
        assert_eq!(some_avg10(""), None);
    }

    #[test]
    fn a_part_of_the_time_is_no_more_than_all_of_it() {
        assert!(worst().is_none_or(|pressure| pressure <= 10_000));
    }
}
