//! Services of images: what is refused, where their tasks run, and who asks for the image.

use weft_model::api::ServiceUpdate;
use weft_model::objects::{HealthConfig, Mount, PullOptions, Runtime, Ulimit};

use super::commands::refused;
use super::updates::change;
use super::*;

const BAD: ErrorKind = ErrorKind::BadRequest;

impl World {
    /// The node has this to run containers; nothing runs none.
    fn runtime(&mut self, n: u8, runtimes: &[&str]) {
        let says = NodeDescription {
            runtimes: runtimes.iter().map(|name| (*name).to_owned()).collect(),
            ..description(n)
        };
        self.change(|s, now, e| update_node(s, now, e, &node(n), &says))
            .unwrap();
    }
}

/// A service of an image.
fn of_image(name: &str, image: &str, replicas: u32) -> ServiceSpec {
    let mut spec = spec(name, replicas);
    let task = task_of(&mut spec);
    task.runtime = Runtime::Container;
    task.container.image = image.to_owned();
    task.container.args.clear();
    spec
}

fn with(edit: impl FnOnce(&mut ContainerSpec)) -> ServiceSpec {
    let mut spec = of_image("web", "nginx:1.27", 1);
    edit(&mut task_of(&mut spec).container);
    spec
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn credentials(text: &str) -> PullOptions {
    PullOptions {
        registry_auth: text.to_owned(),
    }
}

#[test]
fn an_image_has_to_have_a_name_that_there_can_be() {
    let mut world = World::new(1);
    refused(
        world.create(of_image("web", "Nginx", 1)),
        BAD,
        "ContainerSpec: \"Nginx\" is not a valid repository/tag; write NAME[:TAG]",
    );
    refused(
        world.create(of_image("web", "", 1)),
        BAD,
        "ContainerSpec: image reference must be provided",
    );
    let mut host = spec("web", 1);
    task_of(&mut host).runtime = Runtime::Container;
    refused(
        world.create(host),
        BAD,
        "an image of this name is library/host",
    );
    world.create(of_image("web", "library/host", 1)).unwrap();
}

#[test]
fn a_program_of_the_node_is_refused_what_only_containers_have() {
    let mut world = World::new(1);
    let mut host = spec("web", 1);
    task_of(&mut host).container.read_only = true;
    refused(
        world.create(host),
        BAD,
        "a service of image `host` runs a command in the node's own file system and cannot have \
         --read-only: leave it out, or name an image",
    );
    let mut host = spec("web", 1);
    let container = &mut task_of(&mut host).container;
    container.command = vec![text("/bin/sh")];
    container.dir = text("/");
    container.groups = vec![text("video")];
    container.tty = true;
    container.init = Some(false);
    container.mounts = vec![Mount::default()];
    container.hosts = vec![text("10.0.0.1 db")];
    container.dns_config.nameservers = vec![text("10.0.0.1")];
    container.dns_config.search = vec![text("example.org")];
    container.dns_config.options = vec![text("ndots:1")];
    container.sysctls = BTreeMap::from([(text("net.core.somaxconn"), text("1024"))]);
    container.ulimits = vec![Ulimit::default()];
    container.oom_score_adj = 1;
    container.pull_options = credentials("e30");
    refused(
        world.create(host),
        BAD,
        "cannot have --entrypoint, --workdir, --group, --tty, --init, --mount, --host, --dns, \
         --dns-search, --dns-option, --sysctl, --ulimit, --oom-score-adj, --with-registry-auth: \
         leave them out",
    );
    let mut host = spec("web", 1);
    task_of(&mut host).container.labels = BTreeMap::from([(text("a"), text("b"))]);
    world.create(host).unwrap();
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_no_container_can_have_is_refused() {
    let mut world = World::new(1);
    let ulimit = |name: &str, soft, hard| Ulimit {
        name: text(name),
        soft,
        hard,
    };
    let cases: [(ServiceSpec, &str); 17] = [
        (
            with(|c| c.dir = text("www")),
            "the working directory 'www' is invalid, it needs to be an absolute path",
        ),
        (
            with(|c| c.command = vec![text("a\0b")]),
            "the entrypoint \"a\\0b\" has a NUL character",
        ),
        (
            with(|c| c.groups = vec![text("a:b")]),
            "invalid group \"a:b\"",
        ),
        (
            with(|c| c.hosts = vec![text("db 10.0.0.1")]),
            "bad format for add-host: \"db 10.0.0.1\"; write --host NAME:ADDRESS",
        ),
        (
            with(|c| c.hosts = vec![text("host-gateway gw")]),
            "--host gw:host-gateway is no address here",
        ),
        (
            with(|c| c.hosts = vec![text("10.0.0.1 db\n10.0.0.2 x")]),
            "of --host: it has to be one line",
        ),
        (
            with(|c| c.dns_config.nameservers = vec![text("ns.example")]),
            "ns.example is not an ip address",
        ),
        (
            with(|c| c.dns_config.options = vec![text("ndots:1 debug")]),
            "of --dns-search or --dns-option: write one word for each",
        ),
        (
            with(|c| {
                c.sysctls.insert(text("kernel.panic"), text("1"));
            }),
            "sysctl \"kernel.panic\" is not in a separate kernel namespace",
        ),
        (
            with(|c| {
                c.sysctls.insert(text("net.../x"), text("1"));
            }),
            "is not in a separate kernel namespace",
        ),
        (
            with(|c| {
                c.sysctls
                    .insert(text("net.ipv4.conf.eth0:1.mtu"), text("1"));
            }),
            "is not in a separate kernel namespace",
        ),
        (
            with(|c| {
                c.sysctls.insert(text("fs.mqueue./msg_max"), text("1"));
            }),
            "is not in a separate kernel namespace",
        ),
        (
            with(|c| c.ulimits = vec![ulimit("files", 1, 1)]),
            "invalid ulimit type: files; there are core, cpu",
        ),
        (
            with(|c| c.ulimits = vec![ulimit("nofile", 2048, 1024)]),
            "ulimit soft limit must be less than or equal to hard limit: 2048 > 1024",
        ),
        (
            with(|c| c.ulimits = vec![ulimit("nofile", -1, 1024)]),
            "soft limit must be less than or equal to hard limit: -1 > 1024",
        ),
        (
            with(|c| c.oom_score_adj = 1001),
            "invalid oom-score-adj 1001",
        ),
        (
            with(|c| c.pull_options = credentials("the secret")),
            "the credentials for the registry are no base64",
        ),
    ];
    for (spec, says) in cases {
        let error = world.create(spec).unwrap_err();
        assert!(error.message.contains(says), "{says}: {error}");
        assert!(!error.message.contains("the secret"), "{error}");
        assert_eq!(error.kind, BAD, "{error}");
    }
    let fine = with(|c| {
        c.command = vec![text("/bin/server")];
        c.dir = text("/www");
        c.groups = vec![text("video"), text("44")];
        c.hosts = vec![text("10.0.0.1 db"), text("fd00::5 six")];
        c.sysctls = BTreeMap::from([
            (text("net.core.somaxconn"), text("1024")),
            (text("net.ipv4.conf.eth0/7.forwarding"), text("1")),
            (text("kernel.domainname"), text("corp.example")),
        ]);
        c.ulimits = vec![ulimit("nofile", 1024, -1), ulimit("core", -1, -1)];
        c.oom_score_adj = -1000;
        // Those of the image, at other times.
        c.health = Some(HealthConfig {
            retries: 5,
            ..HealthConfig::default()
        });
    });
    world.create(fine).unwrap();
}

#[test]
fn containers_run_where_something_runs_them() {
    let mut world = World::new(3);
    world.create(of_image("web", "nginx", 2)).unwrap();
    let why = |world: &World| -> Vec<String> {
        let tasks = world.wanted("web").into_iter();
        let why = tasks.map(|task| task.status.err);
        why.filter(|err| !err.is_empty()).collect()
    };
    let nowhere = "no suitable node (no container runtime on 3 nodes)";
    assert_eq!(why(&world), [nowhere, nowhere]);
    let told = waiting(&world.state, world.state.find_service("web").unwrap());
    assert!(told[0].contains("install crun or runc"), "{told:?}");
    // Programs of nodes need none.
    world.create(spec("tool", 1)).unwrap();
    assert_eq!(world.spread("tool").get("none"), None);

    world.runtime(2, &["crun"]);
    assert_eq!(world.spread("web"), BTreeMap::from([(text("node2"), 2)]));
    assert!(why(&world).is_empty());
    world.run_tasks();
    // What runs goes on where its runtime is gone; nothing new comes there.
    world.runtime(2, &[]);
    assert_eq!(world.spread("web"), BTreeMap::from([(text("node2"), 2)]));
    world.scale("web", 3);
    assert_eq!(why(&world), [nowhere]);
}

#[test]
fn a_container_on_each_node_is_one_on_each_that_runs_them() {
    let mut world = World::new(3);
    let mut web = of_image("web", "nginx", 1);
    web.mode = ServiceMode::Global;
    world.create(web).unwrap();
    assert!(world.wanted("web").is_empty());
    let told = waiting(&world.state, world.state.find_service("web").unwrap());
    let says = "no node that may run the service has a container runtime; install crun or runc";
    assert!(told[0].starts_with(says), "{told:?}");
    world.runtime(3, &["runc"]);
    assert_eq!(world.spread("web"), BTreeMap::from([(text("node3"), 1)]));
}

#[test]
fn an_image_of_other_machines_runs_on_those() {
    let mut world = World::new(2);
    for (n, architecture) in [(1, "x86_64"), (2, "aarch64")] {
        let says = NodeDescription {
            runtimes: vec![text("crun")],
            platform: Platform {
                architecture: text(architecture),
                os: text("linux"),
            },
            ..description(n)
        };
        world
            .change(|s, now, e| update_node(s, now, e, &node(n), &says))
            .unwrap();
    }
    let on = |architecture: &str| Platform {
        architecture: text(architecture),
        os: text("linux"),
    };
    let mut web = of_image("web", "nginx", 2);
    task_of(&mut web).placement.platforms = vec![on("arm64")];
    world.create(web).unwrap();
    assert_eq!(world.spread("web"), BTreeMap::from([(text("node2"), 2)]));
    let mut web = of_image("mips", "nginx", 1);
    task_of(&mut web).placement.platforms = vec![on("mips64")];
    world.create(web).unwrap();
    assert_eq!(
        world.wanted("mips")[0].status.err,
        "no suitable node (unsupported platform on 2 nodes)"
    );
}

/// What the service is asked to be, in a change that says nothing of who asks for the image.
fn silent(world: &mut World, edit: impl FnOnce(&mut ServiceSpec)) -> String {
    let service = change(world, "web", |spec| {
        task_of(spec).container.pull_options = PullOptions::default();
        edit(spec);
    });
    let task = service.unwrap().spec.task;
    task.container.pull_options.registry_auth.clone()
}

#[test]
fn who_asks_for_the_image_stays_until_somebody_else_does() {
    let mut world = World::new(1);
    world.runtime(1, &["crun"]);
    let mut web = of_image("web", "registry.example:5000/web:1", 2);
    task_of(&mut web).container.pull_options = credentials("Zmlyc3Q=");
    world.create(web).unwrap();
    world.run_tasks();
    let ids = |world: &World| -> Vec<TaskId> {
        let tasks = world.wanted("web").into_iter();
        tasks.map(|task| task.id).collect()
    };
    let before = ids(&world);
    let labelled = silent(&mut world, |spec| {
        spec.labels.insert(text("a"), text("b"));
    });
    assert_eq!(labelled, "Zmlyc3Q=");
    // Another one makes no other tasks, and what comes later asks by it.
    let again = change(&mut world, "web", |spec| {
        task_of(spec).container.pull_options = credentials("c2Vjb25k");
    });
    let asks = &again.unwrap().spec.task.container.pull_options;
    assert_eq!(asks.registry_auth, "c2Vjb25k");
    assert_eq!(ids(&world), before);
    let (running, _) =
        up_to_date_and_desired(&world.state, world.state.find_service("web").unwrap());
    assert_eq!(running, 2);
    world.scale("web", 3);
    for task in world.wanted("web") {
        let asks = &task.spec.container.pull_options;
        assert_eq!(asks.registry_auth, "c2Vjb25k");
    }
    let image = |image: &'static str| {
        move |spec: &mut ServiceSpec| task_of(spec).container.image = text(image)
    };
    let same = silent(&mut world, image("registry.example:5000/web:2"));
    assert_eq!(same, "c2Vjb25k");
    // One registry is not shown what another one asks for.
    let other = silent(&mut world, image("registry.example/web:2"));
    assert_eq!(other, "");
}

#[test]
fn nobody_in_particular_may_ask_from_now_on() {
    let mut world = World::new(1);
    let mut web = of_image("web", "registry.example/web", 1);
    task_of(&mut web).container.pull_options = credentials("Zmlyc3Q=");
    world.create(web).unwrap();
    let service = change(&mut world, "web", |spec| {
        task_of(spec).container.pull_options = credentials(PullOptions::NOBODY);
    });
    assert!(service.unwrap().spec.task.container.pull_options.is_empty());
    // What the service was before asked by itself.
    let back = ServiceUpdate {
        rollback: true,
        ..ServiceUpdate::default()
    };
    let service = world
        .run(|s, now, e| update_service(s, now, e, "web", &back))
        .unwrap();
    let asks = &service.spec.task.container.pull_options;
    assert_eq!(asks.registry_auth, "Zmlyc3Q=");
}

#[test]
fn credentials_go_to_nodes_with_a_task_and_to_no_other() {
    let mut world = World::new(3);
    world.runtime(2, &["crun"]);
    let mut web = of_image("web", "registry.example/web", 1);
    task_of(&mut web).container.pull_options = credentials("VEhFU0VDUkVU");
    world.create(web).unwrap();
    assert_eq!(world.spread("web"), BTreeMap::from([(text("node2"), 1)]));
    for n in 1..=3 {
        let orders = orders_of(&world.state, &node(n)).unwrap();
        let shared = serde_json::to_string(&*orders.shared).unwrap();
        assert!(!shared.contains("VEhFU0VDUkVU"));
        let own = serde_json::to_string(&*orders.own).unwrap();
        assert_eq!(own.contains("VEhFU0VDUkVU"), n == 2, "node {n}");
    }
    let texts = format!("{:?}", world.state.find_service("web"));
    assert!(!texts.contains("VEhFU0VDUkVU"));
}

#[test]
fn long_settings_of_containers_count() {
    let mut world = World::new(1);
    let mounts = (0..129).map(|n| Mount {
        target: format!("/{n}"),
        ..Mount::default()
    });
    let mounts = mounts.collect();
    refused(
        world.create(with(|c| c.mounts = mounts)),
        BAD,
        "129 mounts are too many",
    );
    let command = vec!["x".repeat(4_000); 200];
    refused(
        world.create(with(|c| c.command = command)),
        BAD,
        "and may have 524288",
    );
    let label = BTreeMap::from([(text("a"), "x".repeat(600_000))]);
    refused(
        world.create(with(|c| c.labels = label)),
        BAD,
        "and may have 524288",
    );
}
