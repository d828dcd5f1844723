//! `weft volume …`

use std::io::BufRead as _;
use std::process::ExitCode;

use anyhow::{anyhow, bail};
use serde_json::Value;
use weft_client::{Client, Refused};
use weft_model::api::{Volume, VolumeAnswer, VolumePrune, VolumeRequest, Volumes};

use crate::args::{NodesArgs, VolumeCommand, VolumeCreateArgs, VolumePruneArgs};
use crate::commands::{finish, paths, rows, show, unique, warn};
use crate::output::{Filters, Key, Match, Printer, size};

/// Keys of `volume ls --filter`.
const KEYS: [Key; 4] = [
    ("dangling", &[]),
    ("driver", &[("Driver", Match::Is)]),
    ("label", &[("Labels", Match::Label)]),
    ("name", &[("Name", Match::Part)]),
];

pub(super) async fn run(
    client: &Client,
    command: VolumeCommand,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    match command {
        VolumeCommand::Create(args) => create(client, args, out).await,
        VolumeCommand::Ls {
            nodes,
            filter,
            format,
        } => {
            let filters = Filters::of(&filter, &KEYS)?;
            let dangling = dangling(&filters)?;
            let path = format!("/v1/volumes{}", nodes.query(false));
            let found: Volumes = client.get(&path).await?;
            let (volumes, refused) = sorted(found);
            let volumes = volumes.into_iter().filter(|volume| {
                let used = volume.usage_data.is_some_and(|usage| usage.ref_count > 0);
                dangling.is_none_or(|wanted| wanted != used)
            });
            let mut listing = rows::volumes(volumes.collect(), nodes.is_named());
            listing.keep(&filters);
            out.listing(&listing, &format)?;
            out.flush()?;
            finish(&refused)
        }
        VolumeCommand::Inspect { nodes, inspect } => {
            let mut found = Vec::new();
            for name in &inspect.refs {
                let path = format!("{}{}", paths::volume(name), nodes.query(false));
                match client.get::<Volumes>(&path).await {
                    Ok(answers) => found.extend(of_nodes(name, answers)),
                    Err(error) => found.push(Err(error)),
                }
            }
            show(&inspect, found, out)
        }
        VolumeCommand::Rm {
            nodes,
            force,
            names,
        } => {
            let mut refused = Vec::new();
            for name in &names {
                remove(client, &nodes, force, name, &mut refused, out).await?;
            }
            out.flush()?;
            finish(&refused)
        }
        VolumeCommand::Prune(args) => prune(client, args, out).await,
    }
}

/// What a node did not do, as an error of the command.
fn refusal(answer: &VolumeAnswer) -> Option<anyhow::Error> {
    let refused = answer.refused.as_ref()?;
    // From the manager it names the node already.
    let named = answer.node.is_empty() || refused.message.starts_with("node ");
    Some(if named {
        anyhow!("{}", refused.message)
    } else {
        anyhow!("node {}: {}", answer.node, refused.message)
    })
}

/// The volumes of all answers, and why there are no more.
fn sorted(found: Volumes) -> (Vec<Volume>, Vec<anyhow::Error>) {
    let refused = found.answers.iter().filter_map(refusal).collect();
    let volumes = found.answers.into_iter().flat_map(|answer| answer.volumes);
    (volumes.collect(), refused)
}

fn dangling(filters: &Filters<'_>) -> anyhow::Result<Option<bool>> {
    let mut dangling = None;
    for value in filters.values("dangling") {
        dangling = Some(match value {
            "true" | "1" => true,
            "false" | "0" => false,
            _ => {
                bail!("invalid filter 'dangling={value}': write dangling=true or dangling=false")
            }
        });
    }
    Ok(dangling)
}

/// One volume of each node that has it; where none has, that is the error, and where one did not answer.
fn of_nodes(name: &str, answers: Volumes) -> Vec<anyhow::Result<Value>> {
    const NOT_FOUND: u16 = 404;
    let mut found = Vec::new();
    for answer in answers.answers {
        let missing = answer.refused.as_ref().map(|refused| refused.status);
        match refusal(&answer) {
            Some(_) if missing == Some(NOT_FOUND) => {}
            Some(error) => found.push(Err(not_done(&error))),
            None => found.extend(
                answer
                    .volumes
                    .iter()
                    .map(|volume| serde_json::to_value(volume).map_err(Into::into)),
            ),
        }
    }
    if found.is_empty() {
        let error = anyhow!("get {name}: no such volume on any node");
        found.push(Err(not_done(&error)));
    }
    found
}

/// As an answer of the node, which `show` tells after what was found.
fn not_done(error: &anyhow::Error) -> anyhow::Error {
    Refused {
        status: hyper::StatusCode::NOT_FOUND,
        message: format!("{error:#}"),
    }
    .into()
}

async fn create(
    client: &Client,
    args: VolumeCreateArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    if args.nodes.all && args.name.is_none() {
        bail!("with --all the volume needs a name, which is the same on all of them");
    }
    let request = VolumeRequest {
        name: args.name.unwrap_or_default(),
        driver: args.driver,
        options: unique("option", args.options)?,
        labels: unique("label", args.labels)?,
    };
    let path = format!("/v1/volumes{}", args.nodes.query(false));
    let made: Volumes = client.post(&path, &request).await?;
    for answer in &made.answers {
        warn(&answer.warnings);
    }
    let (volumes, refused) = sorted(made);
    if let Some(volume) = volumes.first() {
        out.line(&volume.name)?;
    }
    out.flush()?;
    finish(&refused)
}

/// The name of a volume that went, and its node where several were asked.
fn gone(volume: &Volume, nodes: &NodesArgs) -> String {
    if nodes.is_named() && !volume.node.is_empty() {
        format!("{} (node {})", volume.name, volume.node)
    } else {
        volume.name.clone()
    }
}

async fn remove(
    client: &Client,
    nodes: &NodesArgs,
    force: bool,
    name: &str,
    refused: &mut Vec<anyhow::Error>,
    out: &mut Printer,
) -> anyhow::Result<()> {
    // On all nodes, that some have none is no error.
    let path = paths::volume(name);
    let path = format!("{path}{}", nodes.query(force));
    let removed: Volumes = match client.delete_for(&path).await {
        Ok(removed) => removed,
        Err(error) if error.is::<Refused>() => {
            refused.push(error);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let answers = removed.answers.iter();
    let is_missing = |answer: &VolumeAnswer| {
        let refused = answer.refused.as_ref();
        refused.is_some_and(|refused| refused.status == 404)
    };
    if !force && answers.clone().all(is_missing) {
        refused.push(anyhow!("get {name}: no such volume on any node"));
        return Ok(());
    }
    for answer in answers.filter(|answer| !is_missing(answer)) {
        refused.extend(refusal(answer));
        for volume in &answer.volumes {
            out.line(&gone(volume, nodes))?;
        }
    }
    Ok(())
}

async fn prune(
    client: &Client,
    args: VolumePruneArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let nodes = args.nodes();
    if !args.force && !confirm(&question(args.all, &nodes), out)? {
        bail!("volume prune has been cancelled; nothing was removed");
    }
    let (without, with): (Vec<_>, Vec<_>) =
        args.filters.into_iter().partition(|filter| filter.without);
    let which = VolumePrune {
        all: args.all,
        labels: with.into_iter().map(|filter| filter.label).collect(),
        without_labels: without.into_iter().map(|filter| filter.label).collect(),
    };
    let path = format!("/v1/volumes/prune{}", nodes.query(false));
    let pruned: Volumes = client.post(&path, &which).await?;
    let reclaimed = pruned.answers.iter().map(|answer| answer.space_reclaimed);
    let reclaimed: u64 = reclaimed.sum();
    let (volumes, refused) = sorted(pruned);
    if !volumes.is_empty() {
        out.line("Deleted Volumes:")?;
        for volume in &volumes {
            out.line(&gone(volume, &nodes))?;
        }
        out.line("")?;
    }
    out.line(&format!("Total reclaimed space: {}", size(reclaimed)))?;
    out.flush()?;
    finish(&refused)
}

/// docker's, and whose volumes they are where that is not the node's own.
fn question(all: bool, nodes: &NodesArgs) -> String {
    let which = if all { "all" } else { "anonymous" };
    let place = match &nodes.node {
        _ if nodes.all => " on every node".to_owned(),
        Some(node) => format!(" on node {node}"),
        None => String::new(),
    };
    format!(
        "WARNING! This will remove {which} local volumes not used by at least one container{place}.\n\
         Are you sure you want to continue? [y/N] "
    )
}

fn confirm(question: &str, out: &mut Printer) -> anyhow::Result<bool> {
    out.text(question)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

#[cfg(test)]
mod tests {
    use weft_model::api::VolumeRefusal;

    use super::*;

    fn answer(node: &str, volumes: &[&str], refused: Option<(u16, &str)>) -> VolumeAnswer {
        let volumes = volumes.iter().map(|name| Volume {
            name: (*name).to_owned(),
            node: node.to_owned(),
            ..Volume::default()
        });
        VolumeAnswer {
            node: node.to_owned(),
            volumes: volumes.collect(),
            refused: refused.map(|(status, message)| VolumeRefusal {
                status,
                message: message.to_owned(),
            }),
            ..VolumeAnswer::default()
        }
    }

    #[test]
    fn who_has_it_is_shown_and_who_does_not_answer_is_told() {
        let answers = |answers: Vec<VolumeAnswer>| Volumes { answers };
        let missing = Some((404, "get a: no such volume"));
        let found = of_nodes(
            "a",
            answers(vec![
                answer("n1", &["a"], None),
                answer("n2", &[], missing),
                answer("n3", &[], Some((503, "node n3: it did not answer"))),
            ]),
        );
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].as_ref().expect("there")["Node"], "n1");
        let error = found[1].as_ref().expect_err("silent").to_string();
        assert_eq!(error, "node n3: it did not answer");
        let none = of_nodes("a", answers(vec![answer("n1", &[], missing)]));
        let error = none[0].as_ref().expect_err("nowhere").to_string();
        assert_eq!(error, "get a: no such volume on any node");
    }

    #[test]
    fn questions_are_dockers() {
        let mut nodes = NodesArgs::default();
        assert_eq!(
            question(false, &nodes),
            "WARNING! This will remove anonymous local volumes not used by at least one container.\n\
             Are you sure you want to continue? [y/N] "
        );
        nodes.all = true;
        assert!(question(true, &nodes).contains("remove all local volumes"));
        assert!(question(true, &nodes).contains("container on every node."));
    }

    #[test]
    fn names_of_nodes_are_told_once() {
        let of_manager = answer("n1", &[], Some((503, "node n1: it is away")));
        let own = answer("n1", &[], Some((409, "remove a: volume is in use - [t]")));
        let text = |answer: &VolumeAnswer| refusal(answer).expect("refused").to_string();
        assert_eq!(text(&of_manager), "node n1: it is away");
        assert_eq!(text(&own), "node n1: remove a: volume is in use - [t]");
    }
}
