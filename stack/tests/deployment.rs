//! What a stack comes to for a swarm, whatever the order in which its file says things, and however
//! large it is.

#![allow(clippy::panic, reason = "helpers of tests")]
#![expect(clippy::print_stdout, reason = "the figure is what it is for")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::Value;
use weft_stack::model::Stack;
use weft_stack::{
    Deployment, Interpolation, Source, StackPayload, StackService, Surroundings, deployment, load,
    render, same,
};

/// Services of the large file.
const SERVICES: usize = 200;
/// What reading it and planning it may take in a release build.
const REQUIRED: Duration = Duration::from_millis(100);

/// A file with one or two of each section, and all that a service may say. JSON is YAML.
const WHOLE: &str = r#"{
  "version": "3.9",
  "services": {
    "web": {
      "image": "web:1",
      "command": "serve --port 80",
      "environment": {"B": "2", "A": "1"},
      "labels": {"x": "y", "a": "b"},
      "hostname": "web-{{.Task.Slot}}",
      "ulimits": {"nofile": {"soft": 10, "hard": 20}, "nproc": 5},
      "sysctls": {"net.core.somaxconn": 1024, "net.ipv4.tcp_syncookies": 1},
      "healthcheck": {"test": "curl -f localhost", "interval": "30s", "retries": 3},
      "networks": {"front": {"aliases": ["www"]}, "outer": {}},
      "ports": [{"target": 80, "published": 8080, "protocol": "tcp", "mode": "ingress"}, "9000"],
      "volumes": [
        {"type": "volume", "source": "data", "target": "/data", "volume": {"nocopy": true}},
        "/etc/ssl:/etc/ssl:ro"
      ],
      "secrets": [{"source": "key", "target": "/etc/key", "uid": "33", "mode": 256}],
      "configs": ["conf"],
      "depends_on": {
        "db": {"condition": "service_healthy"},
        "cache": {"condition": "service_started"}
      },
      "deploy": {
        "replicas": 3,
        "labels": {"l": "1", "k": "2"},
        "update_config": {"parallelism": 2, "order": "start-first", "delay": "10s"},
        "resources": {
          "limits": {"cpus": "0.5", "memory": "50M"},
          "reservations": {"memory": "20M"}
        },
        "placement": {"constraints": ["node.role == worker"], "max_replicas_per_node": 2}
      },
      "x-weft": {"names-before-healthy": true}
    },
    "db": {"image": "db", "networks": ["back"]},
    "cache": {"image": "cache", "networks": ["back"]}
  },
  "networks": {
    "front": {"attachable": true, "labels": {"n": "1"}},
    "back": {"internal": true},
    "outer": {"external": true, "name": "prod"}
  },
  "volumes": {
    "data": {
      "driver_opts": {"type": "nfs", "device": ":/x", "o": "addr=nas"},
      "labels": {"v": "1"}
    }
  },
  "secrets": {"key": {"file": "./key.txt"}},
  "configs": {"conf": {"content": "x", "name": "conf-v1"}}
}"#;

fn whole() -> Value {
    serde_json::from_str(WHOLE).expect("it is JSON")
}

/// In flow style, the entries of each mapping in the order that the numbers say.
fn written(tree: &Value, order: &mut impl Iterator<Item = usize>) -> String {
    match tree {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| written(item, order)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(entries) => {
            let mut left: Vec<(&String, &Value)> = entries.iter().collect();
            let mut parts = Vec::with_capacity(left.len());
            while !left.is_empty() {
                let next = order.next().unwrap_or_default() % left.len();
                let (key, value) = left.remove(next);
                parts.push(format!("{key}: {}", written(value, order)));
            }
            format!("{{{}}}", parts.join(", "))
        }
        other => other.to_string(),
    }
}

fn loaded(text: &str, interpolation: Interpolation) -> Stack {
    let surroundings = Surroundings {
        variable: &|_| None,
        file: &|_| Err("no such file".to_owned()),
        folder: "/srv",
        home: None,
        interpolation,
    };
    let source = [Source {
        name: "a.yml",
        text,
    }];
    match load(&source, &surroundings) {
        Ok(loaded) => loaded.stack,
        Err(problems) => panic!("{problems}\n{text}"),
    }
}

fn planned(stack: &Stack) -> Deployment {
    match deployment(stack, "shop") {
        Ok(deployment) => deployment,
        Err(problems) => panic!("{problems}"),
    }
}

fn made(text: &str) -> Deployment {
    planned(&loaded(text, Interpolation::Done))
}

fn by_key(deployment: &Deployment) -> BTreeMap<&str, &StackService> {
    let services = deployment.services.iter();
    services
        .map(|service| (service.key.as_str(), service))
        .collect()
}

/// The same, but for where things are written and which services come first.
fn assert_same(one: &Deployment, other: &Deployment) {
    assert_eq!(one.networks, other.networks);
    for (one, other) in [
        (&one.secrets, &other.secrets),
        (&one.configs, &other.configs),
    ] {
        let said = |payloads: &[StackPayload]| -> Vec<_> {
            let payloads = payloads.iter();
            payloads
                .map(|payload| {
                    (
                        payload.key.clone(),
                        payload.spec.clone(),
                        payload.origin.clone(),
                    )
                })
                .collect()
        };
        assert_eq!(said(one), said(other));
    }
    assert_eq!(by_key(one), by_key(other));
}

/// Each service is behind all that it depends on.
fn assert_order(deployment: &Deployment) {
    let mut before: Vec<&str> = Vec::new();
    for service in &deployment.services {
        for (name, _) in &service.depends_on {
            assert!(
                before.contains(&name.as_str()),
                "{name} is behind {}",
                service.key
            );
        }
        before.push(&service.spec.name);
    }
}

proptest! {
    #[test]
    fn the_order_of_keys_changes_nothing(order in prop::collection::vec(0_usize..1000, 200)) {
        let tree = whole();
        let straight = made(&written(&tree, &mut std::iter::repeat(0)));
        prop_assert_eq!(straight.services.len(), 3);
        let turned = made(&written(&tree, &mut order.into_iter()));
        assert_same(&straight, &turned);
        assert_order(&turned);
        for (key, service) in by_key(&straight) {
            prop_assert!(same(&service.spec, &by_key(&turned)[key].spec));
        }
    }

    /// Chains and trees of services, in any order in the file.
    #[test]
    fn each_service_is_behind_what_it_needs(
        needs in prop::collection::vec(prop::collection::vec(0_usize..1000, 0..4), 1..40),
        order in prop::collection::vec(0_usize..1000, 40),
    ) {
        // A service needs only those of a smaller number, so that there is no circle.
        let mut services: Vec<String> = Vec::new();
        for (number, needs) in needs.iter().enumerate() {
            let mut names: Vec<String> = Vec::new();
            for need in needs.iter().filter(|_| number > 0) {
                let name = format!("s{}", need % number.max(1));
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            let names = names.join(", ");
            services.push(format!("  s{number}: {{image: a, depends_on: [{names}]}}\n"));
        }
        let mut text = "services:\n".to_owned();
        let mut order = order.into_iter();
        while !services.is_empty() {
            let next = order.next().unwrap_or_default() % services.len();
            text.push_str(&services.remove(next));
        }
        let deployment = made(&text);
        prop_assert_eq!(deployment.services.len(), needs.len());
        assert_order(&deployment);
    }
}

#[test]
fn the_same_file_comes_to_the_same() {
    let text = written(&whole(), &mut std::iter::repeat(7));
    let (one, other) = (made(&text), made(&text));
    assert_eq!(one, other);
    for service in &one.services {
        assert!(same(&service.spec, &service.spec));
    }
    let [web, db] = ["web", "db"].map(|key| by_key(&one)[key]);
    assert!(!same(&web.spec, &db.spec));
}

/// A file with so many services, each with all that is usual.
fn large() -> String {
    let mut text = "version: \"3.9\"\nservices:\n".to_owned();
    for number in 0..SERVICES {
        let port = 10_000 + number;
        let before = number.saturating_sub(1);
        let tier = number % 10;
        write!(
            text,
            "  service-{number}:
    image: registry.example:5000/team/service-{number}:1.{number}
    command: [serve, --number, \"{number}\"]
    environment:
      NUMBER: \"{number}\"
      NEIGHBOUR: service-{before}
      LEVEL: info
    networks: [front, tier-{tier}]
    ports: [\"{port}:80\"]
    volumes: [\"data-{tier}:/data\", \"/etc/ssl:/etc/ssl:ro\"]
    secrets: [key]
    configs: [{{source: conf, target: /etc/service.conf, mode: 0440}}]
    healthcheck: {{test: [CMD, check], interval: 10s, retries: 3}}
    deploy:
      replicas: {replicas}
      labels: {{com.example.tier: tier-{tier}}}
      resources: {{limits: {{cpus: \"0.50\", memory: 64M}}, reservations: {{memory: 16M}}}}
      placement: {{constraints: [node.role == worker, node.labels.tier == t{tier}]}}
      update_config: {{parallelism: 2, delay: 5s, order: start-first}}
      restart_policy: {{condition: on-failure, max_attempts: 5}}
",
            replicas = number % 5 + 1,
        )
        .expect("a String takes everything");
        if number > 0 {
            let line = format!("    depends_on: [service-{before}]\n");
            text.push_str(&line);
        }
    }
    text.push_str("networks:\n  front: {}\n");
    for tier in 0..10 {
        let line = format!("  tier-{tier}: {{internal: true}}\n");
        text.push_str(&line);
    }
    text.push_str("volumes:\n");
    for tier in 0..10 {
        let line = format!("  data-{tier}: {{labels: {{tier: \"{tier}\"}}}}\n");
        text.push_str(&line);
    }
    text.push_str("secrets:\n  key: {file: ./key.txt}\nconfigs:\n  conf: {file: ./service.conf}\n");
    text
}

#[test]
fn two_hundred_services_are_planned() {
    let deployment = made(&large());
    assert_eq!(deployment.services.len(), SERVICES);
    assert_eq!(deployment.networks.len(), 11);
    assert_order(&deployment);
    let services = by_key(&deployment);
    let last = &services["service-199"].spec;
    assert_eq!(last.name, "shop_service-199");
    let container = &last.task.container;
    assert_eq!(
        container.image,
        "registry.example:5000/team/service-199:1.199"
    );
    assert_eq!(container.args, ["serve", "--number", "199"]);
    assert_eq!(
        container.env,
        ["LEVEL=info", "NEIGHBOUR=service-198", "NUMBER=199"]
    );
    assert_eq!(container.mounts.len(), 2);
    assert_eq!(container.mounts[0].source, "shop_data-9");
    assert_eq!(container.configs[0].file.mode, 0o440);
    assert_eq!(last.endpoint.ports[0].published, 10_199);
    assert_eq!(last.task.placement.constraints.len(), 2);
    let targets: Vec<&str> = last
        .task
        .networks
        .iter()
        .map(|network| network.target.as_str())
        .collect();
    assert_eq!(targets, ["shop_front", "shop_tier-9"]);
    let first = &services["service-0"];
    assert!(first.depends_on.is_empty());
    assert_eq!(services["service-7"].depends_on[0].0, "shop_service-6");
    assert_eq!(deployment.services[0].key, "service-0");
}

#[test]
#[ignore = "second tier: a measurement, which needs a release build"]
fn two_hundred_services_are_planned_at_once() {
    const TIMES: u32 = 20;
    let text = large();
    let (mut best, mut all) = (Duration::MAX, Duration::ZERO);
    for _ in 0..TIMES {
        let start = Instant::now();
        let deployment = made(&text);
        let spent = start.elapsed();
        assert_eq!(deployment.services.len(), SERVICES);
        best = best.min(spent);
        all += spent;
    }
    println!(
        "a file of {SERVICES} services, {} bytes, read and planned: {:.1?} at best, {:.1?} on average \
         (required: below {REQUIRED:?})",
        text.len(),
        best,
        all / TIMES
    );
    assert!(best < REQUIRED, "{best:?}");
}

#[test]
fn what_is_written_out_comes_to_the_same() {
    for text in [large(), written(&whole(), &mut std::iter::repeat(3))] {
        let stack = loaded(&text, Interpolation::Done);
        let again = loaded(&render(&stack), Interpolation::Skipped);
        let (one, other) = (planned(&stack), planned(&again));
        assert_same(&one, &other);
    }
}
