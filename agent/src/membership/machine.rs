//! What this machine is and has for tasks, as the managers place them by it.

use weft_model::objects::{Platform, Resources};

/// Architecture and system, as the kernel calls them.
pub(crate) fn platform() -> Platform {
    Platform {
        architecture: std::env::consts::ARCH.to_owned(),
        os: std::env::consts::OS.to_owned(),
    }
}

/// Processors that this process may use, and all memory; what cannot be read is 0.
pub(crate) fn resources() -> Resources {
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = std::fs::read_to_string("/proc/meminfo");
    Resources {
        nano_cpus: u64::try_from(cpus)
            .unwrap_or(0)
            .saturating_mul(1_000_000_000),
        memory_bytes: memory.ok().and_then(|text| total(&text)).unwrap_or(0),
    }
}

/// proc_meminfo(5): `MemTotal:       16316412 kB`.
fn total(meminfo: &str) -> Option<u64> {
    let mut lines = meminfo.lines();
    let line = lines.find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "MemFree:  17 kB\nMemTotal:       16316412 kB\nBuffers: 3 kB\n";
        assert_eq!(total(text), Some(16_316_412 * 1024));
        for bad in ["", "MemTotal: much kB", "MemTotal: 3", "MemTotal: -3 kB"] {
            assert_eq!(total(bad), None, "{bad}");
        }
        let here = resources();
        assert!(here.nano_cpus >= 1_000_000_000 && here.memory_bytes > 1 << 20);
        assert_eq!(platform().os, "linux");
    }
}
