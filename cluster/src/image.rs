//! Names of images, as far as managers judge them: whether there can be such an image, and whose
//! registry has it (distribution/reference). What a name stands for the nodes find out.

/// Longest name without tag and digest, in bytes.
const MAX_NAME: usize = 255;
/// Longest tag, in bytes.
const MAX_TAG: usize = 128;
/// Digits of the one kind of digest that nodes check.
const DIGEST_DIGITS: usize = 64;
/// Where names without a registry are looked up.
const DEFAULT_DOMAIN: &str = "docker.io";

fn is_lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// `[a-z0-9]+` and more of them, with `.`, `_`, `__` or any number of `-` between.
fn is_path_part(part: &str) -> bool {
    let mut rest = part.as_bytes();
    loop {
        let word = rest.iter().take_while(|byte| is_lower(**byte)).count();
        let Some((_, after)) = rest.split_at_checked(word).filter(|_| word > 0) else {
            return false;
        };
        if after.is_empty() {
            return true;
        }
        let between = after.iter().take_while(|byte| !is_lower(**byte)).count();
        let (separator, next) = after.split_at(between);
        let separates =
            matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-');
        if !separates || separator.is_empty() {
            return false;
        }
        rest = next;
    }
}

/// A host name, an IPv4 address or an IPv6 address in brackets, perhaps with a port.
fn is_domain(domain: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = domain.strip_prefix('[') {
        let Some((inside, after)) = rest.split_once(']') else {
            return false;
        };
        let hex = |byte: u8| byte.is_ascii_hexdigit() || byte == b':';
        let port = after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
        return !inside.is_empty() && inside.bytes().all(hex) && port;
    }
    let (host, port) = match domain.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (domain, None),
    };
    let is_label = |label: &str| {
        let plain = label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        !label.is_empty() && plain && !label.starts_with('-') && !label.ends_with('-')
    };
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

/// The registry of a name, and what it is called there.
fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((domain, path))
            if domain == "localhost"
                || domain.contains(['.', ':'])
                || domain.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (domain, path)
        }
        _ => (DEFAULT_DOMAIN, name),
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = tag.bytes();
    tag.len() <= MAX_TAG
        && bytes.next().is_some_and(word)
        && bytes.all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    let digits = digest.strip_prefix("sha256:");
    digits.is_some_and(|digits| {
        digits.len() == DIGEST_DIGITS
            && digits
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Name, tag and digest of an image; a port of its registry is no tag.
fn parts(image: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag), digest),
        _ => (rest, None, digest),
    }
}

/// Whether there can be an image of this name: `NAME[:TAG][@DIGEST]`, before it perhaps a registry.
pub(super) fn is_reference(image: &str) -> bool {
    let (name, tag, digest) = parts(image);
    let (domain, path) = split_domain(name);
    // What could be the id of an image is no name.
    let is_id = name.len() == DIGEST_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.len() <= MAX_NAME
        && !is_id
        && is_domain(domain)
        && path.split('/').all(is_path_part)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
}

/// The registry that an image comes from.
pub(super) fn domain(image: &str) -> &str {
    match split_domain(parts(image).0).0 {
        "index.docker.io" => DEFAULT_DOMAIN,
        domain => domain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_distribution_reference() {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        let tag = "t".repeat(MAX_TAG);
        for good in [
            "nginx",
            "nginx:1.27",
            "library/nginx:latest",
            "registry.example:5000/team/web:v1.0-rc_2",
            "localhost/web",
            "localhost:5000/a/b/c",
            "10.0.0.1:5000/web",
            "[fd00::1]:5000/web",
            "Registry.example/web",
            "a__b/c-d.e_f---g",
            &format!("nginx@{digest}"),
            &format!("registry.example:5000/nginx:latest@{digest}"),
            &format!("a:{tag}"),
        ] {
            assert!(is_reference(good), "{good}");
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "Nginx",
            "nginx:",
            "nginx:-x",
            "nginx:a b",
            "nginx:a:b",
            "nginx@",
            "nginx@sha256:abc",
            "nginx@sha512:abc",
            "-a",
            "a-",
            "a___b",
            "a..b",
            "a._b",
            "ä",
            "http://registry.example/web",
            "registry.example:port/web",
            "-registry.example/web",
            "[fd00::1/web",
            "registry.example/Web",
            &digest["sha256:".len()..],
            &format!("a:{tag}t"),
            &"a/".repeat(200),
        ] {
            assert!(!is_reference(bad), "{bad}");
        }
    }

    #[test]
    fn a_registry_is_told_from_a_folder() {
        for (image, registry) in [
            ("nginx", "docker.io"),
            ("team/web:1", "docker.io"),
            ("index.docker.io/library/nginx", "docker.io"),
            ("registry.example:5000/web:1", "registry.example:5000"),
            ("localhost/web", "localhost"),
        ] {
            assert_eq!(domain(image), registry, "{image}");
        }
    }
}
