//! Keeps what this node made in its kernel: rules, switches, interfaces, addresses, routes, on the host
//! and in sandboxes. Others write there, too.
//!
//! Compared several times each second where that costs microseconds, once a second where it costs
//! more. What is missing is set again, and a warning says that it had to be.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use weft_model::assignment::Assignment;
use weft_sys::tap::Tap;

use crate::blocking::blocking;
use crate::compile::known::LocalPort;
use crate::parts::data_path::DataPath;
use crate::parts::handles::Handles;
use crate::parts::warnings::Warnings;
use crate::sandbox::{PortConfig, Sandbox, WayToResolver, keep_mesh_tap, keep_port};

/// Between two looks at rules and switches.
const TICK: Duration = Duration::from_millis(250);

/// Ticks between two looks at interfaces.
const SLOW: u32 = 4;

/// How long nothing may have been missing for the warning to end.
const QUIET: Duration = Duration::from_secs(60);

/// Interfaces in sandboxes that are looked at in one second; the next ones have their turn in the
/// next.
const PORTS: usize = 100;

/// What was missing lately.
#[derive(Debug, Default)]
struct Lost {
    things: BTreeSet<String>,
    last: Option<Instant>,
}

impl Lost {
    /// Takes in what one look found, and warns as long as that was a short time ago.
    fn take(&mut self, found: Vec<String>, warnings: &Warnings, now: Instant) {
        const SUBJECT: &str = "host state";
        if !found.is_empty() {
            self.last = Some(now);
            let known = self.things.len();
            self.things.extend(found);
            if self.things.len() > known {
                warnings.set(SUBJECT, self.text());
            }
        } else if self.last.is_some_and(|last| now - last > QUIET) {
            *self = Self::default();
            warnings.clear(SUBJECT);
        }
    }

    fn text(&self) -> String {
        /// In one warning, before it only counts them.
        const NAMED: usize = 12;
        let mut names: Vec<&str> = self.things.iter().map(String::as_str).collect();
        let more = names.len().saturating_sub(NAMED);
        names.truncate(NAMED);
        let mut list = names.join(", ");
        if more > 0 {
            list.push_str(&format!(" and {more} more"));
        }
        format!(
            "something else on this host took away what weft had made, and weft put it back: {list}; a firewall that is reloaded or a tool that sets sysctls does this, and should leave these alone"
        )
    }
}

/// Compares until `end` is true; then nothing is on its way any more.
pub(crate) async fn run(
    handles: Arc<Handles>,
    data_path: Arc<DataPath>,
    mut end: watch::Receiver<bool>,
) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut lost = Lost::default();
    let mut ticks = 0_u32;
    let mut turn = 0;
    loop {
        tokio::select! {
            _ = tick.tick() => ticks = ticks.wrapping_add(1),
            _ = end.wait_for(|end| *end) => return,
        }
        let (mut all, mut ways) = (Vec::new(), Vec::new());
        if ticks.is_multiple_of(SLOW)
            && let Some(orders) = handles.session.assignments().borrow().clone()
        {
            all = ports(&handles.local.all(), &orders, u32::from(data_path.mtu()));
            let len = all.len().max(1);
            all.rotate_left(turn % len);
            all.truncate(PORTS);
            ways = handles.dns.ways();
            let of_ways = ways.len().max(1);
            ways.rotate_left(turn % of_ways);
            ways.truncate(PORTS);
            turn = turn.wrapping_add(PORTS);
        }
        let (this, slow) = (Arc::clone(&data_path), ticks.is_multiple_of(SLOW));
        let looked = blocking(move || look(&this, slow, &all, &ways)).await;
        match looked {
            Ok((found, errors)) => {
                lost.take(found, &handles.warnings, Instant::now());
                match data_path.rules.dropped_outside() {
                    Some(why) => handles.warnings.set(
                        "egress",
                        format!("sandboxes do not reach the outside: {why}"),
                    ),
                    None => handles.warnings.clear("egress"),
                }
                match data_path.rules.error() {
                    Some(error) => handles.warnings.set("host rules", error),
                    None => handles.warnings.clear("host rules"),
                }
                if !errors.is_empty() {
                    handles.warnings.set("host links", errors.join("; "));
                } else if slow {
                    handles.warnings.clear("host links");
                }
            }
            Err(error) => tracing::error!(%error, "the state of the host was not looked at"),
        }
    }
}

/// An attachment to look at.
struct Attached {
    tap: Arc<Tap>,
    config: PortConfig,
}

fn ports(local: &[LocalPort], orders: &Assignment, mtu: u32) -> Vec<Attached> {
    let attached = |port: &LocalPort| {
        let record = &port.record;
        let mut networks = orders.shared.networks.iter();
        let network = networks.find(|n| n.id == record.network)?;
        let ips = record.ips.iter().map(|ip| network.with_prefix(*ip));
        Some(Attached {
            tap: Arc::clone(&port.port.tap),
            config: PortConfig {
                endpoint: record.id.clone(),
                ifname: port.port.tap.name().to_owned(),
                mac: record.mac,
                ips: ips.collect(),
                gateways: network.subnets().iter().map(|s| s.gateway).collect(),
                mtu,
            },
        })
    };
    local.iter().filter_map(attached).collect()
}

/// One look; what was missing, and what could not be set again.
fn look(
    data_path: &DataPath,
    slow: bool,
    ports: &[Attached],
    ways: &[Arc<WayToResolver>],
) -> (Vec<String>, Vec<String>) {
    let (mut lost, mut errors) = (Vec::new(), Vec::new());
    let mut take = |result: Result<Vec<String>, String>| match result {
        Ok(found) => lost.extend(found),
        Err(error) => errors.push(error),
    };
    let gateway = data_path.gateway.get();
    if slow {
        // Rules that name an interface do so by its name, so they may come first or last.
        if data_path.mesh_port.is_some() {
            let kept = keep_mesh_tap(data_path.mesh_ipv6.is_ok());
            take(kept.map_err(|error| {
                format!("published ports may not work: {error}; start weftd again")
            }));
        }
        if data_path.mesh_port.is_some() {
            let kept = data_path.uplinks.keep(&data_path.rules);
            take(kept.map(|()| Vec::new()).map_err(|e| e.to_string()));
        }
        if let Some(gateway) = &gateway {
            take(gateway.keep().map_err(|e| e.to_string()));
        }
    }
    // An error of these has a warning of its own.
    take(data_path.rules.look().or_else(|_| Ok(Vec::new())));
    if slow && let Err(error) = data_path.rules.judge() {
        tracing::debug!(%error, "the rules of others were not read");
    }
    for attached in ports {
        // One that ends meanwhile has nothing to keep.
        let Ok(netns) = attached.tap.netns() else {
            continue;
        };
        let kept = keep_port(&netns, &attached.config);
        take(kept.or_else(|error| {
            tracing::debug!(%error, "an interface in a sandbox was not looked at");
            Ok(Vec::new())
        }));
        if let Some(gateway) = &gateway {
            let kept = gateway.keep_inside(&Sandbox::from_netns(netns));
            take(kept.or_else(|error| {
                tracing::debug!(%error, "the way out of a sandbox was not looked at");
                Ok(Vec::new())
            }));
        }
    }
    for way in ways {
        let kept = way.keep().map(|lost| lost.into_iter().collect());
        take(kept.or_else(|error| {
            tracing::debug!(%error, "the way to a resolver was not looked at");
            Ok(Vec::new())
        }));
    }
    (lost, errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_names_what_was_missing_until_it_has_been_quiet() {
        let (warnings, mut lost) = (Warnings::default(), Lost::default());
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut take = |found: &[&str], secs| {
            let found = found.iter().map(|f| (*f).to_owned()).collect();
            lost.take(found, &warnings, at(secs));
            warnings.all().concat()
        };
        assert_eq!(take(&[], 0), "");
        let said = take(&["chain a"], 1);
        assert!(said.contains("put it back: chain a;"), "{said}");
        assert_eq!(take(&["chain a"], 30), said);
        assert_eq!(take(&[], 90), said);
        assert!(take(&["set b"], 90).contains("chain a, set b;"));
        assert_eq!(take(&[], 151), "");
        let many: Vec<String> = (0..20).map(|n| format!("set {n:02}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(take(&many, 152).contains("set 11 and 8 more;"));
    }
}
