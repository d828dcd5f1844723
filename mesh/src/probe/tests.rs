use std::net::Ipv4Addr;

use weft_wire::frame::{Frame, TCP_ACK, TCP_RST, TCP_SYN, parse};
use weft_wire::reply::tcp_reset_for;
use weft_wire::{IpInfo, Mac};

use super::*;

const OWN: NodeAddress = NodeAddress {
    ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)),
    mac: Mac([2, 0x42, 10, 0, 0, 2]),
};
const THEIRS: Mac = Mac([2, 0x42, 10, 0, 0, 9]);

fn ms(n: u64) -> Instant {
    Instant(n * 1_000_000)
}

fn target(last: u8) -> ProbeTarget {
    ProbeTarget {
        to: SocketAddr::from(([10, 0, 0, last], 80)),
        load: Arc::default(),
    }
}

/// Three refusals, at time zero; the back-off is over after a second at most.
fn ejected(last: u8) -> ProbeTarget {
    let target = target(last);
    for _ in 0..3 {
        let health = target.load.health();
        health.note_failure(Instant(1), 0, Failure::Refused);
    }
    target
}

fn prober() -> Prober {
    let mut prober = Prober::new(7);
    prober.set_address(Instant(0), Some(OWN));
    prober
}

fn sent(prober: &mut Prober, now: Instant) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| prober.poll_transmit(now, |_| Some(THEIRS))).collect()
}

fn info(frame: &[u8]) -> IpInfo {
    match parse(frame) {
        Ok(Frame::Ip(info)) => info,
        other => panic!("{other:?}"),
    }
}

fn reset(syn: &[u8]) -> Vec<u8> {
    let mut answer = vec![0; 100];
    let len = tcp_reset_for(syn, &info(syn), &mut answer);
    answer.truncate(len);
    answer
}

/// What a listening kernel would say, without a checksum: a device was to complete it.
fn syn_ack(syn: &[u8]) -> Vec<u8> {
    let mut answer = reset(syn);
    let l4 = info(&answer).l4;
    answer[l4 + 4..l4 + 8].copy_from_slice(&77u32.to_be_bytes());
    answer[l4 + 13] = TCP_SYN | TCP_ACK;
    answer[l4 + 14..l4 + 16].copy_from_slice(&1000u16.to_be_bytes());
    answer[l4 + 16..l4 + 18].copy_from_slice(&[0xab, 0xcd]);
    answer
}

#[test]
fn a_replica_that_answers_is_back_and_its_program_sees_no_connection() {
    let (mut prober, target) = (prober(), ejected(9));
    prober.begin(ms(500), &target);
    assert_eq!(prober.running(), 0, "its back-off is not over");
    prober.begin(ms(1100), &target);
    prober.begin(ms(1200), &target);
    let frames = sent(&mut prober, ms(1200));
    assert_eq!((prober.running(), frames.len()), (1, 1), "one for each");
    let syn = info(&frames[0]);
    assert_eq!(syn.tcp_flags, TCP_SYN);
    assert_eq!((syn.src, syn.dst, syn.dport), (OWN.ip, target.to.ip(), 80));
    assert!(PROBE_PORTS.contains(&syn.sport), "{}", syn.sport);
    assert_eq!(frame_macs(&frames[0]), (THEIRS, OWN.mac));
    let etherparse = etherparse::SlicedPacket::from_ethernet(&frames[0]).unwrap();
    assert!(etherparse.transport.is_some());

    prober.handle_frame(ms(1210), &syn_ack(&frames[0]));
    prober.settle(ms(1210));
    assert!(!target.load.health().is_ejected(ms(1210)));
    let frames = sent(&mut prober, ms(1210));
    let flags: Vec<u8> = frames.iter().map(|f| info(f).tcp_flags).collect();
    assert_eq!(flags.len(), 1, "{flags:?}");
    assert_ne!(flags[0] & TCP_RST, 0);
    let expected = ProbeCounters {
        sent: 1,
        passed: 1,
        ..ProbeCounters::default()
    };
    assert_eq!((prober.counters(), prober.running()), (expected, 0));
    assert!(sent(&mut prober, ms(60_000)).is_empty());
}

fn frame_macs(frame: &[u8]) -> (Mac, Mac) {
    use weft_wire::frame::{dst_mac, src_mac};
    (dst_mac(frame), src_mac(frame))
}

#[test]
fn a_refusal_doubles_the_back_off() {
    let (mut prober, target) = (prober(), ejected(9));
    prober.begin(ms(1100), &target);
    let frames = sent(&mut prober, ms(1100));
    prober.handle_frame(ms(1110), &reset(&frames[0]));
    prober.settle(ms(1110));
    assert_eq!((prober.counters().refused, prober.running()), (1, 0));
    assert!(
        sent(&mut prober, ms(1110)).is_empty(),
        "a reset is not answered"
    );
    let ejection = target.load.health().ejection(ms(1110)).unwrap();
    assert_eq!((ejection.refused, ejection.silent), (4, 0));
    assert!(
        ejection.remaining >= Duration::from_millis(1500),
        "{ejection:?}"
    );
}

#[test]
fn silence_is_repeated_once_and_then_a_failure() {
    let (mut prober, target) = (prober(), ejected(9));
    prober.begin(ms(1100), &target);
    assert_eq!(sent(&mut prober, ms(1100)).len(), 1);
    assert_eq!(sent(&mut prober, ms(1900)).len(), 0);
    assert_eq!(
        sent(&mut prober, ms(2200)).len(),
        1,
        "RFC 6298: after a second"
    );
    prober.settle(ms(3050));
    assert_eq!(prober.running(), 1);
    prober.settle(ms(3100));
    assert_eq!((prober.counters().silent, prober.running()), (1, 0));
    assert_eq!(target.load.health().ejection(ms(3100)).unwrap().silent, 1);
    assert!(sent(&mut prober, ms(9000)).is_empty());
}

#[test]
fn many_are_probed_at_a_bounded_rate() {
    let mut prober = prober();
    let targets: Vec<ProbeTarget> = (10..210).map(ejected).collect();
    for n in 0..1000u64 {
        for target in &targets {
            prober.begin(ms(1100 + n), target);
        }
        assert!(prober.running() as u64 <= 1 + n / 10);
    }
    assert_eq!(prober.running(), AT_ONCE);
    let frames = sent(&mut prober, ms(2100));
    let mut ports: Vec<u16> = frames.iter().map(|f| info(f).sport).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), AT_ONCE);
}

#[test]
fn without_an_address_of_the_family_there_is_no_probe() {
    let mut prober = Prober::new(1);
    prober.begin(ms(1100), &ejected(9));
    prober.handle_frame(ms(1100), &[0; 60]);
    assert_eq!(
        (prober.running(), sent(&mut prober, ms(1100)).len()),
        (0, 0)
    );
    prober.set_address(ms(1100), Some(OWN));
    let mut six = ejected(9);
    six.to = "[fd00::9]:80".parse().unwrap();
    prober.begin(ms(1100), &six);
    assert_eq!(prober.running(), 0);
    prober.begin(ms(1200), &ejected(9));
    assert_eq!(prober.running(), 1);
    prober.set_address(ms(1200), None);
    prober.settle(ms(9000));
    assert_eq!((prober.running(), prober.counters().silent), (0, 0));
}

#[test]
fn garbage_is_not_an_answer() {
    let (mut prober, target) = (prober(), ejected(9));
    prober.begin(ms(1100), &target);
    let syn = sent(&mut prober, ms(1100)).remove(0);
    let answer = syn_ack(&syn);
    for len in 0..answer.len() {
        prober.handle_frame(ms(1101), &answer[..len]);
    }
    // Another port, and an acknowledgement of what was never sent.
    for (byte, what) in [(2, "port"), (8, "number")] {
        let mut wrong = answer.clone();
        let l4 = info(&answer).l4;
        wrong[l4 + byte] ^= 0x55;
        prober.handle_frame(ms(1101), &wrong);
        prober.settle(ms(1101));
        assert_eq!(prober.running(), 1, "{what}");
    }
    prober.handle_frame(ms(1102), &answer);
    prober.settle(ms(1102));
    assert_eq!(prober.counters().passed, 1);
}
