//! What weft sets up on its host for everybody there: one table of nftables, and the switches that
//! let the kernel forward. Made by its parts, and kept here.
//!
//! Others write to the same kernel: a firewall that is reloaded flushes all rules, a tool that sets
//! sysctls puts a switch back. [`HostRules::look`] is called several times each second. It asks the
//! kernel for the generation of its rules, one number, and only when somebody else has changed that
//! reads the table and compares. What is missing is set again from the texts that the parts gave, in
//! one transaction.

mod foreign;
mod forwarding;
mod shape;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::Value;
use weft_sys::netlink::Netlink;
use weft_sys::nft::{self, NftError, TranslationHold};

use crate::names::{HOLD, TABLE};
use crate::sandbox::SandboxError;
use crate::sandbox::gwbridge::former;
use foreign::Dropped;
use shape::Shape;

/// The rules of this host and the parts that they are made of. Methods block, for some
/// milliseconds where rules are changed.
/// No two of its locks are held at once.
#[derive(Debug, Default)]
pub(crate) struct HostRules {
    state: Mutex<State>,
    /// Why rules are missing or the kernel does not forward, while that is so.
    error: Mutex<Option<String>>,
    /// Whether IPv4 and IPv6 are to be forwarded.
    forwards: [AtomicBool; 2],
    judged: Mutex<Judged>,
}

/// What others drop, by the last look at their rules.
#[derive(Debug, Default)]
struct Judged {
    dropped: Dropped,
    /// Generation of the rules and the device of the default route that this holds for.
    of: Option<(u32, Option<String>)>,
    /// Large rule sets are not read all the time.
    next: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    /// Text of each part: a transaction that brings the kernel to it from whatever is there.
    parts: BTreeMap<&'static str, String>,
    /// Generation of the kernel's rules after the last change of this agent's own, or the last look
    /// that found all well; none when somebody else may have changed them since.
    seen: Option<u32>,
    /// What the table looked like then, once it was read.
    shape: Option<Shape>,
    hold: Option<TranslationHold>,
}

impl HostRules {
    /// Makes a part of the table, or brings it to this form.
    ///
    /// # Errors
    /// See [`NftError`]: nothing was changed, and the form before is kept.
    pub(crate) fn set(&self, part: &'static str, text: String) -> Result<(), NftError> {
        let mut state = self.lock();
        state.apply(&text)?;
        state.parts.insert(part, text);
        Ok(())
    }

    /// Changes a part by one `step`, after which it is as `text` would make it.
    ///
    /// # Errors
    /// As [`HostRules::set`].
    pub(crate) fn change(
        &self,
        part: &'static str,
        step: &str,
        text: String,
    ) -> Result<(), NftError> {
        let mut state = self.lock();
        state.apply(step)?;
        state.parts.insert(part, text);
        Ok(())
    }

    /// Takes a part away by a transaction that does so.
    ///
    /// # Errors
    /// As [`HostRules::set`].
    pub(crate) fn remove(&self, part: &'static str, removal: &str) -> Result<(), NftError> {
        let mut state = self.lock();
        state.apply(removal)?;
        state.parts.remove(part);
        Ok(())
    }

    /// Lets the kernel forward packets of an address family, from now on.
    ///
    /// # Errors
    /// The setting cannot be changed.
    pub(crate) fn forward(&self, ipv6: bool) -> Result<(), SandboxError> {
        if ipv6 {
            forwarding::enable_ipv6()?;
        } else {
            forwarding::enable_ipv4()?;
        }
        self.forwards[usize::from(ipv6)].store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Compares the kernel with what it should have, and sets that again. Returns what was missing,
    /// in words.
    ///
    /// # Errors
    /// It could not be set again; [`HostRules::error`] says so until it could.
    pub(crate) fn look(&self) -> Result<Vec<String>, String> {
        let looked = self.look_at_all();
        *self.error_cell() = looked.as_ref().err().cloned();
        looked
    }

    fn look_at_all(&self) -> Result<Vec<String>, String> {
        let rules = self.lock().look();
        let mut lost = rules.map_err(|e| format!("rules of this host are missing: {e}"))?;
        for ipv6 in [false, true] {
            if self.forwards[usize::from(ipv6)].load(Ordering::Relaxed) {
                let restored = if ipv6 {
                    forwarding::restore_ipv6()
                } else {
                    forwarding::restore_ipv4()
                };
                lost.extend(restored.map_err(|e| format!("this host does not forward: {e}"))?);
            }
        }
        Ok(lost)
    }

    /// Why rules are missing or the kernel does not forward, while that is so.
    #[must_use]
    pub(crate) fn error(&self) -> Option<String> {
        self.error_cell().clone()
    }

    /// Reads the rules of others, where they have changed. To be called every second.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) fn judge(&self) -> Result<(), NftError> {
        /// The share of the time that may go into reading.
        const SHARE: u32 = 20;
        let generation = nft::generation()?;
        let outside = Ipv4Addr::new(192, 0, 2, 1).into();
        let way = Netlink::open().and_then(|mut netlink| netlink.route_to(outside));
        let of = Some((generation, way.ok().map(|way| way.dev)));
        let started = Instant::now();
        {
            let judged = self.judged();
            if judged.of == of || judged.next.is_some_and(|next| started < next) {
                return Ok(());
            }
        }
        let ruleset = nft::list_ruleset()?;
        let uplink = of.as_ref().and_then(|(_, uplink)| uplink.as_deref());
        let dropped = Dropped::by(&ruleset, uplink);
        let took = started.elapsed();
        *self.judged() = Judged {
            dropped,
            of,
            next: Some(Instant::now() + took * SHARE),
        };
        Ok(())
    }

    /// Which rules of others drop the packets of published ports, and what to do about it.
    pub(crate) fn dropped_to_mesh(&self, ipv6: bool) -> Option<String> {
        self.judged().dropped.mesh[usize::from(ipv6)].clone()
    }

    /// Which rules of others drop what sandboxes send outside, and what to do about it.
    pub(crate) fn dropped_outside(&self) -> Option<String> {
        self.judged().dropped.egress.clone()
    }

    fn judged(&self) -> MutexGuard<'_, Judged> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error_cell(&self) -> MutexGuard<'_, Option<String>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A transaction of this agent's own.
    fn apply(&mut self, text: &str) -> Result<(), NftError> {
        let before = nft::generation().ok();
        // The first one begins the reckoning, whatever was there.
        let undisturbed = self.parts.is_empty() || (before.is_some() && before == self.seen);
        self.shape = None;
        self.seen = None;
        let first = self.parts.is_empty();
        if !first || nft::apply(&[&former(), text].concat()).is_err() {
            nft::apply(text)?;
        }
        let after = nft::generation().ok();
        // A transaction that changes nothing does not count.
        let alone = after == before || after == before.map(|n| n.wrapping_add(1));
        if undisturbed && alone {
            self.seen = after;
        }
        Ok(())
    }

    fn look(&mut self) -> Result<Vec<String>, NftError> {
        if self.parts.is_empty() {
            return Ok(Vec::new());
        }
        self.hold();
        let now = nft::generation()?;
        if self.seen == Some(now) && self.shape.is_some() {
            return Ok(Vec::new());
        }
        let found = read()?;
        if self.seen == Some(now) && nft::generation()? == now {
            self.shape = Some(found);
            return Ok(Vec::new());
        }
        if self
            .shape
            .as_ref()
            .is_some_and(|shape| shape.lost(&found).is_empty())
        {
            // Somebody changed a table of his own.
            self.seen = Some(now);
            return Ok(Vec::new());
        }
        let all: String = self.parts.values().map(String::as_str).collect();
        self.seen = None;
        self.shape = None;
        nft::apply(&all)?;
        let after = nft::generation()?;
        let shape = read()?;
        let lost = shape.lost(&found);
        if nft::generation()? == after {
            self.seen = Some(after);
            self.shape = Some(shape);
        }
        Ok(lost)
    }

    /// Where the kernel does not know tables with owners, connections through the host may end
    /// while rules are missing.
    fn hold(&mut self) {
        if self.hold.is_none() {
            match TranslationHold::new(HOLD) {
                Ok(hold) => self.hold = Some(hold),
                Err(error) => tracing::debug!(%error, "nothing holds open connections"),
            }
        }
    }
}

fn read() -> Result<Shape, NftError> {
    let table = nft::list_table("inet", TABLE)?;
    Ok(Shape::of(table.as_ref().unwrap_or(&Value::Null)))
}

#[cfg(test)]
mod tests {
    use weft_sys::netns::Netns;

    use super::*;
    use crate::sandbox::gwbridge::mesh_wall;
    use crate::sandbox::sysctl;

    fn chain(name: &str, rule: &str) -> String {
        format!(
            "table inet {TABLE} {{ chain {name} {{ type filter hook input priority 0; }}; }}\n\
             flush chain inet {TABLE} {name}\n\
             add rule inet {TABLE} {name} {rule}\n"
        )
    }

    fn lost(rules: &HostRules) -> String {
        rules.look().expect("a look").join(", ")
    }

    #[test]
    fn what_others_take_is_put_back_and_named() {
        let netns = Netns::create_anonymous().expect("netns");
        let check = || {
            let rules = HostRules::default();
            rules
                .set("a", chain("a", "tcp dport 1 counter drop"))
                .expect("a");
            rules.set("b", chain("b", "tcp dport 2 drop")).expect("b");
            assert_eq!(lost(&rules), "");
            // A table of somebody else.
            nft::apply("table ip other { chain c { }; }").expect("other");
            assert_eq!(lost(&rules), "");
            nft::apply("flush ruleset").expect("flush");
            assert_eq!(lost(&rules), "table weft");
            assert_eq!(lost(&rules), "");
            nft::apply(&format!("flush chain inet {TABLE} b")).expect("flush");
            assert_eq!(lost(&rules), "chain b");
            nft::apply(&format!("insert rule inet {TABLE} a accept")).expect("insert");
            assert_eq!(lost(&rules), "chain a");
            let text = read().expect("read");
            rules.set("a", chain("a", "tcp dport 3 drop")).expect("a");
            assert_eq!(lost(&rules), "");
            assert_ne!(read().expect("read"), text);
            let gone = format!("delete chain inet {TABLE} b\n");
            rules.remove("b", &gone).expect("b goes");
            nft::apply("flush ruleset").expect("flush");
            assert_eq!(lost(&rules), "table weft");
            let now = nft::list_table("inet", TABLE).expect("list");
            let now = now.expect("a table").to_string();
            assert!(now.contains("\"a\"") && !now.contains("\"b\""), "{now}");
            // What this agent and others change between two looks is told apart, too.
            rules.set("c", chain("c", "drop")).expect("c");
            nft::apply(&format!("flush chain inet {TABLE} a")).expect("flush");
            rules.set("d", chain("d", "drop")).expect("d");
            assert_eq!(lost(&rules), "chain a");
            assert_eq!(lost(&rules), "");
        };
        netns.run_in(check).expect("enter");
    }

    #[test]
    fn chains_of_an_earlier_version_make_room() {
        let netns = Netns::create_anonymous().expect("netns");
        let check = || {
            nft::apply(&format!(
                "table inet {TABLE} {{ chain mesh_in {{ type filter hook prerouting priority raw; \
                 policy accept; tcp dport 1 drop; }}; }}"
            ))
            .expect("an earlier version");
            for start in ["after an update", "again"] {
                let rules = HostRules::default();
                rules.set("ports", mesh_wall()).expect(start);
                let now = nft::list_table("inet", TABLE).expect("list");
                let now = now.expect("a table");
                let objects = now["nftables"].as_array().expect("objects");
                let hooked = objects.iter().filter(|o| o["chain"]["hook"].is_string());
                let mut names: Vec<_> = hooked.map(|o| o["chain"]["name"].as_str()).collect();
                names.sort_unstable();
                assert_eq!(
                    names,
                    ["forward", "output", "prerouting"].map(Some),
                    "{start}"
                );
            }
        };
        netns.run_in(check).expect("enter");
    }

    #[test]
    fn forwarding_is_switched_on_again() {
        let netns = Netns::create_anonymous().expect("netns");
        let check = || {
            let rules = HostRules::default();
            for (ipv6, name) in [
                (false, "net/ipv4/ip_forward"),
                (true, "net/ipv6/conf/all/forwarding"),
            ] {
                sysctl::set(name, "0").expect("off");
                assert_eq!(lost(&rules), "", "nobody asked for it");
                rules.forward(ipv6).expect("on");
                assert_eq!(lost(&rules), "");
                sysctl::set(name, "0").expect("off");
                assert_eq!(lost(&rules), name.replace('/', "."));
                assert_eq!(sysctl::get(name).expect("a setting"), "1");
            }
        };
        netns.run_in(check).expect("enter");
    }
}
