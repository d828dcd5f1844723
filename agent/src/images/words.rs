//! What nodes say to each other about images: paths and headers of HTTP.
//!
//! | method and path | answer |
//! |---|---|
//! | HEAD, GET /blobs/DIGEST | 200 or 206 with the content (of GET with `Range: bytes=N-` from that byte on); 202 while the image is being fetched, with the bytes of it so far; 404; 503: too much to do |
//! | HEAD /turns/KEY | 200: the image is here; 202 with the stage: see [`super::turn`]; 404 |
//! | GET /names/NAME | the digest that an image of this name has here |

use std::fmt::Write as _;

/// How much of an image is here, in bytes.
pub(super) const PROGRESS_HEADER: &str = "weft-progress";
/// What is done about an image.
pub(super) const STAGE_HEADER: &str = "weft-stage";

const BLOBS: &str = "/blobs/";
const TURNS: &str = "/turns/";
const NAMES: &str = "/names/";

/// Of a content.
pub(super) fn blob_path(digest: &weft_images::Digest) -> String {
    format!("{BLOBS}{digest}")
}

/// Of what is done about an image.
pub(super) fn turn_path(digest: &weft_images::Digest) -> String {
    format!("{TURNS}{digest}")
}

/// Of what a name stands for.
pub(super) fn name_path(name: &weft_images::ImageName) -> String {
    format!("{NAMES}{}", encoded(&name.to_string()))
}

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// A content.
    Blob(weft_images::Digest),
    /// What is done about an image.
    Turn(weft_images::Digest),
    /// What a name stands for.
    Name(weft_images::ImageName),
}

impl Asked {
    /// What a path asks for; nothing where it is none of ours.
    pub(super) fn of(path: &str) -> Option<Self> {
        if let Some(digest) = path.strip_prefix(BLOBS) {
            return digest.parse().ok().map(Self::Blob);
        }
        if let Some(digest) = path.strip_prefix(TURNS) {
            return digest.parse().ok().map(Self::Turn);
        }
        let name = decoded(path.strip_prefix(NAMES)?)?;
        name.parse().ok().map(Self::Name)
    }
}

/// RFC 3986 section 2.1: whatever is not unreserved, as `%2F`.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            write!(out, "%{byte:02X}").unwrap_or_default();
        }
    }
    out
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else {
            return None;
        };
        rest = tail;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let byte = digit(*high)? * 16 + digit(*low)?;
        bytes.push(u8::try_from(byte).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_they_are_written() {
        let digest = weft_images::Digest::of(b"x");
        let name: weft_images::ImageName = "registry.example:5000/a/b:1".parse().unwrap();
        for (path, asked) in [
            (blob_path(&digest), Asked::Blob(digest.clone())),
            (turn_path(&digest), Asked::Turn(digest.clone())),
            (name_path(&name), Asked::Name(name)),
        ] {
            assert_eq!(Asked::of(&path), Some(asked), "{path}");
        }
    }

    #[test]
    fn what_is_none_of_ours_is_nothing() {
        for path in [
            "",
            "/",
            "/blobs/",
            "/blobs/sha256:12",
            "/blobs/../../etc/passwd",
            "/turns/md5:00",
            "/names/",
            "/names/%",
            "/names/%zz",
            "/names/%ff",
            "/names/here%2FUPPER",
            "/metrics",
        ] {
            assert_eq!(Asked::of(path), None, "{path}");
        }
    }
}
