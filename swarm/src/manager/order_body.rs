//! Orders on their way to a session, as the body of its answer.
//!
//! tonic encodes all messages of a stream into one buffer, which it keeps for as long as the stream lasts.
//! The first orders of a large cluster are long, and the stream lasts as long as the node: with a thousand
//! nodes that buffer would be most of what a session costs. Here each message has its own, which goes as
//! soon as it is sent.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use hyper::body::Frame;
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Body as HttpBody;
use tonic::codegen::http::{HeaderMap, Response};

use super::turns::Turn;
use crate::proto::SessionMessage;

/// Before each message: whether it is compressed, and its length (gRPC over HTTP2, "Requests").
const PREFIX: usize = 5;

type Orders = mpsc::Receiver<Result<Outgoing, Status>>;

/// A message, and the turn of what is in it.
pub(super) struct Outgoing {
    pub(super) message: SessionMessage,
    pub(super) turn: Option<Turn>,
}

/// Encoded. The turn is over when nobody has the bytes any more, the connection included.
struct Carried {
    bytes: Bytes,
    _turn: Turn,
}

impl AsRef<[u8]> for Carried {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Orders that wait in the extensions of an answer for [`carry`]. Those can be copied, so the first one who
/// asks has it.
#[derive(Debug, Clone)]
pub(super) struct Waiting(Arc<Mutex<Option<Orders>>>);

impl Waiting {
    pub(super) fn new(orders: Orders) -> Self {
        Self(Arc::new(Mutex::new(Some(orders))))
    }

    fn take(&self) -> Option<Orders> {
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        orders.take()
    }
}

/// Has the answer to a session carry its orders; leaves others as they are.
pub(super) fn carry(mut answer: Response<Body>) -> Response<Body> {
    let waiting = answer.extensions_mut().remove::<Waiting>();
    if let Some(orders) = waiting.and_then(|waiting| waiting.take()) {
        let is_over = false;
        *answer.body_mut() = Body::new(OrderBody { orders, is_over });
    }
    answer
}

/// Ends with the status of the session.
#[derive(Debug)]
struct OrderBody {
    orders: Orders,
    is_over: bool,
}

impl HttpBody for OrderBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let next = ready!(self.orders.poll_recv(cx));
        let encoded = next.map(|outgoing| outgoing.and_then(carried));
        let end = match encoded {
            Some(Ok(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.is_over = true;
        let mut trailers = HeaderMap::new();
        let written = end.add_header(&mut trailers);
        Poll::Ready(Some(written.map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

/// A message as it goes out.
fn carried(outgoing: Outgoing) -> Result<Bytes, Status> {
    let bytes = encoded(&outgoing.message)?;
    Ok(match outgoing.turn {
        Some(turn) => Bytes::from_owner(Carried { bytes, _turn: turn }),
        None => bytes,
    })
}

/// A message with what is before it.
fn encoded(message: &SessionMessage) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    let told = u32::try_from(length).map_err(|_| {
        Status::resource_exhausted(format!("orders of {length} bytes do not go into a message"))
    })?;
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(told);
    let encoded = message.encode(&mut bytes);
    encoded.map_err(|error| Status::internal(error.to_string()))?;
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use tokio::time::Instant;
    use tonic::Code;

    use super::super::turns::{ON_THE_WAY, Turns};
    use super::*;

    fn message(length: usize) -> SessionMessage {
        SessionMessage {
            schema: 3,
            shared_json: Some(Bytes::from(vec![b'x'; length])),
            ..SessionMessage::default()
        }
    }

    /// What goes out after that, and how it ends.
    async fn carried(sent: Vec<Result<SessionMessage, Status>>) -> (Vec<Bytes>, Status) {
        let (out, orders) = mpsc::channel(sent.len().max(1));
        for message in sent {
            let turn = None;
            let outgoing = message.map(|message| Outgoing { message, turn });
            out.send(outgoing).await.unwrap();
        }
        drop(out);
        let mut answer = Response::new(Body::empty());
        answer.extensions_mut().insert(Waiting::new(orders));
        let mut body = pin!(carry(answer).into_body());
        let mut messages = Vec::new();
        while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            match frame.unwrap().into_data() {
                Ok(data) => messages.push(data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap();
                    let end = poll_fn(|cx| body.as_mut().poll_frame(cx)).await;
                    assert!(end.is_none(), "trailers are the end");
                    return (messages, Status::from_header_map(&trailers).unwrap());
                }
            }
        }
        panic!("it ends without a status");
    }

    #[tokio::test]
    async fn a_session_hears_all_messages_and_why_it_is_over() {
        let long = 300_000;
        let removed = Status::permission_denied("node n was removed");
        let sent = vec![Ok(message(long)), Ok(message(1)), Err(removed)];
        let (messages, end) = carried(sent).await;
        let lengths = [long, 1];
        assert_eq!(messages.len(), lengths.len());
        for (bytes, length) in messages.iter().zip(lengths) {
            let (before, after) = bytes.split_at(PREFIX);
            assert_eq!(before[0], 0, "not compressed");
            let told = u32::from_be_bytes([before[1], before[2], before[3], before[4]]);
            assert_eq!(told as usize, after.len());
            let whole = SessionMessage::decode(after).unwrap() == message(length);
            assert!(whole, "{length} bytes");
        }
        assert_eq!(end.code(), Code::PermissionDenied);
        assert_eq!(end.message(), "node n was removed");
        let (messages, end) = carried(Vec::new()).await;
        assert_eq!((messages.len(), end.code()), (0, Code::Ok));
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_over_when_the_bytes_have_gone() {
        let turns = Turns::default();
        let outgoing = Outgoing {
            message: message(10),
            turn: turns.try_take(ON_THE_WAY),
        };
        let (out, orders) = mpsc::channel(1);
        out.send(Ok(outgoing)).await.unwrap();
        let mut answer = Response::new(Body::empty());
        answer.extensions_mut().insert(Waiting::new(orders));
        let mut body = pin!(carry(answer).into_body());
        let frame = poll_fn(|cx| body.as_mut().poll_frame(cx)).await.unwrap();
        let Ok(data) = frame.unwrap().into_data() else {
            panic!("it is a message");
        };
        let part = data.slice(..PREFIX);
        drop(data);
        tokio::task::yield_now().await;
        assert!(turns.try_take(1).is_none(), "some of it is still here");
        let begun = Instant::now();
        drop(part);
        turns.queue(1).await.unwrap();
        assert_eq!(begun.elapsed(), std::time::Duration::ZERO);
    }

    #[test]
    fn other_answers_are_as_they_were() {
        let answer = carry(Status::not_found("x").into_http());
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.code(), Code::NotFound);
    }
}
