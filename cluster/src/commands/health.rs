//! How a service's tasks are judged: what a check may ask, and how often they are replaced.

use std::time::Duration;

use weft_model::objects::{ContainerSpec, HealthConfig, PortSpec, Protocol, RestartPolicy};

use super::super::error::CommandError;

/// Longest restart delay, stop grace period, and time of a check: 24 hours.
pub const MAX_DELAY: Duration = Duration::from_secs(24 * 60 * 60);
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
pub(super) fn check(container: &mut ContainerSpec, ports: &[PortSpec]) -> Result<(), CommandError> {
    if let Some(health) = &container.health {
        check_test(health)?;
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

fn check_test(health: &HealthConfig) -> Result<(), CommandError> {
    let kind = health.test.first().map_or("", String::as_str);
    let fault = match kind {
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

fn check_times(health: &HealthConfig) -> Result<(), CommandError> {
    for (name, flag, time) in [
        ("Interval", "interval", health.interval),
        ("Timeout", "timeout", health.timeout),
        ("StartPeriod", "start-period", health.start_period),
        ("StartInterval", "start-interval", health.start_interval),
    ] {
        if !time.is_zero() && time < MIN_TIME {
            return Err(CommandError::bad(format!(
                "ContainerSpec: {name} in HealthConfig cannot be less than 1ms; give a longer \
                 --health-{flag}, or none for the default"
            )));
        }
        if time > MAX_DELAY {
            return Err(CommandError::bad(format!(
                "--health-{flag} of {} ms is too long: it may be {} ms (24 hours) at most",
                time.as_millis(),
                MAX_DELAY.as_millis()
            )));
        }
    }
    Ok(())
}

/// Checks how often ended tasks are replaced.
///
/// # Errors
/// More than is counted, or for longer.
pub(super) fn check_restart(restart: &RestartPolicy) -> Result<(), CommandError> {
    if restart.max_attempts > MAX_ATTEMPTS {
        return Err(CommandError::bad(format!(
            "--restart-max-attempts {} is too many: {MAX_ATTEMPTS} are counted at most, and 0 is no \
             limit",
            restart.max_attempts
        )));
    }
    if restart.window > MAX_DELAY {
        return Err(CommandError::bad(format!(
            "--restart-window of {} ms is too long: it may be {} ms (24 hours) at most, and 0 counts \
             for ever",
            restart.window.as_millis(),
            MAX_DELAY.as_millis()
        )));
    }
    Ok(())
}
