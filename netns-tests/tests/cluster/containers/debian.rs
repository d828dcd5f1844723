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

/// `PostgreSQL` 15 of Debian 12, without the compiler of its queries.
const POSTGRES: &[&str] = &[
    "postgresql-15",
    "postgresql-client-15",
    "libpq5",
    "tzdata",
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "libgssapi-krb5-2",
    "libkrb5-3",
    "libk5crypto3",
    "libkrb5support0",
    "libcom-err2",
    "libkeyutils1",
    "libicu72",
    "libldap-2.5-0",
    "libsasl2-2",
    "libgnutls30",
    "libp11-kit0",
    "libidn2-0",
    "libunistring2",
    "libtasn1-6",
    "libnettle8",
    "libhogweed6",
    "libgmp10",
    "libffi8",
    "liblz4-1",
    "libpam0g",
    "libaudit1",
    "libcap-ng0",
    "libselinux1",
    "libpcre2-8-0",
    "libssl3",
    "libsystemd0",
    "liblzma5",
    "libcap2",
    "libgcrypt20",
    "libgpg-error0",
    "libuuid1",
    "libxml2",
    "libxslt1.1",
    "libzstd1",
    "zlib1g",
    "libreadline8",
    "libtinfo6",
];

/// `MariaDB` 10.11 of Debian 12.
const MARIADB: &[&str] = &[
    "mariadb-server-core",
    "mariadb-client-core",
    "mariadb-common",
    "mysql-common",
    "libaio1",
    "libc6",
    "libcrypt1",
    "libgcc-s1",
    "libnuma1",
    "libpcre2-8-0",
    "libssl3",
    "libstdc++6",
    "libsystemd0",
    "liburing2",
    "zlib1g",
    "libedit2",
    "libncurses6",
    "libtinfo6",
    "libbsd0",
    "libmd0",
    "liblzma5",
    "libzstd1",
    "liblz4-1",
    "libcap2",
    "libgcrypt20",
    "libgpg-error0",
];

/// Users of both databases, besides those of every image.
const USERS: &str = "root:x:0:0:root:/root:/bin/sh\n\
                     postgres:x:999:999:postgres:/var/lib/postgresql:/bin/sh\n\
                     mysql:x:998:998:mysql:/var/lib/mysql:/bin/sh\n\
                     nobody:x:65534:65534:nobody:/nonexistent:/bin/sh\n";
const GROUPS: &str = "root:x:0:\npostgres:x:999:\nmysql:x:998:\nnogroup:x:65534:\n";

/// Makes the database in its volume once, as docker's image does, then is the server.
const POSTGRES_ENTRY: &str = r#"#!/bin/sh
set -e
data=/var/lib/postgresql/data
bin=/usr/lib/postgresql/15/bin
export LC_ALL=C
mkdir -p $data /var/run/postgresql
chown -R postgres:postgres /var/lib/postgresql /var/run/postgresql
chmod 700 $data
if [ ! -e $data/PG_VERSION ]; then
  echo "$POSTGRES_PASSWORD" > /tmp/password
  chown postgres /tmp/password
  su postgres -c "$bin/initdb -D $data -U $POSTGRES_USER -E UTF8 --auth-local=trust --auth-host=scram-sha-256 --pwfile=/tmp/password"
  rm /tmp/password
  echo "host all all all scram-sha-256" >> $data/pg_hba.conf
fi
exec su postgres -c "exec $bin/postgres -D $data -c listen_addresses='*' -c jit=off"
"#;

/// The same, with what the environment names made by the first start.
const MARIADB_ENTRY: &str = r#"#!/bin/sh
set -e
data=/var/lib/mysql
mkdir -p $data /run/mysqld
chown mysql:mysql $data /run/mysqld
if [ ! -d $data/mysql ]; then
  mariadb-install-db --user=mysql --datadir=$data --auth-root-authentication-method=normal \
    --skip-test-db --force > /dev/null
  cat > /tmp/first.sql <<SQL
CREATE DATABASE $MYSQL_DATABASE;
CREATE USER '$MYSQL_USER'@'%' IDENTIFIED BY '$MYSQL_PASSWORD';
CREATE USER '$MYSQL_USER'@'localhost' IDENTIFIED BY '$MYSQL_PASSWORD';
GRANT ALL ON $MYSQL_DATABASE.* TO '$MYSQL_USER'@'%';
GRANT ALL ON $MYSQL_DATABASE.* TO '$MYSQL_USER'@'localhost';
ALTER USER 'root'@'localhost' IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';
SQL
  chown mysql /tmp/first.sql
  set -- --init-file=/tmp/first.sql
fi
exec mariadbd --user=mysql --datadir=$data --socket=/run/mysqld/mysqld.sock \
  --bind-address=0.0.0.0 --innodb-use-native-aio=0 "$@"
"#;

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

/// `PostgreSQL`, with its data in `/var/lib/postgresql/data`, which is a volume.
pub(super) fn postgres(name: &str) -> anyhow::Result<Image> {
    let image = database(name, "postgres", POSTGRES, POSTGRES_ENTRY)?;
    let path = "PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    Ok(image
        .set("Env", json!([path]))
        .set("StopSignal", json!("SIGINT"))
        .set("Volumes", json!({ "/var/lib/postgresql/data": {} }))
        .set("ExposedPorts", json!({ "5432/tcp": {} })))
}

/// `MariaDB`, with its data in `/var/lib/mysql`, which is a volume.
pub(super) fn mariadb(name: &str) -> anyhow::Result<Image> {
    let image = database(name, "mariadb", MARIADB, MARIADB_ENTRY)?;
    Ok(image
        .set("Volumes", json!({ "/var/lib/mysql": {} }))
        .set("ExposedPorts", json!({ "3306/tcp": {} })))
}

fn database(name: &str, tree_name: &str, packages: &[&str], entry: &str) -> anyhow::Result<Image> {
    let mut files = Layer::new();
    files.file("etc/passwd", 0o644, USERS.as_bytes())?;
    files.file("etc/group", 0o644, GROUPS.as_bytes())?;
    files.file("bin/database", 0o755, entry.as_bytes())?;
    let image = base(name)?.with(tree(tree_name, packages)?)?.with(files)?;
    Ok(image.runs(&["/bin/database"]))
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
