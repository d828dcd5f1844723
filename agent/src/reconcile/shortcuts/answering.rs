//! Which nodes are reached at their second port. A flow that went to a port that is closed on the way
//! would hang, so each node is asked there before, and again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use weft_sys::clock::monotonic_nanos;

use crate::names::MERGING_PORT;
use crate::parts::data_path::DataPath;
use crate::parts::questions::Wish;

/// Between two looks whom to ask.
const TICK: Duration = Duration::from_secs(1);
/// How long answers are waited for.
const PATIENCE: Duration = Duration::from_millis(600);
/// Between two questions to a node that answers, and to one that did not often enough.
const AGAIN: Duration = Duration::from_secs(10);
/// So many questions in a row are without an answer where the port is closed.
const MOST_MISSED: u32 = 3;
/// Nodes that are asked at once.
const TOGETHER: usize = 100;
/// Bytes of a question.
const LEN: u16 = 64;

/// What came of asking a node.
#[derive(Debug, Clone, Copy)]
struct Node {
    answers: bool,
    missed: u32,
    next: Instant,
}

/// All that are worth asking.
#[derive(Debug, Default)]
struct Answering(BTreeMap<Ipv4Addr, Node>);

impl Answering {
    /// Who is to be asked now; those who have announced no second port are forgotten.
    fn due(&mut self, now: Instant, announced: &BTreeSet<Ipv4Addr>) -> Vec<Ipv4Addr> {
        self.0.retain(|vtep, _| announced.contains(vtep));
        for vtep in announced {
            self.0.entry(*vtep).or_insert(Node {
                answers: false,
                missed: 0,
                next: now,
            });
        }
        let due = self.0.iter().filter(|(_, node)| node.next <= now);
        due.map(|(vtep, _)| *vtep).take(TOGETHER).collect()
    }

    fn asked(&mut self, now: Instant, vtep: Ipv4Addr, answered: bool) {
        let Some(node) = self.0.get_mut(&vtep) else {
            return;
        };
        node.missed = if answered {
            0
        } else {
            node.missed.saturating_add(1)
        };
        if answered || node.missed >= MOST_MISSED {
            node.answers = answered;
            node.next = now + AGAIN;
        } else {
            // One packet that is lost condemns nobody.
            node.next = now;
        }
    }

    fn answering(&self) -> BTreeSet<Ipv4Addr> {
        let answering = self.0.iter().filter(|(_, node)| node.answers);
        answering.map(|(vtep, _)| *vtep).collect()
    }

    fn closed(&self) -> BTreeSet<Ipv4Addr> {
        let closed = self.0.iter().filter(|(_, node)| node.missed >= MOST_MISSED);
        closed.map(|(vtep, _)| *vtep).collect()
    }
}

/// Asks until `end` is true, while the kernel carries flows here.
pub(super) async fn run(data_path: Arc<DataPath>, mut end: watch::Receiver<bool>) {
    let mut nodes = Answering::default();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = end.wait_for(|end| *end) => return,
        }
        if data_path.plane.flow_cache().is_none() {
            continue;
        }
        let ports = &data_path.second_ports;
        let due = nodes.due(Instant::now(), &ports.announced());
        if !due.is_empty() {
            for (vtep, answered) in ask(&data_path, &due).await {
                nodes.asked(Instant::now(), vtep, answered);
            }
        }
        ports.set_answers(nodes.answering(), nodes.closed());
    }
}

/// Asks some nodes at once, at their second port. Answers come by the data path's, and somebody else
/// takes them in all the time.
async fn ask(data_path: &DataPath, due: &[Ipv4Addr]) -> Vec<(Ipv4Addr, bool)> {
    let mut questions = Vec::with_capacity(due.len());
    for vtep in due {
        let to = IpAddr::V4(*vtep);
        let now = weft_wire::Instant(monotonic_nanos());
        let all = &data_path.questions;
        let question = all.begin(now, to, LEN, Wish::Whole, rand::random());
        let at = SocketAddr::new(to, MERGING_PORT);
        if data_path.plane.send_loopback_to(at, question.said()) {
            questions.push((*vtep, question));
        }
    }
    tokio::time::sleep(PATIENCE).await;
    let answers = questions.into_iter();
    answers
        .map(|(vtep, question)| (vtep, question.answer().is_some()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_used_while_it_answers_and_asked_again_when_it_does_not() {
        let vtep = |host| Ipv4Addr::new(192, 0, 2, host);
        let announced = BTreeSet::from([vtep(1), vtep(2)]);
        let mut nodes = Answering::default();
        let mut now = Instant::now();
        assert_eq!(nodes.due(now, &announced), [vtep(1), vtep(2)]);
        assert!(nodes.answering().is_empty(), "nobody is believed unasked");
        nodes.asked(now, vtep(1), true);
        nodes.asked(now, vtep(2), false);
        assert_eq!(nodes.answering(), BTreeSet::from([vtep(1)]));
        assert_eq!(nodes.due(now + TICK, &announced), [vtep(2)]);
        now += AGAIN;
        assert_eq!(nodes.due(now, &announced), [vtep(1), vtep(2)]);
        // Two are lost: nothing yet. The third one is too many.
        for missed in 1..=MOST_MISSED {
            assert!(nodes.answering().contains(&vtep(1)), "{missed}");
            assert!(nodes.due(now, &announced).contains(&vtep(1)), "{missed}");
            nodes.asked(now, vtep(1), false);
        }
        assert!(nodes.answering().is_empty());
        assert_eq!(nodes.closed(), BTreeSet::from([vtep(1)]));
        assert!(!nodes.due(now + TICK, &announced).contains(&vtep(1)));
        now += AGAIN;
        nodes.asked(now, vtep(1), true);
        assert_eq!(nodes.answering(), BTreeSet::from([vtep(1)]));
        // It says that it has none any more.
        assert!(nodes.due(now, &BTreeSet::new()).is_empty());
        assert!(nodes.answering().is_empty());
        nodes.asked(now, vtep(1), true);
        assert!(nodes.answering().is_empty(), "a late answer is nobody's");
    }
}
