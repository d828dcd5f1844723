//! weft against the kernel, through what stands before the replica of a service: a virtual address,
//! and a published port.

use weft_cli::complain;

use super::{Bench, Sides};
use crate::args::BenchTest;
use crate::conditions::FastPath;
use crate::measure::Work;
use crate::pairs::Test;
use crate::proxies::Kind;
use crate::side::{Balanced, KernelSide, Nat, WeftSide};

/// Streams at once, and what they are called.
const STREAMS: [(usize, &str); 2] = [(1, "one stream"), (8, "8 streams")];

impl Bench {
    /// All of these tests that were asked for.
    pub(super) fn through(
        &self,
        tests: &mut Vec<Test>,
        wefts: &[(FastPath, WeftSide)],
        kernel: &KernelSide,
    ) -> anyhow::Result<()> {
        let (vip, published) = (BenchTest::Vip, BenchTest::Published);
        if !self.plan.has(vip) && !self.plan.has(published) {
            return Ok(());
        }
        let nats = self.nats();
        if self.plan.has(vip) {
            self.virtual_address(tests, wefts, kernel, &nats)?;
        }
        if self.plan.has(published) {
            self.published_port(tests, wefts, kernel, &nats)?;
        }
        Ok(())
    }

    /// What this kernel has of its own.
    fn nats(&self) -> Vec<Nat> {
        let mut nats = Nat::ALL.to_vec();
        nats.retain(|nat| usable(nat.name(), nat.missing(&self.stop)));
        nats
    }

    fn virtual_address(
        &self,
        tests: &mut Vec<Test>,
        wefts: &[(FastPath, WeftSide)],
        kernel: &KernelSide,
        nats: &[Nat],
    ) -> anyhow::Result<()> {
        let mut services = Vec::new();
        for (_, weft) in wefts {
            services.push(weft.service(&self.stop)?);
        }
        let ours: Vec<_> = wefts
            .iter()
            .zip(&services)
            .map(|((fast_path, weft), (replica, vip))| {
                (*fast_path, weft.way_through(replica, *vip))
            })
            .collect();
        for nat in nats {
            let theirs = kernel.virtual_address(*nat, &self.stop)?;
            self.streams(tests, "TCP through a VIP", &ours, (kernel, &theirs))?;
        }
        let control = self.plan.first_control();
        for (((_, weft), (replica, _)), ours) in wefts.iter().zip(&services).zip(&ours) {
            let trial = self.trial(
                format!("TCP through a VIP, {control}"),
                Work::streams(1, control),
                "direct",
            );
            // To the same replica: another sandbox may belong to another worker.
            let direct = weft.way_to(replica);
            self.measure(tests, trial, std::slice::from_ref(ours), &direct)?;
        }
        Ok(())
    }

    fn published_port(
        &self,
        tests: &mut Vec<Test>,
        wefts: &[(FastPath, WeftSide)],
        kernel: &KernelSide,
        nats: &[Nat],
    ) -> anyhow::Result<()> {
        let mut ends = Vec::new();
        for (_, weft) in wefts {
            ends.push(weft.published(&self.stop)?);
        }
        let mut ours = Vec::new();
        for ((fast_path, weft), (outside, replica)) in wefts.iter().zip(&ends) {
            ours.push((*fast_path, weft.way_in(outside, replica)?));
        }
        let name = "TCP through a published port";
        for nat in nats {
            let theirs = kernel.published(*nat, &self.stop)?;
            self.streams(tests, name, &ours, (kernel, &theirs))?;
        }
        if usable(Kind::Haproxy.name(), Kind::Haproxy.missing()) {
            let theirs = kernel.haproxy(&self.stop)?;
            self.streams(tests, name, &ours, (kernel, &theirs))?;
        }
        Ok(())
    }

    /// Streams by each congestion control against one other side.
    fn streams(
        &self,
        tests: &mut Vec<Test>,
        name: &str,
        ours: &Sides<'_>,
        (kernel, theirs): (&KernelSide, &Balanced),
    ) -> anyhow::Result<()> {
        let against = theirs.name();
        for (count, streams) in STREAMS {
            for control in self.plan.controls() {
                if let Err(error) = theirs.use_control(control) {
                    complain(&format!(
                        "{against} does without {control}: {error:#}: {name}, {streams} is left out there"
                    ));
                    continue;
                }
                let work = Work::streams(count, control);
                let trial = self.trial(format!("{name}, {streams}, {control}"), work, against);
                self.measure(tests, trial, ours, &kernel.way_through(theirs))?;
            }
        }
        Ok(())
    }
}

/// Says what is missing of a side that cannot be had.
fn usable(name: &str, missing: Option<String>) -> bool {
    if let Some(why) = &missing {
        complain(&format!("{why}: tests against {name} are left out"));
    }
    missing.is_none()
}
