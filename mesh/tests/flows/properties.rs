//! What holds for every frame and every order of events.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use weft_mesh::{Context, FlowConfig, FlowState, Forward, Reverse};
use weft_wire::FiveTuple;
use weft_wire::frame::{self, Frame};

use crate::bench::*;

#[derive(Debug, Clone, Copy)]
enum Event {
    Client { sport: u16, flags: u8 },
    Replica { sport: u16, flags: u8 },
    Refuse { sport: u16 },
    Datagram { sport: u16 },
    Wait { secs: u16 },
    Lose { replica: u8 },
    Restore,
    Sweep,
}

fn event() -> impl Strategy<Value = Event> {
    let sport = 1u16..6;
    let flags = prop::sample::select(vec![SYN, ACK, SYN | ACK, FIN | ACK, RST, RST | ACK]);
    prop_oneof![
        6 => (sport.clone(), flags.clone()).prop_map(|(sport, flags)| Event::Client { sport, flags }),
        5 => (sport.clone(), flags).prop_map(|(sport, flags)| Event::Replica { sport, flags }),
        2 => sport.clone().prop_map(|sport| Event::Refuse { sport }),
        2 => sport.prop_map(|sport| Event::Datagram { sport }),
        1 => (0u16..4000).prop_map(|secs| Event::Wait { secs }),
        1 => (0u8..3).prop_map(|replica| Event::Lose { replica }),
        1 => Just(Event::Restore),
        1 => Just(Event::Sweep),
    ]
}

/// Does what an event says; remembers what the replica saw of each client port.
fn run(b: &mut Bench, seen: &mut [Option<FiveTuple>; 8], event: Event) {
    let at = |sport: u16| usize::from(sport);
    match event {
        Event::Client { sport, flags } => {
            let mut frame = to_vip(sport, flags, 100, 1, b"");
            if let Forward::Rewritten { .. } = b.forward(&port(), &mut frame) {
                check(&frame);
                seen[at(sport)] = Some(info(&frame).five_tuple());
            }
        }
        Event::Replica { sport, flags } => {
            if let Some(t) = seen[at(sport)] {
                let mut frame = answer(t, flags, 1, 101, b"");
                if let Reverse::Retry { .. } = b.reverse(&mut frame) {
                    seen[at(sport)] = Some(info(b.table.retry_frame()).five_tuple());
                }
            }
        }
        Event::Refuse { sport } => run(
            b,
            seen,
            Event::Replica {
                sport,
                flags: RST | ACK,
            },
        ),
        Event::Datagram { sport } => {
            let t = tuple(client(), sport, vip(), 53, 17);
            b.forward(&port(), &mut udp((CLIENT, VIP_MAC), t, b"x"));
        }
        Event::Wait { secs } => {
            b.pass(Duration::from_secs(secs.into()));
            b.table.expire(b.now, 100);
        }
        Event::Lose { replica } => {
            b.replicas.retain(|r| r.key != 100 + u64::from(replica));
            b.publish();
        }
        Event::Restore => {
            let all = Bench::new(3);
            b.replicas = all.replicas;
            for (replica, load) in b.replicas.iter_mut().zip(&b.loads) {
                replica.load = std::sync::Arc::clone(load);
            }
            b.publish();
        }
        Event::Sweep => {
            let cx = Context {
                now: b.now,
                epoch: b.epoch,
                services: &b.services,
            };
            b.table.sweep(&cx, 100, |reset| check(reset.frame));
        }
    }
}

proptest! {
    #[test]
    fn loads_are_the_open_flows_and_end_at_zero(
        events in vec(event(), 0..120),
        capacity in 2usize..9,
    ) {
        let mut b = Bench::with(3, FlowConfig { capacity, seed: 5, ..FlowConfig::default() });
        let mut seen = [None; 8];
        for event in events {
            run(&mut b, &mut seen, event);
            let open: u32 = b.own().iter().sum();
            prop_assert_eq!(open as usize, b.table.active());
            prop_assert!(b.table.active() <= b.table.len());
            prop_assert!(b.table.len() <= capacity);
        }
        for sport in 1..6 {
            run(&mut b, &mut seen, Event::Client { sport, flags: RST });
        }
        for _ in 0..3 {
            run(&mut b, &mut seen, Event::Wait { secs: 3700 });
        }
        prop_assert_eq!(b.own(), [0, 0, 0]);
        prop_assert!(b.table.is_empty());
    }

    #[test]
    fn an_open_connection_survives_hours_of_anything(events in vec(event(), 0..150)) {
        let mut b = Bench::new(3);
        let mut seen = [None; 8];
        let mine = b.open(7);
        let kept = b.replicas[b.replica_at(mine.dst)].key;
        let mut waited = 0;
        for event in events {
            match event {
                Event::Lose { replica } if 100 + u64::from(replica) == kept => {}
                Event::Wait { secs } => {
                    // Up to ten hours at once.
                    waited += u64::from(secs) * 9;
                    b.pass(Duration::from_secs(u64::from(secs) * 9));
                    b.table.expire(b.now, 100);
                }
                event => run(&mut b, &mut seen, event),
            }
        }
        prop_assert!(b.own().iter().sum::<u32>() >= 1, "after {} s", waited);
        let t = tuple(client(), 7, vip(), 80, 6);
        prop_assert_eq!(b.table.state_of(vni(), t), Some(FlowState::Established));
        let got = b.forwarded(&port(), to_vip(7, ACK, 101, 501, b"still here"));
        prop_assert_eq!(info(&got).five_tuple(), mine);
        b.returned(&port(), answer(mine, ACK, 501, 111, b"so am I"));
    }

    #[test]
    fn there_and_back_gives_the_same_addresses(
        sport in 1u16..,
        published in any::<bool>(),
        payload in vec(any::<u8>(), 0..200),
        seq: u32,
    ) {
        let mut b = Bench::new(3);
        let origin = if published { mesh() } else { port() };
        let t = if published {
            tuple(host_ip(), sport, mesh_ip(), 8000, 6)
        } else {
            tuple(client(), sport, vip(), 80, 6)
        };
        let macs = (CLIENT, VIP_MAC);
        let syn = b.forwarded(&origin, tcp(macs, t, (SYN, seq, 0), b""));
        let seen = info(&syn).five_tuple();
        let end = seq.wrapping_add(1);
        b.returned(&origin, answer(seen, SYN | ACK, 7, end, b""));
        let sent = tcp(macs, t, (ACK, end, 8), &payload);
        let got = b.forwarded(&origin, sent.clone());
        // An echo of the whole segment comes back as the client would have sent it to itself.
        prop_assert_eq!(&got[54..], &sent[54..]);
        let back = b.returned(&origin, answer(seen, ACK, 8, end, &payload));
        let want = tcp((VIP_MAC, CLIENT), t.reversed(), (ACK, 8, end), &payload);
        prop_assert_eq!(back, want);
    }

    #[test]
    fn hostile_frames_never_panic(
        bytes in vec(any::<u8>(), 0..120),
        cut in 0usize..120,
        change in vec((0usize..120, any::<u8>()), 0..6),
        partial: bool,
    ) {
        let mut b = Bench::new(2);
        let seen = b.half_open(1);
        b.open(2);
        let mut frames = vec![bytes];
        for whole in [to_vip(1, SYN, 1, 0, b"abc"), answer(seen, RST | ACK, 0, 101, b"")] {
            let mut whole = whole;
            for &(at, value) in &change {
                if let Some(byte) = whole.get_mut(at) {
                    *byte = value;
                }
            }
            frames.push(whole.clone());
            whole.truncate(cut);
            frames.push(whole);
        }
        for mut frame in frames {
            let Ok(Frame::Ip(info)) = frame::parse(&frame) else { continue };
            let cx = Context { now: b.now, epoch: b.epoch, services: &b.services };
            for origin in [port(), mesh()] {
                b.table.forward(&cx, &origin, &mut frame, &info, partial);
            }
            b.table.reverse(&cx, vni(), &mut frame, &info, partial);
            // What is known of a longer frame is wrong for a shorter one.
            frame.truncate(frame.len() / 2);
            b.table.forward(&cx, &port(), &mut frame, &info, partial);
            b.table.reverse(&cx, vni(), &mut frame, &info, partial);
        }
    }
}
