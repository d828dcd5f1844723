//! `weft mesh …`

use std::process::ExitCode;

use serde_json::json;
use weft_control::api::{MeshPort, MeshPortState};
use weft_control::objects::PublishMode;

use crate::args::MeshCommand;
use crate::client::Client;
use crate::output::{Listing, Printer};

pub(super) async fn run(
    client: &Client,
    command: MeshCommand,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    match command {
        MeshCommand::Ls(format) => {
            let ports: Vec<MeshPort> = client.get("/v1/mesh/ports").await?;
            out.raw(&listing(&ports).render(&format)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// By port, as the node sorts them within one.
pub(super) fn listing(ports: &[MeshPort]) -> Listing {
    let mut listing = Listing::new(
        &[
            ("ID", "ID"),
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
            ("BytesIn", "BYTES IN"),
            ("BytesOut", "BYTES OUT"),
        ],
        "{{.Port}}\t{{.Protocol}}\t{{.Mode}}\t{{.Service}}\t{{.Address}}\t{{.State}}\t{{.Replicas}}\t{{.Accepted}}\t{{.Active}}\t{{.Failed}}\t{{.Retried}}\t{{.BytesIn}}\t{{.BytesOut}}",
        "ID",
    );
    let mut ports: Vec<&MeshPort> = ports.iter().collect();
    ports.sort_by_key(|p| (p.port, p.protocol, p.host_ip));
    for port in ports {
        let state = match port.state {
            MeshPortState::Listening => format!("listening ({})", port.front_end),
            MeshPortState::NoReplica => format!("refusing ({}): no replica", port.front_end),
            MeshPortState::Busy => format!("busy: {}", port.held_by),
            MeshPortState::NoAddress => "no such address here".to_owned(),
        };
        listing.push(json!({
            "ID": format!("{}/{}", port.port, port.protocol),
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
            "BytesIn": port.rx_bytes,
            "BytesOut": port.tx_bytes,
        }));
    }
    listing
}

#[cfg(test)]
mod tests {
    use weft_control::objects::Protocol;

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
            held_by: "nginx (pid 812)".to_owned(),
            healthy: 2,
            total: 3,
            accepted: 4,
            active: 5,
            failed: 6,
            retried: 7,
            rx_bytes: 8,
            tx_bytes: 9,
        }
    }

    #[test]
    fn ports_are_listed_with_state_and_figures() {
        let ports = [
            port(8001, MeshPortState::Busy),
            port(8000, MeshPortState::Listening),
        ];
        let table = listing(&ports).render(&FormatArgs::default()).unwrap();
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
                "8",
                "9"
            ]
        );
        assert_eq!(lines[2][5], "busy: nginx (pid 812)");
        let quiet = FormatArgs {
            quiet: true,
            ..FormatArgs::default()
        };
        let ids = listing(&ports).render(&quiet).unwrap();
        assert_eq!(ids, "8000/tcp\n8001/tcp\n");
    }
}
