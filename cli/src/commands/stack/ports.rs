//! Published ports of a stack that other services have: those that keep them, so that a deploy would be
//! refused half-way, and those that give them up in the same deploy, and so have to come first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weft_model::id::ServiceId;
use weft_model::objects::{PortSpec, Protocol, PublishMode, Service};
use weft_stack::{Deployment, Problem, StackPort, StackService};

use super::current::Current;

/// Of a port that is not the stack's to give.
const MEND: &str = "publish another port, or remove that service";

/// What becomes of the ports that a stack asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ports {
    /// Another service has them, and keeps them; by where the file has them.
    pub(super) taken: Vec<Problem>,
    /// Final names of services that take ports, each with those of the stack that give these up.
    pub(super) handed_over: BTreeMap<String, BTreeSet<String>>,
}

impl Ports {
    /// Compares what a stack asks for with what services have. `removed` are services that go first.
    #[must_use]
    pub(super) fn of(
        deployment: &Deployment,
        current: &Current,
        removed: &BTreeSet<ServiceId>,
    ) -> Self {
        let wanted = deployment.services.iter();
        let wanted: BTreeMap<String, &StackService> = wanted
            .map(|service| (service.spec.name.to_ascii_lowercase(), service))
            .collect();
        let mut held: BTreeMap<(u16, Protocol), Vec<Held<'_>>> = BTreeMap::new();
        let stay = current.services.iter();
        for service in stay.filter(|service| !removed.contains(&service.id)) {
            let name = service.spec.name.to_ascii_lowercase();
            let to_be = wanted.get(&name).copied();
            for port in &service.endpoint.ports {
                let key = (port.published, port.protocol);
                held.entry(key).or_default().push(Held {
                    service,
                    port,
                    to_be,
                });
            }
        }
        let mut ports = Self::default();
        for asked in &deployment.ports {
            let key = (asked.spec.published, asked.spec.protocol);
            for held in held.get(&key).into_iter().flatten() {
                if held.is_in_the_way_of(asked) {
                    ports.note(asked, held, &deployment.name);
                }
            }
        }
        ports.taken.sort();
        ports
    }

    fn note(&mut self, asked: &StackPort, held: &Held<'_>, stack: &str) {
        match held.to_be {
            Some(to_be) if !held.stays() => {
                let who = self.handed_over.entry(asked.service.clone()).or_default();
                who.insert(to_be.spec.name.clone());
            }
            _ => self.taken.push(held.problem(asked, stack)),
        }
    }
}

/// A port of a service that there is.
#[derive(Debug, Clone, Copy)]
struct Held<'a> {
    service: &'a Service,
    port: &'a PortSpec,
    /// The same service in the file of the stack.
    to_be: Option<&'a StackService>,
}

impl Held<'_> {
    /// Whether managers would refuse the other one. Of two ports that are each on the nodes of their
    /// tasks only the scheduler knows whether they meet.
    fn is_in_the_way_of(&self, asked: &StackPort) -> bool {
        let is_own = self
            .to_be
            .is_some_and(|to_be| to_be.spec.name == asked.service);
        let both_host = self.port.mode == PublishMode::Host && asked.spec.mode == PublishMode::Host;
        !is_own && !both_host && meet(self.port.host_ip, asked.spec.host_ip)
    }

    /// A port that managers chose is kept, where the file leaves the choice to them again. What the file
    /// chooses was compared with all others of the stack when it was read.
    fn stays(&self) -> bool {
        let to_be = self.to_be.iter();
        let mut ports = to_be.flat_map(|to_be| &to_be.spec.endpoint.ports);
        ports.any(|port| {
            let chosen = PortSpec {
                published: self.port.published,
                ..port.clone()
            };
            port.published == 0 && chosen == *self.port
        })
    }

    /// As managers say it, with the place in the file.
    fn problem(&self, asked: &StackPort, stack: &str) -> Problem {
        let name = &self.service.spec.name;
        let own = self.service.spec.stack().map(|of| (of == stack, of));
        let (of, mend) = match own {
            Some((true, _)) if self.to_be.is_some() => {
                (" of this stack".to_owned(), "publish another port")
            }
            Some((true, _)) => (
                " of this stack".to_owned(),
                "publish another port, or have --prune remove that service, which the files do not have",
            ),
            Some((false, of)) => (format!(" (stack {of})"), MEND),
            None => (String::new(), MEND),
        };
        let how = match self.port.mode {
            PublishMode::Ingress => "as an ingress port",
            PublishMode::Host => "as a host-published port",
        };
        Problem {
            at: asked.at.clone(),
            path: asked.path.clone(),
            what: format!(
                "port {}/{} is already in use by service {name}{of} {how}",
                asked.spec.published, asked.spec.protocol
            ),
            mend: mend.to_owned(),
        }
    }
}

/// Whether two sockets cannot both have their address.
fn meet(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    // `::` takes IPv4 too, as a socket of both families does.
    let covers =
        |wide: IpAddr, other: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || other.is_ipv4());
    match (one, other) {
        (Some(one), Some(other)) => one == other || covers(one, other) || covers(other, one),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_meet_as_sockets_do() {
        let meets = |one: &str, other: &str| {
            let address = |text: &str| (text != "*").then(|| text.parse().expect("an address"));
            meet(address(one), address(other))
        };
        for (one, other, do_meet) in [
            ("*", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("0.0.0.0", "192.0.2.2", true),
            ("::", "192.0.2.2", true),
            ("0.0.0.0", "2001:db8::1", false),
        ] {
            assert_eq!(meets(one, other), do_meet, "{one} {other}");
            assert_eq!(meets(other, one), do_meet, "{other} {one}");
        }
    }
}
