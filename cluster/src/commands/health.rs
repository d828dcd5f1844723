//! How a service's tasks are judged: what a check may ask, and how often they are replaced.

use std::time::Duration;

use weft_model::objects::{HealthConfig, PortSpec, Protocol, RestartPolicy, Runtime, TaskSpec};

use super::super::error::CommandError;

/// Longest path that a check of a port asks for, in bytes.
const MAX_PATH: usize = 1_024;
/// Shortest time of a health check, as in Swarm.
const MIN_TIME: Duration = Duration::from_millis(1);
/// Replacements that a restart policy counts at most: each task carries the moments of those before
/// it.
pub const MAX_ATTEMPTS: u64 = 1_000;

/// Checks what judges the tasks, and fills in the port that is asked where none was named.
///
/// # Errors
/// What cannot be carried out, and what to write.
pub(super) fn check(task: &mut TaskSpec, ports: &[PortSpec]) -> Result<(), CommandError> {
    let (runtime, container) = (task.runtime, &mut task.container);
    if let Some(health) = &container.health {
        check_test(health, runtime)?;
        check_times(health)?;
    }
    let Some(ready) = &mut container.ready else {
        return Ok(());
    };
    if ready.port == 0 {
        let mut tcp = ports.iter().filter(|port| port.protocol == Protocol::Tcp);
        ready.port = tcp.next().map(|port| port.target).ok_or_else(|| {
            CommandError::bad(format!(
                "--ready {ready} names no port, and the service publishes none of TCP: write \
                 --ready tcp:PORT or http:PORT/PATH with the port that its program listens on"
            ))
        })?;
    }
    let path = &ready.path;
    let plain = path.len() <= MAX_PATH && path.bytes().all(|byte| byte.is_ascii_graphic());
    if path.is_empty() || (path.starts_with('/') && plain) {
        return Ok(());
    }
    Err(CommandError::bad(format!(
        "the path of --ready is {:?}: it begins with /, has no blanks and {MAX_PATH} bytes at most, \
         like http:8080/healthz",
        path.chars().take(64).collect::<String>()
    )))
}

fn check_test(health: &HealthConfig, runtime: Runtime) -> Result<(), CommandError> {
    let kind = health.test.first().map_or("", String::as_str);
    let fault = match kind {
        // That of the image, with these times.
        "" if runtime == Runtime::Container && health.test.is_empty() => return Ok(()),
        "" => {
            "has no command: a task of image `host` brings none along; give --health-cmd COMMAND, or \
             --no-healthcheck"
        }
        HealthConfig::NONE if !health.is_none() => "is NONE and something else; leave one out",
        HealthConfig::NONE => return Ok(()),
        "CMD" | "CMD-SHELL" if health.command().is_none() => "names no command behind its kind",
        "CMD" | "CMD-SHELL" if health.test.iter().any(|word| word.contains('\0')) => {
            "has a NUL character, which no program can be given; leave it out"
        }
        "CMD" | "CMD-SHELL" => return Ok(()),
        _ => "is of no known kind: its first word is CMD, CMD-SHELL or NONE",
    };
    Err(CommandError::bad(format!("the health check {fault}")))
}

/// The times of a health check, by what they are called.
pub(super) fn times(health: &HealthConfig) -> [(&'static str, Duration); 4] {
    [
        ("health interval", health.interval),
        ("health timeout", health.timeout),
        ("health start period", health.start_period),
        ("health start interval", health.start_interval),
    ]
}

fn check_times(health: &HealthConfig) -> Result<(), CommandError> {
    // As SwarmKit calls them.
    let names = ["Interval", "Timeout", "StartPeriod", "StartInterval"];
    for (swarms, (name, time)) in names.into_iter().zip(times(health)) {
        if !time.is_zero() && time < MIN_TIME {
            return Err(CommandError::bad(format!(
                "ContainerSpec: {swarms} in HealthConfig cannot be less than 1ms; give a longer \
                 --{}, or none for the default",
                name.replace(' ', "-")
            )));
        }
    }
    Ok(())
}

/// Checks how often ended tasks are replaced.
///
/// # Errors
/// More often than is counted.
pub(super) fn check_attempts(restart: &RestartPolicy) -> Result<(), CommandError> {
    if restart.max_attempts <= MAX_ATTEMPTS {
        return Ok(());
    }
    Err(CommandError::bad(format!(
        "--restart-max-attempts {} is too many: {MAX_ATTEMPTS} are counted at most, and 0 is no limit",
        restart.max_attempts
    )))
}
