//! Secrets and configs: docker's words, and bytes that go one way.

use super::*;

fn payload(kind: &str, name: &str) -> Value {
    let mut spec = json!({"Name": name, "Labels": {"a": "b"}});
    if kind == "config" {
        spec["Data"] = json!("YSA9IDEK");
    }
    json!({
        "ID": format!("{name}-id"), "Kind": kind, "Version": {"Index": 3},
        "CreatedAt": LONG_AGO, "UpdatedAt": LONG_AGO, "Spec": spec,
    })
}

#[test]
fn a_file_is_kept_by_the_swarm() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"hunter2").unwrap();
    let path = file.path().display();
    let node = FakeNode::start(vec![
        exchange(
            "POST /v1/secrets",
            json!({"Name": "key", "Labels": {"a": "b"}, "Data": "aHVudGVyMg=="}),
            200,
            payload("secret", "key"),
        ),
        exchange(
            "POST /v1/configs",
            json!({"Name": "app", "Labels": {}, "Data": "aHVudGVyMg==",
                   "Templating": {"Name": "golang"}}),
            200,
            payload("config", "app"),
        ),
        exchange(
            "POST /v1/secrets",
            json!({"Name": "key", "Labels": {}, "Data": "aHVudGVyMg=="}),
            409,
            json!({"message": "secret key already exists"}),
        ),
    ]);
    let (result, text) = node.run(&format!("secret create -l a=b key {path}"));
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(text, "key-id\n");
    let (result, text) = node.run(&format!(
        "config create --template-driver golang app {path}"
    ));
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(text, "app-id\n");
    let (result, text) = node.run(&format!("secret create key {path}"));
    let error = result.unwrap_err().to_string();
    assert_eq!(
        (error.as_str(), text.as_str()),
        ("secret key already exists", "")
    );
    // Nobody is asked for what cannot be.
    let (result, _) = node.run("secret create key");
    let error = result.unwrap_err().to_string();
    assert!(error.starts_with("secret file is required"), "{error}");
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn they_are_listed_shown_and_removed() {
    let both = || json!([payload("secret", "key-10"), payload("secret", "key-9")]);
    let used = "secret 'key-9' is in use by the following service: web";
    let node = FakeNode::start(vec![
        get("GET /v1/secrets stale", both()),
        get("GET /v1/secrets", both()),
        get("GET /v1/configs/app", payload("config", "app")),
        get("GET /v1/secrets/key-9", payload("secret", "key-9")),
        exchange(
            "GET /v1/secrets/no%2Fsuch",
            Value::Null,
            404,
            json!({"message": "secret not found: no/such"}),
        ),
        exchange(
            "DELETE /v1/secrets/key-9",
            Value::Null,
            400,
            json!({"message": used}),
        ),
        exchange("DELETE /v1/secrets/key-10", Value::Null, 200, json!({})),
    ]);
    assert_eq!(node.run("--stale secret ls -q").1, "key-9-id\nkey-10-id\n");
    let line = "secret ls --filter name=key-9 --format {{.Name}}/{{.Driver}}/{{.Labels}}";
    assert_eq!(node.run(line).1, "key-9//a=b\n");
    let (result, text) = node.run("config inspect app");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown, json!([payload("config", "app")]));
    // What is not there is told after what is.
    let (result, text) = node.run("secret inspect --pretty key-9 no/such");
    assert_eq!(result.unwrap(), ExitCode::FAILURE);
    assert!(text.contains("\nName:              key-9\n"), "{text}");
    let (result, text) = node.run("secret rm key-9 key-10");
    assert_eq!(result.unwrap(), ExitCode::FAILURE);
    assert_eq!(text, "key-10\n");
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn a_service_takes_another_secret_in_one_update() {
    let reference = |id: &str, name: &str| {
        json!({"File": {"Name": "key", "UID": "0", "GID": "0", "Mode": 0o400},
               "SecretID": id, "SecretName": name})
    };
    let with = |reference: Value| {
        let mut service = service(1, 1);
        service["Spec"]["TaskTemplate"]["ContainerSpec"]["Secrets"] = json!([reference]);
        service
    };
    let before = with(reference("s1", "key-1"));
    let plan = json!({
        "Before": before["Spec"], "After": before["Spec"], "Replaced": 0, "Tasks": 1, "Warnings": [],
    });
    let node = FakeNode::start(vec![
        get("GET /v1/services/web", before),
        exchange(
            "POST /v1/services/web/plan?version=12",
            Value::Null,
            200,
            plan,
        ),
        exchange(
            "POST /v1/services/web/update?version=12",
            Value::Null,
            200,
            with(reference("s2", "key-2")),
        ),
    ]);
    let (result, text) = node.run(
        "service update -d --secret-rm key-1 --secret-add source=key-2,target=key,mode=0400 web",
    );
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(text, "web\n");
    // Both requests have the whole specification, of which this is asked.
    let requests = node.surprises();
    assert_eq!(requests.len(), 2, "{requests:?}");
    for request in requests {
        let (_, body) = request.split_once(" {").unwrap();
        let body: Value = serde_json::from_str(&format!("{{{body}")).unwrap();
        let container = &body["Spec"]["TaskTemplate"]["ContainerSpec"];
        assert_eq!(container["Secrets"], json!([reference("", "key-2")]));
    }
}
