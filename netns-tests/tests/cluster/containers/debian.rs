//! Images of Debian's packages: unpacked without being installed, beside busybox for a shell.
//!
//! Packages and unpacked trees stay in the target folder, so that a second run is quick.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, ensure};
use serde_json::json;
use weft_lab::image::{Image, Layer, base};

/// nginx 1.22 of Debian 12, with the libraries that it is linked with.
const NGINX: &[&str] = &[
    "nginx",
    "nginx-common",
    "libpcre2-8-0",
    "libssl3",
    "zlib1g",
    "libcrypt1",
    "libc6",
];

/// redis 7.0 of Debian 12.
const REDIS: &[&str] = &[
    "redis-server",
    "redis-tools",
    "libhiredis0.14",
    "libjemalloc2",
    "liblua5.1-0",
    "liblzf1",
    "libatomic1",
    "libgcc-s1",
    "libstdc++6",
    "libsystemd0",
    "liblzma5",
    "libzstd1",
    "liblz4-1",
    "libcap2",
    "libgcrypt20",
    "libgpg-error0",
    "lua-cjson",
    "lua-bitop",
    "libssl3",
    "libc6",
];

/// What no program of them needs.
const UNUSED: [&str; 4] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/lintian",
];

/// Tests of one process make each tree once.
static MAKING: Mutex<()> = Mutex::new(());

/// nginx that says `Hello from HOSTNAME (version VERSION)` on port 80. It ends when its requests have
/// been answered, by the signal that the image names.
pub(super) fn nginx(name: &str, version: &str) -> anyhow::Result<Image> {
    let config = format!(
        "user root;\nworker_processes 1;\nerror_log /dev/stderr;\npid /run/nginx.pid;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n  access_log off;\n  server {{\n    listen 80;\n    default_type text/plain;\n    \
         location / {{ return 200 \"Hello from $hostname (version {version})\\n\"; }}\n  }}\n}}\n"
    );
    let mut files = Layer::new();
    for folder in ["var/lib/nginx", "var/log/nginx"] {
        files.folder(folder, 0o755)?;
    }
    files.file("etc/nginx/nginx.conf", 0o644, config.as_bytes())?;
    let image = base(name)?.with(tree("nginx", NGINX)?)?.with(files)?;
    Ok(image
        .runs(&["nginx", "-g", "daemon off;"])
        .set("StopSignal", json!("SIGQUIT"))
        .set("ExposedPorts", json!({ "80/tcp": {} })))
}

/// redis that writes every change to `/data`, which is a volume.
pub(super) fn redis(name: &str) -> anyhow::Result<Image> {
    let mut files = Layer::new();
    files.folder("data", 0o755)?;
    let image = base(name)?.with(tree("redis", REDIS)?)?.with(files)?;
    let command = ["redis-server", "--dir", "/data", "--appendonly", "yes"];
    let always = ["--appendfsync", "always", "--protected-mode", "no"];
    Ok(image
        .runs(&[&command[..], &always].concat())
        .set("Volumes", json!({ "/data": {} }))
        .set("ExposedPorts", json!({ "6379/tcp": {} })))
}

/// A layer with the files of packages.
fn tree(name: &str, packages: &[&str]) -> anyhow::Result<Layer> {
    let _one = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages");
    let root = cache.join(name);
    if !root.is_dir() {
        // Renamed when it is whole: what was interrupted is made anew.
        let unfinished = cache.join(format!(".{name}.{}", std::process::id()));
        make(&unfinished, packages)?;
        if let Err(error) = std::fs::rename(unfinished.join("root"), &root) {
            // Another test program was faster.
            ensure!(root.is_dir(), "no {}: {error}", root.display());
        }
        std::fs::remove_dir_all(&unfinished)?;
    }
    let mut layer = Layer::new();
    layer.tree(&root)?;
    Ok(layer)
}

fn make(dir: &Path, packages: &[&str]) -> anyhow::Result<()> {
    let root = dir.join("root");
    std::fs::create_dir_all(&root).with_context(|| format!("no {}", root.display()))?;
    for archive in download(dir, packages)? {
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("-x").arg(&archive).arg(&root);
        let said = unpack.output().context(
            "there is no dpkg-deb here, by which images are made of Debian's packages: install the \
             package dpkg",
        )?;
        ensure!(
            said.status.success(),
            "{} cannot be unpacked: {}",
            archive.display(),
            String::from_utf8_lossy(&said.stderr)
        );
    }
    for unused in UNUSED {
        let path = root.join(unused);
        if path.exists() {
            std::fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}

/// Gets packages into a folder, without installing them.
fn download(dir: &Path, packages: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let get = |words: &[&str]| {
        let said = Command::new("apt-get")
            .args(words)
            .current_dir(dir)
            .output();
        said.context(
            "there is no apt-get here, by which images are made of Debian's packages: run this test \
             on Debian 12",
        )
    };
    let words = [&["download"], packages].concat();
    let mut said = get(&words)?;
    if !said.status.success() {
        // A machine that is new, or whose list is old.
        get(&["update"])?;
        said = get(&words)?;
    }
    ensure!(
        said.status.success(),
        "the packages {} cannot be had: {}",
        packages.join(", "),
        String::from_utf8_lossy(&said.stderr)
    );
    let mut archives = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            archives.push(path);
        }
    }
    ensure!(
        archives.len() == packages.len(),
        "{} packages of {} are there",
        archives.len(),
        packages.len()
    );
    Ok(archives)
}
