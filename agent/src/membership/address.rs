//! Which address a node is reached at: `--advertise-addr`, `--listen-addr`, `--data-path-addr`.
//!
//! Each takes an address or the name of an interface; without one the only address of the system
//! is taken, and several are an error that names them (docker's rules and texts).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use weft_sys::netlink::Netlink;

/// TCP port of managers.
pub(super) const MANAGER_PORT: u16 = 2377;

/// The text or the system does not say which address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct AddressError(String);

/// Addresses of this host by interface, loopback and link-local ones left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HostAddresses(Vec<(String, IpAddr)>);

impl HostAddresses {
    /// Asks the kernel, in the calling thread's namespace.
    ///
    /// # Errors
    /// When netlink does not answer.
    pub(super) fn read() -> Result<Self, AddressError> {
        let failed = |e: weft_sys::netlink::NetlinkError| AddressError(e.to_string());
        let mut netlink = Netlink::open().map_err(failed)?;
        let links = netlink.links().map_err(failed)?;
        let addresses = netlink.all_addresses().map_err(failed)?;
        Ok(Self(
            addresses
                .into_iter()
                .filter(|(_, net)| is_usable(net))
                .filter_map(|(index, net)| {
                    let link = links.iter().find(|l| l.index == index)?;
                    // Our own devices are never how others reach the node.
                    (!link.name.starts_with("weft")).then(|| (link.name.clone(), net.addr()))
                })
                .collect(),
        ))
    }

    /// Whether the machine has it.
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|(_, own)| *own == ip) || ip.is_loopback()
    }

    /// The only address of the system.
    fn only(&self) -> Result<IpAddr, AddressError> {
        let v4: Vec<&(String, IpAddr)> = self.0.iter().filter(|(_, ip)| ip.is_ipv4()).collect();
        let candidates: Vec<&(String, IpAddr)> = if v4.is_empty() {
            self.0.iter().collect()
        } else {
            v4
        };
        match candidates.as_slice() {
            [] => Err(AddressError(
                "could not find the system's IP address: bring an interface up, or give --advertise-addr".to_owned(),
            )),
            [(_, ip)] => Ok(*ip),
            [(a, x), (b, y), ..] if a == b => Err(AddressError(format!(
                "could not choose an IP address to advertise since this system has multiple addresses on interface {a} ({x} and {y}): specify one with --advertise-addr"
            ))),
            [(a, x), (b, y), ..] => Err(AddressError(format!(
                "could not choose an IP address to advertise since this system has multiple addresses on different interfaces ({x} on {a} and {y} on {b}): specify one with --advertise-addr"
            ))),
        }
    }

    /// An address, or the first one of an interface.
    fn resolve(&self, text: &str, flag: &str) -> Result<IpAddr, AddressError> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(ip);
        }
        let mut on: Vec<IpAddr> = self
            .0
            .iter()
            .filter(|(name, _)| name == text)
            .map(|(_, ip)| *ip)
            .collect();
        on.sort_by_key(|ip| ip.is_ipv6());
        on.first().copied().ok_or_else(|| {
            AddressError(format!(
                "{flag} {text:?} is neither an IP address nor an interface with one: see `ip addr`"
            ))
        })
    }

    /// `--advertise-addr` with an optional port.
    ///
    /// # Errors
    /// See the module.
    pub(super) fn advertise(
        &self,
        flag: Option<&str>,
    ) -> Result<(IpAddr, Option<u16>), AddressError> {
        let Some(text) = flag.filter(|t| !t.is_empty()) else {
            return Ok((self.only()?, None));
        };
        let (host, port) = split_port(text, "--advertise-addr")?;
        let ip = self.resolve(host, "--advertise-addr")?;
        if ip.is_unspecified() {
            return Err(AddressError(
                "advertise address must be a non-zero IP address or network interface (with optional port number)".to_owned(),
            ));
        }
        if !self.has(ip) {
            return Err(AddressError(format!(
                "--advertise-addr {ip} is not an address of this system (it has {self})"
            )));
        }
        Ok((ip, port))
    }

    /// `--listen-addr` with an optional port; every address of the family of `advertise` when it is
    /// not given.
    ///
    /// # Errors
    /// See the module.
    pub(super) fn listen(
        &self,
        flag: Option<&str>,
        advertise: IpAddr,
    ) -> Result<SocketAddr, AddressError> {
        let Some(text) = flag.filter(|t| !t.is_empty()) else {
            // Where IPv6 is, the unspecified address of IPv6 takes connections of both families.
            let any: IpAddr = match advertise {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            return Ok(SocketAddr::new(any, MANAGER_PORT));
        };
        let (host, port) = split_port(text, "--listen-addr")?;
        let ip = self.resolve(host, "--listen-addr")?;
        Ok(SocketAddr::new(ip, port.unwrap_or(MANAGER_PORT)))
    }

    /// `--data-path-addr`, without a port; `default` when it is not given.
    ///
    /// # Errors
    /// See the module.
    pub(super) fn data_path(
        &self,
        flag: Option<&str>,
        default: IpAddr,
    ) -> Result<IpAddr, AddressError> {
        let Some(text) = flag.filter(|t| !t.is_empty()) else {
            return Ok(default);
        };
        let ip = self.resolve(text, "--data-path-addr")?;
        if ip.is_unspecified() {
            return Err(AddressError(
                "data path address must be a non-zero IP address or network interface (without a port number)".to_owned(),
            ));
        }
        Ok(ip)
    }
}

impl std::fmt::Display for HostAddresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (name, ip)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{ip} on {name}")?;
        }
        Ok(())
    }
}

fn is_usable(net: &IpNet) -> bool {
    match net.addr() {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

fn split_port<'a>(text: &'a str, flag: &str) -> Result<(&'a str, Option<u16>), AddressError> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok((text, None));
    }
    match text.rsplit_once(':') {
        None => Ok((text, None)),
        Some((host, port)) => {
            let port = port.parse().ok().filter(|p| *p != 0).ok_or_else(|| {
                AddressError(format!("{flag} {text:?}: {port:?} is not a port (1-65535)"))
            })?;
            Ok((host.trim_matches(['[', ']']), Some(port)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(list: &[(&str, &str)]) -> HostAddresses {
        HostAddresses(
            list.iter()
                .map(|(n, ip)| ((*n).to_owned(), ip.parse().unwrap()))
                .collect(),
        )
    }

    #[test]
    fn the_only_address_is_taken_and_several_are_named() {
        let one = host(&[("eth0", "10.1.0.5"), ("eth0", "fd00::5")]);
        assert_eq!(one.advertise(None), Ok(("10.1.0.5".parse().unwrap(), None)));
        let two = host(&[("eth0", "10.1.0.5"), ("eth1", "10.2.0.5")]);
        let error = two.advertise(None).unwrap_err().to_string();
        assert!(
            error.contains("10.1.0.5 on eth0 and 10.2.0.5 on eth1"),
            "{error}"
        );
        assert!(error.contains("--advertise-addr"));
    }

    #[test]
    fn an_ipv6_underlay() {
        let h = host(&[("eth0", "fd00::5")]);
        let ip: IpAddr = "fd00::5".parse().unwrap();
        assert_eq!(h.advertise(None), Ok((ip, None)));
        assert_eq!(h.advertise(Some("fd00::5")), Ok((ip, None)));
        assert_eq!(h.advertise(Some("[fd00::5]:4000")), Ok((ip, Some(4000))));
        assert_eq!(h.listen(None, ip), Ok("[::]:2377".parse().unwrap()));
        assert_eq!(
            h.listen(Some("[fd00::5]:99"), ip),
            Ok("[fd00::5]:99".parse().unwrap())
        );
        assert_eq!(h.data_path(Some("eth0"), ip), Ok(ip));
        assert!(h.advertise(Some("fe80::1")).is_err());
        assert!(h.advertise(Some("::")).is_err());
    }

    #[test]
    fn interfaces_addresses_and_ports() {
        let h = host(&[("eth0", "10.1.0.5"), ("eth1", "10.2.0.5")]);
        let ip: IpAddr = "10.2.0.5".parse().unwrap();
        assert_eq!(h.advertise(Some("eth1")), Ok((ip, None)));
        assert_eq!(h.advertise(Some("eth1:4000")), Ok((ip, Some(4000))));
        assert_eq!(h.advertise(Some("10.2.0.5:4000")), Ok((ip, Some(4000))));
        assert_eq!(h.listen(None, ip), Ok("0.0.0.0:2377".parse().unwrap()));
        assert_eq!(
            h.listen(Some("eth1"), ip),
            Ok("10.2.0.5:2377".parse().unwrap())
        );
        assert!(h.advertise(Some("0.0.0.0")).is_err());
        assert!(h.advertise(Some("192.0.2.1")).is_err());
        assert!(h.advertise(Some("eth7")).is_err());
        assert!(h.advertise(Some("eth1:x")).is_err());
        assert_eq!(h.data_path(None, ip), Ok(ip));
        assert_eq!(
            h.data_path(Some("eth0"), ip),
            Ok("10.1.0.5".parse().unwrap())
        );
    }
}
