//! Volumes of a service whose tasks may go where they are empty.

use weft_client::Client;
use weft_model::api::NodeRow;
use weft_model::objects::{Mount, MountType, ServiceMode, ServiceSpec};

use crate::output::complain;

/// Warns of a named volume that other nodes have not, where a task may go to one. Nobody is warned when
/// the nodes cannot be listed: what was asked for is done.
pub(super) async fn warn(client: &Client, spec: &ServiceSpec) {
    let names = loose(spec);
    if names.is_empty() {
        return;
    }
    let Ok(nodes) = client.get::<Vec<NodeRow>>("/v1/nodes").await else {
        return;
    };
    if nodes.len() > 1 {
        complain(&format!("weft: warning: {}", sentence(&names)));
    }
}

fn sentence(names: &[&str]) -> String {
    let (what, is, them) = match names {
        [name] => (format!("volume {name} is"), "is", "it"),
        names => (format!("volumes {} are", names.join(", ")), "are", "them"),
    };
    format!(
        "{what} kept by each node for itself: a task that moves to another node finds an empty one \
         there, and what it wrote {is} where it was; keep tasks with {them} by volume-sticky=true in \
         --mount, or by a constraint such as node.hostname==NODE"
    )
}

/// Names of volumes that tasks may leave behind.
fn loose(spec: &ServiceSpec) -> Vec<&str> {
    let moves = matches!(spec.mode, ServiceMode::Replicated { .. });
    // Whoever says where tasks run knows what the nodes have.
    if !moves || !spec.task.placement.constraints.is_empty() {
        return Vec::new();
    }
    let mounts = spec.task.container.mounts.iter();
    let mut names: Vec<&str> = mounts
        .filter(|mount| is_loose(mount))
        .map(|mount| mount.source.as_str())
        .collect();
    names.dedup();
    names
}

fn is_loose(mount: &Mount) -> bool {
    let options = mount.volume_options.as_ref();
    // A share is the same everywhere.
    let shared = options
        .and_then(|options| options.driver_config.as_ref())
        .and_then(|driver| driver.options.get("type"))
        .is_some_and(|kind| ["nfs", "nfs4", "cifs"].contains(&kind.as_str()));
    let sticky = options.is_some_and(|options| options.sticky);
    mount.kind == MountType::Volume && !mount.source.is_empty() && !shared && !sticky
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::args::parse_mount;

    fn spec(mounts: &[&str]) -> ServiceSpec {
        let mut spec = ServiceSpec::default();
        let mounts = mounts.iter().map(|text| parse_mount(text).expect(text));
        Arc::make_mut(&mut spec.task).container.mounts = mounts.collect();
        spec
    }

    #[test]
    fn only_what_is_left_behind_is_warned_of() {
        let mut service = spec(&[
            "src=data,dst=/a",
            "dst=/own",
            "src=kept,dst=/b,volume-sticky=true",
            "src=nas,dst=/c,volume-opt=type=nfs,volume-opt=device=:/x",
            "type=bind,src=/srv,dst=/d",
            "type=tmpfs,dst=/e",
        ]);
        assert_eq!(loose(&service), ["data"]);
        let text = sentence(&loose(&service));
        assert!(
            text.starts_with("volume data is kept by each node"),
            "{text}"
        );
        assert!(sentence(&["a", "b"]).starts_with("volumes a, b are kept"));
        service.mode = ServiceMode::Global;
        assert!(loose(&service).is_empty());
        service.mode = ServiceMode::default();
        let task = Arc::make_mut(&mut service.task);
        task.placement.constraints = vec!["node.hostname==n1".into()];
        assert!(loose(&service).is_empty());
    }
}
