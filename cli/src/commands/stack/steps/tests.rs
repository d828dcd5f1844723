use weft_model::objects::{
    ContainerSpec, Meta, Network, NetworkAttachmentSpec, PortSpec, PublishMode, Runtime,
    STACK_IMAGE_LABEL, STACK_LABEL, SecretReference, ServiceEndpoint, ServiceMode, TaskSpec,
    Version,
};
use weft_stack::{Position, StackPort};

use super::*;

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([(STACK_LABEL.to_owned(), "vote".to_owned())])
}

fn meta(index: u64) -> Meta {
    Meta {
        version: Version { index },
        ..Meta::default()
    }
}

fn network(name: &str, external: bool) -> StackNetwork {
    StackNetwork {
        key: name.to_owned(),
        spec: NetworkSpec {
            name: name.to_owned(),
            labels: labels(),
            ..NetworkSpec::default()
        },
        external,
    }
}

fn payload(name: &str, data: &str, origin: Origin) -> StackPayload {
    StackPayload {
        key: name.to_owned(),
        at: Position::default(),
        spec: PayloadSpec {
            name: format!("vote_{name}"),
            labels: labels(),
            data: data.as_bytes().to_vec().into(),
            templating: None,
        },
        origin,
    }
}

fn service(name: &str) -> StackService {
    let mut labels = labels();
    labels.insert(STACK_IMAGE_LABEL.to_owned(), "host".to_owned());
    StackService {
        key: name.to_owned(),
        spec: ServiceSpec {
            name: format!("vote_{name}"),
            labels,
            task: Arc::new(TaskSpec {
                runtime: Runtime::Host,
                container: ContainerSpec {
                    image: "host".to_owned(),
                    args: vec!["/bin/server".to_owned()],
                    secrets: vec![SecretReference {
                        name: "vote_key".to_owned(),
                        ..SecretReference::default()
                    }],
                    ..ContainerSpec::default()
                },
                networks: vec![NetworkAttachmentSpec {
                    target: "vote_front".to_owned(),
                    ..NetworkAttachmentSpec::default()
                }],
                ..TaskSpec::default()
            }),
            ..ServiceSpec::default()
        },
        depends_on: Vec::new(),
    }
}

fn vote() -> Deployment {
    Deployment {
        name: "vote".to_owned(),
        networks: vec![network("vote_front", false)],
        secrets: vec![payload("key", "hunter2", Origin::File("/key".to_owned()))],
        configs: vec![payload("conf", "a=b", Origin::Content("a=b".to_owned()))],
        services: vec![service("db"), service("web")],
        ports: Vec::new(),
        warnings: Vec::new(),
    }
}

/// As the swarm is once a stack is deployed.
fn deployed(deployment: &Deployment) -> Current {
    let networks = deployment.networks.iter().map(|wanted| Network {
        id: format!("id-{}", wanted.spec.name).as_str().into(),
        meta: meta(1),
        spec: wanted.spec.clone(),
        vni: 4096,
        ending: false,
    });
    let payloads = |kind, wanted: &[StackPayload]| -> Vec<Payload> {
        let payloads = wanted.iter().map(|wanted| {
            let payload = Payload {
                id: format!("id-{}", wanted.spec.name).as_str().into(),
                kind,
                meta: meta(2),
                spec: wanted.spec.clone(),
            };
            payload.shown()
        });
        payloads.collect()
    };
    let mut current = Current {
        networks: networks.collect(),
        secrets: payloads(PayloadKind::Secret, &deployment.secrets),
        configs: payloads(PayloadKind::Config, &deployment.configs),
        services: Vec::new(),
    };
    let services = deployment.services.iter().map(|wanted| Service {
        id: format!("id-{}", wanted.spec.name).as_str().into(),
        meta: meta(3),
        spec: current.resolved(&wanted.spec),
        previous_spec: None,
        endpoint: ServiceEndpoint {
            ports: wanted.spec.endpoint.ports.clone(),
            ..ServiceEndpoint::default()
        },
        update_status: None,
        job_status: None,
        rebalancing: None,
        homes: Vec::new(),
    });
    current.services = services.collect();
    current
}

fn planned(deployment: &Deployment, current: &Current) -> Plan {
    plan(deployment, current, &Images::default(), Prune::No).expect("a plan")
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.steps.iter().filter_map(Step::line).collect()
}

fn would(plan: &Plan) -> Vec<String> {
    plan.steps.iter().filter_map(Step::would).collect()
}

#[test]
fn what_is_not_there_is_made_in_dockers_order() {
    let mut vote = vote();
    let after = vec![("vote_db".to_owned(), Condition::Healthy)];
    vote.services[1].depends_on.clone_from(&after);
    let plan = planned(&vote, &Current::default());
    assert_eq!(
        lines(&plan),
        [
            "Creating network vote_front",
            "Creating secret vote_key",
            "Creating config vote_conf",
            "Creating service vote_db",
            "Creating service vote_web",
        ]
    );
    assert_eq!(would(&plan)[0], "would create network vote_front");
    let Some(Step::CreateService { after: waits, .. }) = plan.steps.last() else {
        unreachable!("{plan:?}");
    };
    assert_eq!(*waits, after);
    assert_eq!(plan.unchanged, 0);
}

#[test]
fn nothing_is_to_be_done_twice() {
    let vote = vote();
    let plan = planned(&vote, &deployed(&vote));
    // What the secret holds nobody here can tell: the managers compare it.
    assert_eq!(plan.steps.len(), 1, "{plan:?}");
    assert!(lines(&plan).is_empty() && would(&plan).is_empty());
    assert_eq!(plan.unchanged, 2);
    assert!(plan.warnings.is_empty());
    let without = Deployment {
        secrets: Vec::new(),
        ..vote
    };
    let mut current = deployed(&without);
    for service in &mut current.services {
        let task = Arc::make_mut(&mut service.spec.task);
        task.force_update = 7;
    }
    let plan = planned(&without, &current);
    assert!(plan.steps.is_empty(), "what was forced stays so: {plan:?}");
}

#[test]
fn only_what_differs_is_updated() {
    let mut vote = vote();
    let current = deployed(&vote);
    vote.services[1].spec.mode = ServiceMode::Replicated { replicas: 3 };
    vote.configs[0].spec.labels.insert("a".into(), "b".into());
    let plan = planned(&vote, &current);
    assert_eq!(
        lines(&plan),
        ["Updating service vote_web (id: id-vote_web)"]
    );
    assert_eq!(
        would(&plan),
        [
            "would update config vote_conf (labels)",
            "would update service vote_web (replicas 1 → 3)",
        ]
    );
    assert_eq!(plan.unchanged, 1);
    let Some(Step::UpdateService { version, spec, .. }) = plan.steps.last() else {
        unreachable!("{plan:?}");
    };
    assert_eq!(*version, 3);
    // Managers know names.
    assert_eq!(spec.task.networks[0].target, "vote_front");
    assert_eq!(
        plan.steps[1].updating().as_deref(),
        Some("Updating config vote_conf (id: id-vote_conf)")
    );
}

#[test]
fn credentials_are_sent_though_nobody_can_see_whether_they_differ() {
    let vote = vote();
    let images = Images::asked_for_by_name();
    let plan = plan(&vote, &deployed(&vote), &images, Prune::No).expect("a plan");
    assert!(lines(&plan).is_empty(), "{plan:?}");
    assert_eq!(
        would(&plan)[0],
        "would update service vote_db (credentials of the registry)"
    );
    assert_eq!(plan.unchanged, 0);
}

#[test]
fn what_the_file_does_not_have_is_pruned_first_where_that_is_asked_for() {
    let mut vote = vote();
    let current = deployed(&vote);
    vote.services.remove(0);
    vote.services.push(service("new"));
    assert_eq!(
        lines(&planned(&vote, &current)),
        ["Creating service vote_new"]
    );
    let plan = plan(&vote, &current, &Images::default(), Prune::Yes).expect("a plan");
    assert_eq!(
        lines(&plan),
        ["Removing service vote_db", "Creating service vote_new"]
    );
    assert_eq!(would(&plan)[0], "would remove service vote_db");
}

#[test]
fn all_that_would_fail_is_told_before_anything_is_done() {
    let mut vote = vote();
    let mut current = deployed(&vote);
    vote.networks.push(network("outer", true));
    vote.secrets.push(payload("gone", "", Origin::External));
    vote.configs.push(payload("away", "", Origin::External));
    vote.configs[0].spec.data = b"a=c".to_vec().into();
    vote.services[0].spec.mode = ServiceMode::Global;
    current.services[1].spec.labels.clear();
    let images = Images::default();
    let problems = plan(&vote, &current, &images, Prune::No).expect_err("problems");
    assert_eq!(problems.len(), 6, "{problems:?}");
    assert_eq!(
        problems[0],
        "network \"outer\" is declared as external, but could not be found. You need to create a \
         swarm-scoped network before the stack is deployed"
    );
    assert_eq!(problems[1], "secret not found: vote_gone");
    assert!(
        problems[2]
            .starts_with("failed to update config vote_conf: only updates to Labels are allowed; "),
        "{problems:?}"
    );
    assert_eq!(problems[3], "config not found: vote_away");
    assert!(
        problems[4].contains("service mode change is not allowed"),
        "{problems:?}"
    );
    assert!(
        problems[5].contains("vote_web already exists and is not of stack vote"),
        "{problems:?}"
    );
}

#[test]
fn a_network_that_cannot_be_changed_is_warned_of() {
    let mut vote = vote();
    let current = deployed(&vote);
    vote.networks[0].spec.internal = true;
    let plan = planned(&vote, &current);
    assert_eq!(plan.warnings.len(), 1);
    assert!(
        plan.warnings[0].contains("network vote_front is not as the file says (internal)")
            && plan.warnings[0].contains("weft stack rm vote"),
        "{:?}",
        plan.warnings
    );
    assert!(lines(&plan).is_empty(), "{plan:?}");
}

#[test]
fn errors_begin_as_dockers() {
    let plan = planned(&vote(), &Current::default());
    let failed: Vec<String> = plan.steps.iter().map(Step::failed).collect();
    assert_eq!(failed[0], "failed to create network vote_front");
    assert_eq!(failed[4], "failed to create service vote_web");
    let secret = Step::UpdatePayload {
        kind: PayloadKind::Secret,
        id: "s1".into(),
        version: 1,
        spec: payload("key", "x", Origin::External).spec,
        relabels: false,
    };
    assert_eq!(secret.failed(), "failed to update secret vote_key");
}

fn port(published: u16) -> PortSpec {
    PortSpec {
        published,
        target: 80,
        ..PortSpec::default()
    }
}

/// Has a service publish these, as if its file said so.
fn publish(deployment: &mut Deployment, key: &str, ports: &[PortSpec]) {
    let name = format!("vote_{key}");
    let mut services = deployment.services.iter_mut();
    let service = services.find(|service| service.key == key);
    service.expect("a service").spec.endpoint.ports = ports.to_vec();
    deployment.ports.retain(|port| port.service != name);
    let ports = ports.iter().enumerate();
    let ports = ports.filter(|(_, port)| port.published != 0);
    deployment
        .ports
        .extend(ports.map(|(index, port)| StackPort {
            service: name.clone(),
            at: Position {
                file: "stack.yml".into(),
                line: 7 + index,
                column: 9,
            },
            path: format!("services.{key}.ports.{index}"),
            spec: port.clone(),
        }));
}

#[test]
fn ports_that_others_keep_are_told_before_anything_is_done() {
    let mut vote = vote();
    // A stack of others, and a service without one.
    let mut other = vote.clone();
    let labels = BTreeMap::from([(STACK_LABEL.to_owned(), "shop".to_owned())]);
    other.services[0].spec.name = "shop_db".to_owned();
    other.services[0].spec.labels = labels;
    other.services[1].spec.name = "proxy".to_owned();
    other.services[1].spec.labels.clear();
    let mut current = deployed(&other);
    current.services[0].endpoint.ports = vec![port(8080)];
    current.services[1].endpoint.ports = vec![PortSpec {
        mode: PublishMode::Host,
        ..port(53)
    }];
    let on_host = PortSpec {
        mode: PublishMode::Host,
        ..port(53)
    };
    publish(&mut vote, "db", &[port(0), on_host]);
    assert!(plan(&vote, &current, &Images::default(), Prune::No).is_ok());
    publish(&mut vote, "web", &[port(8080), port(53), port(81)]);
    let images = Images::default();
    let problems = plan(&vote, &current, &images, Prune::No).expect_err("two are taken");
    assert_eq!(
        problems,
        [
            "stack.yml:7:9: services.web.ports.0 port 8080/tcp is already in use by service shop_db (stack \
          shop) as an ingress port; publish another port, or remove that service\n\
          stack.yml:8:9: services.web.ports.1 port 53/tcp is already in use by service proxy as a \
          host-published port; publish another port, or remove that service"
        ]
    );
}

#[test]
fn ports_that_the_stack_itself_gives_up_are_taken_after_that() {
    let mut vote = vote();
    publish(&mut vote, "web", &[port(80)]);
    let current = deployed(&vote);
    assert_eq!(planned(&vote, &current).unchanged, 2);
    // From one to the other, against the order of the file.
    publish(&mut vote, "web", &[]);
    publish(&mut vote, "db", &[port(80)]);
    assert_eq!(
        lines(&planned(&vote, &current)),
        [
            "Updating service vote_web (id: id-vote_web)",
            "Updating service vote_db (id: id-vote_db)",
        ]
    );
    // From one that goes.
    let mut without = vote.clone();
    without.services.remove(1);
    let images = Images::default();
    let pruned = plan(&without, &current, &images, Prune::Yes).expect("a plan");
    assert_eq!(lines(&pruned)[0], "Removing service vote_web");
    let problems = plan(&without, &current, &images, Prune::No).expect_err("it stays");
    assert!(
        problems[0].contains("by service vote_web of this stack as an ingress port")
            && problems[0]
                .ends_with("or have --prune remove that service, which the files do not have"),
        "{problems:?}"
    );
    // From a service whose port managers chose, and who keeps it.
    publish(&mut vote, "web", &[port(0)]);
    let mut chosen = current.clone();
    chosen.services[1].endpoint.ports = vec![port(80)];
    let problems = plan(&vote, &chosen, &images, Prune::No).expect_err("it is kept");
    assert!(
        problems[0].contains("by service vote_web of this stack as an ingress port"),
        "{problems:?}"
    );
}

#[test]
fn ports_that_are_exchanged_have_no_order() {
    let mut vote = vote();
    publish(&mut vote, "db", &[port(80)]);
    publish(&mut vote, "web", &[port(81)]);
    let current = deployed(&vote);
    publish(&mut vote, "db", &[port(81)]);
    publish(&mut vote, "web", &[port(80)]);
    let images = Images::default();
    let problems = plan(&vote, &current, &images, Prune::No).expect_err("an exchange");
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].starts_with("services vote_db, vote_web take published ports of each other"),
        "{problems:?}"
    );
}

#[test]
fn another_name_is_the_next_one() {
    for (name, is) in [
        ("vote_key", "vote_key_v2"),
        ("vote_key_v2", "vote_key_v3"),
        ("vote_key_v", "vote_key_v_v2"),
    ] {
        assert_eq!(next(name), is);
    }
    let text = another(PayloadKind::Secret, "vote_key");
    assert!(
        text.contains("`name: vote_key_v2`") && text.contains("`weft secret rm vote_key`"),
        "{text}"
    );
}

#[test]
fn what_nobody_can_compare_is_noted() {
    let mut vote = vote();
    assert_eq!(
        not_compared(&planned(&vote, &Current::default()).steps),
        None
    );
    vote.secrets
        .push(payload("pass", "x", Origin::Content("x".to_owned())));
    let note = not_compared(&planned(&vote, &deployed(&vote)).steps).expect("two");
    assert!(
        note.starts_with("weft: note: what secrets vote_key, vote_pass hold is not compared"),
        "{note}"
    );
    vote.secrets.pop();
    let note = not_compared(&planned(&vote, &deployed(&vote)).steps).expect("one");
    assert!(
        note.starts_with("weft: note: what secret vote_key holds is not compared"),
        "{note}"
    );
}
