//! What happens on networks and hosts in a year, here in a minute: a link that is narrower than all
//! others, a firewall that is loaded anew, replicas that end while their clients still read.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use ipnet::{IpNet, Ipv4Net};
use weft_lab::OUTSIDE;
use weft_sys::netlink::{MAIN_TABLE, Netlink, Route, Veth};

use super::cluster::PORT;
use super::walk::Walk;

const LIMIT: Duration = Duration::from_secs(20);

/// Bytes that a slow client asks for.
const LARGE: u64 = 4_000_000;
/// What it reads at once, and how long it rests then: two seconds for all.
const SIP: usize = 40_000;
const REST: Duration = Duration::from_millis(20);

/// Both ends of the narrow link (RFC 5737).
const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
const NARROW: u32 = 1300;

/// A client that is still reading.
pub(super) type Reader = JoinHandle<io::Result<io::Result<u64>>>;

/// Clients outside ask every node for a large answer, and read it slowly.
pub(super) fn slow_clients(walk: &Walk<'_, '_>) -> anyhow::Result<Vec<Reader>> {
    let mut readers = Vec::new();
    for node in &walk.nodes {
        let target = SocketAddr::new(walk.lab().node_addr(node)?, PORT);
        for _ in 0..2 {
            let outside = walk.lab().netns(OUTSIDE, None)?;
            readers.push(std::thread::spawn(move || {
                outside.run_in(|| read_slowly(target))
            }));
        }
    }
    // Asked, and answered in part, before anything ends.
    std::thread::sleep(10 * REST);
    Ok(readers)
}

fn read_slowly(target: SocketAddr) -> io::Result<u64> {
    let mut stream = TcpStream::connect_timeout(&target, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let request =
        format!("GET /bytes/{LARGE} HTTP/1.1\r\nhost: {target}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut buffer = vec![0; SIP];
    let mut read = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(read),
            more => read += more as u64,
        }
        std::thread::sleep(REST);
    }
}

/// Whether every one of them got all.
pub(super) fn all_read(walk: &mut Walk<'_, '_>, readers: Vec<Reader>) -> anyhow::Result<()> {
    let claim = format!(
        "{} clients that were reading {LARGE} bytes got every one of them",
        readers.len()
    );
    walk.check(&claim, |_| {
        for (at, reader) in readers.into_iter().enumerate() {
            let read = reader
                .join()
                .map_err(|_| anyhow::anyhow!("client {at} panicked"))?;
            let read = read?.with_context(|| format!("client {at}"))?;
            // And the head of the answer.
            ensure!(read > LARGE, "client {at} got {read} bytes");
        }
        Ok(())
    })?;
    Ok(())
}

pub(super) fn narrow_link(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.transcript
        .section("A client behind a link that is narrower than all others")?;
    walk.transcript.say(&format!(
        "A namespace outside, behind a router and a link of {NARROW} bytes, asks for 200,000 bytes."
    ))?;
    let path = walk.lab().add_netns(OUTSIDE, "far")?;
    let router = walk.lab().netns(OUTSIDE, None)?;
    let client = walk.lab().netns(OUTSIDE, Some(&path))?;
    router.run_in(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))??;
    let prefix = |ip| Ipv4Net::new(ip, 24).map(IpNet::from);
    let mut near = Netlink::open_in(&router)?;
    near.add_veth(&Veth {
        name: "near",
        peer: "far",
        peer_netns: Some(&client),
        peer_mac: None,
        mtu: None,
    })?;
    near.set_mtu("near", NARROW)?;
    near.add_address("near", prefix(NEAR)?)?;
    near.set_up("near", true)?;
    let mut far = Netlink::open_in(&client)?;
    far.add_address("far", prefix(FAR)?)?;
    far.set_up("far", true)?;
    far.set_route(&Route {
        dest: Ipv4Net::default().into(),
        gateway: Some(NEAR.into()),
        dev: Some("far".to_owned()),
        table: MAIN_TABLE,
        onlink: false,
    })?;
    for node in walk.nodes.clone() {
        let target = format!("{}:{PORT}/bytes/200000", walk.lab().node_addr(&node)?);
        let claim = format!("every byte arrives through {node}, and replicas learn of the link");
        walk.check(&claim, |walk| {
            let inside = Some(("far", path.as_path()));
            let text = walk.tool(OUTSIDE, inside, &["demo-get", "--count", &target])?;
            ensure!(text.starts_with("200000 bytes in "), "{text:?}");
            Ok(())
        })?;
    }
    Ok(())
}

pub(super) fn firewall_loaded_anew(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.transcript
        .section("Somebody loads the firewall of a node anew")?;
    let outside = walk.lab().netns(OUTSIDE, None)?;
    let target = SocketAddr::new(walk.lab().node_addr("node1")?, PORT);
    let mut kept = outside.run_in(|| TcpStream::connect_timeout(&target, LIMIT))??;
    kept.set_read_timeout(Some(LIMIT))?;
    ask(&mut kept)?;
    walk.transcript.say(&format!(
        "A client outside has a connection to {target} open, and asks again."
    ))?;
    walk.run_shown("node1", &["nft", "flush", "ruleset"])?;
    walk.check("all rules are back", |walk| {
        walk.eventually(LIMIT, |walk| {
            let tables = walk.run_quietly("node1", &["nft", "list", "tables"])?;
            ensure!(tables.contains("inet weft"), "there are {tables:?}");
            Ok(())
        })
    })?;
    walk.check("the connection goes on", |_| ask(&mut kept))?;
    let port = format!("{target}/");
    walk.check("node1 answers the outside", |walk| {
        walk.tool(OUTSIDE, None, &["demo-get", &port])
    })?;
    Ok(())
}

/// One more request on an open connection.
fn ask(stream: &mut TcpStream) -> anyhow::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.windows(10).any(|w| w == b"Hello from") {
        let count = stream.read(&mut buffer)?;
        ensure!(count > 0, "the connection was closed");
        answer.extend_from_slice(&buffer[..count]);
    }
    Ok(())
}
