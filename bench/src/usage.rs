//! What a measurement costs, as `/proc` tells it: CPU time, context switches, memory.

use std::fs;

use anyhow::{Context, ensure};

/// Ticks per second in `/proc` (`USER_HZ`): 100 on every Linux that Rust's standard library runs on.
const USER_HZ: f64 = 100.0;

/// Bytes of what `/proc` calls kB.
const KIB: u64 = 1024;

/// What was used, in total or between two moments.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    /// CPU seconds of the agents.
    pub(crate) agents: f64,
    /// CPU seconds of the whole machine.
    pub(crate) machine: f64,
    /// CPU seconds that this process, which generates the load, spent in its own code.
    pub(crate) generator_user: f64,
    /// CPU seconds of this process inside the kernel. Work that the kernel does in the sender's
    /// name counts here: the whole way of a packet, where it is the kernel's.
    pub(crate) generator_system: f64,
    /// Context switches of the agents, those of their own will and others.
    pub(crate) switches: f64,
}

impl Usage {
    /// Used so far, by these agents and by the machine.
    pub(crate) fn now(agents: &[u32]) -> anyhow::Result<Self> {
        let mut now = Self::default();
        for pid in agents {
            let (user, system) = process_ticks(&pid.to_string())?;
            now.agents += (user + system) as f64 / USER_HZ;
            now.switches += context_switches(*pid)? as f64;
        }
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let machine = busy_ticks(&stat).context("/proc/stat has another form")?;
        now.machine = machine as f64 / USER_HZ;
        let (user, system) = process_ticks("self")?;
        now.generator_user = user as f64 / USER_HZ;
        now.generator_system = system as f64 / USER_HZ;
        Ok(now)
    }

    /// Used since then.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            agents: self.agents - before.agents,
            machine: self.machine - before.machine,
            generator_user: self.generator_user - before.generator_user,
            generator_system: self.generator_system - before.generator_system,
            switches: self.switches - before.switches,
        }
    }

    /// CPU seconds of this process.
    pub(crate) fn generator(&self) -> f64 {
        self.generator_user + self.generator_system
    }
}

/// CPU seconds that a child of this process has used so far, while it runs.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("process {pid} ended"))?;
    // One that nobody waited for yet is there still, as a zombie.
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    ensure!(!matches!(state, Some('Z' | 'X')), "process {pid} ended");
    let (user, system) = process_ticks(&pid.to_string())?;
    Ok((user + system) as f64 / USER_HZ)
}

/// User and system time of the process and of children that it waited for (fields 14 to 17 of
/// proc_pid_stat(5)).
fn process_ticks(process: &str) -> anyhow::Result<(u64, u64)> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("process {process} ended"))?;
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' '));
    let mut times = fields.into_iter().flatten().skip(11).map(str::parse::<u64>);
    let mut next = || {
        let time = times.next().transpose().ok().flatten();
        time.with_context(|| format!("{path} has another form"))
    };
    let (user, system) = (next()?, next()?);
    Ok((user + next()?, system + next()?))
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

/// Of all threads that the process has now.
fn context_switches(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/task");
    let mut sum = 0;
    for thread in fs::read_dir(&path).with_context(|| format!("process {pid} ended"))? {
        // A thread that ended meanwhile did little.
        if let Ok(status) = fs::read_to_string(thread?.path().join("status")) {
            sum += switches_in(&status).with_context(|| format!("{path} has another form"))?;
        }
    }
    Ok(sum)
}

/// Both counts of proc_pid_status(5).
fn switches_in(status: &str) -> Option<u64> {
    let count = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    Some(count("voluntary_ctxt_switches:")? + count("nonvoluntary_ctxt_switches:")?)
}

/// Memory in RAM of the biggest of these processes; 0 of none.
pub(crate) fn resident_bytes(agents: &[u32]) -> anyhow::Result<u64> {
    let mut most = 0;
    for pid in agents {
        most = most.max(resident_of(*pid)?);
    }
    Ok(most)
}

/// Memory in RAM of all of them together.
pub(crate) fn resident_sum(processes: &[u32]) -> anyhow::Result<u64> {
    let mut sum = 0;
    for pid in processes {
        sum += resident_of(*pid)?;
    }
    Ok(sum)
}

fn resident_of(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("process {pid} ended"))?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.parse::<u64>().ok())
        .with_context(|| format!("{path} has another form"))?;
    Ok(resident * KIB)
}

/// First word of a shim: what weft has beside each task.
const SHIM: &[u8] = b"weft-shim";

/// The shims of an agent's tasks: those in its own namespace of processes, where no task is.
pub(crate) fn shims(agent: u32) -> anyhow::Result<Vec<u32>> {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid"));
    let own = namespace(agent).with_context(|| format!("process {agent} ended"))?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        // One that has ended meanwhile is none.
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_shim = line.split(|byte| *byte == 0).next() == Some(SHIM);
        if is_shim && namespace(pid).is_ok_and(|other| other == own) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Memory in RAM of all of them together, of which each has its part of what it shares
/// (`Pss` of proc_pid_smaps(5)).
pub(crate) fn proportional_bytes(processes: &[u32]) -> anyhow::Result<u64> {
    let mut sum = 0;
    for pid in processes {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("process {pid} ended"))?;
        let kib = proportional_kib(&text);
        sum += kib.with_context(|| format!("{path} has another form"))? * KIB;
    }
    Ok(sum)
}

fn proportional_kib(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// Children of a process, and theirs, parents first.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let mut all = Vec::new();
    for child in children.unwrap_or_default().split_ascii_whitespace() {
        if let Ok(child) = child.parse() {
            all.push(child);
            all.extend(descendants(child));
        }
    }
    all
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
    fn switches_of_both_kinds_count() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t5\n";
        assert_eq!(switches_in(status), Some(12));
        assert_eq!(switches_in("voluntary_ctxt_switches:\t7\n"), None);
    }

    #[test]
    fn parts_of_shared_memory_are_read() {
        let rollup = "00400000-7ffd1000 ---p 00000000 00:00 0  [rollup]\n\
                      Rss:                1996 kB\n\
                      Pss:                 243 kB\n\
                      Pss_Dirty:           150 kB\n";
        assert_eq!(proportional_kib(rollup), Some(243));
        assert_eq!(proportional_kib("Rss: 1 kB\n"), None);
        let own = std::process::id();
        assert!(proportional_bytes(&[own]).unwrap() > 100_000);
        assert!(!shims(own).unwrap().contains(&own));
        assert!(shims(u32::MAX).is_err());
    }

    #[test]
    fn this_process_has_used_something() {
        let pid = std::process::id();
        let first = Usage::now(&[pid]).unwrap();
        std::thread::yield_now();
        // Not its switches: those of threads that ended meanwhile, other tests', are gone.
        let used = Usage::now(&[pid]).unwrap().since(&first);
        assert!(used.agents >= 0.0 && used.machine >= 0.0);
        assert!(first.switches > 0.0);
        assert!(resident_bytes(&[pid]).unwrap() > 100_000);
        assert_eq!(resident_bytes(&[]).unwrap(), 0);
        assert!(resident_sum(&[pid, pid]).unwrap() > 200_000);
        assert!(Usage::now(&[u32::MAX]).is_err());
        assert!(cpu_seconds(pid).unwrap() >= 0.0);
        assert!(cpu_seconds(u32::MAX).is_err());
    }
}
