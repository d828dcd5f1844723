//! Whether managers lock what they keep on disk, and the key that unlocks them.

use anyhow::bail;
use weft_client::Client;
use weft_model::api;
use weft_sys::terminal::read_secret;

use crate::args::UnlockKeyArgs;
use crate::output::Printer;

const KEY: &str = "/v1/swarm/unlock-key";

/// The key and what it is for, in docker's frame.
pub(super) fn how_to_unlock(key: &str) -> String {
    format!(
        "To unlock a swarm manager after it restarts, run the `weft swarm unlock`\ncommand and \
         provide the following key:\n\n    {key}\n\nRemember to store this key in a password \
         manager, since without it you\nwill not be able to restart the manager."
    )
}

/// The key that unlocks managers; empty where they are not locked.
pub(super) async fn key(client: &Client) -> anyhow::Result<String> {
    let reply: api::UnlockKeyReply = client.get(KEY).await?;
    Ok(reply.unlock_key)
}

pub(super) async fn unlock(client: &Client) -> anyhow::Result<()> {
    // Only a node that is locked asks for its key.
    let info: api::Info = client.get("/v1/info").await?;
    match info.swarm {
        api::SwarmState::Inactive => bail!("This node is not part of a swarm"),
        api::SwarmState::Active(_) => bail!("swarm is not locked"),
        api::SwarmState::Locked(_) => {}
    }
    let request = api::SwarmUnlock {
        unlock_key: read_secret("Please enter unlock key: ")?,
    };
    client.post_done("/v1/swarm/unlock", &request).await
}

pub(super) async fn unlock_key(
    client: &Client,
    args: &UnlockKeyArgs,
    out: &mut Printer,
) -> anyhow::Result<()> {
    let reply: api::UnlockKeyReply = if args.rotate {
        client.post(&format!("{KEY}/rotate"), &()).await?
    } else {
        client.get(KEY).await?
    };
    if reply.unlock_key.is_empty() {
        bail!("no unlock key is set");
    }
    if args.quiet {
        out.line(&reply.unlock_key)?;
        return Ok(());
    }
    if args.rotate {
        out.line("Successfully rotated manager unlock key.\n")?;
    }
    out.line(&how_to_unlock(&reply.unlock_key))?;
    Ok(())
}
