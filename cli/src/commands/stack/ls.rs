//! `weft stack ls`, `weft stack services` and `weft stack ps`: all of them are services by their label.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::bail;
use serde_json::json;
use weft_client::Client;
use weft_model::api::ServiceDetail;

use crate::args::{FormatArgs, StackPsArgs, StackServicesArgs};
use crate::commands::{paths, rows, service, tasks};
use crate::output::{Listing, Printer, complain};

/// `weft stack ls`
pub(super) async fn stacks(
    client: &Client,
    format: &FormatArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let services: Vec<ServiceDetail> = client.get("/v1/services").await?;
    out.listing(&listing(&services), format)?;
    Ok(ExitCode::SUCCESS)
}

/// Stacks by name, and how many services each has (docker/cli `cli/command/stack/formatter`).
fn listing(services: &[ServiceDetail]) -> Listing {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for detail in services {
        if let Some(stack) = detail.service.spec.stack() {
            *counts.entry(stack).or_default() += 1;
        }
    }
    let mut stacks: Vec<(&str, usize)> = counts.into_iter().collect();
    stacks.sort_by(|(a, _), (b, _)| rows::natural(a, b).then_with(|| a.cmp(b)));
    let mut listing = Listing::new(
        &[("Name", "NAME"), ("Services", "SERVICES")],
        "{{.Name}}\t{{.Services}}",
        "Name",
    );
    for (name, services) in stacks {
        // A text, as docker has it.
        listing.push(json!({ "Name": name, "Services": services.to_string() }));
    }
    listing
}

/// `weft stack services`
pub(super) async fn services_of(
    client: &Client,
    args: &StackServicesArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let filters = service::filters(&args.filter)?;
    let services = of_stack(client, &args.stack).await?;
    if services.is_empty() {
        complain(&format!("Nothing found in stack: {}", args.stack));
        return Ok(ExitCode::SUCCESS);
    }
    service::list(services, &filters, &args.format, out)?;
    Ok(ExitCode::SUCCESS)
}

/// `weft stack ps`
pub(super) async fn tasks_of(
    client: &Client,
    args: &StackPsArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let services = of_stack(client, &args.stack).await?;
    if services.is_empty() {
        bail!("nothing found in stack: {}", args.stack);
    }
    let paths: Vec<String> = services
        .iter()
        .map(|detail| paths::tasks(detail.service.id.as_str()))
        .collect();
    tasks::list(client, &paths, &args.list, out).await
}

async fn of_stack(client: &Client, stack: &str) -> anyhow::Result<Vec<ServiceDetail>> {
    let mut services: Vec<ServiceDetail> = client.get("/v1/services").await?;
    services.retain(|detail| detail.service.spec.stack() == Some(stack));
    Ok(services)
}

#[cfg(test)]
mod tests {
    use weft_model::api::ServiceStatus;
    use weft_model::objects::{Meta, STACK_LABEL, Service, ServiceEndpoint, ServiceSpec};

    use super::*;

    fn of(stack: &str) -> ServiceDetail {
        ServiceDetail {
            service: Service {
                id: "s".into(),
                meta: Meta::default(),
                spec: ServiceSpec {
                    labels: BTreeMap::from([(STACK_LABEL.to_owned(), stack.to_owned())]),
                    ..ServiceSpec::default()
                },
                previous_spec: None,
                endpoint: ServiceEndpoint::default(),
                update_status: None,
                job_status: None,
                rebalancing: None,
                homes: Vec::new(),
            },
            status: ServiceStatus::default(),
            port_errors: Vec::new(),
            waiting: Vec::new(),
        }
    }

    #[test]
    fn stacks_are_counted_and_in_natural_order() {
        let services = ["app10", "", "app2", "app10"].map(of);
        let shown = listing(&services).render(&FormatArgs::default());
        let shown = shown.expect("a table");
        let rows: Vec<Vec<&str>> = shown
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows, [["NAME", "SERVICES"], ["app2", "1"], ["app10", "2"]]);
    }
}
