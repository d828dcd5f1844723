//! Somebody has a copy of the gossip keys: a member that lies, and the same one after its removal.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use etherparse::PacketBuilder;
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use weft_netns_tests::{Cluster, eventually, figure, get, within};
use weft_sys::netns::Netns;

use crate::published::serve;
use crate::swarm;

const GOSSIP: u16 = 7946;
const PROBE: Duration = Duration::from_secs(1);
/// Highest time until what was erased is there again.
const BACK: Duration = Duration::from_secs(8);
/// Two steps of the key ring, and the time that orders take.
const EXPELLED: Duration = Duration::from_secs(15);

fn on_disk(cluster: &Cluster, node: &str, file: &str) -> Vec<Value> {
    let folder: PathBuf = cluster.dir().join("lab").join(node).join("data");
    let text = std::fs::read(folder.join(file)).expect("orders on disk");
    let values = serde_json::Deserializer::from_slice(&text).into_iter::<Value>();
    values
        .collect::<Result<_, _>>()
        .expect("orders are JSON, one after the other")
}

/// What every node is told, with the last ring of keys: changes come after the whole.
fn shared(cluster: &Cluster, node: &str) -> Value {
    let mut values = on_disk(cluster, node, "shared.json").into_iter();
    let mut shared = values.next().expect("the whole");
    for mut change in values {
        if let Some(keys) = change.get_mut("gossip_keys") {
            shared["gossip_keys"] = keys.take();
        }
    }
    shared
}

/// What this node is told.
fn own(cluster: &Cluster, node: &str) -> Value {
    on_disk(cluster, node, "assignment.json").remove(0)
}

fn bytes(value: &Value) -> Vec<u8> {
    let numbers = value.as_array().expect("a list").iter();
    numbers
        .map(|n| u8::try_from(n.as_u64().expect("a number")).expect("a byte"))
        .collect()
}

/// Keys in the orders of a node.
fn keys_of(cluster: &Cluster, node: &str) -> BTreeSet<Vec<u8>> {
    let orders = shared(cluster, node);
    let keys = orders["gossip_keys"].as_array().expect("a ring").iter();
    keys.map(|k| bytes(&k["key"])).collect()
}

fn id_of(cluster: &Cluster, node: &str) -> String {
    let id = &own(cluster, node)["node"]["ID"];
    id.as_str().expect("an id").to_owned()
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.expect("after 1970").as_millis()).expect("not for long")
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn number(out: &mut Vec<u8>, tag: u8, value: u64) {
    out.push(tag << 3);
    varint(out, value);
}

fn chunk(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag << 3 | 2);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// A change of an entry, as nodes write it.
#[derive(Clone, Default)]
struct Update {
    owner: String,
    incarnation: u64,
    /// Table, key and value; without one the owner has left.
    entry: Option<(u64, String, Vec<u8>)>,
}

impl Update {
    fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        chunk(&mut out, 1, self.owner.as_bytes());
        number(&mut out, 2, self.incarnation);
        match &self.entry {
            Some((table, key, value)) => {
                number(&mut out, 3, 1);
                number(&mut out, 4, *table);
                chunk(&mut out, 5, key.as_bytes());
                chunk(&mut out, 6, value);
            }
            None => number(&mut out, 8, 1),
        }
        out
    }
}

/// Who has the key, and speaks as a member.
struct Liar {
    cluster_id: String,
    epoch: u32,
    key: Vec<u8>,
    from: IpAddr,
    netns: Netns,
}

impl Liar {
    fn new(cluster: &Cluster, node: &str) -> Self {
        let orders = shared(cluster, node);
        let sealing = &orders["gossip_keys"][0];
        Self {
            cluster_id: orders["cluster_id"].as_str().expect("an id").to_owned(),
            epoch: u32::try_from(sealing["epoch"].as_u64().expect("a number")).expect("small"),
            key: bytes(&sealing["key"]),
            from: cluster.addr(node),
            netns: cluster.netns(node, None),
        }
    }

    fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let salt = [7; 8];
        let mut derived = [0; 32];
        let salted = Salt::new(HKDF_SHA256, &salt).extract(&self.key);
        let expanded = salted.expand(&[b"weft gossip 1"], HKDF_SHA256);
        expanded
            .and_then(|okm| okm.fill(&mut derived))
            .expect("32 bytes");
        let mut out = vec![1];
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&salt);
        let mut aad = out.clone();
        // A datagram.
        aad.push(1);
        aad.extend_from_slice(self.cluster_id.as_bytes());
        let key = RandomizedNonceKey::new(&AES_256_GCM, &derived).expect("32 bytes");
        let mut body = plain.to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::from(aad), &mut body);
        out.extend_from_slice(nonce.expect("it is short").as_ref());
        out.append(&mut body);
        out
    }

    /// One datagram from the liar's gossip port, which its agent holds.
    fn tell(&self, to: IpAddr, updates: &[Update]) {
        let mut list = Vec::new();
        for update in updates {
            chunk(&mut list, 1, &update.encoded());
        }
        let mut plain = Vec::new();
        chunk(&mut plain, 2, &list);
        let sealed = self.seal(&plain);
        let v4 = |ip: IpAddr| ip.to_string().parse::<Ipv4Addr>().expect("an IPv4 lab");
        let (from, to) = (v4(self.from), v4(to));
        let mut packet = Vec::new();
        PacketBuilder::ipv4(from.octets(), to.octets(), 64)
            .udp(GOSSIP, GOSSIP)
            .write(&mut packet, &sealed)
            .expect("a packet");
        let send = || {
            // IPPROTO_RAW: the packet has headers of its own.
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
            socket.send_to(&packet, &SocketAddr::from((to, 0)).into())
        };
        let sent = self.netns.run_in(send).expect("a thread");
        assert_eq!(sent.expect("sent"), packet.len());
    }
}

fn events(cluster: &Cluster, node: &str, event: &str) -> u64 {
    cluster.metric(
        node,
        &format!("weft_gossip_events_total{{event=\"{event}\"}}"),
    )
}

fn counted(cluster: &Cluster, node: &str, event: &str, before: u64) {
    eventually(&format!("{node} counts a {event}"), || {
        match events(cluster, node, event) {
            n if n > before => Ok(()),
            n => Err(n),
        }
    });
}

fn warns(cluster: &Cluster, node: &str, words: &str) {
    eventually(&format!("{node} warns of it"), || {
        let info = cluster.weft(node, &["info"]).ok();
        if info.contains(words) {
            Ok(())
        } else {
            Err(info)
        }
    });
}

/// Nobody listens there: the refusal shows that packets pass in both directions.
fn reaches(client: &Netns, ip: IpAddr) -> Result<(), String> {
    let to = SocketAddr::new(ip, 9);
    let probe = client.run_in(|| TcpStream::connect_timeout(&to, PROBE));
    match probe.expect("a thread") {
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// Endpoints of a service's tasks, as the orders of their nodes name them.
fn replicas(cluster: &Cluster, nodes: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for node in nodes {
        let orders = own(cluster, node);
        for task in orders["tasks"].as_array().expect("a list") {
            let attachments = task["NetworksAttachments"].as_array().expect("a list");
            let ids = attachments.iter().map(|a| &a["EndpointID"]);
            found.extend(ids.map(|id| id.as_str().expect("an id").to_owned()));
        }
    }
    found
}

#[test]
fn a_member_that_lies_erases_nobody_and_is_not_heard_once_it_is_removed() {
    let cluster = swarm(3);
    cluster.network("front");
    let (client, _) = cluster.guest("node1", "client", "front");
    let (_server, printed) = cluster.guest("node3", "server", "front");
    let ip: IpAddr = printed["IP"]
        .as_str()
        .and_then(|ip| ip.parse().ok())
        .expect("an address");
    eventually("the other end is reached", || reaches(&client, ip));
    let drain = ["node", "update", "--availability", "drain", "node2"];
    cluster.weft("node1", &drain).done();
    let options = [
        "--replicas",
        "2",
        "-p",
        "8000:80",
        "--limit-connections",
        "1000",
    ];
    serve(&cluster, "web", &options, &[80]);
    let outside = cluster.outside();
    let port = cluster.at("node1", 8000);
    eventually("the port answers", || get(&outside, port));

    let liar = Liar::new(&cluster, "node2");
    let stolen = keys_of(&cluster, "node2");
    let (first, victim) = (cluster.addr("node1"), id_of(&cluster, "node3"));

    // The datagram that erased a node for good.
    let left = |incarnation| Update {
        owner: victim.clone(),
        incarnation,
        entry: None,
    };
    let lies = events(&cluster, "node1", "lie");
    liar.tell(first, &[left(u64::MAX)]);
    counted(&cluster, "node1", "lie", lies);
    reaches(&client, ip).expect("nothing came of it");
    warns(&cluster, "node1", "out of all bounds");

    // One that a node could have sent.
    let lies = events(&cluster, "node3", "lie");
    eventually("node3 says that it did not say so", || {
        // In its first seconds it might have forgotten a life, if its clock went back.
        liar.tell(first, &[left(unix_ms() + 60_000)]);
        match events(&cluster, "node3", "lie") {
            n if n > lies => Ok(()),
            n => Err(n),
        }
    });
    let (_, took) = within(BACK, "it comes back", || reaches(&client, ip));
    figure(&format!(
        "a node erased by one datagram is back after {took:?}"
    ));
    warns(&cluster, "node3", "entries of this node were replaced");

    loads(&cluster, &liar, &outside);
    restart(&cluster, &["node1", "node3"]);
    eventually("they see each other again", || reaches(&client, ip));
    eventually("the port answers again", || get(&outside, port));

    // Removed, it still runs and knows the keys of before.
    cluster
        .weft("node1", &["node", "rm", "--force", "node2"])
        .done();
    let (_, took) = within(EXPELLED, "no key that it knows is left", || {
        let held: Vec<_> = ["node1", "node3"]
            .iter()
            .map(|node| keys_of(&cluster, node).intersection(&stolen).count())
            .collect();
        if held == [0, 0] { Ok(()) } else { Err(held) }
    });
    figure(&format!("no key of a removed node is left after {took:?}"));
    let refused = events(&cluster, "node1", "unknown_key");
    let lies = events(&cluster, "node3", "lie");
    for _ in 0..10 {
        liar.tell(first, &[left(unix_ms() + 120_000)]);
    }
    eventually("its datagrams are refused", || {
        match events(&cluster, "node1", "unknown_key") {
            n if n >= refused + 10 => Ok(()),
            n => Err(n),
        }
    });
    reaches(&client, ip).expect("nothing came of it");
    restart(&cluster, &["node3", "node1"]);
    eventually("they see each other again", || reaches(&client, ip));
    eventually("the port answers again", || get(&outside, port));
    assert!(events(&cluster, "node3", "lie") <= lies);
}

/// Four billion connections to every replica of the service, again and again.
fn loads(cluster: &Cluster, liar: &Liar, outside: &Netns) {
    let owner = id_of(cluster, "node2");
    let replicas = replicas(cluster, &["node1", "node3"]);
    assert_eq!(replicas.len(), 2, "{replicas:?}");
    let nodes = [cluster.addr("node1"), cluster.addr("node3")];
    let stop = AtomicBool::new(false);
    let told = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let start = unix_ms() + 100_000;
            // Its agent contradicts: each lie is of a later life. Bounded by the requests below.
            for round in 0..2000 {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let updates: Vec<Update> = replicas
                    .iter()
                    .map(|id| Update {
                        owner: owner.clone(),
                        incarnation: start + round * 10,
                        entry: Some((3, id.clone(), br#"{"active":4000000000}"#.to_vec())),
                    })
                    .collect();
                for node in nodes {
                    liar.tell(node, &updates);
                }
                told.store(true, Ordering::Relaxed);
                // The pace of an attacker, not a wait for anything.
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let rows = || crate::published::rows_at(cluster, "node1", &["why", "8000"]);
        let shown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("the lie is heard", || {
                let rows = rows();
                let heard = |row: &Value| row["ActiveEverywhere"].as_u64().is_some_and(|n| n > 0);
                if rows.iter().any(heard) {
                    Ok(())
                } else {
                    Err(rows)
                }
            });
            let answers = (0..40).filter(|_| get(outside, cluster.at("node1", 8000)).is_ok());
            answers.count()
        }));
        stop.store(true, Ordering::Relaxed);
        let answers = shown.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert_eq!(answers, 40, "the port answers whatever one node reports");
    });
    assert_eq!(cluster.drops("node1", "connection_limit"), 0);
}

fn restart(cluster: &Cluster, nodes: &[&str]) {
    for node in nodes {
        cluster.restart_agent(node);
    }
    cluster.lab().wait_ready(BACK * 4).expect("they answer");
}
