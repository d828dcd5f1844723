//! `weft stack deploy`: what differs is sent, step by step.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use hyper::StatusCode;
use weft_client::{Client, Refused};
use weft_model::api::ServiceUpdate;
use weft_model::id::PayloadId;
use weft_model::names;
use weft_model::objects::{
    Network, NetworkSpec, Payload, PayloadKind, PayloadSpec, Service, ServiceSpec,
};
use weft_stack::{Deployment, Interpolation, Problems, deployment};

use super::config::loaded;
use super::current::{Current, networks, payload_path, payloads, payloads_path, stack_of};
use super::ends::Ends;
use super::images::Images;
use super::ledger::{Cause, Hopeless, Ledger};
use super::steps::{Plan, Prune, Step, another, not_compared, plan, service_step};
use super::{depends, payloads as bytes, rm};
use crate::args::StackDeployArgs;
use crate::commands::service::is_name_taken;
use crate::commands::service_update::is_outdated;
use crate::commands::{converge, finish, local_range, local_volumes, paths};
use crate::output::{Printer, complain, is_reader_gone};

/// How often a change is made anew because what it changes was another one by then.
const ATTEMPTS: usize = 4;

/// Said before, as nobody who gives `--detach` expects it.
const WAITS: &str = "\
weft: services are created once those of their depends_on are there; that is waited for, also with --detach";

/// Docker's lines where nobody says whether to wait.
const HINT: &str = "\
Since --detach=false was not specified, tasks will be created in the background.
In a future release, --detach=false will become the default.";

/// `weft stack deploy`
pub(super) async fn deploy(
    client: &Client,
    args: &StackDeployArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let deployment = read(args)?;
    let current = Current::load(client, &deployment).await?;
    let images = Images::resolve(client, &deployment.services, &current, args).await?;
    let prune = if args.prune { Prune::Yes } else { Prune::No };
    let plan = plan(&deployment, &current, &images, prune)
        .map_err(|problems| anyhow!(problems.join("\n")))?;
    plan.warnings.iter().for_each(|line| complain(line));
    let of_images = images.warnings(&plan.kept, &plan.kept_before);
    of_images.iter().for_each(|line| complain(line));
    if args.dry_run {
        return tell(&deployment.name, &plan, out);
    }
    if args.detach != Some(false) && !args.quiet && plan.steps.iter().any(waits) {
        complain(WAITS);
    }
    let (unchanged, makes_tasks) = (plan.unchanged, plan.steps.iter().any(makes_tasks));
    let mut ends = Ends::listen()?;
    let mut ledger = Ledger::of(&plan.steps);
    let ids = current.of_stack(&deployment.name);
    let ids = ids.map(|service| (service.spec.name.clone(), service.id.0.clone()));
    let mut work = Work {
        client,
        deployment: &deployment,
        images: &images,
        quiet: args.quiet,
        ids: ids.collect(),
    };
    let ended = tokio::select! {
        ended = work.run(plan.steps, &mut ledger, out) => ended.map_err(|error| {
            let cause = Cause::of(&error);
            (error, cause)
        }),
        why = ends.any() => Err((anyhow!(why), Cause::Interrupted)),
    };
    match ended {
        Err((error, _)) if is_reader_gone(&error) => return Err(error),
        Err((error, cause)) => bail!("{error:#}\n{}", ledger.text(cause)),
        Ok(()) => {}
    }
    if unchanged > 0 && !args.quiet {
        complain(&unchanged_text(&deployment.name, unchanged));
    }
    if args.detach.is_none() && !args.quiet && makes_tasks {
        complain(HINT);
    }
    if args.detach != Some(false) {
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    work.converge(&mut ends, out).await
}

/// Whether something else has to be there before the step is sent.
fn waits(step: &Step) -> bool {
    matches!(step, Step::CreateService { after, .. } if !after.is_empty())
}

/// Whether tasks begin with it.
fn makes_tasks(step: &Step) -> bool {
    matches!(
        step,
        Step::CreateService { .. } | Step::UpdateService { .. }
    )
}

/// What the files say, with the bytes of secrets and configs. No node is asked.
fn read(args: &StackDeployArgs) -> anyhow::Result<Deployment> {
    let loaded = loaded(&args.files, Interpolation::Done)?;
    loaded.warnings.iter().for_each(|line| complain(line));
    let invalid = |problems: Problems| anyhow!("invalid stack\n{problems}");
    let mut deployment = deployment(&loaded.stack, &args.stack).map_err(invalid)?;
    deployment.warnings.iter().for_each(|line| complain(line));
    bytes::fill(&mut deployment).map_err(invalid)?;
    Ok(deployment)
}

/// `--dry-run`
fn tell(stack: &str, plan: &Plan, out: &mut Printer) -> anyhow::Result<ExitCode> {
    let lines: Vec<String> = plan.steps.iter().filter_map(Step::would).collect();
    for line in &lines {
        out.line(line)?;
    }
    out.flush()?;
    if lines.is_empty() {
        complain(&format!("stack {stack}: nothing to do"));
    }
    if let Some(note) = not_compared(&plan.steps) {
        complain(&note);
    }
    if plan.unchanged > 0 {
        complain(&unchanged_text(stack, plan.unchanged));
    }
    Ok(ExitCode::SUCCESS)
}

fn unchanged_text(stack: &str, services: usize) -> String {
    let s = if services == 1 { "" } else { "s" };
    format!("stack {stack}: {services} service{s} unchanged")
}

/// What carries steps out.
struct Work<'a> {
    client: &'a Client,
    deployment: &'a Deployment,
    images: &'a Images,
    /// No progress.
    quiet: bool,
    /// Of the stack's services, by their names.
    ids: BTreeMap<String, String>,
}

impl Work<'_> {
    async fn run(
        &mut self,
        steps: Vec<Step>,
        ledger: &mut Ledger,
        out: &mut Printer,
    ) -> anyhow::Result<()> {
        for step in steps {
            self.wait_for_others(&step).await.context(step.failed())?;
            ledger.begin();
            self.carry_out(step, out).await?;
            ledger.finish();
        }
        Ok(())
    }

    /// `depends_on`
    async fn wait_for_others(&self, step: &Step) -> anyhow::Result<()> {
        let Step::CreateService { after, .. } = step else {
            return Ok(());
        };
        for (name, condition) in after {
            let waited = depends::wait(self.client, name, *condition, self.quiet).await;
            if let Some(why) = waited? {
                let what = step.what();
                complain(&format!(
                    "weft: warning: {what} is created all the same: {why}"
                ));
            }
        }
        Ok(())
    }

    async fn carry_out(&mut self, step: Step, out: &mut Printer) -> anyhow::Result<()> {
        let failed = step.failed();
        say(step.line(), out)?;
        let done = match &step {
            Step::RemoveService { id, .. } => {
                rm::remove(self.client, &paths::service(id.as_str())).await
            }
            Step::CreateNetwork(spec) => self.create_network(spec).await,
            Step::CreatePayload(kind, spec) => self.create_payload(*kind, spec).await,
            Step::UpdatePayload {
                kind,
                id,
                version,
                spec,
                ..
            } => match self.update_payload(*kind, id, *version, spec).await {
                Ok(true) => say(step.updating(), out),
                Ok(false) => Ok(()),
                Err(error) => Err(error),
            },
            Step::CreateService { .. } | Step::UpdateService { .. } => {
                self.service(step, out).await
            }
        };
        done.context(failed)
    }

    /// One that somebody else made meanwhile is as good.
    async fn create_network(&self, spec: &NetworkSpec) -> anyhow::Result<()> {
        let made: anyhow::Result<Network> = self.client.post("/v1/networks", spec).await;
        let Err(error) = made else {
            return Ok(());
        };
        if is(&error, StatusCode::CONFLICT) {
            let there = networks(self.client).await?;
            let own = |there: &&Network| {
                !there.ending && stack_of(&there.spec.labels) == stack_of(&spec.labels)
            };
            let mut own = there.iter().filter(own);
            if own.any(|there| names::same(&there.spec.name, &spec.name)) {
                return Ok(());
            }
        }
        Err(error)
    }

    /// Likewise, where it holds the same.
    async fn create_payload(&self, kind: PayloadKind, spec: &PayloadSpec) -> anyhow::Result<()> {
        let made: anyhow::Result<Payload> = self.client.post(&payloads_path(kind), spec).await;
        let Err(error) = made else {
            return Ok(());
        };
        if is(&error, StatusCode::CONFLICT) {
            let there = payloads(self.client, kind).await?;
            let there = there.iter().find(|there| there.spec.name == spec.name);
            if let Some(there) = there {
                let version = there.meta.version.index;
                let updated = self.update_payload(kind, &there.id, version, spec).await;
                return updated.map(drop);
            }
        }
        Err(error)
    }

    /// True where that changed something. It is sent with its bytes, so that managers refuse others.
    async fn update_payload(
        &self,
        kind: PayloadKind,
        id: &PayloadId,
        mut version: u64,
        spec: &PayloadSpec,
    ) -> anyhow::Result<bool> {
        let path = payload_path(kind, id);
        for attempt in 1.. {
            let update = format!("{path}/update?version={version}");
            let updated: anyhow::Result<Payload> = self.client.post(&update, spec).await;
            match updated {
                Ok(updated) => return Ok(updated.meta.version.index != version),
                Err(error) if attempt < ATTEMPTS && is_outdated(&error) => {
                    let there: Payload = self.client.get(&path).await?;
                    version = there.meta.version.index;
                }
                Err(error) if error.to_string() == "only updates to Labels are allowed" => {
                    return Err(Hopeless(another(kind, &spec.name)).into());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Sends a service. Where it is another one than it was seen as, it is compared anew.
    async fn service(&mut self, mut step: Step, out: &mut Printer) -> anyhow::Result<()> {
        for attempt in 1.. {
            let (sent, name) = match &step {
                Step::CreateService { spec, .. } => (self.create(spec).await, &spec.name),
                Step::UpdateService {
                    id,
                    version,
                    spec,
                    differs,
                } => {
                    let sent = self.update(id.as_str(), *version, spec).await;
                    if differs.is_empty() && matches!(sent, Ok(true)) {
                        say(step.updating(), out)?;
                    }
                    (sent.map(drop), &spec.name)
                }
                _ => return Ok(()),
            };
            let error = match sent {
                Ok(()) => return Ok(()),
                Err(error) if attempt < ATTEMPTS && is_another(&error, &step) => error,
                Err(error) => return Err(error),
            };
            let mut wanted = self.deployment.services.iter();
            let Some(wanted) = wanted.find(|wanted| wanted.spec.name == *name) else {
                return Err(error);
            };
            let current = Current::load(self.client, self.deployment).await?;
            if let Some(there) = current.service(name) {
                if there.spec.stack() != Some(self.deployment.name.as_str()) {
                    return Err(error);
                }
                self.ids.insert(name.clone(), there.id.0.clone());
            }
            match service_step(wanted, &current, self.images) {
                (Some(again), _) => step = again,
                (None, _) => return Ok(()),
            }
        }
        Ok(())
    }

    async fn create(&mut self, spec: &ServiceSpec) -> anyhow::Result<()> {
        let service: Service = self.client.post("/v1/services", spec).await?;
        self.ids
            .insert(service.spec.name.clone(), service.id.0.clone());
        local_range::warn(&service.spec.endpoint.ports);
        local_volumes::warn(self.client, &service.spec).await;
        Ok(())
    }

    /// True where that changed something.
    async fn update(&self, id: &str, version: u64, spec: &ServiceSpec) -> anyhow::Result<bool> {
        let path = format!("{}/update?version={version}", paths::service(id));
        let update = ServiceUpdate {
            spec: Some(spec.clone()),
            ..ServiceUpdate::default()
        };
        let service: Service = self.client.post(&path, &update).await?;
        Ok(service.meta.version.index != version)
    }
}

impl Work<'_> {
    /// `--detach=false`: waits for one service after the other. Who does not want to wait for one does not
    /// want to wait for the next one either.
    async fn converge(&self, ends: &mut Ends, out: &mut Printer) -> anyhow::Result<ExitCode> {
        let mut failed = Vec::new();
        for service in &self.deployment.services {
            let name = &service.spec.name;
            let Some(id) = self.ids.get(name) else {
                continue;
            };
            let waited = tokio::select! {
                waited = converge::wait(self.client, id, self.quiet, out) => Some(waited),
                () = ends.outside() => None,
            };
            match waited {
                Some(Err(error)) if is_reader_gone(&error) => return Err(error),
                Some(Err(error)) => failed.push(error.context(name.clone())),
                Some(Ok(())) => {}
                None => {
                    let stack = &self.deployment.name;
                    out.line_on_the_way(&format!(
                        "Operation continuing in background.\nUse `weft stack ps {stack}` to check \
                         progress."
                    ))?;
                    break;
                }
            }
            // It was told already.
            let interrupted = tokio::time::timeout(Duration::ZERO, ends.interrupted()).await;
            if interrupted.is_ok() {
                break;
            }
        }
        out.flush()?;
        finish(&failed)
    }
}

fn say(line: Option<String>, out: &mut Printer) -> anyhow::Result<()> {
    match line {
        Some(line) => Ok(out.line_on_the_way(&line)?),
        None => Ok(()),
    }
}

fn is(error: &anyhow::Error, status: StatusCode) -> bool {
    let refused = error.downcast_ref::<Refused>();
    refused.is_some_and(|refused| refused.status == status)
}

/// The service is not what it was seen as: another one, there, or gone.
fn is_another(error: &anyhow::Error, step: &Step) -> bool {
    match step {
        Step::CreateService { .. } => is_name_taken(error),
        _ => is_outdated(error) || is(error, StatusCode::NOT_FOUND),
    }
}

#[cfg(test)]
mod tests {
    use weft_stack::Condition;

    use super::*;

    #[test]
    fn services_are_counted_in_words() {
        assert_eq!(unchanged_text("vote", 1), "stack vote: 1 service unchanged");
        assert_eq!(
            unchanged_text("vote", 3),
            "stack vote: 3 services unchanged"
        );
    }

    #[test]
    fn what_waits_is_told_before() {
        let create = |after: Vec<(String, Condition)>| Step::CreateService {
            spec: ServiceSpec::default(),
            after,
        };
        let network = Step::CreateNetwork(NetworkSpec::default());
        let alone = create(Vec::new());
        let behind = create(vec![("vote_db".to_owned(), Condition::Started)]);
        assert!(waits(&behind) && !waits(&alone) && !waits(&network));
        assert!(makes_tasks(&alone) && !makes_tasks(&network));
    }

    #[test]
    fn only_what_another_one_changed_is_tried_again() {
        let refused = |status, message: &str| {
            anyhow::Error::from(Refused {
                status,
                message: message.to_owned(),
            })
        };
        let create = Step::CreateService {
            spec: ServiceSpec::default(),
            after: Vec::new(),
        };
        let update = Step::UpdateService {
            id: "s1".into(),
            version: 3,
            spec: ServiceSpec::default(),
            differs: Vec::new(),
        };
        let taken = "name conflicts with an existing object: service vote_web already exists";
        let taken = refused(StatusCode::CONFLICT, taken);
        assert!(is_another(&taken, &create));
        let old = "update out of sequence: it was read at version 3 and is at 4";
        let old = refused(StatusCode::CONFLICT, old);
        assert!(is_another(&old, &update) && !is_another(&old, &create));
        let gone = refused(StatusCode::NOT_FOUND, "service s1 not found");
        assert!(is_another(&gone, &update) && !is_another(&gone, &create));
        let busy = refused(StatusCode::CONFLICT, "port '80' is already in use");
        assert!(!is_another(&busy, &update) && !is_another(&busy, &create));
    }
}
