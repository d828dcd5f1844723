//! `weft image …`

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{FilterArgs, FormatArgs};

/// `weft image …`
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Get an image from other nodes or a registry
    Pull(ImagePullArgs),
    /// List the images of this node
    #[command(visible_alias = "list")]
    Ls(ImageListArgs),
    /// Show images in detail
    Inspect(ImageInspectArgs),
    /// Remove images from this node
    #[command(visible_alias = "remove")]
    Rm(ImageRemoveArgs),
    /// Take images out of an archive, as `docker save` writes them; other nodes get them from this one
    Load(ImageLoadArgs),
    /// Write images into an archive
    Save(ImageSaveArgs),
    /// Remove images that have no name, from this node
    Prune(ImagePruneArgs),
}

/// `weft image pull`
#[derive(Debug, Args)]
pub(crate) struct ImagePullArgs {
    /// Print only the name
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// `NAME[:TAG|@DIGEST]`
    #[arg(value_name = "NAME")]
    pub(crate) image: String,
}

/// `weft image ls`
#[derive(Debug, Args)]
pub(crate) struct ImageListArgs {
    /// Images of this repository, with this tag where one is given
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub(crate) repository: Option<String>,
    /// Show digests
    #[arg(long)]
    pub(crate) digests: bool,
    /// Show whole ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Which: the keys are dangling, label and reference.
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// How.
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// `weft image inspect`
#[derive(Debug, Args)]
pub(crate) struct ImageInspectArgs {
    /// Names, or beginnings of ids
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) refs: Vec<String>,
    /// `table`, `json`, or a Go template such as '{{.Id}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// `weft image rm`
#[derive(Debug, Args)]
pub(crate) struct ImageRemoveArgs {
    /// Also where an id has several names
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Names, or beginnings of ids
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) refs: Vec<String>,
}

/// `weft image load`
#[derive(Debug, Args)]
pub(crate) struct ImageLoadArgs {
    /// The archive, instead of standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `weft image save`
#[derive(Debug, Args)]
pub(crate) struct ImageSaveArgs {
    /// Where to, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Names, or beginnings of ids
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) refs: Vec<String>,
}

/// `weft image prune`
#[derive(Debug, Args)]
pub(crate) struct ImagePruneArgs {
    /// Also those that have a name, where no task of this node uses them
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
}
