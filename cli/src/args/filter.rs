//! `--filter`

use clap::Args;

/// `--filter`, as docker has it: with one key any of the values, with several keys all of them.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct FilterArgs {
    /// Only rows with this, such as name=web; may be repeated
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = parse)]
    pub(crate) filters: Vec<(String, String)>,
}

fn parse(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    pair.map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("invalid filter {text:?}: write KEY=VALUE, such as name=web"))
}
