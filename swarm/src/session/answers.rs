//! What the manager that leads asks of this node. Answers have a connection of their own: who does not
//! read them holds up no heartbeat.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::Streaming;
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
/// Answers at once at most, of each kind: less than a manager takes of one connection.
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

impl Line {
    fn to(manager: &str, identity: &Arc<Identity>) -> Arc<Self> {
        Arc::new(Self {
            manager: manager.to_owned(),
            identity: Arc::clone(identity),
            channel: OnceCell::new(),
        })
    }
}

/// The lines of each kind of answer: output that is followed goes on for days, and must not keep
/// anybody from running a program.
struct Lines {
    output: Arc<Line>,
    programs: Arc<Line>,
}

/// Answers of one kind that are under way.
struct Share {
    line: Arc<Line>,
    answering: JoinSet<()>,
}

impl Share {
    fn of(line: &Arc<Line>) -> Self {
        Self {
            line: Arc::clone(line),
            answering: JoinSet::new(),
        }
    }

    fn begin(&mut self, answerer: &Answerer, id: u64, asked: talk::Question) {
        while self.answering.try_join_next().is_some() {}
        if self.answering.len() >= AT_ONCE {
            tracing::warn!("a question of the manager is not answered: too many at once");
            return;
        }
        let (line, answerer) = (Arc::clone(&self.line), answerer.clone());
        self.answering.spawn(async move {
            if let Err(error) = answer(&line, &answerer, id, asked).await {
                tracing::debug!(%error, "a question of the manager is not answered");
            }
        });
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
        let lines = Lines {
            output: Line::to(manager, identity),
            programs: Line::to(manager, identity),
        };
        loop {
            let answerer = answerers.borrow_and_update().clone();
            if let Some(answerer) = answerer {
                if let Err(error) = listen(&session, &lines, &answerer).await {
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

async fn listen(session: &Channel, lines: &Lines, answerer: &Answerer) -> Result<(), CommandError> {
    let request = ListenRequest { schema: SCHEMA };
    let mut questions = rpc(BrokerClient::new(session.clone()).listen(request)).await?;
    let (mut output, mut programs) = (Share::of(&lines.output), Share::of(&lines.programs));
    while let Some(question) = next(&mut questions).await? {
        let Question {
            id,
            schema,
            question_json,
        } = question;
        let (share, asked) = match decode::<talk::Question>(schema, &question_json) {
            Ok(asked @ talk::Question::Logs { .. }) => (&mut output, asked),
            Ok(asked @ (talk::Question::Exec { .. } | talk::Question::Volumes { .. })) => {
                (&mut programs, asked)
            }
            Err(status) => {
                let error = from_status(&status);
                tracing::debug!(%error, "a question of the manager is not answered");
                continue;
            }
        };
        share.begin(answerer, id, asked);
    }
    Ok(())
}

async fn next(questions: &mut Streaming<Question>) -> Result<Option<Question>, CommandError> {
    let question = questions.message().await;
    question.map_err(|status| from_status(&status))
}

async fn answer(
    line: &Line,
    answerer: &Answerer,
    id: u64,
    asked: talk::Question,
) -> Result<(), CommandError> {
    let first = Piece {
        id,
        data: Bytes::new(),
    };
    let channel = line.channel().await?;
    let mut client = BrokerClient::new(channel).max_decoding_message_size(MAX_PIECE);
    let dialled = Exchange::dial(first, |stream| async move { client.answer(stream).await });
    let exchange = dialled.await.map_err(|status| from_status(&status))?;
    answerer.answer(asked, exchange).await;
    Ok(())
}
