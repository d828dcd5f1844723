//! Published ports of services that run.

use weft_model::api::ServiceUpdate;
use weft_model::objects::{Affinity, ConnectionPolicy, PublishMode};

use super::*;

fn port(published: u16, target: u16) -> PortSpec {
    PortSpec {
        published,
        target,
        ..PortSpec::default()
    }
}

fn update(
    world: &mut World,
    name: &str,
    add: &[PortSpec],
    rm: &[PortSpec],
) -> Result<Service, CommandError> {
    let update = ServiceUpdate {
        publish_add: add.to_vec(),
        publish_rm: rm.to_vec(),
        ..ServiceUpdate::default()
    };
    world.run(|s, now, e| update_service(s, now, e, name, &update))
}

fn published(service: &Service) -> Vec<u16> {
    service.endpoint.ports.iter().map(|p| p.published).collect()
}

#[test]
fn ports_come_and_go_while_the_tasks_stay() {
    let mut world = World::new(2);
    world.create(publish(spec("web", 2), 8000, 80)).unwrap();
    world.run_tasks();
    let before: Vec<TaskId> = world.wanted("web").into_iter().map(|t| t.id).collect();
    let vips = world.state.services[&world.service("web")]
        .endpoint
        .vips
        .clone();
    let web = update(&mut world, "web", &[port(8001, 81), port(0, 82)], &[]).unwrap();
    assert_eq!(published(&web), [8000, 8001, 30000]);
    // As docker: once more is no error, and changes nothing.
    let web = update(&mut world, "web", &[port(8001, 81)], &[]).unwrap();
    assert_eq!(published(&web), [8000, 8001, 30000]);
    // A dynamic port stays what it is.
    let web = update(&mut world, "web", &[], &[port(0, 80)]).unwrap();
    assert_eq!(published(&web), [8001, 30000]);
    let after: Vec<TaskId> = world.wanted("web").into_iter().map(|t| t.id).collect();
    assert_eq!(before, after);
    assert_eq!(web.endpoint.vips, vips);
    assert_eq!(up_to_date_and_desired(&world.state, &web), (2, 2));
    let error = update(&mut world, "web", &[], &[port(0, 99)]).unwrap_err();
    assert_eq!(
        error.message,
        "service web publishes no port 99/tcp; it publishes 30000->82/tcp, 8001->81/tcp"
    );
    let proxied = PortSpec {
        protocol: weft_model::objects::Protocol::Udp,
        client_address: weft_model::objects::ClientAddress::ProxyV2,
        ..port(53, 53)
    };
    let error = update(&mut world, "web", &[proxied], &[]).unwrap_err();
    assert!(
        error.message.contains("PROXY protocol is for tcp"),
        "{error}"
    );
    let error = update(&mut world, "web", &[port(8001, 99)], &[]).unwrap_err();
    assert!(error.message.contains("duplicate published ports"));
}

#[test]
fn a_port_that_another_service_has_is_refused_and_the_freed_one_given() {
    let mut world = World::new(1);
    world.create(publish(spec("web", 1), 8000, 80)).unwrap();
    world.create(publish(spec("api", 1), 9000, 80)).unwrap();
    let error = update(&mut world, "api", &[port(8000, 81)], &[]).unwrap_err();
    let text = "port '8000' is already in use by service 'web'";
    assert!(error.message.contains(text), "{error:?}");
    update(&mut world, "web", &[], &[port(8000, 80)]).unwrap();
    let api = update(&mut world, "api", &[port(8000, 81)], &[]).unwrap();
    assert_eq!(published(&api), [9000, 8000]);
}

#[test]
fn tasks_without_an_address_for_published_ports_are_replaced() {
    let mut world = World::new(2);
    world.create(spec("web", 2)).unwrap();
    world.run_tasks();
    let before: Vec<TaskId> = world.wanted("web").into_iter().map(|t| t.id).collect();
    let web = update(&mut world, "web", &[port(8000, 80)], &[]).unwrap();
    assert_eq!(web.endpoint.vips.len(), 2);
    world.run_tasks();
    let after = world.wanted("web");
    assert_eq!(after.len(), 2);
    assert!(after.iter().all(|t| !before.contains(&t.id)));
    assert!(after.iter().all(|t| t.attachments.len() == 1));
    // The address is kept for the next time, and not taken twice.
    update(&mut world, "web", &[], &[port(0, 80)]).unwrap();
    let again = update(&mut world, "web", &[port(8000, 80)], &[]).unwrap();
    assert_eq!(again.endpoint.vips, web.endpoint.vips);
    let same: Vec<TaskId> = world.wanted("web").into_iter().map(|t| t.id).collect();
    assert!(after.iter().all(|t| same.contains(&t.id)));
}

#[test]
fn another_port_of_the_tasks_node_replaces_the_tasks() {
    let mut world = World::new(2);
    let mut host = publish(spec("web", 2), 8000, 80);
    host.endpoint.ports[0].mode = PublishMode::Host;
    let before = world.create(host).unwrap();
    assert_eq!(before.endpoint.vips.len(), 2);
    world.run_tasks();
    let before: Vec<TaskId> = world.wanted("web").into_iter().map(|t| t.id).collect();
    let more = PortSpec {
        mode: PublishMode::Host,
        ..port(8001, 81)
    };
    update(&mut world, "web", &[more], &[]).unwrap();
    world.run_tasks();
    let after = world.wanted("web");
    assert!(after.iter().all(|t| !before.contains(&t.id)));
    assert_eq!(world.spread("web").len(), 2);
}

#[test]
fn wide_addresses_collide_with_narrow_ones() {
    let at = |ip: &str| PortSpec {
        host_ip: Some(ip.parse().unwrap()),
        ..port(53, 53)
    };
    let collide = ports::collide;
    for (a, b, expected) in [
        ("0.0.0.0", "192.0.2.1", true),
        ("192.0.2.1", "0.0.0.0", true),
        ("0.0.0.0", "2001:db8::1", false),
        ("::", "192.0.2.1", true),
        ("192.0.2.1", "192.0.2.2", false),
        ("192.0.2.1", "192.0.2.1", true),
    ] {
        assert_eq!(collide(&at(a), &at(b)), expected, "{a} {b}");
    }
    assert!(collide(&port(53, 53), &at("192.0.2.1")));
}

#[test]
fn how_connections_find_a_replica_changes_while_the_tasks_stay() {
    let mut world = World::new(2);
    world.create(publish(spec("web", 2), 8000, 80)).unwrap();
    world.run_tasks();
    let before: Vec<TaskId> = world.wanted("web").into_iter().map(|t| t.id).collect();
    let change = |world: &mut World, update: &ServiceUpdate| {
        let web = world.run(|s, now, e| update_service(s, now, e, "web", update));
        web.unwrap().spec.connections
    };
    let limited = ServiceUpdate {
        affinity: Some(Affinity::Client),
        limit_connections: Some(100),
        limit_client_connections: Some(10),
        ..ServiceUpdate::default()
    };
    change(&mut world, &limited);
    let local = ServiceUpdate {
        local_first: Some(true),
        limit_connections: Some(0),
        ..ServiceUpdate::default()
    };
    assert_eq!(
        change(&mut world, &local),
        ConnectionPolicy {
            affinity: Affinity::Client,
            local_first: true,
            limit: 0,
            limit_per_client: 10,
        }
    );
    let after: Vec<TaskId> = world.wanted("web").into_iter().map(|t| t.id).collect();
    assert_eq!(before, after);
}
