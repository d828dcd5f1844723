//! CPU time and memory, as `/proc` tells them.

use std::fs;

use anyhow::Context;

/// Ticks per second in `/proc` (`USER_HZ`): 100 on every Linux that Rust's standard library runs on.
const USER_HZ: f64 = 100.0;

/// Bytes of what `/proc` calls kB.
const KIB: u64 = 1024;

/// CPU seconds used so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cpu {
    agents: f64,
    machine: f64,
}

impl Cpu {
    /// Of these processes, and of the machine.
    pub(super) fn now(pids: impl IntoIterator<Item = u32>) -> anyhow::Result<Self> {
        let mut agents = 0.0;
        for pid in pids {
            agents += process_ticks(pid)? as f64 / USER_HZ;
        }
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let machine = busy_ticks(&stat).context("/proc/stat has another form")?;
        Ok(Self {
            agents,
            machine: machine as f64 / USER_HZ,
        })
    }

    /// CPU seconds of the agents and of the machine since then.
    pub(super) fn since(&self, before: &Self) -> (f64, f64) {
        (self.agents - before.agents, self.machine - before.machine)
    }
}

/// User and system time (fields 14 and 15 of proc_pid_stat(5)).
fn process_ticks(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("weftd {pid} ended"))?;
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' '));
    let mut times = fields.into_iter().flatten().skip(11).map(str::parse::<u64>);
    match (times.next(), times.next()) {
        (Some(Ok(user)), Some(Ok(system))) => Ok(user + system),
        _ => anyhow::bail!("{path} has another form"),
    }
}

/// Everything but idle and waiting (proc_stat(5)); time of guests is inside user time already.
fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line
        .split_ascii_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks.as_slice() else {
        return None;
    };
    Some(user + nice + system + irq + softirq)
}

/// Memory of a process that is in RAM.
pub(super) fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("weftd {pid} ended"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.parse::<u64>().ok())
        .map(|kib| kib * KIB)
        .with_context(|| format!("{path} has another form"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_leaves_out_idle_and_waiting() {
        assert_eq!(busy_ticks("cpu  10 1 20 1000 500 3 4 0 0 0\n"), Some(38));
        assert_eq!(busy_ticks("intr 1 2 3\n"), None);
    }

    #[test]
    fn this_process_has_used_something() {
        let pid = std::process::id();
        let first = Cpu::now([pid]).unwrap();
        let (own, machine) = Cpu::now([pid]).unwrap().since(&first);
        assert!(own >= 0.0 && machine >= 0.0);
        assert!(resident_bytes(pid).unwrap() > 100_000);
        assert!(Cpu::now([u32::MAX]).is_err());
    }
}
