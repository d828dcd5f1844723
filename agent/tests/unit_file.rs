//! The unit of systemd, `packaging/weftd.service`, against what the agent needs and promises.

use weft_agent::testing::EXIT_USAGE;
use weft_model::capability;

const UNIT: &str = include_str!("../../packaging/weftd.service");

/// All values of a setting, in the order of the file.
fn values(name: &str) -> Vec<&'static str> {
    let settings = UNIT.lines().filter_map(|line| line.split_once('='));
    let of_name = settings.filter(|(key, _)| *key == name);
    of_name.map(|(_, value)| value).collect()
}

#[test]
fn the_unit_starts_an_agent_again_and_leaves_its_tasks_alone() {
    // The agent says when it is ready (`notify.rs`), and ends with an error for its supervisor.
    assert_eq!(values("Type"), ["notify"]);
    assert_eq!(values("Restart"), ["always"]);
    assert_eq!(values("RestartPreventExitStatus"), [EXIT_USAGE.to_string()]);
    assert_eq!(values("KillMode"), ["process"]);
    let start = values("ExecStart").remove(0);
    let program = start.split(' ').next().unwrap_or_default();
    assert!(program.ends_with("/weftd"), "weft is the agent by its name");
}

#[test]
fn the_unit_gives_what_agent_and_tasks_need() {
    let names: Vec<&str> = values("CapabilityBoundingSet")
        .into_iter()
        .flat_map(str::split_whitespace)
        .collect();
    let has = capability::granted(&names, &["ALL"]).expect("names of capabilities");
    // The last one sets limits and scores of containers.
    let own = [
        "NET_ADMIN",
        "BPF",
        "SYS_ADMIN",
        "SYS_PTRACE",
        "SYS_RESOURCE",
    ];
    let none: [&str; 0] = [];
    let needed = [
        capability::granted(&own, &["ALL"]).expect("names"),
        capability::granted(&none, &none).expect("Docker's"),
    ];
    for needed in needed {
        assert_eq!(
            has.0 & needed.0,
            needed.0,
            "{has:?} lacks some of {needed:?}"
        );
    }
    // As little as that: what loads modules, or starts the machine anew, is not among it.
    let needed = needed.iter().fold(0, |all, some| all | some.0);
    assert_eq!(has.0, needed, "{has:?}");
    assert_eq!(values("DeviceAllow"), ["/dev/net/tun rw"]);
}

#[test]
fn the_unit_keeps_the_mounts_of_the_machine_and_hands_no_filter_to_tasks() {
    // A mount namespace of the agent's own: what it binds for tasks ends with it (systemd.exec(5)).
    let mounts = [
        "Protect",
        "Private",
        "ReadOnly",
        "ReadWrite",
        "Inaccessible",
        "Bind",
        "Temporary",
        "Root",
        "Mount",
        "ProcSubset",
        "DynamicUser",
    ];
    // Removed at each stop, with the namespaces bound there.
    let folders = ["RuntimeDirectory"];
    let inherited = [
        "SystemCall",
        "RestrictAddressFamilies",
        "RestrictNamespaces",
        "RestrictRealtime",
        "RestrictSUIDSGID",
        "RestrictFileSystems",
        "NoNewPrivileges",
        "MemoryDeny",
        "LockPersonality",
        "SecureBits",
    ];
    for (key, _) in UNIT.lines().filter_map(|line| line.split_once('=')) {
        let mut unwanted = mounts.iter().chain(&folders).chain(&inherited);
        let found = unwanted.find(|start| key.starts_with(**start));
        assert!(found.is_none(), "{key}=");
    }
}
