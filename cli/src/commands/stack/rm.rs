//! `weft stack rm`: services, secrets, configs and networks by their label, in docker's order
//! (docker/cli `cli/command/stack/swarm/remove.go`).

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use hyper::StatusCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use weft_client::{Client, Refused, segment};
use weft_model::api::{ServiceDetail, TaskRow};
use weft_model::id::{NetworkId, NodeId, ServiceId};
use weft_model::objects::{Network, PayloadKind};

use super::current::{payload_path, payloads, stack_of};
use crate::args::StackRmArgs;
use crate::commands::converge::is_leaving;
use crate::commands::paths;
use crate::output::{Printer, complain};

/// Time between two looks.
const POLL: Duration = Duration::from_millis(200);

/// What takes longer is told.
const SILENCE: Duration = Duration::from_secs(2);

/// `weft stack rm`
pub(super) async fn rm(
    client: &Client,
    args: &StackRmArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let waits = args.detach != Some(true);
    let mut failed = false;
    let mut endings = Vec::new();
    for stack in &args.stacks {
        let mut parts = Parts::of(client, stack).await?;
        let mut ending = Ending::of(stack, &parts);
        if parts.removable().next().is_none() {
            // What was removed before may still be on its way.
            if !waits || ending.networks.is_empty() {
                complain(&format!("Nothing found in stack: {stack}"));
                continue;
            }
        } else if waits {
            ending.note_nodes(client, &parts).await?;
        }
        let refused = parts.remove(client, &mut ending, out).await?;
        if !refused.is_empty() {
            for (what, error) in &refused {
                complain(&format!("weft: Failed to remove {what}: {error:#}"));
            }
            complain(&format!(
                "weft: Failed to remove some resources from stack: {stack}; run the same command again \
                 when nothing else uses them"
            ));
            failed = true;
        }
        endings.push(ending);
    }
    if waits {
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            ended = wait_for(client, &endings) => ended?,
            _ = interrupt.recv() => complain(
                "Operation continuing in background: tasks end, and networks go with the last of them.",
            ),
        }
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// DELETE of what may be gone already.
///
/// # Errors
/// The node's.
pub(super) async fn remove(client: &Client, path: &str) -> anyhow::Result<()> {
    match client.delete(path).await {
        Err(error) if is_gone(&error) => Ok(()),
        done => done,
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<Refused>();
    refused.is_some_and(|refused| refused.status == StatusCode::NOT_FOUND)
}

/// A thing to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    /// `service vote_web`
    what: String,
    path: String,
    /// Of a service.
    service: Option<ServiceId>,
    /// Of a network.
    network: Option<NetworkId>,
}

/// What a stack has.
#[derive(Debug, Clone, Default)]
struct Parts {
    services: Vec<ServiceId>,
    /// Services, secrets, configs, networks; by name in each.
    parts: Vec<Part>,
    /// Networks that were removed before.
    ending: BTreeSet<NetworkId>,
}

impl Parts {
    async fn of(client: &Client, stack: &str) -> anyhow::Result<Self> {
        let services: Vec<ServiceDetail> = client.get("/v1/services").await?;
        let mut found = Self::default();
        let mut of_services = Vec::new();
        for detail in services {
            let service = detail.service;
            if service.spec.stack() == Some(stack) {
                of_services.push(Part {
                    what: format!("service {}", service.spec.name),
                    path: paths::service(service.id.as_str()),
                    service: Some(service.id.clone()),
                    network: None,
                });
                found.services.push(service.id);
            }
        }
        found.add(of_services);
        for kind in [PayloadKind::Secret, PayloadKind::Config] {
            let of_kind = payloads(client, kind).await?.into_iter();
            let of_kind = of_kind.filter(|there| stack_of(&there.spec.labels) == Some(stack));
            let of_kind = of_kind.map(|there| Part {
                what: format!("{kind} {}", there.spec.name),
                path: payload_path(kind, &there.id),
                service: None,
                network: None,
            });
            found.add(of_kind.collect());
        }
        let networks: Vec<Network> = client.get("/v1/networks").await?;
        let mut of_networks = Vec::new();
        for network in networks {
            if stack_of(&network.spec.labels) != Some(stack) {
                continue;
            }
            if network.ending {
                found.ending.insert(network.id);
                continue;
            }
            of_networks.push(Part {
                what: format!("network {}", network.spec.name),
                path: paths::network(network.id.as_str()),
                service: None,
                network: Some(network.id),
            });
        }
        found.add(of_networks);
        Ok(found)
    }

    fn add(&mut self, mut parts: Vec<Part>) {
        parts.sort_by(|a, b| a.what.cmp(&b.what));
        self.parts.append(&mut parts);
    }

    fn removable(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter()
    }

    /// Removes them all; what was refused is told, and the rest is removed all the same.
    async fn remove(
        &mut self,
        client: &Client,
        ending: &mut Ending,
        out: &mut Printer,
    ) -> anyhow::Result<Vec<(String, anyhow::Error)>> {
        let mut refused = Vec::new();
        for part in std::mem::take(&mut self.parts) {
            out.line_on_the_way(&format!("Removing {}", part.what))?;
            match remove(client, &part.path).await {
                Ok(()) => ending.networks.extend(part.network),
                Err(error) if error.is::<Refused>() => {
                    // Its tasks go on.
                    ending
                        .services
                        .retain(|id| part.service.as_ref() != Some(id));
                    refused.push((part.what, error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(refused)
    }
}

/// What is waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ending {
    stack: String,
    services: BTreeSet<ServiceId>,
    /// Where tasks of them were.
    nodes: BTreeSet<NodeId>,
    networks: BTreeSet<NetworkId>,
}

impl Ending {
    fn of(stack: &str, parts: &Parts) -> Self {
        Self {
            stack: stack.to_owned(),
            services: parts.services.iter().cloned().collect(),
            nodes: BTreeSet::new(),
            networks: parts.ending.clone(),
        }
    }

    /// Of a service that is gone nobody can ask for its tasks, but of the nodes that they are on.
    async fn note_nodes(&mut self, client: &Client, parts: &Parts) -> anyhow::Result<()> {
        for service in &parts.services {
            let tasks: Vec<TaskRow> = match client.get(&paths::tasks(service.as_str())).await {
                Err(error) if is_gone(&error) => continue,
                tasks => tasks?,
            };
            let nodes = tasks.into_iter().filter_map(|row| row.task.node);
            self.nodes.extend(nodes);
        }
        Ok(())
    }

    /// Tasks among these that are still to end.
    fn tasks_among(&self, rows: &[TaskRow]) -> usize {
        let rows = rows.iter().filter(|row| is_leaving(row));
        rows.filter(|row| self.services.contains(&row.task.service))
            .count()
    }

    /// Networks among these that are still there.
    fn networks_among(&self, networks: &[Network]) -> usize {
        let networks = networks.iter();
        networks
            .filter(|network| self.networks.contains(&network.id))
            .count()
    }
}

/// Waits until all tasks have ended and all networks are gone.
async fn wait_for(client: &Client, endings: &[Ending]) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut told = String::new();
    let mut left: BTreeSet<NodeId> = endings.iter().flat_map(|e| e.nodes.clone()).collect();
    let wants_networks = endings.iter().any(|ending| !ending.networks.is_empty());
    loop {
        let mut tasks = vec![0; endings.len()];
        for node in left.clone() {
            let path = format!("/v1/nodes/{}/tasks", segment(node.as_str()));
            let rows: Vec<TaskRow> = match client.get(&path).await {
                Err(error) if is_gone(&error) => Vec::new(),
                rows => rows?,
            };
            let mut idle = true;
            for (ending, tasks) in endings.iter().zip(&mut tasks) {
                let more = ending.tasks_among(&rows);
                *tasks += more;
                idle &= more == 0;
            }
            // Nobody gives it tasks of them any more.
            if idle {
                left.remove(&node);
            }
        }
        let networks: Vec<Network> = if wants_networks {
            client.get("/v1/networks").await?
        } else {
            Vec::new()
        };
        let waits: Vec<String> = endings
            .iter()
            .zip(&tasks)
            .filter_map(|(ending, tasks)| {
                waits_for(&ending.stack, *tasks, ending.networks_among(&networks))
            })
            .collect();
        if waits.is_empty() {
            return Ok(());
        }
        let text = waits.join(", ");
        if begun.elapsed() >= SILENCE && text != told {
            complain(&format!("waiting for {text}"));
            told = text;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// `3 tasks of vote to end`
fn waits_for(stack: &str, tasks: usize, networks: usize) -> Option<String> {
    let s = |number: usize| if number == 1 { "" } else { "s" };
    match (tasks, networks) {
        (0, 0) => None,
        (0, networks) => Some(format!(
            "{networks} network{} of {stack} to go",
            s(networks)
        )),
        (tasks, _) => Some(format!("{tasks} task{} of {stack} to end", s(tasks))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_told_in_words() {
        assert_eq!(waits_for("vote", 0, 0), None);
        for (tasks, networks, text) in [
            (3, 1, "3 tasks of vote to end"),
            (1, 1, "1 task of vote to end"),
            (0, 1, "1 network of vote to go"),
            (0, 2, "2 networks of vote to go"),
        ] {
            assert_eq!(waits_for("vote", tasks, networks).as_deref(), Some(text));
        }
    }

    #[test]
    fn things_go_by_name_and_networks_last() {
        let part = |what: &str| Part {
            what: what.to_owned(),
            path: String::new(),
            service: None,
            network: None,
        };
        let mut parts = Parts::default();
        parts.add(vec![part("service vote_web"), part("service vote_db")]);
        parts.add(vec![part("secret vote_key")]);
        parts.add(vec![part("network vote_b"), part("network vote_a")]);
        let names: Vec<&str> = parts.removable().map(|part| part.what.as_str()).collect();
        assert_eq!(
            names,
            [
                "service vote_db",
                "service vote_web",
                "secret vote_key",
                "network vote_a",
                "network vote_b"
            ]
        );
    }
}
