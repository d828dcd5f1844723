//! Volumes of real folders, with what is mounted there where the test is about that (as root).

use std::fs;

use weft_model::api::VolumeUsage;
use weft_model::objects::{VolumeDriver, VolumeOptions};

use super::*;
use crate::error::Cause;

/// A node, and an image with a file at `/data`. What is mounted goes with it.
struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(dir.path().join("rootfs/data")).expect("made");
        fs::write(dir.path().join("rootfs/data/seed"), "seed").expect("written");
        Self { dir }
    }

    fn root(&self) -> PathBuf {
        let root = self.dir.path().canonicalize().expect("there");
        root.join("volumes")
    }

    fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    fn open(&self) -> Volumes {
        Volumes::open(&self.root()).expect("volumes")
    }

    fn attach(&self, volumes: &Volumes, task: &str, mount: &Mount) -> Result<PathBuf, VolumeError> {
        volumes.attach(&TaskId::from(task), mount, &self.rootfs())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = mounted::take_away_below(&self.root()) {
            tracing::warn!(%error, "still mounted");
        }
    }
}

fn mount(source: &str, options: VolumeOptions) -> Mount {
    Mount {
        source: source.into(),
        target: "/data".into(),
        volume_options: Some(options),
        ..Mount::default()
    }
}

fn named(name: &str) -> VolumeRequest {
    VolumeRequest {
        name: name.into(),
        ..VolumeRequest::default()
    }
}

fn names(volumes: &Volumes) -> Vec<String> {
    volumes.list().into_iter().map(|v| v.name).collect()
}

fn tmpfs(name: &str) -> Mount {
    let options = [
        ("type", "tmpfs"),
        ("device", "tmpfs"),
        ("o", "size=1m,noexec"),
    ];
    mount(
        name,
        VolumeOptions {
            driver_config: Some(VolumeDriver {
                name: "local".into(),
                options: options.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            }),
            ..VolumeOptions::default()
        },
    )
}

#[test]
fn volumes_are_made_found_and_removed() {
    let node = Node::new();
    let volumes = node.open();
    let mut request = named("data");
    request.labels.insert("a".into(), "b".into());
    let made = volumes.create(&request).expect("made");
    assert_eq!(
        (made.driver.as_str(), made.scope.as_str(), &made.labels),
        ("local", "local", &request.labels)
    );
    let data = node.root().join("data/_data");
    assert_eq!(made.mountpoint, data.display().to_string());
    assert!(made.created_at > 0 && made.created_at.is_multiple_of(1000));
    // Whatever is asked for, it is the one that is there.
    let again = volumes.create(&named("data")).expect("found");
    assert_eq!(again, made);
    fs::write(data.join("x"), "12345").expect("written");
    let usage = volumes.get("data").expect("there").usage_data;
    let expected = VolumeUsage {
        size: 5,
        ref_count: 0,
    };
    assert_eq!(usage, Some(expected));
    let own = volumes.create(&VolumeRequest::default()).expect("made");
    assert_eq!(own.name.len(), 64);
    assert_eq!(
        own.labels.get(ANONYMOUS_VOLUME).map(String::as_str),
        Some("")
    );
    // Another process finds the same.
    let volumes = node.open();
    assert_eq!(volumes.list().len(), 2);
    assert_eq!(volumes.get("data").expect("there").labels, request.labels);
    volumes.remove("data", false).expect("removed");
    assert!(!data.exists());
    let gone = volumes.remove("data", false).expect_err("gone");
    assert_eq!(gone.to_string(), "get data: no such volume");
    assert_eq!(gone.cause(), Cause::NotFound);
    volumes.remove("data", true).expect("no error with force");
    assert_eq!(names(&volumes), [own.name]);
}

#[test]
fn what_cannot_be_is_said() {
    let node = Node::new();
    let volumes = node.open();
    let mut request = named("a/b");
    let error = volumes.create(&request).expect_err("a path");
    assert!(
        error
            .to_string()
            .starts_with("create a/b: \"a/b\" includes invalid characters")
    );
    assert_eq!(error.cause(), Cause::Request);
    request.name = "data".into();
    request.driver = "rexray".into();
    let error = volumes.create(&request).expect_err("no such driver");
    assert!(
        error
            .to_string()
            .starts_with("create data: plugin \"rexray\" not found")
    );
    request.driver.clear();
    request.options.insert("o".into(), "ro".into());
    let error = volumes.create(&request).expect_err("incomplete");
    assert_eq!(
        error.to_string(),
        "create data: missing required option: \"device\""
    );
    let bind = Mount {
        kind: MountType::Bind,
        ..Mount::default()
    };
    assert!(node.attach(&volumes, "t1", &bind).is_err());
    assert!(volumes.list().is_empty());
}

#[test]
fn a_named_volume_is_filled_once_and_stays() {
    let node = Node::new();
    let volumes = node.open();
    let mount = mount("data", VolumeOptions::default());
    let path = node.attach(&volumes, "t1", &mount).expect("attached");
    assert_eq!(fs::read(path.join("seed")).expect("filled"), b"seed");
    fs::remove_file(path.join("seed")).expect("removed");
    fs::write(path.join("mine"), "x").expect("written");
    assert_eq!(node.attach(&volumes, "t2", &mount).expect("attached"), path);
    assert_eq!(node.attach(&volumes, "t1", &mount).expect("again"), path);
    assert!(!path.join("seed").exists());
    let error = volumes.remove("data", true).expect_err("in use");
    assert_eq!(
        error.to_string(),
        "remove data: volume is in use - [t1, t2]"
    );
    // The same after a restart.
    let volumes = node.open();
    assert_eq!(
        volumes.users("data"),
        [TaskId::from("t1"), TaskId::from("t2")]
    );
    assert!(volumes.remove("data", false).is_err());
    let there = BTreeSet::from([TaskId::from("t2")]);
    volumes.keep(&there).expect("released");
    assert_eq!(volumes.users("data"), [TaskId::from("t2")]);
    volumes.release(&TaskId::from("t2")).expect("released");
    volumes.release(&TaskId::from("t2")).expect("nothing to do");
    assert!(path.join("mine").exists());
    volumes.remove("data", false).expect("removed");
}

#[test]
fn nocopy_stays_empty() {
    let node = Node::new();
    let volumes = node.open();
    let options = VolumeOptions {
        no_copy: true,
        ..VolumeOptions::default()
    };
    let path = node
        .attach(&volumes, "t1", &mount("data", options))
        .expect("attached");
    assert!(folder::is_empty(&path).expect("readable"));
}

#[test]
fn a_volume_without_a_name_goes_with_its_task() {
    let node = Node::new();
    let volumes = node.open();
    let own = mount("", VolumeOptions::default());
    let path = node.attach(&volumes, "t1", &own).expect("attached");
    assert!(path.join("seed").exists());
    // A restarted agent attaches again and finds it; another task has another one.
    let volumes = node.open();
    assert_eq!(node.attach(&volumes, "t1", &own).expect("again"), path);
    let other = node.attach(&volumes, "t2", &own).expect("attached");
    assert_ne!(other, path);
    volumes.release(&TaskId::from("t1")).expect("released");
    assert!(!path.exists() && other.exists());
    // One that a person made without a name is not the task's.
    let made = volumes.create(&VolumeRequest::default()).expect("made");
    let by_name = mount(&made.name, VolumeOptions::default());
    node.attach(&volumes, "t3", &by_name).expect("attached");
    volumes.release(&TaskId::from("t3")).expect("released");
    assert_eq!(volumes.get(&made.name).expect("stays").name, made.name);
}

#[test]
fn what_a_killed_process_left_half_filled_is_filled_again() {
    let node = Node::new();
    let volumes = node.open();
    let path = PathBuf::from(volumes.create(&named("data")).expect("made").mountpoint);
    let mark = node.root().join("data/filling");
    fs::write(path.join("half"), "").expect("written");
    fs::write(&mark, "").expect("written");
    let mount = mount("data", VolumeOptions::default());
    node.attach(&volumes, "t1", &mount).expect("attached");
    assert!(path.join("seed").exists() && !path.join("half").exists());
    assert!(!mark.exists());
    // Also for those who do not fill it, before they have it: no mark is left that would take away
    // what they write.
    let no_copy = VolumeOptions {
        no_copy: true,
        ..VolumeOptions::default()
    };
    fs::write(path.join("half"), "").expect("written");
    fs::write(&mark, "").expect("written");
    let empty = self::mount("data", no_copy);
    node.attach(&volumes, "t2", &empty).expect("attached");
    assert!(folder::is_empty(&path).expect("readable") && !mark.exists());
    fs::write(path.join("mine"), "").expect("written");
    node.attach(&volumes, "t3", &mount).expect("attached");
    assert!(path.join("mine").exists() && !path.join("seed").exists());
}

#[test]
fn a_volume_that_another_task_has_is_not_filled() {
    let node = Node::new();
    let volumes = node.open();
    let no_copy = VolumeOptions {
        no_copy: true,
        ..VolumeOptions::default()
    };
    let mount = mount("data", VolumeOptions::default());
    let empty = self::mount("data", no_copy);
    let path = node.attach(&volumes, "t1", &empty).expect("attached");
    node.attach(&volumes, "t2", &mount).expect("attached");
    assert!(folder::is_empty(&path).expect("readable"));
    volumes.release(&TaskId::from("t1")).expect("released");
    node.attach(&volumes, "t2", &mount).expect("again");
    assert!(path.join("seed").exists());
}

#[test]
fn tasks_that_come_at_once_find_one_volume_that_is_whole() {
    let node = Node::new();
    for n in 0..200 {
        fs::write(node.rootfs().join(format!("data/f{n}")), "x").expect("written");
    }
    let volumes = node.open();
    let mount = mount("data", VolumeOptions::default());
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (node, volumes, mount) = (&node, &volumes, &mount);
            scope.spawn(move || {
                let path = node
                    .attach(volumes, &format!("t{n}"), mount)
                    .expect("attached");
                assert_eq!(fs::read_dir(path).expect("a folder").count(), 201);
            });
        }
    });
    assert_eq!(volumes.users("data").len(), 8);
}

#[test]
fn prune_takes_what_nobody_uses() {
    let node = Node::new();
    let volumes = node.open();
    let mut labelled = named("labelled");
    labelled.labels.insert("keep".into(), "yes".into());
    for request in [named("used"), named("unused"), labelled] {
        volumes.create(&request).expect("made");
    }
    let own = volumes.create(&VolumeRequest::default()).expect("made");
    fs::write(PathBuf::from(&own.mountpoint).join("x"), "1234567").expect("written");
    let mount = mount("used", VolumeOptions::default());
    node.attach(&volumes, "t1", &mount).expect("attached");
    let pruned = volumes.prune(&VolumePrune::default()).expect("pruned");
    let expected = Pruned {
        removed: vec![own.name],
        bytes: 7,
    };
    assert_eq!(pruned, expected);
    let which = VolumePrune {
        all: true,
        without_labels: vec!["keep=yes".into()],
        ..VolumePrune::default()
    };
    assert_eq!(volumes.prune(&which).expect("pruned").removed, ["unused"]);
    let which = VolumePrune {
        all: true,
        labels: vec!["keep".into()],
        ..VolumePrune::default()
    };
    assert_eq!(volumes.prune(&which).expect("pruned").removed, ["labelled"]);
    assert_eq!(names(&volumes), ["used"]);
}

#[test]
fn a_device_is_mounted_for_the_first_and_until_the_last() {
    let node = Node::new();
    let volumes = node.open();
    let mount = tmpfs("memory");
    let path = node
        .attach(&volumes, "t1", &mount)
        .expect("attached, as root");
    assert!(mounted::is_at(&path).expect("readable"));
    assert!(
        path.join("seed").exists(),
        "an empty file system is filled, too"
    );
    node.attach(&volumes, "t2", &mount).expect("attached");
    fs::write(path.join("x"), "y").expect("written");
    // An agent that is restarted finds it as it is.
    let volumes = node.open();
    node.attach(&volumes, "t2", &mount).expect("again");
    assert!(path.join("x").exists());
    volumes.release(&TaskId::from("t1")).expect("released");
    assert!(mounted::is_at(&path).expect("readable"));
    volumes.release(&TaskId::from("t2")).expect("released");
    assert!(!mounted::is_at(&path).expect("readable"));
    assert!(folder::is_empty(&path).expect("readable"));
    let options = volumes.get("memory").expect("there").options;
    assert_eq!(options["o"], "size=1m,noexec");
    // Its data goes with it, and what a folder elsewhere has does not.
    let elsewhere = node.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).expect("made");
    fs::write(elsewhere.join("precious"), "x").expect("written");
    let mut bound = named("bound");
    bound.options = [
        ("type", "none".to_owned()),
        ("o", "bind,ro".to_owned()),
        ("device", elsewhere.display().to_string()),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into();
    volumes.create(&bound).expect("made");
    let bound = self::mount("bound", VolumeOptions::default());
    let path = node.attach(&volumes, "t3", &bound).expect("attached");
    assert!(path.join("precious").exists());
    assert!(fs::write(path.join("x"), "").is_err(), "read-only");
    volumes.release(&TaskId::from("t3")).expect("released");
    volumes.remove("bound", false).expect("removed");
    assert!(elsewhere.join("precious").exists());
}

#[test]
fn a_task_that_cannot_have_its_volume_does_not_use_it() {
    let node = Node::new();
    let volumes = node.open();
    let mut mount = tmpfs("broken");
    let options = mount.volume_options.as_mut().expect("options");
    let driver = options.driver_config.as_mut().expect("a driver");
    driver.options.insert("type".into(), "nosuchfs".into());
    driver.options.insert("o".into(), "password=geheim".into());
    let error = node
        .attach(&volumes, "t1", &mount)
        .expect_err("no such file system");
    let text = error.to_string();
    assert!(
        text.starts_with("failed to mount local volume broken: mount tmpfs at "),
        "{text}"
    );
    assert!(!text.contains("geheim"), "{text}");
    assert!(volumes.users("broken").is_empty());
    // Neither is one left that nobody has named.
    mount.source.clear();
    node.attach(&volumes, "t1", &mount)
        .expect_err("no such file system");
    assert_eq!(names(&volumes), ["broken"]);
}

#[test]
fn a_subpath_is_bound_and_no_link_leads_out_of_the_volume() {
    let node = Node::new();
    let volumes = node.open();
    let made = volumes.create(&named("data")).expect("made");
    let data = PathBuf::from(made.mountpoint);
    fs::create_dir_all(data.join("a/b")).expect("made");
    fs::write(data.join("a/b/x"), "inside").expect("written");
    std::os::unix::fs::symlink("/etc", data.join("out")).expect("a link");
    let part = |subpath: &str| {
        mount(
            "data",
            VolumeOptions {
                subpath: subpath.into(),
                ..VolumeOptions::default()
            },
        )
    };
    for (subpath, why) in [
        ("out", "it is not there"),
        ("none", "it is not there"),
        ("../..", "relative path inside"),
        ("/etc", "relative path inside"),
    ] {
        let error = node
            .attach(&volumes, "t1", &part(subpath))
            .expect_err(subpath);
        assert!(error.to_string().contains(why), "{error}");
        assert!(volumes.users("data").is_empty());
    }
    let path = node
        .attach(&volumes, "t1", &part("a/b"))
        .expect("attached, as root");
    assert_eq!(fs::read(path.join("x")).expect("read"), b"inside");
    assert!(!path.join("seed").exists(), "parts are not filled");
    // What becomes of the path now is all the same.
    fs::rename(data.join("a"), data.join("other")).expect("renamed");
    assert!(path.join("x").exists());
    let file = node
        .attach(&volumes, "t2", &part("other/b/x"))
        .expect("attached");
    assert_eq!(fs::read(&file).expect("read"), b"inside");
    for task in ["t1", "t2"] {
        volumes.release(&TaskId::from(task)).expect("released");
    }
    assert!(!path.exists() && !file.exists());
    assert!(data.join("other/b/x").exists());
    volumes.remove("data", false).expect("removed");
}
