//! `weft volume`.

use clap::{Args, Subcommand};
use weft_client::segment;

use super::{FilterArgs, FormatArgs, InspectArgs, parse_key_value};

/// `weft volume …`
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Make a volume
    Create(VolumeCreateArgs),
    /// List volumes
    Ls {
        /// Whose.
        #[command(flatten)]
        nodes: NodesArgs,
        /// Which: keys are dangling, driver, label and name.
        #[command(flatten)]
        filter: FilterArgs,
        /// How.
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Show everything known about volumes
    Inspect {
        /// Whose.
        #[command(flatten)]
        nodes: NodesArgs,
        /// Which, and how.
        #[command(flatten)]
        inspect: InspectArgs,
    },
    /// Remove volumes, with all that is in them
    Rm {
        /// Whose.
        #[command(flatten)]
        nodes: NodesArgs,
        /// That there is no such volume is no error
        #[arg(short, long)]
        force: bool,
        /// Name
        #[arg(required = true, value_name = "VOLUME")]
        names: Vec<String>,
    },
    /// Remove volumes that no task uses
    Prune(VolumePruneArgs),
}

/// Which nodes are asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct NodesArgs {
    /// Of this node, by id, name, or unique start of an id (default: the one that is asked)
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// Of every node
    #[arg(long, conflicts_with = "node")]
    pub(crate) all: bool,
}

impl NodesArgs {
    /// Parameters of a call, with what else it says.
    pub(crate) fn query(&self, force: bool) -> String {
        let node = self.node.as_deref().map(segment);
        let parts = [
            node.map(|node| format!("node={node}")),
            self.all.then(|| "all=true".to_owned()),
            force.then(|| "force=true".to_owned()),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() {
            String::new()
        } else {
            format!("?{}", parts.join("&"))
        }
    }

    /// True where rows name their node.
    pub(crate) fn is_named(&self) -> bool {
        self.all || self.node.is_some()
    }
}

/// `weft volume create`
#[derive(Debug, Args)]
pub(crate) struct VolumeCreateArgs {
    /// Where.
    #[command(flatten)]
    pub(crate) nodes: NodesArgs,
    /// Driver, as docker spells it; there is only `local`
    #[arg(short, long, default_value = "local")]
    pub(crate) driver: String,
    /// Option of the driver: type, device, o; may be repeated
    #[arg(short, long = "opt", value_name = "KEY=VALUE", value_parser = parse_key_value)]
    pub(crate) options: Vec<(String, String)>,
    /// Label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_key_value)]
    pub(crate) labels: Vec<(String, String)>,
    /// Name (default: 64 digits by chance)
    #[arg(value_name = "VOLUME")]
    pub(crate) name: Option<String>,
}

/// `weft volume prune`
#[derive(Debug, Args)]
pub(crate) struct VolumePruneArgs {
    /// Of this node, by id, name, or unique start of an id (default: the one that is asked)
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Of every node
    #[arg(long, conflicts_with = "node")]
    all_nodes: bool,
    /// Also volumes that have a name of their own
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Only volumes with this, label=KEY[=VALUE], or without, label!=KEY[=VALUE]; may be repeated
    #[arg(long = "filter", value_name = "FILTER", value_parser = parse_label_filter)]
    pub(crate) filters: Vec<LabelFilter>,
}

impl VolumePruneArgs {
    /// Which nodes are asked: `--all` is about volumes here, as docker has it.
    pub(crate) fn nodes(&self) -> NodesArgs {
        NodesArgs {
            node: self.node.clone(),
            all: self.all_nodes,
        }
    }
}

/// `--filter label=…` of `prune`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LabelFilter {
    /// True for `label!=…`
    pub(crate) without: bool,
    /// `KEY` or `KEY=VALUE`
    pub(crate) label: String,
}

fn parse_label_filter(text: &str) -> Result<LabelFilter, String> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        "bad format of filter (expected name=value): write it as in label=keep".to_owned()
    })?;
    let without = match key.trim().to_lowercase().as_str() {
        "label" => false,
        "label!" => true,
        other => return Err(format!("invalid filter '{other}': there is label, label!")),
    };
    Ok(LabelFilter {
        without,
        label: value.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_parameters() {
        let nodes = |node: Option<&str>, all: bool| NodesArgs {
            node: node.map(str::to_owned),
            all,
        };
        assert_eq!(nodes(None, false).query(false), "");
        assert_eq!(nodes(None, false).query(true), "?force=true");
        assert_eq!(
            nodes(Some("a b"), false).query(true),
            "?node=a%20b&force=true"
        );
        assert_eq!(nodes(None, true).query(false), "?all=true");
    }

    #[test]
    fn labels_are_asked_for_or_not_wanted() {
        let filter = |without: bool, label: &str| {
            Ok(LabelFilter {
                without,
                label: label.to_owned(),
            })
        };
        assert_eq!(parse_label_filter("label=a"), filter(false, "a"));
        assert_eq!(parse_label_filter("label!=a=b"), filter(true, "a=b"));
        assert!(parse_label_filter("name=a").is_err());
        assert!(parse_label_filter("label").is_err());
    }
}
