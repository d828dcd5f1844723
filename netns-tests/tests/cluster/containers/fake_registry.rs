//! A registry with one image that does to clients what networks and real registries do.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use weft_lab::image::{Archive, Content};
use weft_netns_tests::Cluster;

/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(10);

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The first answer with a layer ends in its middle; later ones may begin there.
    Cut,
    /// The first question about each content is answered with 429.
    Busy,
    /// It has no such image.
    Missing,
    /// It wants to know who asks.
    Forbidden,
    /// Layers are other bytes than their digests say.
    Wrong,
}

impl Trouble {
    pub(super) const WRONG_PORT: u16 = 5005;

    /// All of them, with ports of their own.
    pub(super) const ALL: [(u16, Self); 5] = [
        (5001, Self::Cut),
        (5002, Self::Busy),
        (5003, Self::Missing),
        (5004, Self::Forbidden),
        (Self::WRONG_PORT, Self::Wrong),
    ];

    /// What people are told, in one of these words.
    pub(super) fn tells(self) -> &'static [&'static str] {
        match self {
            Self::Cut | Self::Busy => &[],
            Self::Missing => &["not found", "manifest unknown", "o such image"],
            Self::Forbidden => &["denied", "authoriz", "authentic", "login"],
            Self::Wrong => &["digest", "sha256"],
        }
    }
}

/// A question that it was asked.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// What of.
    pub(super) path: String,
    /// First byte that was asked for.
    pub(super) range: u64,
}

/// It serves until the test program ends.
#[derive(Debug)]
pub(super) struct FakeRegistry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    trouble: Trouble,
    image: Archive,
    heard: Mutex<Vec<Request>>,
    /// Layers that were cut.
    cuts: AtomicUsize,
}

impl FakeRegistry {
    /// Listens on the machine outside.
    pub(super) fn start(cluster: &Cluster, port: u16, trouble: Trouble, image: Archive) -> Self {
        let shared = Arc::new(Shared {
            trouble,
            image,
            heard: Mutex::new(Vec::new()),
            cuts: AtomicUsize::new(0),
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
                std::thread::spawn(move || drop(serving.answer(&stream)));
            }
        });
        Self { shared }
    }

    /// What it was asked for until now.
    pub(super) fn heard(&self) -> Vec<Request> {
        self.shared.heard.lock().expect("no panic").clone()
    }
}

impl Shared {
    /// One request on each connection.
    fn answer(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let mut first = [0];
        stream.peek(&mut first)?;
        // TLS begins so (RFC 8446 section 5.1), and this speaks none.
        if first == [0x16] {
            return say(stream, "400 Bad Request", &[], b"");
        }
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let path = words.next().unwrap_or_default().to_owned();
        let mut range = 0;
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 || line.trim_end().is_empty() {
                break;
            }
            let header = line.trim_end().to_ascii_lowercase();
            if let Some(bytes) = header.strip_prefix("range: bytes=") {
                let begin = bytes.split('-').next().unwrap_or_default();
                range = begin.parse().unwrap_or(0);
            }
        }
        let request = Request {
            path: path.clone(),
            range,
        };
        let is_first = {
            let mut heard = self.heard.lock().expect("no panic");
            let is_first = heard.iter().all(|before| before.path != path);
            heard.push(request);
            is_first
        };
        if path == "/v2/" && self.trouble != Trouble::Forbidden {
            return say(stream, "200 OK", &[], b"{}");
        }
        match self.trouble {
            Trouble::Forbidden => {
                let challenge = "www-authenticate: Basic realm=\"fake\"";
                let body =
                    br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
                say(stream, "401 Unauthorized", &[challenge], body)
            }
            Trouble::Missing => {
                let body =
                    br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
                say(
                    stream,
                    "404 Not Found",
                    &["content-type: application/json"],
                    body,
                )
            }
            Trouble::Busy if is_first && path.contains("/blobs/") => {
                let body = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#;
                say(stream, "429 Too Many Requests", &["retry-after: 1"], body)
            }
            Trouble::Cut | Trouble::Busy | Trouble::Wrong => {
                self.content(stream, &method, &path, range)
            }
        }
    }

    fn content(&self, stream: &TcpStream, method: &str, path: &str, range: u64) -> io::Result<()> {
        let last = path.rsplit('/').next().unwrap_or_default();
        let image = &self.image;
        if path.contains("/manifests/") {
            let kind = format!("content-type: {}", Archive::MEDIA_TYPE);
            let digest = format!("docker-content-digest: {}", image.manifest.digest.as_str());
            let bytes = &image.manifest.bytes;
            return send(stream, method, &[&kind, &digest], bytes, 0, bytes.len());
        }
        let is = |content: &&Content| content.digest.as_str() == last;
        if is(&&image.config) {
            let bytes = &image.config.bytes;
            return send(stream, method, &[], bytes, range, bytes.len());
        }
        let Some(layer) = image.layers.iter().find(is) else {
            return say(stream, "404 Not Found", &[], b"");
        };
        let mut bytes = layer.bytes.clone();
        if self.trouble == Trouble::Wrong
            && let Some(byte) = bytes.last_mut()
        {
            *byte = !*byte;
        }
        let whole = bytes.len();
        let first = self.trouble == Trouble::Cut
            && method == "GET"
            && self.cuts.fetch_add(1, Ordering::Relaxed) == 0;
        let sent = if first { whole / 2 } else { whole };
        send(
            stream,
            method,
            &["accept-ranges: bytes"],
            &bytes,
            range,
            sent,
        )
    }
}

/// A whole answer.
fn say(mut stream: &TcpStream, status: &str, headers: &[&str], body: &[u8]) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n");
    for header in headers {
        head.push_str(&format!("{header}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}

/// Bytes from `range` on, of which no more than those before `end` are sent although all are promised.
fn send(
    mut stream: &TcpStream,
    method: &str,
    headers: &[&str],
    bytes: &[u8],
    range: u64,
    end: usize,
) -> io::Result<()> {
    let begin = usize::try_from(range).map_or(bytes.len(), |at| at.min(bytes.len()));
    let mut head = if begin > 0 {
        let (last, all) = (bytes.len().saturating_sub(1), bytes.len());
        format!("HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {begin}-{last}/{all}\r\n")
    } else {
        "HTTP/1.1 200 OK\r\n".to_owned()
    };
    for header in headers {
        head.push_str(&format!("{header}\r\n"));
    }
    let promised = bytes.len() - begin;
    head.push_str(&format!(
        "connection: close\r\ncontent-length: {promised}\r\n\r\n"
    ));
    stream.write_all(head.as_bytes())?;
    if method != "HEAD" {
        stream.write_all(bytes.get(begin..end.max(begin)).unwrap_or_default())?;
    }
    Ok(())
}
