//! Images: docker's words.

use super::*;

const ID: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn row() -> Value {
    json!({
        "Id": ID, "RepoTags": ["nginx:latest"], "RepoDigests": ["nginx@sha256:0a"],
        "Created": 0, "Size": 187_400_000, "Labels": {}, "Containers": 2,
    })
}

#[test]
fn images_are_listed_and_shown() {
    let node = FakeNode::start(vec![
        get("GET /v1/images/json", json!([row()])),
        get("GET /v1/images/json", json!([row()])),
        get("GET /v1/images/nginx/json", json!({"Id": ID})),
        get("GET /v1/images/json%3Alatest/json", json!({"Id": "other"})),
    ]);
    let (result, text) = node.run("image ls --format {{.Repository}}:{{.Tag}}|{{.ID}}|{{.Size}}");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(text, "nginx:latest|0123456789ab|187MB\n");
    assert_eq!(node.run("image ls -q").1, "0123456789ab\n");
    assert_eq!(node.inspect("image", "nginx", "{{.Id}}"), format!("{ID}\n"));
    // The word is one of the API's own, too.
    assert_eq!(node.inspect("image", "json", "{{.Id}}"), "other\n");
    assert_eq!(node.surprises(), NO_SURPRISES);
}

#[test]
fn what_is_removed_is_told_step_by_step() {
    let node = FakeNode::start(vec![
        exchange(
            "DELETE /v1/images/a%2Fb%3A1?force=false",
            Value::Null,
            200,
            json!([{"Untagged": "a/b:1"}, {"Deleted": ID}]),
        ),
        exchange(
            "DELETE /v1/images/gone?force=true",
            Value::Null,
            404,
            json!({"message": "No such image: gone"}),
        ),
        exchange(
            "POST /v1/images/prune?all=true",
            Value::Null,
            200,
            json!({"ImagesDeleted": [{"Deleted": ID}], "SpaceReclaimed": 5_000_000}),
        ),
    ]);
    let (result, text) = node.run("image rm a/b:1");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(text, format!("Untagged: a/b:1\nDeleted: {ID}\n"));
    let (result, text) = node.run("image rm -f gone");
    assert_eq!(result.unwrap(), ExitCode::FAILURE);
    assert_eq!(text, "");
    let (result, text) = node.run("image prune --all --force");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(
        text,
        format!("Deleted Images:\ndeleted: {ID}\n\nTotal reclaimed space: 5MB\n")
    );
    assert_eq!(node.surprises(), NO_SURPRISES);
}
