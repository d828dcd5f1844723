//! The way to another node, tried with loopback messages of the data path: what `weft ping` tells
//! and `weft doctor` looks at.
//!
//! A question that is answered has passed both ways. One that is not may have been lost on either:
//! so it is asked again with the wish for the shortest answer, which tells whether questions of
//! that length arrive, and with the wish that the other node says by gossip which it heard, which
//! tells whether anything arrives where no answer does.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use weft_model::api::{Passage, PingQuery, Pong};
use weft_model::assignment::Assignment;
use weft_model::id::NodeId;
use weft_sys::clock::monotonic_nanos;
use weft_wire::Instant;

use crate::api::{Answer, ApiError};
use crate::parts::data_path::DataPath;
use crate::parts::questions::Wish;

/// Bytes of the small packet of a ping: as much as an empty one of ping(8) has.
pub(crate) const SMALL: u16 = 64;

/// How long an answer is waited for when nobody says so.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// At most, that a call of the API ends.
const MOST_PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks for answers. When they came the workers say.
const LOOK: Duration = Duration::from_millis(1);
/// Between two looks while nobody waits: for what others want to be told.
const IDLE: Duration = Duration::from_millis(100);
/// After silence: so many questions about each direction, that one lost packet condemns nobody.
const RETRIES: usize = 3;
const RETRY: Duration = Duration::from_millis(300);
/// What the other node heard is known here within this time, as gossip goes.
const HEARSAY: Duration = Duration::from_millis(1500);

/// Another node's end of the data path.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    pub(crate) name: String,
    pub(crate) vtep: IpAddr,
}

/// What came of packets of one length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// Of the question that was answered at once; none when it was not.
    pub(crate) rtt: Option<Duration>,
    pub(crate) there: Passage,
    pub(crate) back: Passage,
}

impl Found {
    pub(crate) const fn passes(&self) -> bool {
        matches!((self.there, self.back), (Passage::Passes, Passage::Passes))
    }
}

/// Takes in what others say until `stop` is true.
pub(crate) async fn run(data_path: Arc<DataPath>, mut stop: watch::Receiver<bool>) {
    loop {
        collect(&data_path);
        tokio::select! {
            () = tokio::time::sleep(IDLE) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

fn collect(data_path: &DataPath) {
    while let Some(heard) = data_path.plane.receive_loopback() {
        data_path.questions.handle(&heard);
    }
}

/// Every other node that the orders name.
pub(crate) fn peers(orders: &Assignment) -> impl Iterator<Item = Peer> {
    let own = &orders.own.node.id;
    let others = orders.shared.nodes.iter().filter(move |n| n.id != *own);
    others.map(|n| Peer {
        id: n.id.clone(),
        name: n.hostname.clone(),
        vtep: n.data_path_addr,
    })
}

/// The node that a name, an id, the start of one, or an address means.
///
/// # Errors
/// None, several, this one, or somebody who cannot answer.
pub(crate) fn find(orders: &Assignment, asked: &str) -> Answer<Peer> {
    let own = &orders.own.node;
    let by_name = asked == own.description.hostname || asked == own.id.as_str();
    if by_name || is_address(asked, own.data_path_addr) {
        return Err(ApiError::bad_request(format!(
            "{asked} is this node itself: name another one"
        )));
    }
    let all: Vec<Peer> = peers(orders).collect();
    let exact = |p: &&Peer| p.name == asked || p.id.as_str() == asked || is_address(asked, p.vtep);
    let mut found: Vec<&Peer> = all.iter().filter(exact).collect();
    if found.is_empty() && !asked.is_empty() {
        found = all
            .iter()
            .filter(|p| p.id.as_str().starts_with(asked))
            .collect();
    }
    match found[..] {
        [peer] => Ok(peer.clone()),
        [] if orders
            .shared
            .peers
            .iter()
            .any(|p| is_address(asked, p.vtep)) =>
        {
            Err(ApiError::bad_request(format!(
                "{asked} is a static peer, and those answer no ping of the data path: nodes do. \
                 Ask for one of its addresses inside the network, from a sandbox on it"
            )))
        }
        [] => Err(ApiError::not_found(format!(
            "no other node is called {asked}, and none has it as id or data-path address; this \
             node knows {}",
            list(&all)
        ))),
        _ => Err(ApiError::bad_request(format!(
            "node {asked} is ambiguous ({} matches found): give one's id, or its data-path address",
            found.len()
        ))),
    }
}

fn is_address(asked: &str, ip: IpAddr) -> bool {
    asked.parse().is_ok_and(|asked: IpAddr| asked == ip)
}

fn list(peers: &[Peer]) -> String {
    if peers.is_empty() {
        return "no other one".to_owned();
    }
    let names: Vec<&str> = peers.iter().map(|p| p.name.as_str()).collect();
    names.join(", ")
}

/// Bytes of the largest packet that the way to a node is taken to carry.
pub(crate) fn full(data_path: &DataPath, to: IpAddr) -> u16 {
    let mtus = data_path.mtus.load();
    mtus.paths.get(&to).copied().unwrap_or(mtus.port)
}

/// One question of `weft ping`.
///
/// # Errors
/// The size is none that a packet can have.
pub(crate) async fn ping(
    data_path: &DataPath,
    orders: &Assignment,
    asked: &str,
    query: &PingQuery,
) -> Answer<Pong> {
    let peer = find(orders, asked)?;
    let full = full(data_path, peer.vtep);
    let size = query.size.unwrap_or(full);
    let least = u16::try_from(weft_wire::loopback::MIN_LEN).unwrap_or(u16::MAX);
    if !(least..=full).contains(&size) {
        return Err(ApiError::bad_request(format!(
            "packets to {} have {least} to {full} bytes, and {size} is none of it",
            peer.name
        )));
    }
    let patience = query.timeout_ms.map_or(PATIENCE, Duration::from_millis);
    let own = &orders.own.node.id;
    let found = examine(data_path, own, &peer, size, patience.min(MOST_PATIENCE)).await;
    Ok(Pong {
        node: peer.name,
        from: orders.own.node.data_path_addr,
        to: peer.vtep,
        port: orders.shared.data_path_port,
        size,
        rtt_us: found
            .rtt
            .map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
        there: found.there,
        back: found.back,
    })
}

/// Finds out whether packets of `size` bytes pass, and where they do not.
pub(crate) async fn examine(
    data_path: &DataPath,
    own: &NodeId,
    peer: &Peer,
    size: u16,
    patience: Duration,
) -> Found {
    let both = |rtt| Found {
        rtt,
        there: Passage::Passes,
        back: Passage::Passes,
    };
    let (rtt, _) = ask(data_path, peer.vtep, size, Wish::Whole, patience).await;
    if rtt.is_some() {
        return both(rtt);
    }
    let mut numbers = Vec::new();
    let mut arrives = false;
    for _ in 0..RETRIES {
        let (answer, number) = ask(data_path, peer.vtep, size, Wish::ShortAndTold, RETRY).await;
        numbers.push(number);
        if answer.is_some() {
            arrives = true;
            break;
        }
    }
    if arrives {
        for _ in 0..RETRIES {
            if ask(data_path, peer.vtep, size, Wish::Whole, RETRY)
                .await
                .0
                .is_some()
            {
                return both(None);
            }
        }
    } else if !is_told(data_path, own, peer, &numbers).await {
        return Found {
            rtt: None,
            there: Passage::Lost,
            back: Passage::Unknown,
        };
    }
    Found {
        rtt: None,
        there: Passage::Passes,
        back: Passage::Lost,
    }
}

/// Asks one question; how long its answer took, and its number.
async fn ask(
    data_path: &DataPath,
    to: IpAddr,
    size: u16,
    wish: Wish,
    patience: Duration,
) -> (Option<Duration>, u32) {
    let now = || Instant(monotonic_nanos());
    let question = data_path
        .questions
        .begin(now(), to, size, wish, rand::random());
    let number = question.said().number;
    if !data_path.plane.send_loopback(to, question.said()) {
        return (None, number);
    }
    let deadline = now().after(patience);
    loop {
        collect(data_path);
        let answer = question.answer();
        if answer.is_some() || now() >= deadline {
            return (answer, number);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether the other node says by gossip that it heard one of these questions.
async fn is_told(data_path: &DataPath, own: &NodeId, peer: &Peer, numbers: &[u32]) -> bool {
    let mut view = data_path.gossip.view();
    let heard = async {
        let found = view.wait_for(|view| {
            view.nodes().any(|(owner, record)| {
                *owner == peer.id
                    && record
                        .heard
                        .iter()
                        .any(|h| h.node == *own && numbers.contains(&h.number))
            })
        });
        found.await.is_ok()
    };
    tokio::time::timeout(HEARSAY, heard).await.unwrap_or(false)
}
