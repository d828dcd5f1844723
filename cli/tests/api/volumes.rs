//! Volumes: docker's words, of one node and of several.

use super::*;

fn volume(name: &str, node: &str, users: u8) -> Value {
    let mut volume = json!({
        "CreatedAt": "2026-01-02T03:04:05Z", "Driver": "local", "Labels": {"a": "b"},
        "Mountpoint": format!("/v/{name}/_data"), "Name": name, "Options": {}, "Scope": "local",
        "UsageData": {"Size": -1, "RefCount": users},
    });
    if !node.is_empty() {
        volume["Node"] = json!(node);
    }
    volume
}

fn answer(node: &str, volumes: &[Value]) -> Value {
    json!({
        "Node": node, "Volumes": volumes, "SpaceReclaimed": 0, "Warnings": [], "Refused": null,
    })
}

fn answers(answers: &[Value]) -> Value {
    json!({"Answers": answers})
}

#[test]
fn volumes_are_listed_by_name_and_node() {
    let own = || {
        answers(&[answer(
            "",
            &[volume("data-10", "", 0), volume("data-9", "", 1)],
        )])
    };
    let node = FakeNode::start(vec![
        get("GET /v1/volumes", own()),
        get("GET /v1/volumes", own()),
        get("GET /v1/volumes", own()),
        get(
            "GET /v1/volumes?all=true",
            answers(&[
                answer("n1", &[volume("data", "n1", 0)]),
                json!({"Node": "n2", "Refused": {"Status": 503, "Message": "node n2: it is away"}}),
            ]),
        ),
    ]);
    let (result, text) = node.run("volume ls");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(
        text,
        "DRIVER   VOLUME NAME\nlocal    data-9\nlocal    data-10\n"
    );
    assert_eq!(node.run("volume ls -q").1, "data-9\ndata-10\n");
    assert_eq!(
        node.run("volume ls -q --filter dangling=true --filter label=a=b")
            .1,
        "data-10\n"
    );
    // One that does not answer makes the command fail, after what the others have.
    let (result, text) = node.run("volume ls --all");
    assert_eq!(result.unwrap(), ExitCode::FAILURE);
    assert_eq!(
        text,
        "DRIVER   VOLUME NAME   NODE\nlocal    data          n1\n"
    );
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn one_is_made_shown_and_removed() {
    let made = || answers(&[answer("", &[volume("data", "", 0)])]);
    let gone = json!({"message": "get gone: no such volume"});
    let node = FakeNode::start(vec![
        exchange(
            "POST /v1/volumes",
            json!({
                "Name": "data", "Driver": "local", "Labels": {"a": "b"},
                "DriverOpts": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"},
            }),
            200,
            made(),
        ),
        get("GET /v1/volumes/data", made()),
        exchange("DELETE /v1/volumes/data", Value::Null, 200, made()),
        exchange("DELETE /v1/volumes/gone", Value::Null, 404, gone),
        exchange(
            "DELETE /v1/volumes/data?node=n2&force=true",
            Value::Null,
            200,
            answers(&[answer("n2", &[volume("data", "n2", 0)])]),
        ),
    ]);
    let (result, text) =
        node.run("volume create --label a=b -o type=tmpfs -o device=tmpfs -o o=size=1m data");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(text, "data\n");
    assert_eq!(
        node.inspect("volume", "data", "{{.Mountpoint}} {{.UsageData.RefCount}}"),
        "/v/data/_data 0\n"
    );
    assert_eq!(node.run("volume rm data").1, "data\n");
    let (result, text) = node.run("volume rm gone");
    assert_eq!(result.unwrap(), ExitCode::FAILURE);
    assert_eq!(text, "");
    let (result, text) = node.run("volume rm --node n2 --force data");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(text, "data (node n2)\n");
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn what_is_pruned_is_told_with_its_size() {
    let pruned = json!({"Answers": [
        {"Node": "", "Volumes": [volume("a", "", 0)], "SpaceReclaimed": 1_500_000},
    ]});
    let nothing = json!({"Answers": [{"Node": "", "Volumes": []}]});
    let node = FakeNode::start(vec![
        exchange(
            "POST /v1/volumes/prune",
            json!({"All": true, "Labels": ["a=b"], "WithoutLabels": ["keep"]}),
            200,
            pruned,
        ),
        exchange(
            "POST /v1/volumes/prune?all=true",
            json!({"All": false, "Labels": [], "WithoutLabels": []}),
            200,
            nothing,
        ),
    ]);
    let (result, text) =
        node.run("volume prune --all --force --filter label=a=b --filter label!=keep");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(
        text,
        "Deleted Volumes:\na\n\nTotal reclaimed space: 1.5MB\n"
    );
    let (_, text) = node.run("volume prune --force --all-nodes");
    assert_eq!(text, "Total reclaimed space: 0B\n");
    assert_eq!(node.surprises(), NO_SURPRISES);
}
