//! `weft capture`, read back by somebody else's parser.

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use pcap_parser::pcapng::Block;
use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{PcapBlockOwned, PcapError, PcapNGReader};
use rustix::process::{Pid, Signal, kill_process};
use weft_netns_tests::{Cluster, eventually};
use weft_sys::netlink::Netlink;
use weft_sys::netns::Netns;

use crate::swarm;

#[derive(Debug)]
pub(crate) struct Frame {
    interface: String,
    pub(crate) bytes: Vec<u8>,
    comment: String,
    /// 1 into the sandbox, 2 out of it.
    direction: u8,
    nanoseconds: u64,
}

impl Frame {
    /// Type of an ICMP message over IPv4.
    fn icmp(&self) -> Option<u8> {
        let ipv4 = self.bytes.get(12..14) == Some(&[8, 0]);
        (ipv4 && self.bytes.get(23) == Some(&1)).then(|| self.bytes[34])
    }
}

pub(crate) fn read(bytes: &[u8]) -> Vec<Frame> {
    let mut reader = PcapNGReader::new(1 << 20, bytes).expect("a section");
    let (mut names, mut frames) = (Vec::new(), Vec::new());
    loop {
        let used = match reader.next() {
            Ok((used, PcapBlockOwned::NG(block))) => {
                let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                match block {
                    Block::InterfaceDescription(i) => {
                        assert_eq!(i.if_tsresol, 9);
                        let name = i.options.iter().find(|o| o.code.0 == 2).expect("a name");
                        names.push(text(&name.value[..usize::from(name.len)]));
                    }
                    Block::EnhancedPacket(p) => {
                        let option = |code| p.options.iter().find(|o| o.code.0 == code);
                        frames.push(Frame {
                            interface: names[p.if_id as usize].clone(),
                            bytes: p.packet_data().to_vec(),
                            comment: option(1)
                                .map_or_else(String::new, |o| text(&o.value[..usize::from(o.len)])),
                            direction: option(2).expect("flags").value[0],
                            nanoseconds: (u64::from(p.ts_high) << 32) | u64::from(p.ts_low),
                        });
                    }
                    _ => {}
                }
                used
            }
            Ok(_) => unreachable!("a block of the old format"),
            Err(PcapError::Eof) => return frames,
            Err(PcapError::Incomplete(_)) => {
                reader.refill().expect("more bytes");
                continue;
            }
            Err(error) => unreachable!("{error:?}"),
        };
        reader.consume(used);
    }
}

pub(crate) fn capture(cluster: &Cluster, words: &[&str]) -> Child {
    let socket = cluster
        .lab()
        .socket("node1")
        .expect("the node has an agent");
    Command::new(cluster.program())
        .args(["-H", &format!("unix://{}", socket.display()), "capture"])
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("weft starts")
}

/// Sends from an address that is not its own.
fn spoof(guest: &Netns, to: &str) {
    guest
        .run_in(|| {
            let mut links = Netlink::open().expect("netlink");
            let foreign = "10.0.1.77/32".parse().expect("a network");
            links.add_address("eth0", foreign).expect("an address");
            let socket = UdpSocket::bind("10.0.1.77:0").expect("bind");
            socket.send_to(b"not me", (to, 9)).expect("sent");
        })
        .expect("a thread");
}

#[test]
fn frames_are_captured_with_the_reasons_of_drops() {
    let cluster = swarm(2);
    cluster.network("front");
    let (a, _) = cluster.guest("node1", "a", "front");
    let (_b, printed) = cluster.guest("node2", "b", "front");
    let to = printed["IP"].as_str().expect("an address").to_owned();
    let ping = || {
        let words = ["ping", "-c", "1", "-W", "1", &to];
        let said = cluster.run("node1", Some("/run/netns/a".as_ref()), &words);
        if said.code == 0 { Ok(()) } else { Err(said) }
    };
    eventually("they reach each other", ping);

    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("all.pcapng");
    let name = file.to_str().expect("a path");
    let mut all = capture(&cluster, &["--port", "a", "-w", name]);
    let len = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
    eventually("the capture runs", || {
        if len(&file) > 0 { Ok(()) } else { Err(()) }
    });
    let refused = cluster.weft("node1", &["capture", "-w", "-"]);
    refused.refused(&["a capture is running on this node already"]);
    eventually("a ping", ping);
    spoof(&a, &to);
    eventually("everything is in the file", || {
        let frames = read(&std::fs::read(&file).expect("the file"));
        let found = |kind| frames.iter().any(|f| f.icmp() == Some(kind));
        let dropped = frames.iter().any(|f| f.comment.contains("spoofed_ip"));
        if found(8) && found(0) && dropped {
            Ok(())
        } else {
            Err(frames)
        }
    });
    kill_process(Pid::from_child(&all), Signal::INT).expect("it runs");
    assert!(all.wait().expect("it ends").success());
    let frames = read(&std::fs::read(&file).expect("the file"));
    assert!(frames.iter().all(|f| f.interface == "a"), "{frames:?}");
    assert!(frames.is_sorted_by_key(|f| f.nanoseconds), "{frames:?}");
    let of = |kind| {
        frames
            .iter()
            .find(|f| f.icmp() == Some(kind))
            .expect("a ping")
    };
    let (request, reply) = (of(8), of(0));
    assert_eq!((request.direction, reply.direction), (2, 1));
    assert_eq!((&*request.comment, &*reply.comment), ("", ""));
    assert!(request.nanoseconds < reply.nanoseconds);

    // The agent is free for the next one as soon as the client is gone.
    let only = eventually("the next capture starts", || {
        let words = ["--dir", "drop", "-c", "1", "-s", "60", "-w", "-"];
        let mut child = capture(&cluster, &words);
        let ended = eventually("one frame ends it", || {
            spoof(&a, &to);
            child.try_wait().expect("it can be asked").ok_or(())
        });
        let said = child.wait_with_output().expect("its output");
        if ended.success() {
            Ok(said.stdout)
        } else {
            Err(said.stderr)
        }
    });
    let frames = read(&only);
    assert_eq!(frames.len(), 1, "{frames:?}");
    assert!(frames[0].comment.starts_with("dropped, "), "{frames:?}");
    assert!(frames[0].bytes.len() <= 60);

    let nothing = dir.path().join("nothing");
    let words = [
        "capture",
        "--port",
        "c",
        "-w",
        nothing.to_str().expect("a path"),
    ];
    cluster
        .weft("node1", &words)
        .refused(&["no such port on this node: c", "a, mesh, underlay"]);
    assert!(!nothing.exists());
    let said = cluster.weft("node1", &["drops", "--port", "a"]).ok();
    assert!(said.contains("spoofed_ip"), "{said}");
    cluster
        .weft("node1", &["drops", "--port", "c"])
        .refused(&["no such port on this node: c"]);
}
