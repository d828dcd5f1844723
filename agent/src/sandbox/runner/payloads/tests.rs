//! With the real kernel: mounts need root, or a user namespace.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use rustix::fs::statfs;
use weft_model::assignment::PayloadContent;
use weft_model::id::{NodeId, PayloadId, ServiceId};
use weft_model::objects::{
    ConfigReference, ContainerSpec, Meta, PayloadFile, Runtime, SecretReference, TaskSpec,
    TaskState, TaskStatus, Version,
};
use weft_sys::namespaces;

use super::*;

/// `TMPFS_MAGIC` of linux/magic.h.
const TMPFS: i128 = 0x0102_1994;

fn task(runtime: Runtime, container: ContainerSpec) -> Task {
    Task {
        id: TaskId::from("t1"),
        meta: Meta::default(),
        service: ServiceId::from("s1"),
        service_name: "web".to_owned(),
        slot: 1,
        node: Some(NodeId::from("n1")),
        spec_version: Version { index: 1 },
        job_iteration: None,
        spec: Arc::new(TaskSpec {
            runtime,
            container,
            ..TaskSpec::default()
        }),
        attachments: Vec::new(),
        desired: TaskState::Running,
        status: TaskStatus::default(),
        restarts: Vec::new(),
    }
}

fn file(name: &str) -> PayloadFile {
    PayloadFile {
        name: name.to_owned(),
        ..PayloadFile::default()
    }
}

fn secret(id: &str, file: PayloadFile) -> SecretReference {
    SecretReference {
        file,
        id: PayloadId::from(id),
        name: format!("name-of-{id}"),
    }
}

fn config(id: &str, file: PayloadFile) -> ConfigReference {
    ConfigReference {
        file,
        id: PayloadId::from(id),
        name: format!("name-of-{id}"),
    }
}

fn payloads(given: &[(&str, &str, bool)]) -> Payloads {
    let contents = given.iter().map(|(id, data, template)| PayloadContent {
        id: PayloadId::from(*id),
        data: PayloadBytes::from(data.as_bytes().to_vec()),
        template: *template,
    });
    contents
        .map(|content| (content.id.clone(), Arc::new(content)))
        .collect()
}

fn runner(dir: &tempfile::TempDir) -> Runner {
    Runner::new(dir.path().join("tasks"), "node-1", NodeId::from("n1"))
        .keeping_memory_in(dir.path().join("run/tasks"))
}

/// One secret of somebody's, and two configs, the second one a template.
fn example() -> Task {
    let own = PayloadFile {
        uid: "1000".to_owned(),
        gid: "1001".to_owned(),
        mode: 0o400,
        ..file("key")
    };
    task(
        Runtime::Container,
        ContainerSpec {
            env: vec!["COLOUR=blue".to_owned()],
            secrets: vec![secret("s", own)],
            configs: vec![config("c", file("/etc/app.conf")), config("t", file(""))],
            ..ContainerSpec::default()
        },
    )
}

const TEMPLATE: &str = r#"{{.Service.Name}} {{env "COLOUR"}} {{secret "key"}}"#;

fn bytes() -> Payloads {
    payloads(&[
        ("s", "hunter2", false),
        ("c", "{{no template}}", false),
        ("t", TEMPLATE, true),
    ])
}

#[test]
fn files_are_in_memory_with_their_owners_and_go_with_the_task() {
    let dir = tempfile::tempdir().expect("dir");
    let (runner, task) = (runner(&dir), example());
    runner.keep_payloads(&task, &bytes()).expect("kept");
    // What an attempt before has left is replaced.
    runner.keep_payloads(&task, &bytes()).expect("kept again");
    let folder = dir.path().join("run/tasks/t1");
    let kind = statfs(&folder).expect("mounted").f_type;
    assert_eq!(i128::from(kind), TMPFS);
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).expect(name);
    assert_eq!(text("0"), "hunter2");
    assert_eq!(text("1"), "{{no template}}");
    assert_eq!(text("2"), "web blue hunter2");
    let facts = |path: &Path| {
        let found = std::fs::metadata(path).expect("there");
        (found.uid(), found.gid(), found.mode() & 0o7777)
    };
    assert_eq!(facts(&folder.join("0")), (1000, 1001, 0o400));
    assert_eq!(facts(&folder.join("1")), (0, 0, 0o444));
    assert_eq!(facts(&folder).2, 0o700);
    for name in ["0", "3"] {
        let written = std::fs::write(folder.join(name), "x").expect_err(name);
        assert!(is(&written, Errno::ROFS), "{written}");
    }
    let mounted = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let line = mounted
        .lines()
        .find(|line| line.contains("/run/tasks/t1 "))
        .expect("a mount");
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(line.split([' ', ',']).any(|word| word == option), "{line}");
    }

    // Known by these files alone, and whoever has a copy of the mount has nothing.
    assert_eq!(
        runner.known().expect("known"),
        std::slice::from_ref(&task.id)
    );
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).expect("made");
    namespaces::bind(&folder, &copy, false).expect("bound");
    let names = |folder: &Path| std::fs::read_dir(folder).expect("listed").count();
    assert_eq!(names(&copy), 3);
    runner
        .finish(&task.id, &TaskStatus::default())
        .expect("finish");
    assert!(!folder.exists());
    assert_eq!(names(&copy), 0);
    mounts::take_away(&copy).expect("unbound");
    assert!(runner.known().expect("known").is_empty());
    runner.clear_payloads(&task.id).expect("none is success");
}

#[test]
fn what_an_agent_left_is_known_and_cleared_by_the_next_one() {
    let dir = tempfile::tempdir().expect("dir");
    let task = example();
    let folder = dir.path().join("run/tasks/t1");
    runner(&dir).keep_payloads(&task, &bytes()).expect("kept");
    // It was killed in the middle: the end is written down, the memory is there.
    std::fs::create_dir_all(dir.path().join("tasks/t1")).expect("made");
    std::fs::write(dir.path().join("tasks/t1/ended.json"), "{}").expect("written");
    // And one on top of it.
    mounts::mount_new("tmpfs", &folder, NewFlags::default(), "size=64k").expect("mounted");
    let next = runner(&dir);
    assert_eq!(next.known().expect("known"), std::slice::from_ref(&task.id));
    next.remove_all().expect("removed");
    assert!(!folder.exists() && !dir.path().join("tasks/t1").exists());
    // After the machine's end there is at most a folder.
    std::fs::create_dir_all(&folder).expect("made");
    assert_eq!(next.known().expect("known"), std::slice::from_ref(&task.id));
    next.finish(&task.id, &TaskStatus::default())
        .expect("finish");
    assert!(!folder.exists());
}

#[test]
fn a_task_whose_bytes_have_not_come_has_no_file_at_all() {
    let dir = tempfile::tempdir().expect("dir");
    let (runner, task) = (runner(&dir), example());
    let here = payloads(&[("s", "hunter2", false), ("t", TEMPLATE, true)]);
    let first = missing(&task, &here).expect("one is not there");
    assert_eq!((first.kind, first.name), (PayloadKind::Config, "name-of-c"));
    assert_eq!(missing(&task, &bytes()), None);
    let error = runner.keep_payloads(&task, &here).expect_err("missing");
    assert!(
        error
            .to_string()
            .starts_with("the config name-of-c is not here"),
        "{error}"
    );
    assert!(!dir.path().join("run").exists());
    // None of its own, and nothing is made.
    let none = self::task(Runtime::Host, ContainerSpec::default());
    runner.keep_payloads(&none, &Payloads::new()).expect("none");
    assert!(!dir.path().join("run").exists());
}

#[test]
fn containers_and_programs_see_the_same_files_at_their_places() {
    let dir = tempfile::tempdir().expect("dir");
    let (runner, task) = (runner(&dir), example());
    let folder = dir.path().join("run/tasks/t1");
    let expected = [
        ("0", "/run/secrets/key"),
        ("1", "/etc/app.conf"),
        ("2", "/name-of-t"),
    ];
    let expected = expected.map(|(name, target)| (folder.join(name), PathBuf::from(target)));
    let of_container = runner.payload_mounts(&task).expect("mounts");
    let of_program = runner.payload_binds(&task).expect("binds");
    for (at, (source, target)) in expected.into_iter().enumerate() {
        let bind = Bind {
            source: source.clone(),
            target: target.clone(),
        };
        assert_eq!(of_program[at], bind);
        assert_eq!(of_container[at], TaskMount::File { source, target });
    }
    assert_eq!((of_container.len(), of_program.len()), (3, 3));
}

#[test]
fn places_are_full_paths_and_owners_numbers() {
    let id = PayloadId::from("p");
    let with = |file: &PayloadFile, look: &dyn Fn(&PayloadUse<'_>)| {
        look(&PayloadUse {
            kind: PayloadKind::Secret,
            id: &id,
            name: "key",
            file,
        });
    };
    for (name, expected) in [
        ("", "/run/secrets/key"),
        ("a/b", "/run/secrets/a/b"),
        ("../../etc//key", "/etc/key"),
        ("/a/../../b/./c/", "/b/c"),
    ] {
        with(&file(name), &|used| {
            assert_eq!(place(used).expect(name), Path::new(expected));
        });
    }
    for name in ["/", "../..", "/a/..", "a\0b"] {
        with(&file(name), &|used| {
            let error = place(used).expect_err(name).to_string();
            assert!(error.starts_with("secret key: its target "), "{error}");
        });
    }
    for (uid, what) in [
        ("0", None),
        ("", None),
        ("1000", None),
        ("web", Some("uid")),
    ] {
        let of_user = PayloadFile {
            uid: uid.to_owned(),
            mode: 0o777_444,
            ..file("")
        };
        with(&of_user, &|used| match (owner(used), what) {
            (Ok(owner), None) => {
                let number = uid.parse::<u32>().unwrap_or(0);
                assert_eq!((owner.uid, owner.gid, owner.mode), (number, 0, 0o7444));
            }
            (Err(error), Some(what)) => {
                let said = error.to_string();
                let begins = format!("secret key: its {what} \"web\" is none: ");
                assert!(said.starts_with(&begins), "{said}");
            }
            (found, _) => panic!("{uid}: {found:?}"),
        });
    }
    let nobody = PayloadFile {
        gid: u32::MAX.to_string(),
        ..file("")
    };
    with(&nobody, &|used| assert!(owner(used).is_err()));
}

#[test]
fn templates_ask_for_what_the_task_uses_alone() {
    let task = example();
    let used: Vec<PayloadUse<'_>> = task.spec.container.payloads().collect();
    let payloads = payloads(&[
        ("s", "hunter2", false),
        ("t", "x", true),
        ("other", "y", false),
    ]);
    let lookups = Lookups {
        used: &used,
        payloads: &payloads,
        env: ["A=first", "B", "A=last=1"].map(str::to_owned).into(),
    };
    assert_eq!(lookups.secret("key"), Some(&b"hunter2"[..]));
    // By the file, not by the name, but where they are one; each kind for itself.
    assert_eq!(lookups.secret("name-of-s"), None);
    assert_eq!(lookups.config("key"), None);
    assert_eq!(lookups.config("name-of-t"), Some(&b"x"[..]));
    assert_eq!(lookups.config("other"), None);
    // Its bytes have not come.
    assert_eq!(lookups.config("/etc/app.conf"), None);
    assert_eq!(lookups.env("A").as_deref(), Some("last=1"));
    assert_eq!(lookups.env("B"), None);
}

#[test]
fn nothing_is_made_on_the_nodes_disk_for_a_program_of_the_node() {
    let dir = tempfile::tempdir().expect("dir");
    let (runner, there) = (runner(&dir), dir.path().join("app.conf"));
    let of = |target: &str| {
        let command = ContainerSpec {
            args: vec!["/bin/sh".to_owned()],
            configs: vec![config("c", file(target))],
            ..ContainerSpec::default()
        };
        runner.check(&task(Runtime::Host, command))
    };
    let target = there.to_str().expect("a name");
    let error = of(target).expect_err("no file").to_string();
    let says = format!("config name-of-c: there is no file {target:?} on node node-1, ");
    assert!(error.starts_with(&says), "{error}");
    assert!(!there.exists());
    std::fs::write(&there, "").expect("written");
    of(target).expect("a file");
    of("/run/secrets/app/conf").expect("a place of its own");
    for folder in ["/run/secrets", "/etc"] {
        assert!(of(folder).is_err(), "{folder}");
    }
}
