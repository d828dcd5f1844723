//! `weft swarm backup` and `weft swarm restore`: the file is on this side of the socket.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use weft_client::{Client, segment};
use weft_model::api;
use weft_model::backup::{BackupHeader, MAX_BACKUP, UNLOCK_KEY_HEADER};
use weft_sys::replace_file::{Outlives, PRIVATE, replace_file, sync_folder_of};
use weft_sys::terminal::read_secret;

use crate::args::RestoreArgs;
use crate::output::{Printer, complain};

/// A new file, readable by its owner only; nothing is left of it when it cannot be written.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE)
        .open(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // What counts is why it was not written.
        drop(std::fs::remove_file(path));
        return Err(error);
    }
    sync_folder_of(path)
}

fn write(path: &Path, bytes: &[u8], force: bool) -> anyhow::Result<()> {
    let written = if force {
        replace_file(path, bytes, PRIVATE, Outlives::Power)
    } else {
        write_new(path, bytes)
    };
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => bail!(
            "{} is there already, and was not changed; choose another name, or replace it with --force",
            path.display()
        ),
        written => written.with_context(|| format!("cannot write {}", path.display())),
    }
}

/// `weft swarm backup`
pub(super) async fn backup(
    client: &Client,
    path: &Path,
    force: bool,
    out: &mut Printer,
) -> anyhow::Result<()> {
    // Before the manager has any work with it.
    ensure!(
        force || !path.exists(),
        "{} is there already, and was not changed; choose another name, or replace it with --force",
        path.display()
    );
    let mut pieces = client.stream("/v1/swarm/backup").await?;
    let mut file = Vec::new();
    while let Some(piece) = pieces.next().await? {
        ensure!(
            file.len() + piece.len() <= MAX_BACKUP,
            "weftd sends more than {MAX_BACKUP} bytes; nothing was written"
        );
        file.extend_from_slice(&piece);
    }
    let (header, _) = BackupHeader::read(&file).context(
        "weftd's answer has an unexpected form: are weft and weftd of the same version?",
    )?;
    write(path, &file, force)?;
    out.line(&format!(
        "Backup of the swarm written to {}: {} bytes.",
        path.display(),
        file.len()
    ))?;
    if header.sealed {
        out.line("It opens with the unlock key of today: `weft swarm unlock-key` prints it.")?;
    } else {
        complain(
            "weft: warning: the file holds the key of the swarm's certificate authority and the join \
             tokens in clear: whoever reads it can join as a manager. Keep it as you keep passwords, or \
             turn autolock on (`weft swarm update --autolock=true`) and make another one.",
        );
    }
    Ok(())
}

/// The path with what was given.
fn restore_path(args: &RestoreArgs) -> String {
    let given = [
        ("advertise_addr", &args.advertise_addr),
        ("listen_addr", &args.listen_addr),
        ("data_path_addr", &args.data_path_addr),
    ];
    let query: Vec<String> = given
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", segment(value.as_deref()?))))
        .collect();
    format!("/v1/swarm/restore?{}", query.join("&"))
}

/// `weft swarm restore`
pub(super) async fn restore(
    client: &Client,
    args: RestoreArgs,
    out: &mut Printer,
) -> anyhow::Result<()> {
    let shown = args.file.display();
    let length = std::fs::metadata(&args.file).with_context(|| format!("cannot read {shown}"))?;
    ensure!(
        length.len() <= MAX_BACKUP as u64,
        "{shown} has more than {MAX_BACKUP} bytes, which no backup of a swarm has"
    );
    let file = std::fs::read(&args.file).with_context(|| format!("cannot read {shown}"))?;
    let (header, _) = match BackupHeader::read(&file) {
        Ok(read) => read,
        Err(error) => bail!("{shown} cannot be restored: {error}"),
    };
    let key = if header.sealed {
        Some(read_secret(
            "The backup is sealed. Please enter its unlock key: ",
        )?)
    } else {
        None
    };
    let headers: Vec<(&str, &str)> = key
        .iter()
        .map(|key| (UNLOCK_KEY_HEADER, key.as_str()))
        .collect();
    let reply: api::SwarmRestoreReply = client
        .upload(&restore_path(&args), &headers, file.into())
        .await?;
    out.line(&format!(
        "Swarm restored: current node ({}) is now its only manager.\n\nIt has {} networks, {} services \
         and {} other nodes.\n",
        reply.node_id, reply.networks, reply.services, reply.nodes
    ))?;
    out.line(&next_steps(&reply))?;
    Ok(())
}

/// What is left to do, ending in a line feed.
fn next_steps(reply: &api::SwarmRestoreReply) -> String {
    format!(
        "Next:\n\
         - Start no manager of the swarm as it was before: there would be two swarms. On each, run\n\
         \x20   weft swarm leave --force\n\
         - Workers come back by themselves where they know {addr}; `weft node ls` shows it. On each\n\
         \x20 other one, run\n\
         \x20   weft swarm leave --force\n\
         \x20   weft swarm join --token {token} {addr}\n\
         - If the root was replaced after the backup (weft swarm ca --rotate), the root and join tokens of\n\
         \x20 before count again, and nodes with newer certificates have to join: rotate once more\n\
         - Forget nodes that are gone: weft node rm --force NODE\n\
         - Add managers: weft swarm join-token manager\n",
        addr = reply.manager_addr,
        token = reply.worker_token
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_private_and_replaced_only_by_force() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("swarm.backup");
        write(&path, b"one", false).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = write(&path, b"two", false).unwrap_err().to_string();
        assert!(error.contains("--force"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        write(&path, b"two", true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        let nowhere = dir.path().join("no/folder");
        let error = format!("{:#}", write(&nowhere, b"", false).unwrap_err());
        assert!(
            error.contains("cannot write") && error.contains("No such"),
            "{error}"
        );
    }

    #[test]
    fn the_next_steps_name_a_root_that_comes_back() {
        let reply = api::SwarmRestoreReply {
            node_id: "n1".into(),
            worker_token: "SWMTKN-1-x-y".to_owned(),
            manager_addr: "10.77.0.1:2377".to_owned(),
            nodes: 2,
            networks: 1,
            services: 0,
        };
        let text = next_steps(&reply);
        assert!(text.contains("weft swarm join --token SWMTKN-1-x-y 10.77.0.1:2377"));
        let note = "\n- If the root was replaced after the backup (weft swarm ca --rotate), the root and \
                    join tokens of\n  before count again, and nodes with newer certificates have to \
                    join: rotate once more\n- Forget";
        assert!(text.contains(note), "{text}");
    }

    #[test]
    fn what_was_given_is_asked_for() {
        let mut args = RestoreArgs {
            file: "f".into(),
            advertise_addr: None,
            listen_addr: None,
            data_path_addr: None,
        };
        assert_eq!(restore_path(&args), "/v1/swarm/restore?");
        args.advertise_addr = Some("[fd00::1]:2377".to_owned());
        args.data_path_addr = Some("eth0".to_owned());
        assert_eq!(
            restore_path(&args),
            "/v1/swarm/restore?advertise_addr=%5Bfd00%3A%3A1%5D%3A2377&data_path_addr=eth0"
        );
    }
}
