//! Bodies of calls about secrets and configs.

use serde_json::json;

use super::fake::Server;

#[tokio::test]
async fn secrets_and_configs_may_be_longer_and_what_is_wrong_shows_none_of_them() {
    let server = Server::start();
    // As base64 has the longest config.
    let longest = "QUJD".repeat(1_024_000 / 3);
    let body = json!({"Name": "app", "Data": longest});
    let (status, made) = server.json("POST", "/v1/configs", &body).await;
    assert_eq!((status, &made["Spec"]["Data"]), (200, &body["Data"]));
    let (status, made) = server.json("POST", "/v1/secrets", &body).await;
    assert_eq!((status, &made["Spec"]["Name"]), (200, &body["Name"]));
    assert!(made["Spec"].get("Data").is_none(), "it is a secret");
    let notes = ["config create app 1023999", "secret create app 1023999"];
    assert_eq!(
        std::mem::take(&mut *server.fake.calls.lock().unwrap()),
        notes
    );

    let huge = "x".repeat(2 << 20);
    let huge = json!({"Name": "app", "Data": huge}).to_string();
    for path in ["/v1/secrets", "/v1/configs", "/v1/configs/a/update"] {
        let (status, message) = server.message("POST", path, &huge).await;
        assert_eq!(status, 413);
        assert!(message.contains("larger than 2097152 bytes"), "{message}");
        assert!(message.contains(path), "{message}");
    }
    // All else is as long as ever, other calls about them too.
    for (method, path) in [("POST", "/v1/services"), ("DELETE", "/v1/secrets/a")] {
        let (status, message) = server.message(method, path, &longest).await;
        assert_eq!(status, 413, "{method} {path}: {message}");
        assert!(message.contains("larger than 1048576 bytes"), "{message}");
    }

    for wrong in [
        r#"{"Name": "key", "Data": "hunter2!"}"#,
        r#"{"Name": "key", "Data": "hunter2", "Value": "hunter2"}"#,
        r#"{"Name": "key", "Data": "aHVudGVyMg==", "Driver": {"Name": "vault"}}"#,
    ] {
        let (status, message) = server.message("POST", "/v1/secrets", wrong).await;
        assert_eq!(status, 400, "{message}");
        for shown in ["hunter2", "aHVudGVyMg"] {
            assert!(!message.contains(shown), "{message}");
        }
    }
    assert!(server.fake.calls.lock().unwrap().is_empty());
}
