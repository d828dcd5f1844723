//! `weft mesh …`

use std::net::IpAddr;
use std::process::ExitCode;

use serde_json::json;
use weft_client::{Client, segment};
use weft_model::api::{ConnectTime, MeshConn, MeshConns, MeshPort, MeshPortState};
use weft_model::objects::PublishMode;

use crate::args::MeshCommand;
use crate::output::{Filters, Key, Listing, Match, Printer, complain};

/// Keys of `mesh ls --filter`.
const KEYS: [Key; 4] = [
    ("mode", &[("Mode", Match::Is)]),
    ("port", &[("Port", Match::Is)]),
    ("protocol", &[("Protocol", Match::Is)]),
    ("service", &[("Service", Match::Is)]),
];

pub(super) async fn run(
    client: &Client,
    command: MeshCommand,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    match command {
        MeshCommand::Ls(args) => {
            let filters = Filters::of(&args.filter, &KEYS)?;
            let ports: Vec<MeshPort> = client.get("/v1/mesh/ports").await?;
            let mut listing = listing(&ports, args.wide);
            listing.keep(&filters);
            out.listing(&listing, &args.format)?;
        }
        MeshCommand::Conns(args) => {
            let mut path = format!("/v1/mesh/conns?limit={}", args.limit);
            if let Some(service) = &args.service {
                path.push_str("&service=");
                path.push_str(&segment(service));
            }
            let conns: MeshConns = client.get(&path).await?;
            out.listing(&connections(&conns.connections), &args.format)?;
            out.flush()?;
            if !conns.complete {
                complain(&format!(
                    "there are more than {}: give a higher --limit, or one SERVICE",
                    conns.connections.len()
                ));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Every column of `mesh ls`.
const WIDE: &str = "{{.Port}}\t{{.Protocol}}\t{{.Mode}}\t{{.Service}}\t{{.Address}}\t{{.State}}\t{{.Replicas}}\t{{.Accepted}}\t{{.Active}}\t{{.Failed}}\t{{.Retried}}\t{{.Ejected}}\t{{.BytesIn}}\t{{.BytesOut}}\t{{.Connect}}";

/// By port, as the node sorts them within one.
pub(super) fn listing(ports: &[MeshPort], wide: bool) -> Listing {
    let mut listing = Listing::new(
        &[
            ("ID", "ID"),
            ("Published", "PORT"),
            ("Port", "PORT"),
            ("Protocol", "PROTOCOL"),
            ("Mode", "MODE"),
            ("Service", "SERVICE"),
            ("Address", "ADDRESS"),
            ("State", "STATE"),
            ("Replicas", "REPLICAS"),
            ("Accepted", "ACCEPTED"),
            ("Active", "ACTIVE"),
            ("Failed", "FAILED"),
            ("Retried", "RETRIED"),
            ("Ejected", "EJECTED"),
            ("BytesIn", "BYTES IN"),
            ("BytesOut", "BYTES OUT"),
            ("Connect", "CONNECT"),
        ],
        if wide {
            WIDE
        } else {
            "{{.Published}}\t{{.Service}}\t{{.State}}\t{{.Replicas}}\t{{.Active}}\t{{.Failed}}"
        },
        "ID",
    );
    let mut ports: Vec<&MeshPort> = ports.iter().collect();
    ports.sort_by_key(|p| (p.port, p.protocol, p.host_ip));
    for port in ports {
        let state = match port.state {
            MeshPortState::Listening if !port.held_by.is_empty() => {
                format!("listening ({}), not for this node", port.front_end)
            }
            MeshPortState::Listening => format!("listening ({})", port.front_end),
            MeshPortState::NoReplica => format!("refusing ({}): no replica", port.front_end),
            MeshPortState::Busy => format!("busy: {}", port.held_by),
            MeshPortState::NoAddress => "no such address here".to_owned(),
        };
        listing.push(json!({
            "ID": format!("{}/{}", port.port, port.protocol),
            "Published": format!("{}:{}/{}", address(port.host_ip), port.port, port.protocol),
            "Port": port.port,
            "Protocol": port.protocol,
            "Mode": match port.mode {
                PublishMode::Ingress => "ingress",
                PublishMode::Host => "host",
            },
            "Service": port.service,
            "Address": port.host_ip.map_or_else(|| "*".to_owned(), |ip| ip.to_string()),
            "FrontEnd": port.front_end,
            "State": state,
            "HeldBy": port.held_by,
            "Replicas": format!("{}/{}", port.healthy, port.total),
            "Accepted": port.accepted,
            "Active": port.active,
            "Failed": port.failed,
            "Retried": port.retried,
            "Ejected": port.ejected,
            "BytesIn": port.rx_bytes,
            "BytesOut": port.tx_bytes,
            "Connect": mean(port.connect),
        }));
    }
    listing
}

/// As docker writes it before a port.
fn address(ip: Option<IpAddr>) -> String {
    match ip {
        None => "*".to_owned(),
        Some(IpAddr::V4(ip)) => ip.to_string(),
        Some(IpAddr::V6(ip)) => format!("[{ip}]"),
    }
}

/// As the node sorts them: by service, then by client.
fn connections(conns: &[MeshConn]) -> Listing {
    let mut listing = Listing::new(
        &[
            ("ID", "ID"),
            ("Protocol", "PROTOCOL"),
            ("Client", "CLIENT"),
            ("ClientName", "CLIENT NAME"),
            ("Address", "ADDRESS"),
            ("Service", "SERVICE"),
            ("Network", "NETWORK"),
            ("Replica", "REPLICA"),
            ("ReplicaName", "REPLICA NAME"),
            ("Node", "NODE"),
            ("State", "STATE"),
            ("Idle", "IDLE"),
        ],
        "{{.Protocol}}\t{{.Client}}\t{{.Address}}\t{{.Service}}\t{{.Replica}}\t{{.ReplicaName}}\t{{.Node}}\t{{.State}}\t{{.Idle}}",
        "ID",
    );
    for conn in conns {
        listing.push(json!({
            "ID": format!("{}/{}/{}", conn.client, conn.address, conn.protocol),
            "Protocol": conn.protocol,
            "Client": conn.client,
            "ClientName": conn.client_name,
            "Address": conn.address,
            "Service": conn.service,
            "Network": conn.network,
            "Replica": conn.replica,
            "ReplicaName": conn.replica_name,
            "Node": conn.node,
            "State": conn.state,
            "Idle": idle(conn.idle_ms),
            "IdleMilliseconds": conn.idle_ms,
        }));
    }
    listing
}

/// `0.3s`, `42s`, `1h2m`: short, two units at most.
fn idle(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..10 => format!("{seconds}.{}s", ms % 1000 / 100),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Mean time to open a connection, for people.
pub(super) fn mean(connect: ConnectTime) -> String {
    connect.mean_us().map_or_else(
        || "-".to_owned(),
        |us| format!("{}.{:02} ms", us / 1000, us % 1000 / 10),
    )
}

#[cfg(test)]
mod tests {
    use weft_model::objects::Protocol;

    use super::*;
    use crate::args::FormatArgs;

    fn port(number: u16, state: MeshPortState) -> MeshPort {
        MeshPort {
            port: number,
            protocol: Protocol::Tcp,
            mode: PublishMode::Ingress,
            service: "web".to_owned(),
            host_ip: None,
            front_end: "socket".to_owned(),
            state,
            held_by: match state {
                MeshPortState::Busy => "nginx (pid 812)".to_owned(),
                _ => String::new(),
            },
            healthy: 2,
            total: 3,
            accepted: 4,
            active: 5,
            failed: 6,
            retried: 7,
            ejected: 1,
            rx_bytes: 8,
            tx_bytes: 9,
            connect: ConnectTime {
                count: 2,
                total_us: 2468,
            },
        }
    }

    #[test]
    fn a_mean_is_there_once_something_was_opened() {
        assert_eq!(mean(ConnectTime::default()), "-");
        let time = |count, total_us| mean(ConnectTime { count, total_us });
        assert_eq!(time(3, 300), "0.10 ms");
        assert_eq!(time(1, 1_000_059), "1000.05 ms");
    }

    #[test]
    fn a_port_without_its_own_listener_says_so() {
        let mut port = port(40_000, MeshPortState::Listening);
        port.front_end = "frame".to_owned();
        port.held_by = "a connection of curl (pid 9)".to_owned();
        let table = listing(&[port], false).render(&FormatArgs::default());
        let table = table.unwrap();
        assert!(
            table.contains("listening (frame), not for this node"),
            "{table}"
        );
    }

    #[test]
    fn ports_are_listed_with_state_and_figures() {
        let ports = [
            port(8001, MeshPortState::Busy),
            port(8000, MeshPortState::Listening),
        ];
        let table = listing(&ports, true)
            .render(&FormatArgs::default())
            .unwrap();
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|l| {
                l.split("  ")
                    .map(str::trim)
                    .filter(|c| !c.is_empty())
                    .collect()
            })
            .collect();
        assert_eq!(
            lines[0][..6],
            ["PORT", "PROTOCOL", "MODE", "SERVICE", "ADDRESS", "STATE"]
        );
        assert_eq!(
            lines[1],
            [
                "8000",
                "tcp",
                "ingress",
                "web",
                "*",
                "listening (socket)",
                "2/3",
                "4",
                "5",
                "6",
                "7",
                "1",
                "8",
                "9",
                "1.23 ms"
            ]
        );
        assert_eq!(lines[2][5], "busy: nginx (pid 812)");
        let narrow = listing(&ports, false).render_in(&FormatArgs::default(), Some(80));
        let narrow = narrow.unwrap();
        assert!(narrow.lines().all(|line| line.len() <= 80), "{narrow}");
        assert!(
            narrow.contains("*:8000/tcp   web       listening (socket)"),
            "{narrow}"
        );
        let quiet = FormatArgs {
            quiet: true,
            ..FormatArgs::default()
        };
        let ids = listing(&ports, false).render(&quiet).unwrap();
        assert_eq!(ids, "8000/tcp\n8001/tcp\n");
    }

    #[test]
    fn connections_are_listed_with_both_ends() {
        let conn = MeshConn {
            protocol: Protocol::Tcp,
            client: "192.0.2.7:40000".parse().unwrap(),
            client_name: String::new(),
            address: "*:8000".to_owned(),
            service: "web".to_owned(),
            network: "ingress".to_owned(),
            replica: "10.0.0.6:80".parse().unwrap(),
            replica_name: "web.1.b9m4".to_owned(),
            node: "node2".to_owned(),
            state: "ESTABLISHED".to_owned(),
            idle_ms: 340,
        };
        let table = connections(&[conn]).render(&FormatArgs::default()).unwrap();
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|l| {
                l.split("  ")
                    .map(str::trim)
                    .filter(|c| !c.is_empty())
                    .collect()
            })
            .collect();
        assert_eq!(
            rows[1],
            [
                "tcp",
                "192.0.2.7:40000",
                "*:8000",
                "web",
                "10.0.0.6:80",
                "web.1.b9m4",
                "node2",
                "ESTABLISHED",
                "0.3s"
            ]
        );
        let texts: Vec<String> = [9_999, 59_000, 61_000, 3_720_000].map(idle).into();
        assert_eq!(texts, ["9.9s", "59s", "1m1s", "1h2m"]);
    }
}
