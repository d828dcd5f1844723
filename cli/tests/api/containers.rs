//! Services of images: what is asked of the registry before, and what is asked of the manager then.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{FakeNode, NO_SURPRISES, exchange, get, service};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn resolved(tag: &str) -> Value {
    json!({
        "Name": format!("docker.io/library/nginx:{tag}@{DIGEST}"),
        "Digest": DIGEST,
        "Platforms": [
            {"Architecture": "amd64", "OS": "linux"}, {"Architecture": "unknown", "OS": "unknown"},
        ],
    })
}

/// As `weft service create --name web … nginx -x` asks for it.
fn asked(image: &str, container: &Value, platforms: Option<&Value>) -> Value {
    let mut spec = json!({
        "Image": image, "Args": ["-x"], "Env": [], "User": "",
        "Privileges": {"NoNewPrivileges": false}, "CapabilityAdd": [], "CapabilityDrop": [],
        "StopGracePeriod": 10_000_000_000_u64,
    });
    for (name, value) in container.as_object().unwrap() {
        spec[name] = value.clone();
    }
    let mut task = json!({
        "Runtime": "container",
        "ContainerSpec": spec,
        "RestartPolicy": {"Condition": "any", "Delay": 5_000_000_000_u64},
        "Networks": [],
    });
    if let Some(platforms) = platforms {
        task["Placement"] = json!({"Platforms": platforms});
    }
    json!({
        "Name": "web", "Labels": {}, "TaskTemplate": task,
        "Mode": {"Replicated": {"Replicas": 1}},
        "EndpointSpec": {"Mode": "vip", "Ports": []},
        "Connections": {"Affinity": "none", "LocalFirst": false, "Limit": 0, "LimitPerClient": 0},
        "Attach": false,
    })
}

#[test]
fn a_new_service_is_of_the_image_that_its_name_stands_for_now() {
    let container = json!({
        "Command": ["/bin/server", "a b"], "Dir": "/www", "TTY": true, "ReadOnly": true, "Init": true,
        "Groups": ["video"], "Labels": {"a": "b"}, "Hosts": ["10.0.0.5 db"],
        "DNSConfig": {"Nameservers": ["10.0.0.1"]}, "Sysctls": {"net.core.somaxconn": "1024"},
        "Ulimits": [{"Name": "nofile", "Hard": 200, "Soft": 100}], "OomScoreAdj": 5,
    });
    let linux = json!([{"Architecture": "amd64", "OS": "linux"}]);
    let image = format!("nginx:latest@{DIGEST}");
    let node = FakeNode::start(vec![
        get(
            "GET /v1/images/resolve?name=nginx%3Alatest",
            resolved("latest"),
        ),
        exchange(
            "POST /v1/services",
            asked(&image, &container, Some(&linux)),
            200,
            service(1, 0),
        ),
    ]);
    let socket = node.dir.path().join("s");
    let words = [
        "service",
        "create",
        "-d",
        "--name=web",
        "--entrypoint=/bin/server 'a b'",
        "-w/www",
        "-t",
        "--read-only",
        "--init",
        "--group=video",
        "--container-label=a=b",
        "--host=db:10.0.0.5",
        "--dns=10.0.0.1",
        "--sysctl=net.core.somaxconn=1024",
        "--ulimit=nofile=100:200",
        "--oom-score-adj=5",
        "nginx",
        "-x",
    ];
    let (result, text) = super::run_words(&socket, words.into_iter());
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(text, "svc1\n");
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn where_no_registry_answers_the_service_is_made_all_the_same() {
    let plain = || asked("nginx:latest", &json!({}), None);
    let node = FakeNode::start(vec![
        exchange(
            "GET /v1/images/resolve?name=nginx%3Alatest",
            Value::Null,
            503,
            json!({"message": "cannot reach registry-1.docker.io"}),
        ),
        exchange("POST /v1/services", plain(), 200, service(1, 0)),
        exchange("POST /v1/services", plain(), 200, service(1, 0)),
    ]);
    for flag in ["--detach", "-d --no-resolve-image"] {
        let (result, text) = node.run(&format!("service create --name web {flag} nginx -x"));
        assert_eq!(result.unwrap(), ExitCode::SUCCESS);
        assert_eq!(text, "svc1\n");
    }
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn an_image_that_cannot_be_is_for_the_manager_to_refuse() {
    let says = "ContainerSpec: \"Nginx\" is not a valid repository/tag";
    let node = FakeNode::start(vec![exchange(
        "POST /v1/services",
        asked("Nginx", &json!({}), None),
        400,
        json!({"message": says}),
    )]);
    let (result, _) = node.run("service create -d --name web Nginx -x");
    assert_eq!(result.unwrap_err().to_string(), says);
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn another_image_is_asked_for_and_what_stays_is_not() {
    let mut before = service(1, 1);
    let task = &mut before["Spec"]["TaskTemplate"];
    task["Runtime"] = "container".into();
    task["ContainerSpec"]["Image"] = "nginx:1".into();
    task["Placement"] = json!({"Platforms": [{"Architecture": "arm64", "OS": "linux"}]});
    let script = |image: String, platforms: Option<&Value>, update: bool| {
        let mut spec = asked(
            &image,
            &json!({"Args": ["server"], "Env": ["A=1"]}),
            platforms,
        );
        spec["Labels"] = json!({"tier": "front"});
        spec["TaskTemplate"]["Networks"] = json!([{"Target": "net1", "Aliases": []}]);
        let body = json!({
            "Spec": spec, "PublishAdd": [], "PublishRm": [], "Affinity": null, "LocalFirst": null,
            "LimitConnections": null, "LimitClientConnections": null, "Attach": null,
        });
        let plan = json!({
            "Before": before["Spec"], "After": spec, "Tasks": 1, "Replaced": 1, "Warnings": [],
        });
        let mut script = vec![
            get("GET /v1/services/web", before.clone()),
            exchange(
                "POST /v1/services/web/plan?version=12",
                body.clone(),
                200,
                plan,
            ),
        ];
        if update {
            let path = "POST /v1/services/web/update?version=12";
            script.push(exchange(path, body, 200, service(1, 1)));
        }
        script
    };
    let linux = json!([{"Architecture": "amd64", "OS": "linux"}]);
    let ask = get("GET /v1/images/resolve?name=nginx%3A2", resolved("2"));
    let mut asks = vec![ask];
    asks.extend(script(format!("nginx:2@{DIGEST}"), Some(&linux), true));
    // Nobody has said which machines this one is for.
    asks.extend(script("nginx:3".to_owned(), None, false));
    let node = FakeNode::start(asks);
    let (result, text) = node.run("service update -d -q --image nginx:2 web");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(text, "web\n");
    let line = "service update --dry-run --no-resolve-image --image nginx:3 web";
    let (result, _) = node.run(line);
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(node.surprises(), NO_SURPRISES);
}
