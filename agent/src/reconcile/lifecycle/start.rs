//! From the first order of a task to its program: of a container its image, then secrets and configs,
//! its file system and its network, and then its shim.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use weft_model::assignment::Payloads;
use weft_model::objects::{ContainerStatus, Runtime, TaskState};

use super::end::End;
use super::{Lifecycle, Wish};
use crate::blocking::blocking;
use crate::images::Ready;
use crate::sandbox::Sandbox;
use crate::sandbox::runner::{RunError, RunningTask, missing_payload};

/// Between two reports of how far an image is: each is a change of the cluster's state.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// What came of starting a task.
pub(super) enum Begun {
    Running(RunningTask),
    /// It does not run, and this is its end.
    Not(End),
}

impl Lifecycle {
    pub(super) async fn start(&self) -> anyhow::Result<Begun> {
        let (runner, task) = (self.handles.runner.clone(), self.task.clone());
        blocking(move || runner.check(&task)).await??;
        self.report(
            TaskState::Preparing,
            "preparing",
            ContainerStatus::default(),
        );
        let image = match self.task.spec.runtime {
            Runtime::Host => None,
            Runtime::Container => match self.image().await? {
                Some(image) => Some(image),
                None => return Ok(Begun::Not(End::NeverRan)),
            },
        };
        let Some(payloads) = self.payloads().await else {
            return Ok(Begun::Not(End::NeverRan));
        };
        let (runner, task) = (self.handles.runner.clone(), self.task.clone());
        blocking(move || runner.keep_payloads(&task, &payloads)).await??;
        let path = self.handles.netns_path(self.task.id.as_str());
        let sandbox = blocking(move || Sandbox::open_or_create(&path)).await??;
        // Both to their end: what one of them has made is taken away once neither makes more.
        let (sandbox, made) = tokio::join!(self.connect(sandbox), self.make_container(image));
        let sandbox = sandbox?;
        made?;
        let starting = ContainerStatus {
            container_id: self.container_id(),
            ..ContainerStatus::default()
        };
        self.report(TaskState::Starting, "starting", starting);
        let (runner, task) = (self.handles.runner.clone(), self.task.clone());
        match blocking(move || runner.start(&task, &sandbox)).await? {
            Ok(process) => Ok(Begun::Running(process)),
            Err(error @ RunError::Container(_)) => {
                let (runner, id) = (self.handles.runner.clone(), self.task.id.clone());
                let ended = blocking(move || runner.end_of(&id)).await??;
                let code = ended.and_then(|ended| ended.code);
                Ok(Begun::Not(End::NotStarted(error.into(), code)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The image of a container, here and unpacked, and held for the task; nothing where the task is not
    /// wanted any more.
    async fn image(&self) -> anyhow::Result<Option<Ready>> {
        let last = Mutex::new(None::<(Instant, String)>);
        let said = |text: String| {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            let is_due = last
                .as_ref()
                .is_none_or(|(at, told)| at.elapsed() >= TOLD_EVERY && *told != text);
            if is_due {
                self.report(TaskState::Preparing, &text, ContainerStatus::default());
                *last = Some((Instant::now(), text));
            }
        };
        let (images, mut wish) = (&self.handles.images, self.wish.clone());
        let ready = tokio::select! {
            ready = images.ensure(&self.task.spec.container, &said) => ready?,
            // Without a sender nobody wants it either.
            stop = wish.wait_for(|wish| *wish == Wish::Stop) => {
                drop(stop);
                return Ok(None);
            }
        };
        let (images, task) = (images.clone(), self.task.id.clone());
        let manifest = ready.image.manifest.clone();
        blocking(move || images.hold(task.as_str(), &manifest)).await??;
        // The disk may have taken its time.
        let wanted = *self.wish.borrow() == Wish::Run;
        Ok(wanted.then_some(ready))
    }

    /// The secrets and configs of the node once all of the task's are among them; nothing where it is
    /// not wanted any more. A task does not start without: a file that is empty, or missing, would be
    /// taken for what it is to hold.
    async fn payloads(&self) -> Option<Arc<Payloads>> {
        let (mut payloads, mut wish) = (self.payloads.clone(), self.wish.clone());
        let mut told = String::new();
        loop {
            let here = Arc::clone(&payloads.borrow_and_update());
            let Some(missing) = missing_payload(&self.task, &here) else {
                return Some(here);
            };
            let (kind, name) = (missing.kind, missing.name);
            let text = format!("waiting for {kind} {name} from the manager");
            // Each word is a change of the cluster's state.
            if told != text {
                self.report(TaskState::Preparing, &text, ContainerStatus::default());
                told = text;
            }
            tokio::select! {
                changed = payloads.changed() => changed.ok()?,
                // Without a sender nobody wants it either.
                stop = wish.wait_for(|wish| *wish == Wish::Stop) => {
                    drop(stop);
                    return None;
                }
            }
        }
    }

    /// The file system, the volumes and the bundle of a container.
    async fn make_container(&self, image: Option<Ready>) -> anyhow::Result<()> {
        let Some(ready) = image else {
            return Ok(());
        };
        let (runner, task) = (self.handles.runner.clone(), self.task.clone());
        let netns = self.handles.netns_path(self.task.id.as_str());
        let made = blocking(move || runner.prepare(&task, &ready.image, &ready.layers, &netns));
        Ok(made.await??)
    }
}
