//! The bytes of a stack's secrets and configs: of files, of the environment, of the stack's file.

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;

use weft_model::objects::{PayloadBytes, PayloadKind};
use weft_stack::{Deployment, Origin, Problem, Problems, StackPayload};

/// Reads them all.
///
/// # Errors
/// Each one that cannot be read or that the swarm would not take, by where the file of the stack has it.
pub(super) fn fill(deployment: &mut Deployment) -> Result<(), Problems> {
    let mut problems = Vec::new();
    let kinds = [
        (PayloadKind::Secret, &mut deployment.secrets),
        (PayloadKind::Config, &mut deployment.configs),
    ];
    for (kind, payloads) in kinds {
        for payload in payloads {
            match bytes(kind, &payload.origin) {
                Ok(Some(data)) => payload.spec.data = data,
                Ok(None) => {}
                Err((what, mend)) => problems.push(problem(kind, payload, what, mend)),
            }
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Problems(problems))
    }
}

fn problem(kind: PayloadKind, payload: &StackPayload, what: String, mend: &str) -> Problem {
    Problem {
        at: payload.at.clone(),
        path: format!("{kind}s.{}", payload.key),
        what,
        mend: mend.to_owned(),
    }
}

/// What one holds; nothing where the swarm has it already.
fn bytes(
    kind: PayloadKind,
    origin: &Origin,
) -> Result<Option<PayloadBytes>, (String, &'static str)> {
    let (data, of) = match origin {
        Origin::External => return Ok(None),
        Origin::Content(text) => (text.clone().into_bytes(), "its content".to_owned()),
        Origin::Environment(name) => {
            let Some(value) = std::env::var_os(name) else {
                let what = format!("is to be the variable {name}, which is not set here");
                return Err((what, "export it before weft is called"));
            };
            (value.into_vec(), format!("the variable {name}"))
        }
        Origin::File(path) => match read(kind, path) {
            Ok(data) => (data, format!("the file {path}")),
            Err(error) => {
                let what = format!("is to be the file {path}, which cannot be read: {error}");
                return Err((what, "name a file that is there"));
            }
        },
    };
    let data = PayloadBytes::from(data);
    let most = kind.max_bytes();
    let fault = match data.len() {
        0 => "is empty".to_owned(),
        length if length >= most => "has more".to_owned(),
        _ => return Ok(Some(data)),
    };
    // What managers would say, as swarmkit does.
    let what =
        format!("{kind} data must be larger than 0 and less than {most} bytes, and {of} {fault}");
    Err((what, "change what it holds"))
}

/// No more than shows that it is too much.
fn read(kind: PayloadKind, path: &str) -> std::io::Result<Vec<u8>> {
    let most = kind.max_bytes();
    // Room for all from the beginning: what grows leaves copies behind.
    let mut data = Vec::with_capacity(most);
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    File::open(path)?.take(limit).read_to_end(&mut data)?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use weft_model::objects::PayloadSpec;
    use weft_stack::Position;

    use super::*;

    fn payload(key: &str, origin: Origin) -> StackPayload {
        StackPayload {
            key: key.to_owned(),
            at: Position {
                file: "stack.yml".into(),
                line: 7,
                column: 3,
            },
            spec: PayloadSpec {
                name: format!("vote_{key}"),
                ..PayloadSpec::default()
            },
            origin,
        }
    }

    fn deployment(secrets: Vec<StackPayload>, configs: Vec<StackPayload>) -> Deployment {
        Deployment {
            name: "vote".to_owned(),
            networks: Vec::new(),
            secrets,
            configs,
            services: Vec::new(),
            ports: Vec::new(),
            warnings: Vec::new(),
        }
    }

    #[test]
    fn bytes_come_from_where_the_file_says() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("key").display().to_string();
        std::fs::write(&path, [0, 159, 146]).expect("a file");
        let mut deployment = deployment(
            vec![
                payload("key", Origin::File(path)),
                payload("there", Origin::External),
            ],
            vec![payload("conf", Origin::Content("a=b\n".to_owned()))],
        );
        fill(&mut deployment).expect("read");
        assert_eq!(deployment.secrets[0].spec.data.expose(), [0, 159, 146]);
        assert!(deployment.secrets[1].spec.data.is_empty());
        assert_eq!(deployment.configs[0].spec.data.expose(), b"a=b\n");
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_with_its_place() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(path("none"), "").expect("a file");
        std::fs::write(path("much"), vec![b'x'; 512_000]).expect("a file");
        let variable = "WEFT_TEST_THAT_NOBODY_SETS".to_owned();
        let mut deployment = deployment(
            vec![
                payload("missing", Origin::File(path("missing"))),
                payload("none", Origin::File(path("none"))),
                payload("much", Origin::File(path("much"))),
                payload("unset", Origin::Environment(variable)),
            ],
            vec![payload("fits", Origin::File(path("much")))],
        );
        let told = fill(&mut deployment)
            .expect_err("four problems")
            .to_string();
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines.len(), 4, "{told}");
        for (line, says) in lines.iter().zip([
            "cannot be read: No such file or directory",
            "is empty",
            "secret data must be larger than 0 and less than 512000 bytes",
            "WEFT_TEST_THAT_NOBODY_SETS, which is not set here; export it",
        ]) {
            assert!(line.starts_with("stack.yml:7:3: secrets."), "{line}");
            assert!(line.contains(says), "{line}");
        }
        assert_eq!(deployment.configs[0].spec.data.len(), 512_000);
    }
}
