//! Which endpoints of other nodes are believed, kept from one look to the next: read again is what
//! other words, or other orders, are about.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;
use weft_model::assignment::{EndpointView, Shared};
use weft_model::id::{EndpointId, NodeId};

use super::heard::{Heard, Mark, Words};
use super::known::KnownEndpoint;

/// The endpoints of each node. A copy shares all but what changes later.
pub(super) type Lists = RedBlackTreeMapSync<NodeId, Arc<[Arc<KnownEndpoint>]>>;

/// Endpoints of other nodes: named by the orders, and spoken of by the node that the orders name.
/// Who speaks of what is not his is not believed, and called by his name ([`Self::problems`]). What
/// the orders do not name may be newer than they are, and is there when they come.
#[derive(Debug, Default)]
pub(super) struct Believed {
    orders: Option<Arc<Shared>>,
    /// The endpoints of the orders.
    named: BTreeMap<EndpointId, Arc<EndpointView>>,
    nodes: BTreeMap<NodeId, OfNode>,
    /// The words that were read.
    read: Option<Mark>,
    /// The endpoints of `nodes`, and who of them lies.
    lists: Lists,
    liars: BTreeSet<NodeId>,
}

/// What a look has found to be another than before.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Differs {
    /// Endpoints that may have changed.
    pub(super) endpoints: BTreeSet<EndpointId>,
    /// Others speak for themselves than before.
    pub(super) speakers: bool,
    /// Others say what is not so.
    pub(super) lies: bool,
}

/// Words, and what is believed of them.
#[derive(Debug)]
struct OfNode {
    words: Arc<Words>,
    /// In the order of their ids.
    endpoints: Arc<[Arc<KnownEndpoint>]>,
    lie: Option<Lie>,
    /// It speaks of what is not its own, or not known yet.
    strays: bool,
}

/// Somebody speaks of another one's endpoints.
#[derive(Debug, PartialEq, Eq)]
struct Lie {
    /// Name of the first.
    endpoint: String,
    /// Whose that is.
    of: NodeId,
    count: usize,
}

impl Believed {
    /// Takes in what the orders and the others say now; `own` is this node.
    pub(super) fn update(&mut self, orders: &Arc<Shared>, own: &NodeId, heard: &Heard) -> Differs {
        let mut look = self.with_other_words(heard);
        self.read = Some(heard.mark());
        look.extend(self.with_other_orders(orders));
        let mut differs = Differs::default();
        for node in look {
            self.read(node, own, heard, &mut differs);
        }
        differs
    }

    /// An endpoint of another node.
    pub(super) fn get(&self, id: &EndpointId) -> Option<&Arc<KnownEndpoint>> {
        let view = self.named.get(id)?;
        self.nodes.get(&view.node)?.get(id)
    }

    /// The endpoints of each node.
    pub(super) const fn lists(&self) -> &Lists {
        &self.lists
    }

    /// Nodes that speak for themselves.
    pub(super) fn speakers(&self) -> impl Iterator<Item = &NodeId> {
        let speaking = self.nodes.iter().filter(|(_, of)| of.speaks());
        speaking.map(|(id, _)| id)
    }

    /// Who says what is not so, for people.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        let nodes = self.orders.iter().flat_map(|orders| &orders.nodes);
        let hostname = move |id: &NodeId| {
            let node = nodes.clone().find(|n| n.id == *id);
            node.map_or_else(|| id.to_string(), |n| n.hostname.clone())
        };
        let liars = self.liars.iter();
        let liars = liars.filter_map(|id| Some((id, self.nodes.get(id)?.lie.as_ref()?)));
        liars.map(move |(liar, lie)| {
            let more = match lie.count {
                1 => String::new(),
                count => format!(" and of {} more", count - 1),
            };
            format!(
                "node {} speaks of endpoint {} of node {}{more}, which is not its own: ignored",
                hostname(liar),
                lie.endpoint,
                hostname(&lie.of)
            )
        })
    }

    /// Who says something else than at the last look.
    fn with_other_words(&self, heard: &Heard) -> BTreeSet<NodeId> {
        let since = self.read.as_ref().and_then(|read| heard.since(read));
        let Some(since) = since else {
            return self.all_with_other_words(heard);
        };
        let differ = |id: &&NodeId| match (self.nodes.get(*id), heard.get(id)) {
            (Some(of), Some(words)) => !Arc::ptr_eq(&of.words, words),
            (None, None) => false,
            _ => true,
        };
        since.into_iter().filter(differ).cloned().collect()
    }

    fn all_with_other_words(&self, heard: &Heard) -> BTreeSet<NodeId> {
        let mut others = BTreeSet::new();
        let mut were = self.nodes.iter().peekable();
        for (node, words) in heard.words() {
            while let Some((gone, _)) = were.next_if(|(id, _)| *id < node) {
                others.insert(gone.clone());
            }
            let known = were.next_if(|(id, _)| *id == node);
            if known.is_none_or(|(_, of)| !Arc::ptr_eq(&of.words, words)) {
                others.insert(node.clone());
            }
        }
        others.extend(were.map(|(gone, _)| gone.clone()));
        others
    }

    /// Who is to be read again as the orders name other endpoints than at the last look.
    fn with_other_orders(&mut self, orders: &Arc<Shared>) -> BTreeSet<NodeId> {
        let mut others = BTreeSet::new();
        let before = self.orders.replace(Arc::clone(orders));
        if before
            .as_ref()
            .is_some_and(|before| Arc::ptr_eq(before, orders))
        {
            return others;
        }
        let known = before.as_ref().map(|before| before.endpoints.as_slice());
        let known = known.unwrap_or_default();
        let (were, are) = middle(known, &orders.endpoints);
        for view in were {
            self.named.remove(&view.id);
        }
        let mut gone: BTreeMap<&EndpointId, &Arc<EndpointView>> =
            were.iter().map(|view| (&view.id, view)).collect();
        for view in are {
            let was = gone.remove(&view.id);
            if was != Some(view) {
                others.extend(was.map(|was| was.node.clone()));
                others.insert(view.node.clone());
            }
            self.named.insert(view.id.clone(), Arc::clone(view));
        }
        let ended = !gone.is_empty();
        others.extend(gone.into_values().map(|view| view.node.clone()));
        // What they speak of may have a place now, or none any more.
        if ended || !are.is_empty() {
            let strays = self.nodes.iter().filter(|(_, of)| of.strays);
            others.extend(strays.map(|(id, _)| id.clone()));
        }
        others
    }

    fn read(&mut self, node: NodeId, own: &NodeId, heard: &Heard, differs: &mut Differs) {
        let before = self.nodes.remove(&node);
        let words = heard.get(&node);
        let after = words.map(|words| self.of(&node, own, words, before.as_ref()));
        let (was, is) = (before.as_ref(), after.as_ref());
        differs.speakers |= was.is_some_and(OfNode::speaks) != is.is_some_and(OfNode::speaks);
        differs.lies |= was.and_then(|of| of.lie.as_ref()) != is.and_then(|of| of.lie.as_ref());
        let list = |of: Option<&OfNode>| of.map(|of| Arc::clone(&of.endpoints));
        let (was, is) = (list(was).unwrap_or_default(), list(is).unwrap_or_default());
        let gone = was.iter().filter(|known| lacks(&is, known));
        let come = is.iter().filter(|known| lacks(&was, known));
        let ids = gone.chain(come).map(|known| known.id.clone());
        differs.endpoints.extend(ids);
        self.liars.remove(&node);
        let Some(after) = after else {
            self.lists.remove_mut(&node);
            return;
        };
        if after.lie.is_some() {
            self.liars.insert(node.clone());
        }
        self.lists
            .insert_mut(node.clone(), Arc::clone(&after.endpoints));
        self.nodes.insert(node, after);
    }

    /// What the words of a node come to. What has not changed is what it was `before`.
    fn of(
        &self,
        node: &NodeId,
        own: &NodeId,
        words: &Arc<Words>,
        before: Option<&OfNode>,
    ) -> OfNode {
        let (mut lie, mut strays) = (None, false);
        let mut endpoints = Vec::with_capacity(words.endpoints.len());
        for said in &words.endpoints {
            let Some(view) = self.named.get(&said.id) else {
                strays = true;
                continue;
            };
            if view.node != *node {
                strays = true;
                let lie = lie.get_or_insert_with(|| Lie {
                    endpoint: view.name.clone(),
                    of: view.node.clone(),
                    count: 0,
                });
                lie.count += 1;
            } else if view.node != *own {
                let now = KnownEndpoint::new(EndpointView::clone(view), said);
                let known = before.and_then(|before| before.get(&said.id));
                let known = known.filter(|known| ***known == now);
                endpoints.push(known.map_or_else(|| Arc::new(now), Arc::clone));
            }
        }
        endpoints.sort_by(|a, b| a.id.cmp(&b.id));
        OfNode {
            words: Arc::clone(words),
            endpoints: endpoints.into(),
            lie,
            strays,
        }
    }
}

impl OfNode {
    fn speaks(&self) -> bool {
        self.words.node.is_some()
    }

    fn get(&self, id: &EndpointId) -> Option<&Arc<KnownEndpoint>> {
        let at = self.endpoints.binary_search_by(|known| known.id.cmp(id));
        self.endpoints.get(at.ok()?)
    }
}

fn lacks(list: &[Arc<KnownEndpoint>], endpoint: &Arc<KnownEndpoint>) -> bool {
    !list.iter().any(|known| Arc::ptr_eq(known, endpoint))
}

/// What lies between the beginning and the end that both lists have in common: mostly little, as
/// the orders of one moment are those of the moment before but for a task.
fn middle<'a, T: PartialEq>(a: &'a [T], b: &'a [T]) -> (&'a [T], &'a [T]) {
    let pairs = a.iter().zip(b);
    let first = pairs.take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[first..], &b[first..]);
    let pairs = a.iter().rev().zip(b.iter().rev());
    let last = pairs.take_while(|(a, b)| a == b).count();
    (&a[..a.len() - last], &b[..b.len() - last])
}

#[cfg(test)]
mod tests;
