//! `weft secret` and `weft config`, which have the same words.

use clap::{Args, Subcommand};

use super::{FilterArgs, FormatArgs, InspectArgs, parse_key_value};

/// `weft secret …` and `weft config …`
#[derive(Debug, Subcommand)]
pub(crate) enum PayloadCommand {
    /// Have the swarm keep the content of a file, or of standard input; prints its id
    Create(PayloadCreateArgs),
    /// List what the swarm keeps
    #[command(visible_alias = "list")]
    Ls {
        /// Which: keys are id, label and name.
        #[command(flatten)]
        filter: FilterArgs,
        /// How.
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Show everything known about them; of a secret, all but its content
    Inspect(InspectArgs),
    /// Remove those that no service uses
    #[command(visible_alias = "remove")]
    Rm {
        /// Id, name, or unique start of an id
        #[arg(required = true, value_name = "NAME|ID")]
        refs: Vec<String>,
    },
}

impl PayloadCommand {
    /// True of those that change nothing.
    pub(crate) fn only_shows(&self) -> bool {
        matches!(self, Self::Ls { .. } | Self::Inspect(_))
    }
}

/// `weft secret create` and `weft config create`
#[derive(Debug, Args)]
pub(crate) struct PayloadCreateArgs {
    /// Label; may be repeated
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = parse_key_value)]
    pub(crate) labels: Vec<(String, String)>,
    /// `golang`: it is a template, which each task fills in with {{.Task.Slot}} and the like
    #[arg(long, value_name = "DRIVER", value_parser = ["golang"])]
    pub(crate) template_driver: Option<String>,
    /// Of a plugin that keeps secrets elsewhere.
    #[arg(short, long, value_name = "DRIVER", hide = true, value_parser = refuse_driver)]
    driver: Option<()>,
    /// Name: letters, digits, '-', '_' and '.', 64 at most
    pub(crate) name: String,
    /// The file, or `-` for standard input
    #[arg(value_name = "FILE|-")]
    pub(crate) file: Option<String>,
}

fn refuse_driver(_: &str) -> Result<(), String> {
    let text = "there are no drivers of secrets: managers keep them; leave --driver out, and give a \
                file, or - for standard input";
    Err(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn parsed(line: &str) -> Result<Command, String> {
        let words = std::iter::once("weft").chain(line.split_ascii_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        Ok(cli.command)
    }

    #[test]
    fn words_are_dockers_for_both() {
        let line = "secret create -l a=b --label c --template-driver golang db-password -";
        let made = parsed(line).expect("a command");
        let Command::Secret(PayloadCommand::Create(args)) = made else {
            panic!("another command");
        };
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(args.labels, [label("a", "b"), label("c", "")]);
        assert_eq!(args.template_driver.as_deref(), Some("golang"));
        assert_eq!(
            (args.name.as_str(), args.file.as_deref()),
            ("db-password", Some("-"))
        );
        for (line, shows) in [
            ("config create app.conf /etc/app.conf", false),
            ("config ls -q --filter name=app", true),
            ("config list", true),
            ("config inspect --pretty app.conf", true),
            ("config rm a b", false),
            ("config remove a", false),
        ] {
            let Ok(Command::Config(command)) = parsed(line) else {
                panic!("{line}");
            };
            assert_eq!(command.only_shows(), shows, "{line}");
            assert_eq!(Command::Config(command).shows_the_swarm(), shows, "{line}");
        }
    }

    #[test]
    fn what_nobody_carries_out_is_refused() {
        for (line, says) in [
            (
                "secret create -d vault a",
                "there are no drivers of secrets",
            ),
            ("secret create --template-driver jinja a b", "golang"),
            ("secret create", "<NAME>"),
            ("secret rm", "<NAME|ID>"),
        ] {
            let error = parsed(line).expect_err(line);
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
