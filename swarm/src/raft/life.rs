//! One life of openraft after the other: it ends when the disk fails, and is begun again, while the
//! state stays readable. Who leads is told from here, and what was proposed goes to the log.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::RaftError;
use openraft::{Config, RaftNetworkFactory, ServerState};
use tokio::sync::watch;
use tokio::time::Instant;
use weft_cluster::{ProposeError, Reply, Stale};
use weft_model::id::NodeId;

use super::log::LogStore;
use super::machine::Machine;
use super::pipeline::{Answer, Waiting, tell};
use super::shared::Shared;
use super::types::{Batch, Metrics, Raft, Types};
use super::view::{Judge, View, is_alone};

/// Before openraft is begun again: the first pause, and the longest.
const AGAIN_MIN: Duration = Duration::from_millis(20);
const AGAIN_MAX: Duration = Duration::from_secs(2);
/// After such a life the pause is the first one again.
const LONG_LIFE: Duration = Duration::from_secs(5);
/// A leader whose openraft is begun again may be the leader as before within this time: until then
/// nobody hears of it. It is less than the lease that the others give it.
const GRACE: Duration = Duration::from_millis(400);
/// How often is looked whether the leader is silent.
const LOOK: Duration = Duration::from_millis(200);

/// Runs openraft until the store is closed.
pub(super) async fn keep_running<N>(shared: Arc<Shared>, network: N, config: Arc<Config>)
where
    N: RaftNetworkFactory<Types> + Clone,
{
    let mut pause = AGAIN_MIN;
    while !shared.stops() {
        let began = Instant::now();
        let log = LogStore(Arc::clone(&shared.file));
        let machine = Machine {
            file: Arc::clone(&shared.file),
            states: shared.states.clone(),
        };
        let member = shared.file.member;
        match Raft::new(member, Arc::clone(&config), network.clone(), log, machine).await {
            Ok(raft) => live(&shared, &raft).await,
            Err(error) => {
                shared.follow(None);
                // The file has said it in the log of weftd, once.
                tracing::debug!(%error, "the log of the managers does not start");
            }
        }
        if shared.stops() {
            return;
        }
        if began.elapsed() > LONG_LIFE {
            pause = AGAIN_MIN;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(AGAIN_MAX);
    }
}

/// Waits until a flag has this value; for ever, when there is nobody left to change it.
async fn becomes(flag: &mut watch::Receiver<bool>, value: bool) {
    if flag.wait_for(|now| *now == value).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// From its begin to its end.
async fn live(shared: &Shared, raft: &Raft) {
    let (leads, ended) = (watch::Sender::new(false), watch::Sender::new(false));
    shared.raft.send_replace(Some(raft.clone()));
    let followed = async {
        watch_over(shared, raft, &leads).await;
        leads.send_replace(false);
        ended.send_replace(true);
    };
    let written = write_all(shared, raft, leads.subscribe(), ended.subscribe());
    tokio::join!(followed, written);
    shared.raft.send_replace(None);
    if let Err(error) = raft.shutdown().await {
        tracing::debug!(%error, "the log of the managers ends");
    }
    shared.take_back();
}

/// Tells who leads, until this life ends.
async fn watch_over(shared: &Shared, raft: &Raft, leads: &watch::Sender<bool>) {
    let mut metrics = raft.metrics();
    let mut judge = Judge::default();
    let mut grace = Some(Instant::now() + GRACE);
    let (mut stood, mut led) = (false, None);
    // The last term whose leader this member has stood for the place of.
    let mut succeeded = None;
    loop {
        let seen = metrics.borrow_and_update().clone();
        if seen.running_state.is_err() {
            return;
        }
        note(shared, &seen);
        if !stood
            && seen.state == ServerState::Follower
            && is_alone(&seen.membership_config, seen.id)
        {
            // There is nobody to wait for.
            stood = true;
            if raft.trigger().elect().await.is_err() {
                return;
            }
        }
        let lead = judge.leads(&seen, Instant::now());
        // Two terms of its own may follow each other without a look at the time between.
        let term = lead.then_some(seen.current_term);
        if let Some(term) = term
            && led != Some(term)
        {
            shared.lead(term);
        }
        led = term;
        if *leads.borrow() != lead {
            leads.send_replace(lead);
        }
        grace = grace.filter(|until| !lead && Instant::now() < *until);
        let other = other_leader(shared, &seen);
        if lead || other.is_some() {
            shared.links.led();
        }
        if !lead && (grace.is_none() || other.is_some()) {
            shared.follow(other);
        }
        let (now, free) = (Instant::now(), vacancy(shared, &seen));
        if free.is_some_and(|at| at <= now) && succeeded != Some(seen.current_term) {
            succeeded = Some(seen.current_term);
            tracing::info!("the manager that led has ended; this one stands for election");
            if raft.trigger().elect().await.is_err() {
                return;
            }
        }
        let look = now + LOOK;
        let next = free.filter(|at| *at > now).map_or(look, |at| at.min(look));
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

/// When the place of a leader is free whose connections have ended. Without that it may be slow, and has the
/// time that openraft gives it.
fn vacancy(shared: &Shared, seen: &Metrics) -> Option<Instant> {
    let leader = seen.current_leader.filter(|leader| *leader != seen.id)?;
    let follows = seen.state == ServerState::Follower;
    shared.links.succession(leader).filter(|_| follows)
}

/// Another manager that leads, when it was heard of lately.
fn other_leader(shared: &Shared, seen: &Metrics) -> Option<NodeId> {
    let leader = shared.leader().filter(|leader| *leader != seen.id)?;
    shared.node_of(leader)
}

/// Keeps what openraft says of the members.
fn note(shared: &Shared, seen: &Metrics) {
    let members = &seen.membership_config;
    if let Some(id) = members.log_id() {
        let membership = members.membership();
        shared
            .links
            .set_list((id.leader_id.term, id.index), |member| {
                membership.get_node(&member).is_some()
            });
    }
    shared.view.send_if_modified(|view| {
        let is_new = view.leader != seen.current_leader || view.members != **members;
        if is_new {
            *view = View::of(seen);
        }
        is_new
    });
}

/// Writes what is proposed, while this manager leads and until this life ends: one entry of the log
/// after the other, each with all that came meanwhile.
async fn write_all(
    shared: &Shared,
    raft: &Raft,
    mut leads: watch::Receiver<bool>,
    mut ended: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            biased;
            () = becomes(&mut ended, true) => return,
            () = becomes(&mut leads, true) => {}
        }
        let batch = tokio::select! {
            biased;
            () = becomes(&mut ended, true) => return,
            () = becomes(&mut leads, false) => continue,
            batch = shared.pipeline.next() => batch,
        };
        write(shared, raft, batch, (&mut leads, &ended)).await;
    }
}

/// Writes one entry of the log, and tells each of those who wait what became of his part.
async fn write(shared: &Shared, raft: &Raft, batch: Vec<Waiting>, flags: Flags<'_>) {
    let (mut entries, mut proposers, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for waiting in batch {
        match waiting.entry {
            Some(entry) => {
                entries.push(entry);
                proposers.push(waiting.answer);
            }
            None => others.push(waiting.answer),
        }
    }
    let fate = if entries.is_empty() {
        Fate::Replied(Vec::new())
    } else {
        hand_over(shared, raft, Batch::new(entries), flags).await
    };
    let is_whole = fate.is_whole();
    if !is_whole {
        // Before anybody hears of it, and looks at the head again.
        shared.take_back();
    }
    fate.tell(proposers);
    let actual = shared.state().version;
    for other in others {
        let stale = Stale {
            planned: actual,
            actual,
        };
        tell(other, if is_whole { Ok(()) } else { Err(stale.into()) });
    }
}

/// Whether this manager leads, and whether this life of openraft is over.
type Flags<'a> = (&'a mut watch::Receiver<bool>, &'a watch::Receiver<bool>);

/// What became of an entry of the log.
enum Fate {
    /// It is applied, and each part has its reply.
    Replied(Vec<Reply>),
    /// It is not in the log, as the disk did not take it for this reason.
    NotStored(String),
    /// Nobody knows.
    Undecided,
}

async fn hand_over(shared: &Shared, raft: &Raft, batch: Batch, (leads, ended): Flags<'_>) -> Fate {
    let (row, count) = (shared.file.known().row, batch.0.len());
    let mut writing = pin!(raft.client_write(batch));
    let written = tokio::select! {
        biased;
        written = &mut writing => written,
        () = becomes(leads, false) => {
            if !*ended.borrow() {
                return Fate::Undecided;
            }
            // The lead went with openraft, which answers before it is gone: what the disk did not
            // take is known.
            writing.await
        }
    };
    match written {
        Ok(written) if written.data.0.len() == count => Fate::Replied(written.data.0),
        Err(RaftError::Fatal(error)) if shared.file.known().row == row => {
            let why = shared.file.trouble().borrow().clone();
            Fate::NotStored(why.unwrap_or_else(|| error.to_string()))
        }
        Ok(_) | Err(_) => Fate::Undecided,
    }
}

impl Fate {
    /// True when all of it is stored.
    fn is_whole(&self) -> bool {
        match self {
            Self::Replied(replies) => replies
                .iter()
                .all(|reply| matches!(reply, Reply::Applied { .. })),
            Self::NotStored(_) | Self::Undecided => false,
        }
    }

    fn tell(self, proposers: Vec<Answer>) {
        let mut replies = match &self {
            Self::Replied(replies) => replies.as_slice(),
            Self::NotStored(_) | Self::Undecided => &[],
        }
        .iter();
        for answer in proposers {
            let result = match (&self, replies.next()) {
                (Self::Replied(_), Some(Reply::Applied { .. })) => Ok(()),
                (Self::Replied(_), Some(Reply::Stale(stale))) => Err((*stale).into()),
                (Self::NotStored(why), _) => Err(ProposeError::Disk(why.clone())),
                (Self::Replied(_) | Self::Undecided, _) => Err(ProposeError::Undecided),
            };
            tell(answer, result);
        }
    }
}
