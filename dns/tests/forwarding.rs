//! The forwarding machine and its upstreams, in virtual time.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed expectation of a test is a panic"
)]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::bench::{A, Bench, RACE, denial, first, response, second};
use common::{query, with_cookie};
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::Name;
use hickory_proto::rr::rdata::opt::EdnsCode;
use weft_dns::{NotAQuery, Outcome, ReplyError, Tenant, Token, Transmit, Transport};

#[test]
fn the_answer_comes_back_under_the_clients_id() {
    let mut bench = Bench::new(&[first(), second()]);
    bench.ask(7, "example.org.");
    assert_eq!(bench.sent.len(), 1);
    assert_eq!(bench.sent[0].upstream, first());
    assert_ne!(bench.sent[0].id, 4711, "a fresh id");
    bench.answer(0, ResponseCode::NoError);
    let (token, reply, outcome) = bench.only_reply();
    assert_eq!(
        (token, reply.metadata.id, outcome),
        (Token(7), 4711, Outcome::Answered)
    );
    assert_eq!(reply.answers.len(), 1);
    assert_eq!((bench.closed, bench.forwarder.in_flight()), (1, 0));
    assert_eq!(bench.forwarder.next_deadline(), None);
}

#[test]
fn a_denial_passes_with_its_soa() {
    let mut bench = Bench::new(&[first()]);
    bench.ask(1, "nope.example.org.");
    let sent = bench.sent[0].clone();
    bench.reply_to(&sent, &denial(&sent, 60)).unwrap();
    let (_, reply, outcome) = bench.only_reply();
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!((reply.authorities.len(), outcome), (1, Outcome::NxDomain));
}

#[test]
fn a_failing_upstream_is_followed_by_the_next_at_once() {
    for code in [ResponseCode::ServFail, ResponseCode::Refused] {
        let mut bench = Bench::new(&[first(), second()]);
        bench.ask(1, "example.org.");
        bench.answer(0, code);
        assert_eq!(bench.sent.len(), 2);
        assert_eq!(bench.sent[1].upstream, second());
        assert_ne!(bench.sent[1].id, bench.sent[0].id);
        bench.answer(1, ResponseCode::NoError);
        assert_eq!(bench.only_reply().2, Outcome::Answered);
    }
}

#[test]
fn all_failing_is_servfail_without_waiting() {
    let mut bench = Bench::new(&[first(), second()]);
    bench.ask(1, "example.org.");
    bench.answer(0, ResponseCode::ServFail);
    let (upstream, id) = (bench.sent[1].upstream, bench.sent[1].id);
    bench
        .forwarder
        .handle_failure(bench.now, upstream, Transport::Udp, id);
    bench.drain();
    assert_eq!(bench.only_reply().2, Outcome::ServFail);
    assert_eq!(bench.forwarder.in_flight(), 0);
}

#[test]
fn a_silent_upstream_is_raced_and_the_late_reply_ignored() {
    let mut bench = Bench::new(&[first(), second()]);
    bench.ask(1, "example.org.");
    bench.pass(RACE - Duration::from_millis(1));
    assert_eq!(bench.sent.len(), 1);
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.sent.len(), 2);
    bench.answer(1, ResponseCode::NoError);
    assert_eq!(bench.only_reply().2, Outcome::Answered);
    assert_eq!(bench.closed, 2);
    let late = bench.sent[0].clone();
    let reply = response(&late, ResponseCode::NoError, 60);
    assert_eq!(bench.reply_to(&late, &reply), Err(ReplyError::Unknown));
}

#[test]
fn the_first_may_still_win_the_race() {
    let mut bench = Bench::new(&[first(), second()]);
    bench.ask(1, "example.org.");
    bench.pass(RACE);
    bench.answer(0, ResponseCode::NoError);
    assert_eq!(bench.only_reply().2, Outcome::Answered);
}

#[test]
fn silence_ends_in_servfail_after_four_seconds() {
    let mut bench = Bench::new(&[first(), second()]);
    bench.ask(1, "example.org.");
    let start = bench.now;
    while let Some(due) = bench.forwarder.next_deadline() {
        bench.pass(due.since(bench.now));
    }
    assert_eq!(bench.only_reply().2, Outcome::ServFail);
    assert_eq!(bench.now.since(start), Duration::from_secs(4));
    let asked: Vec<SocketAddr> = bench.sent.iter().map(|t| t.upstream).collect();
    assert_eq!(asked, [first(), second(), first(), second()]);
}

#[test]
fn an_upstream_that_is_often_silent_is_asked_last_for_a_while() {
    let mut bench = Bench::new(&[first(), second()]);
    for n in 0..3 {
        let before = bench.sent.len();
        bench.ask(n, &format!("n{n}.example.org."));
        bench.pass(RACE);
        assert_eq!(bench.sent[before].upstream, first());
        bench.answer(before + 1, ResponseCode::NoError);
    }
    let before = bench.sent.len();
    bench.ask(10, "other.example.org.");
    assert_eq!(bench.sent[before].upstream, second());
    bench.answer(before, ResponseCode::NoError);
    bench.pass(Duration::from_secs(31));
    bench.ask(11, "later.example.org.");
    assert_eq!(bench.sent.last().unwrap().upstream, first());
}

#[test]
fn spoofed_replies_do_not_count() {
    let mut bench = Bench::new(&[first()]);
    bench.ask(1, "example.org.");
    let sent = bench.sent[0].clone();
    let good = response(&sent, ResponseCode::NoError, 60);

    let mut other_id = good.clone();
    other_id.metadata.id ^= 1;
    assert_eq!(bench.reply_to(&sent, &other_id), Err(ReplyError::Unknown));

    let elsewhere = Transmit {
        upstream: second(),
        ..sent.clone()
    };
    assert_eq!(bench.reply_to(&elsewhere, &good), Err(ReplyError::Unknown));

    let mut other_name = good.clone();
    other_name.queries[0].set_name(Name::from_ascii("evil.org.").unwrap());
    assert_eq!(
        bench.reply_to(&sent, &other_name),
        Err(ReplyError::OtherQuestion)
    );

    let mut no_question = good.clone();
    no_question.queries.clear();
    assert_eq!(
        bench.reply_to(&sent, &no_question),
        Err(ReplyError::OtherQuestion)
    );

    let mut a_query = good.clone();
    a_query.metadata.message_type = MessageType::Query;
    assert_eq!(
        bench.reply_to(&sent, &a_query),
        Err(ReplyError::NotAResponse)
    );

    let short = bench
        .forwarder
        .handle_reply(bench.now, first(), Transport::Udp, &[0; 5]);
    assert_eq!(short, Err(ReplyError::Malformed));

    assert!(bench.replies.is_empty());
    bench.reply_to(&sent, &good).unwrap();
    assert_eq!(bench.only_reply().2, Outcome::Answered);
}

/// Names are the same in any case (RFC 4343), and some servers answer in their own.
#[test]
fn a_reply_with_the_question_in_another_case_counts() {
    let mut bench = Bench::new(&[first()]);
    bench.ask(1, "example.org.");
    let sent = bench.sent[0].clone();
    let mut reply = response(&sent, ResponseCode::NoError, 60);
    reply.queries[0].set_name(Name::from_ascii("eXAMPLE.Org.").unwrap());
    bench.reply_to(&sent, &reply).unwrap();
    let (token, reply, outcome) = bench.only_reply();
    assert_eq!((token, outcome), (Token(1), Outcome::Answered));
    assert_eq!(reply.answers.len(), 1);
}

/// Some servers end a reply at the limit, wherever that is.
#[test]
fn a_truncated_reply_that_ends_inside_a_record_reaches_the_client() {
    let mut bench = Bench::new(&[first()]);
    bench.ask(1, "example.org.");
    let sent = bench.sent[0].clone();
    let mut whole = response(&sent, ResponseCode::NoError, 60);
    let record = whole.answers[0].clone();
    whole.answers = vec![record; 80];
    let mut cut = whole.clone();
    cut.metadata.truncation = true;
    let mut cut = cut.to_vec().unwrap();
    cut.truncate(500);
    Message::from_vec(&cut).expect_err("the last record is not whole");
    bench
        .forwarder
        .handle_reply(bench.now, sent.upstream, sent.transport, &cut)
        .unwrap();
    bench.drain();
    assert_eq!(bench.replies.len(), 1);
    let (token, reply) = bench.replies.remove(0);
    assert_eq!((token, reply.outcome), (Token(1), Outcome::Answered));
    assert_ne!(reply.bytes[2] & 2, 0, "TC");
    cut[..2].copy_from_slice(&4711_u16.to_be_bytes());
    assert_eq!(reply.bytes, cut);
    assert_eq!(bench.forwarder.cached(), 0);
    // So the client asks again over TCP, and gets the whole of it.
    bench.ask_over(2, &query("example.org.", A), Transport::Tcp);
    let sent = bench.sent[1].clone();
    whole.metadata.id = sent.id;
    bench.reply_to(&sent, &whole).unwrap();
    assert_eq!(bench.only_reply().1.answers.len(), 80);
}

/// The cookie is between a client and its server: it goes out as it came, and what comes back is for
/// this client alone.
#[test]
fn a_query_with_a_cookie_is_answered() {
    let mut bench = Bench::new(&[first()]);
    for (nth, cookie) in [(0, *b"onething"), (1, *b"another.")] {
        let query = with_cookie(query("example.org.", A), cookie);
        bench.ask_over(nth, &query, Transport::Udp);
        let nth = usize::try_from(nth).unwrap();
        let sent = Message::from_vec(&bench.sent[nth].bytes).unwrap();
        let option = |message: &Message| {
            let edns = message.edns.as_ref().unwrap();
            edns.option(EdnsCode::Cookie).cloned()
        };
        assert!(option(&sent).is_some());
        assert_eq!(option(&sent), option(&query));
        bench.answer(nth, ResponseCode::NoError);
        let (_, reply, outcome) = bench.only_reply();
        assert_eq!((reply.answers.len(), outcome), (1, Outcome::Answered));
        bench.replies.clear();
    }
}

#[test]
fn without_upstreams_it_is_servfail() {
    let mut bench = Bench::new(&[]);
    assert!(!bench.forwarder.has_upstream());
    bench.ask(1, "example.org.");
    assert_eq!(bench.only_reply().2, Outcome::ServFail);
    let not_a_query =
        bench
            .forwarder
            .query(bench.now, (Token(2), Tenant(0)), &[0; 3], Transport::Udp, 0);
    assert_eq!(not_a_query, Err(NotAQuery));
}

#[test]
fn rfc2181_s9_a_reply_larger_than_the_client_takes_is_cut_and_marked() {
    let mut bench = Bench::new(&[first()]);
    bench.ask(1, "example.org.");
    let sent = bench.sent[0].clone();
    let mut big = response(&sent, ResponseCode::NoError, 60);
    let record = big.answers[0].clone();
    big.answers = vec![record; 80];
    bench.reply_to(&sent, &big).unwrap();
    assert!(bench.replies[0].1.bytes.len() <= 512);
    let (_, reply, _) = bench.only_reply();
    assert!(reply.metadata.truncation && !reply.answers.is_empty());
    // Over TCP the whole of it passes.
    bench.replies.clear();
    bench.ask_over(2, &query("example.org.", A), Transport::Tcp);
    let sent = bench.sent[1].clone();
    big.metadata.id = sent.id;
    bench.reply_to(&sent, &big).unwrap();
    assert_eq!(bench.only_reply().1.answers.len(), 80);
}
