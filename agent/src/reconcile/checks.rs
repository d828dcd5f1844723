//! The checks of one task while it runs, and what they come to together.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use weft_model::objects::{HealthConfig, ReadyCheck, Task, TaskState};

use super::asking;
use super::health::{Health, Pace, State};
use crate::blocking::blocking;
use crate::sandbox::Sandbox;
use crate::sandbox::runner::{Runner, RunningTask};

/// What a task may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has not passed every check yet: what the last failed one came to, empty where none failed.
    Starting(String),
    /// It takes connections.
    Serving,
    /// Its port does not answer any more: it takes no new connections until it does.
    Closed(String),
    /// Its command failed too often: it is to be replaced.
    Unhealthy(String),
}

/// What one sort of check says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    state: State,
    /// What the last check came to; empty when it passed.
    why: String,
}

impl Said {
    fn nothing(known: bool) -> Self {
        Self {
            state: if known {
                State::Healthy
            } else {
                State::Starting
            },
            why: String::new(),
        }
    }

    /// Whether somebody wants to hear of it: not of each failure, as a report is a change of the
    /// cluster's state.
    fn is_news(&self, earlier: &Self) -> bool {
        self.state != earlier.state || self.why.is_empty() != earlier.why.is_empty()
    }
}

/// What all of them say; absent where nothing is checked.
#[derive(Debug, Clone, Default)]
struct Seen {
    command: Option<Said>,
    port: Option<Said>,
}

impl Seen {
    fn verdict(&self) -> Verdict {
        let of = |said: &Option<Said>, state: State| {
            let said = said.as_ref().filter(|said| said.state == state);
            said.map(|said| said.why.clone())
        };
        if let Some(why) = of(&self.command, State::Unhealthy) {
            return Verdict::Unhealthy(why);
        }
        let starting = of(&self.command, State::Starting).or(of(&self.port, State::Starting));
        match (starting, of(&self.port, State::Unhealthy)) {
            (Some(why), _) => Verdict::Starting(why),
            (None, Some(why)) => Verdict::Closed(why),
            (None, None) => Verdict::Serving,
        }
    }
}

/// Checks a task for as long as this lives.
#[derive(Debug)]
pub(super) struct Checks {
    seen: watch::Receiver<Seen>,
    checking: JoinSet<()>,
}

impl Checks {
    /// Begins with those that the task's service asks for, or its image. One that ran before, as its orders say, was
    /// healthy: it serves until a check says otherwise.
    ///
    /// # Errors
    /// The namespace of its process cannot be opened.
    pub(super) async fn begin(
        runner: &Runner,
        task: &Task,
        process: &RunningTask,
    ) -> anyhow::Result<Self> {
        let known = task.status.state == TaskState::Running;
        let container = &task.spec.container;
        let command = process.health(task).and_then(|config| {
            let command = config.command()?;
            Some((config, command))
        });
        let seen = Arc::new(watch::Sender::new(Seen {
            command: command.is_some().then(|| Said::nothing(known)),
            port: container.ready.is_some().then(|| Said::nothing(known)),
        }));
        let mut this = Self {
            seen: seen.subscribe(),
            checking: JoinSet::new(),
        };
        if let Some((config, command)) = command {
            this.check_command(Arc::clone(&seen), config, command, runner, task);
        }
        if let Some(ready) = &container.ready {
            this.check_port(seen, ready, task, process).await?;
        }
        Ok(this)
    }

    fn check_command(
        &mut self,
        seen: Arc<watch::Sender<Seen>>,
        config: &HealthConfig,
        command: Vec<String>,
        runner: &Runner,
        task: &Task,
    ) {
        let pace = Pace::of(config);
        let known = task.status.state == TaskState::Running;
        let (runner, task) = (runner.clone(), Arc::new(task.clone()));
        let ask = move || {
            let (runner, task) = (runner.clone(), Arc::clone(&task));
            asking::command(runner, task, command.clone(), pace.limit)
        };
        let say = move |said| tell(&seen, said, |seen| &mut seen.command);
        self.checking
            .spawn(keep(Health::new(pace, known), ask, say));
    }

    async fn check_port(
        &mut self,
        seen: Arc<watch::Sender<Seen>>,
        ready: &ReadyCheck,
        task: &Task,
        process: &RunningTask,
    ) -> anyhow::Result<()> {
        let (pace, pid) = (Pace::PORT, process.pid().to_string());
        let known = task.status.state == TaskState::Running;
        // The process says which namespace that is: a path may have lost it.
        let netns = blocking(move || anyhow::Ok(Sandbox::open(&pid)?.netns().try_clone()?));
        let netns = Arc::new(netns.await??);
        // Where it has no network it has itself.
        let ip = task.attachments.iter().find_map(|a| a.ips().next());
        let ip = ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let (address, path) = (SocketAddr::new(ip, ready.port), ready.path.clone());
        let ask = move || asking::port(Arc::clone(&netns), address, path.clone(), pace.limit);
        let say = move |said| tell(&seen, said, |seen| &mut seen.port);
        self.checking
            .spawn(keep(Health::new(pace, known), ask, say));
        Ok(())
    }

    /// What the task may do, as far as is known now.
    pub(super) fn verdict(&mut self) -> Verdict {
        self.seen.borrow_and_update().verdict()
    }

    /// Waits until the verdict may be another one. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        if self.seen.changed().await.is_err() {
            // Nothing is checked.
            std::future::pending::<()>().await;
        }
    }
}

fn tell(
    seen: &watch::Sender<Seen>,
    said: Said,
    place: impl FnOnce(&mut Seen) -> &mut Option<Said>,
) {
    seen.send_if_modified(|seen| {
        let place = place(seen);
        let news = place.as_ref().is_none_or(|earlier| said.is_news(earlier));
        *place = Some(said);
        news
    });
}

/// Checks again and again.
async fn keep<F>(mut health: Health, ask: impl Fn() -> F, say: impl Fn(Said))
where
    F: Future<Output = Result<(), String>>,
{
    let start = Instant::now();
    loop {
        let left = health.next_check().saturating_sub(start.elapsed());
        tokio::time::sleep(left).await;
        let begun = start.elapsed();
        let why = ask().await.err();
        let state = health.take(begun, start.elapsed(), why.is_none());
        let why = why.unwrap_or_default();
        say(Said { state, why });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn said(state: State, why: &str) -> Option<Said> {
        let why = why.to_owned();
        Some(Said { state, why })
    }

    #[test]
    fn every_check_has_to_pass() {
        use State::{Healthy, Starting, Unhealthy};
        let verdict = |command, port| Seen { command, port }.verdict();
        assert_eq!(verdict(None, None), Verdict::Serving);
        let (good, new) = (|| said(Healthy, ""), || said(Starting, ""));
        assert_eq!(verdict(good(), good()), Verdict::Serving);
        assert_eq!(verdict(None, good()), Verdict::Serving);
        assert_eq!(verdict(new(), good()), Verdict::Starting(String::new()));
        let late = said(Starting, "refused");
        assert_eq!(verdict(good(), late), Verdict::Starting("refused".into()));
        let shut = || said(Unhealthy, "refused");
        assert_eq!(verdict(good(), shut()), Verdict::Closed("refused".into()));
        assert_eq!(verdict(new(), shut()), Verdict::Starting(String::new()));
        let sick = said(Unhealthy, "exit code 1");
        let expected = Verdict::Unhealthy("exit code 1".into());
        assert_eq!(verdict(sick, shut()), expected);
    }

    /// A task that fails for hours is no stream of reports.
    #[test]
    fn the_first_failure_is_news_and_the_next_is_not() {
        let seen = watch::Sender::new(Seen {
            command: Some(Said::nothing(false)),
            port: None,
        });
        let mut heard = seen.subscribe();
        let mut told = Vec::new();
        for (state, why) in [
            (State::Starting, "a"),
            (State::Starting, "b"),
            (State::Healthy, ""),
            (State::Healthy, ""),
            (State::Healthy, "c"),
            (State::Unhealthy, "d"),
        ] {
            let now = said(state, why).expect("said");
            tell(&seen, now, |seen| &mut seen.command);
            if heard.has_changed().expect("open") {
                told.push(heard.borrow_and_update().verdict());
            }
        }
        let expected = [
            Verdict::Starting("a".into()),
            Verdict::Serving,
            Verdict::Serving,
            Verdict::Unhealthy("d".into()),
        ];
        assert_eq!(told, expected);
    }

    #[tokio::test]
    async fn checks_come_one_after_the_other() {
        let (sender, mut heard) = watch::channel(Seen::default());
        let ask = || async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Err("no".to_owned())
        };
        let say = move |said| tell(&sender, said, |seen| &mut seen.port);
        let known = Health::new(Pace::PORT, false);
        let mut checking = JoinSet::new();
        checking.spawn(keep(known, ask, say));
        heard.changed().await.expect("it goes on");
        let verdict = heard.borrow().verdict();
        assert_eq!(verdict, Verdict::Starting("no".into()));
        // Whoever lets go of it ends it.
        drop(checking);
        assert!(heard.changed().await.is_err());
    }
}
