//! `weft exec`: a program in a task, wherever that runs.

use std::io::{self, IsTerminal, Read};
use std::process::ExitCode;

use anyhow::bail;
use hyper::body::Bytes;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use weft_client::{Client, segment};
use weft_model::exec::{Exec, Frame, Frames};
use weft_sys::terminal::{self, Raw};

use crate::args::ExecArgs;
use crate::output::{Printer, complain, error_bytes};

/// Bytes of one read of standard input.
const CHUNK: usize = 16 << 10;
/// Of a terminal that does not say how large it is.
const SIZE: terminal::Size = (80, 24);

pub(super) async fn run(
    client: &Client,
    args: ExecArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let keys = args.interactive && args.tty;
    if keys && !io::stdin().is_terminal() {
        bail!("the input device is not a TTY: leave out -t");
    }
    let path = format!("/v1/tasks/{}/exec", segment(&args.task));
    let exec = Exec {
        args: args.command,
        env: args.env,
        user: args.user.unwrap_or_default(),
        dir: args.workdir.unwrap_or_default(),
        input: args.interactive,
        terminal: args.tty.then(|| terminal::size().unwrap_or(SIZE)),
    };
    let first = Frame::Begin(exec).to_bytes();
    let (say, mut answer) = client.converse(&path, first.into()).await?;
    let raw = if keys { Some(Raw::begin()?) } else { None };
    let resized = if keys {
        Some(signal(SignalKind::window_change())?)
    } else {
        None
    };
    // Beside what is heard: a program that waits until its output is read takes no input meanwhile.
    // `say` stays, as what says nothing more ends the program.
    let mut telling = JoinSet::new();
    telling.spawn(tell(say.clone(), args.interactive.then(typed), resized));
    let mut frames = Frames::default();
    let last = loop {
        let Some(piece) = answer.next().await? else {
            bail!("weftd broke the answer off: the program was ended with it");
        };
        frames.add(&piece);
        if let Some(last) = show(&mut frames, out)? {
            break last;
        }
    };
    // What follows is for a terminal that is as it was.
    drop(raw);
    Ok(match last {
        Frame::Failed(code, why) => {
            complain(&format!("weft: {why}"));
            ExitCode::from(code)
        }
        Frame::Exit(code) => ExitCode::from(code),
        _ => ExitCode::FAILURE,
    })
}

/// Shows what is there; the last frame, when that has come.
fn show(frames: &mut Frames, out: &mut Printer) -> anyhow::Result<Option<Frame>> {
    while let Some(frame) = frames.next_frame()? {
        match frame {
            Frame::Output(bytes) => out.bytes(&bytes)?,
            Frame::Error(bytes) => error_bytes(&bytes),
            last @ (Frame::Exit(_) | Frame::Failed(..)) => return Ok(Some(last)),
            _ => {}
        }
    }
    Ok(None)
}

/// Says what is typed, and how large the terminal is, until nobody listens: the answer says why then.
async fn tell(
    say: mpsc::Sender<Bytes>,
    mut typed: Option<mpsc::Receiver<Vec<u8>>>,
    mut resized: Option<Signal>,
) {
    loop {
        let frame = tokio::select! {
            said = next(&mut typed) => Frame::Input(said),
            () = changed(&mut resized) => match terminal::size() {
                Some((columns, rows)) => Frame::Resize(columns, rows),
                None => continue,
            },
        };
        if say.send(frame.to_bytes().into()).await.is_err() {
            return;
        }
    }
}

/// Never, when nobody cares.
async fn changed(resized: &mut Option<Signal>) {
    if let Some(resized) = resized
        && resized.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}

/// What is read from standard input; empty at its end.
fn typed() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        loop {
            let length = io::stdin().read(&mut buffer).unwrap_or(0);
            let sent = sender.blocking_send(buffer[..length].to_vec());
            if length == 0 || sent.is_err() {
                return;
            }
        }
    });
    receiver
}

/// Never, when there is nothing more.
async fn next(typed: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Vec<u8> {
    if let Some(receiver) = typed
        && let Some(said) = receiver.recv().await
    {
        return said;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn what_follows_the_task_is_the_programs() {
        let words = [
            "weft", "exec", "-it", "-e", "A=b", "-w", "/tmp", "web.1", "sh", "-c", "exit 3",
        ];
        let Command::Exec(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!("another command");
        };
        assert!(args.interactive && args.tty);
        assert_eq!(
            (args.task.as_str(), args.env),
            ("web.1", vec!["A=b".to_owned()])
        );
        assert_eq!(args.command, ["sh", "-c", "exit 3"]);
        assert!(Cli::try_parse_from(["weft", "exec", "web.1"]).is_err());
    }

    #[tokio::test]
    async fn what_is_typed_is_said_in_order_until_nobody_listens() {
        let (say, mut said) = mpsc::channel(1);
        let (keys, typed) = mpsc::channel(8);
        for word in ["a", "b", ""] {
            keys.send(word.into()).await.unwrap();
        }
        let telling = tokio::spawn(tell(say, Some(typed), None));
        for word in ["a", "b", ""] {
            let frame = Frame::Input(word.into()).to_bytes();
            assert_eq!(said.recv().await.unwrap(), frame);
        }
        // The end of what is typed is none of what is said.
        assert!(said.try_recv().is_err());
        assert!(!telling.is_finished());
        drop(said);
        keys.send(b"c".to_vec()).await.unwrap();
        telling.await.unwrap();
    }

    #[test]
    fn the_last_frame_ends_what_is_shown() {
        let mut frames = Frames::default();
        let mut out = Printer::to(Box::new(Vec::<u8>::new()));
        frames.add(&Frame::Output(b"x".to_vec()).to_bytes());
        assert_eq!(show(&mut frames, &mut out).unwrap(), None);
        frames.add(&Frame::Exit(137).to_bytes());
        assert_eq!(show(&mut frames, &mut out).unwrap(), Some(Frame::Exit(137)));
        frames.add(&[9; 10]);
        assert!(show(&mut frames, &mut out).is_err());
    }
}
