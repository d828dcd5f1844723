//! Small images: nothing but busybox in them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::json;

use super::{Image, Layer};

/// The program. It has to be one that needs no libraries, for there are none in the image.
pub const BUSYBOX: &str = "busybox";

/// Where packages put it.
const PLACES: [&str; 4] = ["/bin", "/usr/bin", "/sbin", "/usr/local/bin"];

/// What says that a program needs libraries: `PT_INTERP` of its program headers (elf(5)).
const PT_INTERP: u32 = 3;

/// Process 1 of a container of [`web`]. A signal for which it had no handler would do nothing there.
const SERVE: &str = r#"#!/bin/sh
trap 'kill $child 2>/dev/null; exit 0' TERM
mkdir -p /run/www
echo "Hello from $(hostname) (version $VERSION)" > /run/www/index.html
httpd -f -p "${PORT:-80}" -h /run/www &
child=$!
wait $child
"#;

/// Finds busybox on this machine.
///
/// # Errors
/// There is none, or it cannot run without the libraries of this machine; names the package.
pub fn busybox() -> anyhow::Result<PathBuf> {
    let places = PLACES.iter().map(|place| Path::new(place).join(BUSYBOX));
    let mut found = places.filter(|path| path.is_file()).peekable();
    ensure!(
        found.peek().is_some(),
        "there is no {BUSYBOX} here, of which images are made: install the package busybox-static \
         (apt-get install busybox-static)"
    );
    found
        .find(|path| std::fs::read(path).is_ok_and(|program| is_static(&program)))
        .with_context(|| {
            format!(
                "{BUSYBOX} of this machine needs libraries, which an image does not have: install the \
                 package busybox-static (apt-get install busybox-static)"
            )
        })
}

/// Whether a program of 64 bits in this machine's byte order asks for no loader.
fn is_static(program: &[u8]) -> bool {
    let word = |at: usize| {
        Some(u16::from_ne_bytes(
            program.get(at..at + 2)?.try_into().ok()?,
        ))
    };
    let header = || {
        let at = u64::from_ne_bytes(program.get(32..40)?.try_into().ok()?);
        let (size, count) = (usize::from(word(54)?), usize::from(word(56)?));
        let at = usize::try_from(at).ok()?;
        let mut asks = false;
        for number in 0..count {
            let at = at.checked_add(number * size)?;
            let kind = program.get(at..at.checked_add(4)?)?;
            asks |= u32::from_ne_bytes(kind.try_into().ok()?) == PT_INTERP;
        }
        Some(!asks)
    };
    // e_ident: the magic number, and the class of 64 bits.
    program.starts_with(b"\x7fELF\x02") && header().unwrap_or(false)
}

/// Files that every image has that is made here: busybox with a link for each of its programs, the
/// folders of a machine, and root, `nobody` and `app` (1000:1000) as users.
///
/// # Errors
/// As of [`busybox`].
pub fn base(name: &str) -> anyhow::Result<Image> {
    let path = busybox()?;
    let program = std::fs::read(&path).with_context(|| format!("no {}", path.display()))?;
    let mut layer = Layer::new();
    for folder in [
        "bin", "dev", "etc", "home", "home/app", "proc", "root", "run", "sbin", "sys", "usr",
        "usr/bin", "usr/sbin", "var", "var/log",
    ] {
        layer.folder(folder, 0o755)?;
    }
    layer.folder("tmp", 0o1777)?;
    layer.file("bin/busybox", 0o755, &program)?;
    for applet in applets(&path)? {
        if applet != BUSYBOX {
            layer.link(&format!("bin/{applet}"), BUSYBOX)?;
        }
    }
    let users = "root:x:0:0:root:/root:/bin/sh\n\
                 app:x:1000:1000:app:/home/app:/bin/sh\n\
                 nobody:x:65534:65534:nobody:/nonexistent:/bin/sh\n";
    layer.file("etc/passwd", 0o644, users.as_bytes())?;
    let groups = "root:x:0:\napp:x:1000:\nextra:x:2000:\nnogroup:x:65534:\n";
    layer.file("etc/group", 0o644, groups.as_bytes())?;
    let image = Image::new(name).with(layer)?;
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    Ok(image.set("Env", json!([path])).runs(&["sh"]))
}

/// Names of the programs that it is.
fn applets(busybox: &Path) -> anyhow::Result<Vec<String>> {
    let said = Command::new(busybox)
        .arg("--list")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", busybox.display()))?;
    let text = String::from_utf8(said.stdout).context("busybox lists names")?;
    let plain = |name: &&str| !name.is_empty() && !name.contains('/');
    Ok(text.lines().filter(plain).map(str::to_owned).collect())
}

/// An HTTP server on port 80 (`$PORT`) that says `Hello from HOSTNAME (version VERSION)`, and ends at
/// once when it is asked to.
///
/// # Errors
/// As of [`busybox`].
pub fn web(name: &str, version: &str) -> anyhow::Result<Image> {
    let mut layer = Layer::new();
    layer.file("bin/serve", 0o755, SERVE.as_bytes())?;
    let env = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        &format!("VERSION={version}"),
    ];
    Ok(base(name)?
        .with(layer)?
        .set("Env", json!(env))
        .set("ExposedPorts", json!({ "80/tcp": {} }))
        .runs(&["/bin/serve"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_need_a_loader_are_told_apart() {
        let program = |kinds: &[u32]| {
            let mut bytes = vec![0; 64];
            bytes[..5].copy_from_slice(b"\x7fELF\x02");
            bytes[32..40].copy_from_slice(&64_u64.to_ne_bytes());
            bytes[54..56].copy_from_slice(&56_u16.to_ne_bytes());
            let count = u16::try_from(kinds.len()).unwrap();
            bytes[56..58].copy_from_slice(&count.to_ne_bytes());
            for kind in kinds {
                let mut header = [0; 56];
                header[..4].copy_from_slice(&kind.to_ne_bytes());
                bytes.extend(header);
            }
            bytes
        };
        assert!(is_static(&program(&[1, 1])));
        assert!(!is_static(&program(&[1, PT_INTERP])));
        assert!(!is_static(b"#!/bin/sh\n"));
        let cut = program(&[1, 1]);
        assert!(!is_static(&cut[..100]), "half of it is nothing");
    }
}
