//! When tables are made again, reports of other nodes taken in, and own ones given out: not for
//! each view of gossip, as under traffic nearly all of them differ in load reports alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_gossip::NetdbView;
use weft_model::assignment::Assignment;
use weft_model::id::NodeId;
use weft_model::records::Table;

use crate::compile::loads::Loads;
use crate::compile::mtus::Mtus;

/// Between two intakes of reports: a little less than gossip has between two views for these alone.
const PACE: Duration = Duration::from_millis(40);

/// Orders, generation of the own ports, gossip, underlay: what tables are made from.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) orders: Arc<Assignment>,
    pub(super) local: u64,
    pub(super) view: Arc<NetdbView>,
    pub(super) mtus: Arc<Mtus>,
}

impl Sources {
    /// Whether the same tables come of both. What differs otherwise may still make the same ones.
    pub(super) fn are(&self, other: &Self) -> bool {
        self.orders.is(&other.orders)
            && self.local == other.local
            && Arc::ptr_eq(&self.mtus, &other.mtus)
            && makes_same_tables(&self.view, &other.view)
    }
}

/// Loads are in no table, and whoever is suspected is still there.
fn makes_same_tables(a: &Arc<NetdbView>, b: &Arc<NetdbView>) -> bool {
    let says_same = || a.has_same(Table::Node, b) && a.has_same(Table::Endpoint, b);
    Arc::ptr_eq(a, b) || (a.has_same_active(b) && says_same())
}

/// Whether nodes are as they were, and say the same of themselves: at most endpoints and load
/// reports differ.
pub(super) fn has_same_nodes(a: &Arc<NetdbView>, b: &Arc<NetdbView>) -> bool {
    Arc::ptr_eq(a, b) || (a.members == b.members && a.has_same(Table::Node, b))
}

/// What is due.
#[derive(Debug)]
pub(super) struct Due {
    /// Reports are to be read that are others than in this view.
    hear: Option<Arc<NetdbView>>,
    /// All of them, as those of others count than before.
    again: bool,
    /// What was heard is to be given to the workers.
    count: bool,
    /// Of every replica, with its age: what a node has not said in a tick is as it was.
    all: bool,
}

impl Due {
    /// Gives to the counters what `view` says; the reports of nodes that `reports` names count, and
    /// were right at `counted`.
    pub(super) fn give(
        &self,
        view: &NetdbView,
        loads: &mut Loads,
        reports: impl Fn(&NodeId) -> bool,
        counted: weft_wire::Instant,
    ) {
        if let Some(before) = &self.hear {
            let nobody = NetdbView::default();
            let mut known = &**before;
            if self.again {
                loads.forget_reports();
                known = &nobody;
            }
            let news = view.changed_loads(known);
            loads.hear(news.filter(|(by, ..)| reports(by)));
            loads.set_pressures(view.changed_pressures(before));
        }
        if self.all {
            loads.set_others(counted);
        } else if self.count {
            loads.set_changed(counted);
        }
    }
}

/// What was taken in, and when.
#[derive(Debug, Default)]
pub(super) struct Intake {
    view: Option<Arc<NetdbView>>,
    at: Option<Instant>,
    /// The same reports are to be read again.
    again: bool,
    /// Own counts are to be told, as a tick has passed.
    pub(super) tell: bool,
}

impl Intake {
    /// The reports of others count than before: those that were read are to be read again.
    pub(super) const fn read_again(&mut self) {
        self.again = true;
    }

    /// What is due at `now`; `ticked` says that a tick has passed.
    pub(super) fn look(&mut self, view: &Arc<NetdbView>, ticked: bool, now: Instant) -> Due {
        self.tell |= ticked;
        let read = self
            .view
            .as_ref()
            .is_some_and(|last| Arc::ptr_eq(last, view) || last.has_same(Table::Load, view));
        let hear = self.again || !read;
        let rested = self.at.is_none_or(|at| now.duration_since(at) >= PACE);
        let count = ticked || (hear && rested);
        let mut due = Due {
            hear: None,
            again: false,
            count,
            all: ticked,
        };
        if count {
            let before = self.view.replace(Arc::clone(view)).unwrap_or_default();
            due.hear = hear.then_some(before);
            due.again = std::mem::take(&mut self.again);
            self.at = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use weft_gossip::{Config, Gossip, Identity};

    use super::*;

    struct Node(Gossip);

    impl Node {
        fn new() -> Self {
            let id = Identity::new("n".into(), ([10, 0, 0, 1], 7946).into(), 1);
            Self(Gossip::new(Config::default(), id, [0; 32], Duration::ZERO))
        }

        /// The view after it said this.
        fn says(&mut self, table: Table, key: &str, value: &'static str) -> Arc<NetdbView> {
            let value = Bytes::from_static(value.as_bytes());
            let put = self.0.put(Duration::ZERO, table, key, value);
            assert!(put.unwrap(), "it says something new");
            Arc::new(self.0.view())
        }
    }

    #[test]
    fn load_reports_make_no_tables_and_endpoints_are_no_news_of_nodes() {
        let mut node = Node::new();
        let start = node.says(Table::Endpoint, "e", r#"{"id": "e", "ready": false}"#);
        let loaded = node.says(Table::Load, "e", r#"{"active": 1}"#);
        let ready = node.says(Table::Endpoint, "e", r#"{"id": "e", "ready": true}"#);
        let spoken = node.says(Table::Node, "n", r#"{"mtu": 1500}"#);
        assert!(makes_same_tables(&start, &loaded) && has_same_nodes(&start, &loaded));
        assert!(!makes_same_tables(&loaded, &ready) && has_same_nodes(&loaded, &ready));
        assert!(!makes_same_tables(&ready, &spoken) && !has_same_nodes(&ready, &spoken));
        let mut suspected = NetdbView::clone(&spoken);
        for member in Arc::make_mut(&mut suspected.members).values_mut() {
            member.state = weft_gossip::MemberState::Suspect;
        }
        let suspected = Arc::new(suspected);
        assert!(makes_same_tables(&spoken, &suspected), "it is still there");
        assert!(!has_same_nodes(&spoken, &suspected), "people see it");
        let mut down = NetdbView::clone(&spoken);
        Arc::make_mut(&mut down.members).clear();
        assert!(!makes_same_tables(&spoken, &Arc::new(down)));
    }

    #[test]
    fn reports_are_taken_in_when_there_are_new_ones_and_counts_told_once_in_a_tick() {
        let mut node = Node::new();
        let (mut intake, start) = (Intake::default(), Instant::now());
        let look = |intake: &mut Intake, view: &Arc<NetdbView>, ticked, now| {
            let due = intake.look(view, ticked, now);
            assert_eq!(due.all, ticked);
            (due.hear.is_some(), due.count, due.again)
        };
        let nothing = (false, false, false);
        let view = node.says(Table::Load, "e", r#"{"active": 1}"#);
        intake.read_again();
        assert_eq!(look(&mut intake, &view, false, start), (true, true, true));
        assert!(!intake.tell);
        let later = start + PACE;
        assert_eq!(look(&mut intake, &view, false, later), nothing);
        let other = node.says(Table::Endpoint, "e", r#"{"id": "e", "ready": true}"#);
        assert_eq!(look(&mut intake, &other, false, later), nothing);
        assert!(!intake.tell);
        // What is not said again was so a tick ago.
        let counted = (false, true, false);
        assert_eq!(look(&mut intake, &other, true, later), counted);
        assert!(std::mem::take(&mut intake.tell), "a tick has passed");
        let news = node.says(Table::Load, "e", r#"{"active": 2}"#);
        let soon = later + PACE / 2;
        assert_eq!(look(&mut intake, &news, false, soon), nothing);
        let then = later + PACE;
        let due = intake.look(&news, false, then);
        assert!(due.count && !due.again);
        let before = due.hear.expect("there are new ones");
        assert_eq!(news.changed_loads(&before).count(), 1);
        assert!(!intake.tell);
        // Others count now: their reports are not forgotten until they are read.
        intake.read_again();
        assert_eq!(look(&mut intake, &news, false, then), nothing);
        let then = then + PACE;
        assert_eq!(look(&mut intake, &news, false, then), (true, true, true));
        assert_eq!(look(&mut intake, &news, false, then), nothing);
    }
}
