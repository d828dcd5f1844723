//! A server on the machine outside that answers what a test wants it to, with TLS where it has a
//! certificate: registries, their mirrors, token servers and storage.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use weft_lab::image::{Archive, Content};
use weft_netns_tests::Cluster;

/// How long a connection may be silent: longer than clients are patient.
const SILENCE: Duration = Duration::from_secs(120);
/// Bytes that are sent at once.
const PIECE: usize = 64 << 10;
/// Longest head of a request, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// What a client asked for.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) at: Instant,
    pub(super) path: String,
    pub(super) query: String,
    /// First byte that was asked for.
    pub(super) range: u64,
    pub(super) authorization: Option<String>,
}

impl Heard {
    fn of(head: &str) -> Self {
        let mut lines = head.split("\r\n");
        let target = lines.next().and_then(|line| line.split(' ').nth(1));
        let target = target.unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut heard = Self {
            at: Instant::now(),
            path: path.to_owned(),
            query: query.to_owned(),
            range: 0,
            authorization: None,
        };
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            if name.eq_ignore_ascii_case("range") {
                let first = value.strip_prefix("bytes=").unwrap_or_default();
                heard.range = first.trim_end_matches('-').parse().unwrap_or(0);
            } else if name.eq_ignore_ascii_case("authorization") {
                heard.authorization = Some(value.to_owned());
            }
        }
        heard
    }

    /// Whether this is about a layer or a configuration.
    pub(super) fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }
}

/// How the body of an answer goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    AtOnce,
    /// The connection ends after so many bytes, though all are promised.
    EndsAfter(usize),
    /// Nothing more comes after so many bytes, and the connection stays.
    HangsAfter(usize),
    /// So many bytes, and a pause before each of them.
    Slow(usize, Duration),
    /// Not even a head.
    Never,
}

/// What is answered.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    status: &'static str,
    headers: Vec<String>,
    body: Vec<u8>,
    pace: Pace,
}

impl Reply {
    /// A status such as `404 Not Found`, and a body.
    pub(super) fn new(status: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            pace: Pace::AtOnce,
        }
    }

    /// An error in the words of registries.
    pub(super) fn error(status: &'static str, code: &str, message: &str) -> Self {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
        Self::new(status, body).header("content-type: application/json")
    }

    /// The registry wants to know who asks.
    pub(super) fn who(challenge: &str) -> Self {
        Self::error(
            "401 Unauthorized",
            "UNAUTHORIZED",
            "authentication required",
        )
        .header(&format!("www-authenticate: {challenge}"))
    }

    /// Bytes, of which the rest alone may be asked for.
    fn content(bytes: &[u8], heard: &Heard) -> Self {
        let first = usize::try_from(heard.range).unwrap_or(usize::MAX);
        let Some(rest) = bytes.get(first..).filter(|_| first > 0) else {
            return Self::new("200 OK", bytes).header("accept-ranges: bytes");
        };
        let (last, all) = (bytes.len().saturating_sub(1), bytes.len());
        let range = format!("content-range: bytes {first}-{last}/{all}");
        Self::new("206 Partial Content", rest).header(&range)
    }

    pub(super) fn header(mut self, line: &str) -> Self {
        self.headers.push(line.to_owned());
        self
    }

    /// Bytes of the body.
    pub(super) fn size(&self) -> usize {
        self.body.len()
    }

    pub(super) fn ends_after(mut self, bytes: usize) -> Self {
        self.pace = Pace::EndsAfter(bytes);
        self
    }

    pub(super) fn hangs_after(mut self, bytes: usize) -> Self {
        self.pace = Pace::HangsAfter(bytes);
        self
    }

    pub(super) fn slow(mut self, piece: usize, pause: Duration) -> Self {
        self.pace = Pace::Slow(piece, pause);
        self
    }

    /// No answer at all.
    pub(super) fn never() -> Self {
        Self {
            pace: Pace::Never,
            ..Self::new("200 OK", "")
        }
    }

    fn send(&self, stream: &mut (impl Read + Write), sent: &AtomicU64) -> io::Result<()> {
        if self.pace == Pace::Never {
            return wait(stream);
        }
        let mut head = format!(
            "HTTP/1.1 {}\r\nconnection: close\r\ncontent-length: {}\r\n",
            self.status,
            self.body.len()
        );
        for header in &self.headers {
            head.push_str(&format!("{header}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        let all = self.body.len();
        let (end, piece, pause) = match self.pace {
            Pace::EndsAfter(end) | Pace::HangsAfter(end) => (end.min(all), PIECE, Duration::ZERO),
            Pace::Slow(piece, pause) => (all, piece, pause),
            Pace::AtOnce | Pace::Never => (all, PIECE, Duration::ZERO),
        };
        for bytes in self.body[..end].chunks(piece) {
            std::thread::sleep(pause);
            stream.write_all(bytes)?;
            stream.flush()?;
            sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        stream.flush()?;
        match self.pace {
            Pace::HangsAfter(_) => wait(stream),
            _ => Ok(()),
        }
    }
}

/// Until the client goes away.
fn wait(stream: &mut impl Read) -> io::Result<()> {
    let mut buffer = [0; 64];
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}

type Handler = dyn Fn(&Heard) -> Reply + Send + Sync;

/// It serves until the test program ends.
pub(super) struct Site(Arc<Shared>);

struct Shared {
    handler: Box<Handler>,
    tls: Option<Arc<ServerConfig>>,
    heard: Mutex<Vec<Heard>>,
    /// Bytes of layers and configurations.
    sent: AtomicU64,
    /// Of everything else.
    other: AtomicU64,
}

impl Site {
    /// Listens on a port of the machine outside.
    pub(super) fn start(
        cluster: &Cluster,
        port: u16,
        handler: impl Fn(&Heard) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(cluster, port, None, Box::new(handler))
    }

    /// The same with TLS.
    pub(super) fn start_tls(
        cluster: &Cluster,
        port: u16,
        tls: Arc<ServerConfig>,
        handler: impl Fn(&Heard) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(cluster, port, Some(tls), Box::new(handler))
    }

    fn listen(
        cluster: &Cluster,
        port: u16,
        tls: Option<Arc<ServerConfig>>,
        handler: Box<Handler>,
    ) -> Self {
        let shared = Arc::new(Shared {
            handler,
            tls,
            heard: Mutex::default(),
            sent: AtomicU64::new(0),
            other: AtomicU64::new(0),
        });
        let listener = cluster
            .outside()
            .run_in(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
            .expect("a thread outside")
            .expect("the port is free");
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = Arc::clone(&serving);
                // A client that goes away is its own affair.
                std::thread::spawn(move || drop(serving.serve(stream)));
            }
        });
        Self(shared)
    }

    /// What it was asked for until now.
    pub(super) fn heard(&self) -> Vec<Heard> {
        self.0.heard.lock().expect("no panic").clone()
    }

    /// Bytes of layers and configurations that it has sent.
    pub(super) fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// One request on each connection.
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let Some(tls) = &self.tls else {
            let mut first = [0];
            stream.peek(&mut first)?;
            // TLS begins so (RFC 8446 section 5.1), and this speaks none.
            if first == [0x16] {
                return Reply::new("400 Bad Request", "").send(&mut stream, &self.other);
            }
            return self.answer(&mut stream);
        };
        let connection = ServerConnection::new(Arc::clone(tls)).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        self.answer(&mut stream)?;
        stream.conn.send_close_notify();
        stream.flush()
    }

    fn answer(&self, stream: &mut (impl Read + Write)) -> io::Result<()> {
        let mut head = Vec::new();
        let mut buffer = [0; 4096];
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            let count = stream.read(&mut buffer)?;
            if count == 0 || head.len() > MAX_HEAD {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            head.extend_from_slice(&buffer[..count]);
        }
        let heard = Heard::of(&String::from_utf8_lossy(&head));
        self.heard.lock().expect("no panic").push(heard.clone());
        let sent = if heard.is_blob() {
            &self.sent
        } else {
            &self.other
        };
        (self.handler)(&heard).send(stream, sent)
    }
}

/// What a registry with these images answers to whoever it is.
pub(super) fn registry(images: &[Archive], heard: &Heard) -> Reply {
    if heard.path == "/v2/" {
        return Reply::new("200 OK", "{}");
    }
    let found = heard.path.strip_prefix("/v2/").and_then(|rest| {
        let (rest, reference) = rest.rsplit_once('/')?;
        let (repository, kind) = rest.rsplit_once('/')?;
        let mut images = images
            .iter()
            .filter(|image| name(image).is_some_and(|(of, _)| of == repository));
        images.find_map(|image| content(image, kind, reference))
    });
    match found {
        Some((content, true)) => Reply::content(&content.bytes, heard)
            .header(&format!("content-type: {}", Archive::MEDIA_TYPE))
            .header(&format!(
                "docker-content-digest: {}",
                content.digest.as_str()
            )),
        Some((content, false)) => Reply::content(&content.bytes, heard),
        None => Reply::error("404 Not Found", "MANIFEST_UNKNOWN", "manifest unknown"),
    }
}

/// Repository and tag of an image.
fn name(image: &Archive) -> Option<(&str, &str)> {
    image.name.split_once('/')?.1.rsplit_once(':')
}

/// One content of an image, and whether it is the manifest.
fn content<'a>(image: &'a Archive, kind: &str, reference: &str) -> Option<(&'a Content, bool)> {
    let is_it = |content: &&Content| content.digest.as_str() == reference;
    let manifest = &image.manifest;
    match kind {
        "manifests" => {
            let is_tag = name(image).is_some_and(|(_, tag)| tag == reference);
            (is_tag || is_it(&manifest)).then_some((manifest, true))
        }
        "blobs" => {
            let mut blobs = image.layers.iter().chain([&image.config]);
            blobs.find(is_it).map(|content| (content, false))
        }
        _ => None,
    }
}
