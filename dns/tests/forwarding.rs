//! The forwarding machine in virtual time.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed expectation of a test is a panic"
)]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::{ip, query, with_cookie};
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::rdata::opt::EdnsCode;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use weft_dns::{
    Action, Forwarder, ForwarderConfig, NotAQuery, Outcome, Reply, ReplyError, Tenant, Token,
    Transmit, Transport,
};
use weft_wire::Instant;

const A: RecordType = RecordType::A;

fn first() -> SocketAddr {
    "192.0.2.1:53".parse().unwrap()
}

fn second() -> SocketAddr {
    "192.0.2.2:53".parse().unwrap()
}

/// A forwarder with its clock, and what it did so far.
struct Bench {
    forwarder: Forwarder,
    now: Instant,
    sent: Vec<Transmit>,
    replies: Vec<(Token, Reply)>,
    closed: usize,
}

impl Bench {
    fn new(upstreams: &[SocketAddr]) -> Self {
        Self::with(upstreams, ForwarderConfig::default())
    }

    fn with(upstreams: &[SocketAddr], config: ForwarderConfig) -> Self {
        Self {
            forwarder: Forwarder::new(upstreams, config),
            now: Instant(1_000_000_000),
            sent: Vec::new(),
            replies: Vec::new(),
            closed: 0,
        }
    }

    fn drain(&mut self) {
        while let Some(action) = self.forwarder.poll_action() {
            match action {
                Action::Send(transmit) => self.sent.push(transmit),
                Action::Reply { token, reply } => self.replies.push((token, reply)),
                Action::Close { .. } => self.closed += 1,
            }
        }
    }

    fn ask_over(&mut self, token: u64, message: &Message, transport: Transport) {
        self.ask_of(Tenant(0), token, message, transport);
    }

    fn ask_of(&mut self, tenant: Tenant, token: u64, message: &Message, transport: Transport) {
        let bytes = message.to_vec().unwrap();
        let seed = token.wrapping_mul(0x1234_5678_9abc_def1);
        self.forwarder
            .query(self.now, (Token(token), tenant), &bytes, transport, seed)
            .unwrap();
        self.drain();
    }

    fn ask(&mut self, token: u64, name: &str) {
        self.ask_over(token, &query(name, A), Transport::Udp);
    }

    /// The same from a sandbox.
    fn ask_from(&mut self, tenant: u64, token: u64, name: &str) {
        self.ask_of(Tenant(tenant), token, &query(name, A), Transport::Udp);
    }

    /// Tokens that were refused so far.
    fn refused(&self) -> Vec<u64> {
        let refused = self.replies.iter();
        refused
            .filter(|(_, reply)| reply.outcome == Outcome::Refused)
            .map(|(token, _)| token.0)
            .collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.forwarder.handle_deadline(self.now);
        self.drain();
    }

    fn reply_to(&mut self, sent: &Transmit, reply: &Message) -> Result<(), ReplyError> {
        let bytes = reply.to_vec().unwrap();
        let result = self
            .forwarder
            .handle_reply(self.now, sent.upstream, sent.transport, &bytes);
        self.drain();
        result
    }

    /// Answers try number `nth` with `code` and, when that is NOERROR, an address.
    fn answer(&mut self, nth: usize, code: ResponseCode) {
        let sent = self.sent[nth].clone();
        self.reply_to(&sent, &response(&sent, code, 60)).unwrap();
    }

    fn only_reply(&self) -> (Token, Message, Outcome) {
        assert_eq!(self.replies.len(), 1, "{:?}", self.replies);
        let (token, reply) = &self.replies[0];
        (
            *token,
            Message::from_vec(&reply.bytes).unwrap(),
            reply.outcome,
        )
    }
}

fn response(sent: &Transmit, code: ResponseCode, ttl: u32) -> Message {
    let mut message = Message::from_vec(&sent.bytes).unwrap();
    assert_eq!(message.metadata.id, sent.id);
    message.metadata.message_type = MessageType::Response;
    message.metadata.response_code = code;
    if code == ResponseCode::NoError {
        let name = message.queries[0].name().clone();
        let data = match ip("198.51.100.7") {
            std::net::IpAddr::V4(v4) => RData::A(v4.into()),
            std::net::IpAddr::V6(v6) => RData::AAAA(v6.into()),
        };
        message.add_answer(Record::from_rdata(name, ttl, data));
    }
    message
}

fn denial(sent: &Transmit, minimum: u32) -> Message {
    let mut message = response(sent, ResponseCode::NXDomain, 0);
    let zone = Name::from_ascii("org.").unwrap();
    let soa = SOA::new(zone.clone(), zone.clone(), 1, 2, 3, 4, minimum);
    message.add_authority(Record::from_rdata(zone, 3600, RData::SOA(soa)));
    message
}

const RACE: Duration = Duration::from_millis(400);

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
