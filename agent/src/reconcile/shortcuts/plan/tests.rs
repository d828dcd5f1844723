use super::*;

fn end(index: u32) -> HostEnd {
    HostEnd {
        name: format!("wgw{index}"),
        index,
        second: index + 1,
        mtu: 1500,
        carrier: true,
    }
}

fn devices(number: u16, index: u32) -> Devices {
    Devices {
        number,
        second: index + 1,
        host_end: index,
    }
}

/// Ports 1 and 2 in the sandbox 10, port 3 in 20, port 4 in 30 without a second device.
fn places() -> Vec<(PortId, Inode)> {
    [(1, 10), (2, 10), (3, 20), (4, 30)]
        .map(|(port, inode)| (PortId(port), inode))
        .into()
}

fn ends() -> BTreeMap<Inode, HostEnd> {
    BTreeMap::from([(10, end(100)), (20, end(200))])
}

#[test]
fn numbers_go_round_before_one_is_used_again() {
    assert!(!weft_fastpath::selftest::SELF_TEST_NUMBERS.contains(&LAST));
    const { assert!(LAST < weft_fastpath::MESH_NUMBER) };
    let mut numbers = Numbers::default();
    assert_eq!(numbers.take(), Some(1));
    assert_eq!(numbers.take(), Some(2));
    numbers.free(1);
    assert_eq!(numbers.take(), Some(3));
    for number in 4..=LAST {
        assert_eq!(numbers.take(), Some(number));
    }
    assert_eq!(numbers.take(), Some(1), "the only one that is free");
    assert_eq!(numbers.take(), None);
    numbers.free(7);
    assert_eq!(numbers.take(), Some(7));
}

#[test]
fn all_ports_of_a_sandbox_have_its_number() {
    let mut sandboxes = Sandboxes::default();
    let wanted = sandboxes.wanted(&places(), &ends(), 1450);
    let expected = [
        Ok(devices(1, 100)),
        Ok(devices(1, 100)),
        Ok(devices(2, 200)),
        Err(Without::NoSecond),
    ];
    assert_eq!(wanted.into_values().collect::<Vec<_>>(), expected);
    // One of its ports is gone, the sandbox is the same.
    let all = places();
    let wanted = sandboxes.wanted(&all[1..], &ends(), 1450);
    assert_eq!(wanted[&PortId(2)], Ok(devices(1, 100)));
    // All of them are others: another sandbox has the inode by now.
    let others = [(PortId(5), 10)];
    let wanted = sandboxes.wanted(&others, &ends(), 1450);
    assert_eq!(wanted[&PortId(5)], Ok(devices(4, 100)));
    assert_eq!(sandboxes.numbers.taken.len(), 1, "the rest are free");
}

#[test]
fn a_second_device_that_carries_less_than_the_first_does_not_do() {
    let mut sandboxes = Sandboxes::default();
    let mut ends = ends();
    let wanted = sandboxes.wanted(&places(), &ends, 1501);
    assert_eq!(wanted[&PortId(1)], Err(Without::Unfit));
    ends.get_mut(&10).unwrap().carrier = false;
    let wanted = sandboxes.wanted(&places(), &ends, 1500);
    assert_eq!(wanted[&PortId(1)], Err(Without::Unfit));
    assert!(wanted[&PortId(3)].is_ok());
}

#[test]
fn what_is_missing_is_done_and_what_is_too_much_undone() {
    let mut sandboxes = Sandboxes::default();
    let wanted = sandboxes.wanted(&places(), &ends(), 1450);
    let mut present = Present::new();
    let first = steps(&wanted, &present);
    let ports = |steps: &Steps| -> Vec<u32> { steps.attach.iter().map(|(p, _)| p.0).collect() };
    assert_eq!(ports(&first), [1, 2, 3]);
    // An earlier agent may have put some in front of it.
    assert_eq!(first.clear, [PortId(4)]);
    for (port, at) in first.attach {
        present.insert(port, State::Attached(at));
    }
    present.insert(PortId(4), State::Clear);
    assert_eq!(steps(&wanted, &present), Steps::default());
    // What was refused waits for its turn.
    present.insert(PortId(3), State::Refused(devices(2, 200)));
    assert_eq!(steps(&wanted, &present), Steps::default());

    let mut others = ends();
    others.insert(10, end(101));
    others.insert(20, end(201));
    others.insert(30, end(300));
    let wanted = sandboxes.wanted(&places(), &others, 1450);
    let again = steps(&wanted, &present);
    assert_eq!(ports(&again), [1, 2, 3, 4], "their devices are others");

    let off: Wanted = places()
        .into_iter()
        .map(|(port, _)| (port, Err(Without::Off)))
        .collect();
    let cleared = steps(&off, &present).clear;
    assert_eq!(cleared, [1, 2, 3].map(PortId));
}

#[test]
fn each_has_its_turn() {
    let at = devices(1, 100);
    let present = Present::from([
        (PortId(1), State::Attached(at)),
        (PortId(2), State::Clear),
        (PortId(5), State::Refused(at)),
        (PortId(7), State::Attached(at)),
    ]);
    let after = |last: Option<u32>, count| -> Vec<u32> {
        let found = turn(&present, last.map(PortId), count);
        found.into_iter().map(|(port, _)| port.0).collect()
    };
    assert_eq!(after(None, 2), [1, 5]);
    assert_eq!(after(Some(5), 2), [7, 1]);
    assert_eq!(after(Some(9), 9), [1, 5, 7], "none has two");
}

#[test]
fn the_end_of_a_sandbox_is_cleared_after_its_ports() {
    let at = devices(1, 100);
    let mut present = Present::from([
        (PortId(1), State::Clear),
        (PortId(3), State::Attached(devices(2, 200))),
    ]);
    let idle = |present: &Present| idle_ends(&places(), &ends(), present);
    assert!(idle(&present).is_empty(), "nobody has looked at port 2");
    present.insert(PortId(2), State::Refused(at));
    let expected = BTreeMap::from([(100, "wgw100".to_owned())]);
    assert_eq!(idle(&present), expected);
    present.insert(PortId(2), State::Attached(at));
    assert!(idle(&present).is_empty());
    // A sandbox whose ports this agent does not have is left alone.
    assert!(idle_ends(&[], &ends(), &present).is_empty());
}

#[test]
fn sandboxes_are_counted_by_the_best_of_their_ports() {
    let mut sandboxes = Sandboxes::default();
    let wanted = sandboxes.wanted(&places(), &ends(), 1450);
    let present = Present::from([
        (PortId(1), State::Refused(devices(1, 100))),
        (PortId(2), State::Attached(devices(1, 100))),
        (PortId(3), State::Refused(devices(2, 200))),
        (PortId(4), State::Clear),
    ]);
    let expected = SandboxCounts {
        attached: 1,
        without_second: 1,
        refused: 1,
    };
    assert_eq!(count(&places(), &wanted, &present), expected);
}
