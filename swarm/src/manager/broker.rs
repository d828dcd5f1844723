//! The gRPC side of questions to nodes.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::engine::stopped;
use super::gate::{self, Peer};
use super::rpc::Rpc;
use crate::exchange::{Exchange, Pieces};
use crate::proto::broker_server::Broker;
use crate::proto::{ListenRequest, Piece, Question};

fn peer<T>(request: &Request<T>) -> Result<&Peer, Status> {
    let peer = request.extensions().get::<Peer>();
    peer.ok_or_else(|| Status::internal("the connection has no peer"))
}

#[tonic::async_trait]
impl Broker for Rpc {
    type ListenStream = ReceiverStream<Result<Question, Status>>;

    async fn listen(
        &self,
        request: Request<ListenRequest>,
    ) -> Result<Response<Self::ListenStream>, Status> {
        let member = gate::member(&self.0, peer(&request)?)?;
        let mut questions = self.0.questions.listen(&member.node);
        let (out, told) = mpsc::channel(1);
        let mut stop = self.0.stop.subscribe();
        tokio::spawn(async move {
            loop {
                let question = tokio::select! {
                    question = questions.recv() => question,
                    () = out.closed() => return,
                    () = stopped(&mut stop) => return,
                };
                let Some(question) = question else { return };
                if out.send(Ok(question)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(told)))
    }

    type AnswerStream = Pieces;

    async fn answer(
        &self,
        request: Request<Streaming<Piece>>,
    ) -> Result<Response<Self::AnswerStream>, Status> {
        let member = gate::member(&self.0, peer(&request)?)?;
        let mut stream = request.into_inner();
        let first = stream.message().await?;
        let id = first.map_or(0, |first| first.id);
        let waiting = self.0.questions.answered(&member.node, id);
        let waiting = waiting.ok_or_else(|| Status::not_found("nobody waits for this answer"))?;
        let (exchange, pieces) = Exchange::accept(stream);
        if waiting.send(exchange).is_err() {
            return Err(Status::not_found("nobody waits for this answer any more"));
        }
        Ok(Response::new(pieces))
    }
}
