//! What cannot be reached is asked once, and remembered for all.

use super::*;

/// An image at a port where nobody listens.
fn nowhere() -> ImageName {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    drop(listener);
    format!("{address}/x").parse().expect("a name")
}

fn is_remembered(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Remembered { .. })
}

#[tokio::test]
async fn a_host_that_says_nothing_is_not_waited_for_twice() {
    let fake = Fake::start(|seen: &Seen| {
        if seen.path.starts_with("/v2/fine/") {
            Reply::ok(manifest_text())
        } else {
            Reply::hang()
        }
    })
    .await;
    let registries = registries(&[]);
    let (hangs, fine) = (fake.image("hangs"), fake.image("fine"));
    let error = registries.digest(&hangs, None, Manner::Usual).await;
    let error = error.expect_err("silence");
    assert!(matches!(error, RegistryError::Silent { .. }), "{error}");
    assert_eq!(fake.seen().len(), 1);

    // Of that host, whatever is asked; by everybody but who says "again".
    for manner in [Manner::Usual, Manner::Brief, Manner::Retry] {
        let again = registries.digest(&fine, None, manner).await;
        let again = again.expect_err("it is remembered");
        let text = again.to_string();
        assert!(is_remembered(&again), "{manner:?}: {text}");
        assert!(text.starts_with(&error.to_string()), "{text}");
        assert!(text.contains("asked 0 s ago"), "{text}");
    }
    assert_eq!(fake.seen().len(), 1, "nobody has asked it");
    let heard = registries.digest(&fine, None, Manner::Again).await;
    assert_eq!(heard.expect("an answer"), Digest::of(&manifest_text()));
    let heard = registries.digest(&fine, None, Manner::Usual).await;
    heard.expect("it is there, as everybody knows by now");
}

#[tokio::test]
async fn whoever_waits_no_longer_tells_the_next_one() {
    let fake = Fake::start(|_: &Seen| Reply::hang()).await;
    let times = TimeOuts {
        connect: Duration::from_millis(300),
        brief: Duration::from_millis(100),
        idle: Duration::from_secs(60),
    };
    let registries = Registries::with_time_outs(BTreeMap::new(), times).expect("settings");
    let image = fake.image("hangs");
    let limit = Duration::from_secs(2);
    let asked = tokio::time::timeout(limit, registries.digest(&image, None, Manner::Usual));
    asked.await.expect_err("its patience has an end");
    assert_eq!(fake.seen().len(), 1);
    let error = registries.digest(&image, None, Manner::Usual).await;
    let error = error.expect_err("it is remembered");
    assert!(is_remembered(&error), "{error}");
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn answers_of_http_are_never_remembered() {
    for status in [401, 404, 429, 503] {
        let fake = Fake::start(move |_: &Seen| Reply::status(status)).await;
        let registries = registries(&[]);
        let image = fake.image("x");
        for times in 1..=3 {
            let error = registries.digest(&image, None, Manner::Usual).await;
            let error = error.expect_err("no image");
            assert!(!is_remembered(&error), "{error}");
            assert_eq!(fake.seen().len(), times, "{status}");
        }
    }
}

#[tokio::test]
async fn names_and_connections_are_remembered_alike() {
    let registries = registries(&[]);
    for image in [nowhere(), "registry.invalid/x".parse().expect("a name")] {
        let first = registries.digest(&image, None, Manner::Usual).await;
        let first = first.expect_err("nobody is there");
        assert!(!is_remembered(&first), "{first}");
        let next = registries.resolve(&image, None, Manner::Usual).await;
        let next = next.expect_err("nobody is there");
        assert!(is_remembered(&next), "{next}");
        assert!(next.to_string().starts_with(&first.to_string()), "{next}");
        assert!(next.is_transient(), "others are asked as well");
    }
}

/// What tasks wait for at their start: it ends at once where nothing else is to be hoped for, and a
/// fetch that has begun asks again itself.
#[tokio::test]
async fn a_source_is_down_where_that_is_remembered() {
    let registries = registries(&[]);
    let image = nowhere();
    let error = registries.digest(&image, None, Manner::Usual).await;
    error.expect_err("nobody is there");
    let source = registries.source(None, Manner::Usual);
    let error = source.manifest(&image).await.expect_err("it is remembered");
    assert_eq!(error.kind, SourceErrorKind::Down);
    assert!(error.is_transient(), "{error}");
    let error = source.manifest(&image).await.expect_err("nobody is there");
    assert_eq!(error.kind, SourceErrorKind::Unreachable);
    let source = registries.source(None, Manner::Again);
    for _ in 0..2 {
        let error = source.manifest(&image).await.expect_err("nobody is there");
        assert_eq!(error.kind, SourceErrorKind::Unreachable);
    }
}
