//! Docker's rules, one table each.

use std::time::Duration;

use weft_model::objects::Mount;

use super::*;

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn image(config: serde_json::Value) -> ImageConfiguration {
    serde_json::from_value(serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [] },
    }))
    .expect("a configuration")
}

fn spec() -> ContainerSpec {
    ContainerSpec::default()
}

#[test]
fn a_command_replaces_entrypoint_and_command_and_arguments_the_command() {
    for (entrypoint, cmd, command, args, comes_to) in [
        ("/entry -x", "serve", "", "", "/entry -x serve"),
        ("/entry -x", "serve", "", "other 1", "/entry -x other 1"),
        ("/entry -x", "serve", "/mine", "", "/mine"),
        ("/entry -x", "serve", "/mine", "a b", "/mine a b"),
        ("", "serve -f", "", "", "serve -f"),
        ("", "serve", "", "sleep 1", "sleep 1"),
        ("/entry", "", "", "", "/entry"),
    ] {
        let image = image(serde_json::json!({
            "Entrypoint": words(entrypoint), "Cmd": words(cmd),
        }));
        let spec = ContainerSpec {
            command: words(command),
            args: words(args),
            ..spec()
        };
        let merged = merge(&spec, &image, None).expect("a command");
        assert_eq!(
            merged.args,
            words(comes_to),
            "{entrypoint}|{cmd}|{command}|{args}"
        );
    }
    let nothing = merge(&spec(), &image(serde_json::json!({})), None);
    let nothing = nothing.expect_err("nothing to run").to_string();
    assert!(nothing.starts_with("no command specified"), "{nothing}");
    let empty = image(serde_json::json!({ "Cmd": [""] }));
    assert_eq!(merge(&spec(), &empty, None), Err(MergeError::NoCommand));
}

#[test]
fn the_environment_is_dockers() {
    let of_image = image(serde_json::json!({
        "Cmd": ["x"], "Env": ["PATH=/opt/bin", "VERSION=1", "GONE=1", "EMPTY="],
    }));
    let service = ContainerSpec {
        env: words("VERSION=2 GONE NEVER MORE=a=b"),
        ..spec()
    };
    let merged = merge(&service, &of_image, None).expect("merged");
    let expected = words("PATH=/opt/bin HOSTNAME=web.1 VERSION=2 EMPTY= MORE=a=b");
    assert_eq!(merged.environment("web.1"), expected);

    let bare = image(serde_json::json!({ "Cmd": ["x"] }));
    let terminal = ContainerSpec {
        tty: true,
        ..spec()
    };
    let merged = merge(&terminal, &bare, None).expect("merged");
    let path = format!("PATH={DEFAULT_PATH}");
    assert_eq!(
        merged.environment("h"),
        [&*path, "HOSTNAME=h", "TERM=xterm"]
    );
    for (said, comes_to) in [
        ("HOSTNAME=mine", vec![&*path, "HOSTNAME=mine"]),
        ("HOSTNAME", vec![&*path]),
    ] {
        let service = ContainerSpec {
            env: words(said),
            ..spec()
        };
        let merged = merge(&service, &bare, None).expect("merged");
        assert_eq!(merged.environment("h"), comes_to);
    }
    let odd = image(serde_json::json!({ "Cmd": ["x"], "Env": ["=1"] }));
    assert_eq!(
        merge(&spec(), &odd, None),
        Err(MergeError::Env("=1".into()))
    );
}

#[test]
fn what_the_service_does_not_say_is_the_images() {
    let of_image = image(serde_json::json!({
        "Cmd": ["x"], "User": "www:adm", "WorkingDir": "/srv", "StopSignal": "SIGQUIT",
        "Labels": { "a": "image", "b": "image" }, "ExposedPorts": { "80/tcp": {}, "443/tcp": {} },
    }));
    let merged = merge(&spec(), &of_image, None).expect("merged");
    assert_eq!(
        (&*merged.user, &*merged.cwd, &*merged.stop_signal),
        ("www:adm", "/srv", "SIGQUIT")
    );
    assert_eq!(merged.exposed, ["443/tcp", "80/tcp"]);
    let service = ContainerSpec {
        user: "0".into(),
        dir: "/tmp".into(),
        stop_signal: "USR1".into(),
        labels: [("a".to_owned(), "service".to_owned())].into(),
        ..spec()
    };
    let merged = merge(&service, &of_image, None).expect("merged");
    assert_eq!(
        (&*merged.user, &*merged.cwd, &*merged.stop_signal),
        ("0", "/tmp", "USR1")
    );
    let labels: Vec<_> = merged
        .labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(labels, ["a=service", "b=image"]);
    let bare = image(serde_json::json!({ "Cmd": ["x"] }));
    let merged = merge(&spec(), &bare, None).expect("merged");
    assert_eq!((&*merged.cwd, &*merged.stop_signal), ("/", "SIGTERM"));
    let relative = image(serde_json::json!({ "Cmd": ["x"], "WorkingDir": "srv" }));
    let error = merge(&spec(), &relative, None)
        .expect_err("relative")
        .to_string();
    assert_eq!(
        error,
        "the working directory \"srv\" is invalid, it needs to be an absolute path"
    );
}

#[test]
fn health_is_merged_field_by_field() {
    let of_image = HealthConfig {
        interval: Duration::from_secs(30),
        retries: 5,
        ..HealthConfig::shell("curl localhost")
    };
    let of_service = HealthConfig {
        interval: Duration::from_secs(1),
        ..HealthConfig::default()
    };
    let both = health(Some(&of_service), Some(&of_image)).expect("a check");
    assert_eq!(both.test, of_image.test);
    assert_eq!((both.interval, both.retries), (Duration::from_secs(1), 5));
    assert_eq!(health(None, Some(&of_image)), Some(of_image.clone()));
    let own = HealthConfig::shell("true");
    let merged = health(Some(&own), Some(&of_image)).expect("a check");
    assert_eq!((merged.test, merged.retries), (own.test.clone(), 5));
    assert_eq!(health(Some(&own), None), Some(own));
    // None wanted, or nothing that could be run.
    assert_eq!(health(Some(&HealthConfig::none()), Some(&of_image)), None);
    assert_eq!(health(Some(&of_service), None), None);
    assert_eq!(health(None, Some(&HealthConfig::none())), None);
    assert_eq!(health(None, None), None);
}

#[test]
fn volumes_of_the_image_are_where_the_service_mounts_nothing() {
    let of_image = image(serde_json::json!({
        "Cmd": ["x"], "Volumes": { "/data/": {}, "/var/lib//db": {}, "/a/../log": {} },
    }));
    let service = ContainerSpec {
        mounts: vec![Mount {
            target: "/data".into(),
            ..Mount::default()
        }],
        ..spec()
    };
    let merged = merge(&service, &of_image, None).expect("merged");
    assert_eq!(merged.volumes, ["/log", "/var/lib/db"]);
    for odd in ["data", "/", "/..", ""] {
        let image = image(serde_json::json!({ "Cmd": ["x"], "Volumes": { odd: {} } }));
        let error = merge(&spec(), &image, None).expect_err(odd);
        assert_eq!(error, MergeError::Volume(odd.into()));
    }
}
