//! Routes of a host, and which of them are claims to a range: one rule for the subnets of networks,
//! for the gateway bridge and for warnings.
//!
//! A VPN routes half of the world, or a whole private range, by way of itself, and nobody of whom
//! this host is a neighbour has these addresses. A network may be made over such a route; what the
//! host reaches by it, sandboxes on the network do not.

use ipnet::IpNet;

/// A route that is shorter covers too much to be somebody's subnet.
const SHORTEST_CLAIM: u8 = 9;
/// A route that is shorter is a part of the default route, such as `0.0.0.0/1` or `2000::/3`.
const SHORTEST_OF_INTEREST: u8 = 8;

/// A route of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoute {
    /// Destination.
    pub dest: IpNet,
    /// Words that name it, such as `dev eth0`.
    pub what: String,
    connected: bool,
}

impl HostRoute {
    /// A route without a gateway.
    #[must_use]
    pub fn connected(dest: IpNet, what: impl Into<String>) -> Self {
        Self {
            dest,
            what: what.into(),
            connected: true,
        }
    }

    /// A route by way of a gateway.
    #[must_use]
    pub fn by_gateway(dest: IpNet, what: impl Into<String>) -> Self {
        Self {
            connected: false,
            ..Self::connected(dest, what)
        }
    }

    /// True for a subnet that this host is on: nothing else can have its addresses.
    #[must_use]
    pub fn is_claim(&self) -> bool {
        self.connected && self.dest.prefix_len() >= SHORTEST_CLAIM
    }

    fn is_of_interest(&self) -> bool {
        self.dest.prefix_len() >= SHORTEST_OF_INTEREST
    }
}

/// True when one of them is in the other.
pub(super) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// The route that forbids a range.
#[must_use]
pub fn claim_on<'r>(range: &IpNet, routes: &'r [HostRoute]) -> Option<&'r HostRoute> {
    let mut claims = routes.iter().filter(|route| route.is_claim());
    claims.find(|route| overlap(&route.dest, range))
}

/// Routes that have something in common with a range, so that another one is the better choice:
/// claims, and others but the default route and its parts.
pub fn shared_with(range: IpNet, routes: &[HostRoute]) -> impl Iterator<Item = &HostRoute> {
    let routes = routes.iter().filter(|route| route.is_of_interest());
    routes.filter(move |route| overlap(&route.dest, &range))
}

/// The first range that shares nothing with a route; when there is none, the first that no route
/// forbids.
pub fn first_free<T: Copy + Into<IpNet>>(
    candidates: impl Iterator<Item = T> + Clone,
    routes: &[HostRoute],
) -> Option<T> {
    let mut unshared = candidates.clone();
    let apart = unshared.find(|range| shared_with((*range).into(), routes).next().is_none());
    let mut allowed = candidates;
    apart.or_else(|| allowed.find(|range| claim_on(&(*range).into(), routes).is_none()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn a_full_tunnel_is_no_claim_and_a_neighbours_subnet_is() {
        let by_gateway = |dest| HostRoute::by_gateway(net(dest), "dev tun0");
        let connected = |dest| HostRoute::connected(net(dest), "dev eth0");
        for (route, claims, shares) in [
            (by_gateway("0.0.0.0/1"), false, false),
            (connected("0.0.0.0/1"), false, false),
            (connected("0.0.0.0/0"), false, false),
            (by_gateway("10.0.0.0/8"), false, true),
            (connected("10.0.0.0/8"), false, true),
            (by_gateway("10.0.1.0/24"), false, true),
            (connected("10.0.0.0/16"), true, true),
            (connected("10.0.1.128/25"), true, true),
            (connected("10.0.2.0/24"), false, false),
            (connected("fd00::/9"), false, false),
        ] {
            let routes = [route];
            let range = net("10.0.1.0/24");
            let what = &routes[0];
            assert_eq!(claim_on(&range, &routes).is_some(), claims, "{what:?}");
            assert_eq!(shared_with(range, &routes).count() == 1, shares, "{what:?}");
        }
        let tunnel = ["2000::/3", "fc00::/7"].map(by_gateway);
        assert_eq!(shared_with(net("fd12::/64"), &tunnel).next(), None);
    }

    #[test]
    fn what_is_shared_is_taken_when_there_is_nothing_better() {
        let candidates = ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"].map(net);
        let first = |routes: &[HostRoute]| first_free(candidates.into_iter(), routes);
        let on = HostRoute::connected(net("10.1.5.0/24"), "dev eth0");
        let via = |dest| HostRoute::by_gateway(net(dest), "dev eth0");
        assert_eq!(first(std::slice::from_ref(&on)), Some(candidates[1]));
        assert_eq!(
            first(&[on.clone(), via("10.2.0.0/20")]),
            Some(candidates[2])
        );
        assert_eq!(first(&[on, via("10.0.0.0/8")]), Some(candidates[1]));
        let all = HostRoute::connected(net("10.0.0.0/9"), "dev eth0");
        assert_eq!(first(&[all]), None);
    }
}
