//! A small cluster and shorthand for queries.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod bench;

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{Name, RData, RecordType};
use weft_dns::{
    Answer, Ask, ClientView, EndpointNames, Outcome, ResolutionMode, ServiceNames, ServicePort,
    Transport, Zone, ZoneBuilder, answer,
};

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Networks `front` (n1) and `back.office` (n2); `web` (VIP) and `db` (dnsrr) on front, `web` of
/// its own on back.office, a connected namespace `probe`.
pub(crate) fn zone() -> Zone {
    let mut zone = ZoneBuilder::new();
    zone.network("n1", "front");
    zone.network("n2", "back.office");
    zone.service(
        "n1",
        &ServiceNames {
            name: "shop_web".into(),
            stack: Some("shop".into()),
            aliases: vec!["web".into()],
            vips: vec![ip("10.0.1.2"), ip("fd00:1::2")],
            tasks: vec![ip("10.0.1.11"), ip("10.0.1.12"), ip("10.0.1.13")],
            ports: vec![ServicePort {
                name: Some("http".into()),
                port: 80,
                protocol: "tcp".into(),
            }],
            ..ServiceNames::default()
        },
    )
    .unwrap();
    zone.service(
        "n1",
        &ServiceNames {
            name: "db".into(),
            mode: ResolutionMode::Dnsrr,
            tasks: vec![ip("10.0.1.21"), ip("10.0.1.22")],
            ..ServiceNames::default()
        },
    )
    .unwrap();
    zone.service(
        "n1",
        &ServiceNames {
            name: "idle".into(),
            mode: ResolutionMode::Dnsrr,
            ports: vec![ServicePort {
                name: None,
                port: 5432,
                protocol: "tcp".into(),
            }],
            ..ServiceNames::default()
        },
    )
    .unwrap();
    zone.service(
        "n2",
        &ServiceNames {
            name: "web".into(),
            vips: vec![ip("10.0.2.2")],
            ..ServiceNames::default()
        },
    )
    .unwrap();
    for (slot, address) in [(1, "10.0.1.11"), (2, "10.0.1.12"), (3, "10.0.1.13")] {
        zone.endpoint(
            "n1",
            &EndpointNames {
                name: format!("shop_web.{slot}.abc{slot}"),
                aliases: vec![format!("w{slot}")],
                hostnames: vec![format!("host{slot}"), "web".into()],
                ips: vec![ip(address)],
                ..EndpointNames::default()
            },
        )
        .unwrap();
    }
    zone.endpoint(
        "n1",
        &EndpointNames {
            name: "Probe".into(),
            ips: vec![ip("fd00:1::99")],
            ..EndpointNames::default()
        },
    )
    .unwrap();
    zone.build()
}

pub(crate) fn client(networks: &[&str]) -> ClientView {
    ClientView {
        networks: networks.iter().map(|&id| id.to_owned()).collect(),
        ..ClientView::default()
    }
}

pub(crate) const UDP: Ask = Ask {
    transport: Transport::Udp,
    outside: true,
    seed: 1,
};

pub(crate) fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

pub(crate) fn edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    message
}

/// The number of a cookie among the options of EDNS (RFC 7873 section 4).
const COOKIE: u16 = 10;

/// A query with a client's cookie.
pub(crate) fn with_cookie(mut message: Message, cookie: [u8; 8]) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    let option = EdnsOption::Unknown(COOKIE, cookie.to_vec());
    edns.options_mut().insert(option);
    message.set_edns(edns);
    message
}

/// What `client` hears; every reply is checked for what all replies have in common.
pub(crate) fn ask(client: &ClientView, ask: Ask, query: &Message) -> Option<(Message, Outcome)> {
    match answer(&zone(), client, &query.to_vec().unwrap(), ask) {
        Answer::Reply(reply) => {
            let message = Message::from_vec(&reply.bytes).unwrap();
            assert_eq!(message.metadata.id, query.metadata.id);
            assert_eq!(message.metadata.message_type, MessageType::Response);
            assert!(message.metadata.recursion_available);
            assert_eq!(message.edns.is_some(), query.edns.is_some());
            Some((message, reply.outcome))
        }
        Answer::Forward => None,
        Answer::Drop(cause) => panic!("a well-formed query was dropped: {cause:?}"),
    }
}

/// Sorted addresses of the answer to an A or AAAA query by a client of `networks`.
pub(crate) fn addresses(networks: &[&str], name: &str, kind: RecordType) -> Vec<IpAddr> {
    let (message, _) = ask(&client(networks), UDP, &query(name, kind)).expect("not forwarded");
    assert_eq!(message.metadata.response_code, ResponseCode::NoError);
    assert!(message.metadata.authoritative);
    let mut found = records(&message);
    found.sort();
    found
}

pub(crate) fn records(message: &Message) -> Vec<IpAddr> {
    message
        .answers
        .iter()
        .map(|record| match &record.data {
            RData::A(a) => IpAddr::V4(a.0),
            RData::AAAA(aaaa) => IpAddr::V6(aaaa.0),
            other => panic!("not an address: {other}"),
        })
        .collect()
}
