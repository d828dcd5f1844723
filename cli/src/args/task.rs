//! What flags about tasks are given, where several commands have them.

use clap::ValueEnum;
use weft_model::objects::{EndpointMode, RestartCondition};
use weft_model::{capability, stop_signal};

/// `--endpoint-mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EndpointModeArg {
    /// One virtual address.
    Vip,
    /// The addresses of the tasks.
    Dnsrr,
}

/// `--restart-condition`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RestartArg {
    /// Always.
    Any,
    /// When the task ended with an error.
    OnFailure,
    /// Never.
    None,
}

impl From<RestartArg> for RestartCondition {
    fn from(arg: RestartArg) -> Self {
        match arg {
            RestartArg::Any => Self::Any,
            RestartArg::OnFailure => Self::OnFailure,
            RestartArg::None => Self::None,
        }
    }
}

impl From<EndpointModeArg> for EndpointMode {
    fn from(arg: EndpointModeArg) -> Self {
        match arg {
            EndpointModeArg::Vip => Self::Vip,
            EndpointModeArg::Dnsrr => Self::Dnsrr,
        }
    }
}

pub(super) fn parse_capability(text: &str) -> Result<String, String> {
    capability::canonical(text).map_err(|error| error.to_string())
}

/// As it was given: docker shows it so.
pub(super) fn parse_stop_signal(text: &str) -> Result<String, String> {
    let known = stop_signal::number(text).map_err(|error| error.to_string());
    known.map(|_| text.to_owned())
}

/// As `docker run` spells it: alone, or with `=` or `:` and a truth value.
pub(super) fn parse_no_new_privileges(text: &str) -> Result<bool, String> {
    let value = text.strip_prefix("no-new-privileges");
    match value.map(|value| value.trim_start_matches(['=', ':'])) {
        Some("" | "true") => Ok(true),
        Some("false") => Ok(false),
        _ => Err(format!(
            "invalid security option {text:?}: there is no-new-privileges, no-new-privileges=true and no-new-privileges=false"
        )),
    }
}
