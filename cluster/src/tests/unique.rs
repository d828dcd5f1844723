use weft_model::objects::PublishMode;

use super::*;

fn world() -> World {
    let mut world = World::new(2);
    for network in ["a", "b"] {
        world.network(network, &[]).unwrap();
    }
    world.create(publish(spec("web", 2), 8000, 80)).unwrap();
    world.create(on(spec("db", 1), "a")).unwrap();
    world.create(on(spec("cache", 1), "a")).unwrap();
    world
}

/// What is said of the state with these objects in the place of those that there are.
fn with(world: &World, objects: impl IntoIterator<Item = Object>) -> Option<String> {
    let mut state = world.state.clone();
    for object in objects {
        state.put(object);
    }
    given_twice(&state)
}

#[test]
fn what_two_have_is_named() {
    let world = world();
    let state = &world.state;
    assert_eq!(with(&world, []), None);

    let a = state.find_network("a").unwrap();
    let mut b = state.find_network("b").unwrap().clone();
    b.vni = a.vni;
    let said = "two networks have the VXLAN network identifier 4097";
    assert_eq!(with(&world, [b.into()]).as_deref(), Some(said));

    let mut b = state.find_network("b").unwrap().clone();
    b.spec.ipam.config[0].cidr = "10.0.1.128/25".parse().unwrap();
    let said = "subnets 10.0.1.0/24 and 10.0.1.128/25 overlap";
    assert_eq!(with(&world, [b.into()]).as_deref(), Some(said));

    let mut second = state.nodes[&node(2)].clone();
    second.ingress_ip = state.nodes[&node(1)].ingress_ip;
    let said = "two have the address 10.0.0.2 on network ingress";
    assert_eq!(with(&world, [second.into()]).as_deref(), Some(said));

    let db = state.find_service("db").unwrap();
    let mut cache = state.find_service("cache").unwrap().clone();
    cache.endpoint.vips.clone_from(&db.endpoint.vips);
    let ip = db.endpoint.vips[0].addr.addr();
    let said = format!("two have the address {ip} on network a");
    assert_eq!(with(&world, [cache.into()]), Some(said));
}

#[test]
fn ports_of_two_are_found_where_they_meet() {
    let world = world();
    let mut web = world.state.find_service("web").unwrap().clone();
    let mut db = world.state.find_service("db").unwrap().clone();
    db.endpoint.ports.clone_from(&web.endpoint.ports);
    let said = "port 8000/tcp is published twice";
    let both = with(&world, [web.clone().into(), db.clone().into()]);
    assert_eq!(both.as_deref(), Some(said));
    // On the nodes of their tasks they may be apart.
    db.endpoint.ports[0].mode = PublishMode::Host;
    let both = with(&world, [web.clone().into(), db.clone().into()]);
    assert_eq!(both.as_deref(), Some(said));
    web.endpoint.ports[0].mode = PublishMode::Host;
    assert_eq!(with(&world, [web.into(), db.into()]), None);
}
