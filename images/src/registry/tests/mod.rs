//! Against a small registry in the same process.

pub(crate) mod fake;
mod unreachable;

use self::fake::{Fake, Reply, Seen};
use super::*;
use crate::source::{Source, SourceError, SourceErrorKind};

const LAYER: &[u8] = b"the bytes of a layer, which need not be one here";

fn registries(configs: &[(&str, RegistryConfig)]) -> Arc<Registries> {
    let times = TimeOuts {
        connect: Duration::from_secs(2),
        brief: Duration::from_secs(1),
        idle: Duration::from_millis(500),
    };
    let configs = configs
        .iter()
        .map(|(host, config)| ((*host).to_owned(), config.clone()))
        .collect();
    Arc::new(Registries::with_time_outs(configs, times).expect("settings"))
}

fn manifest_text() -> Vec<u8> {
    let config = br#"{"os":"linux","architecture":"amd64"}"#;
    format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json",
        "digest":"{}","size":{}}},"layers":[]}}"#,
        Digest::of(config),
        config.len()
    )
    .into_bytes()
}

fn layer() -> Blob {
    Blob {
        digest: Digest::of(LAYER),
        size: LAYER.len() as u64,
    }
}

async fn all(mut stream: BlobStream) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[tokio::test]
async fn plain_loopback_and_what_an_image_runs_on() {
    let fake = Fake::start(|seen: &Seen| match seen.path.as_str() {
        "/v2/a/b/manifests/latest" => Reply::ok(manifest_text()),
        path if path.starts_with("/v2/a/b/blobs/") => {
            Reply::ok(&br#"{"os":"linux","architecture":"amd64"}"#[..])
        }
        _ => Reply::status(404),
    })
    .await;
    let registries = registries(&[]);
    let resolved = registries
        .resolve(&fake.image("a/b"), None, Manner::Usual)
        .await
        .expect("an answer");
    assert_eq!(resolved.digest, Digest::of(&manifest_text()));
    assert_eq!(resolved.platforms.len(), 1);
    assert_eq!(resolved.platforms[0].to_string(), "linux/amd64");
}

#[tokio::test]
async fn a_bearer_token_is_asked_for_once_and_for_each_user() {
    let fake = Fake::start(|seen: &Seen| {
        if seen.path == "/token" {
            let token = match seen.authorization.as_deref() {
                Some("Basic YW5uOnNlY3JldA==") => "anns",
                Some(_) => return Reply::status(401).body(r#"{"details":"incorrect password"}"#),
                None => "anyones",
            };
            return Reply::ok(format!(r#"{{"token":"{token}","expires_in":300}}"#));
        }
        match seen.authorization.as_deref() {
            Some("Bearer anns" | "Bearer anyones") => Reply::ok(manifest_text()),
            _ => Reply::status(401).header("www-authenticate", challenge(seen)),
        }
    })
    .await;
    let registries = registries(&[]);
    let image = fake.image("a/b");
    let ann = Credentials::basic("ann", "secret");
    for _ in 0..3 {
        registries
            .manifest(&image, Some(&ann), Manner::Usual)
            .await
            .expect("a manifest");
    }
    assert_eq!(fake.count("/token"), 1);
    registries
        .manifest(&image, None, Manner::Usual)
        .await
        .expect("a manifest");
    assert_eq!(fake.count("/token"), 2);
    let asked = fake
        .seen()
        .into_iter()
        .find(|one| one.path == "/token")
        .expect("a request");
    assert_eq!(
        asked.query,
        "service=test&scope=repository%3Aa%2Fb%3Apull&account=ann"
    );

    let bob = Credentials::basic("bob", "wrong");
    let error = registries
        .manifest(&image, Some(&bob), Manner::Usual)
        .await
        .expect_err("denied");
    assert!(
        matches!(error, RegistryError::AccessDenied { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("incorrect password"), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
}

/// By the same server.
fn challenge(seen: &Seen) -> String {
    format!(
        "Bearer realm=\"http://{}/token\",service=\"test\"",
        seen.host
    )
}

#[tokio::test]
async fn an_ended_token_is_asked_for_again() {
    let fake = Fake::start(|seen: &Seen| {
        if seen.path == "/token" {
            return Reply::ok(r#"{"access_token":"next"}"#);
        }
        match seen.authorization.as_deref() {
            // As a clock that is ahead: each token is refused after a while.
            Some(_) if seen.nth % 4 != 3 => Reply::ok(manifest_text()),
            _ => Reply::status(401).header("www-authenticate", challenge(seen)),
        }
    })
    .await;
    let registries = registries(&[]);
    let image = fake.image("a/b");
    for _ in 0..5 {
        registries
            .manifest(&image, None, Manner::Usual)
            .await
            .expect("a manifest");
    }
    assert!(fake.count("/token") >= 2);
}

#[tokio::test]
async fn identity_tokens_are_posted() {
    let fake = Fake::start(|seen: &Seen| {
        if seen.path == "/token" {
            let good = seen.body.contains("grant_type=refresh_token")
                && seen.body.contains("refresh_token=idt");
            return if good && seen.authorization.is_none() {
                Reply::ok(r#"{"access_token":"good"}"#)
            } else {
                Reply::status(401)
            };
        }
        match seen.authorization.as_deref() {
            Some("Bearer good") => Reply::ok(manifest_text()),
            _ => Reply::status(401).header("www-authenticate", challenge(seen)),
        }
    })
    .await;
    let identity = Credentials::identity("idt");
    registries(&[])
        .manifest(&fake.image("a/b"), Some(&identity), Manner::Usual)
        .await
        .expect("a manifest");
}

#[tokio::test]
async fn basic_where_it_is_asked_for() {
    let fake = Fake::start(|seen: &Seen| match seen.authorization.as_deref() {
        Some("Basic YW5uOnNlY3JldA==") => Reply::ok(manifest_text()),
        _ => Reply::status(401)
            .header("www-authenticate", "Basic realm=\"x\"")
            .body(r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#),
    })
    .await;
    let registries = registries(&[]);
    let image = fake.image("a/b");
    let ann = Credentials::basic("ann", "secret");
    registries
        .manifest(&image, Some(&ann), Manner::Usual)
        .await
        .expect("a manifest");
    let error = registries
        .manifest(&image, None, Manner::Usual)
        .await
        .expect_err("nobody");
    assert!(
        error
            .to_string()
            .starts_with("pull access denied for 127.0.0.1:"),
        "{error}"
    );
    let mallory = Credentials::basic("mallory", "x");
    let error = registries
        .manifest(&image, Some(&mallory), Manner::Usual)
        .await
        .expect_err("wrong");
    assert!(
        matches!(error, RegistryError::AccessDenied { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn redirects_to_others_go_without_authorization() {
    let storage = Fake::start(|_: &Seen| Reply::ok(LAYER)).await;
    let target = format!("http://{}/data?sig=1", storage.address);
    let fake = Fake::start(move |seen: &Seen| match seen.authorization.as_deref() {
        Some(_) => Reply::status(307).header("location", target.clone()),
        None => Reply::status(401).header("www-authenticate", "Basic realm=\"x\""),
    })
    .await;
    let ann = Credentials::basic("ann", "secret");
    let stream = registries(&[])
        .blob(&fake.image("a/b"), &layer(), 7, Some(&ann), Manner::Usual)
        .await
        .expect("a stream");
    assert_eq!(all(stream).await.expect("bytes"), LAYER);
    let seen = storage.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].authorization, None);
    assert_eq!(seen[0].range.as_deref(), Some("bytes=7-"));
    assert_eq!(seen[0].query, "sig=1");
}

#[tokio::test]
async fn redirects_without_end() {
    let fake =
        Fake::start(|seen: &Seen| Reply::status(302).header("location", format!("{}x", seen.path)))
            .await;
    let error = registries(&[])
        .manifest(&fake.image("a/b"), None, Manner::Usual)
        .await
        .expect_err("a circle");
    assert!(error.to_string().contains("redirects"), "{error}");
}

#[tokio::test]
async fn ranges() {
    let fake = Fake::start(|seen: &Seen| match seen.range.as_deref() {
        Some("bytes=10-") => Reply::status(206)
            .header(
                "content-range",
                format!("bytes 10-{}/{}", LAYER.len() - 1, LAYER.len()),
            )
            .body(&LAYER[10..]),
        Some(_) => Reply::status(416),
        None => Reply::ok(LAYER),
    })
    .await;
    let registries = registries(&[]);
    let image = fake.image("a/b");
    let stream = registries
        .blob(&image, &layer(), 10, None, Manner::Usual)
        .await
        .expect("a part");
    assert_eq!(stream.starts_at(), 10);
    assert_eq!(all(stream).await.expect("bytes"), &LAYER[10..]);
    let stream = registries
        .blob(&image, &layer(), 11, None, Manner::Usual)
        .await
        .expect("all");
    assert_eq!(stream.starts_at(), 0);
    assert_eq!(all(stream).await.expect("bytes"), LAYER);
}

#[tokio::test]
async fn kinds_of_trouble_are_told_apart() {
    let fake = Fake::start(|seen: &Seen| match seen.path.as_str() {
        "/v2/none/manifests/latest" => Reply::status(404)
            .body(r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#),
        "/v2/busy/manifests/latest" => Reply::status(429)
            .header("retry-after", "17")
            .body(r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}"#),
        "/v2/ill/manifests/latest" => Reply::status(503),
        "/v2/hang/manifests/latest" => Reply::hang(),
        "/v2/cut/manifests/latest" => Reply::ok(manifest_text()).cut(20),
        "/v2/large/manifests/latest" => Reply::ok(vec![b' '; MAX_BYTES + 1]),
        path if path.starts_with("/v2/wrong/") => Reply::ok("something else"),
        _ => {
            Reply::ok(manifest_text()).header("docker-content-digest", Digest::of(b"x").to_string())
        }
    })
    .await;
    let registries = registries(&[]);
    let source = registries.source(None, Manner::Usual);
    let ask = async |rest: &str| {
        let name = fake.image(rest);
        source.manifest(&name).await.expect_err(rest)
    };
    let error = ask("none").await;
    assert_eq!(error.kind, SourceErrorKind::Missing);
    assert!(
        error.message.starts_with("No such image: 127.0.0.1:"),
        "{error}"
    );
    assert!(error.message.contains("manifest unknown"), "{error}");
    let error = ask("busy").await;
    let retry_after = Some(Duration::from_secs(17));
    assert_eq!(error.kind, SourceErrorKind::Busy { retry_after });
    assert!(error.message.contains("wait for 17 s"), "{error}");
    assert_eq!(ask("ill").await.kind, SourceErrorKind::Unreachable);
    let error = ask("hang").await;
    assert_eq!(error.kind, SourceErrorKind::Unreachable);
    assert!(error.message.contains("has not said anything"), "{error}");
    assert!(error.message.contains(&fake.address.to_string()), "{error}");
    assert_eq!(ask("cut").await.kind, SourceErrorKind::Unreachable);
    assert_eq!(ask("large").await.kind, SourceErrorKind::Unusable);
    let error = ask(&format!("wrong@{}", Digest::of(b"right"))).await;
    assert_eq!(error.kind, SourceErrorKind::Unusable);
    assert!(error.message.starts_with("wrong digest: "), "{error}");
    assert!(ask("lies").await.message.starts_with("wrong digest: "));
}

#[tokio::test]
async fn nobody_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    drop(listener);
    let name = format!("{address}/x").parse().expect("a name");
    let error = registries(&[])
        .manifest(&name, None, Manner::Usual)
        .await
        .expect_err("nobody");
    assert!(matches!(error, RegistryError::Connect { .. }), "{error}");
    let name = "registry.invalid/x".parse().expect("a name");
    let error = registries(&[])
        .manifest(&name, None, Manner::Usual)
        .await
        .expect_err("no name");
    assert!(matches!(error, RegistryError::Name { .. }), "{error}");
}

#[tokio::test]
async fn mirrors_get_no_credentials_and_the_registry_is_the_last() {
    let empty = Fake::start(|_: &Seen| Reply::status(404)).await;
    let mirror = Fake::start(|seen: &Seen| {
        if seen.path.starts_with("/hub/v2/a/full/") {
            Reply::ok(manifest_text())
        } else {
            Reply::status(500)
        }
    })
    .await;
    let fake = Fake::start(|_: &Seen| Reply::ok(manifest_text())).await;
    let config = RegistryConfig {
        mirrors: vec![
            empty.address.to_string(),
            format!("http://{}/hub", mirror.address),
        ],
        ..RegistryConfig::default()
    };
    let host = fake.address.to_string();
    let registries = registries(&[(host.as_str(), config)]);
    let ann = Credentials::basic("ann", "secret");
    registries
        .manifest(&fake.image("a/full"), Some(&ann), Manner::Usual)
        .await
        .expect("of the mirror");
    assert_eq!(fake.seen().len(), 0);
    assert_eq!(empty.count("/v2/a/full/"), 1);
    assert_eq!(mirror.seen()[0].authorization, None);
    assert!(mirror.seen()[0].query.starts_with("ns=127.0.0.1"));
    registries
        .manifest(&fake.image("a/rest"), Some(&ann), Manner::Usual)
        .await
        .expect("of the registry");
    assert_eq!(fake.seen().len(), 1);
}

#[test]
fn authorities_that_are_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ca.pem");
    let config = RegistryConfig {
        ca: Some(path.clone()),
        ..RegistryConfig::default()
    };
    let configs = || BTreeMap::from([("registry.example".to_owned(), config.clone())]);
    let error = Registries::new(configs()).expect_err("no file");
    assert!(matches!(error, RegistryError::Authority { .. }), "{error}");
    std::fs::write(&path, "not PEM").expect("a file");
    let error = Registries::new(configs()).expect_err("no certificate");
    assert!(error.to_string().contains("ca.pem"), "{error}");
}
