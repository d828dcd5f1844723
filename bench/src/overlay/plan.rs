//! Which tests to run, and under what.

use anyhow::bail;
use weft_lab::Bed;

use crate::args::{BedChoice, BenchOverlayArgs, BenchTest, FastPathChoice};
use crate::conditions::FastPath;
use crate::weftd;

/// What this kernel can use.
const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

/// Tests that run when nobody says which: some minutes.
const USUAL: &[BenchTest] = &[
    BenchTest::Tcp1,
    BenchTest::Tcp8,
    BenchTest::Udp,
    BenchTest::Rr,
    BenchTest::Rr64,
    BenchTest::TcpRr,
    BenchTest::Half,
    BenchTest::Tasks,
    BenchTest::Local,
    BenchTest::Vip,
    BenchTest::Published,
];

/// Option of weftd for the fast path.
const FAST_PATH: &str = "--fast-path";

/// The tests that were asked for, and what they run under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    tests: Vec<BenchTest>,
    controls: Vec<String>,
    beds: Vec<Bed>,
    busy_loops: u8,
    fast_paths: Vec<FastPath>,
    /// Whether weftd has a fast path at all.
    knows_fast_path: bool,
}

impl Plan {
    pub(super) fn new(args: &BenchOverlayArgs) -> anyhow::Result<Self> {
        let available = std::fs::read_to_string(AVAILABLE)?;
        let knows_fast_path = weftd::help()?.contains(FAST_PATH);
        Ok(Self {
            tests: tests(&args.only),
            controls: controls(&args.congestion, &available)?,
            beds: beds(args.bed),
            busy_loops: args.beside,
            fast_paths: fast_paths(args.fast_path, knows_fast_path)?,
            knows_fast_path,
        })
    }

    /// True when the test was asked for.
    pub(super) fn has(&self, test: BenchTest) -> bool {
        self.tests.contains(&test) || self.tests.contains(&BenchTest::All)
    }

    /// True when a test has the kernel on the other side, or runs in the same lab.
    pub(super) fn needs_kernel(&self) -> bool {
        let alone = [
            BenchTest::Endpoints,
            BenchTest::Flows,
            BenchTest::Flood,
            BenchTest::Ovs,
        ];
        !self.tests.iter().all(|test| alone.contains(test))
    }

    /// Congestion controls of the tests that are about them.
    pub(super) fn controls(&self) -> impl Iterator<Item = &str> {
        self.controls.iter().map(String::as_str)
    }

    /// The one of tests that are about something else.
    pub(super) fn first_control(&self) -> &str {
        self.controls.first().map_or("cubic", String::as_str)
    }

    /// Links between the nodes, one after the other.
    pub(super) fn beds(&self) -> &[Bed] {
        &self.beds
    }

    /// How many there are beside every run.
    pub(super) fn busy_loops(&self) -> u8 {
        self.busy_loops
    }

    /// Ways of weft that are measured beside the kernel.
    pub(super) fn fast_paths(&self) -> &[FastPath] {
        &self.fast_paths
    }

    /// The one of tests that are about something else.
    pub(super) fn first_fast_path(&self) -> FastPath {
        self.fast_paths.first().copied().unwrap_or(FastPath::Off)
    }

    /// What tells agents so. One without a fast path knows no such option, and needs none.
    pub(super) fn agent_args(&self, fast_path: FastPath) -> Vec<String> {
        if !self.knows_fast_path {
            return Vec::new();
        }
        vec![FAST_PATH.to_owned(), fast_path.name().to_owned()]
    }

    /// What all figures were measured under, for people.
    pub(super) fn conditions(&self) -> String {
        let beds: Vec<&str> = self.beds.iter().map(|bed| bed.name()).collect();
        let mut text = format!(
            "Bed {}; congestion control {}",
            beds.join(", "),
            self.controls.join(", ")
        );
        match self.busy_loops {
            0 => {}
            1 => text.push_str("; beside 1 busy loop"),
            count => text.push_str(&format!("; beside {count} busy loops")),
        }
        let names: Vec<&str> = self.fast_paths.iter().map(|way| way.name()).collect();
        text.push_str(&format!("; fast path {}", names.join(", ")));
        text
    }
}

/// Those that were named, or the usual ones.
fn tests(only: &[BenchTest]) -> Vec<BenchTest> {
    if only.is_empty() { USUAL } else { only }.to_vec()
}

/// Those that were named, or the usual ones that the kernel has.
fn controls(wanted: &[String], available: &str) -> anyhow::Result<Vec<String>> {
    let available: Vec<&str> = available.split_ascii_whitespace().collect();
    for name in wanted {
        if !available.contains(&name.as_str()) {
            bail!(
                "this kernel has no congestion control {name:?}: it has {}; more may come with `modprobe tcp_{name}`",
                available.join(", ")
            );
        }
    }
    let mut controls = wanted.to_vec();
    if controls.is_empty() {
        let usual = ["cubic", "bbr"].into_iter();
        controls.extend(
            usual
                .filter(|name| available.contains(name))
                .map(str::to_owned),
        );
    }
    if controls.is_empty() {
        bail!(
            "this kernel has neither cubic nor bbr: choose from {} with --cc",
            available.join(", ")
        );
    }
    Ok(controls)
}

fn beds(choice: BedChoice) -> Vec<Bed> {
    match choice {
        BedChoice::Veth => vec![Bed::Veth],
        BedChoice::Nic => vec![Bed::Nic],
        BedChoice::Plain => vec![Bed::Plain],
        BedChoice::All => Bed::ALL.to_vec(),
    }
}

fn fast_paths(choice: FastPathChoice, known: bool) -> anyhow::Result<Vec<FastPath>> {
    let wanted = match choice {
        FastPathChoice::Off => vec![FastPath::Off],
        FastPathChoice::Auto => vec![FastPath::Auto],
        FastPathChoice::Both => vec![FastPath::Off, FastPath::Auto],
    };
    if !known && wanted.contains(&FastPath::Auto) {
        bail!(
            "this weftd has no fast path: `weftd --help` names no {FAST_PATH}; measure without {FAST_PATH}, or with a build that has it"
        );
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(only: &[BenchTest], wanted: &[&str]) -> anyhow::Result<Plan> {
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        Ok(Plan {
            tests: tests(only),
            controls: controls(&wanted, "reno bbr cubic\n")?,
            beds: beds(BedChoice::Veth),
            busy_loops: 0,
            fast_paths: fast_paths(FastPathChoice::Off, false)?,
            knows_fast_path: false,
        })
    }

    #[test]
    fn the_usual_ones_leave_out_what_takes_long() {
        let usual = plan(&[], &[]).unwrap();
        assert!(usual.has(BenchTest::Tcp8) && usual.has(BenchTest::Vip));
        assert!(usual.has(BenchTest::Published));
        assert!(usual.has(BenchTest::TcpRr) && usual.has(BenchTest::Half));
        assert!(!usual.has(BenchTest::Endpoints) && !usual.has(BenchTest::Flows));
        assert!(!usual.has(BenchTest::Flood));
        assert_eq!(usual.controls().collect::<Vec<_>>(), ["cubic", "bbr"]);
        assert_eq!(usual.first_control(), "cubic");
    }

    #[test]
    fn only_what_was_named_or_all() {
        let some = plan(&[BenchTest::Udp, BenchTest::Flows], &["reno"]).unwrap();
        assert!(some.has(BenchTest::Udp) && some.has(BenchTest::Flows));
        assert!(!some.has(BenchTest::Tcp1));
        assert_eq!(some.first_control(), "reno");
        assert!(some.needs_kernel());
        for alone in [BenchTest::Endpoints, BenchTest::Flood] {
            assert!(!plan(&[alone], &[]).unwrap().needs_kernel());
        }
        for beside_kernel in [BenchTest::Vip, BenchTest::Published] {
            let plan = plan(&[beside_kernel, BenchTest::Flood], &[]).unwrap();
            assert!(plan.needs_kernel() && !plan.has(BenchTest::Tcp1));
        }
        let all = plan(&[BenchTest::All], &[]).unwrap();
        assert!(all.has(BenchTest::Endpoints) && all.has(BenchTest::Tcp1));
    }

    #[test]
    fn what_the_kernel_has_not_is_refused() {
        let error = plan(&[], &["vegas"]).unwrap_err().to_string();
        assert!(error.contains("it has reno, bbr, cubic"), "{error}");
        assert!(error.contains("modprobe tcp_vegas"), "{error}");
        let error = controls(&[], "reno").unwrap_err().to_string();
        assert!(error.contains("choose from reno with --cc"), "{error}");
    }

    #[test]
    fn conditions_are_told_with_what_was_chosen() {
        let mut plan = plan(&[], &["cubic"]).unwrap();
        assert_eq!(
            plan.conditions(),
            "Bed veth; congestion control cubic; fast path off"
        );
        plan.beds = beds(BedChoice::All);
        plan.busy_loops = 2;
        plan.fast_paths = fast_paths(FastPathChoice::Both, true).unwrap();
        assert_eq!(
            plan.conditions(),
            "Bed veth, nic, plain; congestion control cubic; beside 2 busy loops; fast path off, auto"
        );
        assert_eq!(plan.first_fast_path(), FastPath::Off);
    }

    #[test]
    fn agents_hear_of_a_fast_path_only_where_they_have_one() {
        let mut plan = plan(&[], &[]).unwrap();
        assert!(plan.agent_args(FastPath::Off).is_empty());
        plan.knows_fast_path = true;
        assert_eq!(plan.agent_args(FastPath::Off), ["--fast-path", "off"]);
        assert_eq!(plan.agent_args(FastPath::Auto), ["--fast-path", "auto"]);
        for choice in [FastPathChoice::Auto, FastPathChoice::Both] {
            let error = fast_paths(choice, false).unwrap_err().to_string();
            assert!(error.contains("this weftd has no fast path"), "{error}");
        }
    }
}
