//! The self-test on this machine's kernel, which has to be one that passes. Needs root.

use std::thread;

use weft_sys::netns::Netns;

use super::connection::{NETWORK, RECORDS};
use super::*;
use crate::record::Record;

fn carried(bytes: u64, packets: u64) -> Traffic {
    Traffic {
        out_bytes: bytes,
        out_packets: packets,
        in_bytes: bytes,
        in_packets: packets,
    }
}

#[test]
fn this_kernel_passes_and_nothing_stays() {
    let mut cache = FlowCache::load().unwrap();
    let supported = run(&cache).unwrap();
    assert_eq!(supported, Supported { ipv6: true });
    let unused = Record {
        traffic: Traffic::default(),
        last: Instant(0),
        bound: false,
        sent: None,
        passed: 0,
    };
    for id in RECORDS {
        assert_eq!(cache.records.read(id), unused);
    }
    assert_eq!(cache.heartbeat.end(), Instant(0));
    assert_eq!(cache.installer().unwrap().entries(), 0);
    // Four connections, each of which had an epoch and made it stale.
    assert_eq!(cache.epochs.get(NETWORK), 8);
    let events = cache.events().unwrap();
    for event in [Event::Out, Event::In, Event::Local, Event::Stale] {
        assert!(events.get(event) > 0, "{event:?}: {events:?}");
    }
    assert_eq!(events.get(Event::Failed), 0);
    cache.forget_events().unwrap();
    assert_eq!(cache.events().unwrap().get(Event::Out), 0);
}

#[test]
fn it_runs_in_any_namespace_and_when_it_is_asked_twice() {
    let cache = FlowCache::load().unwrap();
    cache.heartbeat.beat(Instant(monotonic_nanos()));
    let end = cache.heartbeat.end();
    let other = Netns::create_anonymous().unwrap();
    thread::scope(|scope| {
        let ask = || other.run_in(|| run(&cache)).unwrap().unwrap();
        let asked = [scope.spawn(ask), scope.spawn(ask)];
        for thread in asked {
            assert!(thread.join().unwrap().ipv6);
        }
    });
    // An agent that lives is not cut short.
    assert_eq!(cache.heartbeat.end(), end);
}

#[test]
fn a_stream_past_the_programs_or_in_segments_is_a_failure() {
    let len = LEN as u64;
    for partner in [Partner::OtherNode, Partner::SameNode] {
        let judge = |traffic: Traffic| judge(&traffic, partner);
        assert!(judge(carried(len + 30_000, 150)).is_ok());
        let bypassed = judge(carried(len / 2, 100));
        assert!(matches!(bypassed, Err(SelfTestError::Bypassed { .. })));
        let split = judge(carried(len + 50_000, 715));
        assert!(matches!(split, Err(SelfTestError::Split { .. })));
    }
    // The other node's packets count within a node as little as they are there.
    let out = Traffic {
        in_bytes: 0,
        in_packets: 0,
        ..carried(len + 30_000, 150)
    };
    assert!(judge(&out, Partner::SameNode).is_ok());
    assert!(judge(&out, Partner::OtherNode).is_err());
}

#[test]
fn errors_go_on_a_sentence() {
    let refused = SelfTestError::Refused { family: Family::V4 };
    let stream = SelfTestError::Stream {
        family: Family::V4,
        partner: Partner::OtherNode,
        source: StreamError::Differs,
    };
    let setting = SelfTestError::Setting {
        name: "ipv4/conf/eth1/rp_filter".to_owned(),
        source: io::ErrorKind::PermissionDenied.into(),
    };
    let sentences = [refused, stream, setting].map(|error| error.to_string());
    assert_eq!(
        sentences,
        [
            "the kernel refuses to change tunnelled packets of IPv4",
            "its self-test lost a stream of IPv4 to another node: \
             other bytes arrived than were sent",
            "its self-test cannot set net/ipv4/conf/eth1/rp_filter: permission denied",
        ]
    );
}
