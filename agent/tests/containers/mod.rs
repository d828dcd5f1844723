//! Containers of busybox, started by the runtime program of this machine. Whoever lacks one of them is
//! told by a test that fails.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use weft_agent::testing::{ContainerEngine, RunError, Runner};
use weft_images::{Image, Store};
use weft_model::id::{NodeId, TaskId};
use weft_model::objects::{ContainerSpec, Mount, MountType, Runtime, Task, TaskStatus};
use weft_model::stop_signal;
use weft_shim::spec;
use weft_sys::process::Exit;
use weft_volumes::Volumes;

use super::{Netns, secret, task, wait_for_line};

/// Of Debian's package busybox-static.
const BUSYBOX: &str = "/bin/busybox";

/// A node that runs containers, and an image that has nothing but busybox.
struct Bench {
    dir: tempfile::TempDir,
    sandbox: Netns,
    volumes: Volumes,
    image: Image,
    layers: Vec<PathBuf>,
}

/// One layer: programs, users, and a folder that the image asks a volume for.
fn layer() -> Vec<u8> {
    let busybox = std::fs::read(BUSYBOX).expect("install busybox-static");
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content)
            .expect("in memory");
    };
    for folder in [
        "bin",
        "etc",
        "var",
        "var/lib",
        "var/lib/data",
        "tmp",
        "proc",
    ] {
        add(folder, tar::EntryType::Directory, 0o755, &[]);
    }
    add("bin/busybox", tar::EntryType::Regular, 0o755, &busybox);
    let users = b"root:x:0:0::/:/bin/sh\nweb:x:1000:1001::/srv:/bin/sh\n";
    add("etc/passwd", tar::EntryType::Regular, 0o644, users);
    add(
        "etc/group",
        tar::EntryType::Regular,
        0o644,
        b"root:x:0:\nweb:x:1001:\n",
    );
    add(
        "var/lib/data/first",
        tar::EntryType::Regular,
        0o644,
        b"of the image\n",
    );
    for name in ["sh", "cat", "id", "readlink", "sleep", "env", "hostname"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        let path = format!("bin/{name}");
        tar.append_link(&mut header, path, "busybox")
            .expect("in memory");
    }
    tar.into_inner().expect("in memory")
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let images = dir.path().join("images");
        let store = Store::open(&images.join("shared"), &images).expect("a store");
        let layer = layer();
        let (size, layer) = (layer.len(), store.put(&layer).expect("layer"));
        let config = json!({
            "architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"),
            "os": "linux",
            "config": {
                "Env": ["PATH=/bin", "COLOUR=red", "FROM=image"],
                "Cmd": ["/bin/cat", "/var/lib/data/first"],
                "StopSignal": "SIGQUIT",
                "Volumes": {"/var/lib/data": {}},
            },
            "rootfs": {"type": "layers", "diff_ids": [layer]},
        });
        let config = config.to_string().into_bytes();
        let (config_size, config) = (config.len(), store.put(&config).expect("config"));
        let kind = "application/vnd.oci.image";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": format!("{kind}.manifest.v1+json"),
            "config": {
                "mediaType": format!("{kind}.config.v1+json"), "digest": config, "size": config_size,
            },
            "layers": [{
                "mediaType": format!("{kind}.layer.v1.tar"), "digest": layer, "size": size,
            }],
        });
        let manifest = store
            .put(manifest.to_string().as_bytes())
            .expect("manifest");
        let layers = store.unpack(&manifest, &|_| ()).expect("unpacked");
        Self {
            sandbox: Netns::new(),
            volumes: Volumes::open(&dir.path().join("volumes")).expect("volumes"),
            image: store.image(&manifest).expect("an image"),
            layers,
            dir,
        }
    }

    fn runner(&self) -> Runner {
        let dir = self.dir.path();
        let engine = ContainerEngine::find(None, &dir.join("run"), dir);
        engine.program().expect("install runc or crun");
        Runner::new(dir.join("tasks"), "node-1", NodeId::from("n1"))
            .with_containers(engine, self.volumes.clone())
    }

    fn prepare(&self, task: &Task) -> Result<(), RunError> {
        let netns = self.sandbox.path();
        self.runner()
            .prepare(task, &self.image, &self.layers, &netns)
    }

    fn folder(&self, task: &Task) -> PathBuf {
        self.runner().task_dir(&task.id).expect("dir")
    }

    /// What is left of a task that is over.
    fn left(&self, task: &Task) -> Vec<String> {
        let finished = self.runner().finish(&task.id, &TaskStatus::default());
        finished.expect("finish");
        let left = std::fs::read_dir(self.folder(task)).expect("list");
        let names = left.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned());
        let mut left: Vec<String> = names.collect();
        left.sort();
        left
    }
}

/// Of one with a terminal there would be one of them.
const KEPT: [&str; 5] = [
    "ended.json",
    "stderr.log",
    "stderr.log.times",
    "stdout.log",
    "stdout.log.times",
];

fn container(id: &str, args: &[&str]) -> Task {
    let mut task = task(id, args);
    let spec = Arc::make_mut(&mut task.spec);
    spec.runtime = Runtime::Container;
    spec.container = ContainerSpec {
        image: "registry.example:5000/busybox".to_owned(),
        args: args.iter().map(|&word| word.to_owned()).collect(),
        env: vec!["COLOUR=blue".to_owned(), "WHO={{.Task.Slot}}".to_owned()],
        ..ContainerSpec::default()
    };
    task
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

pub(super) fn a_container_has_its_image_its_files_and_its_volumes() {
    let bench = Bench::new();
    let script = "cat /etc/resolv.conf /etc/hosts /etc/hostname; echo $COLOUR $FROM $WHO; id; \
                  readlink /proc/self/ns/net; cat /var/lib/data/first /data/kept; \
                  echo again > /data/kept; echo oops >&2; exit 3";
    let mut task = container("c1", &["/bin/sh", "-c", script]);
    let spec = &mut Arc::make_mut(&mut task.spec).container;
    spec.hostname = "db-{{.Task.Slot}}".to_owned();
    spec.hosts = vec!["192.0.2.9 other".to_owned()];
    spec.mounts = vec![Mount {
        kind: MountType::Volume,
        source: "data-{{.Task.Slot}}".to_owned(),
        target: "/data".to_owned(),
        ..Mount::default()
    }];
    bench.prepare(&task).expect("prepare");
    let dir = bench.folder(&task);
    let runner = bench.runner();
    let running = runner.start(&task, &bench.sandbox).expect("start");
    assert_eq!(running.wait().expect("wait"), Exit::Code(3));
    let out = read(&dir.join("stdout.log"));
    assert!(out.starts_with("nameserver 127.0.0.11\n"), "{out}");
    assert!(out.contains("\n10.0.1.5 web.1.c1 db-1\n"), "{out}");
    assert!(out.contains("\n192.0.2.9 other\ndb-1\n"), "{out}");
    assert!(
        out.contains("\nblue image 1\nuid=0(root) gid=0(root)"),
        "{out}"
    );
    let inode = bench.sandbox.netns().inode().expect("inode");
    assert!(out.contains(&format!("\nnet:[{inode}]\n")), "{out}");
    assert!(out.ends_with("\nof the image\n"), "{out}");
    let err = read(&dir.join("stderr.log"));
    assert!(err.ends_with("oops\n"), "{err}");
    assert_eq!(bench.left(&task), KEPT);

    // A volume with a name is there for the next one, the image's own has gone with its container.
    let names = |volumes: &Volumes| -> Vec<String> {
        volumes
            .list()
            .into_iter()
            .map(|volume| volume.name)
            .collect()
    };
    assert_eq!(names(&bench.volumes), ["data-1"]);
    let mut second = container("c2", &["/bin/cat", "/data/kept"]);
    Arc::make_mut(&mut second.spec).container.mounts = task.spec.container.mounts.clone();
    bench.prepare(&second).expect("prepare");
    let running = runner.start(&second, &bench.sandbox).expect("start");
    assert_eq!(running.wait().expect("wait"), Exit::Code(0));
    assert_eq!(read(&bench.folder(&second).join("stdout.log")), "again\n");
    assert_eq!(bench.left(&second), KEPT);
    for task in [&task.id, &second.id] {
        runner.remove(task).expect("remove");
    }
}

pub(super) fn a_running_container_is_adopted_with_its_stop_signal() {
    let bench = Bench::new();
    let script = "trap 'exit 7' QUIT; trap '' TERM; echo up; while :; do sleep 1000 & wait; done";
    let mut task = container("c3", &["/bin/sh", "-c", script]);
    Arc::make_mut(&mut task.spec).container.user = "web".to_owned();
    bench.prepare(&task).expect("prepare");
    let first = bench.runner().start(&task, &bench.sandbox).expect("start");
    wait_for_line(&bench.folder(&task).join("stdout.log"));
    let adopted = bench.runner().adopt(&task.id).expect("adopt");
    let adopted = adopted.expect("it runs");
    assert_eq!(adopted.pid(), first.pid());
    // What the image says is on the disk, the environment is not but in the bundle.
    let beside = read(&bench.folder(&task).join("container.json"));
    assert!(
        beside.contains("SIGQUIT") && beside.contains("\"web\""),
        "{beside}"
    );
    assert!(!beside.contains("COLOUR"), "{beside}");
    let quit = stop_signal::number("SIGQUIT").expect("a signal");
    let stopped = adopted.stop(quit, Duration::from_secs(10));
    assert_eq!(stopped.expect("stop"), Exit::Code(7));
    assert_eq!(first.wait().expect("wait"), Exit::Code(7));
    assert_eq!(bench.left(&task), KEPT);
    bench.runner().remove(&task.id).expect("remove");
}

pub(super) fn a_container_has_its_secrets_where_nothing_can_be_written() {
    let bench = Bench::new();
    // The image has no `/run`.
    let script = "cat /run/secrets/key; for f in key new; do \
                  (echo x > /run/secrets/$f) 2>/dev/null || echo refused; done; \
                  /bin/busybox stat -c '%a %u %g' /run/secrets/key; id -u";
    let mut task = container("c7", &["/bin/sh", "-c", script]);
    let (mut reference, payloads) = secret("key", "hunter2\n");
    reference.file.uid = "1000".to_owned();
    reference.file.gid = "1001".to_owned();
    reference.file.mode = 0o400;
    let spec = &mut Arc::make_mut(&mut task.spec).container;
    spec.secrets = vec![reference];
    spec.read_only = true;
    spec.user = "web".to_owned();
    let runner = bench.runner();
    runner.keep_payloads(&task, &payloads).expect("kept");
    bench.prepare(&task).expect("prepare");
    let running = runner.start(&task, &bench.sandbox).expect("start");
    assert_eq!(running.wait().expect("wait"), Exit::Code(0));
    let dir = bench.folder(&task);
    let (out, err) = (read(&dir.join("stdout.log")), read(&dir.join("stderr.log")));
    assert_eq!(
        out, "hunter2\nrefused\nrefused\n400 1000 1001\n1000\n",
        "{err}"
    );
    let memory = bench.dir.path().join("tasks/.memory/c7");
    assert!(memory.exists());
    assert!(!read(&dir.join("config.json")).contains("hunter2"));
    assert_eq!(bench.left(&task), KEPT);
    assert!(!memory.exists());
    runner.remove(&task.id).expect("remove");
}

pub(super) fn a_container_does_not_outlive_its_shim() {
    let bench = Bench::new();
    let task = container("c4", &["/bin/sh", "-c", "echo up; sleep 1000"]);
    bench.prepare(&task).expect("prepare");
    let running = bench.runner().start(&task, &bench.sandbox).expect("start");
    let dir = bench.folder(&task);
    wait_for_line(&dir.join("stdout.log"));
    let init = spec::read_init(&dir).expect("readable").expect("it runs");
    let shim = i32::try_from(running.pid()).ok().and_then(Pid::from_raw);
    kill_process(shim.expect("a process"), Signal::KILL).expect("killed");
    assert_eq!(running.wait().expect("wait"), Exit::Unknown);
    let init = PathBuf::from(format!("/proc/{}", init.pid));
    let deadline = Instant::now() + Duration::from_secs(10);
    while init.exists() {
        assert!(Instant::now() < deadline, "the container lives on");
        std::thread::yield_now();
    }
    let runner = bench.runner();
    runner
        .finish(&task.id, &TaskStatus::default())
        .expect("finish");
    assert!(!dir.join("rootfs").exists() && !dir.join("config.json").exists());
    // The same again, as if the manager had not heard of it.
    bench.prepare(&task).expect("prepare");
    let running = runner.start(&task, &bench.sandbox).expect("start");
    let killed = running.stop(stop_signal::DEFAULT, Duration::ZERO);
    assert_eq!(killed.expect("stop"), Exit::Signal(9));
    runner
        .finish(&task.id, &TaskStatus::default())
        .expect("finish");
    runner.remove(&task.id).expect("remove");
}

pub(super) fn a_container_that_cannot_start_says_why() {
    let bench = Bench::new();
    let task = container("c5", &["/no/such/program"]);
    let runner = bench.runner();
    let unprepared = runner.start(&task, &bench.sandbox).expect_err("no bundle");
    assert!(
        matches!(unprepared, RunError::NotPrepared(_)),
        "{unprepared}"
    );
    bench.prepare(&task).expect("prepare");
    let error = runner.start(&task, &bench.sandbox).expect_err("no program");
    let said = error.to_string();
    assert!(said.starts_with("starting container failed: "), "{said}");
    let why = said.to_lowercase();
    assert!(why.contains("no such file or directory"), "{said}");
    assert!(!said.contains(char::is_control), "{said}");
    let left = bench.left(&task);
    assert!(
        !left
            .iter()
            .any(|name| name == "rootfs" || name == "config.json"),
        "{left:?}"
    );

    let mut bind = container("c6", &["/bin/true"]);
    Arc::make_mut(&mut bind.spec).container.mounts = vec![Mount {
        kind: MountType::Bind,
        source: "/no/such/folder".to_owned(),
        target: "/x".to_owned(),
        ..Mount::default()
    }];
    let said = bench.prepare(&bind).expect_err("nothing there").to_string();
    let begins = "invalid bind mount source, source path not found: /no/such/folder";
    assert!(said.starts_with(begins), "{said}");
    runner
        .finish(&bind.id, &TaskStatus::default())
        .expect("finish");
    for task in [&task.id, &bind.id, &TaskId::from("never")] {
        runner.remove(task).expect("remove");
    }
}
