//! Kernel settings that let packets through the host to `weft0` and back.
//!
//! IPv6 has one switch for the whole host, `conf.all.forwarding`, and turning it on says of every
//! interface that it is a router's: the kernel then ignores router advertisements (but where
//! `accept_ra` is 2) and forgets the default routes that it has from them. Only the whole host's
//! part is wanted here, so interfaces become what they were, and nothing that they learnt is lost.

use std::io::ErrorKind;

use crate::names::{BRIDGE, MESH_IFNAME};
use crate::sandbox::{SandboxError, sysctl};

const CONF: &str = "net/ipv6/conf";

/// Interfaces of weft's own, each of which has a switch of its own too.
const OWN: [&str; 2] = [MESH_IFNAME, BRIDGE];

/// Forwards IPv4 again, where somebody has switched it off. Returns the switches.
///
/// # Errors
/// The settings cannot be read or changed.
pub(super) fn restore_ipv4() -> Result<Vec<String>, SandboxError> {
    let mut lost = Vec::new();
    let own = OWN.map(|name| format!("net/ipv4/conf/{name}/forwarding"));
    for name in ["net/ipv4/ip_forward".to_owned()].iter().chain(&own) {
        if there(sysctl::get(name))?.as_deref() == Some("0") {
            sysctl::set(name, "1")?;
            lost.push(name.replace('/', "."));
        }
    }
    Ok(lost)
}

/// Forwards IPv6 again, where somebody has switched it off. Returns the switch.
///
/// # Errors
/// The settings cannot be read or changed.
pub(super) fn restore_ipv6() -> Result<Vec<String>, SandboxError> {
    let all = format!("{CONF}/all/forwarding");
    if sysctl::get(&all)? != "0" {
        return Ok(Vec::new());
    }
    enable_ipv6()?;
    Ok(vec![all.replace('/', ".")])
}

/// Forwards IPv4.
///
/// # Errors
/// The setting cannot be changed.
pub(super) fn enable_ipv4() -> Result<(), SandboxError> {
    sysctl::set("net/ipv4/ip_forward", "1")
}

/// Forwards IPv6; a host that does already is left as it is.
///
/// # Errors
/// The setting cannot be read or changed.
pub(super) fn enable_ipv6() -> Result<(), SandboxError> {
    let all = format!("{CONF}/all/forwarding");
    if sysctl::get(&all)? != "0" {
        return Ok(());
    }
    let names = interfaces()?;
    let was = |setting: &str, value: &str| -> Result<Vec<String>, SandboxError> {
        let mut found = Vec::new();
        for name in &names {
            let name = format!("{CONF}/{name}/{setting}");
            if there(sysctl::get(&name))?.as_deref() == Some(value) {
                found.push(name);
            }
        }
        Ok(found)
    };
    let hosts = was("forwarding", "0")?;
    let learn = was("accept_ra", "1")?;
    // First, or the routes are forgotten.
    let mut result = set_each(&learn, "2");
    if result.is_ok() {
        result = sysctl::set(&all, "1");
        // New interfaces, too.
        let default = format!("{CONF}/default/forwarding");
        result = result.and(sysctl::set(&default, "0"));
    }
    let restored = set_each(&hosts, "0").and(set_each(&learn, "1"));
    result.and(restored)
}

/// Sets all of them, whatever becomes of one.
fn set_each(names: &[String], value: &str) -> Result<(), SandboxError> {
    let mut result = Ok(());
    for name in names {
        result = result.and(there(sysctl::set(name, value)).map(drop));
    }
    result
}

/// Interfaces come and go.
fn there<T>(result: Result<T, SandboxError>) -> Result<Option<T>, SandboxError> {
    match result {
        Err(SandboxError::Sysctl { source, .. }) if source.kind() == ErrorKind::NotFound => {
            Ok(None)
        }
        other => other.map(Some),
    }
}

fn interfaces() -> Result<Vec<String>, SandboxError> {
    let entries = std::fs::read_dir(format!("/proc/sys/{CONF}"));
    let entries = entries.map_err(|source| SandboxError::Sysctl {
        name: CONF.to_owned(),
        source,
    })?;
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|n| n != "all" && n != "default").collect())
}

#[cfg(test)]
mod tests {
    use weft_sys::netlink::{Netlink, Veth};
    use weft_sys::netns::Netns;

    use super::*;

    fn pair(name: &str, peer: &str) {
        let mut netlink = Netlink::open().expect("netlink");
        let veth = Veth {
            name,
            peer,
            peer_netns: None,
            peer_mac: None,
            mtu: None,
        };
        netlink.add_veth(&veth).expect("a cable");
    }

    #[test]
    fn the_host_forwards_and_its_interfaces_stay_those_of_a_host() {
        let netns = Netns::create_anonymous().expect("netns");
        let check = || {
            pair("up0", "up1");
            let set = |name: &str, value| sysctl::set(&format!("{CONF}/{name}"), value);
            let get = |name: &str| sysctl::get(&format!("{CONF}/{name}")).expect("a setting");
            set("up1/accept_ra", "0").expect("set");
            enable_ipv6().expect("forwarding");
            pair("new0", "new1");
            for (name, value) in [
                ("all/forwarding", "1"),
                ("default/forwarding", "0"),
                ("up0/forwarding", "0"),
                ("up0/accept_ra", "1"),
                ("up1/forwarding", "0"),
                ("up1/accept_ra", "0"),
                ("new0/forwarding", "0"),
                ("new0/accept_ra", "1"),
            ] {
                assert_eq!(get(name), value, "{name}");
            }
            // What an operator has set since stays.
            set("up1/forwarding", "1").expect("set");
            enable_ipv6().expect("again");
            assert_eq!(get("up1/forwarding"), "1");
        };
        netns.run_in(check).expect("enter");
    }
}
