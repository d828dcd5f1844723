//! What holds a program inside a container besides its walls: the filter of system calls and the limits of
//! setrlimit(2) that the container's own program has by its bundle, where `runc` read them.
//!
//! No more of a filter is understood than what such a bundle says: everything is allowed but what is
//! denied, each call by its name alone or by one masked argument. Another one is refused, and the program
//! with it: it would have more rights than the container.

use std::fs::File;
use std::io::{self, BufReader};

use anyhow::{Context, bail, ensure};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::Deserialize;
use weft_sys::seccomp::{self, Denied, Masked};

use crate::spec::Spec;

/// In the folder of a bundle.
const FILE: &str = "config.json";

const EPERM: u32 = 1;

/// What the calling process is to be held to; nothing of a program of the node.
#[derive(Debug, Default)]
pub(crate) struct Confinement {
    denied: Vec<Denied>,
    limits: Vec<(Resource, Rlimit)>,
}

/// What is read of the bundle.
#[derive(Deserialize)]
struct Bundle {
    process: Process,
    linux: Option<Linux>,
}

#[derive(Deserialize)]
struct Process {
    #[serde(default)]
    rlimits: Option<Vec<Limit>>,
}

#[derive(Deserialize)]
struct Limit {
    #[serde(rename = "type")]
    kind: String,
    soft: u64,
    hard: u64,
}

#[derive(Deserialize)]
struct Linux {
    seccomp: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    default_action: String,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: Option<u64>,
    op: String,
}

impl Confinement {
    /// That of the container; to be read before it is entered, as the bundle is the node's.
    ///
    /// # Errors
    /// There is no such bundle, or it says what cannot be done here.
    pub(crate) fn of(spec: &Spec) -> anyhow::Result<Self> {
        let Some(container) = &spec.container else {
            return Ok(Self::default());
        };
        let path = container.bundle.join(FILE);
        let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let bundle = serde_json::from_reader::<_, Bundle>(BufReader::new(file));
        // What is wrong with it could name what is in it.
        let bundle = bundle
            .ok()
            .with_context(|| format!("{} is no bundle of a container", path.display()))?;
        Self::says(bundle).with_context(|| format!("cannot do what {} says", path.display()))
    }

    fn says(bundle: Bundle) -> anyhow::Result<Self> {
        let limits = bundle.process.rlimits.unwrap_or_default();
        let limits = limits
            .iter()
            .map(limit)
            .collect::<anyhow::Result<Vec<_>>>()?;
        let filter = bundle.linux.and_then(|linux| linux.seccomp);
        let denied = filter.map_or_else(|| Ok(Vec::new()), denied)?;
        Ok(Self { denied, limits })
    }

    /// Holds the calling process to it, and what it becomes. Needs the rights of the agent: limits may be
    /// above its own.
    ///
    /// # Errors
    /// `EPERM`; what [`seccomp::deny()`] says.
    pub(crate) fn set(&self) -> io::Result<()> {
        for (resource, limit) in &self.limits {
            setrlimit(*resource, *limit)?;
        }
        if self.denied.is_empty() {
            return Ok(());
        }
        seccomp::deny(&self.denied)
    }
}

fn limit(limit: &Limit) -> anyhow::Result<(Resource, Rlimit)> {
    let resource = match limit.kind.as_str() {
        "RLIMIT_AS" => Resource::As,
        "RLIMIT_CORE" => Resource::Core,
        "RLIMIT_CPU" => Resource::Cpu,
        "RLIMIT_DATA" => Resource::Data,
        "RLIMIT_FSIZE" => Resource::Fsize,
        "RLIMIT_LOCKS" => Resource::Locks,
        "RLIMIT_MEMLOCK" => Resource::Memlock,
        "RLIMIT_MSGQUEUE" => Resource::Msgqueue,
        "RLIMIT_NICE" => Resource::Nice,
        "RLIMIT_NOFILE" => Resource::Nofile,
        "RLIMIT_NPROC" => Resource::Nproc,
        "RLIMIT_RSS" => Resource::Rss,
        "RLIMIT_RTPRIO" => Resource::Rtprio,
        "RLIMIT_RTTIME" => Resource::Rttime,
        "RLIMIT_SIGPENDING" => Resource::Sigpending,
        "RLIMIT_STACK" => Resource::Stack,
        other => bail!("there is no limit {other:?}"),
    };
    // The largest number is how the kernel writes that there is none.
    let finite = |value: u64| (value != u64::MAX).then_some(value);
    let limit = Rlimit {
        current: finite(limit.soft),
        maximum: finite(limit.hard),
    };
    Ok((resource, limit))
}

fn denied(filter: Filter) -> anyhow::Result<Vec<Denied>> {
    ensure!(
        filter.default_action == "SCMP_ACT_ALLOW",
        "its filter of system calls is a list of what is allowed"
    );
    let mut denied = Vec::new();
    for rule in filter.syscalls.unwrap_or_default() {
        ensure!(
            rule.action == "SCMP_ACT_ERRNO",
            "system calls {:?} are to be answered with {:?}",
            rule.names,
            rule.action
        );
        let errno =
            u16::try_from(rule.errno_ret.unwrap_or(EPERM)).context("no number of an error")?;
        let when = match rule.args.as_deref() {
            None | Some([]) => None,
            Some([argument]) => Some(masked(argument)?),
            Some(_) => bail!("system calls {:?} by several arguments", rule.names),
        };
        denied.extend(
            rule.names
                .into_iter()
                .map(|name| Denied { name, errno, when }),
        );
    }
    Ok(denied)
}

fn masked(argument: &Argument) -> anyhow::Result<Masked> {
    let Argument { index, value, .. } = *argument;
    ensure!(
        argument.op == "SCMP_CMP_MASKED_EQ",
        "an argument of a system call by {:?}",
        argument.op
    );
    let half = "more than half of an argument of a system call";
    Ok(Masked {
        index,
        mask: u32::try_from(value).context(half)?,
        value: u32::try_from(argument.value_two.unwrap_or(0)).context(half)?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(bundle: Value) -> anyhow::Result<Confinement> {
        Confinement::says(serde_json::from_value(bundle)?)
    }

    #[test]
    fn filter_and_limits_are_those_of_the_bundle() {
        let flag = json!({ "index": 0, "value": 8, "valueTwo": 8, "op": "SCMP_CMP_MASKED_EQ" });
        let read = read(json!({
            "process": { "rlimits": [
                { "type": "RLIMIT_NOFILE", "soft": 64, "hard": 128 },
                { "type": "RLIMIT_CORE", "soft": 0, "hard": u64::MAX },
            ] },
            "linux": { "seccomp": { "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                { "names": ["mount", "bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
                { "names": ["clone"], "action": "SCMP_ACT_ERRNO", "args": [flag] },
            ] } },
        }))
        .expect("a bundle");
        let denied = |name: &str, errno, when| Denied {
            name: name.to_owned(),
            errno,
            when,
        };
        let when = Some(Masked {
            index: 0,
            mask: 8,
            value: 8,
        });
        let expected = [
            denied("mount", 38, None),
            denied("bpf", 38, None),
            denied("clone", 1, when),
        ];
        assert_eq!(read.denied, expected);
        let limit = |current, maximum| Rlimit { current, maximum };
        assert_eq!(read.limits.len(), 2);
        let (files, core) = (&read.limits[0], &read.limits[1]);
        assert!(matches!(files.0, Resource::Nofile) && matches!(core.0, Resource::Core));
        assert_eq!(files.1, limit(Some(64), Some(128)));
        assert_eq!(core.1, limit(Some(0), None));
    }

    #[test]
    fn a_bundle_that_asks_for_nothing_is_one() {
        let none = read(json!({ "process": {}, "linux": { "namespaces": [] } })).expect("a bundle");
        assert!(none.denied.is_empty() && none.limits.is_empty());
        none.set().expect("nothing to do");
    }

    #[test]
    fn a_filter_that_is_not_understood_is_refused() {
        let filter = |default: &str, rule: Value| {
            let seccomp = json!({ "defaultAction": default, "syscalls": [rule] });
            read(json!({ "process": {}, "linux": { "seccomp": seccomp } }))
        };
        let rule = |action: &str| json!({ "names": ["mount"], "action": action });
        assert!(filter("SCMP_ACT_ALLOW", rule("SCMP_ACT_ERRNO")).is_ok());
        assert!(filter("SCMP_ACT_ERRNO", rule("SCMP_ACT_ALLOW")).is_err());
        assert!(filter("SCMP_ACT_ALLOW", rule("SCMP_ACT_TRAP")).is_err());
        for (value, op) in [(1_u64, "SCMP_CMP_EQ"), (1 << 40, "SCMP_CMP_MASKED_EQ")] {
            let argument = json!({ "index": 0, "value": value, "valueTwo": value, "op": op });
            let mut rule = rule("SCMP_ACT_ERRNO");
            rule["args"] = json!([argument]);
            assert!(filter("SCMP_ACT_ALLOW", rule).is_err(), "{op}");
        }
        let limit = json!({ "type": "RLIMIT_ALL", "soft": 1, "hard": 1 });
        assert!(read(json!({ "process": { "rlimits": [limit] } })).is_err());
    }
}
