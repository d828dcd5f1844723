use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;
use weft_gossip::{MemberState, Members, NetdbView};
use weft_model::assignment::GossipKey;
use weft_model::records::Table;

use super::{GossipConfig, GossipHandle, GossipStats};

const PATIENCE: Duration = Duration::from_secs(10);

fn key(epoch: u32) -> GossipKey {
    GossipKey {
        epoch,
        key: [u8::try_from(epoch).unwrap(); 32],
        sealing_since: 0,
    }
}

fn config(name: &str, keys: &[GossipKey]) -> GossipConfig {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).unwrap();
    GossipConfig {
        node: name.into(),
        cluster_id: "cluster".to_owned(),
        bind: any,
        advertise: any,
        keys: keys.to_vec(),
        members: None,
        incarnation: 1,
        seed,
    }
}

fn start(name: &str, keys: &[GossipKey]) -> GossipHandle {
    let handle = GossipHandle::start(config(name, keys)).unwrap();
    handle.put(Table::Endpoint, format!("of-{name}"), b"1".to_vec());
    handle
}

async fn sees(handle: &GossipHandle, what: &str, mut seen: impl FnMut(&NetdbView) -> bool) {
    let mut view = handle.view();
    timeout(PATIENCE, view.wait_for(|v| seen(v)))
        .await
        .unwrap_or_else(|_| panic!("{} never sees {what}", handle.addr()))
        .unwrap();
}

async fn counts(handle: &GossipHandle, what: &str, counted: impl Fn(GossipStats) -> bool) {
    let start = Instant::now();
    while !counted(handle.stats()) {
        assert!(start.elapsed() < PATIENCE, "{what}: {:?}", handle.stats());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn entries(view: &NetdbView) -> usize {
    view.entries(Table::Endpoint).count()
}

async fn cluster(names: &[&str]) -> Vec<GossipHandle> {
    let handles: Vec<_> = names.iter().map(|n| start(n, &[key(1)])).collect();
    let first = handles[0].addr();
    for handle in &handles {
        handle.join(vec![first]);
    }
    for handle in &handles {
        sees(handle, "all entries", |v| entries(v) == names.len()).await;
    }
    handles
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_converge_and_withdraw_a_dead_one() {
    let mut handles = cluster(&["a", "b", "c"]).await;
    let large = vec![7; 30_000];
    handles[1].put(Table::Endpoint, "large".to_owned(), large.clone());
    for handle in &handles {
        sees(handle, "the large entry", |v| {
            v.get(Table::Endpoint, &"b".into(), "large")
                .is_some_and(|v| **v == large)
        })
        .await;
    }
    handles[1].delete(Table::Endpoint, "large".to_owned());
    for handle in &handles {
        sees(handle, "the deletion", |v| entries(v) == 3).await;
    }

    let killed = Instant::now();
    drop(handles.pop());
    for handle in &handles {
        sees(handle, "the death of c", |v| {
            v.state(&"c".into()) == Some(MemberState::Down) && entries(v) == 2
        })
        .await;
    }
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    let stats = handles[0].stats();
    assert!(stats.datagrams_in > 0 && stats.datagrams_out > 0 && stats.streams > 0);
    assert_eq!(
        (
            stats.malformed,
            stats.forged,
            stats.unknown_key,
            stats.refused
        ),
        (0, 0, 0, 0)
    );
}

#[tokio::test]
async fn a_leaving_node_is_gone_at_once() {
    let mut handles = cluster(&["a", "b", "c"]).await;
    let c = handles.pop().unwrap();
    c.leave().await;
    for handle in &handles {
        sees(handle, "that c left", |v| {
            v.state(&"c".into()) == Some(MemberState::Left) && entries(v) == 2
        })
        .await;
    }
}

#[tokio::test]
async fn another_key_is_counted_and_gets_nowhere() {
    let a = start("a", &[key(1)]);
    let unknown = start("b", &[key(2)]);
    let forged = start(
        "c",
        &[GossipKey {
            epoch: 1,
            key: [9; 32],
            sealing_since: 0,
        }],
    );
    unknown.join(vec![a.addr()]);
    forged.join(vec![a.addr()]);
    counts(&a, "unknown key", |s| s.unknown_key >= 2).await;
    counts(&a, "forged", |s| s.forged >= 2).await;
    assert_eq!(a.view().borrow().members.len(), 1);

    // Once a holds both keys, b gets in although they seal with different ones.
    a.set_keys(vec![key(1), key(2)]).unwrap();
    unknown.set_keys(vec![key(2), key(1)]).unwrap();
    sees(&a, "b", |v| entries(v) == 2).await;
    sees(&unknown, "a", |v| entries(v) == 2).await;
    assert!(a.set_keys(Vec::new()).is_err());
}

#[tokio::test]
async fn malformed_datagrams_and_streams_are_counted_and_harm_nobody() {
    let handles = cluster(&["a", "b"]).await;
    let (a, target) = (&handles[0], handles[0].addr());
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.send_to(&[], target).await.unwrap();
    socket.send_to(b"nonsense", target).await.unwrap();
    socket.send_to(&[1; 1391], target).await.unwrap();
    socket.send_to(&[1; 9000], target).await.unwrap();
    counts(a, "datagrams", |s| s.malformed == 3 && s.unknown_key == 1).await;

    for junk in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x04junk"] {
        let before = a.stats().malformed;
        let mut stream = TcpStream::connect(target).await.unwrap();
        stream.write_all(junk).await.unwrap();
        // It hangs up, with or without reading the rest.
        let hung_up = timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap();
        assert!(hung_up.is_err() || hung_up.is_ok_and(|n| n == 0));
        counts(a, "stream", |s| s.malformed == before + 1).await;
    }
    handles[1].put(Table::Load, "k".to_owned(), b"{}".to_vec());
    sees(a, "b as before", |v| {
        v.get(Table::Load, &"b".into(), "k").is_some()
    })
    .await;
}

/// Connections from an address that no node has.
async fn strange(to: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let socket = TcpSocket::new_v4().unwrap();
        let from = Ipv4Addr::new(127, 0, 0, 78);
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        // One that is refused at once may end before it is whole.
        streams.extend(socket.connect(to).await.ok());
    }
    streams
}

fn refused(handle: &GossipHandle) -> u64 {
    let events = handle.door().events.into_iter();
    let refused = events.filter(|(event, _)| event.starts_with("refused"));
    refused.map(|(_, n)| n).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_strangers_take_no_place_of_a_new_member() {
    let a = start("a", &[key(1)]);
    // So the orders say, before b speaks.
    let here = IpAddr::from(Ipv4Addr::LOCALHOST);
    a.expect(BTreeMap::from([("b".into(), BTreeSet::from([here]))]));
    let held = strange(a.addr(), 400).await;
    let start_of_b = Instant::now();
    let b = start("b", &[key(1)]);
    // Too large for datagrams: it comes in a conversation.
    b.put(Table::Endpoint, "large".to_owned(), vec![7; 60_000]);
    b.join(vec![a.addr()]);
    sees(&a, "the large entry of b", |v| {
        v.get(Table::Endpoint, &"b".into(), "large").is_some()
    })
    .await;
    let took = start_of_b.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(refused(&a) >= 300, "{:?}", a.door());
    let strangers = a.door().open[0];
    assert!(strangers.1 <= 8, "{strangers:?}");
    // Silence is over after a while.
    timeout(PATIENCE, async {
        while a.door().open[0].1 > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    drop(held);
}

#[tokio::test]
async fn a_stranger_cannot_begin_with_a_long_message() {
    let a = start("a", &[key(1)]);
    for len in [300_u32 << 10, 4 << 20] {
        let before = a.stats().malformed;
        let mut stream = strange(a.addr(), 1).await.pop().unwrap();
        stream.write_all(&len.to_be_bytes()).await.unwrap();
        let hung_up = timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap();
        assert!(hung_up.is_err() || hung_up.is_ok_and(|n| n == 0));
        counts(&a, "too long", |s| s.malformed == before + 1).await;
    }
    // A node of the orders may.
    let here = IpAddr::from(Ipv4Addr::LOCALHOST);
    a.expect(BTreeMap::from([("b".into(), BTreeSet::from([here]))]));
    let mut stream = TcpStream::connect(a.addr()).await.unwrap();
    let message = [&(300_u32 << 10).to_be_bytes()[..], &vec![1; 300 << 10]].concat();
    stream.write_all(&message).await.unwrap();
    counts(&a, "read, and not opened", |s| s.unknown_key == 1).await;
}

#[tokio::test]
async fn a_busy_port_names_the_way_out() {
    let a = start("a", &[key(1)]);
    let mut second = config("b", &[key(1)]);
    second.bind = a.addr();
    let error = GossipHandle::start(second.clone()).unwrap_err().to_string();
    assert!(
        error.contains("is in use") && error.contains("is held by "),
        "{error}"
    );
    second.bind = "192.0.2.1:7946".parse().unwrap();
    let error = GossipHandle::start(second.clone()).unwrap_err().to_string();
    assert!(error.contains("not one of this host's"), "{error}");
    second.keys.clear();
    let error = GossipHandle::start(second).unwrap_err().to_string();
    assert!(error.contains("no gossip key"), "{error}");
}

fn ring(epochs: &[u32]) -> Vec<GossipKey> {
    epochs.iter().map(|e| key(*e)).collect()
}

fn alive(view: &NetdbView) -> usize {
    view.members
        .values()
        .filter(|m| m.state.is_active())
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_turn_while_nodes_talk_and_who_missed_too_much_comes_back_with_the_ring() {
    let handles: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|n| start(n, &ring(&[1, 2])))
        .collect();
    for handle in &handles {
        handle.join(vec![handles[0].addr()]);
    }
    for handle in &handles {
        sees(handle, "all entries", |v| entries(v) == 3).await;
    }
    // c is away from the managers for one rotation.
    for handle in &handles[..2] {
        handle.set_keys(ring(&[2, 3, 1])).unwrap();
    }
    for (i, handle) in handles.iter().enumerate() {
        handle.put(Table::Endpoint, format!("after-{i}"), b"2".to_vec());
    }
    for handle in &handles {
        sees(handle, "what came after", |v| {
            entries(v) == 6 && alive(v) == 3
        })
        .await;
        assert_eq!(handle.stats().unknown_key, 0);
    }
    let keys = handles[0].keys();
    assert_eq!((keys.sealing_epoch, keys.held), (2, 3));
    // For a second one it is one too many.
    for handle in &handles[..2] {
        handle.set_keys(ring(&[3, 4, 2])).unwrap();
    }
    counts(&handles[0], "an old key", |s| s.unknown_key > 0).await;
    sees(&handles[0], "that c is not heard", |v| alive(v) == 2).await;
    handles[2].set_keys(ring(&[3, 4, 2])).unwrap();
    for handle in &handles {
        sees(handle, "c again", |v| entries(v) == 6 && alive(v) == 3).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_no_member_is_not_heard_although_he_has_the_key() {
    let handles = cluster(&["a", "b", "c"]).await;
    let members = |of: &[(&str, &GossipHandle)]| Members {
        addrs: of.iter().map(|(n, h)| ((*n).into(), h.addr())).collect(),
        time_ms: 1,
    };
    let (a, b) = (("a", &handles[0]), ("b", &handles[1]));
    for (_, handle) in [a, b] {
        handle.set_members(members(&[a, b]));
    }
    for (_, handle) in [a, b] {
        sees(handle, "that c is gone", |v| {
            entries(v) == 2 && !v.members.contains_key(&"c".into())
        })
        .await;
    }
    // It has not heard of it and goes on.
    handles[2].put(Table::Endpoint, "more".to_owned(), b"1".to_vec());
    counts(a.1, "a stranger", |s| s.strangers > 0).await;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let sealer = super::Sealer::new("cluster".to_owned(), vec![key(1)]).unwrap();
    let sealed = sealer.seal(super::seal::Channel::Datagram, b"").unwrap();
    let before = b.1.stats().strangers;
    socket.send_to(&sealed, b.1.addr()).await.unwrap();
    counts(b.1, "another stranger", |s| s.strangers > before).await;
    b.1.put(Table::Endpoint, "more".to_owned(), b"1".to_vec());
    sees(a.1, "b as before", |v| entries(v) == 3 && alive(v) == 2).await;
}
