//! What names mean: the rules of Swarm's resolver, and where weft differs on purpose.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed expectation of a test is a panic"
)]

mod common;

use std::net::IpAddr;

use common::{UDP, addresses, ask, client, edns, ip, query, records, with_cookie, zone};
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use weft_dns::{
    Answer, Ask, ClientView, DropCause, EndpointNames, LOCAL_TTL_SECS, Outcome, ResolutionMode,
    ServiceNames, ServicePort, Transport, UnknownNetwork, Zone, ZoneBuilder, answer,
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

/// Sorted addresses that a client of these networks and this stack hears; nothing when it is sent
/// outside, and an error when the name does not exist.
fn heard(
    zone: &Zone,
    (networks, stack): (&[&str], Option<&str>),
    name: &str,
) -> Option<Result<Vec<IpAddr>, ResponseCode>> {
    let view = ClientView {
        stack: stack.map(str::to_owned),
        ..client(networks)
    };
    let bytes = query(name, A).to_vec().unwrap();
    let Answer::Reply(reply) = answer(zone, &view, &bytes, UDP) else {
        return None;
    };
    let reply = Message::from_vec(&reply.bytes).unwrap();
    let mut found = records(&reply);
    found.sort();
    Some(match reply.metadata.response_code {
        ResponseCode::NoError => Ok(found),
        code => Err(code),
    })
}

fn said(ips: &[&str]) -> Option<Result<Vec<IpAddr>, ResponseCode>> {
    Some(Ok(ips.iter().map(|text| ip(text)).collect()))
}

/// A service of a stack with one virtual address.
fn member(stack: &str, key: &str, vip: &str) -> ServiceNames {
    ServiceNames {
        name: format!("{stack}_{key}"),
        stack: Some(stack.into()),
        vips: vec![ip(vip)],
        ..ServiceNames::default()
    }
}

#[test]
fn a_shared_alias_means_the_service_of_the_own_stack() {
    let mut builder = ZoneBuilder::new();
    builder.network("n", "shared");
    for (stack, vip) in [("a", "10.9.0.1"), ("b", "10.9.0.2")] {
        let service = ServiceNames {
            aliases: vec!["web".into()],
            ..member(stack, "web", vip)
        };
        builder.service("n", &service).unwrap();
    }
    let zone = builder.build();
    let seen = |stack| heard(&zone, (&["n"], stack), "web.");
    assert_eq!(seen(Some("a")), said(&["10.9.0.1"]));
    assert_eq!(seen(Some("b")), said(&["10.9.0.2"]));
    assert_eq!(seen(Some("c")), said(&["10.9.0.1", "10.9.0.2"]));
    assert_eq!(seen(None), said(&["10.9.0.1", "10.9.0.2"]));
}

#[test]
fn a_short_name_on_a_shared_network_stays_inside_its_stack() {
    let mut builder = ZoneBuilder::new();
    builder.network("p", "proxy");
    for (stack, vip, task) in [
        ("a", "10.9.0.1", "10.9.0.11"),
        ("b", "10.9.0.2", "10.9.0.12"),
    ] {
        let db = ServiceNames {
            stack_aliases: vec!["db".into()],
            tasks: vec![ip(task)],
            ports: vec![ServicePort {
                name: None,
                port: 5432,
                protocol: "tcp".into(),
            }],
            ..member(stack, "db", vip)
        };
        builder.service("p", &db).unwrap();
    }
    let zone = builder.build();
    let seen = |stack, name| heard(&zone, (&["p"], stack), name);
    for (stack, vip, task) in [
        ("a", "10.9.0.1", "10.9.0.11"),
        ("b", "10.9.0.2", "10.9.0.12"),
    ] {
        for name in ["db.", "DB.proxy."] {
            assert_eq!(seen(Some(stack), name), said(&[vip]), "{name}");
        }
        for name in [
            "tasks.db.",
            "tasks.db.proxy.",
            "all-tasks.db.",
            "all-tasks.db.proxy.",
        ] {
            assert_eq!(seen(Some(stack), name), said(&[task]), "{name}");
        }
    }
    // Of another stack or of none: nobody has these names. Full ones everybody has.
    for stack in [None, Some("c"), Some("")] {
        for name in ["db.", "db.proxy.", "tasks.db.", "all-tasks.db."] {
            assert_eq!(seen(stack, name), None, "{name} for {stack:?}");
        }
        assert_eq!(seen(stack, "a_db."), said(&["10.9.0.1"]));
        assert_eq!(seen(stack, "tasks.b_db.proxy."), said(&["10.9.0.12"]));
    }
    let srv = |stack: &str| {
        let view = ClientView {
            stack: Some(stack.into()),
            ..client(&["p"])
        };
        let bytes = query("_5432._tcp.db.", RecordType::SRV).to_vec().unwrap();
        let Answer::Reply(reply) = answer(&zone, &view, &bytes, UDP) else {
            return None;
        };
        let reply = Message::from_vec(&reply.bytes).unwrap();
        assert_eq!(reply.answers.len(), 1);
        match &reply.additionals[0].data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            other => panic!("{other}"),
        }
    };
    assert_eq!(srv("a"), Some(ip("10.9.0.1")));
    assert_eq!(srv("b"), Some(ip("10.9.0.2")));
    assert_eq!(srv("c"), None);
}

#[test]
fn the_own_stack_wins_on_whatever_network_and_by_whatever_sort_of_name() {
    let mut builder = ZoneBuilder::new();
    builder.network("d", "a_default").network("p", "proxy");
    let own = ServiceNames {
        aliases: vec!["db".into()],
        ..member("a", "db", "10.1.0.1")
    };
    builder.service("d", &own).unwrap();
    let other = ServiceNames {
        aliases: vec!["db".into()],
        ..member("b", "db", "10.9.0.2")
    };
    builder.service("p", &other).unwrap();
    let zone = builder.build();
    for networks in [["d", "p"], ["p", "d"]] {
        let seen = |stack, name| heard(&zone, (&networks, stack), name);
        assert_eq!(seen(Some("a"), "db."), said(&["10.1.0.1"]));
        // Who says where says whose.
        assert_eq!(seen(Some("a"), "db.proxy."), said(&["10.9.0.2"]));
        assert_eq!(seen(Some("b"), "db."), said(&["10.9.0.2"]));
    }
    // Whoever has no `db` of his own is told of the one that everybody is told of.
    for stack in [None, Some("b"), Some("c")] {
        assert_eq!(heard(&zone, (&["p"], stack), "db."), said(&["10.9.0.2"]));
    }
    assert_eq!(
        heard(&zone, (&["p"], Some("a")), "db."),
        said(&["10.9.0.2"])
    );

    // A service that is called so, outside of stacks, has the stronger claim, and not before a's own.
    let named = ServiceNames {
        name: "db".into(),
        vips: vec![ip("10.9.0.3")],
        ..ServiceNames::default()
    };
    builder.service("p", &named).unwrap();
    let short = ServiceNames {
        stack_aliases: vec!["db".into()],
        ..member("a", "cache", "10.9.0.4")
    };
    builder.service("p", &short).unwrap();
    let zone = builder.build();
    let seen = |stack| heard(&zone, (&["p"], stack), "db.");
    assert_eq!(seen(Some("a")), said(&["10.9.0.4"]));
    assert_eq!(seen(Some("b")), said(&["10.9.0.2"]));
    assert_eq!(seen(None), said(&["10.9.0.3"]));
}

#[test]
fn two_services_of_one_stack_share_a_name_however_they_have_it() {
    let mut builder = ZoneBuilder::new();
    builder.network("p", "proxy");
    let one = ServiceNames {
        aliases: vec!["db".into()],
        // Twice the same: it counts once.
        stack_aliases: vec!["db".into()],
        ..member("a", "one", "10.9.0.1")
    };
    let two = ServiceNames {
        stack_aliases: vec!["db".into()],
        ..member("a", "two", "10.9.0.2")
    };
    builder.service("p", &one).unwrap();
    builder.service("p", &two).unwrap();
    let zone = builder.build();
    let seen = |zone: &Zone, stack| heard(zone, (&["p"], stack), "db.");
    assert_eq!(seen(&zone, Some("a")), said(&["10.9.0.1", "10.9.0.2"]));
    assert_eq!(seen(&zone, None), said(&["10.9.0.1"]));
    builder.remove_service("p", &one).unwrap();
    let zone = builder.build();
    assert_eq!(seen(&zone, Some("a")), said(&["10.9.0.2"]));
    assert_eq!(seen(&zone, None), None);
}

#[test]
fn a_service_of_no_stack_has_nobody_to_tell_of_names_inside_one() {
    let mut builder = ZoneBuilder::new();
    builder.network("p", "proxy");
    let service = ServiceNames {
        name: "db".into(),
        stack_aliases: vec!["inner".into()],
        vips: vec![ip("10.9.0.1")],
        ..ServiceNames::default()
    };
    builder.service("p", &service).unwrap();
    let zone = builder.build();
    assert_eq!(zone.names(), 2, "db and tasks.db");
    for stack in [None, Some("a")] {
        assert_eq!(heard(&zone, (&["p"], stack), "inner."), None);
    }
}

#[test]
fn a_service_of_the_own_stack_without_ready_tasks_keeps_its_name_from_others() {
    let mut builder = ZoneBuilder::new();
    builder.network("p", "proxy");
    let own = ServiceNames {
        stack_aliases: vec!["db".into()],
        mode: ResolutionMode::Dnsrr,
        ..member("a", "db", "10.9.0.1")
    };
    let other = ServiceNames {
        aliases: vec!["db".into()],
        ..member("b", "db", "10.9.0.2")
    };
    builder.service("p", &own).unwrap();
    builder.service("p", &other).unwrap();
    let zone = builder.build();
    assert_eq!(heard(&zone, (&["p"], Some("a")), "db."), said(&[]));
    assert_eq!(heard(&zone, (&["p"], None), "db."), said(&["10.9.0.2"]));
}

#[test]
fn names_of_all_tasks_have_those_that_are_not_ready_as_well() {
    let (ready, all) = (["10.9.0.11"], ["10.9.0.11", "10.9.0.12", "10.9.0.13"]);
    for mode in [ResolutionMode::Vip, ResolutionMode::Dnsrr] {
        let mut builder = ZoneBuilder::new();
        builder.network("p", "proxy");
        let web = ServiceNames {
            name: "web".into(),
            aliases: vec!["www".into()],
            mode,
            vips: vec![ip("10.9.0.1")],
            tasks: vec![ip("10.9.0.11")],
            other_tasks: vec![ip("10.9.0.12"), ip("10.9.0.13")],
            ..ServiceNames::default()
        };
        builder.service("p", &web).unwrap();
        let zone = builder.build();
        let seen = |name: &str| heard(&zone, (&["p"], None), name);
        for name in ["all-tasks.web.", "ALL-Tasks.www.", "all-tasks.web.proxy."] {
            assert_eq!(seen(name), said(&all), "{name} {mode:?}");
        }
        for name in ["tasks.web.", "tasks.www.proxy."] {
            assert_eq!(seen(name), said(&ready), "{name} {mode:?}");
        }
        let own = match mode {
            ResolutionMode::Vip => said(&["10.9.0.1"]),
            ResolutionMode::Dnsrr => said(&ready),
        };
        assert_eq!(seen("web."), own);
        // Nobody but a service has such names, and they make none in the zone.
        assert_eq!(seen("all-web."), None);
        assert_eq!(zone.names(), 4);
        let missing = Some(Err(ResponseCode::NXDomain));
        assert_eq!(seen("all-tasks.no_body."), missing);
    }
}

#[test]
fn a_name_that_somebody_gave_goes_before_the_one_of_all_tasks() {
    let mut builder = ZoneBuilder::new();
    builder.network("p", "proxy");
    let web = ServiceNames {
        name: "web".into(),
        tasks: vec![ip("10.9.0.11")],
        ..ServiceNames::default()
    };
    let odd = ServiceNames {
        aliases: vec!["all-tasks.web".into()],
        ..member("a", "odd", "10.9.0.1")
    };
    builder.service("p", &web).unwrap();
    builder.service("p", &odd).unwrap();
    let zone = builder.build();
    let seen = |stack| heard(&zone, (&["p"], stack), "all-tasks.web.");
    assert_eq!(seen(None), said(&["10.9.0.1"]));
    // Whose own service it is, is told of that.
    let own = ServiceNames {
        stack: Some("b".into()),
        ..web.clone()
    };
    builder.remove_service("p", &web).unwrap();
    builder.service("p", &own).unwrap();
    let zone = builder.build();
    let seen = |stack| heard(&zone, (&["p"], stack), "all-tasks.web.");
    assert_eq!(seen(Some("b")), said(&["10.9.0.11"]));
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
