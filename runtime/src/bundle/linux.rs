//! Namespaces, limits and what is hidden of the machine.

use std::collections::HashMap;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxCpuBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder,
    LinuxDeviceType, LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
};
use weft_model::objects::ResourceLimits;

use super::{BundleError, Container, allowed_sysctls};
use crate::cgroups::CgroupKind;
use crate::node::Node;
use crate::seccomp;

/// Of Docker 28 (moby, `oci/defaults.go`); those of each processor come to it.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];
/// zero, null, urandom, random, tty, console: what can be opened, besides what the runtime program
/// makes. Nodes of any device can be made, and are good for nothing.
const DEVICES: [(i64, i64); 6] = [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)];

/// Billionths of a processor below which a period of 100 ms has less than the millisecond that the
/// kernel wants at least.
const SMALL: u64 = 10_000_000;

pub(super) fn linux(
    node: &Node,
    container: &Container<'_>,
    propagation: Option<&'static str>,
) -> Result<Linux, BundleError> {
    allowed_sysctls(&container.spec.sysctls)?;
    let masked = MASKED.map(str::to_owned).into_iter();
    let masked: Vec<String> = masked.chain(node.thermal.iter().cloned()).collect();
    let mut linux = LinuxBuilder::default()
        .sysctl(sysctls(container))
        .namespaces(namespaces(node, container)?)
        .masked_paths(masked)
        .readonly_paths(READ_ONLY.map(str::to_owned).to_vec())
        .build()?;
    // What a builder is not told, it has from the defaults of its own.
    linux.set_resources(None);
    if !node.rootless() && node.cgroups != CgroupKind::None {
        linux.set_cgroups_path(Some(container.cgroup.to_owned()));
        linux.set_resources(Some(resources(node, &container.limits)?));
    }
    if node.seccomp {
        linux.set_seccomp(Some(seccomp::profile(container.capabilities)?));
    }
    linux.set_rootfs_propagation(propagation.map(str::to_owned));
    Ok(linux)
}

/// Those of the network are for who has made its namespace: crun sets none in one that it joins.
fn sysctls(container: &Container<'_>) -> HashMap<String, String> {
    let asked = container.spec.sysctls.iter();
    let asked = asked.filter(|(key, _)| !key.starts_with("net."));
    asked
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Its own, but for the network's, which weft has made. As Docker: with one tree of control groups it
/// sees its own part of it alone.
fn namespaces(node: &Node, container: &Container<'_>) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    let mut kinds = vec![
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
    ];
    if node.cgroups == CgroupKind::V2 {
        kinds.push(LinuxNamespaceType::Cgroup);
    }
    let new = |kind| LinuxNamespaceBuilder::default().typ(kind).build();
    let mut namespaces = kinds
        .into_iter()
        .map(new)
        .collect::<Result<Vec<_>, OciSpecError>>()?;
    namespaces.push(
        LinuxNamespaceBuilder::default()
            .typ(LinuxNamespaceType::Network)
            .path(container.netns)
            .build()?,
    );
    Ok(namespaces)
}

fn resources(node: &Node, limits: &ResourceLimits) -> Result<LinuxResources, OciSpecError> {
    let mut resources = LinuxResourcesBuilder::default()
        .devices(devices()?)
        .build()?;
    // None is larger than a machine, and the files of groups have signed numbers.
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    if limits.memory_bytes > 0 {
        let mut memory = LinuxMemoryBuilder::default()
            .limit(number(limits.memory_bytes))
            .build()?;
        if node.counts_swap {
            // As Docker: as much swap again.
            memory.set_swap(Some(number(limits.memory_bytes.saturating_mul(2))));
        }
        resources.set_memory(Some(memory));
    }
    if limits.nano_cpus > 0 {
        let period: u64 = if limits.nano_cpus < SMALL {
            1_000_000
        } else {
            100_000
        };
        let quota = u128::from(limits.nano_cpus) * u128::from(period) / 1_000_000_000;
        let cpu = LinuxCpuBuilder::default()
            .period(period)
            .quota(i64::try_from(quota).unwrap_or(i64::MAX))
            .build()?;
        resources.set_cpu(Some(cpu));
    }
    if limits.pids > 0 {
        let pids = LinuxPidsBuilder::default()
            .limit(number(limits.pids))
            .build()?;
        resources.set_pids(Some(pids));
    }
    Ok(resources)
}

/// All devices are denied, then some allowed.
fn devices() -> Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
    let rule = || LinuxDeviceCgroupBuilder::default().access("rwm");
    let allow = |(major, minor): (i64, i64)| {
        rule()
            .allow(true)
            .typ(LinuxDeviceType::C)
            .major(major)
            .minor(minor)
            .build()
    };
    let all = rule().allow(false).build();
    let allowed = DEVICES.into_iter().map(allow);
    std::iter::once(all).chain(allowed).collect()
}
