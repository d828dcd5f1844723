//! The tables of distribution/reference, in our words.

use super::*;

const HEX: &str = "86e0e091d0da6bde2456dbb48306f3956bbeb2eae1b5b9a43045843f69fe4aaa";

fn name(text: &str) -> ImageName {
    text.parse().expect(text)
}

#[test]
fn what_docker_takes_for_a_name() {
    for (text, domain, path, familiar) in [
        ("nginx", "docker.io", "library/nginx", "nginx"),
        (
            "docker/docker",
            "docker.io",
            "docker/docker",
            "docker/docker",
        ),
        ("library/debian", "docker.io", "library/debian", "debian"),
        (
            "docker.io/docker/docker",
            "docker.io",
            "docker/docker",
            "docker/docker",
        ),
        (
            "docker.io/library/debian",
            "docker.io",
            "library/debian",
            "debian",
        ),
        ("docker.io/debian", "docker.io", "library/debian", "debian"),
        (
            "index.docker.io/docker/docker",
            "docker.io",
            "docker/docker",
            "docker/docker",
        ),
        (
            "index.docker.io/library/debian",
            "docker.io",
            "library/debian",
            "debian",
        ),
        (
            "index.docker.io/debian",
            "docker.io",
            "library/debian",
            "debian",
        ),
        (
            "127.0.0.1:5000/docker/docker",
            "127.0.0.1:5000",
            "docker/docker",
            "127.0.0.1:5000/docker/docker",
        ),
        (
            "127.0.0.1:5000/library/debian",
            "127.0.0.1:5000",
            "library/debian",
            "127.0.0.1:5000/library/debian",
        ),
        (
            "127.0.0.1:5000/debian",
            "127.0.0.1:5000",
            "debian",
            "127.0.0.1:5000/debian",
        ),
        (
            "192.168.0.1:8/debian",
            "192.168.0.1:8",
            "debian",
            "192.168.0.1:8/debian",
        ),
        (
            "192.168.0.1",
            "docker.io",
            "library/192.168.0.1",
            "192.168.0.1",
        ),
        (
            "localhost/debian",
            "localhost",
            "debian",
            "localhost/debian",
        ),
        (
            "localhost:5000/debian",
            "localhost:5000",
            "debian",
            "localhost:5000/debian",
        ),
        (
            "[fc00::1]:5000/docker",
            "[fc00::1]:5000",
            "docker",
            "[fc00::1]:5000/docker",
        ),
        (
            "[fc00::1]:5000/docker/docker",
            "[fc00::1]:5000",
            "docker/docker",
            "[fc00::1]:5000/docker/docker",
        ),
        (
            "[2001:db8::1]/repo",
            "[2001:db8::1]",
            "repo",
            "[2001:db8::1]/repo",
        ),
        ("Docker/docker", "Docker", "docker", "Docker/docker"),
        ("DOCKER/docker", "DOCKER", "docker", "DOCKER/docker"),
        (
            "xn--n3h.com/myimage",
            "xn--n3h.com",
            "myimage",
            "xn--n3h.com/myimage",
        ),
        (
            "foo.bar.example/x_y.z/w--v",
            "foo.bar.example",
            "x_y.z/w--v",
            "foo.bar.example/x_y.z/w--v",
        ),
        ("a/b/c", "docker.io", "a/b/c", "a/b/c"),
        ("library/a/b", "docker.io", "library/a/b", "library/a/b"),
        ("foo__bar", "docker.io", "library/foo__bar", "foo__bar"),
        (
            "foo----bar",
            "docker.io",
            "library/foo----bar",
            "foo----bar",
        ),
    ] {
        let read = name(text);
        assert_eq!(read.domain(), domain, "{text}");
        assert_eq!(read.path(), path, "{text}");
        assert_eq!(read.tag(), Some("latest"), "{text}");
        assert_eq!(read.familiar(), format!("{familiar}:latest"), "{text}");
        assert_eq!(read.to_string(), format!("{domain}/{path}:latest"));
        assert_eq!(name(&read.to_string()), read);
        assert_eq!(name(&read.familiar()), read);
    }
}

#[test]
fn what_docker_refuses() {
    let long = format!("{}/a", "a".repeat(260));
    for text in [
        "",
        ":justtag",
        "@sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "repo@sha256:ffffffffffffffffffffffffffffffffff/x",
        "https://github.com/docker/docker",
        "-docker",
        "-docker/docker",
        "-docker.io/docker/docker",
        "docker///docker",
        "docker.io/docker///docker",
        "[fc00::1]",
        "[fc00::1]:5000",
        "fc00::1:5000/debian",
        "[fe80::1%eth0]:5000/debian",
        "[2001:db8:3:4::192.0.2.33]:5000/debian",
        "aa/asdf$$^/aa",
        "_docker/_docker",
        "docker_/docker",
        "foo/bar-",
        "foo/.bar",
        "foo/bar..baz",
        "foo/bar___baz",
        "foo/bar._baz",
        "registry.example:port/x",
        "registry..example/x",
        "x:",
        "x:-tag",
        "x:tag:other",
        "x y",
        "x@",
        "x@sha256",
        "x@sha256:",
        "x@sha256:beef",
        "x/",
        "/x",
        "bücher",
    ] {
        assert_eq!(text.parse::<ImageName>(), Err(NameError::Format), "{text}");
    }
    assert_eq!(long.parse::<ImageName>(), Err(NameError::TooLong));
    assert_eq!(
        "a".repeat(100_000).parse::<ImageName>(),
        Err(NameError::TooLong)
    );
}

#[test]
fn tags_have_an_end() {
    let longest = format!("x:{}", "t".repeat(MAX_TAG));
    assert_eq!(name(&longest).tag().map(str::len), Some(MAX_TAG));
    let longer = format!("{longest}t");
    assert_eq!(longer.parse::<ImageName>(), Err(NameError::Format));
    assert_eq!(name("x:_A.b-9").tag(), Some("_A.b-9"));
}

#[test]
fn capitals_and_ids_are_named() {
    let error = "UPPER".parse::<ImageName>().expect_err("capitals");
    assert_eq!(
        error.to_string(),
        "invalid reference format: repository name (library/UPPER) must be lowercase"
    );
    let error = "docker.io/docker/Docker"
        .parse::<ImageName>()
        .expect_err("capitals");
    assert_eq!(
        error.to_string(),
        "invalid reference format: repository name (docker/Docker) must be lowercase"
    );
    let error = HEX.parse::<ImageName>().expect_err("an id");
    assert_eq!(
        error.to_string(),
        format!("invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings")
    );
    // A path of its own it may be.
    assert_eq!(
        name(&format!("docker.io/{HEX}")).path(),
        format!("library/{HEX}")
    );
    assert!(HEX[1..].parse::<ImageName>().is_ok());
}

#[test]
fn digests_count_and_tags_are_shown() {
    let digest = format!("sha256:{HEX}");
    let both = name(&format!("nginx:1.25@{digest}"));
    assert_eq!(both.tag(), Some("1.25"));
    assert_eq!(both.reference(), digest);
    assert_eq!(both.familiar(), format!("nginx:1.25@{digest}"));
    assert_eq!(both.familiar_short(), "nginx:1.25");
    assert_eq!(both.without_digest(), name("nginx:1.25"));

    let alone = name(&format!("registry.example:5000/a/b@{digest}"));
    assert_eq!(alone.tag(), None);
    assert_eq!(alone.reference(), digest);
    assert_eq!(
        alone.familiar(),
        format!("registry.example:5000/a/b@{digest}")
    );
    assert_eq!(alone.familiar_short(), "registry.example:5000/a/b");
    assert_eq!(alone.without_digest().reference(), "latest");
    assert_eq!(
        name("nginx:1.25").with_digest(digest.parse().expect("a digest")),
        both
    );

    let other = format!("x@sha512:{HEX}{HEX}");
    assert!(matches!(
        other.parse::<ImageName>(),
        Err(NameError::Algorithm(_))
    ));
    let upper = format!("x@sha256:{}", HEX.to_uppercase());
    assert!(matches!(
        upper.parse::<ImageName>(),
        Err(NameError::Digest(_))
    ));
    let short = format!("x@sha256:{}", &HEX[..40]);
    assert!(matches!(
        short.parse::<ImageName>(),
        Err(NameError::Digest(_))
    ));
}

#[test]
fn hosts_are_not_names() {
    assert_eq!(name("nginx").registry_host(), "registry-1.docker.io");
    assert_eq!(
        name("registry.example:5000/x").registry_host(),
        "registry.example:5000"
    );
}

#[test]
fn an_image_called_host_keeps_its_folder() {
    let host = name("library/host");
    assert_eq!(host.familiar(), "library/host:latest");
    assert_eq!(name(&host.familiar()), host);
}

#[test]
fn as_json_it_is_a_string() {
    let json = serde_json::to_string(&name("nginx")).expect("JSON");
    assert_eq!(json, "\"docker.io/library/nginx:latest\"");
    assert_eq!(
        serde_json::from_str::<ImageName>(&json).expect("a name"),
        name("nginx")
    );
    assert!(serde_json::from_str::<ImageName>("\"a b\"").is_err());
}
