//! `weft node …`

use std::process::ExitCode;

use anyhow::bail;
use weft_client::{Client, Refused, segment};
use weft_model::api::{Info, NodeRemove, NodeRow, NodeUpdate, NodeUpdated, SwarmState};
use weft_model::objects::Role;

use crate::args::{NodeCommand, NodeUpdateArgs};
use crate::commands::{finish, node_pretty, rows, show, tasks, unique, warn};
use crate::output::{Filters, Key, Match, Printer};

/// Keys of `node ls --filter`.
const KEYS: [Key; 5] = [
    ("id", &[("ID", Match::Begins)]),
    ("name", &[("Hostname", Match::Begins)]),
    ("role", &[("Role", Match::Is)]),
    ("node.label", &[("Labels", Match::Label)]),
    ("membership", &[("Membership", Match::Is)]),
];

pub(super) async fn run(
    client: &Client,
    command: NodeCommand,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    match command {
        NodeCommand::Ls { filter, format } => {
            check_filters(&filter.filters)?;
            let filters = Filters::of(&filter, &KEYS)?;
            let nodes: Vec<NodeRow> = client.get("/v1/nodes").await?;
            let mut listing = rows::nodes(nodes);
            listing.keep(&filters);
            out.listing(&listing, &format)?;
            Ok(ExitCode::SUCCESS)
        }
        NodeCommand::Ps(args) => {
            let mut paths = Vec::new();
            for name in &args.refs {
                paths.push(format!("{}/tasks", path(client, name).await?));
            }
            tasks::list(client, &paths, &args.list, out).await
        }
        NodeCommand::Inspect(args) if args.pretty() => {
            let mut found = Vec::new();
            for name in &args.refs {
                found.push(client.get(&path(client, name).await?).await);
            }
            node_pretty::show(found, out)
        }
        NodeCommand::Inspect(args) => {
            let mut found = Vec::new();
            for name in &args.refs {
                found.push(client.get(&path(client, name).await?).await);
            }
            show(&args, found, out)
        }
        NodeCommand::Update(args) => update(client, &args, out).await,
        NodeCommand::Promote { refs } => make(client, &to(Role::Manager), &refs, out).await,
        NodeCommand::Demote { force, refs } => {
            let request = NodeUpdate {
                force,
                ..to(Role::Worker)
            };
            make(client, &request, &refs, out).await
        }
        NodeCommand::Rm { force, refs } => {
            let mut refused = Vec::new();
            for name in &refs {
                let path = format!("/v1/nodes/{}", segment(name));
                match client.delete_with(&path, &NodeRemove { force }).await {
                    Ok(()) => out.line(name)?,
                    Err(error) if error.is::<Refused>() => refused.push(error),
                    Err(error) => return Err(error),
                }
            }
            finish(&refused)
        }
    }
}

async fn update(
    client: &Client,
    args: &NodeUpdateArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let request = NodeUpdate {
        availability: args.availability,
        role: args.role.map(Into::into),
        force: false,
        advertise_addr: args.advertise_addr,
        label_add: unique("label", args.label_add.iter().cloned())?,
        label_rm: args.label_rm.clone(),
    };
    if request == NodeUpdate::default() {
        bail!(
            "nothing to change: give --availability, --role, --label-add, --label-rm or \
             --advertise-addr"
        );
    }
    let mut refused = Vec::new();
    for name in &args.refs {
        let path = format!("{}/update", path(client, name).await?);
        match client.post::<_, NodeUpdated>(&path, &request).await {
            Ok(updated) => {
                out.line(name)?;
                warn(&updated.warnings);
            }
            Err(error) if error.is::<Refused>() => refused.push(error),
            Err(error) => return Err(error),
        }
    }
    finish(&refused)
}

fn to(role: Role) -> NodeUpdate {
    NodeUpdate {
        role: Some(role),
        ..NodeUpdate::default()
    }
}

/// `node promote` and `node demote`, in docker's words.
async fn make(
    client: &Client,
    request: &NodeUpdate,
    refs: &[String],
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let mut refused = Vec::new();
    for name in refs {
        match make_one(client, request, name, out).await {
            Ok(()) => {}
            Err(error) if error.is::<Refused>() => refused.push(error),
            Err(error) => return Err(error),
        }
    }
    finish(&refused)
}

async fn make_one(
    client: &Client,
    request: &NodeUpdate,
    name: &str,
    out: &mut Printer,
) -> anyhow::Result<()> {
    let path = path(client, name).await?;
    let before: NodeRow = client.get(&path).await?;
    let is_so = Some(before.node.spec.role) == request.role;
    let updated: NodeUpdated = client.post(&format!("{path}/update"), request).await?;
    out.line(&match (request.role == Some(Role::Manager), is_so) {
        (true, true) => format!("Node {name} is already a manager."),
        (false, true) => format!("Node {name} is already a worker."),
        (true, false) => format!("Node {name} promoted to a manager in the swarm."),
        (false, false) => format!("Manager {name} demoted in the swarm."),
    })?;
    warn(&updated.warnings);
    Ok(())
}

/// Refuses what would show no node, or every one, whatever was meant.
fn check_filters(filters: &[(String, String)]) -> anyhow::Result<()> {
    for (key, value) in filters {
        let is = |words: [&str; 2]| words.contains(&value.to_lowercase().as_str());
        match key.as_str() {
            // Docker's are of the daemon, and weftd has none.
            "label" => bail!(
                "invalid filter 'label': weftd has no labels of its own; node.label={value} asks for \
                 those of `weft node update --label-add`"
            ),
            "role" if !is(["manager", "worker"]) => {
                bail!("Invalid role filter: '{value}'; write role=manager or role=worker")
            }
            "membership" if !is(["accepted", "pending"]) => bail!(
                "Invalid membership filter: '{value}'; write membership=accepted or \
                 membership=pending"
            ),
            _ => {}
        }
    }
    Ok(())
}

/// Path of a node in the API; `self` is the one that answers.
async fn path(client: &Client, name: &str) -> anyhow::Result<String> {
    let id = match name {
        "self" => own_id(client).await?,
        other => other.to_owned(),
    };
    Ok(format!("/v1/nodes/{}", segment(&id)))
}

async fn own_id(client: &Client) -> anyhow::Result<String> {
    let info: Info = client.get("/v1/info").await?;
    match info.swarm {
        SwarmState::Active(swarm) | SwarmState::Locked(swarm) => Ok(swarm.node_id.0),
        SwarmState::Inactive => bail!(
            "This node is not part of a swarm. Use \"weft swarm init\" or \"weft swarm join\" and try again."
        ),
    }
}
