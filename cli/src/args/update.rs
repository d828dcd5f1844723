//! Flags of `service create` and `service update` that say how tasks are replaced, and those of
//! `service update` that say what tasks are.

use std::time::Duration;

use anyhow::bail;
use clap::{Args, ValueEnum};
use weft_model::objects::{
    FailureAction, Mount, NetworkAttachmentSpec, Ratio, ServiceSpec, UpdateConfig, UpdateOrder,
};

use super::env::parse_variable;
use super::task::{
    EndpointModeArg, RestartArg, parse_capability, parse_no_new_privileges, parse_stop_signal,
};
use super::{
    ContainerArgs, ContainerUpdateArgs, PayloadChangeArgs, RegistryArgs, parse_attachment,
    parse_duration_ms, parse_key_value, parse_mount,
};

/// How tasks are replaced; what is not given stays, or is the default of a new service.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub(crate) struct PolicyArgs {
    /// Tasks that an update replaces at a time; 0 is all at once (default 1)
    #[arg(long, value_name = "NUMBER")]
    update_parallelism: Option<u32>,
    /// Time between a new task that runs and the next one to be replaced (default 0s)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    update_delay: Option<u64>,
    /// Time that a new task is watched: one that ends meanwhile has failed (default 5s)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    update_monitor: Option<u64>,
    /// What follows when too many new tasks fail (default pause)
    #[arg(long, value_name = "ACTION")]
    update_failure_action: Option<FailureActionArg>,
    /// Part of the tasks that may fail, from 0 to 1 (default 0)
    #[arg(long, value_name = "RATIO", value_parser = parse_ratio)]
    update_max_failure_ratio: Option<Ratio>,
    /// Which task is first, the end of the old one or the start of the new one (default stop-first)
    #[arg(long, value_name = "ORDER")]
    update_order: Option<OrderArg>,
    /// Time after which a new task that does not run has failed; 0 is for ever (default 5m)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    update_timeout: Option<u64>,
    /// Tasks that a rollback replaces at a time; 0 is all at once (default 1)
    #[arg(long, value_name = "NUMBER")]
    rollback_parallelism: Option<u32>,
    /// Time between a task that runs again and the next one to be replaced (default 0s)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    rollback_delay: Option<u64>,
    /// Time that a task is watched in a rollback (default 5s)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    rollback_monitor: Option<u64>,
    /// What follows when too many tasks fail in a rollback, pause or continue (default pause)
    #[arg(long, value_name = "ACTION")]
    rollback_failure_action: Option<FailureActionArg>,
    /// Part of the tasks that may fail in a rollback, from 0 to 1 (default 0)
    #[arg(long, value_name = "RATIO", value_parser = parse_ratio)]
    rollback_max_failure_ratio: Option<Ratio>,
    /// Which task is first in a rollback (default stop-first)
    #[arg(long, value_name = "ORDER")]
    rollback_order: Option<OrderArg>,
    /// Time after which a task that does not run in a rollback has failed (default 5m)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    rollback_timeout: Option<u64>,
}

impl PolicyArgs {
    /// Puts what is given into a specification.
    ///
    /// # Errors
    /// Of a job, whose tasks nothing replaces.
    pub(crate) fn apply(&self, spec: &mut ServiceSpec) -> anyhow::Result<()> {
        if spec.mode.is_job() && *self != Self::default() {
            bail!(
                "update and rollback configuration is not supported for jobs; drop the --update-… and \
                 --rollback-… flags"
            );
        }
        let update = Given {
            parallelism: self.update_parallelism,
            delay: self.update_delay,
            monitor: self.update_monitor,
            action: self.update_failure_action,
            ratio: self.update_max_failure_ratio,
            order: self.update_order,
            timeout: self.update_timeout,
        };
        let rollback = Given {
            parallelism: self.rollback_parallelism,
            delay: self.rollback_delay,
            monitor: self.rollback_monitor,
            action: self.rollback_failure_action,
            ratio: self.rollback_max_failure_ratio,
            order: self.rollback_order,
            timeout: self.rollback_timeout,
        };
        spec.update = update.over(spec.update);
        spec.rollback = rollback.over(spec.rollback);
        Ok(())
    }
}

/// The flags of one direction.
struct Given {
    parallelism: Option<u32>,
    delay: Option<u64>,
    monitor: Option<u64>,
    action: Option<FailureActionArg>,
    ratio: Option<Ratio>,
    order: Option<OrderArg>,
    timeout: Option<u64>,
}

impl Given {
    fn over(&self, before: UpdateConfig) -> UpdateConfig {
        let time = |given: Option<u64>, before| given.map_or(before, Duration::from_millis);
        UpdateConfig {
            parallelism: self.parallelism.unwrap_or(before.parallelism),
            delay: time(self.delay, before.delay),
            failure_action: self.action.map_or(before.failure_action, Into::into),
            monitor: time(self.monitor, before.monitor),
            max_failure_ratio: self.ratio.unwrap_or(before.max_failure_ratio),
            order: self.order.map_or(before.order, Into::into),
            timeout: time(self.timeout, before.timeout),
        }
    }
}

/// `--update-failure-action`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailureActionArg {
    /// The rest stays as it is.
    Pause,
    /// All tasks are replaced.
    Continue,
    /// Everything is as it was.
    Rollback,
}

impl From<FailureActionArg> for FailureAction {
    fn from(arg: FailureActionArg) -> Self {
        match arg {
            FailureActionArg::Pause => Self::Pause,
            FailureActionArg::Continue => Self::Continue,
            FailureActionArg::Rollback => Self::Rollback,
        }
    }
}

/// `--update-order`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OrderArg {
    /// The old task ends, then the new one starts.
    StopFirst,
    /// The new task runs, then the old one is stopped.
    StartFirst,
}

impl From<OrderArg> for UpdateOrder {
    fn from(arg: OrderArg) -> Self {
        match arg {
            OrderArg::StopFirst => Self::StopFirst,
            OrderArg::StartFirst => Self::StartFirst,
        }
    }
}

fn parse_ratio(text: &str) -> Result<Ratio, String> {
    let ratio = text.parse().ok().and_then(Ratio::new);
    ratio.ok_or_else(|| format!("invalid ratio {text:?}: write a number from 0 to 1, such as 0.2"))
}

/// What the tasks of a service are, and its labels; what is not given stays.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub(crate) struct TaskChangeArgs {
    /// Another image, or the same to have what its name stands for now; or the word `host`
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// Another command with its arguments, as a shell reads them: --args '/bin/server -p 80'
    #[arg(long, value_name = "COMMAND")]
    pub(crate) args: Option<String>,
    /// Host name that the tasks see, such as web-{{.Task.Slot}}; empty for the task's name
    #[arg(long, value_name = "HOSTNAME")]
    pub(crate) hostname: Option<String>,
    /// Environment variable to set, KEY=VALUE, or KEY for the value that it has here; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_variable)]
    pub(crate) env_add: Vec<String>,
    /// Environment variable to remove; may be repeated
    #[arg(long, value_name = "KEY")]
    pub(crate) env_rm: Vec<String>,
    /// Mount to add, as for `service create`, in place of the one with its target; may be repeated
    #[arg(long, value_name = "MOUNT", value_parser = parse_mount)]
    pub(crate) mount_add: Vec<Mount>,
    /// Mount to take away, by its target; may be repeated
    #[arg(long, value_name = "TARGET")]
    pub(crate) mount_rm: Vec<String>,
    /// Secrets and configs.
    #[command(flatten)]
    pub(crate) payloads: PayloadChangeArgs,
    /// Label to set; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_key_value)]
    pub(crate) label_add: Vec<(String, String)>,
    /// Label to remove; may be repeated
    #[arg(long, value_name = "KEY")]
    pub(crate) label_rm: Vec<String>,
    /// Network to join, as for `service create`; may be repeated
    #[arg(long, value_name = "NETWORK", value_parser = parse_attachment)]
    pub(crate) network_add: Vec<NetworkAttachmentSpec>,
    /// Network to leave; may be repeated
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network_rm: Vec<String>,
    /// How the name resolves: `vip` or `dnsrr`
    #[arg(long)]
    pub(crate) endpoint_mode: Option<EndpointModeArg>,
    /// When finished tasks are replaced
    #[arg(long)]
    pub(crate) restart_condition: Option<RestartArg>,
    /// Time between failure and replacement
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    pub(crate) restart_delay: Option<u64>,
    /// Signal that asks a task to end, such as SIGQUIT, USR1 or 3; empty for SIGTERM
    #[arg(long, value_name = "SIGNAL", value_parser = parse_stop_signal)]
    pub(crate) stop_signal: Option<String>,
    /// Time between that signal and SIGKILL
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    pub(crate) stop_grace_period: Option<u64>,
    /// Who the tasks are on their nodes: NAME|UID[:GROUP|GID]; empty for root
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Capability that the tasks have from now on, or ALL; may be repeated
    #[arg(long, value_name = "CAPABILITY", value_parser = parse_capability)]
    pub(crate) cap_add: Vec<String>,
    /// Capability that the tasks do not have from now on, or ALL; may be repeated
    #[arg(long, value_name = "CAPABILITY", value_parser = parse_capability)]
    pub(crate) cap_drop: Vec<String>,
    /// `no-new-privileges`, or `no-new-privileges=false`
    #[arg(long = "security-opt", value_name = "OPTION", value_parser = parse_no_new_privileges)]
    pub(crate) no_new_privileges: Option<bool>,
    /// What a container has besides its image.
    #[command(flatten)]
    pub(crate) container: ContainerArgs,
    /// And what it has several of.
    #[command(flatten)]
    pub(crate) lists: ContainerUpdateArgs,
    /// Who asks for the image.
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Replace all tasks, whether anything changes or not
    #[arg(long)]
    pub(crate) force: bool,
}
