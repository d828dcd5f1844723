//! `weft image …` (docker/cli `cli/command/image`)

use std::fs::File;
use std::io::{ErrorKind, IsTerminal as _, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::Value;
use weft_client::{Client, Refused, segment};
use weft_model::api::{ImageProgress, ImageRemoved, ImageSummary, ImagesPruned};

use super::image_pull::Lines;
use super::{finish, image_pull, image_rows, paths};
use crate::args::{
    FormatArgs, ImageCommand, ImageInspectArgs, ImageListArgs, ImageLoadArgs, ImagePruneArgs,
    ImageRemoveArgs, ImageSaveArgs,
};
use crate::output::{Printer, render_inspect, size};

/// Bytes of a piece of an archive on its way to the node.
const PIECE: usize = 256 << 10;

pub(super) async fn run(
    client: &Client,
    command: ImageCommand,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    match command {
        ImageCommand::Pull(args) => image_pull::run(client, &args, out).await?,
        ImageCommand::Ls(args) => list(client, args, out).await?,
        ImageCommand::Inspect(args) => return inspect(client, &args, out).await,
        ImageCommand::Rm(args) => return remove(client, &args, out).await,
        ImageCommand::Load(args) => load(client, &args, out).await?,
        ImageCommand::Save(args) => save(client, &args, out).await?,
        ImageCommand::Prune(args) => prune(client, &args, out).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &Client, args: ImageListArgs, out: &mut Printer) -> anyhow::Result<()> {
    let wanted = image_rows::Wanted::of(&args)?;
    let images: Vec<ImageSummary> = client.get("/v1/images/json").await?;
    let listing = image_rows::images(&images, &wanted);
    out.listing(&listing, &args.format)
}

async fn inspect(
    client: &Client,
    args: &ImageInspectArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in &args.refs {
        let path = format!("{}/json", paths::image(name));
        match client.get::<Value>(&path).await {
            Ok(image) => found.push(image),
            Err(error) if error.is::<Refused>() => missing.push(error),
            Err(error) => return Err(error),
        }
    }
    let format = FormatArgs {
        format: args.format.clone(),
        quiet: false,
    };
    out.text(&render_inspect(&found, &format)?)?;
    finish(&missing)
}

async fn remove(
    client: &Client,
    args: &ImageRemoveArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let mut refused = Vec::new();
    for name in &args.refs {
        let path = format!("{}?force={}", paths::image(name), args.force);
        match client.delete_for::<Vec<ImageRemoved>>(&path).await {
            Ok(removed) => tell(&removed, out)?,
            Err(error) if error.is::<Refused>() => refused.push(error),
            Err(error) => return Err(error),
        }
    }
    finish(&refused)
}

fn tell(removed: &[ImageRemoved], out: &mut Printer) -> std::io::Result<()> {
    for step in removed {
        if let Some(name) = &step.untagged {
            out.line(&format!("Untagged: {name}"))?;
        }
        if let Some(id) = &step.deleted {
            out.line(&format!("Deleted: {id}"))?;
        }
    }
    Ok(())
}

async fn load(client: &Client, args: &ImageLoadArgs, out: &mut Printer) -> anyhow::Result<()> {
    let mut archive: Box<dyn Read> = match &args.input {
        Some(path) => {
            let file = File::open(path);
            Box::new(file.with_context(|| format!("cannot open {}", path.display()))?)
        }
        None if std::io::stdin().is_terminal() => {
            bail!("requested load from stdin, but stdin is empty: name an archive with --input")
        }
        None => Box::new(std::io::stdin()),
    };
    let first = piece(&mut archive)?;
    if first.is_empty() {
        bail!("the archive is empty: write one with `docker save` or `weft image save`");
    }
    let first_len = first.len() as u64;
    let (say, mut answer) = client.converse("/v1/images/load", first.into()).await?;
    let mut lines = Lines::default();
    let mut told = Vec::new();
    let (mut sent_bytes, mut shown) = (first_len, None);
    let shows = out.is_terminal() && !args.quiet;
    // The node may say why it takes no more, while there is more.
    loop {
        let text = format!("Loading {}", size(sent_bytes));
        if shows && shown.as_ref() != Some(&text) {
            if shown.is_some() {
                out.redraw(1)?;
            }
            out.text(&format!("{text}\n"))?;
            shown = Some(text);
        }
        let more = piece(&mut archive)?;
        if more.is_empty() {
            break;
        }
        sent_bytes += more.len() as u64;
        tokio::select! {
            sent = say.send(more.into()) => {
                if sent.is_err() {
                    break;
                }
            }
            answered = answer.next() => {
                let Some(answered) = answered? else { break };
                told.extend(lines.add::<ImageProgress>(&answered)?);
                break;
            }
        }
    }
    drop(say);
    while let Some(answered) = answer.next().await? {
        told.extend(lines.add::<ImageProgress>(&answered)?);
    }
    if told.is_empty() {
        bail!("the node says nothing of the archive: its log says why");
    }
    for line in told {
        if !line.error.is_empty() {
            bail!("{}", line.error);
        }
        let text = line.stream.trim_end();
        if !text.is_empty() {
            out.line(text)?;
        }
    }
    Ok(())
}

/// The next part of an archive; nothing at its end.
fn piece(archive: &mut dyn Read) -> anyhow::Result<Vec<u8>> {
    let mut piece = Vec::with_capacity(PIECE);
    let read = archive.take(PIECE as u64).read_to_end(&mut piece);
    read.context("cannot read the archive")?;
    Ok(piece)
}

async fn save(client: &Client, args: &ImageSaveArgs, out: &mut Printer) -> anyhow::Result<()> {
    if args.output.is_none() && out.is_terminal() {
        bail!("cowardly refusing to save to a terminal. Use the -o flag or redirect");
    }
    let names: Vec<String> = args.refs.iter().map(|name| segment(name)).collect();
    let path = format!("/v1/images/get?names={}", names.join(","));
    let file = args.output.as_deref().map(regular).transpose()?;
    let mut archive = client.stream(&path).await?;
    let Some(file) = &file else {
        while let Some(piece) = archive.next().await? {
            out.bytes(&piece)?;
        }
        return Ok(());
    };
    // Beside it first: what is there stays until all of the new one is.
    let unfinished = file.with_file_name(format!(
        ".{}.{}.unfinished",
        file.file_name().unwrap_or_default().to_string_lossy(),
        std::process::id()
    ));
    let written = write(&mut archive, &unfinished).await;
    let written = written.and_then(|()| Ok(std::fs::rename(&unfinished, file)?));
    if written.is_err() {
        // What counts is why it was not written.
        drop(std::fs::remove_file(&unfinished));
    }
    written.with_context(|| format!("cannot write {}", file.display()))
}

/// The file that an archive goes to: that which a link names, as the link itself stays.
///
/// # Errors
/// There is something else, such as a device, which would be replaced.
fn regular(file: &Path) -> anyhow::Result<PathBuf> {
    let failed = || format!("cannot write {}", file.display());
    match std::fs::metadata(file) {
        Ok(found) if !found.is_file() => bail!(
            "cannot write {}: it is no regular file; leave --output out to write elsewhere",
            file.display()
        ),
        Ok(_) => file.canonicalize().with_context(failed),
        // Through a link to nothing there is no way to tell where it should be.
        Err(error) if error.kind() == ErrorKind::NotFound && !file.is_symlink() => {
            Ok(file.to_owned())
        }
        Err(error) => Err(error).with_context(failed),
    }
}

async fn write(archive: &mut weft_client::Pieces, path: &Path) -> anyhow::Result<()> {
    let mut file = File::create_new(path)?;
    while let Some(piece) = archive.next().await? {
        file.write_all(&piece)?;
    }
    file.sync_all()?;
    Ok(())
}

async fn prune(client: &Client, args: &ImagePruneArgs, out: &mut Printer) -> anyhow::Result<()> {
    if !args.force {
        let what = if args.all {
            "WARNING! This will remove all images of this node without at least one task associated to them."
        } else {
            "WARNING! This will remove all dangling images of this node."
        };
        out.text(&format!(
            "{what}\nAre you sure you want to continue? [y/N] "
        ))?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !answer.trim().eq_ignore_ascii_case("y") {
            return Ok(());
        }
    }
    let path = format!("/v1/images/prune?all={}", args.all);
    let pruned: ImagesPruned = client.post(&path, &Value::Null).await?;
    if !pruned.images_deleted.is_empty() {
        out.line("Deleted Images:")?;
        for step in &pruned.images_deleted {
            let words = [("untagged", &step.untagged), ("deleted", &step.deleted)];
            for (word, what) in words {
                if let Some(what) = what {
                    out.line(&format!("{word}: {what}"))?;
                }
            }
        }
        out.line("")?;
    }
    let space = size(pruned.space_reclaimed);
    out.line(&format!("Total reclaimed space: {space}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_replaces_files_alone_and_no_links() {
        let dir = tempfile::tempdir().expect("a folder");
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        regular(&link).expect_err("a link to nothing");
        assert_eq!(regular(&file).expect("a new one"), file);
        std::fs::write(&file, "old").expect("written");
        let found = regular(&link).expect("a file");
        assert_eq!(found, file.canonicalize().expect("there"));
        for other in [Path::new("/dev/null"), dir.path()] {
            let error = regular(other).expect_err("no file").to_string();
            assert!(error.contains("it is no regular file"), "{error}");
        }
    }
}
