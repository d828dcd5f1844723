//! Who asks a registry: what `docker login` has kept, tokens and passwords, and services that take them
//! along.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};
use weft_lab::image::Archive;
use weft_netns_tests::{Cluster, Said};

use super::registries::{bulk, host};
use super::site::{Heard, Reply, Site, registry};
use super::{becomes, in_a_box, made, remove, text};

/// A registry behind a token server, and that.
const BEARER: u16 = 5010;
const TOKENS: u16 = 5011;
/// A registry that wants a password with each request.
const BASIC: u16 = 5012;
/// The same for images of services.
const PRIVATE: u16 = 5013;

/// Hosts that speak plain HTTP.
pub(super) const PLAIN: [u16; 4] = [BEARER, TOKENS, BASIC, PRIVATE];

/// `user:password`, as `docker login` keeps it and HTTP sends it.
pub(super) const PAIR: &str = "dXNlcjpwYXNzd29yZA==";
/// `user:wrong`
const WRONG: &str = "dXNlcjp3cm9uZw==";
/// `{"username":"user","password":"password"}` as services take it along.
const SENT: &str = "eyJ1c2VybmFtZSI6InVzZXIiLCJwYXNzd29yZCI6InBhc3N3b3JkIn0";

/// A layer that is larger than a configuration.
const LARGE: usize = 300_000;

/// Runs `weft` on the first node as somebody who has such a folder for `$DOCKER_CONFIG`.
pub(super) fn weft_as(cluster: &Cluster, folder: &Path, words: &[&str]) -> Said {
    let socket = cluster.lab().socket("node1").expect("it has an agent");
    let config = format!("DOCKER_CONFIG={}", folder.display());
    let agent = format!("unix://{}", socket.display());
    let command = ["env", config.as_str(), cluster.program(), "-H", &agent];
    cluster.run("node1", None, &[&command[..], words].concat())
}

/// The folder of somebody who is signed in to registries, as `docker login` leaves it.
pub(super) fn signed_in(cluster: &Cluster, name: &str, ports: &[u16], pair: &str) -> PathBuf {
    let auths = ports
        .iter()
        .map(|port| (host(*port), json!({ "auth": pair })));
    let auths: Map<String, Value> = auths.collect();
    let folder = cluster.dir().join(name);
    std::fs::create_dir(&folder).expect("a folder");
    let text = json!({ "auths": auths }).to_string();
    std::fs::write(folder.join("config.json"), text).expect("written");
    folder
}

/// Whether a request has that password.
pub(super) fn is_basic(heard: &Heard) -> bool {
    heard.authorization == Some(format!("Basic {PAIR}"))
}

/// The answer of a registry with these images to whoever has the password.
pub(super) fn with_password(images: &[Archive], heard: &Heard) -> Reply {
    if is_basic(heard) {
        registry(images, heard)
    } else {
        Reply::who("Basic realm=\"registry\"")
    }
}

#[track_caller]
pub(super) fn denied(said: &Said, image: &str) {
    assert_ne!(said.code, 0, "{said:#?}");
    for word in [
        format!("pull access denied for {image}, repository does not exist or may require"),
        "'docker login' and --with-registry-auth".to_owned(),
    ] {
        assert!(said.err.contains(&word), "{word:?} is missing: {said:#?}");
    }
}

/// Tokens that the registry takes. Those for nobody in particular it does not.
#[derive(Default)]
struct Tokens {
    good: Mutex<Vec<String>>,
    given: AtomicUsize,
    /// A layer was cut, and all tokens had ended then.
    ended: AtomicBool,
}

impl Tokens {
    /// The token server.
    fn give(&self, heard: &Heard) -> Reply {
        let number = self.given.fetch_add(1, Ordering::Relaxed);
        let token = format!("token-{number}");
        match heard.authorization.as_deref() {
            None => {}
            Some(_) if is_basic(heard) => {
                self.good.lock().expect("no panic").push(token.clone());
            }
            Some(_) => {
                let body = r#"{"details":"incorrect username or password"}"#;
                return Reply::new("401 Unauthorized", body);
            }
        }
        let answer = json!({ "token": token, "expires_in": 300 });
        Reply::new("200 OK", answer.to_string()).header("content-type: application/json")
    }

    /// The registry. Tokens end in the middle of the first large layer, before they said so.
    fn take(&self, images: &[Archive], heard: &Heard) -> Reply {
        let token = heard.authorization.as_deref().unwrap_or_default();
        let token = token.strip_prefix("Bearer ").unwrap_or_default();
        let is_good = |good: &String| good == token;
        if !self.good.lock().expect("no panic").iter().any(is_good) {
            let of = heard.path.split('/').nth(2).unwrap_or_default();
            return Reply::who(&format!(
                "Bearer realm=\"http://{}/token\",service=\"registry.test\",\
                 scope=\"repository:{of}:pull\"",
                host(TOKENS)
            ));
        }
        let reply = registry(images, heard);
        let large = heard.is_blob() && reply.size() > LARGE / 2;
        if large && !self.ended.swap(true, Ordering::Relaxed) {
            self.good.lock().expect("no panic").clear();
            let half = reply.size() / 2;
            return reply.ends_after(half);
        }
        reply
    }
}

pub(super) fn tokens_are_asked_for_and_renewed(cluster: &Cluster) {
    let image = bulk(BEARER, "app:1", &[LARGE, LARGE]);
    let tokens = Arc::new(Tokens::default());
    let (takes, gives) = (Arc::clone(&tokens), Arc::clone(&tokens));
    let images = vec![image.clone()];
    let site = Site::start(cluster, BEARER, move |heard| takes.take(&images, heard));
    let server = Site::start(cluster, TOKENS, move |heard| gives.give(heard));
    let pull = ["image", "pull", image.name.as_str()];

    let nobody = signed_in(cluster, "nobody", &[], "");
    let said = weft_as(cluster, &nobody, &pull);
    denied(&said, &image.name);
    assert!(said.err.contains("authentication required"), "{said:#?}");
    assert!(server.heard().iter().all(|h| h.authorization.is_none()));

    let wrong = signed_in(cluster, "wrong", &[BEARER], WRONG);
    let said = weft_as(cluster, &wrong, &pull);
    denied(&said, &image.name);
    let why = "incorrect username or password";
    assert!(said.err.contains(why), "{said:#?}");

    let before = server.heard().len();
    let somebody = signed_in(cluster, "somebody", &[BEARER], PAIR);
    weft_as(cluster, &somebody, &pull).done();
    let asked = server.heard();
    let asked = &asked[before..];
    assert!(asked.len() >= 2, "it was renewed: {asked:#?}");
    for question in asked {
        assert!(is_basic(question), "{question:?}");
        for word in [
            "service=registry.test",
            "scope=repository%3Aapp%3Apull",
            "account=user",
        ] {
            assert!(question.query.contains(word), "{word}: {question:?}");
        }
    }
    let heard = site.heard();
    // The password is the token server's alone.
    let plain = |heard: &&Heard| {
        let said = heard.authorization.as_deref();
        said.is_some_and(|said| said.starts_with("Basic"))
    };
    assert_eq!(heard.iter().filter(plain).count(), 0, "{heard:#?}");
    let rest = heard.iter().filter(|heard| heard.range > 0);
    assert!(rest.count() > 0, "the rest alone was asked for: {heard:#?}");
    let (size, sent) = (image.size(), site.sent());
    assert!(sent <= size + size / 10, "{sent} bytes were sent of {size}");
    let found = cluster.weft("node1", &["image", "inspect", &image.name]);
    assert!(found.ok().contains(image.config.digest.as_str()));
}

pub(super) fn passwords_are_sent_where_they_are_asked_for(cluster: &Cluster) {
    let image = bulk(BASIC, "app:1", &[1000]);
    let images = vec![image.clone()];
    let site = Site::start(cluster, BASIC, move |heard| with_password(&images, heard));
    let pull = ["image", "pull", image.name.as_str()];
    let elsewhere = signed_in(cluster, "elsewhere", &[BEARER], PAIR);
    let said = weft_as(cluster, &elsewhere, &pull);
    denied(&said, &image.name);
    // What is for one registry is not for another one.
    assert!(site.heard().iter().all(|h| h.authorization.is_none()));
    let basic = signed_in(cluster, "basic", &[BASIC], PAIR);
    weft_as(cluster, &basic, &pull).done();
    assert!(site.heard().iter().any(is_basic));
}

/// The command runs on the first node, and the task on the second one.
pub(super) fn services_take_credentials_along_where_they_are_told_to(cluster: &Cluster) {
    let name = format!("{}/private:1", host(PRIVATE));
    let image = made(Archive::of(&in_a_box().named(&name)));
    let images = vec![image.clone()];
    let site = Site::start(cluster, PRIVATE, move |heard| with_password(&images, heard));
    let folder = signed_in(cluster, "private", &[PRIVATE], PAIR);
    let create = |service: &str, flags: &[&str]| {
        let words = ["service", "create", "-d", "--name", service];
        let there = ["--constraint", "node.hostname==node2"];
        let usual = ["--restart-condition", "none", "--stop-grace-period", "2s"];
        let words = [&words[..], &there, &usual, flags, &[name.as_str()]].concat();
        weft_as(cluster, &folder, &words)
    };

    let said = create("alone", &[]);
    assert_eq!(said.code, 0, "{said:#?}");
    let warned = "could not be accessed on a registry to record";
    assert!(said.err.contains(warned), "{said:#?}");
    let row = becomes(cluster, "alone", "Rejected");
    let error = text(&row, "Error");
    assert!(error.contains("pull access denied for "), "{row}");
    assert!(error.contains("--with-registry-auth"), "{row}");
    assert!(site.heard().iter().all(|h| h.authorization.is_none()));
    remove(cluster, "alone");

    let said = create("along", &["--with-registry-auth"]);
    assert!(said.code == 0 && !said.err.contains(warned), "{said:#?}");
    let row = becomes(cluster, "along", "Running");
    assert_eq!(text(&row, "Node"), "node2");
    let pinned = cluster.inspect("service", "along").to_string();
    assert!(
        pinned.contains(image.manifest.digest.as_str()),
        "it is pinned: {pinned}"
    );
    nobody_is_shown_them(cluster, &pinned, text(&row, "ID"));
    remove(cluster, "along");
}

/// Neither answers nor logs nor disks have them, but for the orders of the node that pulls.
fn nobody_is_shown_them(cluster: &Cluster, service: &str, task: &str) {
    let task = cluster.inspect("task", task).to_string();
    let log = |node: &str| {
        let path = cluster.lab().log(node).expect("a node");
        std::fs::read_to_string(path).expect("its log")
    };
    let texts = [service.to_owned(), task, log("node1"), log("node2")];
    for secret in [SENT, PAIR] {
        for text in &texts {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }
    let data = |node: &str| cluster.lab().dir().join(node).join("data");
    for secret in [SENT, PAIR] {
        let manager = data("node1").display().to_string();
        let said = cluster.run("node1", None, &["grep", "-rlF", secret, &manager]);
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
    }
    let orders = data("node2").join("assignment.json");
    let mode = orders.metadata().expect("orders").permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
    let worker = data("node2").display().to_string();
    let said = cluster.run("node2", None, &["grep", "-rlF", SENT, &worker]);
    let only = format!("{}\n", orders.display());
    assert_eq!(said.out, only, "the orders alone have them");
}
