//! A cable that is out for a moment, and an address that is away as long.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use weft_netns_tests::{eventually, get, hold, receive_pattern, send_pattern};

use crate::swarm;

/// What a round of the endless stream carries.
const ROUND: usize = 1 << 20;

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "second tier: a node is cut off twice for three seconds, and streams need as long again"]
fn streams_go_on_after_a_cable_or_an_address_was_away_and_no_task_moves_twice() {
    let cluster = swarm(2);
    cluster.web(2);
    let client = cluster.outside();
    for node in ["node1", "node2"] {
        eventually("the node answers", || get(&client, cluster.at(node, 8000)));
    }
    // At a replica of the node that it came to: those of one that is dark for long are told so.
    let mut held = eventually("a replica of the node answers", || {
        let held = hold(&client, cluster.at("node1", 8000)).expect("a connection");
        let here = held.answer.contains("on node1");
        if here { Ok(held) } else { Err(held.answer) }
    });
    let [(a, _), (b, printed)] =
        [("node1", "a"), ("node2", "b")].map(|(node, name)| cluster.guest(node, name, "front"));
    let ip = printed["IP"].as_str().and_then(|ip| ip.parse().ok());
    let to = SocketAddr::new(ip.expect("an address"), 5000);
    let listener = b.run_in(|| TcpListener::bind(to)).expect("a thread");
    let listener = listener.expect("the port is free");
    let limit = Duration::from_secs(20);
    let stream = eventually("they reach each other", || {
        let connected = a.run_in(|| TcpStream::connect_timeout(&to, limit));
        connected.expect("a thread")
    });
    let (accepted, _) = listener.accept().expect("the connection is there");
    for end in [&stream, &accepted] {
        end.set_read_timeout(Some(limit)).expect("a limit");
        end.set_write_timeout(Some(limit)).expect("a limit");
    }

    let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let goes_on = |what: &str| {
        let from = rounds.load(Ordering::Relaxed);
        eventually(what, || {
            let more = rounds.load(Ordering::Relaxed) - from;
            if more > 8 { Ok(()) } else { Err(more) }
        });
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                send_pattern(&stream, ROUND);
            }
            let end = stream.shutdown(Shutdown::Write);
            end.expect("the stream ends");
        });
        scope.spawn(|| {
            let mut next = [0];
            while accepted.peek(&mut next).expect("the stream goes on") > 0 {
                receive_pattern(&accepted, ROUND);
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        // A failed assertion must not leave the sender sending.
        let _stop = StopOnDrop(&stop);
        goes_on("the stream, at first");
        let (own, gateway) = (cluster.addr("node2"), cluster.addr("outside"));
        let change = |how: &str| format!("ip address {how} {own}/24 dev eth0");
        let link = |how: &str| format!("ip link set eth0 {how}");
        for (what, away, back) in [
            ("the cable", link("down"), link("up")),
            ("the address", change("del"), change("add")),
        ] {
            let run = |script: &str| cluster.run("node2", None, &["sh", "-c", script]).done();
            run(&away);
            std::thread::sleep(Duration::from_secs(3));
            // As whoever configures the link does when it is back.
            run(&format!("{back} && ip route replace default via {gateway}"));
            goes_on(&format!("the stream, when {what} is back"));
            cluster.wait_ready(2);
        }
    });

    held.again().expect("the connection to the port goes on");
    for node in ["node1", "node2"] {
        eventually("the node answers", || get(&client, cluster.at(node, 8000)));
    }
    eventually("two tasks run", || match cluster.tasks("web") {
        tasks if tasks.len() == 2 => Ok(()),
        tasks => Err(tasks),
    });
    let rows = cluster.rows(&["service", "ps", "web"]);
    assert!(rows.len() <= 3, "{rows:?}");
}
