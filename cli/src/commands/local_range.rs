//! Published numbers that the kernel also gives to connections.

use weft_model::objects::PortSpec;

use crate::output::complain;

/// Warns of those, with what keeps the kernel from it. Judged by this machine, as nodes are alike.
pub(super) fn warn(ports: &[PortSpec]) {
    let setting =
        |name| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
    let (range, reserved) = (
        setting("ip_local_port_range"),
        setting("ip_local_reserved_ports"),
    );
    for port in ports.iter().map(|port| port.published) {
        if may_be_given(port, &range, &reserved) {
            complain(&format!(
                "weft: warning: port {port} is one that machines give to connections of their own ({}): while one has it, programs of that node itself are refused there; keep it free on every node with sysctl -w net.ipv4.ip_local_reserved_ports={port}",
                range.split_whitespace().collect::<Vec<_>>().join("-")
            ));
        }
    }
}

/// By the texts of both settings: `32768 60999`, and `8080,40000-40010` (Documentation/networking/
/// ip-sysctl.rst).
fn may_be_given(port: u16, range: &str, reserved: &str) -> bool {
    let number = |text: &str| text.trim().parse::<u16>().ok();
    let mut ends = range.split_whitespace().map(number);
    let (Some(Some(first)), Some(Some(last))) = (ends.next(), ends.next()) else {
        return false;
    };
    let is_reserved = reserved.split(',').any(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        number(from)
            .zip(number(to))
            .is_some_and(|(from, to)| (from..=to).contains(&port))
    });
    (first..=last).contains(&port) && !is_reserved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_range_may_be_given_unless_they_are_reserved() {
        let range = "32768\t60999\n";
        let given = |port, reserved| may_be_given(port, range, reserved);
        assert!(given(32_768, "\n") && given(40_000, "") && given(60_999, "40000\n"));
        assert!(!given(8000, "") && !given(32_767, "") && !given(61_000, ""));
        let reserved = "8080,40000-40010,50000\n";
        assert!(!given(40_000, reserved) && !given(40_010, reserved) && !given(50_000, reserved));
        assert!(given(40_011, reserved));
        assert!(!may_be_given(40_000, "", "") && !may_be_given(40_000, "x y", ""));
    }
}
