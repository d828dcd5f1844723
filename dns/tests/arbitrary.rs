//! Hostile bytes: never a panic, and every reply is a message.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed expectation of a test is a panic"
)]

mod common;

use common::{client, query, zone};
use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::RecordType;
use proptest::prelude::*;
use weft_dns::{Action, Answer, Ask, Forwarder, ForwarderConfig, Tenant, Token, Transport, answer};
use weft_wire::Instant;

/// Random bytes, and well-formed queries with a few bytes changed.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let names = prop::sample::select(vec![
        "web.",
        "tasks.web.front.",
        "all-tasks.web.",
        "_http._tcp.web.",
        "12.1.0.10.in-addr.arpa.",
        "example.org.",
    ]);
    let kinds = prop::sample::select(vec![
        RecordType::A,
        RecordType::AAAA,
        RecordType::PTR,
        RecordType::SRV,
        RecordType::OPT,
    ]);
    let damaged = (
        names,
        kinds,
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        any::<prop::sample::Index>(),
    )
        .prop_map(|(name, kind, changes, cut)| {
            let mut bytes = query(name, kind).to_vec().unwrap();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if cut.index(4) == 0 {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes
        });
    prop_oneof![prop::collection::vec(any::<u8>(), 0..600), damaged]
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![Just(Transport::Udp), Just(Transport::Tcp)]
}

proptest! {
    #[test]
    fn every_reply_decodes(bytes in hostile(), transport in transport(), outside: bool, seed: u64) {
        let ask = Ask { transport, outside, seed };
        if let Answer::Reply(reply) = answer(&zone(), &client(&["n1", "n2"]), &bytes, ask) {
            let message = Message::from_vec(&reply.bytes).unwrap();
            prop_assert_eq!(message.metadata.message_type, MessageType::Response);
            prop_assert_eq!(&reply.bytes[..2], &bytes[..2]);
        }
    }

    #[test]
    fn the_forwarder_answers_every_token_once_and_keeps_nothing(
        queries in prop::collection::vec((hostile(), transport()), 1..20),
        replies in prop::collection::vec((any::<prop::sample::Index>(), hostile(), any::<bool>()), 0..30),
        seed: u64,
    ) {
        let upstreams = ["192.0.2.1:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()];
        let mut forwarder = Forwarder::new(&upstreams, ForwarderConfig::default());
        let mut now = Instant(1);
        let mut accepted = 0;
        let mut answered = Vec::new();
        let mut sent = Vec::new();
        let mut drain = |forwarder: &mut Forwarder, sent: &mut Vec<weft_dns::Transmit>| {
            while let Some(action) = forwarder.poll_action() {
                match action {
                    Action::Send(transmit) => sent.push(transmit),
                    Action::Reply { token, reply } => {
                        assert!(Message::from_vec(&reply.bytes).is_ok() || reply.bytes.len() >= 12);
                        answered.push(token);
                    }
                    Action::Close { .. } => {}
                }
            }
        };
        for (token, (bytes, transport)) in (0..).zip(&queries) {
            accepted += usize::from(
                forwarder.query(now, (Token(token), Tenant(token % 3)), bytes, *transport, seed ^ token).is_ok()
            );
            drain(&mut forwarder, &mut sent);
        }
        for (which, bytes, fitting) in replies {
            if sent.is_empty() {
                break;
            }
            let transmit = sent[which.index(sent.len())].clone();
            let mut reply = if fitting { transmit.bytes.clone() } else { bytes };
            if let Some(id) = reply.first_chunk_mut::<2>() {
                *id = transmit.id.to_be_bytes();
            }
            if let Some(flags) = reply.get_mut(2) {
                *flags |= 0x80;
            }
            now = Instant(now.0 + 50_000_000);
            // Most are refused; what matters is that none of them harms.
            let _refused =
                forwarder.handle_reply(now, transmit.upstream, transmit.transport, &reply);
            drain(&mut forwarder, &mut sent);
        }
        while let Some(due) = forwarder.next_deadline() {
            now = now.max(due);
            forwarder.handle_deadline(now);
            drain(&mut forwarder, &mut sent);
        }
        prop_assert_eq!(forwarder.in_flight(), 0);
        answered.sort();
        answered.dedup();
        prop_assert_eq!(answered.len(), accepted);
    }
}
