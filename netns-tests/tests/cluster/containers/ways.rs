//! How registries are reached: TLS, mirrors, redirects; and what they do to clients on the way.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use weft_lab::image::Archive;
use weft_netns_tests::{Cluster, eventually};

use super::registries::{OUTSIDE, bulk, host, noise, plain, settings};
use super::sign_in::{PAIR, is_basic, signed_in, weft_as, with_password};
use super::site::{Reply, Site, registry};
use super::{becomes, cluster, in_a_box, made, remove, rows, text};

/// Of an authority that is named in the settings of nodes, and of one that is not.
const TRUSTED: u16 = 5020;
const STRANGER: u16 = 5021;
/// A registry with a password, its mirror, and one where nobody listens.
const MIRRORED: u16 = 5030;
const MIRROR: u16 = 5031;
const DEAD: u16 = 5032;
/// A registry with a password whose layers are at another place.
const REDIRECTS: u16 = 5040;
const STORAGE: u16 = 5041;
const BUSY: u16 = 5042;
const LIMITED: u16 = 5043;
const INDEX: u16 = 5044;
const SLOW: u16 = 5045;
const HANGS: u16 = 5046;
const MUTE: u16 = 5047;

/// Hosts that speak plain HTTP. Of the storage nobody has said so: it is no registry.
pub(super) const PLAIN: [u16; 5] = [REDIRECTS, BUSY, LIMITED, INDEX, SLOW];

/// File of the authority.
const CA: &str = "ca.pem";

/// What the settings of nodes say beside that.
pub(super) fn tables(folder: &Path) -> String {
    format!(
        "[registries.\"{}\"]\nca = {:?}\n\
         [registries.\"{}\"]\ninsecure = true\nmirrors = [\"{}\", \"http://{}\"]\n",
        host(TRUSTED),
        folder.join(CA).display().to_string(),
        host(MIRRORED),
        host(DEAD),
        host(MIRROR),
    )
}

/// TLS for the machine outside, by an authority whose certificate is in the folder after this.
pub(super) fn certificates(folder: &Path) -> Arc<ServerConfig> {
    let key = KeyPair::generate().expect("a key");
    let mut root = CertificateParams::default();
    root.distinguished_name
        .push(DnType::CommonName, "an authority of its own");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = root.self_signed(&key).expect("a certificate");
    std::fs::write(folder.join(CA), certificate.pem()).expect("written");
    let issuer = Issuer::new(root, key);
    let own = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec![OUTSIDE.to_owned()]).expect("an address");
    let leaf = leaf.signed_by(&own, &issuer).expect("a certificate");
    let chain = vec![CertificateDer::from(leaf.der().to_vec())];
    let own = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, own);
    Arc::new(config.expect("a certificate with its key"))
}

#[track_caller]
fn is_here(cluster: &Cluster, image: &Archive) {
    let said = cluster.weft("node1", &["image", "inspect", &image.name]);
    let said = said.ok();
    assert!(said.contains(image.config.digest.as_str()), "{said}");
}

pub(super) fn an_authority_of_its_own_is_trusted_where_it_is_named(
    cluster: &Cluster,
    tls: &Arc<ServerConfig>,
) {
    let start = |port: u16| {
        let image = bulk(port, "app:1", &[1000]);
        let images = vec![image.clone()];
        let site = Site::start_tls(cluster, port, Arc::clone(tls), move |heard| {
            registry(&images, heard)
        });
        (image, site)
    };
    let (image, _site) = start(TRUSTED);
    cluster
        .weft("node1", &["image", "pull", &image.name])
        .done();
    is_here(cluster, &image);
    let (image, site) = start(STRANGER);
    let said = cluster.weft("node1", &["image", "pull", &image.name]);
    assert_ne!(said.code, 0, "{said:#?}");
    let host = host(STRANGER);
    for word in [
        format!("TLS with {host} failed: "),
        format!(
            "give its authority by `ca`, or set `insecure`, in [registries.\"{host}\"] of the \
             node's configuration"
        ),
    ] {
        assert!(said.err.contains(&word), "{word:?} is missing: {said:#?}");
    }
    assert_eq!(site.heard().len(), 0, "it was told nothing");
}

pub(super) fn mirrors_are_asked_first_and_the_registry_for_what_they_lack(cluster: &Cluster) {
    let [both, rare] = ["both:1", "rare:1"].map(|name| bulk(MIRRORED, name, &[1000]));
    let images = vec![both.clone()];
    let mirror = Site::start(cluster, MIRROR, move |heard| registry(&images, heard));
    let images = vec![both.clone(), rare.clone()];
    let site = Site::start(cluster, MIRRORED, move |heard| {
        with_password(&images, heard)
    });
    let folder = signed_in(cluster, "mirrored", &[MIRRORED, MIRROR], PAIR);
    let pull = |image: &Archive| {
        let begun = Instant::now();
        weft_as(cluster, &folder, &["image", "pull", &image.name]).done();
        is_here(cluster, image);
        begun.elapsed()
    };
    pull(&both);
    assert_eq!(site.heard().len(), 0, "the mirror has all of it");
    let of = format!("ns={}", host(MIRRORED).replace(':', "%3A"));
    for heard in mirror.heard() {
        assert_eq!(heard.authorization, None, "mirrors get no password");
        assert_eq!(heard.query, of);
    }
    let before = mirror.heard().len();
    assert!(before > 0);
    let took = pull(&rare);
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    assert!(mirror.heard().len() > before, "it was asked first");
    assert!(site.heard().iter().any(is_basic));
}

pub(super) fn a_redirect_takes_no_password_along(cluster: &Cluster) {
    let image = bulk(REDIRECTS, "app:1", &[1000, 2000]);
    let images = vec![image.clone()];
    let storage = Site::start(cluster, STORAGE, move |heard| registry(&images, heard));
    let images = vec![image.clone()];
    let site = Site::start(cluster, REDIRECTS, move |heard| {
        if is_basic(heard) && heard.is_blob() {
            let to = format!("location: http://{}{}", host(STORAGE), heard.path);
            return Reply::new("307 Temporary Redirect", "").header(&to);
        }
        with_password(&images, heard)
    });
    let folder = signed_in(cluster, "redirects", &[REDIRECTS, STORAGE], PAIR);
    weft_as(cluster, &folder, &["image", "pull", &image.name]).done();
    is_here(cluster, &image);
    assert_eq!(site.sent(), 0, "it has sent clients elsewhere");
    let heard = storage.heard();
    assert!(heard.len() >= 3, "two layers and what they are: {heard:#?}");
    for heard in heard {
        assert_eq!(heard.authorization, None, "{}", heard.path);
    }
}

pub(super) fn who_asks_for_patience_has_it(cluster: &Cluster) {
    let image = bulk(BUSY, "app:1", &[1000]);
    let images = vec![image.clone()];
    let slow_down = || Reply::error("429 Too Many Requests", "TOOMANYREQUESTS", "slow down");
    let seen = Mutex::new(Vec::new());
    let site = Site::start(cluster, BUSY, move |heard| {
        let mut seen = seen.lock().expect("no panic");
        if heard.is_blob() && !seen.contains(&heard.path) {
            seen.push(heard.path.clone());
            return slow_down().header("retry-after: 2");
        }
        registry(&images, heard)
    });
    cluster
        .weft("node1", &["image", "pull", &image.name])
        .done();
    let heard = site.heard();
    for content in [&image.layers[0], &image.config] {
        let of_it = |path: &str| path.ends_with(content.digest.as_str());
        let times: Vec<Instant> = heard
            .iter()
            .filter(|heard| of_it(&heard.path))
            .map(|heard| heard.at)
            .collect();
        assert_eq!(times.len(), 2, "{heard:#?}");
        let waited = times[1] - times[0];
        assert!(waited >= Duration::from_secs(2), "after {waited:?}");
    }
    // Longer than anybody waits.
    let _site = Site::start(cluster, LIMITED, move |_| {
        slow_down().header("retry-after: 3600")
    });
    let name = format!("{}/app:1", host(LIMITED));
    let said = cluster.weft("node1", &["image", "pull", &name]);
    let told = format!(
        "toomanyrequests: {} limits how often it is asked, and asks to wait for 3600 s",
        host(LIMITED)
    );
    assert!(said.code != 0 && said.err.contains(&told), "{said:#?}");
}

/// The manifest of an image as an entry of an index; without one, an entry of another machine.
fn entry(image: Option<&Archive>) -> Value {
    let zeros = format!("sha256:{}", "0".repeat(64));
    let digest = image.map_or(zeros.as_str(), |image| image.manifest.digest.as_str());
    let architecture = match (image, std::env::consts::ARCH) {
        (None, _) => "s390x",
        (Some(_), "x86_64") => "amd64",
        (Some(_), "aarch64") => "arm64",
        (Some(_), other) => other,
    };
    json!({
        "mediaType": Archive::MEDIA_TYPE,
        "digest": digest,
        "size": image.map_or(500, |image| image.manifest.bytes.len()),
        "platform": { "os": "linux", "architecture": architecture },
    })
}

pub(super) fn an_index_has_something_for_this_machine_or_says_for_which(cluster: &Cluster) {
    const KIND: &str = "application/vnd.oci.image.index.v1+json";
    let image = bulk(INDEX, "multi:1", &[1000]);
    let index = |entries: &[Value]| {
        let index = json!({ "schemaVersion": 2, "mediaType": KIND, "manifests": entries });
        index.to_string()
    };
    let multi = index(&[entry(None), entry(Some(&image))]);
    let foreign = index(&[entry(None)]);
    let images = vec![image.clone()];
    let _site = Site::start(cluster, INDEX, move |heard| {
        let is_own = heard.path.ends_with(images[0].manifest.digest.as_str());
        let body = match heard.path.split('/').nth(2) {
            Some("multi") => &multi,
            _ => &foreign,
        };
        // By its tag and by its own digest.
        if heard.path.contains("/manifests/") && !is_own {
            let kind = format!("content-type: {KIND}");
            return Reply::new("200 OK", body.as_str()).header(&kind);
        }
        registry(&images, heard)
    });
    cluster
        .weft("node1", &["image", "pull", &image.name])
        .done();
    is_here(cluster, &image);

    let name = format!("{}/foreign:1", host(INDEX));
    let said = cluster.weft("node1", &["image", "pull", &name]);
    assert_ne!(said.code, 0, "{said:#?}");
    for word in [
        "no matching manifest for linux/",
        " in the manifest list entries: it has linux/s390x",
    ] {
        assert!(said.err.contains(word), "{word:?} is missing: {said:#?}");
    }
    let words = ["service", "create", "-d", "--name", "foreign", &name];
    cluster.weft("node1", &words).done();
    let row = eventually("its task says why it waits", || {
        let rows = rows(cluster, "foreign");
        let told = |row: &&Value| text(row, "Error").contains("unsupported platform on 2 nodes");
        rows.iter().find(told).cloned().ok_or(rows.clone())
    });
    assert_eq!(row["State"], "Pending", "{row}");
    remove(cluster, "foreign");
}

pub(super) fn a_slow_pull_says_how_far_it_is(cluster: &Cluster) {
    /// Of the layer that comes slowly: 32 pieces.
    const LARGE: usize = 4 << 20;
    let name = format!("{}/slow:1", host(SLOW));
    let image = made(in_a_box().with(noise("slow", LARGE)));
    let image = made(Archive::of(&image.named(&name)));
    let images = vec![image];
    let _site = Site::start(cluster, SLOW, move |heard| {
        let reply = registry(&images, heard);
        if reply.size() >= LARGE {
            return reply.slow(LARGE / 32, Duration::from_millis(150));
        }
        reply
    });
    let words = ["service", "create", "-d", "--name", "slow", "--constraint"];
    let there = ["node.hostname==node2", "--stop-grace-period", "2s", &name];
    let words = [&words[..], &there].concat();
    cluster.weft("node1", &words).done();
    let begin = format!("pulling {name} ");
    let percent = eventually("it says how far it is", || {
        let rows = rows(cluster, "slow");
        let row = rows.first().ok_or(String::new())?;
        let message = text(row, "Message");
        let number = message
            .strip_prefix(&begin)
            .and_then(|rest| rest.strip_suffix(" %"));
        let percent = number.and_then(|number| number.parse::<u32>().ok());
        let between = percent.filter(|percent| (1..100).contains(percent));
        between
            .filter(|_| row["State"] == "Preparing")
            .ok_or(message.to_owned())
    });
    assert!((1..100).contains(&percent));
    becomes(cluster, "slow", "Running");
    remove(cluster, "slow");
}

/// What came is kept, and gone on with; who never says a word is named.
#[test]
#[ignore = "second tier: registries that hang are waited for, for more than a minute"]
fn a_registry_that_hangs_is_left_and_the_rest_is_asked_for() {
    /// Of the layer that stops in its middle.
    const LARGE: usize = 400_000;
    let files = tempfile::tempdir().expect("a folder");
    let settings = settings(1, &files.path().join("weftd.toml"), &plain(&[HANGS, MUTE]));
    let cluster = cluster(&settings);
    let image = bulk(HANGS, "app:1", &[LARGE]);
    let images = vec![image.clone()];
    let hung = AtomicBool::new(false);
    let site = Site::start(&cluster, HANGS, move |heard| {
        let reply = registry(&images, heard);
        if heard.is_blob() && reply.size() > LARGE / 2 && !hung.swap(true, Ordering::Relaxed) {
            return reply.hangs_after(LARGE / 2);
        }
        reply
    });
    let begun = Instant::now();
    cluster
        .weft("node1", &["image", "pull", &image.name])
        .done();
    is_here(&cluster, &image);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(45), "it took {took:?}");
    let heard = site.heard();
    let rest = heard.iter().filter(|heard| heard.range > 0).count();
    assert_eq!(rest, 1, "the rest alone was asked for: {heard:#?}");
    let (size, sent) = (image.size(), site.sent());
    assert!(sent <= size + size / 10, "{sent} bytes were sent of {size}");

    let _site = Site::start(&cluster, MUTE, |_| Reply::never());
    let name = format!("{}/app:1", host(MUTE));
    let said = cluster.weft("node1", &["image", "pull", &name]);
    let told = format!("{} has not said anything for ", host(MUTE));
    assert!(said.code != 0 && said.err.contains(&told), "{said:#?}");
}
