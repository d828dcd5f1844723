//! `weft capture`: what the data plane copies, as a stream of pcapng.

mod pcapng;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use weft_dataplane::{CaptureFilter, CaptureReader};
use weft_model::api::{CaptureDir, CaptureQuery};

use pcapng::Section;

/// Between two looks at whether anybody still listens.
const LOOK: Duration = Duration::from_millis(100);

/// Between two tries to hand on a piece.
const RETRY: Duration = Duration::from_millis(5);

/// Pieces of the stream that wait for the client; then the data plane's records fill, and then
/// frames are counted as lost.
const PIECES: usize = 8;

/// A client that takes nothing for this long loses its capture: there is one on a node, and others
/// wait for it.
const STALLED: Duration = Duration::from_secs(60);

/// The frames that a client wants.
#[must_use]
pub(crate) fn filter(query: &CaptureQuery) -> CaptureFilter {
    let wants = |dir| query.dir.is_none_or(|wanted| wanted == dir);
    CaptureFilter {
        port: query.port.as_deref().map(Into::into),
        incoming: wants(CaptureDir::In),
        outgoing: wants(CaptureDir::Out),
        dropped: wants(CaptureDir::Drop),
        snap_len: query.snaplen.map_or(usize::MAX, |len| len as usize),
    }
}

/// Streams what `reader` gives until `query.count` frames are told, the client goes away, or the
/// node stops.
///
/// # Errors
/// No thread can be started.
pub(crate) fn stream(
    reader: CaptureReader,
    query: &CaptureQuery,
    stopping: watch::Receiver<bool>,
) -> std::io::Result<mpsc::Receiver<Bytes>> {
    let (sender, receiver) = mpsc::channel(PIECES);
    let limit = query.count.unwrap_or(u64::MAX);
    let snap_len = query.snaplen.unwrap_or(0);
    // A thread, because the data plane's end blocks: it knows of no async runtime.
    std::thread::Builder::new()
        .name("weft-capture".to_owned())
        .spawn(move || pump(&reader, &sender, &stopping, snap_len, limit))?;
    Ok(receiver)
}

fn pump(
    reader: &CaptureReader,
    sender: &mpsc::Sender<Bytes>,
    stopping: &watch::Receiver<bool>,
    snap_len: u32,
    limit: u64,
) {
    let mut piece = Vec::new();
    let mut section = Section::begin(snap_len, &mut piece);
    let (mut count, mut lost) = (0, 0);
    loop {
        if reader.lost() != lost {
            lost = reader.lost();
            section.lost(now(), lost, &mut piece);
        }
        // The header goes out at once: the client knows then that the capture runs.
        if !piece.is_empty() {
            let piece = std::mem::take(&mut piece).into();
            if !send(sender, piece, STALLED, stopping) {
                return;
            }
        }
        if count >= limit || sender.is_closed() || *stopping.borrow() {
            return;
        }
        reader.read(LOOK, |record| {
            if count < limit {
                section.packet(record, &mut piece);
                count += 1;
            }
        });
    }
}

/// Whether the client took the piece within `patience`.
fn send(
    sender: &mpsc::Sender<Bytes>,
    mut piece: Bytes,
    patience: Duration,
    stopping: &watch::Receiver<bool>,
) -> bool {
    let started = Instant::now();
    loop {
        piece = match sender.try_send(piece) {
            Ok(()) => return true,
            Err(TrySendError::Closed(_)) => return false,
            Err(TrySendError::Full(piece)) => piece,
        };
        if started.elapsed() >= patience || *stopping.borrow() {
            tracing::debug!("a capture ends: its client takes nothing");
            return false;
        }
        std::thread::sleep(RETRY);
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_takes_nothing_loses_its_capture() {
        let (stop, stopping) = watch::channel(false);
        let (sender, mut receiver) = mpsc::channel(1);
        let piece = || Bytes::from_static(b"x");
        let hurry = Duration::from_millis(20);
        assert!(send(&sender, piece(), hurry, &stopping));
        assert!(!send(&sender, piece(), hurry, &stopping));
        // One that is only slow keeps it.
        let slow = std::thread::spawn(move || {
            std::thread::sleep(hurry);
            receiver.blocking_recv().and(receiver.blocking_recv())
        });
        assert!(send(&sender, piece(), STALLED, &stopping));
        assert_eq!(slow.join().unwrap(), Some(piece()));
        assert!(!send(&sender, piece(), STALLED, &stopping), "it is gone");
        let (sender, _kept) = mpsc::channel(1);
        assert!(send(&sender, piece(), STALLED, &stopping));
        stop.send(true).unwrap();
        assert!(!send(&sender, piece(), STALLED, &stopping));
    }
}
