//! Answers the conversations that others begin.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use weft_gossip::MAX_STREAM_MESSAGE;
use weft_swarm::door::{Door, FLUSH, Limits, Place, count};

use super::stats::add;
use super::stream::Conversations;

/// Conversations at a time. A node has few with another, and the orders name its address before it
/// speaks; strangers get their places so that a node whose orders are late can speak all the same.
pub(super) const LIMITS: Limits = Limits {
    strangers: 32,
    per_source: 8,
    per_known: 8,
    // Nobody shows a certificate here.
    per_member: 0,
    burst: 64,
    per_second: 20,
};

/// Bytes of the first message of a stranger: it begins with what it has, which is short. Nothing
/// is known of who sent a message until all of it is here.
const STRANGERS_FIRST: usize = 256 << 10;

/// Answers until dropped.
pub(super) async fn answer(listener: TcpListener, door: Arc<Door>, conversations: Conversations) {
    let mut answers = JoinSet::new();
    let mut flush = tokio::time::interval(FLUSH);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = answers.join_next() => continue,
            _ = flush.tick() => {
                door.flush();
                continue;
            }
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                door.accept_failed(&error).await;
                continue;
            }
        };
        if let Some((stream, place)) = door.enter(stream, from) {
            let (door, conversations) = (Arc::clone(&door), conversations.clone());
            answers.spawn(async move {
                converse(&door, &conversations, stream, from, &place).await;
            });
        }
    }
}

async fn converse(
    door: &Door,
    conversations: &Conversations,
    mut stream: TcpStream,
    from: SocketAddr,
    place: &Place,
) {
    let first = if door.is_known(from.ip()) {
        MAX_STREAM_MESSAGE
    } else {
        STRANGERS_FIRST
    };
    let said = tokio::select! {
        said = conversations.converse(&mut stream, from, first) => said,
        () = place.turned_out() => Err(std::io::Error::other("its place was needed")),
    };
    let counter = match said {
        Ok(()) => &conversations.counters.streams,
        Err(error) => {
            if error.kind() == std::io::ErrorKind::TimedOut {
                count(&door.counters().expired);
            }
            &conversations.counters.streams_failed
        }
    };
    add(counter, 1);
}
