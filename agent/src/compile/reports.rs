//! What other nodes report of replicas: by numbers instead of names, as there are thousands.
//!
//! What another node reports may be wrong, or a lie: see [`Figures`] for what is made of it. A report
//! is taken in when it is another one, and costs the replicas that it is about, and those of the same
//! group that the same node reports.

mod choice;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use weft_model::id::{EndpointId, NetworkId, NodeId, ServiceId};

pub(super) use self::choice::Figures;
use self::choice::{Choice, MOST_OF_ONE_NODE, Named};

/// Replicas among which one is chosen: those of a service on one network.
pub(super) type Group<'a> = (&'a ServiceId, &'a NetworkId);

/// A replica that there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Balanced<'a> {
    /// Among which others.
    pub(super) group: Group<'a>,
    /// It takes new connections.
    pub(super) ready: bool,
}

/// What is known of a replica, whose number is its place.
#[derive(Debug, Default)]
struct Replica {
    /// Place of its group. None of one that there is not, or not yet.
    group: Option<usize>,
    /// What nodes report of it, in the order of their numbers.
    reports: Vec<Named>,
    /// What was made of that, and what this node had open then; none before.
    figures: Option<Figures>,
    own: u32,
}

/// What a look has found to be other figures than before.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Of these replicas, by number.
    pub(super) replicas: Vec<usize>,
    /// They are of these groups, by number.
    pub(super) groups: Vec<usize>,
}

/// A node that reports.
#[derive(Debug)]
struct Reporter {
    number: usize,
    /// How many replicas it reports on.
    replicas: usize,
}

/// The reports of all other nodes, and the replicas that they are about. Who stays keeps its number.
#[derive(Debug, Default)]
pub(super) struct Reports {
    numbers: HashMap<String, usize>,
    /// By number; some have no name.
    replicas: Vec<Replica>,
    free: Vec<usize>,
    groups: BTreeMap<(ServiceId, NetworkId), usize>,
    choices: Vec<Choice>,
    free_choices: Vec<usize>,
    reporters: HashMap<NodeId, Reporter>,
    free_reporters: Vec<usize>,
    /// Groups of which something is another than at the last look.
    stirred: BTreeSet<usize>,
    /// Limits of services that have one.
    limits: BTreeMap<ServiceId, u32>,
}

/// Takes a place that is free, or a new one.
fn place<T>(all: &mut Vec<T>, free: &mut Vec<usize>, thing: T) -> usize {
    let number = free.pop().unwrap_or(all.len());
    match all.get_mut(number) {
        Some(place) => *place = thing,
        None => all.push(thing),
    }
    number
}

fn most(limits: &BTreeMap<ServiceId, u32>, service: &ServiceId) -> u32 {
    let limit = limits.get(service).copied().filter(|limit| *limit > 0);
    limit.unwrap_or(MOST_OF_ONE_NODE)
}

impl Reports {
    /// Limits of services; those that are not named have none.
    pub(super) fn set_limits(&mut self, limits: BTreeMap<ServiceId, u32>) {
        self.limits = limits;
        for ((service, _), group) in &self.groups {
            if let Some(choice) = self.choices.get_mut(*group)
                && choice.set_most(most(&self.limits, service))
            {
                self.stirred.insert(*group);
            }
        }
    }

    /// Says of some replicas what they are now; nothing of those that are gone.
    pub(super) fn follow<'a>(
        &mut self,
        changes: impl Iterator<Item = (&'a EndpointId, Option<Balanced<'a>>)>,
    ) {
        for (id, now) in changes {
            self.set(id.as_str(), now);
        }
    }

    fn set(&mut self, id: &str, now: Option<Balanced<'_>>) {
        if now.is_none() && !self.numbers.contains_key(id) {
            return;
        }
        let number = self.number_for(id);
        let group = now.map(|now| self.group_for(now.group));
        let Some(replica) = self.replicas.get_mut(number) else {
            return;
        };
        let was = std::mem::replace(&mut replica.group, group);
        if was != group {
            replica.figures = None;
            if let Some(was) = was {
                self.leave(was, number);
            }
        }
        let replica = self.replicas.get(number);
        if let (Some(group), Some(now), Some(replica)) = (group, now, replica)
            && let Some(choice) = self.choices.get_mut(group)
        {
            choice.join(number, now.ready, &replica.reports);
            self.stirred.insert(group);
        }
        self.release(id, number);
    }

    fn group_for(&mut self, (service, network): Group<'_>) -> usize {
        let of = (service.clone(), network.clone());
        if let Some(known) = self.groups.get(&of) {
            return *known;
        }
        let choice = Choice::new(most(&self.limits, service));
        let number = place(&mut self.choices, &mut self.free_choices, choice);
        self.groups.insert(of, number);
        number
    }

    fn leave(&mut self, group: usize, number: usize) {
        let (Some(choice), Some(replica)) =
            (self.choices.get_mut(group), self.replicas.get(number))
        else {
            return;
        };
        choice.leave(number, &replica.reports);
        self.stirred.insert(group);
        if choice.is_empty() {
            self.stirred.remove(&group);
            self.groups.retain(|_, known| *known != group);
            self.free_choices.push(group);
        }
    }

    fn number_for(&mut self, id: &str) -> usize {
        if let Some(known) = self.numbers.get(id) {
            return *known;
        }
        let number = place(&mut self.replicas, &mut self.free, Replica::default());
        self.numbers.insert(id.to_owned(), number);
        number
    }

    /// Forgets a number that nothing is known of.
    fn release(&mut self, id: &str, number: usize) {
        let known = self.replicas.get(number);
        if known.is_some_and(|replica| replica.group.is_none() && replica.reports.is_empty()) {
            self.numbers.remove(id);
            self.free.push(number);
        }
    }

    /// The number of a replica that there is, by which [`Self::figures`] has it.
    pub(super) fn number(&self, replica: &EndpointId) -> Option<usize> {
        let number = *self.numbers.get(replica.as_str())?;
        self.replicas.get(number)?.group.map(|_| number)
    }

    /// Takes in what another node reports of a replica from now on; none where it no longer does.
    pub(super) fn hear(&mut self, by: &NodeId, id: &str, active: Option<u32>) {
        let is_known = || self.numbers.contains_key(id) && self.reporters.contains_key(by);
        if active.is_none() && !is_known() {
            return;
        }
        let (reporter, number) = (self.reporter(by), self.number_for(id));
        let Some(replica) = self.replicas.get_mut(number) else {
            return;
        };
        let active = active.map(|active| active.min(MOST_OF_ONE_NODE));
        let before = replica.reports.len();
        if !say(&mut replica.reports, reporter, active) {
            return;
        }
        let after = replica.reports.len();
        if let Some(group) = replica.group
            && let Some(choice) = self.choices.get_mut(group)
        {
            choice.say(reporter, number, active);
            self.stirred.insert(group);
        }
        if after != before {
            self.recount(by, after > before);
        }
        if active.is_none() {
            self.release(id, number);
        }
    }

    /// A node reports on one replica more, or less; who reports on none is forgotten.
    fn recount(&mut self, by: &NodeId, more: bool) {
        let Some(reporter) = self.reporters.get_mut(by) else {
            return;
        };
        if more {
            reporter.replicas += 1;
            return;
        }
        reporter.replicas -= 1;
        if reporter.replicas == 0 {
            self.free_reporters.push(reporter.number);
            self.reporters.remove(by);
        }
    }

    fn reporter(&mut self, by: &NodeId) -> usize {
        if let Some(known) = self.reporters.get(by) {
            return known.number;
        }
        let ever = self.reporters.len() + self.free_reporters.len();
        let number = self.free_reporters.pop().unwrap_or(ever);
        let reporter = Reporter {
            number,
            replicas: 0,
        };
        self.reporters.insert(by.clone(), reporter);
        number
    }

    /// Nobody has reported anything.
    pub(super) fn forget(&mut self) {
        self.reporters.clear();
        self.free_reporters.clear();
        for replica in &mut self.replicas {
            replica.reports.clear();
        }
        for group in self.groups.values() {
            if let Some(choice) = self.choices.get_mut(*group) {
                choice.forget();
                self.stirred.insert(*group);
            }
        }
        let replicas = &self.replicas;
        let is_there = |number: usize| replicas.get(number).is_some_and(|r| r.group.is_some());
        self.numbers.retain(|_, number| is_there(*number));
        self.free = (0..replicas.len()).filter(|n| !is_there(*n)).collect();
    }

    /// Looks again at a replica, whose figures nobody has been told.
    pub(super) fn look_again(&mut self, number: usize) {
        let Some(replica) = self.replicas.get_mut(number) else {
            return;
        };
        replica.figures = None;
        if let Some(group) = replica.group {
            self.touch(group, number);
        }
    }

    /// Looks again at replicas of which this node has not so many open as at the last look; `own`
    /// tells it, by number.
    pub(super) fn follow_own(&mut self, own: impl Fn(usize) -> u32) {
        for number in 0..self.replicas.len() {
            if let Some(replica) = self.replicas.get(number)
                && let Some(group) = replica.group
                && !replica.reports.is_empty()
                && replica.own != own(number)
            {
                self.touch(group, number);
            }
        }
    }

    fn touch(&mut self, group: usize, number: usize) {
        if let Some(choice) = self.choices.get_mut(group) {
            choice.touch(number);
            self.stirred.insert(group);
        }
    }

    /// Brings figures up to date; of each replica this node has `own` open.
    pub(super) fn settle(&mut self, own: impl Fn(usize) -> u32) -> Settled {
        let mut settled = Settled::default();
        for group in std::mem::take(&mut self.stirred) {
            let Some(choice) = self.choices.get_mut(group) else {
                continue;
            };
            let before = settled.replicas.len();
            for number in choice.settle() {
                let Some(replica) = self.replicas.get_mut(number) else {
                    continue;
                };
                replica.own = own(number);
                let figures = Some(choice.figures(replica.own, &replica.reports));
                if replica.figures != figures {
                    replica.figures = figures;
                    settled.replicas.push(number);
                }
            }
            if settled.replicas.len() > before {
                settled.groups.push(group);
            }
        }
        settled
    }

    /// The figures of a replica, as of the last look.
    pub(super) fn figures(&self, number: usize) -> Figures {
        let replica = self.replicas.get(number);
        replica.and_then(|r| r.figures).unwrap_or_default()
    }

    /// The replicas of a group, by number.
    pub(super) fn members(&self, group: usize) -> impl Iterator<Item = usize> {
        let choice = self.choices.get(group).into_iter();
        choice.flat_map(Choice::members)
    }
}

/// Puts a figure under the number of who says it, or takes it away; true where it was another one.
fn say(reports: &mut Vec<Named>, by: usize, figure: Option<u32>) -> bool {
    let at = reports.binary_search_by_key(&by, |(known, _)| *known);
    match (at, figure) {
        (Ok(at), Some(figure)) => {
            let known = reports.get_mut(at);
            known.is_some_and(|(_, known)| std::mem::replace(known, figure) != figure)
        }
        (Ok(at), None) => {
            reports.remove(at);
            true
        }
        (Err(at), Some(figure)) => {
            reports.insert(at, (by, figure));
            true
        }
        (Err(_), None) => false,
    }
}

#[cfg(test)]
mod tests;
