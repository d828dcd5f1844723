//! Which way TCP super-frames leave to other nodes: whole, with their tunnel headers (the injector),
//! or in segments made here that share a datagram (`UDP_SEGMENT`).

use crate::inject::Prices;

/// Whether TCP super-frames may leave whole, with their tunnel headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TunnelOffload {
    /// Where the test of that passes, and it measures cheaper than `UDP_SEGMENT`.
    #[default]
    Auto,
    /// Where the test of that passes.
    On,
    /// Never.
    Off,
}

/// What decides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WayOut {
    pub(crate) asked: TunnelOffload,
    /// `UDP_SEGMENT` works.
    pub(crate) segment: bool,
    /// The test of the injector: nothing while it runs, and what it measured when it passed.
    pub(crate) tested: Option<Result<Option<Prices>, ()>>,
}

impl WayOut {
    /// Whether the injector works, and costs more than `UDP_SEGMENT` where the device does the rest
    /// of either.
    pub(crate) fn segments_are_cheaper(&self) -> bool {
        let slower = matches!(self.tested, Some(Ok(Some(prices))) if !prices.injector_is_ahead());
        self.asked == TunnelOffload::Auto && self.segment && slower
    }

    /// The choice and the reason, for people.
    pub(crate) fn told(&self) -> String {
        const MEASURED: &str = "on this machine, measured over a veth";
        let own = if self.segment {
            "UDP_SEGMENT"
        } else {
            "single datagrams"
        };
        match (self.asked, self.tested) {
            (TunnelOffload::Off, _) => format!("{own}: tunnel offload is off (--tunnel-offload)"),
            (_, None) => format!("{own}, until tunnel offload has been tested"),
            (_, Some(Err(()))) => format!("{own}: the test of tunnel offload did not pass"),
            (_, Some(Ok(_))) if !self.segment => {
                "tunnel offload (weftgso0): UDP_SEGMENT does not work here".to_owned()
            }
            (_, Some(Ok(None))) => {
                "tunnel offload (weftgso0): it could not be compared with UDP_SEGMENT".to_owned()
            }
            (asked, Some(Ok(Some(prices)))) => {
                let ratio = prices.ratio();
                match (asked, prices.injector_is_ahead()) {
                    (TunnelOffload::On, true) => format!(
                        "tunnel offload (weftgso0), as --tunnel-offload says; it is {ratio} cheaper than UDP_SEGMENT {MEASURED}"
                    ),
                    (TunnelOffload::On, false) => format!(
                        "tunnel offload (weftgso0), as --tunnel-offload says; UDP_SEGMENT is {ratio} cheaper {MEASURED}"
                    ),
                    (_, true) => format!(
                        "tunnel offload (weftgso0), {ratio} cheaper than UDP_SEGMENT {MEASURED}"
                    ),
                    (_, false) => format!(
                        "UDP_SEGMENT, {ratio} cheaper than tunnel offload {MEASURED}; tunnel offload is used behind devices that segment tunnels and no datagrams"
                    ),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AHEAD: Prices = Prices {
        injected_ns: 100,
        segmented_ns: 130,
    };
    const BEHIND: Prices = Prices {
        injected_ns: 130,
        segmented_ns: 100,
    };

    fn way(asked: TunnelOffload, tested: Option<Result<Option<Prices>, ()>>) -> WayOut {
        WayOut {
            asked,
            segment: true,
            tested,
        }
    }

    #[test]
    fn the_injector_stays_out_only_where_it_measured_behind_and_nobody_forces_it() {
        use TunnelOffload::{Auto, Off, On};
        assert!(way(Auto, Some(Ok(Some(BEHIND)))).segments_are_cheaper());
        for other in [
            way(Auto, Some(Ok(Some(AHEAD)))),
            way(Auto, Some(Ok(None))),
            way(Auto, Some(Err(()))),
            way(Auto, None),
            way(On, Some(Ok(Some(BEHIND)))),
            way(Off, Some(Ok(Some(BEHIND)))),
            WayOut {
                segment: false,
                ..way(Auto, Some(Ok(Some(BEHIND))))
            },
        ] {
            assert!(!other.segments_are_cheaper(), "{other:?}");
        }
    }

    #[test]
    fn the_choice_is_told_with_its_reason() {
        use TunnelOffload::{Auto, Off, On};
        let told = |asked, tested, words: &[&str]| {
            let text = way(asked, tested).told();
            for word in words {
                assert!(text.contains(word), "{word:?}: {text}");
            }
            text
        };
        let text = told(Auto, Some(Ok(Some(AHEAD))), &["1.3x cheaper", "veth"]);
        assert!(text.starts_with("tunnel offload"), "{text}");
        let text = told(Auto, Some(Ok(Some(BEHIND))), &["1.3x cheaper", "veth"]);
        assert!(text.starts_with("UDP_SEGMENT,"), "{text}");
        let text = told(On, Some(Ok(Some(BEHIND))), &["UDP_SEGMENT is 1.3x cheaper"]);
        assert!(text.starts_with("tunnel offload"), "{text}");
        told(On, Some(Ok(Some(AHEAD))), &["it is 1.3x cheaper"]);
        told(Auto, Some(Ok(None)), &["could not be compared"]);
        told(Auto, Some(Err(())), &["UDP_SEGMENT", "did not pass"]);
        told(Auto, None, &["UDP_SEGMENT", "until"]);
        told(Off, None, &["UDP_SEGMENT", "--tunnel-offload"]);
        let alone = WayOut {
            segment: false,
            ..way(Auto, Some(Ok(Some(BEHIND))))
        };
        assert!(alone.told().starts_with("tunnel offload"));
    }
}
