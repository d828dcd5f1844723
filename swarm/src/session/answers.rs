//! What the manager that leads asks of this node. Answers have a connection of their own: who does not
//! read them holds up no heartbeat.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::transport::Channel;
use weft_cluster::CommandError;
use weft_model::talk;

use super::answerer::Answerer;
use super::{Session, Shared, rpc};
use crate::convert::{SCHEMA, decode, from_status};
use crate::exchange::{Exchange, MAX_PIECE};
use crate::identity::Identity;
use crate::proto::broker_client::BrokerClient;
use crate::proto::{ListenRequest, Piece, Question};
use crate::tls::{connect, member_config};

/// Before it is tried again to hear questions.
const AGAIN: Duration = Duration::from_secs(1);
/// Answers at once at most: less than a manager takes of one connection.
const AT_ONCE: usize = 12;

impl Session {
    /// Has questions of managers answered from now on.
    pub fn answer_with(&self, answerer: Answerer) {
        self.shared.answerer.send_replace(Some(answerer));
    }
}

/// The connection for answers, made for the first one.
struct Line {
    manager: String,
    identity: Arc<Identity>,
    channel: OnceCell<Channel>,
}

impl Line {
    async fn channel(&self) -> Result<Channel, CommandError> {
        let connected = self.channel.get_or_try_init(|| async {
            let config = member_config(&self.identity)?;
            connect(&self.manager, config).await
        });
        connected.await.cloned()
    }
}

impl Shared {
    /// Hears questions for as long as a session is open. Older managers have none.
    pub(super) async fn answer_questions(
        &self,
        manager: &str,
        identity: &Arc<Identity>,
        session: Channel,
    ) -> Result<Infallible, CommandError> {
        let mut answerers = self.answerer.subscribe();
        let line = Arc::new(Line {
            manager: manager.to_owned(),
            identity: Arc::clone(identity),
            channel: OnceCell::new(),
        });
        loop {
            let answerer = answerers.borrow_and_update().clone();
            if let Some(answerer) = answerer {
                if let Err(error) = listen(&session, &line, &answerer).await {
                    tracing::debug!(%error, "no questions of the manager are heard");
                }
                sleep(AGAIN).await;
            } else {
                // The sender is in `self`.
                drop(answerers.changed().await);
            }
        }
    }
}

async fn listen(
    session: &Channel,
    line: &Arc<Line>,
    answerer: &Answerer,
) -> Result<(), CommandError> {
    let request = ListenRequest { schema: SCHEMA };
    let mut questions = rpc(BrokerClient::new(session.clone()).listen(request)).await?;
    let mut answering = JoinSet::new();
    loop {
        let question = tokio::select! {
            question = questions.message() => question.map_err(|status| from_status(&status))?,
            Some(_) = answering.join_next() => continue,
        };
        let Some(question) = question else {
            return Ok(());
        };
        if answering.len() >= AT_ONCE {
            tracing::warn!("a question of the manager is not answered: too many at once");
            continue;
        }
        let (line, answerer) = (Arc::clone(line), answerer.clone());
        answering.spawn(async move {
            if let Err(error) = answer(&line, &answerer, question).await {
                tracing::debug!(%error, "a question of the manager is not answered");
            }
        });
    }
}

async fn answer(line: &Line, answerer: &Answerer, question: Question) -> Result<(), CommandError> {
    let asked: talk::Question =
        decode(question.schema, &question.question_json).map_err(|s| from_status(&s))?;
    let first = Piece {
        id: question.id,
        data: Bytes::new(),
    };
    let channel = line.channel().await?;
    let mut client = BrokerClient::new(channel).max_decoding_message_size(MAX_PIECE);
    let dialled = Exchange::dial(first, |stream| async move { client.answer(stream).await });
    let exchange = dialled.await.map_err(|status| from_status(&status))?;
    answerer.answer(asked, exchange).await;
    Ok(())
}
