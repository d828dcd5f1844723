//! Debian's registry on the machine outside, over plain HTTP: images are pushed there, and the nodes of
//! a cluster get them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use weft_lab::OUTSIDE;
use weft_lab::image::{Archive, Content};
use weft_netns_tests::{Cluster, connect, eventually};

/// How long a step of a request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where Debian's package has it.
const PROGRAM: &str = "/usr/bin/docker-registry";

/// The registry, until it is dropped.
#[derive(Debug)]
pub(super) struct Registry {
    process: Child,
    log: PathBuf,
    at: SocketAddr,
}

impl Registry {
    /// Starts one with a store in the folder of the cluster.
    ///
    /// # Panics
    /// This machine has no such program, or it does not answer.
    pub(super) fn start(cluster: &Cluster, port: u16) -> Self {
        assert!(
            Path::new(PROGRAM).is_file(),
            "there is no registry here: install the package docker-registry (apt-get install \
             docker-registry)"
        );
        let dir = cluster.dir().join("registry");
        std::fs::create_dir(&dir).expect("a folder");
        let config = dir.join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\n  \
             delete:\n    enabled: true\nhttp:\n  addr: :{port}\n",
            dir.join("store").display()
        );
        std::fs::write(&config, text).expect("write");
        let log = dir.join("access.log");
        let config = config.display().to_string();
        let mut command = cluster
            .lab()
            .command(OUTSIDE, &[PROGRAM, "serve", &config])
            .expect("the machine outside is there");
        let process = command
            .stdin(Stdio::null())
            .stdout(File::create(&log).expect("a log"))
            .stderr(File::create(dir.join("errors.log")).expect("a log"))
            .spawn()
            .expect("this program runs");
        let registry = Self {
            process,
            log,
            at: cluster.at(OUTSIDE, port),
        };
        eventually("the registry answers", || {
            match registry.ask(cluster, "GET", "/v2/", "", &[]) {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        registry
    }

    fn ask(
        &self,
        cluster: &Cluster,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> io::Result<Answer> {
        let stream = connect(&cluster.outside(), self.at, PATIENCE)?;
        Answer::of(&stream, self.at, method, path, kind, body)
    }

    /// Brings all contents of an image there, under its name without the registry.
    ///
    /// # Panics
    /// It is refused.
    pub(super) fn push(&self, cluster: &Cluster, archive: &Archive) {
        let (_, name) = archive.name.split_once('/').expect("a registry");
        let (path, tag) = name.rsplit_once(':').expect("a tag");
        for content in archive.layers.iter().chain([&archive.config]) {
            self.upload(cluster, path, content);
        }
        let manifest = &archive.manifest;
        let to = format!("/v2/{path}/manifests/{tag}");
        let kind = Archive::MEDIA_TYPE;
        let answer = self.ask(cluster, "PUT", &to, kind, &manifest.bytes);
        assert_eq!(answer.expect("an answer").status, 201, "{to}");
    }

    fn upload(&self, cluster: &Cluster, path: &str, content: &Content) {
        let begin = format!("/v2/{path}/blobs/uploads/");
        let answer = self.ask(cluster, "POST", &begin, "", &[]);
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 202, "{answer:?}");
        let to = answer.location.as_deref().expect("a place");
        // An address, of which the path counts.
        let to = to
            .split_once("://")
            .map_or(to, |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
        let join = if to.contains('?') { '&' } else { '?' };
        let to = format!("{to}{join}digest={}", content.digest.as_str());
        let kind = "application/octet-stream";
        let answer = self.ask(cluster, "PUT", &to, kind, &content.bytes);
        assert_eq!(answer.expect("an answer").status, 201, "{to}");
    }

    /// How often anybody got this content from it.
    pub(super) fn gets(&self, content: &Content) -> usize {
        let log = std::fs::read_to_string(&self.log).expect("a log");
        let path = format!("/blobs/{} ", content.digest.as_str());
        let got = |line: &&str| line.contains("\"GET ") && line.contains(&path);
        log.lines().filter(got).count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // What entered the machine goes; the program itself goes with the machine.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// What a server said.
#[derive(Debug)]
struct Answer {
    status: u16,
    location: Option<String>,
}

impl Answer {
    /// Asks on a connection of its own.
    fn of(
        mut stream: &TcpStream,
        host: SocketAddr,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> io::Result<Self> {
        let length = body.len();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
        if !kind.is_empty() {
            head.push_str(&format!("content-type: {kind}\r\n"));
        }
        head.push_str(&format!("content-length: {length}\r\n\r\n"));
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let mut answer = Self {
            status: status.ok_or_else(|| io::Error::other(format!("it says {line:?}")))?,
            location: None,
        };
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 || line.trim_end().is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or_default();
            if name.eq_ignore_ascii_case("location") {
                answer.location = Some(value.trim().to_owned());
            }
        }
        // All of it, so that the other side has no error either.
        reader.read_to_end(&mut Vec::new())?;
        Ok(answer)
    }
}
