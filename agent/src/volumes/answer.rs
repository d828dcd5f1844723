//! One question about the volumes of this node, and its answer.

use bytes::Bytes;
use weft_model::api::{Volume, VolumeAnswer, VolumeAsk, VolumeRefusal};
use weft_swarm::Exchange;
use weft_volumes::{Cause, VolumeError, Volumes, differs};

use crate::blocking::blocking;

/// Bytes of an answer that are sent together.
const TOGETHER: usize = 64 << 10;

/// Does what is asked; why not is a part of the answer.
///
/// # Errors
/// It panicked.
pub(crate) async fn ask(volumes: &Volumes, asked: VolumeAsk) -> anyhow::Result<VolumeAnswer> {
    let volumes = volumes.clone();
    blocking(move || carry_out(&volumes, asked)).await
}

/// The same for a manager.
pub(crate) async fn reply(volumes: &Volumes, asked: VolumeAsk, exchange: Exchange) {
    let answer = match ask(volumes, asked).await {
        Ok(answer) => answer,
        Err(error) => refused(500, format!("{error:#}")),
    };
    let bytes = match serde_json::to_vec(&answer) {
        Ok(bytes) => Bytes::from(bytes),
        Err(error) => {
            tracing::warn!(%error, "an answer about volumes cannot be written");
            return;
        }
    };
    for start in (0..bytes.len()).step_by(TOGETHER) {
        let piece = bytes.slice(start..bytes.len().min(start + TOGETHER));
        if exchange.outgoing.send(piece).await.is_err() {
            return;
        }
    }
    exchange.finish().await;
}

fn refused(status: u16, message: String) -> VolumeAnswer {
    VolumeAnswer {
        refused: Some(VolumeRefusal { status, message }),
        ..VolumeAnswer::default()
    }
}

fn status(error: &VolumeError) -> u16 {
    match error.cause() {
        Cause::Request => 400,
        Cause::NotFound => 404,
        Cause::InUse => 409,
        Cause::Node => 500,
    }
}

/// Those that went: their name is all that is left.
fn gone(name: String) -> Volume {
    Volume {
        name,
        driver: "local".to_owned(),
        scope: "local".to_owned(),
        ..Volume::default()
    }
}

fn carry_out(volumes: &Volumes, asked: VolumeAsk) -> VolumeAnswer {
    let one = |volume: Volume, warnings: Vec<String>| VolumeAnswer {
        volumes: vec![volume],
        warnings,
        ..VolumeAnswer::default()
    };
    let done = match asked {
        VolumeAsk::List => Ok(VolumeAnswer {
            volumes: volumes.list(),
            ..VolumeAnswer::default()
        }),
        VolumeAsk::Inspect { name } => volumes.get(&name).map(|volume| one(volume, Vec::new())),
        VolumeAsk::Create(request) => volumes.create(&request).map(|volume| {
            let told = differs(&volume, &request);
            one(volume, told.into_iter().collect())
        }),
        VolumeAsk::Remove { name, force } => volumes
            .remove(&name, force)
            .map(|()| one(gone(name), Vec::new())),
        VolumeAsk::Prune(which) => volumes.prune(&which).map(|pruned| VolumeAnswer {
            volumes: pruned.removed.into_iter().map(gone).collect(),
            space_reclaimed: pruned.bytes,
            ..VolumeAnswer::default()
        }),
    };
    done.unwrap_or_else(|error| refused(status(&error), error.to_string()))
}

#[cfg(test)]
mod tests {
    use weft_model::api::{VolumePrune, VolumeRequest};

    use super::*;

    #[test]
    fn every_question_has_an_answer_or_a_reason() {
        let dir = tempfile::tempdir().expect("a folder");
        let volumes = Volumes::open(dir.path()).expect("volumes");
        let mut request = VolumeRequest {
            name: "data".into(),
            ..VolumeRequest::default()
        };
        let made = carry_out(&volumes, VolumeAsk::Create(request.clone()));
        assert_eq!((made.volumes.len(), made.warnings.len()), (1, 0));
        // Another one of that name is told, and is no error.
        request.labels.insert("a".into(), "b".into());
        let again = carry_out(&volumes, VolumeAsk::Create(request));
        assert!(again.warnings[0].contains("with other labels"), "{again:?}");
        let inspected = carry_out(
            &volumes,
            VolumeAsk::Inspect {
                name: "data".into(),
            },
        );
        assert!(inspected.volumes[0].usage_data.is_some());
        let removed = |name: &str| {
            let remove = VolumeAsk::Remove {
                name: name.into(),
                force: false,
            };
            carry_out(&volumes, remove)
        };
        let none = removed("none").refused.expect("not there");
        assert_eq!(
            (none.status, none.message.as_str()),
            (404, "get none: no such volume")
        );
        assert_eq!(removed("data").volumes[0].name, "data");
        let bad = VolumeAsk::Create(VolumeRequest {
            name: "a/b".into(),
            ..VolumeRequest::default()
        });
        assert_eq!(carry_out(&volumes, bad).refused.expect("bad").status, 400);
        assert!(carry_out(&volumes, VolumeAsk::List).volumes.is_empty());
        let pruned = carry_out(&volumes, VolumeAsk::Prune(VolumePrune::default()));
        assert_eq!(pruned, VolumeAnswer::default());
    }
}
