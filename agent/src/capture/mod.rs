//! `weft capture`: what the data plane copies, as a stream of pcapng.

mod pcapng;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use weft_control::api::{CaptureDir, CaptureQuery};
use weft_dataplane::{CaptureFilter, CaptureReader};

use pcapng::Section;

/// Between two looks at whether anybody still listens.
const LOOK: Duration = Duration::from_millis(100);

/// Pieces of the stream that wait for the client; then the data plane's records fill, and then
/// frames are counted as lost.
const PIECES: usize = 8;

/// The frames that a client wants.
#[must_use]
pub fn filter(query: &CaptureQuery) -> CaptureFilter {
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
pub fn stream(
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
        if !piece.is_empty()
            && sender
                .blocking_send(std::mem::take(&mut piece).into())
                .is_err()
        {
            return;
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

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}
