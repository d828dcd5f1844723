//! What the runtime program is told, field by field.

use std::time::Duration;

use oci_spec::image::ImageConfiguration;
use serde_json::{Value, json};
use weft_model::objects::{Privileges, Propagation, Ulimit};

use super::*;
use crate::cgroups::CgroupKind;
use crate::merged::merge;
use crate::node::tests::{node, one};

/// Docker's fourteen.
const DEFAULT: u64 = 0xa804_25fb;

struct Case {
    dir: tempfile::TempDir,
    spec: ContainerSpec,
    node: Node,
    capabilities: u64,
    limits: ResourceLimits,
    mounts: Vec<TaskMount>,
    init: Option<PathBuf>,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::create_dir(dir.path().join("etc")).expect("made");
        let passwd = "root:x:0:0::/root:/bin/sh\nwww:x:33:34::/:/bin/sh\n";
        std::fs::write(dir.path().join("etc/passwd"), passwd).expect("written");
        std::fs::write(dir.path().join("etc/group"), "adm:x:4:www\n").expect("written");
        Self {
            dir,
            spec: ContainerSpec {
                args: vec!["serve".to_owned(), "-f".to_owned()],
                ..ContainerSpec::default()
            },
            node: node(),
            capabilities: DEFAULT,
            limits: ResourceLimits::default(),
            mounts: Vec::new(),
            init: None,
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn bundle(&self) -> Result<Spec, BundleError> {
        let image: ImageConfiguration = serde_json::from_value(json!({
            "architecture": "amd64", "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": [] },
        }))
        .expect("a configuration");
        let merged = merge(&self.spec, &image, None).expect("merged");
        let files = [(PathBuf::from("/tasks/t/hosts"), "/etc/hosts")];
        let container = Container {
            id: "0123",
            merged: &merged,
            spec: &self.spec,
            rootfs: self.dir.path(),
            netns: Path::new("/run/netns/t"),
            hostname: "web.1",
            files: &files,
            mounts: &self.mounts,
            cgroup: Path::new("/weft/n1/t"),
            limits: self.limits,
            capabilities: self.capabilities,
            init: self.init.as_deref(),
        };
        on(&self.node, &container)
    }

    fn json(&self) -> Value {
        serde_json::to_value(self.bundle().expect("described")).expect("JSON")
    }
}

fn sorted(value: &Value) -> Vec<&str> {
    let words = value.as_array().expect("a list").iter();
    let mut words: Vec<&str> = words.map(|word| word.as_str().expect("a word")).collect();
    words.sort_unstable();
    words
}

#[test]
fn a_plain_container_is_dockers() {
    let case = Case::new();
    let json = case.json();
    assert_eq!(json["ociVersion"], "1.0.2");
    assert_eq!(json["hostname"], "web.1");
    assert_eq!(json["root"]["path"], case.dir.path().display().to_string());
    assert_eq!(json["root"]["readonly"], false);
    let process = &json["process"];
    assert_eq!(process["args"], json!(["serve", "-f"]));
    assert_eq!(process["cwd"], "/");
    assert_eq!(process["env"][1], "HOSTNAME=web.1");
    assert_eq!(process["user"]["uid"], 0);
    assert_eq!(process["terminal"], false);
    assert_eq!(process["noNewPrivileges"], false);
    assert_eq!(process["oomScoreAdj"], 0);
    assert_eq!(process["rlimits"], json!([]));
    assert_eq!(process.get("apparmorProfile"), None);
    let capabilities = &process["capabilities"];
    for set in ["bounding", "effective", "permitted"] {
        let names = sorted(&capabilities[set]);
        assert_eq!(names.len(), 14, "{set}");
        assert!(names.contains(&"CAP_NET_BIND_SERVICE") && names.contains(&"CAP_SETFCAP"));
    }
    assert_eq!(capabilities["inheritable"], json!([]));
    assert_eq!(capabilities["ambient"], json!([]));

    let linux = &json["linux"];
    let namespaces = json!([
        { "type": "mount" }, { "type": "uts" }, { "type": "pid" }, { "type": "ipc" },
        { "type": "cgroup" }, { "type": "network", "path": "/run/netns/t" },
    ]);
    assert_eq!(linux["namespaces"], namespaces);
    assert_eq!(linux["cgroupsPath"], "/weft/n1/t");
    let devices = linux["resources"]["devices"].as_array().expect("rules");
    assert_eq!(devices[0], json!({ "allow": false, "access": "rwm" }));
    assert_eq!(devices.len(), 7);
    assert_eq!(linux["resources"].get("memory"), None);
    assert_eq!(linux["sysctl"], json!({}));
    assert!(sorted(&linux["maskedPaths"]).contains(&"/sys/devices/virtual/powercap"));
    assert!(sorted(&linux["readonlyPaths"]).contains(&"/proc/sys"));
    assert_eq!(linux["seccomp"]["defaultAction"], "SCMP_ACT_ALLOW");
    assert_eq!(linux.get("rootfsPropagation"), None);
    let mounts = json["mounts"].as_array().expect("mounts");
    let last = mounts.last().expect("one");
    assert_eq!(last["destination"], "/etc/hosts");
    assert_eq!(last["source"], "/tasks/t/hosts");
}

#[test]
fn what_is_asked_for_is_there() {
    let case = Case::new().with(|case| {
        case.spec = ContainerSpec {
            user: "www".to_owned(),
            groups: vec!["50".to_owned()],
            dir: "/srv/app".to_owned(),
            tty: true,
            read_only: true,
            oom_score_adj: -500,
            privileges: Privileges {
                no_new_privileges: true,
            },
            sysctls: [
                ("net.core.somaxconn".to_owned(), "1024".to_owned()),
                ("kernel.shmmax".to_owned(), "1".to_owned()),
            ]
            .into(),
            ulimits: vec![Ulimit {
                name: "nofile".to_owned(),
                hard: -1,
                soft: 1024,
            }],
            stop_grace: Duration::from_secs(1),
            ..case.spec.clone()
        };
        case.init = Some("/usr/bin/catatonit".into());
        case.node.apparmor = Some("docker-default");
        case.node.thermal = vec!["/sys/devices/system/cpu/cpu0/thermal_throttle".to_owned()];
        case.mounts = vec![TaskMount::Bind {
            source: "/srv/data".into(),
            target: "/data".into(),
            read_only: true,
            recursive_read_only: false,
            recursive: true,
            propagation: Propagation::Rprivate,
        }];
    });
    let json = case.json();
    let process = &json["process"];
    let args = json!(["/sbin/docker-init", "--", "serve", "-f"]);
    assert_eq!(process["args"], args);
    assert_eq!(process["cwd"], "/srv/app");
    let user = json!({ "uid": 33, "gid": 34, "additionalGids": [34, 4, 50] });
    assert_eq!(process["user"], user);
    assert_eq!(
        (&process["terminal"], &process["noNewPrivileges"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(process["oomScoreAdj"], -500);
    assert_eq!(process["apparmorProfile"], "docker-default");
    let nofile = json!([{ "type": "RLIMIT_NOFILE", "hard": u64::MAX, "soft": 1024 }]);
    assert_eq!(process["rlimits"], nofile);
    // Others than root have nothing but what a file gives them, as far as this.
    assert_eq!(sorted(&process["capabilities"]["bounding"]).len(), 14);
    assert_eq!(process["capabilities"]["effective"], json!([]));
    assert_eq!(process["capabilities"]["permitted"], json!([]));
    assert_eq!(json["root"]["readonly"], true);
    // Those of the network are the agent's to set.
    assert_eq!(json["linux"]["sysctl"], json!({ "kernel.shmmax": "1" }));
    let masked = sorted(&json["linux"]["maskedPaths"]);
    assert!(masked.contains(&"/sys/devices/system/cpu/cpu0/thermal_throttle"));
    let mounts = json["mounts"].as_array().expect("mounts");
    let at = |place: &str| mounts.iter().find(|mount| mount["destination"] == place);
    let init = at("/sbin/docker-init").expect("mounted");
    assert_eq!(init["source"], "/usr/bin/catatonit");
    assert_eq!(init["options"], json!(["bind", "ro", "rprivate"]));
    assert_eq!(at("/data").expect("mounted")["options"][1], "ro");
    assert_eq!(at("/etc/hosts").expect("mounted")["options"][1], "ro");
}

#[test]
fn limits_are_dockers_numbers() {
    let limits = |nano_cpus, memory_bytes, pids| ResourceLimits {
        nano_cpus,
        memory_bytes,
        pids,
    };
    let of = |limits, counts_swap| {
        let case = Case::new().with(|case| {
            case.limits = limits;
            case.node.counts_swap = counts_swap;
        });
        case.json()["linux"]["resources"].clone()
    };
    let all = of(limits(500_000_000, 64 << 20, 20), true);
    assert_eq!(
        all["memory"],
        json!({ "limit": 67_108_864, "swap": 134_217_728 })
    );
    assert_eq!(all["cpu"], json!({ "period": 100_000, "quota": 50_000 }));
    assert_eq!(all["pids"], json!({ "limit": 20 }));
    let without_swap = of(limits(1_000_000, 64 << 20, 0), false);
    assert_eq!(without_swap["memory"], json!({ "limit": 67_108_864 }));
    assert_eq!(
        without_swap["cpu"],
        json!({ "period": 1_000_000, "quota": 1_000 })
    );
    assert_eq!(without_swap.get("pids"), None);
}

#[test]
fn old_control_groups_have_no_namespace_and_none_are_not_asked_for() {
    let of = |kind| Case::new().with(|case| case.node.cgroups = kind).json()["linux"].clone();
    for kind in [CgroupKind::V1, CgroupKind::Hybrid] {
        let linux = of(kind);
        assert!(!linux["namespaces"].to_string().contains("cgroup"));
        assert_eq!(linux["cgroupsPath"], "/weft/n1/t");
    }
    let none = of(CgroupKind::None);
    assert_eq!(
        (none.get("resources"), none.get("cgroupsPath")),
        (None, None)
    );
}

#[test]
fn without_root_nothing_is_limited_and_there_is_one_user() {
    let rootless = |user: &str| {
        Case::new().with(|case| {
            case.spec.user = user.to_owned();
            case.spec.groups = vec!["4".to_owned()];
            (case.node.uids, case.node.gids) = (one(), one());
            case.limits.memory_bytes = 64 << 20;
        })
    };
    let json = rootless("").json();
    assert_eq!(json["linux"].get("resources"), None);
    assert_eq!(json["linux"].get("cgroupsPath"), None);
    assert_eq!(json["process"]["user"]["additionalGids"], json!([0]));
    assert_eq!(json["process"].get("oomScoreAdj"), None);
    assert!(!json["mounts"].to_string().contains("cgroup"));
    let error = rootless("www").bundle().expect_err("one user").to_string();
    assert!(
        error.contains("to be user 33, and this node has none"),
        "{error}"
    );
}

#[test]
fn what_is_not_the_containers_own_is_refused() {
    let sysctl = |key: &str| {
        let case = Case::new().with(|case| {
            case.spec.sysctls = [(key.to_owned(), "1".to_owned())].into();
        });
        case.bundle().map(|_| ())
    };
    for own in [
        "net.core.somaxconn",
        "net.ipv4.conf.eth0/7.forwarding",
        "kernel.msgmax",
        "kernel.domainname",
        "fs.mqueue.msg_max",
    ] {
        sysctl(own).expect(own);
    }
    for odd in [
        "kernel.core_pattern",
        "vm.swappiness",
        "kernel.msgmax2",
        "net/../kernel.core_pattern",
        "net.//.kernel.core_pattern",
        "net.ipv4.conf.eth0:1.mtu",
        "fs.mqueue./msg_max",
        "",
    ] {
        let error = sysctl(odd).expect_err(odd).to_string();
        assert!(
            error.starts_with(&format!("sysctl {odd:?} is not allowed")),
            "{error}"
        );
    }
    let nobody = Case::new().with(|case| case.spec.user = "nobody-here".to_owned());
    let error = nobody.bundle().expect_err("unknown").to_string();
    assert!(
        error.starts_with("unable to find user nobody-here"),
        "{error}"
    );
    let above = Case::new().with(|case| {
        case.spec.ulimits = vec![Ulimit {
            name: "nofile".to_owned(),
            hard: 1,
            soft: 2,
        }];
    });
    let error = above.bundle().expect_err("above").to_string();
    assert!(
        error.ends_with("less than or equal to hard limit: 2 > 1"),
        "{error}"
    );
}

#[test]
fn capabilities_that_the_kernel_does_not_know_are_not_asked_for() {
    let case = Case::new().with(|case| {
        case.capabilities = (1 << 41) - 1;
        case.node.last_capability = 37;
    });
    let json = case.json();
    let names = sorted(&json["process"]["capabilities"]["bounding"]);
    assert_eq!(names.len(), 38);
    assert!(!names.contains(&"CAP_BPF"));
}

#[test]
fn the_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().expect("dir");
    let spec = Case::new().bundle().expect("described");
    write(dir.path(), &spec).expect("written");
    let file = dir.path().join("config.json");
    let mode = std::fs::metadata(&file)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(Spec::load(&file).expect("read"), spec);
    let error = write(Path::new("/no/such"), &spec)
        .expect_err("no folder")
        .to_string();
    assert!(
        error.starts_with("cannot write /no/such/config.json"),
        "{error}"
    );
}

/// What this very machine has is read without errors.
#[test]
fn a_container_of_this_machine_is_described() {
    let case = Case::new();
    let case = Case {
        node: Node::read(),
        ..case
    };
    let json = case.json();
    let namespaces = json["linux"]["namespaces"].as_array().expect("some");
    assert!(namespaces.len() >= 5, "{namespaces:?}");
}
