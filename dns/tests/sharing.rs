//! The forwarding machine and those who share it: its cache and its places, in virtual time.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed expectation of a test is a panic"
)]

mod common;

use std::time::Duration;

use common::bench::{A, Bench, denial, first, response, second};
use common::query;
use hickory_proto::op::ResponseCode;
use weft_dns::{ForwarderConfig, Outcome, Reply, Token, Transport};

#[test]
fn the_same_question_is_asked_once() {
    let mut bench = Bench::new(&[first()]);
    for token in 0..5 {
        let mut message = query("example.org.", A);
        message.metadata.id = 100 + u16::try_from(token).unwrap();
        bench.ask_over(token, &message, Transport::Udp);
    }
    assert_eq!((bench.sent.len(), bench.forwarder.in_flight()), (1, 1));
    bench.answer(0, ResponseCode::NoError);
    let ids: Vec<(u64, u16)> = bench
        .replies
        .iter()
        .map(|(token, reply)| {
            (
                token.0,
                u16::from_be_bytes([reply.bytes[0], reply.bytes[1]]),
            )
        })
        .collect();
    assert_eq!(ids, [(0, 100), (1, 101), (2, 102), (3, 103), (4, 104)]);
}

#[test]
fn replies_are_kept_for_their_ttl_and_counted_down() {
    let mut bench = Bench::new(&[first()]);
    bench.ask(1, "example.org.");
    bench.answer(0, ResponseCode::NoError);
    bench.replies.clear();
    bench.pass(Duration::from_secs(20));
    bench.ask(2, "example.org.");
    let (token, reply, _) = bench.only_reply();
    assert_eq!((token, bench.sent.len()), (Token(2), 1));
    assert_eq!((reply.answers[0].ttl, reply.metadata.id), (40, 4711));
    bench.pass(Duration::from_secs(40));
    bench.ask(3, "example.org.");
    assert_eq!(bench.sent.len(), 2, "expired");
}

#[test]
fn other_edns_other_transport_and_other_case_are_other_questions() {
    let mut bench = Bench::new(&[first()]);
    bench.ask(1, "example.org.");
    bench.answer(0, ResponseCode::NoError);
    bench.ask_over(
        2,
        &common::edns(query("example.org.", A), 1232),
        Transport::Udp,
    );
    bench.ask_over(3, &query("example.org.", A), Transport::Tcp);
    bench.ask(4, "eXample.org.");
    assert_eq!(bench.sent.len(), 4);
    assert_eq!(bench.sent[2].transport, Transport::Tcp);
}

#[test]
fn rfc2308_s5_denials_are_kept_by_their_soa_and_failures_not_at_all() {
    let mut bench = Bench::new(&[first()]);
    bench.ask(1, "nope.org.");
    let sent = bench.sent[0].clone();
    bench.reply_to(&sent, &denial(&sent, 10)).unwrap();
    bench.pass(Duration::from_secs(9));
    bench.ask(2, "nope.org.");
    assert_eq!(bench.sent.len(), 1);
    bench.pass(Duration::from_secs(2));
    bench.ask(3, "nope.org.");
    assert_eq!(bench.sent.len(), 2);
    // No SOA: not kept.
    bench.answer(1, ResponseCode::NXDomain);
    bench.ask(4, "nope.org.");
    assert_eq!(bench.sent.len(), 3);
    bench.answer(2, ResponseCode::ServFail);
    bench.ask(5, "nope.org.");
    assert_eq!(bench.sent.len(), 4);
}

#[test]
fn the_cache_is_bounded_and_caps_ttls() {
    let mut config = ForwarderConfig::default();
    config.cache.entries = 8;
    let mut bench = Bench::with(&[first()], config);
    for n in 0..50u32 {
        bench.ask(n.into(), &format!("n{n}.org."));
        let sent = bench.sent.last().unwrap().clone();
        bench
            .reply_to(&sent, &response(&sent, ResponseCode::NoError, 86_400))
            .unwrap();
        assert!(bench.forwarder.cached() <= 8);
    }
    let asked = bench.sent.len();
    bench.ask(100, "n49.org.");
    assert_eq!(bench.sent.len(), asked);
    bench.pass(Duration::from_secs(301));
    bench.ask(101, "n49.org.");
    assert_eq!(bench.sent.len(), asked + 1);
    bench.forwarder.set_upstreams(&[second()]);
    assert_eq!(bench.forwarder.cached(), 0);
}

#[test]
fn too_many_questions_are_refused_and_room_returns() {
    let config = ForwarderConfig {
        in_flight_max: 4,
        waiters_max: 6,
        ..ForwarderConfig::default()
    };
    let mut bench = Bench::with(&[first()], config);
    for n in 0..4 {
        bench.ask(n, &format!("n{n}.org."));
    }
    bench.ask(4, "n4.org.");
    assert_eq!(bench.only_reply().2, Outcome::Refused);
    // Joining costs no question, but a client.
    bench.ask(5, "n0.org.");
    bench.ask(6, "n0.org.");
    assert_eq!(bench.replies.len(), 1);
    bench.ask(7, "n0.org.");
    assert_eq!(bench.replies.len(), 2);
    bench.answer(0, ResponseCode::NoError);
    bench.replies.clear();
    bench.ask(8, "n8.org.");
    assert_eq!((bench.replies.len(), bench.sent.len()), (0, 5));
}

/// Two sandboxes hold as much as they can; a third still resolves, and so does a fourth.
#[test]
fn a_greedy_tenant_gives_way_to_the_others() {
    let mut bench = Bench::new(&[first()]);
    for n in 0..2000 {
        bench.ask_from(1 + n % 2, n, &format!("n{n}.org."));
    }
    // Nobody but them, so they have all there is, in equal parts.
    assert_eq!(
        (bench.forwarder.in_flight(), bench.refused().len()),
        (1024, 2000 - 1024)
    );
    bench.replies.clear();
    for (tenant, tokens) in [(3, 10_000..10_030), (4, 20_000..20_030)] {
        for token in tokens {
            let asked = bench.sent.len();
            bench.ask_from(tenant, token, &format!("t{token}.org."));
            assert_eq!(bench.sent.len(), asked + 1, "{token} was not asked");
            // The greedy go on meanwhile, and take nothing back.
            for n in 0..20 {
                let token = token * 100 + n;
                bench.ask_from(1 + n % 2, token, &format!("m{token}.org."));
            }
            bench.answer(asked, ResponseCode::NoError);
            assert!(
                bench
                    .refused()
                    .iter()
                    .all(|t| !(10_000..30_000).contains(t))
            );
        }
    }
    let answered = |(_, reply): &&(Token, Reply)| reply.outcome == Outcome::Answered;
    assert_eq!(bench.replies.iter().filter(answered).count(), 60);
    // Whoever holds less than an equal part is not refused; with equal parts nobody takes any more.
    for n in 0..2000 {
        bench.ask_from(3 + n % 2, 100_000 + n, &format!("l{n}.org."));
    }
    let refused = bench.refused();
    let late = |tenant: u64| {
        let of = move |t: &&u64| (100_000..102_000).contains(*t) && 3 + **t % 2 == tenant;
        1000 - refused.iter().filter(of).count()
    };
    assert_eq!(bench.forwarder.in_flight(), 1024);
    assert_eq!((late(3), late(4)), (256, 256));
    bench.pass(Duration::from_secs(4));
    assert_eq!(bench.forwarder.in_flight(), 0);
}

/// A question that others wait for as well goes on for them when its first asker gives way.
#[test]
fn who_gives_way_takes_nobody_along() {
    let config = ForwarderConfig {
        in_flight_max: 4,
        ..ForwarderConfig::default()
    };
    let mut bench = Bench::with(&[first()], config);
    for n in 0..4 {
        bench.ask_from(1, n, &format!("n{n}.org."));
    }
    bench.ask_from(2, 10, "n0.org.");
    bench.ask_from(3, 11, "new.org.");
    // The first is on the second's account now; the one after it ended.
    assert_eq!(bench.refused(), [0, 1]);
    assert_eq!(bench.forwarder.in_flight(), 4);
    bench.answer(0, ResponseCode::NoError);
    let (token, reply) = bench.replies.last().unwrap();
    assert_eq!((token.0, reply.outcome), (10, Outcome::Answered));
    bench.pass(Duration::from_secs(4));
    let mut tokens: Vec<_> = bench.replies.iter().map(|(token, _)| token.0).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, [0, 1, 2, 3, 10, 11]);
}

#[test]
fn waiting_places_are_shared_too() {
    let config = ForwarderConfig {
        waiters_max: 100,
        ..ForwarderConfig::default()
    };
    let mut bench = Bench::with(&[first()], config);
    for n in 0..200 {
        bench.ask_from(1, n, "same.org.");
    }
    assert_eq!(bench.refused().len(), 100);
    bench.ask_from(2, 1000, "same.org.");
    bench.ask_from(2, 1001, "other.org.");
    assert_eq!(bench.refused()[100..], [0, 1]);
    bench.answer(0, ResponseCode::NoError);
    bench.answer(1, ResponseCode::NoError);
    let answered = |token: u64| {
        let mut replies = bench.replies.iter();
        replies.any(|(t, reply)| t.0 == token && reply.outcome == Outcome::Answered)
    };
    assert!(answered(1000) && answered(1001) && answered(2));
    assert_eq!(bench.replies.len(), 202);
}

#[test]
fn nobody_pushes_anothers_names_out_of_the_cache() {
    let mut config = ForwarderConfig::default();
    config.cache.entries = 20;
    let mut bench = Bench::with(&[first()], config);
    let keep = |bench: &mut Bench, tenant, token: u64, name: &str, ttl| {
        let asked = bench.sent.len();
        bench.ask_from(tenant, token, name);
        if let Some(sent) = bench.sent.get(asked).cloned() {
            let reply = response(&sent, ResponseCode::NoError, ttl);
            bench.reply_to(&sent, &reply).unwrap();
        }
        bench.sent.len() > asked
    };
    for n in 0..5 {
        assert!(keep(&mut bench, 1, n, &format!("mine{n}.org."), 60));
    }
    // Others live longer and are more by far.
    for n in 0..200 {
        assert!(keep(&mut bench, 2, 100 + n, &format!("n{n}.org."), 300));
        assert!(bench.forwarder.cached() <= 20);
    }
    for n in 0..5 {
        assert!(!keep(&mut bench, 1, 1000 + n, &format!("mine{n}.org."), 60));
    }
    assert!(!keep(&mut bench, 1, 2000, "n199.org.", 300));
    // What has expired goes before anything else, whose ever it is.
    bench.pass(Duration::from_secs(61));
    for n in 0..5 {
        assert!(keep(&mut bench, 2, 3000 + n, &format!("late{n}.org."), 300));
    }
    assert_eq!(bench.forwarder.cached(), 20);
    assert!(!keep(&mut bench, 2, 4000, "n199.org.", 300));
    assert!(keep(&mut bench, 1, 4001, "mine0.org.", 60));
    assert!(!keep(&mut bench, 1, 4002, "mine0.org.", 60));
}
