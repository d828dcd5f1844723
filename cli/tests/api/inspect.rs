//! `inspect` with templates, as people have them for docker.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{Exchange, FakeNode, LONG_AGO, NO_SURPRISES, get, service};

#[test]
fn the_addresses_of_a_network_are_counted_by_name() {
    let detail = || {
        json!({
            "Id": "net1", "Name": "front", "Driver": "overlay", "Scope": "swarm",
            "IPAM": {"Config": [{"Subnet": "10.0.1.0/24", "Gateway": "10.0.1.1"}]},
            "MTU": 1450, "Addresses": {"Used": 4, "Total": 253},
            "Containers": {"e1": {"Name": "web.1.t1", "IPv4Address": "10.0.1.3/24"}},
        })
    };
    let templates = [
        ("{{.Addresses.Used}}/{{.Addresses.Total}}", "4/253"),
        // As people have them for docker.
        ("{{.Id}} {{.ID}} {{.Name}}", "net1 net1 front"),
        ("{{.Driver}} {{.Scope}}", "overlay swarm"),
        ("{{(index .IPAM.Config 0).Subnet}}", "10.0.1.0/24"),
        (
            "{{range .IPAM.Config}}{{.Subnet}}-{{.Gateway}}{{end}}",
            "10.0.1.0/24-10.0.1.1",
        ),
        (
            "{{range .Containers}}{{.Name}}@{{.IPv4Address}}{{end}}",
            "web.1.t1@10.0.1.3/24",
        ),
    ];
    let asked = templates.map(|_| get("GET /v1/networks/front", detail()));
    let mut script: Vec<Exchange> = asked.into_iter().collect();
    script.push(get("GET /v1/networks/front", detail()));
    script.push(get("GET /v1/networks/front", detail()));
    let node = FakeNode::start(script);
    for (template, shown) in templates {
        let text = node.inspect("network", "front", template);
        assert_eq!(text, format!("{shown}\n"), "{template}");
    }
    let text = node.run("network inspect front").1;
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        shown,
        json!([detail()]),
        "nothing is spelled in another way"
    );
    assert_eq!(node.run("network inspect -q front").1, "net1\n");
    assert_eq!(node.surprises(), NO_SURPRISES);
}

/// Templates that people have for docker.
#[test]
fn inspect_takes_dockers_templates() {
    let mut global = service(1, 1);
    global["Spec"]["Mode"] = json!({"Global": {}});
    let mode =
        "{{if .Spec.Mode.Replicated}}{{.Spec.Mode.Replicated.Replicas}}{{else}}global{{end}}";
    let of_web = [
        ("{{.ID}}", "svc1"),
        ("{{.Version.Index}}", "12"),
        ("{{.CreatedAt}}", LONG_AGO),
        ("{{.Spec.Name}} {{.Spec.Labels.tier}}", "web front"),
        ("{{.Spec.Mode.Replicated.Replicas}}", "2"),
        (mode, "2"),
        ("{{.Spec.TaskTemplate.ContainerSpec.Image}}", "host"),
        ("{{json .Spec.TaskTemplate.ContainerSpec.Env}}", "[\"A=1\"]"),
        ("{{.Spec.TaskTemplate.RestartPolicy.Condition}}", "any"),
        (
            "{{range .Spec.TaskTemplate.Networks}}{{.Target}}{{end}}",
            "net1",
        ),
        ("{{.Spec.EndpointSpec.Mode}}", "vip"),
        (
            "{{range .Endpoint.Ports}}{{.PublishedPort}}->{{.TargetPort}}/{{.Protocol}}{{end}}",
            "8000->80/tcp",
        ),
        (
            "{{range .Endpoint.VirtualIPs}}{{.NetworkID}}={{.Addr}}{{end}}",
            "net1=10.0.1.2/24",
        ),
        (
            "{{.ServiceStatus.RunningTasks}}/{{.ServiceStatus.DesiredTasks}}",
            "1/2",
        ),
    ];
    let mut script: Vec<Exchange> = of_web
        .iter()
        .map(|_| get("GET /v1/services/web", service(2, 1)))
        .collect();
    script.push(get("GET /v1/services/everywhere", global));
    script.push(get("GET /v1/services/nosuch", json!({})));
    let node = FakeNode::start(script);
    for (template, shown) in of_web {
        let text = node.inspect("service", "web", template);
        assert_eq!(text, format!("{shown}\n"), "{template}");
    }
    assert_eq!(node.inspect("service", "everywhere", mode), "global\n");
    let (result, text) = node.run("service inspect nosuch");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert_eq!(text, "[\n    {}\n]\n");
    assert_eq!(node.surprises(), NO_SURPRISES);
}
