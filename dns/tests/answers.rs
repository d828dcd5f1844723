//! What names mean: the rules of Swarm's resolver, and where weft differs on purpose.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed expectation of a test is a panic"
)]

mod common;

use common::{UDP, addresses, ask, client, edns, ip, query, records, with_cookie, zone};
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use weft_dns::{
    Answer, Ask, ClientView, DropCause, EndpointNames, LOCAL_TTL_SECS, Outcome, ServiceNames,
    Transport, UnknownNetwork, ZoneBuilder, answer,
};

const A: RecordType = RecordType::A;
const AAAA: RecordType = RecordType::AAAA;

fn code(
    view: &ClientView,
    circumstances: Ask,
    name: &str,
    kind: RecordType,
) -> Option<ResponseCode> {
    ask(view, circumstances, &query(name, kind)).map(|(m, _)| m.metadata.response_code)
}

#[test]
fn service_names_give_the_vip_and_tasks_names_the_tasks() {
    let tasks = [ip("10.0.1.11"), ip("10.0.1.12"), ip("10.0.1.13")];
    for name in ["shop_web.", "web.", "WeB.", "web.front.", "shop_web.Front."] {
        assert_eq!(addresses(&["n1"], name, A), [ip("10.0.1.2")], "{name}");
        assert_eq!(addresses(&["n1"], name, AAAA), [ip("fd00:1::2")], "{name}");
    }
    for name in ["tasks.shop_web.", "tasks.web.", "TASKS.web.front."] {
        assert_eq!(addresses(&["n1"], name, A), tasks, "{name}");
    }
}

#[test]
fn dnsrr_names_give_the_tasks_both_ways() {
    let tasks = [ip("10.0.1.21"), ip("10.0.1.22")];
    assert_eq!(addresses(&["n1"], "db.", A), tasks);
    assert_eq!(addresses(&["n1"], "tasks.db.", A), tasks);
}

#[test]
fn endpoints_have_their_name_aliases_and_hostnames() {
    for name in [
        "shop_web.2.abc2.",
        "w2.",
        "host2.",
        "shop_web.2.abc2.front.",
        "host2.front.",
    ] {
        assert_eq!(addresses(&["n1"], name, A), [ip("10.0.1.12")], "{name}");
    }
    assert_eq!(addresses(&["n1"], "probe.", AAAA), [ip("fd00:1::99")]);
}

#[test]
fn the_first_network_wins_and_networks_are_not_merged() {
    assert_eq!(addresses(&["n1", "n2"], "web.", A), [ip("10.0.1.2")]);
    assert_eq!(addresses(&["n2", "n1"], "web.", A), [ip("10.0.2.2")]);
    assert_eq!(
        addresses(&["n1", "n2"], "web.back.office.", A),
        [ip("10.0.2.2")]
    );
}

#[test]
fn other_networks_are_not_seen() {
    assert_eq!(code(&client(&["n2"]), UDP, "db.", A), None);
    assert_eq!(code(&client(&["n2"]), UDP, "db.front.", A), None);
    assert_eq!(code(&client(&[]), UDP, "web.", A), None);
    assert_eq!(code(&client(&["gone"]), UDP, "web.", A), None);
}

#[test]
fn a_known_name_without_that_type_is_nodata_and_not_forwarded() {
    for (name, kind) in [
        ("db.", AAAA),
        ("probe.", A),
        ("web.", RecordType::MX),
        ("web.", RecordType::TXT),
        ("web.", RecordType::HTTPS),
        ("tasks.web.back.office.", A),
    ] {
        let (reply, outcome) = ask(&client(&["n1", "n2"]), UDP, &query(name, kind)).unwrap();
        assert_eq!(
            reply.metadata.response_code,
            ResponseCode::NoError,
            "{name}"
        );
        assert!(reply.answers.is_empty(), "{name}");
        assert_eq!(outcome, Outcome::NoData, "{name}");
    }
}

#[test]
fn a_query_with_a_cookie_is_answered_as_one_without() {
    let query = with_cookie(query("web.", A), *b"whatever");
    let (reply, outcome) = ask(&client(&["n1"]), UDP, &query).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    assert_eq!(records(&reply), [ip("10.0.1.2")]);
    assert_eq!(outcome, Outcome::Answered);
}

#[test]
fn names_of_others_are_forwarded() {
    for name in ["example.org.", "unknown.", "a.b.c.d.", "."] {
        for kind in [A, AAAA, RecordType::MX, RecordType::TXT] {
            assert_eq!(
                code(&client(&["n1"]), UDP, name, kind),
                None,
                "{name} {kind}"
            );
        }
    }
}

#[test]
fn names_that_only_the_cluster_can_hold_do_not_exist() {
    let alone = Ask {
        outside: false,
        ..UDP
    };
    let view = client(&["n1"]);
    let missing = Some(ResponseCode::NXDomain);
    assert_eq!(code(&view, alone, "nobody.front.", A), missing);
    assert_eq!(code(&view, alone, "tasks.nobody.", A), missing);
    assert_eq!(code(&view, UDP, "tasks.no_body.", A), missing);
    // Letters only: may be a public domain, and upstreams know better.
    assert_eq!(code(&view, UDP, "nobody.front.", A), None);
    assert_eq!(code(&view, UDP, "tasks.org.", A), None);
    assert_eq!(code(&view, alone, "example.org.", A), None);
}

#[test]
fn an_internal_client_hears_servfail_for_outside_names_and_all_of_its_own() {
    let view = ClientView {
        internal_only: true,
        ..client(&["n1"])
    };
    assert_eq!(
        code(&view, UDP, "example.org.", A),
        Some(ResponseCode::ServFail)
    );
    assert_eq!(
        code(&view, UDP, "nobody.front.", A),
        Some(ResponseCode::NXDomain)
    );
    assert_eq!(code(&view, UDP, "web.", A), Some(ResponseCode::NoError));
}

#[test]
fn reverse_names_of_endpoints_and_vips() {
    let owner = |name: &str| {
        let (reply, _) = ask(&client(&["n1", "n2"]), UDP, &query(name, RecordType::PTR)).unwrap();
        match &reply.answers[0].data {
            RData::PTR(ptr) => ptr.0.to_ascii(),
            other => panic!("{other}"),
        }
    };
    assert_eq!(owner("12.1.0.10.in-addr.arpa."), "shop_web.2.abc2.front.");
    assert_eq!(owner("2.1.0.10.IN-ADDR.arpa."), "shop_web.front.");
    assert_eq!(owner("2.2.0.10.in-addr.arpa."), "web.back.office.");
    let v6 = Name::from(ip("fd00:1::99")).to_ascii();
    assert_eq!(owner(&v6), "probe.front.");
}

#[test]
fn reverse_names_of_others_are_forwarded_and_bad_ones_fail() {
    let view = client(&["n1"]);
    let ptr = |name: &str| code(&view, UDP, name, RecordType::PTR);
    assert_eq!(ptr("8.8.8.8.in-addr.arpa."), None);
    assert_eq!(
        ptr("2.2.0.10.in-addr.arpa."),
        None,
        "address of a network not attached"
    );
    assert_eq!(ptr("lb._dns-sd._udp.0.1.0.10.in-addr.arpa."), None);
    assert_eq!(ptr("10.in-addr.arpa."), None);
    assert_eq!(ptr("1.0.0.257.in-addr.arpa."), Some(ResponseCode::ServFail));
    assert_eq!(ptr("x.0.0.127.in-addr.arpa."), Some(ResponseCode::ServFail));
    assert_eq!(ptr("arpa."), None);
    assert_eq!(
        ptr("web."),
        Some(ResponseCode::NoError),
        "known name, other type"
    );
}

#[test]
fn srv_by_port_name_and_number() {
    let srv = |name: &str| {
        let (reply, _) = ask(&client(&["n1"]), UDP, &query(name, RecordType::SRV)).unwrap();
        let mut targets: Vec<(String, u16)> = reply
            .answers
            .iter()
            .map(|record| match &record.data {
                RData::SRV(srv) => (srv.target.to_ascii(), srv.port),
                other => panic!("{other}"),
            })
            .collect();
        targets.sort();
        (
            targets,
            reply.additionals.len(),
            reply.metadata.response_code,
        )
    };
    for name in ["_http._tcp.web.", "_80._tcp.web.", "_HTTP._TCP.web.front."] {
        let (targets, additionals, _) = srv(name);
        assert_eq!(targets, [("web.front.".to_owned(), 80)], "{name}");
        assert_eq!(additionals, 2, "{name}");
    }
    let (targets, additionals, _) = srv("_http._tcp.tasks.web.");
    assert_eq!(targets.len(), 3);
    assert_eq!(targets[0], ("shop_web.1.abc1.front.".to_owned(), 80));
    assert_eq!(additionals, 3);
    assert_eq!(srv("_http._udp.web.").2, ResponseCode::NXDomain);
    assert_eq!(srv("_443._tcp.web.").2, ResponseCode::NXDomain);
    // Known, and nothing of it is ready.
    let (targets, _, code) = srv("_5432._tcp.idle.");
    assert_eq!((targets.len(), code), (0, ResponseCode::NoError));
    let outside = query("_ldap._tcp.example.org.", RecordType::SRV);
    assert!(ask(&client(&["n1"]), UDP, &outside).is_none());
}

#[test]
fn answers_are_short_lived_and_shuffled() {
    let mut first = std::collections::BTreeMap::new();
    for seed in 0..300 {
        let circumstances = Ask { seed, ..UDP };
        let (reply, _) = ask(&client(&["n1"]), circumstances, &query("tasks.web.", A)).unwrap();
        assert!(reply.answers.iter().all(|r| r.ttl == LOCAL_TTL_SECS));
        *first.entry(records(&reply)[0]).or_insert(0) += 1;
    }
    assert_eq!(first.len(), 3);
    assert!(first.values().all(|&times| times > 60), "{first:?}");
}

#[test]
fn a_shared_alias_means_the_service_of_the_own_stack() {
    let mut builder = ZoneBuilder::new();
    builder.network("n", "shared");
    for (stack, vip) in [("a", "10.9.0.1"), ("b", "10.9.0.2")] {
        let service = ServiceNames {
            name: format!("{stack}_web"),
            stack: Some(stack.into()),
            aliases: vec!["web".into()],
            vips: vec![ip(vip)],
            ..ServiceNames::default()
        };
        builder.service("n", &service).unwrap();
    }
    let zone = builder.build();
    let seen = |stack: Option<&str>| {
        let view = ClientView {
            stack: stack.map(str::to_owned),
            ..client(&["n"])
        };
        let bytes = query("web.", A).to_vec().unwrap();
        let Answer::Reply(reply) = answer(&zone, &view, &bytes, UDP) else {
            panic!("forwarded")
        };
        let mut found = records(&Message::from_vec(&reply.bytes).unwrap());
        found.sort();
        found
    };
    assert_eq!(seen(Some("a")), [ip("10.9.0.1")]);
    assert_eq!(seen(Some("b")), [ip("10.9.0.2")]);
    assert_eq!(seen(Some("c")), [ip("10.9.0.1"), ip("10.9.0.2")]);
    assert_eq!(seen(None), [ip("10.9.0.1"), ip("10.9.0.2")]);
}

#[test]
fn rfc1035_s4_2_1_rfc6891_s6_2_3_long_answers_are_cut_over_udp_and_whole_over_tcp() {
    let mut builder = ZoneBuilder::new();
    builder.network("n", "big");
    let service = ServiceNames {
        name: "many".into(),
        tasks: (0..5000u32)
            .map(|i| std::net::Ipv4Addr::from(0x0a00_0000 + i).into())
            .collect(),
        ..ServiceNames::default()
    };
    builder.service("n", &service).unwrap();
    let zone = builder.build();
    let reply = |message: &Message, transport| {
        let circumstances = Ask { transport, ..UDP };
        let bytes = message.to_vec().unwrap();
        match answer(&zone, &client(&["n"]), &bytes, circumstances) {
            Answer::Reply(reply) => (reply.bytes.len(), Message::from_vec(&reply.bytes).unwrap()),
            other => panic!("{other:?}"),
        }
    };
    let plain = query("tasks.many.", A);
    for (message, limit) in [
        (plain.clone(), 512),
        (edns(plain.clone(), 100), 512),
        (edns(plain.clone(), 1232), 1232),
        (edns(plain.clone(), 65535), 4096),
    ] {
        let (length, cut) = reply(&message, Transport::Udp);
        assert!(cut.metadata.truncation);
        assert!(
            length <= limit && length > limit - 48,
            "{length} of {limit}"
        );
        assert_eq!(cut.edns.is_some(), message.edns.is_some());
    }
    // 64 KiB hold about 4000 addresses.
    let (length, cut) = reply(&plain, Transport::Tcp);
    assert!(cut.metadata.truncation && length > 65_000);
}

#[test]
fn queries_that_are_not_served_say_so() {
    let refuse = |message: &Message| {
        let (reply, outcome) = ask(&client(&["n1"]), UDP, message).unwrap();
        (reply.metadata.response_code, outcome)
    };
    let mut update = query("web.", A);
    update.metadata.op_code = OpCode::Update;
    assert_eq!(refuse(&update), (ResponseCode::NotImp, Outcome::Malformed));
    let mut chaos = query("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(refuse(&chaos), (ResponseCode::Refused, Outcome::Refused));
    assert_eq!(
        refuse(&query("web.", RecordType::AXFR)).0,
        ResponseCode::Refused
    );
    let mut two = query("web.", A);
    two.queries.push(two.queries[0].clone());
    assert_eq!(refuse(&two), (ResponseCode::FormErr, Outcome::Malformed));
    two.queries.clear();
    assert_eq!(refuse(&two).0, ResponseCode::FormErr);
}

#[test]
fn rfc6891_s6_1_3_a_later_version_of_edns_is_refused() {
    let mut future = edns(query("web.", A), 1232);
    if let Some(edns) = &mut future.edns {
        edns.set_version(1);
    }
    let (reply, _) = ask(&client(&["n1"]), UDP, &future).unwrap();
    // Code 16 is BADVERS in OPT and BADSIG in TSIG; the decoder names it after the latter.
    assert_eq!(u16::from(reply.metadata.response_code), 16);
}

#[test]
fn rfc1035_s4_1_1_bytes_without_an_id_and_responses_get_no_reply() {
    let view = client(&["n1"]);
    for length in 0..12 {
        let bytes = vec![0; length];
        assert_eq!(
            answer(&zone(), &view, &bytes, UDP),
            Answer::Drop(DropCause::TooShort)
        );
    }
    let mut response = query("web.", A);
    response.metadata.message_type = MessageType::Response;
    let bytes = response.to_vec().unwrap();
    assert_eq!(
        answer(&zone(), &view, &bytes, UDP),
        Answer::Drop(DropCause::NotAQuery)
    );
    let mut cut = query("web.", A).to_vec().unwrap();
    cut.truncate(14);
    let Answer::Reply(reply) = answer(&zone(), &view, &cut, UDP) else {
        panic!("no FORMERR")
    };
    let reply = Message::from_vec(&reply.bytes).unwrap();
    assert_eq!(reply.metadata.id, 4711);
    assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
}

#[test]
fn one_name_that_dns_cannot_carry_costs_that_name_only() {
    let mut builder = ZoneBuilder::new();
    let db = EndpointNames {
        name: "db".into(),
        aliases: vec!["sp ace".into(), "db.example.".into(), "sql".into()],
        hostnames: vec!["0a1b".into()],
        ips: vec![ip("10.0.0.1")],
        ..EndpointNames::default()
    };
    let unknown = UnknownNetwork {
        network: "n".into(),
    };
    assert_eq!(builder.endpoint("n", &db).unwrap_err(), unknown);
    assert!(builder.refused().is_empty());
    builder.network("n", "net").network("odd", "odd.");
    builder.endpoint("n", &db).unwrap();
    let web = ServiceNames {
        name: "web".into(),
        aliases: vec!["web.".into(), "x..y".into(), "www".into()],
        vips: vec![ip("10.0.0.2")],
        ..ServiceNames::default()
    };
    builder.service("n", &web).unwrap();
    let nameless = EndpointNames {
        name: "b6.".into(),
        aliases: vec!["b6".into()],
        ips: vec![ip("10.0.0.3")],
        ..EndpointNames::default()
    };
    builder.endpoint("odd", &nameless).unwrap();
    let refused: Vec<(&str, &str)> = builder
        .refused()
        .iter()
        .map(|bad| (bad.owner.as_str(), bad.name.as_str()))
        .collect();
    assert_eq!(
        refused,
        [
            ("endpoint b6.", "b6."),
            ("endpoint db", "db.example."),
            ("endpoint db", "sp ace"),
            ("network odd.", "odd."),
            ("service web", "web."),
            ("service web", "x..y"),
        ]
    );
    let zone = builder.build();
    let view = ClientView {
        networks: vec!["n".into(), "odd".into()],
        ..ClientView::default()
    };
    for (name, wanted) in [
        ("db.", "10.0.0.1"),
        ("sql.net.", "10.0.0.1"),
        ("0a1b.", "10.0.0.1"),
        ("web.", "10.0.0.2"),
        ("www.", "10.0.0.2"),
        ("b6.", "10.0.0.3"),
    ] {
        let bytes = query(name, A).to_vec().unwrap();
        let Answer::Reply(reply) = answer(&zone, &view, &bytes, UDP) else {
            panic!("{name} is asked outside")
        };
        let reply = Message::from_vec(&reply.bytes).unwrap();
        assert_eq!(records(&reply), [ip(wanted)], "{name}");
    }
}
