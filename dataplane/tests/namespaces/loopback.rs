//! Loopback messages between two data planes, and what a node makes of those of others.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use weft_dataplane::HeardLoopback;
use weft_wire::loopback::{Loopback, MIN_LEN, VNI};
use weft_wire::{DropReason, vxlan};

use crate::common::{Node, VXLAN, nodes, publish};

const QUESTION: Loopback = Loopback {
    answer: false,
    number: 7,
    nonce: 0xabcd,
    short: false,
    tell: false,
    len: 1450,
};

fn heard(node: &Node) -> Option<HeardLoopback> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let heard = node.plane.receive_loopback();
        if heard.is_some() || Instant::now() > end {
            return heard;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The drops of a reason, once there are so many.
fn drops(node: &Node, reason: DropReason, wanted: u64) -> u64 {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let workers = node.plane.counters().iter();
        let sum = workers.map(|w| w.underlay.get(reason)).sum();
        if sum >= wanted || Instant::now() > end {
            return sum;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn datagram(said: Loopback) -> Vec<u8> {
    let mut header = [0; vxlan::HEADER_LEN];
    vxlan::emit(VNI, &mut header);
    let mut frame = vec![0; 2000];
    let len = said.write(&mut frame).expect("it fits");
    [&header, &frame[..len]].concat()
}

#[test]
fn nodes_answer_each_other_and_nobody_else() {
    let [a, b] = nodes(2);
    // What comes before the tables is nobody's.
    publish(&a, 1, &[], &[], &b, &[]);
    let bind = |node: &Node| {
        let addr = SocketAddr::new(node.underlay, 0);
        let bound = node.ns.run_in(move || UdpSocket::bind(addr));
        bound.expect("a thread").expect("a socket")
    };
    let at = |node: &Node| SocketAddr::new(node.underlay, VXLAN);
    let raw = bind(&a);
    raw.send_to(&datagram(QUESTION), at(&b)).expect("sent");
    assert_eq!(drops(&b, DropReason::UnknownVtep, 1), 1);

    publish(&b, 1, &[], &[], &a, &[]);
    while !b.plane.is_settled() || !a.plane.is_settled() {
        std::thread::sleep(Duration::from_millis(1));
    }
    for (short, len) in [(false, 1450), (true, MIN_LEN as u16)] {
        let said = Loopback {
            short,
            tell: short,
            ..QUESTION
        };
        assert!(a.plane.send_loopback(b.underlay, said));
        let answer = heard(&a).expect("an answer");
        assert_eq!(answer.from, b.underlay);
        assert_eq!(
            answer.said,
            Loopback {
                answer: true,
                len,
                ..said
            }
        );
        // Only what is to be told of is told.
        let told = b.plane.receive_loopback().map(|heard| heard.said);
        assert_eq!(told, short.then_some(said));
    }
    let answered = |node: &Node| {
        let workers = node.plane.counters().iter();
        workers
            .map(|w| w.loopbacks_answered.load(Ordering::Relaxed))
            .sum::<u64>()
    };
    assert_eq!((answered(&a), answered(&b)), (0, 2));

    // Not in order, and one that begins with an answer: it is kept for whoever asked, and not answered.
    let mut bad = datagram(QUESTION);
    bad[21] = 0xff;
    raw.send_to(&bad, at(&b)).expect("sent");
    raw.send_to(&bad[..30], at(&b)).expect("sent");
    assert_eq!(drops(&b, DropReason::BadLoopback, 2), 2);
    raw.send_to(&datagram(QUESTION.answered()), at(&b))
        .expect("sent");
    assert_eq!(heard(&b).map(|heard| heard.said), Some(QUESTION.answered()));
    // A flood: a part is answered, the rest is counted, and the node goes on.
    for _ in 0..500 {
        raw.send_to(&datagram(QUESTION), at(&b)).expect("sent");
    }
    assert!(drops(&b, DropReason::LoopbackLimit, 300) >= 300);
    assert!(answered(&b) < 202, "{}", answered(&b));
    assert!(b.plane.alive());
}
