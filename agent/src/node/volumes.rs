//! Calls about volumes: of this node, of another one, or of all, which the manager that leads asks.

use bytes::{Bytes, BytesMut};
use weft_model::api::{VolumeAnswer, VolumeAsk, Volumes, VolumesQuery};
use weft_model::talk::Talk;
use weft_swarm::{Exchange, Manager};

use crate::api::{Answer, ApiError, ErrorKind};
use crate::volumes;

/// No answer of all nodes is longer, in bytes.
const MAX_ANSWERS: usize = 32 << 20;

/// Asks this node itself.
pub(super) async fn of_this_node(own: &weft_volumes::Volumes, asked: VolumeAsk) -> Answer<Volumes> {
    one_or_refused(vec![volumes::ask(own, asked).await?])
}

/// Asks the node, or the nodes, that the query names.
pub(super) async fn of_nodes(
    manager: &Manager,
    query: VolumesQuery,
    asked: VolumeAsk,
) -> Answer<Volumes> {
    let all = query.node.is_none();
    let talk = Talk::Volumes {
        node: query.node,
        asked,
    };
    let answers = heard(manager.talk(talk).await?).await?;
    if all {
        Ok(Volumes { answers })
    } else {
        one_or_refused(answers)
    }
}

/// What one node has answered; where it did nothing, that is the error.
fn one_or_refused(answers: Vec<VolumeAnswer>) -> Answer<Volumes> {
    let refused = answers.first().and_then(|answer| answer.refused.as_ref());
    let Some(refused) = refused else {
        return Ok(Volumes { answers });
    };
    let kind = match refused.status {
        400 => ErrorKind::BadRequest,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        503 => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    Err(ApiError::new(kind, refused.message.clone()))
}

/// All that the manager tells: how many answers there are, then one in each line.
async fn heard(mut exchange: Exchange) -> Answer<Vec<VolumeAnswer>> {
    let mut text = BytesMut::new();
    while let Some(piece) = exchange.incoming.recv().await {
        let piece: Bytes = piece?;
        if text.len() + piece.len() > MAX_ANSWERS {
            return Err(ApiError::internal(format!(
                "the nodes' answers have more than {MAX_ANSWERS} bytes: ask one node after the other \
                 (--node)"
            )));
        }
        text.extend_from_slice(&piece);
    }
    read(&text)
}

fn read(text: &[u8]) -> Answer<Vec<VolumeAnswer>> {
    let broken = || {
        ApiError::unavailable(
            "the manager that leads stopped before all nodes had answered: give the command again",
        )
    };
    let mut lines = text.split(|byte| *byte == b'\n');
    let count = lines
        .next()
        .and_then(|line| serde_json::from_slice(line).ok());
    let count: usize = count.ok_or_else(broken)?;
    let answers: Result<Vec<VolumeAnswer>, _> = lines
        .filter(|line| !line.is_empty())
        .map(serde_json::from_slice)
        .collect();
    let answers = answers.map_err(|_| broken())?;
    if answers.len() == count {
        Ok(answers)
    } else {
        Err(broken())
    }
}

#[cfg(test)]
mod tests {
    use weft_model::api::VolumeRefusal;

    use super::*;

    #[test]
    fn half_an_answer_is_none() {
        let answers = read(b"2\n{\"Node\":\"n1\"}\n{\"Node\":\"n2\"}\n").expect("both");
        let nodes: Vec<&str> = answers.iter().map(|answer| answer.node.as_str()).collect();
        assert_eq!(nodes, ["n1", "n2"]);
        for half in [
            &b""[..],
            b"2\n",
            b"2\n{\"Node\":\"n1\"}\n",
            b"2\n{\"Node\":\"n1\"}\n{\"No",
            b"x\n",
        ] {
            let error = read(half).expect_err("half");
            assert_eq!(error.kind, ErrorKind::Unavailable);
        }
        assert!(read(b"0\n").expect("none").is_empty());
    }

    #[test]
    fn what_one_node_refuses_is_the_error() {
        let refused = |status: u16| {
            let answer = VolumeAnswer {
                refused: Some(VolumeRefusal {
                    status,
                    message: "why".into(),
                }),
                ..VolumeAnswer::default()
            };
            one_or_refused(vec![answer]).expect_err("refused")
        };
        for (status, kind) in [
            (400, ErrorKind::BadRequest),
            (404, ErrorKind::NotFound),
            (409, ErrorKind::Conflict),
            (503, ErrorKind::Unavailable),
            (500, ErrorKind::Internal),
            (7, ErrorKind::Internal),
        ] {
            let error = refused(status);
            assert_eq!((error.kind, error.message.as_str()), (kind, "why"));
        }
        let fine = one_or_refused(vec![VolumeAnswer::default()]).expect("fine");
        assert_eq!(fine.answers.len(), 1);
    }
}
