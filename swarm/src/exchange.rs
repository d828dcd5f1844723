//! Conversations: bytes both ways, in pieces, over the connections between nodes.

use std::future::Future;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};
use weft_cluster::CommandError;

use crate::convert::from_status;
use crate::proto::Piece;

/// Bytes of one message of a conversation at most: of a piece, and what is around it.
pub(crate) const MAX_PIECE: usize = 256 << 10;

/// Pieces of each way that wait for their reader, at each step.
const WAITING: usize = 4;

/// What goes back over a connection that somebody else opened.
pub(crate) type Pieces = ReceiverStream<Result<Piece, Status>>;

/// One end of a conversation. Dropping it ends the conversation, and may lose what was said last;
/// [`Exchange::finish`] does not. A conversation is over for both when `incoming` has ended.
#[derive(Debug)]
pub struct Exchange {
    /// What the other end says. Nothing follows an error.
    pub incoming: mpsc::Receiver<Result<Bytes, CommandError>>,
    /// For the other end, 128 KiB at once at most.
    pub outgoing: mpsc::Sender<Bytes>,
}

impl Exchange {
    /// Both ends of a conversation in this process.
    #[must_use]
    pub fn pair() -> (Self, Self) {
        let (here, far) = (half(), half());
        tokio::spawn(pass(here.said, far.heard, Ok));
        tokio::spawn(pass(far.said, here.heard, Ok));
        (here.end, far.end)
    }

    /// Says nothing more, and waits until the other end has heard all and ends the conversation.
    pub async fn finish(self) {
        let Self {
            mut incoming,
            outgoing,
        } = self;
        drop(outgoing);
        while incoming.recv().await.is_some() {}
    }

    /// The end of who was called.
    pub(crate) fn accept(stream: Streaming<Piece>) -> (Self, Pieces) {
        let Half { end, said, heard } = half();
        let (to_wire, wire) = mpsc::channel(WAITING);
        tokio::spawn(hear(stream, heard));
        tokio::spawn(pass(said, to_wire, |data| Ok(Piece { id: 0, data })));
        (end, ReceiverStream::new(wire))
    }

    /// The end of who calls: `call` has the stream that begins with `first`.
    pub(crate) async fn dial<A>(
        first: Piece,
        call: impl FnOnce(ReceiverStream<Piece>) -> A,
    ) -> Result<Self, Status>
    where
        A: Future<Output = Result<Response<Streaming<Piece>>, Status>>,
    {
        let (to_wire, wire) = mpsc::channel(WAITING);
        // There is room, and a reader.
        drop(to_wire.send(first).await);
        let stream = call(ReceiverStream::new(wire)).await?.into_inner();
        let Half { end, said, heard } = half();
        tokio::spawn(hear(stream, heard));
        tokio::spawn(pass(said, to_wire, |data| Piece { id: 0, data }));
        Ok(end)
    }

    /// Passes on between two conversations until either ends.
    pub(crate) fn join(self, other: Self) {
        tokio::spawn(relay(self.incoming, other.outgoing));
        tokio::spawn(relay(other.incoming, self.outgoing));
    }
}

/// An end, and what belongs to it on the other side.
struct Half {
    end: Exchange,
    said: mpsc::Receiver<Bytes>,
    heard: mpsc::Sender<Result<Bytes, CommandError>>,
}

fn half() -> Half {
    let (heard, incoming) = mpsc::channel(WAITING);
    let (outgoing, said) = mpsc::channel(WAITING);
    Half {
        end: Exchange { incoming, outgoing },
        said,
        heard,
    }
}

/// Until nothing more is said, or nobody listens.
async fn pass<T: Send>(
    mut said: mpsc::Receiver<Bytes>,
    to: mpsc::Sender<T>,
    form: impl Fn(Bytes) -> T + Send,
) {
    loop {
        let piece = tokio::select! {
            piece = said.recv() => piece,
            () = to.closed() => None,
        };
        let Some(piece) = piece else { return };
        if to.send(form(piece)).await.is_err() {
            return;
        }
    }
}

async fn hear(mut stream: Streaming<Piece>, heard: mpsc::Sender<Result<Bytes, CommandError>>) {
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            () = heard.closed() => return,
        };
        let said = match message {
            Ok(Some(piece)) => Ok(piece.data),
            Ok(None) => return,
            Err(status) => Err(from_status(&status)),
        };
        let over = said.is_err();
        if heard.send(said).await.is_err() || over {
            return;
        }
    }
}

async fn relay(mut from: mpsc::Receiver<Result<Bytes, CommandError>>, to: mpsc::Sender<Bytes>) {
    loop {
        let said = tokio::select! {
            said = from.recv() => said,
            () = to.closed() => return,
        };
        let Some(Ok(piece)) = said else { return };
        if to.send(piece).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_said_arrives_and_an_end_that_is_dropped_is_told() {
        let (mut here, mut far) = Exchange::pair();
        here.outgoing.send("ask".into()).await.unwrap();
        assert_eq!(far.incoming.recv().await, Some(Ok("ask".into())));
        for n in 0..20 {
            let said = Bytes::from(vec![n]);
            far.outgoing.send(said.clone()).await.unwrap();
            assert_eq!(here.incoming.recv().await, Some(Ok(said)));
        }
        far.outgoing.send("last".into()).await.unwrap();
        drop(far.outgoing);
        assert_eq!(here.incoming.recv().await, Some(Ok("last".into())));
        assert_eq!(here.incoming.recv().await, None);
        drop(here);
        assert_eq!(far.incoming.recv().await, None);
    }

    #[tokio::test]
    async fn joined_conversations_are_one() {
        let ((mut user, a), (b, node)) = (Exchange::pair(), Exchange::pair());
        a.join(b);
        node.outgoing.send("line".into()).await.unwrap();
        assert_eq!(user.incoming.recv().await, Some(Ok("line".into())));
        drop(user);
        // Nobody reads any more: who speaks is told.
        node.outgoing.closed().await;
    }
}
