use std::sync::Arc;

use weft_model::api::ConnectTime;
use weft_model::objects::Protocol;
use weft_swarm::door::DoorSample;
use weft_wire::DropReason;

use super::{
    DnsSample, FastPathSample, GossipSample, MeshPortSample, MeshReplicaSample, Metrics,
    MetricsSource, PortSample, Sample, UnreachableCounters, WorkerEvents, WorkerSample,
};

#[derive(Debug)]
struct Fixed(Arc<Sample>);

impl MetricsSource for Fixed {
    fn sample(&self) -> Arc<Sample> {
        Arc::clone(&self.0)
    }
}

fn text(sample: Sample) -> String {
    let source = Fixed(Arc::new(sample));
    Metrics::new(Arc::new(source)).encode().unwrap()
}

fn worker_events() -> WorkerEvents {
    WorkerEvents {
        flows_created: 20,
        flows_retried: 21,
        flows_refused: 22,
        flows_expired: 23,
        flows_evicted_closed: 240,
        flows_evicted_handshakes: 241,
        flows_evicted_datagrams: 242,
        flows_evicted_open: 243,
        flows_evicted_guests: 244,
        flows_full: 25,
        flows_lost_replica: 26,
        flows_held: 260,
        flows_held_refused: 261,
        unsegmented: 27,
        injected: 28,
        loopbacks_answered: 29,
    }
}

/// One of everything, each figure another one.
pub(crate) fn full() -> Sample {
    Sample {
        ports: vec![PortSample {
            port: "web.1\"x".into(),
            network: "blue".into(),
            rx_packets: 1,
            rx_bytes: 2,
            tx_packets: 3,
            tx_bytes: 4,
            drops: vec![(DropReason::SpoofedMac, 5), (DropReason::TapFull, 6)],
        }],
        workers: vec![
            WorkerSample { flows_active: 7 },
            WorkerSample { flows_active: 8 },
        ],
        worker_events: vec![worker_events()],
        gossip_undecodable: 28,
        mesh_ports: vec![MeshPortSample {
            service: "web".into(),
            published: 8000,
            protocol: Protocol::Tcp,
            host_ip: None,
            accepted: 9,
            failed: 10,
            open: 11,
            rx_bytes: 12,
            tx_bytes: 13,
            retried: 29,
            ejected: 39,
            connect: ConnectTime {
                count: 40,
                total_us: 1_500_000,
            },
            healthy: 30,
            accepted_here: true,
        }],
        mesh_replicas: vec![MeshReplicaSample {
            service: "web".into(),
            replica: "web.1.x".into(),
            node: "n1".into(),
            network: "blue".into(),
            healthy: true,
            open: 31,
            accepted: 32,
            refused: 33,
            retried: 41,
            rx_bytes: 42,
            tx_bytes: 43,
            connect: ConnectTime {
                count: 44,
                total_us: 250_000,
            },
            ejected: true,
            ejections: 34,
        }],
        fast_path: FastPathSample {
            events: vec![("out", 51), ("stale", 52)],
            flows: 53,
            entries: 54,
        },
        probes: weft_mesh::ProbeCounters {
            sent: 35,
            passed: 36,
            refused: 37,
            silent: 38,
        },
        unreachable: UnreachableCounters {
            sent: 47,
            held_back: 48,
            failed: 49,
        },
        dns: DnsSample {
            queries: vec![("answered", 14)],
            cached: 15,
        },
        gossip: GossipSample {
            members: vec![("alive", 16)],
            events: vec![("bad_seal", 17)],
            entries: 18,
        },
        doors: vec![DoorSample {
            door: "manager",
            events: vec![("refused_crowded", 45)],
            open: vec![("stranger", 46)],
        }],
        epoch: 19,
        session_connected: true,
        refused_orders: vec![("misfit", 50)],
    }
}

#[test]
fn every_figure_has_its_series() {
    let text = text(full());
    let port = r#"port="web.1\"x",network="blue""#;
    let mesh = r#"service="web",published="8000",protocol="tcp",host_ip="""#;
    let replica = r#"service="web",replica="web.1.x",node="n1",network="blue""#;
    for line in [
        format!("weft_port_rx_packets_total{{{port}}} 1"),
        format!("weft_port_rx_bytes_total{{{port}}} 2"),
        format!("weft_port_tx_packets_total{{{port}}} 3"),
        format!("weft_port_tx_bytes_total{{{port}}} 4"),
        format!("weft_dropped_packets_total{{{port},reason=\"spoofed_mac\"}} 5"),
        format!("weft_dropped_packets_total{{{port},reason=\"tap_full\"}} 6"),
        r#"weft_flows_active{worker="0"} 7"#.to_owned(),
        r#"weft_flows_active{worker="1"} 8"#.to_owned(),
        r#"weft_flow_events_total{worker="0",event="created"} 20"#.to_owned(),
        r#"weft_flow_events_total{worker="0",event="retried"} 21"#.to_owned(),
        r#"weft_flow_events_total{worker="0",event="refused"} 22"#.to_owned(),
        r#"weft_flow_events_total{worker="0",event="expired"} 23"#.to_owned(),
        r#"weft_flow_events_total{worker="0",event="evicted_closed"} 240"#.to_owned(),
        r#"weft_flow_events_total{worker="0",event="evicted_handshakes"} 241"#.to_owned(),
        r#"weft_flow_events_total{worker="0",event="evicted_datagrams"} 242"#.to_owned(),
        r#"weft_flow_events_total{worker="0",event="evicted_open"} 243"#.to_owned(),
        r#"weft_flow_events_total{worker="0",event="evicted_guests"} 244"#.to_owned(),
        r#"weft_flow_events_total{worker="0",event="full"} 25"#.to_owned(),
        r#"weft_flow_events_total{worker="0",event="lost_replica"} 26"#.to_owned(),
        r#"weft_flow_events_total{worker="0",event="held"} 260"#.to_owned(),
        r#"weft_flow_events_total{worker="0",event="held_refused"} 261"#.to_owned(),
        r#"weft_unsegmented_sends_total{worker="0"} 27"#.to_owned(),
        r#"weft_tunnel_offloads_total{worker="0"} 28"#.to_owned(),
        r#"weft_overlay_pings_answered_total{worker="0"} 29"#.to_owned(),
        r#"weft_fast_path_events_total{event="out"} 51"#.to_owned(),
        r#"weft_fast_path_events_total{event="stale"} 52"#.to_owned(),
        "weft_fast_path_flows 53".to_owned(),
        "weft_fast_path_entries_total 54".to_owned(),
        "weft_gossip_undecodable_entries 28".to_owned(),
        format!("weft_mesh_accepted_connections_total{{{mesh}}} 9"),
        format!("weft_mesh_failed_connections_total{{{mesh}}} 10"),
        format!("weft_mesh_open_connections{{{mesh}}} 11"),
        format!("weft_mesh_rx_bytes_total{{{mesh}}} 12"),
        format!("weft_mesh_tx_bytes_total{{{mesh}}} 13"),
        format!("weft_mesh_retried_connections_total{{{mesh}}} 29"),
        format!("weft_mesh_healthy_replicas{{{mesh}}} 30"),
        format!("weft_mesh_port_open{{{mesh}}} 1"),
        format!("weft_replica_open_connections{{{replica}}} 31"),
        format!("weft_replica_accepted_connections_total{{{replica}}} 32"),
        format!("weft_replica_refused_connections_total{{{replica}}} 33"),
        format!("weft_replica_healthy{{{replica}}} 1"),
        format!("weft_mesh_ejected_replicas{{{mesh}}} 39"),
        format!("weft_mesh_connects_total{{{mesh}}} 40"),
        format!("weft_mesh_connect_seconds_total{{{mesh}}} 1.5"),
        format!("weft_replica_retried_connections_total{{{replica}}} 41"),
        format!("weft_replica_rx_bytes_total{{{replica}}} 42"),
        format!("weft_replica_tx_bytes_total{{{replica}}} 43"),
        format!("weft_replica_connects_total{{{replica}}} 44"),
        format!("weft_replica_connect_seconds_total{{{replica}}} 0.25"),
        format!("weft_replica_ejected{{{replica}}} 1"),
        format!("weft_replica_ejections_total{{{replica}}} 34"),
        r#"weft_mesh_probes_total{outcome="sent"} 35"#.to_owned(),
        r#"weft_mesh_probes_total{outcome="passed"} 36"#.to_owned(),
        r#"weft_mesh_probes_total{outcome="refused"} 37"#.to_owned(),
        r#"weft_mesh_probes_total{outcome="silent"} 38"#.to_owned(),
        r#"weft_mesh_unreachable_messages_total{outcome="sent"} 47"#.to_owned(),
        r#"weft_mesh_unreachable_messages_total{outcome="held_back"} 48"#.to_owned(),
        r#"weft_mesh_unreachable_messages_total{outcome="failed"} 49"#.to_owned(),
        r#"weft_dns_queries_total{outcome="answered"} 14"#.to_owned(),
        "weft_dns_cached 15".to_owned(),
        r#"weft_gossip_members{state="alive"} 16"#.to_owned(),
        r#"weft_gossip_events_total{event="bad_seal"} 17"#.to_owned(),
        "weft_gossip_entries 18".to_owned(),
        r#"weft_door_events_total{door="manager",event="refused_crowded"} 45"#.to_owned(),
        r#"weft_door_open_connections{door="manager",kind="stranger"} 46"#.to_owned(),
        "weft_snapshot_epoch 19".to_owned(),
        "weft_session_connected 1".to_owned(),
        r#"weft_session_refused_orders_total{kind="misfit"} 50"#.to_owned(),
        "# EOF".to_owned(),
    ] {
        assert!(
            text.lines().any(|l| l == line),
            "{line} is missing in\n{text}"
        );
    }
}

#[test]
fn a_replica_that_was_never_used_has_its_health_alone() {
    let unused = MeshReplicaSample {
        service: "web".into(),
        replica: "web.1.x".into(),
        node: "n1".into(),
        network: "blue".into(),
        healthy: true,
        open: 0,
        accepted: 0,
        refused: 0,
        retried: 0,
        rx_bytes: 0,
        tx_bytes: 0,
        connect: ConnectTime::default(),
        ejected: false,
        ejections: 0,
    };
    let series = |change: fn(&mut MeshReplicaSample)| {
        let mut replica = unused.clone();
        change(&mut replica);
        let sample = Sample {
            mesh_replicas: vec![replica],
            ..Sample::default()
        };
        let text = text(sample);
        let names = text.lines().filter_map(|line| line.split_once('{'));
        names
            .map(|(name, _)| name.to_owned())
            .filter(|name| name.starts_with("weft_replica_"))
            .collect::<Vec<_>>()
    };
    assert_eq!(series(|_| {}), ["weft_replica_healthy"]);
    // Not counted before it is answered or refused.
    let opening = ["weft_replica_open_connections", "weft_replica_healthy"];
    assert_eq!(series(|r| r.open = 1), opening);
    let counted: [fn(&mut MeshReplicaSample); 7] = [
        |r| r.accepted = 1,
        |r| r.refused = 1,
        |r| r.retried = 1,
        |r| r.rx_bytes = 1,
        |r| r.tx_bytes = 1,
        |r| r.connect.count = 1,
        |r| r.ejections = 1,
    ];
    for (at, change) in counted.into_iter().enumerate() {
        assert_eq!(series(change).len(), 11, "counter {at}");
    }
}

#[test]
fn labels_are_escaped_in_each_series_of_a_replica() {
    let mut sample = full();
    let used = sample.mesh_replicas.remove(0);
    let odd = MeshReplicaSample {
        replica: "a\"b\\c}\nd".into(),
        node: "n{1".into(),
        ..used.clone()
    };
    sample.mesh_replicas = vec![odd, used];
    let text = text(sample);
    let labels = [
        r#"{service="web",replica="a\"b\\c}\nd",node="n{1",network="blue"} "#,
        r#"{service="web",replica="web.1.x",node="n1",network="blue"} "#,
    ];
    for labels in labels {
        let series = text.lines().filter(|line| line.contains(labels));
        assert_eq!(series.count(), 11, "{labels} in\n{text}");
    }
}

#[test]
fn every_counter_of_a_worker_is_read() {
    let counters = weft_dataplane::WorkerCounters::default();
    let all = [
        &counters.flows_created,
        &counters.flows_retried,
        &counters.flows_refused,
        &counters.flows_expired,
        &counters.flows_evicted_closed,
        &counters.flows_evicted_handshakes,
        &counters.flows_evicted_datagrams,
        &counters.flows_evicted_open,
        &counters.flows_evicted_guests,
        &counters.flows_full,
        &counters.flows_lost_replica,
        &counters.flows_held,
        &counters.flows_held_refused,
        &counters.unsegmented,
        &counters.injected,
        &counters.loopbacks_answered,
    ];
    for (counter, n) in all.into_iter().zip(1..) {
        counter.store(n, std::sync::atomic::Ordering::Relaxed);
    }
    let expected = WorkerEvents {
        flows_created: 1,
        flows_retried: 2,
        flows_refused: 3,
        flows_expired: 4,
        flows_evicted_closed: 5,
        flows_evicted_handshakes: 6,
        flows_evicted_datagrams: 7,
        flows_evicted_open: 8,
        flows_evicted_guests: 9,
        flows_full: 10,
        flows_lost_replica: 11,
        flows_held: 12,
        flows_held_refused: 13,
        unsegmented: 14,
        injected: 15,
        loopbacks_answered: 16,
    };
    assert_eq!(WorkerEvents::from(&counters), expected);
}

#[test]
fn an_empty_node_is_still_valid_text() {
    let text = text(Sample::default());
    assert!(text.ends_with("# EOF\n"));
    assert!(text.contains("# TYPE weft_dropped_packets counter\n"));
    assert!(text.contains("weft_session_connected 0\n"));
    // OpenMetrics: metadata of a family comes before its samples, once.
    let types: Vec<_> = text.lines().filter(|l| l.starts_with("# TYPE")).collect();
    let mut unique = types.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(types.len(), unique.len());
}
