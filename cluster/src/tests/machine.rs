//! What a log does to the state, whoever takes it, while writers do not wait for each other.

use std::collections::BTreeSet;

use super::*;

/// A log, and the state and replies of the manager that wrote it.
#[derive(Default)]
struct Log {
    entries: Vec<Entry>,
    replies: Vec<Reply>,
    state: ClusterState,
}

impl Log {
    /// Takes an entry as it comes over the wire.
    fn take(&mut self, base: u64, changes: Vec<Change>) -> Reply {
        let text = serde_json::to_vec(&Entry { base, changes }).unwrap();
        let entry: Entry = serde_json::from_slice(&text).unwrap();
        let reply = entry.apply(&mut self.state);
        self.entries.push(entry);
        self.replies.push(reply);
        reply
    }
}

/// Who plans on the state that it saw last.
#[derive(Default)]
struct Writer {
    seen: ClusterState,
    waits: Waits,
}

impl Writer {
    /// What it would change, one thing or another as `dice` say.
    fn plan(&mut self, dice: u128, step: u64, e: &mut Entropy) -> Option<Vec<Change>> {
        let (seen, now) = (&self.seen, 10_000 + step);
        let changes = match dice % 8 {
            0 => {
                let web = publish(spec(&format!("s{step}"), 2), 0, 80);
                create_service(seen, now, e, web).map(|p| p.changes)
            }
            1 => {
                let spec = NetworkSpec {
                    name: format!("n{step}"),
                    ..NetworkSpec::default()
                };
                create_network(seen, now, e, spec, &[]).map(|p| p.changes)
            }
            2 => {
                let name = seen.services.values().next()?.spec.name.clone();
                remove_service(seen, now, e, &name)
            }
            3 => set_node_state(seen, now, e, &node(2), NodeState::Down, "silent"),
            4 => set_node_state(seen, now, e, &node(2), NodeState::Ready, ""),
            5 => rotate_token(seen, now, e, Role::Worker).map(|p| p.changes),
            _ => {
                self.waits.look(seen, now, Duration::from_millis(step));
                Ok(reconcile(seen, None, now, &self.waits, e))
            }
        };
        changes.ok().filter(|changes| !changes.is_empty())
    }
}

/// A log of two writers, who see what the other one did three times of four.
fn log(seed: u8) -> Log {
    let mut entropy = Entropy::from_seed([seed; 32]);
    let e = &mut entropy;
    let mut log = Log::default();
    let init = InitCluster {
        cluster_id: "cluster".to_owned(),
        node_id: node(1),
        node: description(1),
        default_address_pools: Vec::new(),
        subnet_prefix_len: None,
        data_path_port: None,
        autolock: false,
        availability: Availability::Active,
        reserved: Vec::new(),
        root: RootPair::default(),
    };
    let planned = init_cluster(&log.state, 1000, e, init).unwrap();
    log.take(0, planned.changes);
    for n in 2..=4 {
        let joins = join(&log.state, 2000, e, node(n), Role::Worker, &description(n));
        log.take(log.state.version, joins.unwrap().changes);
        let ready = set_node_state(&log.state, 2000, e, &node(n), NodeState::Ready, "");
        log.take(log.state.version, ready.unwrap());
    }
    let mut writers = [Writer::default(), Writer::default()];
    for step in 0..120 {
        let dice = e.next_u128();
        let writer = &mut writers[usize::from(dice & 1 == 1)];
        if step < 2 || dice & 0b110 != 0 {
            writer.seen = log.state.clone();
        }
        let Some(changes) = writer.plan(dice >> 8, step, e) else {
            continue;
        };
        if let Reply::Applied { .. } = log.take(writer.seen.version, changes) {
            writer.seen = log.state.clone();
        }
    }
    log
}

/// Takes entries as a manager does that has a state already.
fn replay(state: &mut ClusterState, entries: &[Entry]) -> Vec<Reply> {
    entries.iter().map(|entry| entry.apply(state)).collect()
}

#[test]
fn whoever_takes_the_log_has_the_same_state_and_gives_the_same_replies() {
    let mut stale = 0;
    for seed in 0..24 {
        let log = log(seed);
        let mut state = ClusterState::default();
        assert_eq!(replay(&mut state, &log.entries), log.replies, "seed {seed}");
        assert_eq!(state, log.state, "seed {seed}");
        // One that got a snapshot on the way, wherever.
        let (first, rest) = log
            .entries
            .split_at(log.entries.len() * usize::from(seed) / 24);
        let mut early = ClusterState::default();
        replay(&mut early, first);
        let mut late = early.clone();
        let replies = replay(&mut late, rest);
        assert_eq!(replies, log.replies[first.len()..], "seed {seed}");
        assert_eq!(late, log.state, "seed {seed}");
        let applied = log.replies.iter();
        let applied = applied.filter(|reply| matches!(reply, Reply::Applied { .. }));
        assert_eq!(applied.count() as u64, log.state.version, "seed {seed}");
        stale += log.replies.len() as u64 - log.state.version;
    }
    assert!(stale > 60, "{stale}: the writers hardly met");
}

/// What two writers allocate at once is the same thing, so that one of them plans again.
#[test]
fn nothing_is_allocated_twice() {
    for seed in 100..124 {
        let state = log(seed).state;
        let vnis: BTreeSet<_> = state.networks.values().map(|n| n.vni).collect();
        assert_eq!(vnis.len(), state.networks.len(), "seed {seed}");
        let ports = state.services.values().flat_map(|s| &s.endpoint.ports);
        let ports: Vec<u16> = ports.map(|port| port.published).collect();
        let single: BTreeSet<&u16> = ports.iter().collect();
        assert_eq!(single.len(), ports.len(), "seed {seed}: {ports:?}");
    }
}

#[test]
fn a_stale_entry_has_a_reply_and_changes_nothing() {
    let mut world = World::new(2);
    let before = world.state.clone();
    let planned = rotate_token(&before, 5, &mut world.entropy, Role::Worker).unwrap();
    let entry = |base| Entry {
        base,
        changes: planned.changes.clone(),
    };
    for base in [0, before.version - 1, before.version + 1] {
        let stale = Stale {
            planned: base,
            actual: before.version,
        };
        assert_eq!(entry(base).check(&world.state), Err(stale));
        assert_eq!(entry(base).apply(&mut world.state), Reply::Stale(stale));
        assert_eq!(world.state, before);
    }
    let version = before.version + 1;
    let again = entry(before.version);
    let reply = again.apply(&mut world.state);
    assert_eq!(reply, Reply::Applied { version });
    assert_ne!(world.state.secrets, before.secrets);
    // The log gives it twice, after a leader was lost in between.
    assert!(matches!(again.apply(&mut world.state), Reply::Stale(_)));
    assert_eq!(world.state.version, version);
}
