//! Which range the gateway bridge gets.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use weft_cluster::{HostRoute, claim_on, first_free};

/// No range can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SubnetError {
    /// Config: the wanted one is taken.
    #[error(
        "the gateway bridge cannot have {wanted}: it overlaps {busy} on {dev}; choose another range with --gwbridge-subnet"
    )]
    Overlaps {
        /// As configured.
        wanted: Ipv4Net,
        /// What the host has.
        busy: IpNet,
        /// On which interface.
        dev: String,
    },
    /// Config: every candidate is taken.
    #[error(
        "no free private range for the gateway bridge (tried 172.18.0.0/16 to 172.31.0.0/16 and 192.168.0.0/20 to 192.168.240.0/20): choose one with --gwbridge-subnet"
    )]
    NoneFree,
    /// Config: no room for the bridge and a sandbox.
    #[error("{wanted} is too small for the gateway bridge: use a prefix length of 29 or less")]
    TooSmall {
        /// As configured.
        wanted: Ipv4Net,
    },
}

/// The wanted range, unless the host is on a subnet of it; or the first private one that shares
/// nothing with `busy` (routes of the host, named by their interfaces), and then one that the host
/// has by way of a gateway only. The result's address is its first host address, which
/// is the bridge's own. 10.0.0.0/8 is left to overlay networks.
///
/// # Errors
/// See [`SubnetError`].
pub(crate) fn choose_subnet(
    wanted: Option<Ipv4Net>,
    busy: &[HostRoute],
) -> Result<Ipv4Net, SubnetError> {
    if let Some(wanted) = wanted {
        if wanted.prefix_len() > 29 {
            return Err(SubnetError::TooSmall { wanted });
        }
        return match claim_on(&wanted.trunc().into(), busy) {
            Some(HostRoute { dest, what, .. }) => Err(SubnetError::Overlaps {
                wanted,
                busy: *dest,
                dev: what.clone(),
            }),
            None => Ok(with_first_host(wanted.trunc())),
        };
    }
    first_free(candidates(), busy)
        .map(with_first_host)
        .ok_or(SubnetError::NoneFree)
}

fn candidates() -> impl Iterator<Item = Ipv4Net> + Clone {
    let large = (18..=31u8).map(|n| Ipv4Net::new_assert(Ipv4Addr::new(172, n, 0, 0), 16));
    let small = (0..=240u8)
        .step_by(16)
        .map(|n| Ipv4Net::new_assert(Ipv4Addr::new(192, 168, n, 0), 20));
    large.chain(small)
}

fn with_first_host(range: Ipv4Net) -> Ipv4Net {
    let first = Ipv4Addr::from(u32::from(range.network()) + 1);
    Ipv4Net::new_assert(first, range.prefix_len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(nets: &[&str]) -> Vec<HostRoute> {
        nets.iter()
            .map(|n| HostRoute::connected(n.parse().expect("net"), "eth9"))
            .collect()
    }

    fn chosen(wanted: Option<&str>, nets: &[&str]) -> Result<String, SubnetError> {
        let wanted = wanted.map(|w| w.parse().expect("net"));
        choose_subnet(wanted, &busy(nets)).map(|net| net.to_string())
    }

    #[test]
    fn the_default_is_swarms_or_the_next_free_one() {
        assert_eq!(chosen(None, &[]).as_deref(), Ok("172.18.0.1/16"));
        assert_eq!(
            chosen(None, &["10.0.0.0/8", "fd00::/8"]).as_deref(),
            Ok("172.18.0.1/16")
        );
        assert_eq!(
            chosen(None, &["172.18.5.0/24"]).as_deref(),
            Ok("172.19.0.1/16")
        );
        assert_eq!(
            chosen(None, &["172.16.0.0/12"]).as_deref(),
            Ok("192.168.0.1/20")
        );
        assert_eq!(
            chosen(None, &["172.16.0.0/12", "192.168.1.0/24"]).as_deref(),
            Ok("192.168.16.1/20")
        );
        assert_eq!(
            chosen(None, &["172.16.0.0/12", "192.168.0.0/16"]),
            Err(SubnetError::NoneFree)
        );
    }

    #[test]
    fn a_full_tunnel_leaves_a_range() {
        let tunnel = ["0.0.0.0/1", "128.0.0.0/1"];
        assert_eq!(chosen(None, &tunnel).as_deref(), Ok("172.18.0.1/16"));
        let company = ["172.16.0.0/12", "192.168.0.0/16", "0.0.0.0/0"];
        let routes = company.map(|n| HostRoute::by_gateway(n.parse().expect("net"), "tun0"));
        assert_eq!(
            choose_subnet(None, &routes).expect("a range").to_string(),
            "172.18.0.1/16"
        );
    }

    #[test]
    fn a_wanted_range_is_taken_or_refused_by_name() {
        assert_eq!(
            chosen(Some("10.200.0.0/24"), &[]).as_deref(),
            Ok("10.200.0.1/24")
        );
        assert_eq!(
            chosen(Some("10.200.0.9/24"), &[]).as_deref(),
            Ok("10.200.0.1/24")
        );
        let error = chosen(Some("10.200.0.0/24"), &["10.200.0.128/25"]).expect_err("overlap");
        assert!(
            error
                .to_string()
                .contains("overlaps 10.200.0.128/25 on eth9"),
            "{error}"
        );
        assert!(matches!(
            chosen(Some("10.0.0.0/30"), &[]),
            Err(SubnetError::TooSmall { .. })
        ));
    }
}
