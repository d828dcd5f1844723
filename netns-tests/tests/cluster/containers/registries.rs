//! One cluster, and registries of every kind on the machine outside.

use std::path::Path;

use weft_lab::image::{Archive, Image, Layer};
use weft_netns_tests::Settings;

use super::{cluster, made, sign_in, ways};

/// The machine outside, where they are.
pub(super) const OUTSIDE: &str = "10.77.0.254";

/// A registry there.
pub(super) fn host(port: u16) -> String {
    format!("{OUTSIDE}:{port}")
}

/// An image with a layer of so many bytes for each of `sizes`, which nobody else has.
pub(super) fn bulk(port: u16, name: &str, sizes: &[usize]) -> Archive {
    let name = format!("{}/{name}", host(port));
    let mut image = Image::new(&name);
    for (number, size) in sizes.iter().enumerate() {
        image = made(image.with(noise(&format!("{name} {number}"), *size)));
    }
    made(Archive::of(&image))
}

/// A layer of one file that does not compress, the same for the same text.
pub(super) fn noise(text: &str, bytes: usize) -> Layer {
    // FNV-1a for a seed, xorshift64 after that.
    let mut word = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut content = Vec::with_capacity(bytes + 8);
    while content.len() < bytes {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        content.extend_from_slice(&word.to_le_bytes());
    }
    content.truncate(bytes);
    let mut layer = Layer::new();
    made(layer.file("noise", 0o644, &content).map(drop));
    layer
}

/// Settings of nodes whose file says this.
pub(super) fn settings(nodes: u8, file: &Path, text: &str) -> Settings {
    std::fs::write(file, text).expect("written");
    Settings {
        nodes,
        shares_images: false,
        agent_args: vec!["--config".to_owned(), file.display().to_string()],
        ..Settings::default()
    }
}

/// The tables of registries that speak plain HTTP.
pub(super) fn plain(ports: &[u16]) -> String {
    let tables = ports.iter().map(|port| {
        let host = host(*port);
        format!("[registries.\"{host}\"]\ninsecure = true\n")
    });
    tables.collect()
}

#[test]
fn registries_are_signed_in_to_and_reached_by_every_way() {
    let files = tempfile::tempdir().expect("a folder");
    let tls = ways::certificates(files.path());
    let text = format!(
        "{}{}",
        plain(&[&sign_in::PLAIN[..], &ways::PLAIN].concat()),
        ways::tables(files.path())
    );
    let settings = settings(2, &files.path().join("weftd.toml"), &text);
    let cluster = cluster(&settings);
    sign_in::tokens_are_asked_for_and_renewed(&cluster);
    sign_in::passwords_are_sent_where_they_are_asked_for(&cluster);
    sign_in::services_take_credentials_along_where_they_are_told_to(&cluster);
    ways::an_authority_of_its_own_is_trusted_where_it_is_named(&cluster, &tls);
    ways::mirrors_are_asked_first_and_the_registry_for_what_they_lack(&cluster);
    ways::a_redirect_takes_no_password_along(&cluster);
    ways::who_asks_for_patience_has_it(&cluster);
    ways::an_index_has_something_for_this_machine_or_says_for_which(&cluster);
    ways::a_slow_pull_says_how_far_it_is(&cluster);
}
