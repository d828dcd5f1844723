use std::collections::BTreeMap;

use weft_model::objects::{
    ContainerSpec, Meta, Network, NetworkAttachmentSpec, Runtime, STACK_IMAGE_LABEL, STACK_LABEL,
    SecretReference, ServiceEndpoint, ServiceMode, TaskSpec, Version,
};
use weft_stack::{Position, StackNetwork};

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
        endpoint: ServiceEndpoint::default(),
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
