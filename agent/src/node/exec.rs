//! The user's end of `weft exec`: frames of the node API, and the conversation with the swarm.

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use weft_model::exec::{Frame, Frames};
use weft_model::talk::Talk;
use weft_swarm::{Exchange, Manager};

use crate::api::{Answer, ApiError};

/// Pieces that wait for the client.
const PIECES: usize = 4;

/// Begins what the first frame says.
pub(super) async fn begin(
    manager: &Manager,
    reference: String,
    mut said: mpsc::Receiver<Bytes>,
    stopping: watch::Receiver<bool>,
) -> Answer<mpsc::Receiver<Bytes>> {
    let mut frames = Frames::default();
    let exec = loop {
        let next = frames.next_frame();
        match next.map_err(|error| ApiError::bad_request(error.to_string()))? {
            Some(Frame::Begin(exec)) => break exec,
            Some(_) => {
                return Err(ApiError::bad_request(
                    "the first frame has to say what to run",
                ));
            }
            None => {}
        }
        match said.recv().await {
            Some(piece) => frames.add(&piece),
            None => return Err(ApiError::bad_request("no frame says what to run")),
        }
    };
    let exchange = manager.talk(Talk::Exec { reference, exec }).await?;
    let (sender, receiver) = mpsc::channel(PIECES);
    tokio::spawn(carry(exchange, frames, said, sender, stopping));
    Ok(receiver)
}

/// Until the user or the program has ended.
async fn carry(
    exchange: Exchange,
    mut frames: Frames,
    mut said: mpsc::Receiver<Bytes>,
    sender: mpsc::Sender<Bytes>,
    mut stopping: watch::Receiver<bool>,
) {
    let Exchange {
        mut incoming,
        outgoing,
    } = exchange;
    let inputs = async {
        loop {
            match frames.next_frame() {
                Ok(Some(frame)) => {
                    if outgoing.send(frame.to_bytes().into()).await.is_err() {
                        return;
                    }
                }
                Ok(None) => match said.recv().await {
                    Some(piece) => frames.add(&piece),
                    None => return,
                },
                // Nothing after it could be read.
                Err(error) => {
                    tracing::debug!(%error, "what a user says is not understood");
                    return;
                }
            }
        }
    };
    let outputs = async {
        while let Some(said) = incoming.recv().await {
            let piece = match said {
                Ok(piece) => piece,
                Err(error) => Frame::Failed(u8::MAX, error.message).to_bytes().into(),
            };
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = outputs => {}
        () = inputs => {}
        () = sender.closed() => {}
        () = stopped(&mut stopping) => {}
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    drop(stopping.wait_for(|stop| *stop).await);
}
