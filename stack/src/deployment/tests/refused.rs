//! What weft cannot carry out, each by the place where it is written.

use super::*;

#[test]
fn names_are_looked_at_before_anybody_is_asked() {
    let plain = stack("services: {web: {image: a}}\n");
    for (name, says) in [
        ("", "invalid stack name: \"\": name must be valid"),
        ("a.b", "invalid stack name: \"a.b\": name must be valid"),
        ("a b", "invalid stack name: \"a b\""),
        ("-a", "invalid stack name: \"-a\""),
    ] {
        let error = deployment(&plain, name).expect_err(name).to_string();
        assert!(error.starts_with(says), "{error}");
    }
    let long = deployment(&plain, &"s".repeat(61)).expect_err("too long");
    let long = long.to_string();
    assert!(
        long.contains("name must be 63 characters or fewer"),
        "{long}"
    );
    assert!(
        long.contains("a.yml:1:12: services.web would be sss"),
        "{long}"
    );
    let errors = refused("services: {web: {image: a}, WEB: {image: a}}\n");
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("services.WEB has the name of another service"));
    let errors = refused(
        "services: {web: {image: a, secrets: [k]}}\nsecrets: {k: {file: x, name: \"a b\"}}\n",
    );
    assert!(errors[0].starts_with("a.yml:2:11: secrets.k invalid secret name \"a b\""));
    let errors =
        refused("services: {web: {image: a, networks: [n]}}\nnetworks: {n: {name: bad name}}\n");
    assert!(errors[0].starts_with("a.yml:2:12: networks.n invalid network name"));
}

#[test]
fn what_weft_has_not_is_refused_by_its_place() {
    for (lines, says) in [
        (
            "stdin_open: true",
            "services.web.stdin_open keeps standard input open",
        ),
        (
            "isolation: hyperv",
            "services.web.isolation is of containers on Windows",
        ),
        (
            "credential_spec: {file: x}",
            "services.web.credential_spec is of containers on Windows",
        ),
        (
            "logging: {driver: syslog}",
            "services.web.logging.driver log driver syslog is not supported",
        ),
        (
            "extra_hosts: [\"a:host-gateway\"]",
            "services.web.extra_hosts has host-gateway for a",
        ),
        (
            "sysctls: {vm.swappiness: 1}",
            "sysctl \"vm.swappiness\" is not in a separate kernel namespace",
        ),
        (
            "ulimits: {nofiles: 1}",
            "services.web.ulimits invalid ulimit type: nofiles",
        ),
        (
            "ulimits: {nofile: {soft: 2, hard: 1}}",
            "less than or equal to hard limit: 2 > 1",
        ),
        ("working_dir: srv", "the working directory 'srv' is invalid"),
        ("user: a b", "services.web.user is \"a b\""),
        (
            "stop_grace_period: 48h",
            "services.web.stop_grace_period is 172800 s long",
        ),
        (
            "command: [\"a\\0b\"]",
            "services.web.command has a NUL character",
        ),
    ] {
        let errors = web_refused(lines);
        assert_eq!(errors.len(), 1, "{lines}: {errors:?}");
        assert!(errors[0].starts_with("a.yml:4:5: "), "{errors:?}");
        assert!(errors[0].contains(says), "{lines}: {errors:?}");
    }
    let errors = refused("services: {web: {image: a b}}\n");
    assert!(errors[0].contains("services.web.image invalid reference format"));
}

#[test]
fn what_deploy_asks_beyond_weft_is_refused_by_its_place() {
    for (deploy, says) in [
        (
            "replicas: 20000",
            "deploy.replicas is 20000: a service may have 10000",
        ),
        (
            "placement: {constraints: [node.role=worker]}",
            "constraint expected one operator",
        ),
        (
            "placement: {constraints: [node.rôle == x]}",
            "key 'node.rôle' is invalid",
        ),
        (
            "placement: {preferences: [{spread: rack}]}",
            "spreads over \"rack\"",
        ),
        (
            "placement: {max_replicas_per_node: 1}\n  mode: global",
            "replicas-max-per-node can only",
        ),
        (
            "resources: {limits: {cpus: \"0.0001\"}}",
            "invalid cpu value 0.0001: Must be at least 0.001",
        ),
        (
            "resources: {limits: {memory: 1M}}",
            "invalid memory value 1048576: Must be at least 4MiB",
        ),
        (
            "resources: {reservations: {generic_resources: [{discrete_resource_spec: {kind: gpu, value: 1}}]}}",
            "deploy.resources.reservations has generic_resources",
        ),
        (
            "restart_policy: {max_attempts: 2000}",
            "is 2000: 1000 are counted at most",
        ),
        (
            "update_config: {delay: 1s}\n  mode: replicated-job",
            "is not supported for jobs",
        ),
    ] {
        let errors = web_refused(&format!("deploy:\n  {deploy}"));
        assert_eq!(errors.len(), 1, "{deploy}: {errors:?}");
        assert!(errors[0].starts_with("a.yml:5:"), "{errors:?}");
        assert!(errors[0].contains(says), "{deploy}: {errors:?}");
    }
}

#[test]
fn what_the_top_has_is_refused_by_its_place() {
    let of = |service: &str, top: &str| {
        refused(&format!(
            "services:\n  web: {{image: a, {service}}}\n{top}\n"
        ))
    };
    for (service, top, says) in [
        (
            "networks: [n]",
            "networks: {n: {driver: bridge}}",
            "networks.n has the driver \"bridge\"",
        ),
        (
            "networks: [n]",
            "networks: {n: {driver_opts: {encrypted: \"\"}}}",
            "networks.n has the driver option \"encrypted\", which weft does not know; traffic",
        ),
        (
            "networks: [n]",
            "networks: {n: {ipam: {driver: x}}}",
            "networks.n.ipam has the driver",
        ),
        (
            "networks: [n]",
            "networks: {n: {ipam: {config: [{subnet: 10.1.0.5/24}]}}}",
            "networks.n.ipam.config.0.subnet invalid subnet 10.1.0.5/24: it should be 10.1.0.0/24",
        ),
        (
            "networks: [n]",
            "networks: {n: {ipam: {config: [{subnet: x}]}}}",
            "which is no subnet",
        ),
        (
            "networks: [n]",
            "networks: {n: {external: true, name: host}}",
            "docker's network \"host\"",
        ),
        (
            "networks: [n]",
            "networks: {n: {name: bridge}}",
            "bridge is a pre-defined network",
        ),
        (
            "networks: [a, b]",
            "networks: {a: {name: x}, b: {name: x}}",
            "has the name \"x\", as networks.a has",
        ),
        (
            "volumes: [\"v:/v\"]",
            "volumes: {v: {driver: rexray}}",
            "plugin \"rexray\" not found",
        ),
        (
            "volumes: [\"v:/v\"]",
            "volumes: {v: {driver_opts: {x: y}}}",
            "volumes.v invalid option: \"x\"",
        ),
        (
            "volumes: [\"v:/v\"]",
            "volumes: {v: {name: a/b}}",
            "invalid characters for a local volume name",
        ),
        (
            "secrets: [s]",
            "secrets: {s: {driver: vault}}",
            "secrets.s has the driver \"vault\"",
        ),
        (
            "configs: [c]",
            "configs: {c: {file: x, template_driver: y}}",
            "configs.c has the template driver",
        ),
        (
            "configs: [c]",
            "configs: {c: {content: \"\"}}",
            "configs.c.content holds 0 bytes",
        ),
    ] {
        let errors = of(service, top);
        let told = errors
            .iter()
            .any(|error| error.contains(says) && error.starts_with("a.yml:3:"));
        assert!(told, "{top}: {errors:?}");
    }
}

#[test]
fn two_secrets_are_two_files() {
    let errors = refused(
        "services: {web: {image: a, secrets: [{source: s, uid: root}, {source: t, target: s}]}}\n\
         secrets: {s: {file: x}, t: {file: y}}\n",
    );
    assert!(
        errors
            .iter()
            .any(|error| error.contains("gives s the uid \"root\"")),
        "{errors:?}"
    );
    let conflict =
        "secret references 'shop_s' and 'shop_t' have a conflicting target: '/run/secrets/s'";
    assert!(
        errors.iter().any(|error| error.contains(conflict)),
        "{errors:?}"
    );
}

#[test]
fn a_file_has_a_place_of_its_own() {
    let text = "\
services:
  web:
    image: a
    volumes:
      - /srv/y/
      - {type: tmpfs, target: /run/secrets}
    secrets:
      - {source: s, target: /srv/y}
      - {source: t, target: /etc/t}
    configs:
      - {source: c, target: /etc//t/./}
      - {source: d, target: /etc/t/d}
secrets: {s: {file: x}, t: {file: y}}
configs: {c: {file: x}, d: {file: y}}
";
    let says = [
        "a.yml:8:9: services.web.secrets duplicate mount point: '/srv/y', which secret 'shop_s' has, and \
         the mount at a.yml:5:9; give one of them another `target`",
        "a.yml:11:9: services.web.configs secret reference 'shop_t' and config reference 'shop_c' have a \
         conflicting target: '/etc//t/./'; give one of them another `target`",
        "a.yml:12:9: services.web.configs secret reference 'shop_t' and config reference 'shop_d' have a \
         conflicting target: '/etc/t/d'; give one of them another `target`",
    ];
    assert_eq!(refused(text), says);
    for (target, says) in [
        ("/a/../b", "must not have \"..\" in it: /a/../b"),
        ("/./", "destination can't be '/': /./"),
    ] {
        let errors = web_refused(&format!("volumes: [\"{target}\"]"));
        assert_eq!(errors.len(), 1, "{errors:?}");
        let begin = "a.yml:4:15: services.web.volumes invalid mount target, ";
        assert!(
            errors[0].starts_with(&format!("{begin}{says}; ")),
            "{errors:?}"
        );
    }
}

#[test]
fn a_network_of_a_service_is_refused_where_it_is_named() {
    let text = "services:\n  web:\n    image: a\n    networks:\n      n:\n        driver_opts: {a: b}\n\
                networks: {n: {}}\n";
    let errors = refused(text);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        errors[0].starts_with("a.yml:5:7: services.web.networks.n has the driver option"),
        "{errors:?}"
    );
}

#[test]
fn a_host_service_has_what_the_node_has() {
    let errors = refused("services: {web: {image: host, tty: true, environment: [A]}}\n");
    let says = [
        "services.web.image is the node's own file system",
        "services.web.environment has A without a value",
        "services.web.tty is not for a service of image `host`",
    ];
    assert_eq!(errors.len(), says.len(), "{errors:?}");
    for says in says {
        assert!(
            errors.iter().any(|error| error.contains(says)),
            "{errors:?}"
        );
    }
}

#[test]
fn options_of_logs_are_told() {
    let made =
        made("services: {a: {image: a, logging: {driver: json-file, options: {max-size: 1m}}}}\n");
    let says = "services.a.logging.options are not carried out (max-size)";
    assert!(
        made.warnings.iter().any(|line| line.contains(says)),
        "{:?}",
        made.warnings
    );
}

#[test]
fn what_is_wrong_is_where_it_is_written() {
    let base = "services:\n  web:\n    image: a\n    deploy:\n      replicas: 3\n";
    let over =
        "services:\n  web:\n    deploy:\n      resources:\n        limits:\n          memory: 1M\n";
    let surroundings = Surroundings {
        variable: &|_| None,
        file: &|_| Err("no such file".to_owned()),
        folder: "/srv",
        home: None,
        interpolation: Interpolation::Done,
    };
    let sources = [
        Source {
            name: "base.yml",
            text: base,
        },
        Source {
            name: "over.yml",
            text: over,
        },
    ];
    let stack = load(&sources, &surroundings).expect("a stack").stack;
    let error = deployment(&stack, "shop").expect_err("little memory");
    let says = "over.yml:5:9: services.web.deploy.resources.limits.memory invalid memory value";
    assert!(error.to_string().starts_with(says), "{error}");
}
