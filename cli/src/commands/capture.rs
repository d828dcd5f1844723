//! `weft capture`

mod order;

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hyper::body::Bytes;
use tokio::signal::unix::{SignalKind, signal};
use weft_client::{Client, segment};

use crate::args::CaptureArgs;
use crate::output::{complain, of_output};
use order::Order;

/// Blocks of pcapng that are looked at (draft-ietf-opsawg-pcapng).
const PACKET: u32 = 6;
const STATISTICS: u32 = 5;

/// Between two figures on a terminal.
const EACH: Duration = Duration::from_millis(250);

pub(super) async fn run(client: &Client, args: &CaptureArgs) -> anyhow::Result<ExitCode> {
    if args.write == "-" && std::io::stdout().is_terminal() {
        bail!(
            "pcapng is nothing for a terminal: give a file with -w, or pipe it, as into `tcpdump -nr -`"
        );
    }
    // Before the file is made: an agent that says no must not cost anybody an old capture.
    let mut answer = client.stream(&path(args)).await?;
    let mut blocks = Blocks::new(open(&args.write)?);
    let mut progress = Progress::new(&args.write);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        let piece = tokio::select! {
            piece = answer.next() => piece,
            () = until(blocks.order.next_deadline()) => Ok(Some(Bytes::new())),
            _ = interrupt.recv() => Ok(None),
            _ = terminate.recv() => Ok(None),
        };
        let written = match &piece {
            Ok(Some(piece)) => blocks.add(Instant::now(), piece),
            _ => blocks.end(),
        };
        written.with_context(|| format!("cannot write to {}", args.write))?;
        if piece?.is_none() {
            break;
        }
        progress.tell(blocks.packets);
    }
    progress.end();
    let (packets, lost) = (blocks.packets, blocks.lost);
    let lost = match lost {
        0 => String::new(),
        n => format!(", {n} lost because they came faster than they could be written"),
    };
    complain(&format!("{packets} frames captured{lost}"));
    Ok(ExitCode::SUCCESS)
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// How many frames there are so far, in one line of a terminal that is written again and again.
struct Progress {
    told: Option<Instant>,
    on: bool,
}

impl Progress {
    fn new(file: &str) -> Self {
        let on = std::io::stderr().is_terminal();
        if on {
            complain(&format!("capturing to {file}; Ctrl-C ends it"));
        }
        Self { told: None, on }
    }

    fn tell(&mut self, packets: u64) {
        if self.on && self.told.is_none_or(|told| told.elapsed() >= EACH) {
            self.told = Some(Instant::now());
            // Nobody is left to tell when it is closed.
            drop(write!(std::io::stderr(), "\r{packets} frames"));
        }
    }

    fn end(&self) {
        if self.told.is_some() {
            drop(write!(std::io::stderr(), "\r"));
        }
    }
}

fn path(args: &CaptureArgs) -> String {
    let mut query = Vec::new();
    if let Some(port) = &args.port {
        query.push(format!("port={}", segment(port)));
    }
    if let Some(dir) = args.dir {
        query.push(format!("dir={}", dir.as_str()));
    }
    if let Some(count) = args.count {
        query.push(format!("count={count}"));
    }
    if let Some(len) = args.snaplen {
        query.push(format!("snaplen={len}"));
    }
    format!("/v1/capture?{}", query.join("&"))
}

fn open(name: &str) -> anyhow::Result<Box<dyn Write>> {
    if name == "-" {
        return Ok(Box::new(Output(std::io::stdout())));
    }
    let file = File::create(name).with_context(|| format!("cannot write to {name}"))?;
    Ok(Box::new(BufWriter::new(file)))
}

/// Standard output, whose reader may go when it has enough.
struct Output(std::io::Stdout);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes).map_err(of_output)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush().map_err(of_output)
    }
}

/// Writes whole blocks only, so that the file is readable wherever the stream ends, and those of
/// frames in the order of their time stamps.
struct Blocks<W> {
    out: W,
    rest: Vec<u8>,
    order: Order,
    packets: u64,
    lost: u64,
}

impl<W: Write> Blocks<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            rest: Vec::new(),
            order: Order::default(),
            packets: 0,
            lost: 0,
        }
    }

    /// Takes a piece, and writes what need not wait. Blocks that are no frames go at once: a frame's
    /// interface has to stand before it.
    fn add(&mut self, now: Instant, piece: &[u8]) -> std::io::Result<()> {
        self.rest.extend_from_slice(piece);
        let mut at = 0;
        while let Some((kind, block)) = first(&self.rest[at..]) {
            match kind {
                PACKET => {
                    self.packets += 1;
                    self.order.handle_frame(now, stamp(block), block);
                }
                // The one option of this block is `isb_osdrop`: interface, time, code, length.
                STATISTICS => {
                    let value = block.get(24..).and_then(<[u8]>::first_chunk);
                    self.lost = value.map_or(self.lost, |v| u64::from_le_bytes(*v));
                    self.out.write_all(block)?;
                }
                _ => self.out.write_all(block)?,
            }
            at += block.len();
        }
        self.rest.drain(..at);
        for frame in self.order.poll_frames(now) {
            self.out.write_all(&frame)?;
        }
        // Who looks on while it runs sees every frame soon.
        self.out.flush()
    }

    /// Writes what waits.
    fn end(&mut self) -> std::io::Result<()> {
        for frame in self.order.rest() {
            self.out.write_all(&frame)?;
        }
        self.out.flush()
    }
}

/// When a frame was captured, in units of its interface: two halves, the upper one first.
fn stamp(packet: &[u8]) -> u64 {
    let half = |at: usize| {
        let half = packet.get(at..).and_then(<[u8]>::first_chunk);
        u64::from(half.map_or(0, |half| u32::from_le_bytes(*half)))
    };
    (half(12) << 32) | half(16)
}

/// The first block, when it is whole.
fn first(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let word = |at: usize| {
        let word = bytes.get(at..)?.first_chunk()?;
        Some(u32::from_le_bytes(*word))
    };
    let len = usize::try_from(word(4)?).ok()?.max(12);
    Some((word(0)?, bytes.get(..len)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len() + 12).unwrap().to_le_bytes();
        [&kind.to_le_bytes()[..], &len, body, &len].concat()
    }

    #[test]
    fn only_whole_blocks_are_written() {
        let mut statistics = vec![0; 12];
        statistics.extend([7, 0, 8, 0]);
        statistics.extend(5_u64.to_le_bytes());
        statistics.extend([0; 4]);
        let parts = [
            block(1, &[1; 8]),
            block(STATISTICS, &statistics),
            block(PACKET, &[2; 40]),
            block(PACKET, &[3; 4]),
        ];
        let stream = parts.concat();
        let whole = stream.len() - 16;
        let now = Instant::now();
        for step in [1, 7, stream.len() - 1] {
            let mut blocks = Blocks::new(Vec::new());
            for piece in stream[..stream.len() - 1].chunks(step) {
                blocks.add(now, piece).unwrap();
            }
            assert_eq!(blocks.out, parts[..2].concat(), "{step} bytes at a time");
            blocks.end().unwrap();
            assert_eq!(blocks.out, stream[..whole], "{step} bytes at a time");
            assert_eq!((blocks.packets, blocks.lost), (1, 5));
        }
    }

    #[test]
    fn frames_are_written_in_order_behind_their_interfaces() {
        const INTERFACE: u32 = 1;
        let packet = |interface: u32, stamp: u64| {
            let words = [interface, (stamp >> 32) as u32, stamp as u32, 0, 0];
            block(PACKET, &words.map(u32::to_le_bytes).concat())
        };
        let interfaces = [block(INTERFACE, &[0; 8]), block(INTERFACE, &[1; 8])];
        let (first, second) = (packet(1, (1 << 32) - 1), packet(0, 1 << 32));
        let stream = [&interfaces[0][..], &second, &interfaces[1], &first].concat();
        let now = Instant::now();
        let mut blocks = Blocks::new(Vec::new());
        blocks.add(now, &stream).unwrap();
        let due = blocks.order.next_deadline().unwrap();
        blocks.add(due, &[]).unwrap();
        let ordered = [interfaces.concat(), first, second].concat();
        assert_eq!(blocks.out, ordered);
        assert_eq!(blocks.packets, 2);
    }
}
