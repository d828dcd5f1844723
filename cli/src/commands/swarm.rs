//! `weft swarm …`

mod backup;
mod lock;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use weft_client::Client;
use weft_model::api;
use weft_model::objects::Role;

use super::{root, warn};
use crate::args::{
    JoinTokenArgs, RoleArg, SwarmCommand, SwarmInitArgs, SwarmJoinArgs, SwarmUpdateArgs,
};
use crate::output::Printer;

pub(super) async fn run(
    client: &Client,
    command: SwarmCommand,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    match command {
        SwarmCommand::Init(args) => init(client, args, out).await?,
        SwarmCommand::Join(args) => join(client, args, out).await?,
        SwarmCommand::JoinToken(args) => join_token(client, &args, out).await?,
        SwarmCommand::Ca(args) => root::run(client, &args, out).await?,
        SwarmCommand::Update(args) => update(client, &args, out).await?,
        SwarmCommand::Unlock => lock::unlock(client).await?,
        SwarmCommand::UnlockKey(args) => lock::unlock_key(client, &args, out).await?,
        SwarmCommand::Backup { file, force } => backup::backup(client, &file, force, out).await?,
        SwarmCommand::Restore(args) => backup::restore(client, args, out).await?,
        SwarmCommand::Leave { force, demote } => {
            let request = api::SwarmLeave { force, demote };
            let left: api::SwarmLeft = client.post("/v1/swarm/leave", &request).await?;
            out.line("Node left the swarm.")?;
            warn(&left.warnings);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn init(client: &Client, args: SwarmInitArgs, out: &mut Printer) -> anyhow::Result<()> {
    let request = api::SwarmInit {
        advertise_addr: args.advertise_addr,
        listen_addr: args.listen_addr,
        data_path_addr: args.data_path_addr,
        data_path_port: args.data_path_port,
        default_addr_pool: args.default_addr_pool,
        default_addr_pool_mask_length: args.default_addr_pool_mask_length,
        force_new_cluster: args.force_new_cluster,
        autolock: args.autolock,
        availability: args.availability,
    };
    let reply: api::SwarmInitReply = client.post("/v1/swarm/init", &request).await?;
    out.line(&format!(
        "Swarm initialized: current node ({}) is now a manager.\n",
        reply.node_id
    ))?;
    out.line(&how_to_join(
        RoleArg::Worker,
        &reply.worker_token,
        &reply.manager_addr,
    ))?;
    out.line("To add a manager to this swarm, run 'weft swarm join-token manager' and follow the instructions.\n")?;
    if let Some(key) = &reply.unlock_key {
        out.line(&lock::how_to_unlock(key))?;
    }
    Ok(())
}

async fn join(client: &Client, args: SwarmJoinArgs, out: &mut Printer) -> anyhow::Result<()> {
    let request = api::SwarmJoin {
        token: args.token,
        remote_addr: args.remote,
        advertise_addr: args.advertise_addr,
        listen_addr: args.listen_addr,
        data_path_addr: args.data_path_addr,
        availability: args.availability,
    };
    let reply: api::SwarmJoinReply = client.post("/v1/swarm/join", &request).await?;
    let role = match reply.role {
        Role::Worker => "worker",
        Role::Manager => "manager",
    };
    out.line(&format!("This node joined a swarm as a {role}."))?;
    warn(&reply.warnings);
    Ok(())
}

async fn join_token(
    client: &Client,
    args: &JoinTokenArgs,
    out: &mut Printer,
) -> anyhow::Result<()> {
    let role = args.role.as_str();
    let path = format!("/v1/swarm/token/{role}");
    let reply: api::JoinToken = if args.rotate {
        client.post(&format!("{path}/rotate"), &()).await?
    } else {
        client.get(&path).await?
    };
    if args.quiet {
        out.line(&reply.token)?;
        return Ok(());
    }
    if args.rotate {
        out.line(&format!("Successfully rotated {role} join token.\n"))?;
    }
    out.line(&how_to_join(args.role, &reply.token, &reply.manager_addr))?;
    Ok(())
}

async fn update(client: &Client, args: &SwarmUpdateArgs, out: &mut Printer) -> anyhow::Result<()> {
    let request = api::SwarmUpdate {
        autolock: args.autolock,
        node_cert_expiry: args.cert_expiry.map(Duration::from_millis),
        task_history_retention_limit: args.task_history_limit,
        heartbeat_period: args.dispatcher_heartbeat.map(Duration::from_millis),
    };
    if request == api::SwarmUpdate::default() {
        bail!(
            "nothing to change: give --autolock, --cert-expiry, --dispatcher-heartbeat or \
             --task-history-limit"
        );
    }
    let locks = args.autolock == Some(true) && lock::key(client).await?.is_empty();
    client.post_done("/v1/swarm/update", &request).await?;
    out.line("Swarm updated.")?;
    if locks {
        out.line(&lock::how_to_unlock(&lock::key(client).await?))?;
    }
    Ok(())
}

/// The command that a new node has to run, in docker's frame, ending in a line feed.
fn how_to_join(role: RoleArg, token: &str, addr: &str) -> String {
    format!(
        "To add a {} to this swarm, run the following command:\n\n    weft swarm join --token {token} {addr}\n",
        role.as_str()
    )
}
