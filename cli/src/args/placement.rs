//! Flags of `service create` and `service update` that say where tasks run, and what they need there.

use clap::Args;
use weft_model::objects::{
    Placement, PlacementPreference, ResourceLimits, ResourceRequirements, Resources, SpreadOver,
};

/// On which nodes the tasks of a new service run.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PlacementArgs {
    /// Nodes that may have tasks: KEY==VALUE or KEY!=VALUE, such as node.labels.disk==ssd; may be
    /// repeated, and all hold
    #[arg(long = "constraint", value_name = "CONSTRAINT")]
    pub(crate) constraints: Vec<String>,
    /// Spread tasks over the values of a label: spread=node.labels.KEY; may be repeated, each within
    /// the one before
    #[arg(long = "placement-pref", value_name = "PREF", value_parser = parse_preference)]
    pub(crate) preferences: Vec<PlacementPreference>,
    /// Tasks on one node at most (default 0: no limit)
    #[arg(long, value_name = "NUMBER", default_value = "0")]
    pub(crate) replicas_max_per_node: u32,
}

/// What tasks need and may use on their node; what is not given stays, or is no limit of a new
/// service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Args)]
pub(crate) struct ResourceArgs {
    /// Processors that a task may use, such as 0.5; 0 is no limit (default 0)
    #[arg(long, value_name = "CPUS", value_parser = parse_cpus)]
    limit_cpu: Option<u64>,
    /// Memory that a task may use, such as 64m; 0 is no limit (default 0)
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    limit_memory: Option<u64>,
    /// Processes and threads that a task may have; 0 is no limit (default 0)
    #[arg(long, value_name = "NUMBER")]
    limit_pids: Option<u64>,
    /// Processors that have to be unreserved on a task's node (default 0)
    #[arg(long, value_name = "CPUS", value_parser = parse_cpus)]
    reserve_cpu: Option<u64>,
    /// Memory that has to be unreserved on a task's node (default 0)
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    reserve_memory: Option<u64>,
}

impl ResourceArgs {
    /// What tasks need and may use, where it was `before`.
    pub(crate) fn over(self, before: ResourceRequirements) -> ResourceRequirements {
        let (limits, reservations) = (before.limits, before.reservations);
        ResourceRequirements {
            limits: ResourceLimits {
                nano_cpus: self.limit_cpu.unwrap_or(limits.nano_cpus),
                memory_bytes: self.limit_memory.unwrap_or(limits.memory_bytes),
                pids: self.limit_pids.unwrap_or(limits.pids),
            },
            reservations: Resources {
                nano_cpus: self.reserve_cpu.unwrap_or(reservations.nano_cpus),
                memory_bytes: self.reserve_memory.unwrap_or(reservations.memory_bytes),
            },
        }
    }
}

impl PlacementArgs {
    /// On which nodes.
    pub(crate) fn placement(&self) -> Placement {
        Placement {
            constraints: self.constraints.clone(),
            preferences: self.preferences.clone(),
            max_replicas: self.replicas_max_per_node,
            platforms: Vec::new(),
        }
    }
}

/// Where the tasks of a service run from now on. Tasks on nodes that may have them go on.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PlacementUpdateArgs {
    /// Constraint that nodes have to meet besides; may be repeated
    #[arg(long = "constraint-add", value_name = "CONSTRAINT")]
    pub(crate) constraint_add: Vec<String>,
    /// Constraint that counts no more; may be repeated
    #[arg(long = "constraint-rm", value_name = "CONSTRAINT")]
    pub(crate) constraint_rm: Vec<String>,
    /// Preference after those there are: spread=node.labels.KEY; may be repeated
    #[arg(long, value_name = "PREF", value_parser = parse_preference)]
    pub(crate) placement_pref_add: Vec<PlacementPreference>,
    /// Preference that counts no more; may be repeated
    #[arg(long, value_name = "PREF", value_parser = parse_preference)]
    pub(crate) placement_pref_rm: Vec<PlacementPreference>,
    /// Tasks on one node at most (0: no limit)
    #[arg(long, value_name = "NUMBER")]
    pub(crate) replicas_max_per_node: Option<u32>,
}

/// `spread=node.labels.az`
fn parse_preference(text: &str) -> Result<PlacementPreference, String> {
    let Some((strategy, descriptor)) = text.split_once('=') else {
        return Err(
            "placement preference must be of the format \"<strategy>=<arg>\"; write \
             spread=node.labels.KEY"
                .to_owned(),
        );
    };
    if strategy != "spread" {
        return Err(format!(
            "unsupported placement preference {strategy} (only spread is supported)"
        ));
    }
    Ok(PlacementPreference {
        spread: SpreadOver {
            spread_descriptor: descriptor.to_owned(),
        },
    })
}

/// A number of processors, `0.5`, in billionths.
fn parse_cpus(text: &str) -> Result<u64, String> {
    let bad = |why: &str| format!("invalid cpu value {text}: {why}; write a number such as 0.5");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !(digits(whole) && digits(fraction)) || whole.len() + fraction.len() == 0 {
        return Err(bad("it is no number"));
    }
    if fraction.len() > 9 {
        return Err(bad("value is too precise"));
    }
    let billionths: u64 = format!("{fraction:0<9}").parse().unwrap_or(0);
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().map_err(|_| bad("it is too large"))?
    };
    whole
        .checked_mul(1_000_000_000)
        .and_then(|whole| whole.checked_add(billionths))
        .ok_or_else(|| bad("it is too large"))
}

/// An amount of memory as docker reads it (`units.RAMInBytes`): `64m`, `1.5GiB`, `4096`.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let bad =
        || format!("invalid size: '{text}'; write bytes, or a number and k, m or g, like 64m");
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.'));
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let unit = unit.trim().to_ascii_lowercase();
    let shift = match unit
        .strip_suffix("ib")
        .or(unit.strip_suffix('b'))
        .unwrap_or(&unit)
    {
        "" if unit == "ib" => return Err(bad()),
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(bad()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = fraction.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits || fraction.len() > 9 {
        return Err(bad());
    }
    let factor = 1_u64 << shift;
    let whole: u64 = whole.parse().map_err(|_| bad())?;
    let billionths: u128 = format!("{fraction:0<9}").parse().unwrap_or(0);
    let part = billionths * u128::from(factor) / 1_000_000_000;
    let total = u128::from(whole) * u128::from(factor) + part;
    u64::try_from(total).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_read_to_the_billionth() {
        for (text, nano) in [
            ("0.5", 500_000_000),
            ("2", 2_000_000_000),
            (".25", 250_000_000),
            ("0.000000001", 1),
            ("0", 0),
        ] {
            assert_eq!(parse_cpus(text), Ok(nano), "{text}");
        }
        for bad in [
            "",
            ".",
            "-1",
            "1e3",
            "0.0000000001",
            "1.2.3",
            "99999999999999",
        ] {
            let error = parse_cpus(bad).unwrap_err();
            assert!(error.starts_with("invalid cpu value"), "{error}");
        }
    }

    #[test]
    fn memory_is_read_as_docker_reads_it() {
        for (text, bytes) in [
            ("4096", 4096),
            ("64m", 64 << 20),
            ("64MB", 64 << 20),
            ("64 MiB", 64 << 20),
            ("1.5g", 3 << 29),
            ("1b", 1),
            ("2K", 2048),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["", "m", "-1", "1x", "1ib", "1.2.3m", ".5m", "99999999999p"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn preferences_spread() {
        let preference = parse_preference("spread=node.labels.az").unwrap();
        assert_eq!(preference.spread.spread_descriptor, "node.labels.az");
        assert_eq!(
            parse_preference("pack=node.labels.az").unwrap_err(),
            "unsupported placement preference pack (only spread is supported)"
        );
        assert!(parse_preference("spread").is_err());
    }
}
