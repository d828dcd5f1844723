//! `weft stack`.

use clap::{Args, Subcommand, ValueEnum};

use super::{FilterArgs, FormatArgs, TaskListArgs};

/// `weft stack …`
#[derive(Debug, Subcommand)]
pub(crate) enum StackCommand {
    /// Print what the files of a stack come to: several as one, with the values of variables
    Config(StackConfigArgs),
    /// Make the swarm have what the files of a stack say, and change what differs
    #[command(visible_alias = "up")]
    Deploy(StackDeployArgs),
    /// List stacks
    #[command(
        visible_alias = "list",
        // A stack is a label, and has no id.
        mut_arg("quiet", |arg| arg.help("Print only names"))
    )]
    Ls {
        /// How.
        #[command(flatten)]
        format: FormatArgs,
    },
    /// List the tasks of a stack
    Ps(StackPsArgs),
    /// Remove stacks, and wait until their tasks have ended
    #[command(visible_aliases = ["remove", "down"])]
    Rm(StackRmArgs),
    /// List the services of a stack
    Services(StackServicesArgs),
}

/// `weft stack config`
#[derive(Debug, Args)]
pub(crate) struct StackConfigArgs {
    /// A file of the stack, or `-` for standard input; what a later one says wins
    #[arg(
        short = 'c',
        long = "compose-file",
        value_name = "FILE",
        required = true
    )]
    pub(crate) files: Vec<String>,
    /// Leave variables as they are
    #[arg(long)]
    pub(crate) skip_interpolation: bool,
}

/// `weft stack deploy`
#[derive(Debug, Args)]
pub(crate) struct StackDeployArgs {
    /// A file of the stack, or `-` for standard input; what a later one says wins
    #[arg(
        short = 'c',
        long = "compose-file",
        value_name = "FILE",
        required = true
    )]
    pub(crate) files: Vec<String>,
    /// Remove services of the stack that the files do not have
    #[arg(long)]
    pub(crate) prune: bool,
    /// When to ask a registry which image a name stands for now
    #[arg(long, value_name = "WHEN", default_value = "always")]
    pub(crate) resolve_image: ResolveImageArg,
    /// Nodes fetch images with what `docker login` has kept here
    #[arg(long)]
    pub(crate) with_registry_auth: bool,
    /// Do not wait until the tasks run (default true); what depends_on names is waited for all the same
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub(crate) detach: Option<bool>,
    /// Print no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Only print what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Name of the stack; what it has is called STACK_NAME
    #[arg(value_name = "STACK")]
    pub(crate) stack: String,
}

/// `--resolve-image`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ResolveImageArg {
    /// Of every service.
    #[default]
    Always,
    /// Of new services, and where the file has another name than before.
    Changed,
    /// Each node asks by itself.
    Never,
}

/// `weft stack ps`
#[derive(Debug, Args)]
pub(crate) struct StackPsArgs {
    /// How.
    #[command(flatten)]
    pub(crate) list: TaskListArgs,
    /// Name of the stack
    #[arg(value_name = "STACK")]
    pub(crate) stack: String,
}

/// `weft stack rm`
#[derive(Debug, Args)]
pub(crate) struct StackRmArgs {
    /// Do not wait until the tasks have ended (default false)
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub(crate) detach: Option<bool>,
    /// Names of stacks
    #[arg(required = true, value_name = "STACK")]
    pub(crate) stacks: Vec<String>,
}

/// `weft stack services`
#[derive(Debug, Args)]
pub(crate) struct StackServicesArgs {
    /// Which: keys are id, label, mode and name.
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// How.
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    /// Name of the stack
    #[arg(value_name = "STACK")]
    pub(crate) stack: String,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::args::{Cli, Command};

    fn stack(words: &str) -> StackCommand {
        let words = ["weft", "stack"]
            .into_iter()
            .chain(words.split_ascii_whitespace());
        match Cli::try_parse_from(words).expect("a command line").command {
            Command::Stack(command) => command,
            other => unreachable!("{other:?}"),
        }
    }

    fn deploy(words: &str) -> StackDeployArgs {
        match stack(words) {
            StackCommand::Deploy(args) => args,
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn deploy_takes_dockers_flags() {
        let args = deploy("deploy -c a.yml --compose-file b.yml vote");
        assert_eq!(args.files, ["a.yml", "b.yml"]);
        assert_eq!((args.detach, args.prune), (None, false));
        assert_eq!(args.resolve_image, ResolveImageArg::Always);
        let args = deploy("up --prune --resolve-image changed -dq -c - vote");
        assert_eq!((args.detach, args.prune), (Some(true), true));
        assert!(args.quiet && args.stack == "vote");
        assert_eq!(args.resolve_image, ResolveImageArg::Changed);
        let args = deploy("deploy --detach=false --with-registry-auth -c a vote");
        assert_eq!(args.detach, Some(false));
        assert!(args.with_registry_auth);
        for bad in [
            "deploy vote",
            "deploy -c a",
            "deploy -c a --resolve-image often v",
        ] {
            let words = format!("weft stack {bad}");
            let parsed = Cli::try_parse_from(words.split_ascii_whitespace());
            assert_eq!(parsed.expect_err(bad).exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn stacks_have_names_and_no_ids() {
        let command = Cli::command();
        let stack = command.find_subcommand("stack").expect("stack");
        for (name, help) in [("ls", "Print only names"), ("services", "Print only ids")] {
            let list = stack.find_subcommand(name).expect(name);
            let mut flags = list.get_arguments();
            let quiet = flags
                .find(|arg| arg.get_id().as_str() == "quiet")
                .expect("a flag");
            let is = quiet.get_help().map(ToString::to_string);
            assert_eq!(is.as_deref(), Some(help), "{name}");
        }
    }

    #[test]
    fn the_other_commands_have_dockers_names() {
        assert!(matches!(stack("list"), StackCommand::Ls { .. }));
        let StackCommand::Rm(args) = stack("down -d=false a b") else {
            unreachable!("another command");
        };
        assert_eq!(args.stacks, ["a", "b"]);
        assert_eq!(args.detach, Some(false));
        let StackCommand::Ps(args) = stack("ps --no-trunc -f node=n1 vote") else {
            unreachable!("another command");
        };
        assert!(args.list.no_trunc && args.stack == "vote");
        let StackCommand::Services(args) = stack("services -q vote") else {
            unreachable!("another command");
        };
        assert!(args.format.quiet);
    }
}
