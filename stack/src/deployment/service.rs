//! A service (docker/cli `cli/compose/convert/service.go`).

use std::sync::Arc;

use weft_model::names;
use weft_model::objects::{EndpointSpec, Runtime, STACK_IMAGE_LABEL, ServiceSpec, TaskSpec};

use super::{Condition, StackService, Work, container, networks, policy, ports};
use crate::model::Service;

/// What `x-weft` may say.
const NAMES_BEFORE_HEALTHY: &str = "names-before-healthy";

/// A service as the swarm is asked for it.
pub(super) fn service(service: &Service, work: &mut Work<'_>) -> StackService {
    let name = work.scoped(&service.name);
    if let Err(error) = names::check_service(&name) {
        let what = format!("would be {name}: {error}");
        let mend = "shorten the name of the service, or that of the stack";
        work.refuse(service, "", what, mend);
    }
    let deploy = service.deploy.clone().unwrap_or_default();
    let mode = policy::mode(service, &deploy, work);
    let endpoint_mode = policy::endpoint_mode(&deploy);
    let image = service.image.clone().unwrap_or_default();
    let mut labels = work.labels(&deploy.labels);
    labels.insert(STACK_IMAGE_LABEL.to_owned(), image.clone());
    work.check_labels(
        &labels,
        service.place("deploy.labels"),
        &super::path_of(service, "deploy.labels"),
    );
    let task = TaskSpec {
        runtime: Runtime::of_image(&image),
        container: container::container(service, work),
        restart: policy::restart(service, &deploy, work),
        networks: networks::attachments(service, work),
        force_update: 0,
        placement: policy::placement(service, &deploy, mode, work),
        resources: policy::resources(service, &deploy, work),
    };
    let update = deploy.update_config.as_ref();
    let rollback = deploy.rollback_config.as_ref();
    let before_healthy = service.weft.get(NAMES_BEFORE_HEALTHY).copied();
    let spec = ServiceSpec {
        name,
        labels,
        task: Arc::new(task),
        mode,
        endpoint: EndpointSpec {
            mode: endpoint_mode,
            ports: ports::ports(service, endpoint_mode, work),
        },
        names_before_healthy: before_healthy.unwrap_or_default(),
        update: policy::update(service, "update_config", update, mode, work),
        rollback: policy::update(service, "rollback_config", rollback, mode, work),
        ..ServiceSpec::default()
    };
    StackService {
        key: service.name.clone(),
        spec,
        depends_on: depends_on(service, work),
    }
}

fn depends_on(service: &Service, work: &Work<'_>) -> Vec<(String, Condition)> {
    let needs = service.depends_on.iter();
    let needs = needs.map(|(name, dependency)| {
        let condition = match dependency.condition.as_str() {
            "service_healthy" => Condition::Healthy,
            "service_completed_successfully" => Condition::Completed,
            _ => Condition::Started,
        };
        (work.scoped(name), condition)
    });
    needs.collect()
}
