//! `weft secret …` and `weft config …`, in docker's words and layouts (docker/cli
//! `cli/command/{secret,config}`).

use std::fs::File;
use std::io::{self, Read};
use std::process::ExitCode;

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde_json::json;
use weft_client::{Client, Refused};
use weft_model::objects::{Payload, PayloadBytes, PayloadKind, PayloadSpec, Templating};

use crate::args::{PayloadCommand, PayloadCreateArgs};
use crate::commands::node_pretty::moment;
use crate::commands::rows::natural;
use crate::commands::{finish, paths, show, unique};
use crate::output::{Filters, Key, Listing, Match, Printer, capital_ago, shown};

/// Keys of `secret ls --filter` and `config ls --filter`.
const KEYS: [Key; 3] = [
    ("id", &[("ID", Match::Begins)]),
    ("label", &[("Labels", Match::Label)]),
    ("name", &[("Name", Match::Begins)]),
];

/// `weft secret …`, or `weft config …`.
pub(super) async fn run(
    client: &Client,
    kind: PayloadKind,
    command: PayloadCommand,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    match command {
        PayloadCommand::Create(args) => create(client, kind, args, out).await?,
        PayloadCommand::Ls { filter, format } => {
            let filters = Filters::of(&filter, &KEYS)?;
            let payloads: Vec<Payload> = client.get(paths::payloads(kind)).await?;
            let mut listing = listing(kind, payloads, Timestamp::now());
            listing.keep(&filters);
            out.listing(&listing, &format)?;
        }
        PayloadCommand::Inspect(args) if args.pretty() => {
            let mut refused = Vec::new();
            for name in &args.refs {
                match client.get::<Payload>(&paths::payload(kind, name)).await {
                    Ok(payload) => out.line(&pretty(&payload))?,
                    Err(error) if error.is::<Refused>() => refused.push(error),
                    Err(error) => return Err(error),
                }
            }
            out.flush()?;
            return finish(&refused);
        }
        PayloadCommand::Inspect(args) => {
            let mut found = Vec::new();
            for name in &args.refs {
                found.push(client.get(&paths::payload(kind, name)).await);
            }
            return show(&args, found, out);
        }
        PayloadCommand::Rm { refs } => {
            let mut refused = Vec::new();
            for name in &refs {
                match client.delete(&paths::payload(kind, name)).await {
                    Ok(()) => out.line(name)?,
                    Err(error) if error.is::<Refused>() => refused.push(error),
                    Err(error) => return Err(error),
                }
            }
            out.flush()?;
            return finish(&refused);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(
    client: &Client,
    kind: PayloadKind,
    args: PayloadCreateArgs,
    out: &mut Printer,
) -> anyhow::Result<()> {
    let spec = PayloadSpec {
        name: args.name,
        labels: unique("label", args.labels)?,
        data: read(kind, args.file.as_deref().unwrap_or_default())?,
        templating: args.template_driver.map(|name| Templating { name }),
    };
    let made: Payload = client.post(paths::payloads(kind), &spec).await?;
    out.line(made.id.as_str())?;
    Ok(())
}

/// The content of a file, or of standard input for `-`.
///
/// # Errors
/// It cannot be read, there is nothing in it, or more than one may hold.
fn read(kind: PayloadKind, file: &str) -> anyhow::Result<PayloadBytes> {
    let (from, data) = match file {
        "" => bail!("{kind} file is required: give a file, or - for standard input"),
        "-" => ("STDIN", content(kind, io::stdin().lock())),
        path => (path, File::open(path).and_then(|file| content(kind, file))),
    };
    let data = data.with_context(|| format!("error reading from {from}"))?;
    if data.is_empty() {
        bail!("error reading from {from}: data is empty; nothing was created");
    }
    let most = kind.max_bytes();
    if data.len() > most {
        bail!(
            "{kind} data must be larger than 0 and less than {most} bytes: {from} has more; nothing \
             was created"
        );
    }
    Ok(data)
}

/// One byte more than one may hold tells that there is too much.
fn content(kind: PayloadKind, from: impl Read) -> io::Result<PayloadBytes> {
    let most = kind.max_bytes().saturating_add(1);
    // With room for all of it: a vector that grows leaves parts of a secret behind.
    let mut bytes = Vec::with_capacity(most);
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    let done = from.take(most).read_to_end(&mut bytes);
    // Also what was read before an error is wiped.
    let bytes = PayloadBytes::from(bytes);
    done.map(|_| bytes)
}

/// `secret ls`, `config ls`: whole ids, as docker prints them.
fn listing(kind: PayloadKind, mut payloads: Vec<Payload>, now: Timestamp) -> Listing {
    let mut listing = Listing::new(
        &[
            ("ID", "ID"),
            ("Name", "NAME"),
            ("Driver", "DRIVER"),
            ("CreatedAt", "CREATED"),
            ("UpdatedAt", "UPDATED"),
            ("Labels", "LABELS"),
        ],
        match kind {
            PayloadKind::Secret => {
                "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.CreatedAt}}\t{{.UpdatedAt}}"
            }
            PayloadKind::Config => "{{.ID}}\t{{.Name}}\t{{.CreatedAt}}\t{{.UpdatedAt}}",
        },
        "ID",
    );
    payloads.sort_by(|a, b| natural(&a.spec.name, &b.spec.name));
    for payload in payloads {
        let labels = payload.spec.labels.iter();
        let labels: Vec<String> = labels
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let mut row = json!({
            "ID": payload.id,
            "Name": payload.spec.name,
            "Labels": labels.join(","),
            "CreatedAt": capital_ago(payload.meta.created_at, now),
            "UpdatedAt": capital_ago(payload.meta.updated_at, now),
        });
        if kind == PayloadKind::Secret {
            // There is none but the managers themselves.
            row["Driver"] = json!("");
        }
        listing.push(row);
    }
    listing
}

/// `inspect --pretty`: the columns of the one are not those of the other, as with docker.
fn pretty(payload: &Payload) -> String {
    let (id, name) = (shown(payload.id.as_str()), shown(&payload.spec.name));
    let mut lines = match payload.kind {
        PayloadKind::Secret => vec![
            format!("ID:              {id}"),
            format!("Name:              {name}"),
        ],
        PayloadKind::Config => vec![format!("ID:\t\t\t{id}"), format!("Name:\t\t\t{name}")],
    };
    if !payload.spec.labels.is_empty() {
        lines.push("Labels:".to_owned());
    }
    for (key, value) in &payload.spec.labels {
        lines.push(match value.as_str() {
            "" => format!(" - {}", shown(key)),
            value => format!(" - {}={}", shown(key), shown(value)),
        });
    }
    let (created, updated) = (
        moment(payload.meta.created_at),
        moment(payload.meta.updated_at),
    );
    match payload.kind {
        PayloadKind::Secret => {
            lines.push("Driver:            ".to_owned());
            lines.push(format!("Created at:        {created}"));
            lines.push(format!("Updated at:        {updated}"));
        }
        PayloadKind::Config => {
            lines.push(format!("Created at:            \t{created}"));
            lines.push(format!("Updated at:            \t{updated}"));
            lines.push("Data:".to_owned());
            let data = String::from_utf8_lossy(payload.spec.data.expose());
            lines.push(data.into_owned());
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write as _;

    use weft_model::objects::Meta;

    use super::*;
    use crate::args::{FilterArgs, FormatArgs};

    const ID: &str = "0123456789abcdefghijklmno";

    fn payload(kind: PayloadKind, name: &str, label: &str) -> Payload {
        Payload {
            id: ID.into(),
            kind,
            meta: Meta {
                created_at: 1_767_323_045_000,
                updated_at: 1_767_326_645_000,
                ..Meta::default()
            },
            spec: PayloadSpec {
                name: name.to_owned(),
                labels: BTreeMap::from([(label.to_owned(), "1".to_owned())]),
                data: b"a = 1\nb = 2\n".to_vec().into(),
                templating: None,
            },
        }
    }

    #[test]
    fn rows_are_dockers() {
        let now = Timestamp::from_millisecond(1_767_330_245_000).expect("a time");
        let rows = |kind| {
            let payloads = ["key-10", "key-9"].map(|name| payload(kind, name, name));
            listing(kind, payloads.to_vec(), now)
        };
        let whole = FormatArgs::default();
        let table = rows(PayloadKind::Secret).render(&whole).expect("a table");
        let id = ID;
        assert_eq!(
            table,
            format!(
                "\
ID                          NAME     DRIVER   CREATED       UPDATED
{id}   key-9             2 hours ago   About an hour ago
{id}   key-10            2 hours ago   About an hour ago
"
            )
        );
        let table = rows(PayloadKind::Config).render(&whole).expect("a table");
        let heading = "ID                          NAME     CREATED       UPDATED";
        assert_eq!(table.lines().next(), Some(heading));
        let mut listing = rows(PayloadKind::Config);
        let given = [("label", "key-9=1"), ("name", "key"), ("id", "0123")];
        let filter = FilterArgs {
            filters: given.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec(),
        };
        listing.keep(&Filters::of(&filter, &KEYS).expect("filters"));
        let format = FormatArgs {
            format: Some("json".to_owned()),
            quiet: false,
        };
        assert_eq!(
            listing.render(&format).expect("rows"),
            format!(
                "{{\"CreatedAt\":\"2 hours ago\",\"ID\":\"{id}\",\"Labels\":\"key-9=1\",\
                 \"Name\":\"key-9\",\"UpdatedAt\":\"About an hour ago\"}}\n"
            )
        );
    }

    #[test]
    fn a_secret_is_shown_without_its_content_and_a_config_with_it() {
        let text = pretty(&payload(PayloadKind::Secret, "key", "a"));
        assert_eq!(
            text,
            format!(
                "ID:              {ID}\nName:              key\nLabels:\n - a=1\nDriver:            \n\
                 Created at:        2026-01-02 03:04:05 +0000 utc\n\
                 Updated at:        2026-01-02 04:04:05 +0000 utc"
            )
        );
        let mut config = payload(PayloadKind::Config, "app", "a");
        config.spec.labels.clear();
        assert_eq!(
            pretty(&config),
            format!(
                "ID:\t\t\t{ID}\nName:\t\t\tapp\n\
                 Created at:            \t2026-01-02 03:04:05 +0000 utc\n\
                 Updated at:            \t2026-01-02 04:04:05 +0000 utc\nData:\na = 1\nb = 2\n"
            )
        );
    }

    #[test]
    fn files_are_read_as_far_as_they_may_reach() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let path = file.path().display().to_string();
        let error = read(PayloadKind::Secret, &path)
            .expect_err("empty")
            .to_string();
        assert!(
            error.starts_with(&format!("error reading from {path}: data is empty")),
            "{error}"
        );
        file.write_all(b"hunter2\n").expect("written");
        let data = read(PayloadKind::Secret, &path).expect("read");
        assert_eq!(data.expose(), b"hunter2\n", "the line end is a part of it");
        let most = PayloadKind::Secret.max_bytes();
        file.write_all(&vec![b'x'; most]).expect("written");
        let error = read(PayloadKind::Secret, &path).expect_err("too long");
        let error = error.to_string();
        assert!(
            error.starts_with("secret data must be larger than 0 and less than 512000 bytes"),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
        read(PayloadKind::Config, &path).expect("a config may be longer");
        let endless = content(PayloadKind::Config, io::repeat(b'x')).expect("read");
        assert_eq!(endless.len(), PayloadKind::Config.max_bytes() + 1);
        let error = read(PayloadKind::Config, "").expect_err("no file");
        assert!(error.to_string().starts_with("config file is required"));
        let error = read(PayloadKind::Config, "/nonexistent/x").expect_err("no file");
        let error = format!("{error:#}");
        assert!(
            error.starts_with("error reading from /nonexistent/x: "),
            "{error}"
        );
    }
}
