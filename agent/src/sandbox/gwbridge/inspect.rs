//! Whether the wall stands: what the kernel has of it.

use serde_json::Value;
use weft_sys::netlink::Netlink;
use weft_sys::nft;

use super::rules::HOOKED;
use super::{BRIDGE, GatewayBridge, GwBridgeError, TABLE, WALL, ports};
use crate::sandbox::sysctl;

/// The wall around the gateway bridge and the mesh address, as the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wall {
    /// What is missing, in words; nothing when it stands.
    pub(crate) gaps: Vec<String>,
    /// Ports of sandboxes on the bridge.
    pub(crate) ports: usize,
    /// Packets of sandboxes that were refused since the rules were made.
    pub(crate) refused_sandbox: u64,
    /// Packets to the mesh address that came past the published ports, and were refused.
    pub(crate) refused_mesh: u64,
}

impl GatewayBridge {
    /// Looks at rules, bridge and ports in the calling thread's namespace.
    ///
    /// # Errors
    /// [`GwBridgeError::Rules`], [`GwBridgeError::Netlink`]: they cannot be looked at.
    pub(crate) fn inspect() -> Result<Wall, GwBridgeError> {
        let table = nft::list_table("inet", TABLE).map_err(GwBridgeError::Rules)?;
        let mut wall = match table {
            Some(table) => rules(&table),
            None => Wall {
                gaps: vec![format!("no table {TABLE} of nftables")],
                ..Wall::default()
            },
        };
        let mut netlink = Netlink::open()?;
        if let Some(bridge) = netlink.link(BRIDGE)? {
            if bridge.arp {
                wall.gaps.push(format!("{BRIDGE} believes ARP"));
            }
            let disabled = sysctl::get(&format!("net/ipv6/conf/{BRIDGE}/disable_ipv6"));
            if disabled.is_ok_and(|value| value == "0") {
                wall.gaps.push(format!("{BRIDGE} speaks IPv6"));
            }
        }
        for port in ports(&mut netlink)? {
            wall.ports += 1;
            if !port.locked || port.arp {
                wall.gaps.push(format!("port {} is not locked", port.name));
            }
        }
        Ok(wall)
    }
}

/// What nft says of the table.
fn rules(table: &Value) -> Wall {
    let mut wall = Wall::default();
    let empty = Vec::new();
    let objects = table["nftables"].as_array().unwrap_or(&empty);
    for (chain, least) in WALL {
        let there = objects.iter().any(|o| {
            let of_kernel = o["chain"]["hook"].is_string();
            o["chain"]["name"] == chain && (of_kernel || !HOOKED.contains(&chain))
        });
        let rules = objects.iter().filter(|o| o["rule"]["chain"] == chain);
        let rules = rules.count();
        if !there {
            wall.gaps.push(format!("no chain {chain}"));
        } else if rules < least {
            wall.gaps
                .push(format!("chain {chain} has {rules} of {least} rules"));
        }
    }
    let refused = |name: &str| {
        let counter = objects.iter().find(|o| o["counter"]["name"] == name);
        counter.and_then(|o| o["counter"]["packets"].as_u64())
    };
    wall.refused_sandbox = refused("refused_sandbox").unwrap_or(0);
    wall.refused_mesh = refused("refused_mesh").unwrap_or(0);
    wall
}
