//! `--filter`

use clap::Args;

/// `--filter`, as docker has it: with one key any of the values, with several keys all of them.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct FilterArgs {
    /// Only rows with this, such as name=web; may be repeated
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = parse)]
    pub(crate) filters: Vec<(String, String)>,
}

/// As docker reads them (docker/cli `opts.FilterOpt`): the case of keys, and spaces around, do not count.
fn parse(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        "bad format of filter (expected name=value): write it as in name=web".to_owned()
    })?;
    Ok((key.trim().to_lowercase(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_pairs() {
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(parse("name=web"), pair("name", "web"));
        assert_eq!(parse(" Label = a=b "), pair("label", "a=b"));
        let error = parse("web").unwrap_err();
        assert!(error.starts_with("bad format of filter (expected name=value)"));
    }
}
