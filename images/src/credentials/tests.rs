use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::name::ImageName;

fn config(json: &str) -> (tempfile::TempDir, DockerConfig) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("config.json"), json).expect("a file");
    let config = DockerConfig::load_from(folder.path()).expect("a configuration");
    (folder, config)
}

fn found(config: &DockerConfig, image: &str) -> Option<Credentials> {
    let name: ImageName = image.parse().expect("a name");
    config.credentials_for(&name).expect("an answer")
}

#[test]
fn a_header_comes_back_as_it_went() {
    let basic = Credentials::basic("ann", "pa:ss wörd");
    assert_eq!(
        Credentials::from_header(&basic.to_header()),
        Ok(basic.clone())
    );
    let token = Credentials::identity("tok");
    assert_eq!(
        Credentials::from_header(&token.to_header()),
        Ok(token.clone())
    );
    assert_ne!(basic.fingerprint(), token.fingerprint());
    let header = basic.basic_header().expect("a user");
    assert_eq!(header.as_str(), "Basic YW5uOnBhOnNzIHfDtnJk");
    assert!(token.basic_header().is_none());
}

#[test]
fn headers_of_others() {
    // Docker's own for nobody, without padding, and the form with `auth`.
    assert!(Credentials::from_header("e30=").expect("nobody").is_empty());
    assert!(Credentials::from_header("").expect("nobody").is_empty());
    assert!(Credentials::from_header("e30").expect("nobody").is_empty());
    let json = r#"{"auth":"YW5uOnNlY3JldA==","serveraddress":"registry.example:5000"}"#;
    let read = Credentials::from_header(&STANDARD.encode(json)).expect("a pair");
    assert_eq!(read, Credentials::basic("ann", "secret"));
    assert_eq!(
        Credentials::from_header("%%%"),
        Err(CredentialsError::Base64)
    );
    assert_eq!(
        Credentials::from_header(&URL_SAFE.encode("[1]x")),
        Err(CredentialsError::Json)
    );
    assert_eq!(
        Credentials::from_header(&"A".repeat(MAX_HEADER + 1)),
        Err(CredentialsError::TooLong)
    );
}

#[test]
fn nothing_is_shown() {
    let shown = format!("{:?}", Credentials::basic("ann", "secret"));
    assert_eq!(shown, "Credentials { .. }");
    let (_folder, config) = config(r#"{"auths":{"registry.example":{"auth":"YW5uOnNlY3JldA=="}}}"#);
    assert!(!format!("{config:?}").contains("YW5u"));
}

#[test]
fn entries_of_the_file() {
    let (_folder, config) = config(
        r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
            "registry.example:5000": {"auth": "YW5uOnNlY3JldA=="},
            "https://old.example/v2/": {"username": "bob", "password": "pw"},
            "token.example": {"auth": "PHRva2VuPjo=", "identitytoken": "tok"},
            "empty.example": {}
        }, "HttpHeaders": {"User-Agent": "x"}}"#,
    );
    assert_eq!(
        found(&config, "nginx"),
        Some(Credentials::basic("hub", "pw"))
    );
    assert_eq!(
        found(&config, "registry.example:5000/x"),
        Some(Credentials::basic("ann", "secret"))
    );
    assert_eq!(found(&config, "registry.example/x"), None);
    assert_eq!(
        found(&config, "old.example/x"),
        Some(Credentials::basic("bob", "pw"))
    );
    assert_eq!(
        found(&config, "token.example/x"),
        Some(Credentials::identity("tok"))
    );
    assert_eq!(found(&config, "empty.example/x"), None);
}

#[test]
fn damage_is_named_and_not_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let nobody = DockerConfig::load_from(folder.path()).expect("no file is no error");
    assert_eq!(found(&nobody, "nginx"), None);
    fs::write(folder.path().join("config.json"), r#"{"auths": "secret"#).expect("a file");
    let error = DockerConfig::load_from(folder.path()).expect_err("damaged");
    assert!(error.to_string().contains("line 1"), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");

    let (_folder, config) = config(r#"{"auths": {"registry.example": {"auth": "c2VjcmV0"}}}"#);
    let name: ImageName = "registry.example/x".parse().expect("a name");
    let error = config.credentials_for(&name).expect_err("no colon");
    assert!(
        error.to_string().contains("docker login registry.example"),
        "{error}"
    );
}

fn program(folder: &Path, name: &str, script: &str) {
    let path = folder.join(format!("docker-credential-{name}"));
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a program");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
}

#[test]
fn names_of_programs_are_no_paths() {
    for name in ["", "../x", "a/b", "a b", "a;b"] {
        let error = program::ask(name, "registry.example", Duration::from_secs(1));
        assert!(matches!(error, Err(ProgramError::Name(_))), "{name}");
    }
    let error = program::ask("weft-no-such", "registry.example", Duration::from_secs(1));
    assert!(matches!(error, Err(ProgramError::Start { .. })));
}

#[test]
fn programs_answer_fail_and_hang() {
    let folder = tempfile::tempdir().expect("a folder");
    program(
        folder.path(),
        "good",
        r#"read server || true; echo "{\"ServerURL\":\"$server\",\"Username\":\"ann\",\"Secret\":\"of $server\"}""#,
    );
    program(
        folder.path(),
        "token",
        r#"echo '{"Username":"<token>","Secret":"tok"}'"#,
    );
    program(
        folder.path(),
        "none",
        "echo 'credentials not found in native keychain'; exit 1",
    );
    program(folder.path(), "bad", "echo 'locked'; exit 1");
    program(folder.path(), "chatter", "echo hello");
    program(folder.path(), "hang", "exec sleep 60");
    let ask = |name: &str| {
        program::ask_in(
            folder.path(),
            name,
            "registry.example",
            Duration::from_millis(1500),
        )
    };
    assert_eq!(
        ask("good").expect("an answer"),
        Some(Credentials::basic("ann", "of registry.example"))
    );
    assert_eq!(
        ask("token").expect("an answer"),
        Some(Credentials::identity("tok"))
    );
    assert_eq!(ask("none").expect("an answer"), None);
    assert!(matches!(ask("bad"), Err(ProgramError::Failed { reason, .. }) if reason == "locked"));
    assert!(matches!(ask("chatter"), Err(ProgramError::Answer(_))));
    assert!(matches!(ask("hang"), Err(ProgramError::TimeOut { .. })));
}
