//! Debian's registry on the machine outside of a lab, over plain HTTP: images are pushed there, and
//! nodes get them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use weft_sys::netns::Netns;

use super::{Archive, Content};
use crate::config::OUTSIDE;
use crate::lab::Lab;
use crate::patience::Patience;

/// How long a step of a request may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Where packages put it.
const PLACES: [&str; 3] = [
    "/usr/bin/docker-registry",
    "/usr/bin/registry",
    "/usr/local/bin/registry",
];

/// The registry, until it is dropped or its lab is.
#[derive(Debug)]
pub struct Registry {
    /// What entered the machine.
    process: Child,
    log: PathBuf,
    at: SocketAddr,
    outside: Netns,
}

/// What somebody asked it for and got.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Served {
    path: String,
    bytes: u64,
}

impl Registry {
    /// Starts one with its files in a new folder, and waits until it answers.
    ///
    /// # Errors
    /// This machine has no such program, or it does not answer in time; names the package.
    pub fn start(lab: &Lab, dir: &Path, port: u16, patience: &Patience) -> anyhow::Result<Self> {
        let program = PLACES.into_iter().find(|path| Path::new(path).is_file());
        let program = program.context(
            "there is no registry of images here: install the package docker-registry (apt-get \
             install docker-registry)",
        )?;
        fs::create_dir(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let config = dir.join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: :{port}\n",
            dir.join("store").display()
        );
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let log = dir.join("access.log");
        let config = config.display().to_string();
        let process = lab
            .command(OUTSIDE, &[program, "serve", &config])?
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::create(dir.join("errors.log"))?)
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        let registry = Self {
            process,
            log,
            at: SocketAddr::new(lab.node_addr(OUTSIDE)?, port),
            outside: lab.netns(OUTSIDE, None)?,
        };
        patience.until(|| {
            let answer = registry.ask("GET", "/v2/", "", &[])?;
            ensure!(answer.status == 200, "the registry says {}", answer.status);
            Ok(())
        })?;
        Ok(registry)
    }

    /// What images of it are named after: `ADDRESS:PORT`.
    #[must_use]
    pub fn host(&self) -> String {
        self.at.to_string()
    }

    fn ask(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> anyhow::Result<Answer> {
        let connect = || TcpStream::connect_timeout(&self.at, LIMIT);
        let stream = self.outside.run_in(connect)??;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Answer::of(&stream, self.at, method, path, kind, body)
            .with_context(|| format!("{method} {path} of the registry"))
    }

    /// Brings all contents of an image there, under its name without the registry.
    ///
    /// # Errors
    /// Its name names no registry or no tag; it is refused.
    pub fn push(&self, archive: &Archive) -> anyhow::Result<()> {
        let name = archive.name.split_once('/').map(|(_, name)| name);
        let name = name.and_then(|name| name.rsplit_once(':'));
        let (path, tag) =
            name.with_context(|| format!("{} is no image of a registry with a tag", archive.name))?;
        for content in archive.layers.iter().chain([&archive.config]) {
            self.upload(path, content)?;
        }
        let to = format!("/v2/{path}/manifests/{tag}");
        let bytes = &archive.manifest.bytes;
        let answer = self.ask("PUT", &to, Archive::MEDIA_TYPE, bytes)?;
        ensure!(answer.status == 201, "{to}: {}", answer.status);
        Ok(())
    }

    fn upload(&self, path: &str, content: &Content) -> anyhow::Result<()> {
        let begin = format!("/v2/{path}/blobs/uploads/");
        let answer = self.ask("POST", &begin, "", &[])?;
        ensure!(answer.status == 202, "{begin}: {}", answer.status);
        let to = answer.location.context("an upload has no place")?;
        // An address, of which the path counts.
        let to = match to.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
            None => to.as_str(),
        };
        let join = if to.contains('?') { '&' } else { '?' };
        let to = format!("{to}{join}digest={}", content.digest.as_str());
        let answer = self.ask("PUT", &to, "application/octet-stream", &content.bytes)?;
        ensure!(answer.status == 201, "{to}: {}", answer.status);
        Ok(())
    }

    /// How often anybody got this content from it, whole or in part.
    ///
    /// # Errors
    /// Its log cannot be read.
    pub fn gets(&self, content: &Content) -> anyhow::Result<usize> {
        let end = format!("/blobs/{}", content.digest.as_str());
        let served = self.served()?;
        let of_it = served.iter().filter(|served| served.path.ends_with(&end));
        Ok(of_it.count())
    }

    /// Bytes of manifests and contents that it has handed out.
    ///
    /// # Errors
    /// As of [`Registry::gets`].
    pub fn bytes_served(&self) -> anyhow::Result<u64> {
        Ok(self.served()?.iter().map(|served| served.bytes).sum())
    }

    fn served(&self) -> anyhow::Result<Vec<Served>> {
        let log = fs::read_to_string(&self.log);
        let log = log.with_context(|| format!("cannot read {}", self.log.display()))?;
        let all = log.lines().filter_map(served);
        let is_of_image = |path: &str| path.contains("/blobs/") || path.contains("/manifests/");
        Ok(all.filter(|served| is_of_image(&served.path)).collect())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // The program itself goes with the machine, at the latest.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A line of Apache's log format: `ADDR - - [TIME] "METHOD PATH HTTP/1.1" STATUS BYTES …`.
fn served(line: &str) -> Option<Served> {
    let mut parts = line.split('"');
    let mut request = parts.nth(1)?.split(' ');
    if request.next()? != "GET" {
        return None;
    }
    let path = request.next()?;
    let mut answer = parts.next()?.split_ascii_whitespace();
    if !["200", "206"].contains(&answer.next()?) {
        return None;
    }
    Some(Served {
        path: path.to_owned(),
        bytes: answer.next()?.parse().ok()?,
    })
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
    ) -> anyhow::Result<Self> {
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
        let Some(status) = status else {
            bail!("an answer begins with {line:?}");
        };
        let mut answer = Self {
            status,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_handed_out_is_in_the_log() {
        let line = |request: &str, status: u16| {
            format!(
                "10.77.0.1 - - [27/Nov/2026:02:00:00 +0000] \"{request} HTTP/1.1\" {status} 1234 \"\" \"x\""
            )
        };
        let found = served(&line("GET /v2/web/blobs/sha256:00", 200));
        let found = found.expect("it was handed out");
        assert_eq!(found.path, "/v2/web/blobs/sha256:00");
        assert_eq!(found.bytes, 1234);
        assert!(served(&line("GET /v2/web/blobs/sha256:00", 206)).is_some());
        assert!(served(&line("GET /v2/web/blobs/sha256:00", 404)).is_none());
        assert!(served(&line("HEAD /v2/web/blobs/sha256:00", 200)).is_none());
        assert!(served("time=\"x\" level=warning").is_none());
    }
}
