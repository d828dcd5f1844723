//! What a stack comes to.

mod refused;

use std::time::Duration;

use weft_model::objects::{
    EndpointMode, FailureAction, MountType, Propagation, Protocol, PublishMode, RestartCondition,
    RestartPolicy, Runtime, STACK_IMAGE_LABEL, ServiceMode, Subnet, TaskSpec, UpdateConfig,
    UpdateOrder,
};

use super::*;
use crate::{Interpolation, Source, Surroundings, load};

fn stack(text: &str) -> Stack {
    let surroundings = Surroundings {
        variable: &|_| None,
        file: &|_| Err("no such file".to_owned()),
        folder: "/srv",
        home: None,
        interpolation: Interpolation::Done,
    };
    let source = [Source {
        name: "a.yml",
        text,
    }];
    load(&source, &surroundings).expect("a stack").stack
}

fn made(text: &str) -> Deployment {
    deployment(&stack(text), "shop").expect("a deployment")
}

/// The service `web` of a stack, of which this is said below its name.
fn web(lines: &str) -> ServiceSpec {
    let mut text = "services:\n  web:\n    image: web:1\n".to_owned();
    for line in lines.lines() {
        text.push_str(&format!("    {line}\n"));
    }
    made(&text).services.swap_remove(0).spec
}

fn refused(text: &str) -> Vec<String> {
    let problems = deployment(&stack(text), "shop").expect_err("refused");
    problems.0.iter().map(ToString::to_string).collect()
}

/// What is wrong with the service `web` where this is said below its name.
fn web_refused(lines: &str) -> Vec<String> {
    let mut text = "services:\n  web:\n    image: web:1\n".to_owned();
    for line in lines.lines() {
        text.push_str(&format!("    {line}\n"));
    }
    refused(&text)
}

#[test]
fn what_is_not_said_is_what_flags_make() {
    let made = made("services: {web: {image: nginx}}\n");
    assert_eq!(made.name, "shop");
    assert_eq!(made.warnings, Vec::<String>::new());
    assert!(made.secrets.is_empty() && made.configs.is_empty());
    let [network] = &made.networks[..] else {
        panic!("one network: {:?}", made.networks);
    };
    assert_eq!(network.key, "default");
    assert!(!network.external && !network.spec.attachable);
    assert_eq!(network.spec.name, "shop_default");
    assert_eq!(network.spec.labels[STACK_LABEL], "shop");
    let spec = &made.services[0].spec;
    assert_eq!(spec.name, "shop_web");
    assert_eq!(spec.labels[STACK_LABEL], "shop");
    assert_eq!(spec.labels[STACK_IMAGE_LABEL], "nginx");
    assert_eq!(spec.mode, ServiceMode::Replicated { replicas: 1 });
    assert_eq!(spec.update, UpdateConfig::default());
    assert_eq!(spec.rollback, UpdateConfig::default());
    let task = &spec.task;
    assert_eq!(task.runtime, Runtime::Container);
    assert_eq!(task.restart, RestartPolicy::default());
    assert_eq!(task.container.labels[STACK_LABEL], "shop");
    assert_eq!(task.networks.len(), 1);
    assert_eq!(task.networks[0].target, "shop_default");
    assert_eq!(task.networks[0].aliases, ["web"]);
    // Nothing else is said.
    let mut rest = (**task).clone();
    rest.runtime = Runtime::Host;
    rest.networks.clear();
    rest.container.labels.clear();
    rest.container.image.clear();
    assert_eq!(rest, TaskSpec::default());
}

#[test]
fn a_container_has_what_the_file_says() {
    let spec = web(
        "entrypoint: /bin/run -x\ncommand: [serve, \"a b\"]\nenvironment: {B: \"2\", A: \"1\", GONE: null}\n\
         hostname: \"web-{{.Task.Slot}}\"\nuser: \"33:33\"\nworking_dir: /srv\ngroup_add: [video]\n\
         tty: true\nread_only: true\ninit: true\nstop_signal: SIGQUIT\nstop_grace_period: 1m30s\n\
         sysctls: {net.core.somaxconn: 1024}\nulimits: {nproc: 65535, nofile: {soft: 20, hard: 40}}\n\
         cap_add: [net_admin, CHOWN]\ncap_drop: [ALL]\ndns: [192.0.2.53]\ndns_search: [example]\n\
         dns_opt: [ndots:2]\nextra_hosts: [\"db:10.0.0.5\", \"six=[fd00::5]\"]\noom_score_adj: -500\n\
         labels: {a: b}\n",
    );
    let container = &spec.task.container;
    assert_eq!(container.command, ["/bin/run", "-x"]);
    assert_eq!(container.args, ["serve", "a b"]);
    assert_eq!(container.env, ["A=1", "B=2", "GONE"]);
    assert_eq!(container.hostname, "web-{{.Task.Slot}}");
    assert_eq!(
        (container.user.as_str(), container.dir.as_str()),
        ("33:33", "/srv")
    );
    assert_eq!(container.groups, ["video"]);
    assert!(container.tty && container.read_only);
    assert_eq!(container.init, Some(true));
    assert_eq!(container.stop_signal, "SIGQUIT");
    assert_eq!(container.stop_grace, Duration::from_secs(90));
    assert_eq!(container.sysctls["net.core.somaxconn"], "1024");
    let limits: Vec<_> = container
        .ulimits
        .iter()
        .map(|limit| (limit.name.as_str(), limit.soft, limit.hard))
        .collect();
    assert_eq!(limits, [("nofile", 20, 40), ("nproc", 65535, 65535)]);
    assert_eq!(container.cap_add, ["CAP_CHOWN", "CAP_NET_ADMIN"]);
    assert_eq!(container.cap_drop, ["ALL"]);
    assert_eq!(container.dns_config.nameservers, ["192.0.2.53"]);
    assert_eq!(container.dns_config.search, ["example"]);
    assert_eq!(container.dns_config.options, ["ndots:2"]);
    assert_eq!(container.hosts, ["10.0.0.5 db", "fd00::5 six"]);
    assert_eq!(container.oom_score_adj, -500);
    assert_eq!(container.labels["a"], "b");
    assert!(!spec.labels.contains_key("a"));
}

#[test]
fn checks_of_health_are_dockers() {
    let health = |lines: &str| web(lines).task.container.health.clone();
    let asked = health(
        "healthcheck: {test: curl -f localhost, interval: 30s, timeout: 1500ms, retries: 3, \
         start_period: 1m, start_interval: 2s}",
    );
    let asked = asked.expect("a check");
    assert_eq!(asked.test, ["CMD-SHELL", "curl -f localhost"]);
    assert_eq!(asked.interval, Duration::from_secs(30));
    assert_eq!(asked.timeout, Duration::from_millis(1500));
    assert_eq!(asked.start_period, Duration::from_secs(60));
    assert_eq!(asked.start_interval, Duration::from_secs(2));
    assert_eq!(asked.retries, 3);
    assert!(health("healthcheck: {disable: true}").is_some_and(|health| health.is_none()));
    assert!(health("healthcheck: {test: [NONE]}").is_some_and(|health| health.is_none()));
    let timed = health("healthcheck: {retries: 7}").expect("that of the image");
    assert_eq!((timed.retries, timed.test.len()), (7, 0));
    assert_eq!(health("healthcheck: {}"), None);
    let errors = web_refused("healthcheck: {test: [CMD]}");
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        errors[0].starts_with("a.yml:4:5: services.web.healthcheck.test names no command"),
        "{errors:?}"
    );
    let errors = web_refused("healthcheck: {test: [CMD, a], timeout: 500us, interval: 48h}");
    assert!(
        errors[0].contains("interval is 172800 s long"),
        "{errors:?}"
    );
    assert!(
        errors[1].contains("timeout cannot be less than 1ms"),
        "{errors:?}"
    );
}

#[test]
fn deploy_says_how_many_where_and_how() {
    let spec = web(
        "deploy:\n  replicas: 6\n  labels: {com.example: web}\n  endpoint_mode: dnsrr\n  \
         update_config: {parallelism: 2, delay: 10s, order: start-first, failure_action: rollback, \
         monitor: 60s, max_failure_ratio: 0.25}\n  \
         rollback_config: {parallelism: 0, failure_action: continue}\n  \
         resources:\n    limits: {cpus: \"0.5\", memory: 50M, pids: 100}\n    \
         reservations: {cpus: \"0.25\", memory: 20M}\n  \
         placement:\n    constraints: [node.role == worker]\n    \
         preferences: [{spread: node.labels.zone}]\n    max_replicas_per_node: 3\n  \
         restart_policy: {condition: on-failure, delay: 3s, max_attempts: 4, window: 2m}\n",
    );
    assert_eq!(spec.mode, ServiceMode::Replicated { replicas: 6 });
    assert_eq!(spec.labels["com.example"], "web");
    assert_eq!(spec.endpoint.mode, EndpointMode::Dnsrr);
    assert_eq!(spec.update.parallelism, 2);
    assert_eq!(spec.update.delay, Duration::from_secs(10));
    assert_eq!(spec.update.order, UpdateOrder::StartFirst);
    assert_eq!(spec.update.failure_action, FailureAction::Rollback);
    assert_eq!(spec.update.monitor, Duration::from_secs(60));
    assert_eq!(spec.update.max_failure_ratio.to_string(), "0.25");
    let rollback = UpdateConfig {
        parallelism: 0,
        failure_action: FailureAction::Continue,
        ..UpdateConfig::default()
    };
    assert_eq!(spec.rollback, rollback);
    let task = &spec.task;
    assert_eq!(task.resources.limits.nano_cpus, 500_000_000);
    assert_eq!(task.resources.limits.memory_bytes, 50 << 20);
    assert_eq!(task.resources.limits.pids, 100);
    assert_eq!(task.resources.reservations.nano_cpus, 250_000_000);
    assert_eq!(task.resources.reservations.memory_bytes, 20 << 20);
    assert_eq!(task.placement.constraints, ["node.role == worker"]);
    let spread = &task.placement.preferences[0].spread.spread_descriptor;
    assert_eq!(spread, "node.labels.zone");
    assert_eq!(task.placement.max_replicas, 3);
    assert_eq!(task.restart.condition, RestartCondition::OnFailure);
    assert_eq!(task.restart.delay, Duration::from_secs(3));
    assert_eq!(task.restart.max_attempts, 4);
    assert_eq!(task.restart.window, Duration::from_secs(120));
    for (mode, is) in [
        ("global", ServiceMode::Global),
        ("global-job", ServiceMode::GlobalJob),
        (
            "replicated-job",
            ServiceMode::ReplicatedJob {
                max_concurrent: 1,
                total_completions: 1,
            },
        ),
    ] {
        assert_eq!(web(&format!("deploy: {{mode: {mode}}}")).mode, is);
    }
    let job = web("deploy: {mode: replicated-job, replicas: 5}").mode;
    let all = ServiceMode::ReplicatedJob {
        max_concurrent: 5,
        total_completions: 5,
    };
    assert_eq!(job, all);
}

#[test]
fn restart_counts_where_deploy_is_silent() {
    let restart = |lines: &str| web(lines).task.restart;
    for word in ["always", "unless-stopped", "\"no\""] {
        let lines = format!("restart: {word}");
        assert_eq!(restart(&lines), RestartPolicy::default(), "{word}");
    }
    let failed = restart("restart: on-failure:3");
    assert_eq!(failed.condition, RestartCondition::OnFailure);
    assert_eq!(failed.max_attempts, 3);
    assert_eq!(failed.delay, RestartPolicy::default().delay);
    let both = restart("restart: on-failure\ndeploy: {restart_policy: {condition: none}}");
    assert_eq!(both.condition, RestartCondition::None);
    let made = made("services: {web: {image: a, restart: \"no\"}}\n");
    assert_eq!(made.warnings.len(), 1, "{:?}", made.warnings);
    assert!(made.warnings[0].contains("write deploy.restart_policy.condition: none"));
}

#[test]
fn ports_have_their_addresses() {
    let ports = web(
        "ports:\n  - \"127.0.0.1:8443:443\"\n  - \"53:53/udp\"\n  - {target: 80, published: 8080, mode: host}\n  - 9000",
    )
    .endpoint
    .ports;
    let shown: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let is = [
        "9000/tcp",
        "53->53/udp",
        "8080->80/tcp",
        "127.0.0.1:8443->443/tcp",
    ];
    assert_eq!(shown, is);
    assert_eq!(ports[1].protocol, Protocol::Udp);
    assert_eq!(ports[2].mode, PublishMode::Host);
    let any = web("ports: [{target: 80, published: 80, host_ip: 0.0.0.0}]");
    assert_eq!(any.endpoint.ports[0].host_ip, None);
    for (lines, says) in [
        (
            "ports: [\"80:80/sctp\"]",
            "services.web.ports.0 has the protocol sctp",
        ),
        (
            "ports: [\"80:80\"]\ndeploy: {endpoint_mode: dnsrr}",
            "services.web.ports.0 a port with `mode: ingress` can't be used with `endpoint_mode: dnsrr`; \
             write `mode: host`",
        ),
    ] {
        let errors = web_refused(lines);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with("a.yml:4:13: "), "{errors:?}");
        assert!(errors[0].contains(says), "{errors:?}");
    }
}

#[test]
fn published_ports_know_where_they_are_written() {
    let text = "services:\n  web:\n    image: a\n    ports:\n      - 80\n      - \"8000-8001:80\"\n      \
                - {target: 53, published: 53, protocol: udp, mode: host}\n";
    let ports = made(text).ports;
    let told: Vec<String> = ports
        .iter()
        .map(|port| {
            let (service, at, path) = (&port.service, &port.at, &port.path);
            format!("{service} {at} {path} {}", port.spec.published)
        })
        .collect();
    // A port that managers choose is none that anybody can have.
    let are = [
        "shop_web a.yml:6:9 services.web.ports.1 8000",
        "shop_web a.yml:6:9 services.web.ports.2 8001",
        "shop_web a.yml:7:9 services.web.ports.3 53",
    ];
    assert_eq!(told, are);
}

#[test]
fn mounts_carry_their_volumes() {
    let text = "\
services:
  web:
    image: web
    volumes:
      - data:/data:nocopy
      - named:/named
      - outer:/outer:ro
      - /own
      - /etc/x:/x:ro,rslave
      - {type: bind, source: ./y, target: /y, bind: {create_host_path: true}}
      - {type: tmpfs, target: /cache, tmpfs: {size: 64m, mode: 0o1770}}
      - {type: volume, source: data, target: /sub, volume: {subpath: a/b}}
    tmpfs: /run
volumes:
  data:
    driver_opts: {type: nfs, device: \":/x\", o: addr=nas}
    labels: {keep: \"yes\"}
  named: {name: shared}
  outer: {external: true}
";
    let made = made(text);
    let mounts = &made.services[0].spec.task.container.mounts;
    let at = |target: &str| {
        let mount = mounts.iter().find(|mount| mount.target == target);
        mount.expect(target).clone()
    };
    let data = at("/data");
    assert_eq!(
        (data.kind, data.source.as_str()),
        (MountType::Volume, "shop_data")
    );
    let options = data.volume_options.expect("options");
    assert!(options.no_copy);
    assert_eq!(options.labels[STACK_LABEL], "shop");
    assert_eq!(options.labels["keep"], "yes");
    let driver = options.driver_config.expect("a driver");
    assert_eq!((driver.name.as_str(), driver.options.len()), ("", 3));
    let named = at("/named");
    assert_eq!(named.source, "shared");
    assert_eq!(named.volume_options.expect("options").driver_config, None);
    let outer = at("/outer");
    assert_eq!((outer.source.as_str(), outer.read_only), ("outer", true));
    assert_eq!(outer.volume_options, None);
    let own = at("/own");
    assert_eq!((own.kind, own.source.as_str()), (MountType::Volume, ""));
    assert_eq!(own.volume_options, None);
    let bind = at("/x");
    assert_eq!(
        (bind.kind, bind.source.as_str()),
        (MountType::Bind, "/etc/x")
    );
    let options = bind.bind_options.expect("options");
    assert_eq!(options.propagation, Propagation::Rslave);
    assert!(!options.create_mountpoint);
    let made_there = at("/y");
    assert_eq!(made_there.source, "/srv/y");
    assert!(made_there.bind_options.expect("options").create_mountpoint);
    let cache = at("/cache").tmpfs_options.expect("options");
    assert_eq!((cache.size_bytes, cache.mode), (64 << 20, 0o1770));
    assert_eq!(at("/run").kind, MountType::Tmpfs);
    let sub = at("/sub").volume_options.expect("options");
    assert_eq!(sub.subpath, "a/b");
}

#[test]
fn networks_are_those_that_services_use() {
    let text = "\
services:
  web:
    image: web
    networks:
      front: {aliases: [www, web]}
      outer:
  db: {image: db, networks: [back]}
networks:
  front:
    internal: true
    attachable: true
    enable_ipv6: true
    ipam: {driver: default, config: [{subnet: 10.9.0.0/24}]}
    labels: {a: b}
  back: {name: db-net}
  outer: {external: true, name: prod}
  unused: {}
";
    let made = made(text);
    let names: Vec<(&str, &str, bool)> = made
        .networks
        .iter()
        .map(|network| {
            (
                network.key.as_str(),
                network.spec.name.as_str(),
                network.external,
            )
        })
        .collect();
    let are = [
        ("back", "db-net", false),
        ("front", "shop_front", false),
        ("outer", "prod", true),
    ];
    assert_eq!(names, are);
    let front = &made.networks[1].spec;
    assert!(front.internal && front.attachable && front.ipv6);
    let subnet: ipnet::IpNet = "10.9.0.0/24".parse().expect("a subnet");
    assert_eq!(front.ipam.config, [Subnet::from(subnet)]);
    assert_eq!(front.labels["a"], "b");
    let web = &made.services[0].spec.task.networks;
    // In the order of their names.
    assert_eq!(web[0].target, "prod");
    assert_eq!(web[0].aliases, Vec::<String>::new());
    assert_eq!(web[0].stack_aliases, ["web"]);
    assert_eq!(web[1].target, "shop_front");
    assert_eq!(web[1].aliases, ["www", "web"]);
    assert_eq!(web[1].stack_aliases, Vec::<String>::new());
    let db = &made.services[1].spec.task.networks;
    assert_eq!((db[0].target.as_str(), db[0].aliases.len()), ("db-net", 1));
}

#[test]
fn secrets_and_configs_are_files() {
    let text = "\
services:
  web:
    image: web
    secrets:
      - key
      - {source: outer, target: /etc/outer, uid: \"103\", gid: \"104\", mode: 0400}
    configs: [conf]
secrets:
  key: {file: ./key.txt, labels: {a: b}}
  outer: {external: true, name: prod-key}
  idle: {environment: IDLE}
  gone: {external: true}
configs:
  conf: {content: x, name: conf-v1, template_driver: golang}
";
    let made = made(text);
    let secrets: Vec<_> = made
        .secrets
        .iter()
        .map(|secret| (secret.spec.name.as_str(), secret.origin.clone()))
        .collect();
    // Of those that are there already only what is used.
    let are = [
        ("shop_idle", Origin::Environment("IDLE".to_owned())),
        ("shop_key", Origin::File("/srv/key.txt".to_owned())),
        ("prod-key", Origin::External),
    ];
    assert_eq!(secrets, are);
    assert_eq!(made.secrets[1].spec.labels[STACK_LABEL], "shop");
    assert_eq!(made.secrets[1].spec.labels["a"], "b");
    assert!(made.secrets[1].spec.data.is_empty());
    assert!(made.secrets[2].spec.labels.is_empty());
    let config = &made.configs[0];
    assert_eq!(config.spec.name, "conf-v1");
    assert_eq!(config.origin, Origin::Content("x".to_owned()));
    let driver = config.spec.templating.as_ref().expect("a template");
    assert_eq!(driver.name, "golang");
    let container = &made.services[0].spec.task.container;
    let secret = &container.secrets[0];
    assert_eq!(secret.name, "prod-key");
    assert_eq!(secret.id.as_str(), "");
    assert_eq!(secret.file.name, "/etc/outer");
    assert_eq!(
        (secret.file.uid.as_str(), secret.file.gid.as_str()),
        ("103", "104")
    );
    assert_eq!(secret.file.mode, 0o400);
    let secret = &container.secrets[1];
    assert_eq!(
        (secret.name.as_str(), secret.file.name.as_str()),
        ("shop_key", "key")
    );
    assert_eq!(secret.file.mode, 0o444);
    let targets: Vec<String> = container.payloads().map(|one| one.target()).collect();
    assert_eq!(targets, ["/etc/outer", "/run/secrets/key", "/conf"]);
}

#[test]
fn services_come_behind_those_they_depend_on() {
    let text = "\
services:
  web: {image: a, depends_on: {cache: {condition: service_started}, db: {condition: service_healthy}}}
  log: {image: a}
  db: {image: a, depends_on: {init: {condition: service_completed_successfully}}}
  cache: {image: a, depends_on: [db]}
  init: {image: a, deploy: {mode: replicated-job}}
";
    let made = made(text);
    let names: Vec<&str> = made
        .services
        .iter()
        .map(|service| service.key.as_str())
        .collect();
    assert_eq!(names, ["init", "db", "cache", "web", "log"]);
    let web = &made.services[3].depends_on;
    let are = [
        ("shop_cache".to_owned(), Condition::Started),
        ("shop_db".to_owned(), Condition::Healthy),
    ];
    assert_eq!(*web, are);
    let db = &made.services[1].depends_on;
    assert_eq!(*db, [("shop_init".to_owned(), Condition::Completed)]);
}

#[test]
fn weft_has_a_word_of_its_own() {
    assert!(web("x-weft: {names-before-healthy: true}").names_before_healthy);
    assert!(!web("x-weft: {names-before-healthy: false}").names_before_healthy);
    let host = made("services: {a: {image: host, command: [sleep, \"1\"]}}\n");
    assert_eq!(host.services[0].spec.task.runtime, Runtime::Host);
}
