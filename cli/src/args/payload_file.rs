//! Flags of `service create` and `service update` for secrets and configs, in docker's words (docker/cli
//! `opts/swarmopts/secret.go` and `config.go`).

use anyhow::bail;
use clap::Args;
use weft_model::objects::{
    ConfigReference, ContainerSpec, PayloadFile, PayloadKind, SecretReference,
};

use super::mount::fields;

/// Bits that the mode of a file has.
const MODE_BITS: u32 = 0o7777;

/// Secrets and configs of a new service. Managers know their ids by their names.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PayloadArgs {
    /// Secret that the tasks see as a file: NAME (at /run/secrets/NAME), or
    /// source=NAME[,target=FILE][,uid=N][,gid=N][,mode=0400]; may be repeated
    #[arg(long = "secret", value_name = "SECRET", value_parser = parse_secret)]
    secrets: Vec<SecretReference>,
    /// Config that the tasks see as a file: NAME (at /NAME), or the same keys; may be repeated
    #[arg(long = "config", value_name = "CONFIG", value_parser = parse_config)]
    configs: Vec<ConfigReference>,
}

impl PayloadArgs {
    /// Puts what is given into a new specification.
    ///
    /// # Errors
    /// Two of a kind have one target.
    pub(crate) fn apply(self, container: &mut ContainerSpec) -> anyhow::Result<()> {
        check(&self.secrets, &self.configs)?;
        container.secrets = self.secrets;
        container.configs = self.configs;
        Ok(())
    }
}

/// What `service update` does to the secrets and configs of a service; what is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub(crate) struct PayloadChangeArgs {
    /// Secret to add, as for `service create`; may be repeated
    #[arg(long, value_name = "SECRET", value_parser = parse_secret)]
    secret_add: Vec<SecretReference>,
    /// Secret to take away, by its name, before others are added; may be repeated
    #[arg(long, value_name = "NAME")]
    secret_rm: Vec<String>,
    /// Config to add, as for `service create`; may be repeated
    #[arg(long, value_name = "CONFIG", value_parser = parse_config)]
    config_add: Vec<ConfigReference>,
    /// Config to take away, by its name, before others are added; may be repeated
    #[arg(long, value_name = "NAME")]
    config_rm: Vec<String>,
}

impl PayloadChangeArgs {
    /// Does to a specification what the flags say. What is removed goes first, so that another one may
    /// take over its file.
    ///
    /// # Errors
    /// Two of a kind that are added have one target.
    pub(crate) fn apply(&self, container: &mut ContainerSpec) -> anyhow::Result<()> {
        check(&self.secret_add, &self.config_add)?;
        let gone = &self.secret_rm;
        container.secrets.retain(|one| !gone.contains(&one.name));
        container.secrets.extend(self.secret_add.iter().cloned());
        let gone = &self.config_rm;
        container.configs.retain(|one| !gone.contains(&one.name));
        container.configs.extend(self.config_add.iter().cloned());
        Ok(())
    }
}

/// What managers would refuse in other words.
fn check(secrets: &[SecretReference], configs: &[ConfigReference]) -> anyhow::Result<()> {
    let secrets = secrets.iter().map(|one| (&one.name, &one.file.name));
    check_targets(PayloadKind::Secret, secrets)?;
    let configs = configs.iter().map(|one| (&one.name, &one.file.name));
    check_targets(PayloadKind::Config, configs)
}

fn check_targets<'a>(
    kind: PayloadKind,
    given: impl Iterator<Item = (&'a String, &'a String)>,
) -> anyhow::Result<()> {
    let mut targets = Vec::new();
    for (name, target) in given {
        if targets.contains(&target) {
            bail!(
                "duplicate {kind} target for {name} not allowed; give it another one, as in \
                 source={name},target=FILE"
            );
        }
        targets.push(target);
    }
    Ok(())
}

/// Parses `--secret`.
///
/// # Errors
/// What is wrong, in docker's words.
fn parse_secret(text: &str) -> Result<SecretReference, String> {
    let (name, file) = parse(PayloadKind::Secret, text)?;
    Ok(SecretReference {
        file,
        name,
        ..SecretReference::default()
    })
}

/// Parses `--config`.
///
/// # Errors
/// What is wrong, in docker's words.
fn parse_config(text: &str) -> Result<ConfigReference, String> {
    let (name, file) = parse(PayloadKind::Config, text)?;
    Ok(ConfigReference {
        file,
        name,
        ..ConfigReference::default()
    })
}

/// A name alone, or a record of CSV, each field `KEY=VALUE`.
fn parse(kind: PayloadKind, text: &str) -> Result<(String, PayloadFile), String> {
    let fields = fields(text)?;
    let (mut name, mut file) = (String::new(), PayloadFile::default());
    if let [alone] = fields.as_slice()
        && !alone.is_empty()
        && !alone.contains('=')
    {
        name.clone_from(alone);
        file.name.clone_from(alone);
        return Ok((name, file));
    }
    for field in &fields {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) if !key.is_empty() => (key, value),
            _ => {
                return Err(format!(
                    "invalid field '{field}' must be a key=value pair: write source=NAME,target=FILE"
                ));
            }
        };
        match key.to_ascii_lowercase().as_str() {
            "source" | "src" => value.clone_into(&mut name),
            "target" => value.clone_into(&mut file.name),
            "uid" => value.clone_into(&mut file.uid),
            "gid" => value.clone_into(&mut file.gid),
            "mode" => file.mode = parse_mode(value)?,
            _ => {
                return Err(format!(
                    "invalid field in {kind} request: {key}; there are source, target, uid, gid and mode"
                ));
            }
        }
    }
    if name.is_empty() {
        return Err("source is required: write source=NAME".to_owned());
    }
    if file.name.is_empty() {
        file.name.clone_from(&name);
    }
    Ok((name, file))
}

/// `strconv.ParseUint(value, 0, 32)`, but for `_` between digits: octal behind a 0, decimal otherwise.
fn parse_mode(text: &str) -> Result<u32, String> {
    let lower = text.to_ascii_lowercase();
    let prefixes = [("0x", 16), ("0b", 2), ("0o", 8), ("0", 8)];
    let based = prefixes.iter().find_map(|(prefix, base)| {
        let digits = lower.strip_prefix(*prefix)?;
        (!digits.is_empty()).then_some((digits, *base))
    });
    let (digits, base) = based.unwrap_or((lower.as_str(), 10));
    // What would take a sign, too.
    let number = u32::from_str_radix(digits, base).ok();
    let plain = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let mode = number.filter(|mode| plain && *mode <= MODE_BITS);
    mode.ok_or_else(|| {
        format!(
            "invalid mode specified: {text:?} are no permissions of a file: write them as in 0400"
        )
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Create {
        #[command(flatten)]
        payloads: PayloadArgs,
    }

    #[derive(Debug, Parser)]
    struct Update {
        #[command(flatten)]
        payloads: PayloadChangeArgs,
    }

    fn created(words: &[&str]) -> Result<ContainerSpec, String> {
        let words = std::iter::once(&"create").chain(words);
        let flags = Create::try_parse_from(words).map_err(|error| error.to_string())?;
        let mut container = ContainerSpec::default();
        let applied = flags.payloads.apply(&mut container);
        applied.map_err(|error| error.to_string())?;
        Ok(container)
    }

    fn update(line: &str, container: &mut ContainerSpec) -> anyhow::Result<()> {
        let words = std::iter::once("update").chain(line.split_ascii_whitespace());
        let flags = Update::try_parse_from(words).expect("flags");
        flags.payloads.apply(container)
    }

    #[test]
    fn references_are_dockers() {
        let made = created(&[
            "--secret=db-password",
            "--secret",
            "SRC=key,target=/etc/tls/key,uid=33,gid=44,mode=0400",
            "--config",
            "source=app,\"target=/etc/a,b\",mode=0x124",
            "--config=site",
        ]);
        let made = serde_json::to_value(made.expect("made")).expect("written");
        let secrets = serde_json::json!([
            {"File": {"Name": "db-password", "UID": "0", "GID": "0", "Mode": 0o444},
             "SecretID": "", "SecretName": "db-password"},
            {"File": {"Name": "/etc/tls/key", "UID": "33", "GID": "44", "Mode": 0o400},
             "SecretID": "", "SecretName": "key"},
        ]);
        assert_eq!(made["Secrets"], secrets);
        let configs = serde_json::json!([
            {"File": {"Name": "/etc/a,b", "UID": "0", "GID": "0", "Mode": 0o444},
             "ConfigID": "", "ConfigName": "app"},
            {"File": {"Name": "site", "UID": "0", "GID": "0", "Mode": 0o444},
             "ConfigID": "", "ConfigName": "site"},
        ]);
        assert_eq!(made["Configs"], configs);
        assert_eq!(created(&[]), Ok(ContainerSpec::default()));
    }

    #[test]
    fn modes_have_gos_bases() {
        for (text, mode) in [
            ("0400", 0o400),
            ("0o440", 0o440),
            ("0x1FF", 0o777),
            ("0b100100", 0o44),
            ("292", 0o444),
            ("0", 0),
            ("07777", 0o7777),
        ] {
            assert_eq!(parse_mode(text), Ok(mode), "{text}");
        }
        for text in [
            "",
            "9z",
            "0899",
            "-1",
            "+7",
            "0+7",
            "0x",
            "010000",
            "99999999999",
        ] {
            let error = parse_mode(text).expect_err(text);
            assert!(error.starts_with("invalid mode specified: \""), "{error}");
        }
    }

    #[test]
    fn what_docker_refuses_is_refused_in_its_words() {
        for (text, says) in [
            ("", "value is empty"),
            ("\"\"", "invalid field '' must be a key=value pair"),
            ("foo,a", "invalid field 'foo' must be a key=value pair"),
            ("=x", "invalid field '=x' must be a key=value pair"),
            ("source=x,foo=1", "invalid field in config request: foo;"),
            ("target=a", "source is required"),
            ("source=,target=a", "source is required"),
            ("source=x,mode=9z", "invalid mode specified: \"9z\""),
        ] {
            let error = parse_config(text).expect_err(text);
            assert!(error.starts_with(says), "{text}: {error}");
        }
        let error = parse_secret("source=x,foo=1").expect_err("an unknown key");
        assert!(error.starts_with("invalid field in secret request: foo;"));
        let twice = created(&["--secret=a", "--secret", "source=b,target=a"]);
        let error = twice.expect_err("one file");
        assert!(error.starts_with("duplicate secret target for b not allowed"));
        let error = created(&["--config=a", "--config=a"]).expect_err("one file");
        assert!(error.starts_with("duplicate config target for a not allowed"));
        // They have folders of their own.
        created(&["--secret=a", "--config=a"]).expect("two files");
    }

    #[test]
    fn one_update_puts_another_in_the_place_of_one() {
        let mut container = created(&["--secret=old", "--secret=other", "--config=c"]);
        let container = container.as_mut().expect("made");
        for secret in &mut container.secrets {
            secret.id = secret.name.as_str().into();
        }
        let before = container.clone();
        update("", container).expect("nothing");
        assert_eq!(*container, before);
        let line =
            "--secret-rm old --secret-add source=new,target=old --config-rm c --config-add d";
        update(line, container).expect("changed");
        let secrets = container.secrets.iter();
        let secrets: Vec<(&str, &str, &str)> = secrets
            .map(|one| (one.name.as_str(), one.id.as_str(), one.file.name.as_str()))
            .collect();
        assert_eq!(secrets, [("other", "other", "other"), ("new", "", "old")]);
        assert_eq!(container.configs[0].name, "d");
        // As docker: what is not there need not go.
        update("--secret-rm nosuch", container).expect("nothing");
        assert_eq!(container.secrets.len(), 2);
        let error = update("--secret-add a --secret-add source=b,target=a", container);
        let error = error.expect_err("one file").to_string();
        assert!(
            error.starts_with("duplicate secret target for b"),
            "{error}"
        );
    }
}
