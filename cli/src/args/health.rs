//! Flags of `service create` and `service update` that say how tasks are judged, and how often they are replaced.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use weft_model::objects::{HealthConfig, ParseReadyError, ReadyCheck, RestartPolicy};

use super::duration::parse_duration_ms;

/// Whether tasks are healthy, and ready; what is not given stays, or is the default of a new service.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub(crate) struct HealthArgs {
    /// Command of `/bin/sh` that is run inside each task to check its health
    #[arg(long, value_name = "COMMAND")]
    pub(crate) health_cmd: Option<String>,
    /// Time between two checks (default 30s)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    pub(crate) health_interval: Option<u64>,
    /// Longest time of a check (default 30s)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    pub(crate) health_timeout: Option<u64>,
    /// Failures in a row that make a task unhealthy (default 3)
    #[arg(long, value_name = "NUMBER")]
    pub(crate) health_retries: Option<u32>,
    /// Time after the start in which failures do not count (default 0s)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    pub(crate) health_start_period: Option<u64>,
    /// Time between two checks in the start period (default 5s)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    pub(crate) health_start_interval: Option<u64>,
    /// No health check
    #[arg(long)]
    pub(crate) no_healthcheck: bool,
    /// Tasks take connections once this answers: tcp[:PORT] or http:[PORT]/PATH (default port: the
    /// target of the first published one)
    #[arg(long, value_name = "CHECK", value_parser = parse_ready)]
    pub(crate) ready: Option<ReadyCheck>,
    /// No check of a port
    #[arg(long)]
    pub(crate) no_ready: bool,
    /// The names of the service have its tasks from their start on, not only once they are healthy
    /// (`--names-before-healthy=false`: as they are without it)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub(crate) names_before_healthy: Option<bool>,
}

impl HealthArgs {
    /// The health check that was asked for, where there was `before`.
    ///
    /// # Errors
    /// Flags that exclude each other.
    pub(crate) fn over(
        &self,
        before: Option<HealthConfig>,
    ) -> anyhow::Result<Option<HealthConfig>> {
        let times = [
            self.health_interval,
            self.health_timeout,
            self.health_start_period,
            self.health_start_interval,
        ];
        let given = self.health_cmd.is_some()
            || self.health_retries.is_some()
            || times.iter().any(Option::is_some);
        if self.no_healthcheck {
            if given {
                bail!("--no-healthcheck conflicts with --health-* options");
            }
            return Ok(Some(HealthConfig::none()));
        }
        if !given {
            return Ok(before);
        }
        // One that was switched off has nothing that could stay.
        let before = before
            .filter(|health| !health.is_none())
            .unwrap_or_default();
        let time = |ms: Option<u64>, before| ms.map_or(before, Duration::from_millis);
        let test = match self.health_cmd.as_deref() {
            None => before.test,
            Some("") => Vec::new(),
            Some(command) => HealthConfig::shell(command).test,
        };
        Ok(Some(HealthConfig {
            test,
            interval: time(self.health_interval, before.interval),
            timeout: time(self.health_timeout, before.timeout),
            start_period: time(self.health_start_period, before.start_period),
            start_interval: time(self.health_start_interval, before.start_interval),
            retries: self.health_retries.unwrap_or(before.retries),
        }))
    }

    /// The check of a port that was asked for, where there was `before`.
    ///
    /// # Errors
    /// Flags that exclude each other.
    pub(crate) fn ready_over(
        &self,
        before: Option<ReadyCheck>,
    ) -> anyhow::Result<Option<ReadyCheck>> {
        match (&self.ready, self.no_ready) {
            (Some(_), true) => bail!("--no-ready conflicts with --ready; leave one of them out"),
            (Some(ready), false) => Ok(Some(ready.clone())),
            (None, true) => Ok(None),
            (None, false) => Ok(before),
        }
    }
}

/// How often ended tasks are replaced; what is not given stays, or is no limit of a new service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Args)]
pub(crate) struct AttemptArgs {
    /// Replacements of a slot at most (default: no limit)
    #[arg(long, value_name = "NUMBER")]
    pub(crate) restart_max_attempts: Option<u64>,
    /// Time in which replacements count (default: all of them do)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    pub(crate) restart_window: Option<u64>,
}

impl AttemptArgs {
    /// Puts what is given into a policy.
    pub(crate) fn apply(self, restart: &mut RestartPolicy) {
        if let Some(attempts) = self.restart_max_attempts {
            restart.max_attempts = attempts;
        }
        if let Some(window) = self.restart_window {
            restart.window = Duration::from_millis(window);
        }
    }
}

fn parse_ready(text: &str) -> Result<ReadyCheck, ParseReadyError> {
    text.parse()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        health: HealthArgs,
        #[command(flatten)]
        attempts: AttemptArgs,
    }

    fn flags(words: &[&str]) -> Result<Flags, String> {
        let words = std::iter::once(&"create").chain(words);
        Flags::try_parse_from(words).map_err(|error| error.to_string())
    }

    fn health(words: &[&str]) -> Result<Option<HealthConfig>, String> {
        flags(words)?.health.over(None).map_err(|e| e.to_string())
    }

    #[test]
    fn flags_of_health_are_dockers() {
        assert_eq!(health(&[]), Ok(None));
        let asked = HealthConfig {
            interval: Duration::from_secs(2),
            timeout: Duration::from_millis(500),
            retries: 2,
            start_period: Duration::from_secs(60),
            start_interval: Duration::from_secs(1),
            ..HealthConfig::shell("curl -f localhost")
        };
        let words = [
            "--health-cmd=curl -f localhost",
            "--health-interval=2s",
            "--health-timeout=500ms",
            "--health-retries=2",
            "--health-start-period=1m",
            "--health-start-interval=1s",
        ];
        assert_eq!(health(&words), Ok(Some(asked)));
        let none = health(&["--no-healthcheck"]).unwrap();
        assert!(none.is_some_and(|health| health.is_none()));
        // Whether there is a command without the flag, the manager knows.
        let timed = health(&["--health-retries", "7"]).unwrap().unwrap();
        assert_eq!((timed.retries, timed.command()), (7, None));
        assert_eq!(
            health(&["--no-healthcheck", "--health-interval", "1s"]),
            Err("--no-healthcheck conflicts with --health-* options".to_owned())
        );
        // In an update the rest stays.
        let before = HealthConfig::shell("true");
        let slower = flags(&["--health-interval", "9s"]).unwrap().health;
        let after = slower.over(Some(before.clone())).unwrap().unwrap();
        assert_eq!((after.test, after.interval.as_secs()), (before.test, 9));
        let off = slower.over(Some(HealthConfig::none())).unwrap().unwrap();
        assert_eq!(off.test, [""; 0]);
        let wrong = health(&["--health-timeout", "5"]).unwrap_err();
        assert!(wrong.contains("a unit is missing"), "{wrong}");
    }

    #[test]
    fn a_port_and_a_limit_of_attempts_are_read() {
        let ready = |text| flags(&["--ready", text]).map(|flags| flags.health.ready);
        let asked = ready("http:8080/healthz").unwrap().unwrap();
        assert_eq!((asked.port, asked.path.as_str()), (8080, "/healthz"));
        let over = |words: &[&str], before| {
            let health = flags(words).unwrap().health;
            health.ready_over(before).map_err(|error| error.to_string())
        };
        assert_eq!(over(&[], Some(asked.clone())), Ok(Some(asked.clone())));
        assert_eq!(
            over(&["--ready=tcp"], Some(asked.clone())),
            Ok("tcp".parse().ok())
        );
        assert_eq!(over(&["--no-ready"], Some(asked)), Ok(None));
        let both = over(&["--no-ready", "--ready", "tcp"], None).unwrap_err();
        assert!(both.contains("leave one of them out"), "{both}");
        let wrong = ready("https:/").unwrap_err();
        assert!(wrong.contains("write tcp, tcp:PORT"), "{wrong}");
        let early = |words| flags(words).unwrap().health.names_before_healthy;
        assert_eq!(early(&[]), None);
        assert_eq!(early(&["--names-before-healthy"]), Some(true));
        assert_eq!(early(&["--names-before-healthy=false"]), Some(false));
        let words = ["--restart-max-attempts", "3", "--restart-window", "2m"];
        let attempts = flags(&words).unwrap().attempts;
        assert_eq!(attempts.restart_max_attempts, Some(3));
        assert_eq!(attempts.restart_window, Some(120_000));
    }
}
