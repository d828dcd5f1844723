//! What can be reached, and through which replicas: compiled by the agent, read by workers.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use weft_wire::{Parts, Vni};

use crate::balancer::Balancer;
use crate::load::PortLoad;
use crate::replica::Replica;

/// Transport protocol of a published port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

/// Limits of a service on one network; 0 is none. Who reaches one is refused; what is open stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Connections of all clients to all replicas, cluster-wide as far as this node knows: several
    /// nodes may pass it together by what they take between two reports, and by the share that each
    /// always has ([`crate::ServiceLoad::share`]), so that no report closes a service.
    pub connections: u32,
    /// Connections of one client address through one worker, which is all of the client's on this
    /// node. Clients whose address the balancer does not see are the business of who does.
    pub per_client: u32,
}

/// A service as it is seen on one network.
#[derive(Debug, Clone)]
pub struct Service {
    /// Object id.
    pub id: Arc<str>,
    /// Name, for people.
    pub name: Arc<str>,
    /// New connections go to replicas on this node while one of them can take them.
    pub local_first: bool,
    /// How a replica is chosen.
    pub balancer: Balancer,
    /// How many connections there may be.
    pub limits: Limits,
    /// No replica takes connections and some are wanted: clients that open one wait for the next
    /// replica, a few seconds at most. Where none is wanted they are refused at once.
    pub in_gap: bool,
    /// Replicas on this network, both address families.
    pub replicas: Vec<Replica>,
}

impl Service {
    /// Whether the limit, or this node's share of it, is not yet reached by the connections open to
    /// all replicas with such an address.
    pub(crate) fn has_room(&self, ipv6: bool) -> bool {
        let (mut own, mut all) = (0_u32, 0_u32);
        for replica in self.replicas.iter().filter(|r| r.ip.is_ipv6() == ipv6) {
            let mine = replica.load.own();
            own = own.saturating_add(mine);
            all = all.saturating_add(mine.saturating_add(replica.load.claimed()));
        }
        all < self.limits.connections || own < self.balancer.load.share()
    }
}

/// What is behind a published port.
#[derive(Debug, Clone, Copy)]
pub struct Published<'a> {
    /// The service, with its replicas on the ingress network.
    pub service: &'a Service,
    /// Port inside the replica's sandbox.
    pub target_port: u16,
    /// Counters of the port.
    pub load: &'a Arc<PortLoad>,
}

/// Names a service inside a [`ServicesBuilder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceIndex(u32);

/// Every VIP and published port that the node knows; immutable.
#[derive(Debug, Default)]
pub struct Services {
    services: Vec<Arc<Service>>,
    vips: HashMap<(Vni, IpAddr), ServiceIndex>,
    published: HashMap<(Protocol, u16), (ServiceIndex, u16, Arc<PortLoad>)>,
    places: Places,
    mtus: HashMap<Vni, u16>,
}

impl Services {
    /// The service with virtual address `ip` on network `vni`. O(1).
    #[must_use]
    pub fn vip(&self, vni: Vni, ip: IpAddr) -> Option<&Service> {
        let index = self.vips.get(&(vni, ip))?;
        self.at(*index)
    }

    /// What is behind published port `port`. O(1).
    #[must_use]
    pub fn published(&self, protocol: Protocol, port: u16) -> Option<Published<'_>> {
        let (index, target_port, load) = self.published.get(&(protocol, port))?;
        let service = self.at(*index)?;
        Some(Published {
            service,
            target_port: *target_port,
            load,
        })
    }

    /// Everything that is published, in no order.
    pub fn all_published(&self) -> impl Iterator<Item = (Protocol, Published<'_>)> {
        let ports = self.published.iter();
        ports.filter_map(|((protocol, _), (index, target_port, load))| {
            let service = self.at(*index)?;
            let published = Published {
                service,
                target_port: *target_port,
                load,
            };
            Some((*protocol, published))
        })
    }

    /// The replica with stable id `key` on network `vni`; none once its endpoint is gone. O(1).
    #[must_use]
    pub fn replica(&self, vni: Vni, key: u64) -> Option<&Replica> {
        let &(service, replica) = self.places.by_key.get(&(vni, key))?;
        self.at(service)?.replicas.get(replica as usize)
    }

    /// The service that the replica with stable id `key` on network `vni` belongs to. O(1).
    #[must_use]
    pub fn service_of_replica(&self, vni: Vni, key: u64) -> Option<&Service> {
        let (service, _) = self.places.by_key.get(&(vni, key))?;
        self.at(*service)
    }

    /// True when a replica of any service has address `ip` on network `vni`. O(1).
    #[must_use]
    pub fn is_replica(&self, vni: Vni, ip: IpAddr) -> bool {
        let addresses = &self.places.addresses;
        !addresses.is_empty() && addresses.contains_key(&(vni, ip))
    }

    /// Longest TCP segment, in bytes of data, that network `vni` carries whole; unknown without
    /// its MTU. O(1).
    #[must_use]
    pub fn mss(&self, vni: Vni, ipv4: bool) -> Option<u16> {
        // RFC 9293 section 3.7.1: less the fixed IP and TCP headers, options not counted.
        let headers = if ipv4 { 20 + 20 } else { 40 + 20 };
        self.mtus.get(&vni)?.checked_sub(headers)
    }

    /// Every service, once for each network that it is on.
    #[must_use]
    pub fn all(&self) -> &[Arc<Service>] {
        &self.services
    }

    fn at(&self, index: ServiceIndex) -> Option<&Service> {
        self.services
            .get(index.0 as usize)
            .map(|service| &**service)
    }
}

/// Where replicas are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Places {
    by_key: Parts<(Vni, u64), (ServiceIndex, u32)>,
    addresses: Parts<(Vni, IpAddr), ()>,
    /// Replicas of all services together.
    count: usize,
}

impl Places {
    fn of(services: &[Arc<Service>]) -> Self {
        let mut this = Self::default();
        for (index, service) in numbered(services) {
            this.add(index, service);
        }
        this
    }

    /// The places of replicas of the services that `are`, made from these, which are of those that
    /// `were`. None where that takes a look at all of them: there are more or fewer, or a replica is
    /// in two, as a published port that leads to one task alone is a service of its own.
    fn follow(&self, were: &[Arc<Service>], are: &[Arc<Service>]) -> Option<Self> {
        if were.len() != are.len() || !self.is_plain() {
            return None;
        }
        let mut this = self.clone();
        let pairs = || numbered(are).zip(were);
        let others = || pairs().filter(|((_, is), was)| !Arc::ptr_eq(is, was));
        for (_, was) in others() {
            for replica in &was.replicas {
                this.by_key.remove(&(replica.vni, replica.key));
                this.addresses.remove(&(replica.vni, replica.ip));
            }
            this.count -= was.replicas.len();
        }
        for ((index, is), _) in others() {
            this.add(index, is);
        }
        this.is_plain().then_some(this)
    }

    fn add(&mut self, index: ServiceIndex, service: &Service) {
        for (at, replica) in (0u32..).zip(&service.replicas) {
            self.by_key.insert((replica.vni, replica.key), (index, at));
            self.addresses.insert((replica.vni, replica.ip), ());
        }
        self.count += service.replicas.len();
    }

    /// Whether no two replicas have a key or an address in common.
    fn is_plain(&self) -> bool {
        self.by_key.len() == self.count && self.addresses.len() == self.count
    }
}

fn numbered(services: &[Arc<Service>]) -> impl Iterator<Item = (ServiceIndex, &Arc<Service>)> {
    (0u32..).map(ServiceIndex).zip(services)
}

/// Collects a [`Services`].
#[derive(Debug, Default)]
pub struct ServicesBuilder {
    built: Services,
}

impl ServicesBuilder {
    /// Starts with nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service with its replicas on one network. One of earlier tables is shared with them.
    pub fn service(&mut self, service: impl Into<Arc<Service>>) -> ServiceIndex {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "four billion services do not fit in memory"
        )]
        let index = ServiceIndex(self.built.services.len() as u32);
        self.built.services.push(service.into());
        index
    }

    /// Says that packets on network `vni` have `mtu_bytes` at most.
    pub fn mtu(&mut self, vni: Vni, mtu_bytes: u16) -> &mut Self {
        self.built.mtus.insert(vni, mtu_bytes);
        self
    }

    /// Makes `ip` on network `vni` a virtual address of `service`. The last one given counts.
    pub fn vip(&mut self, vni: Vni, ip: IpAddr, service: ServiceIndex) -> &mut Self {
        self.built.vips.insert((vni, ip), service);
        self
    }

    /// Publishes `target_port` of `service` as `port` of every node. The last one given counts.
    pub fn publish(
        &mut self,
        protocol: Protocol,
        port: u16,
        service: ServiceIndex,
        target_port: u16,
    ) -> &mut Self {
        self.publish_counted(protocol, port, service, target_port, Arc::default())
    }

    /// As [`Self::publish`], with the counters of the port: the same ones as in the tables before.
    pub fn publish_counted(
        &mut self,
        protocol: Protocol,
        port: u16,
        service: ServiceIndex,
        target_port: u16,
        load: Arc<PortLoad>,
    ) -> &mut Self {
        self.built
            .published
            .insert((protocol, port), (service, target_port, load));
        self
    }

    /// The finished tables.
    #[must_use]
    pub fn build(self) -> Services {
        self.build_after(&Services::default())
    }

    /// As [`Self::build`], at the cost of the replicas of what differs from `before`, if the same
    /// services are in the same order there.
    #[must_use]
    pub fn build_after(mut self, before: &Services) -> Services {
        let services = &self.built.services;
        let places = before.places.follow(&before.services, services);
        self.built.places = places.unwrap_or_else(|| Places::of(services));
        self.built
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use weft_wire::Mac;

    use super::*;

    fn replica(key: u64) -> Replica {
        Replica {
            key,
            vni: Vni::new(4096).unwrap(),
            ip: Ipv4Addr::new(10, 0, 0, 9).into(),
            mac: Mac([2, 0x42, 10, 0, 0, 9]),
            local: false,
            draining: false,
            load: Arc::default(),
        }
    }

    #[test]
    fn tables_find_what_was_put_in_and_nothing_else() {
        let vni = Vni::new(4096).unwrap();
        let other = Vni::new(4097).unwrap();
        let vip: IpAddr = Ipv4Addr::new(10, 0, 0, 2).into();
        let mut b = ServicesBuilder::new();
        let web = b.service(Service {
            id: "id".into(),
            name: "web".into(),
            local_first: false,
            balancer: Balancer::default(),
            limits: Limits::default(),
            in_gap: false,
            replicas: vec![replica(1), replica(2)],
        });
        b.vip(vni, vip, web)
            .publish(Protocol::Tcp, 8000, web, 80)
            .mtu(vni, 1450);
        let s = b.build();
        assert!(s.vip(other, vip).is_none());
        assert_eq!(&*s.vip(vni, vip).unwrap().name, "web");
        assert_eq!(s.published(Protocol::Tcp, 8000).unwrap().target_port, 80);
        assert!(s.published(Protocol::Udp, 8000).is_none());
        let all: Vec<_> = s.all_published().collect();
        assert_eq!((all.len(), all[0].1.target_port), (1, 80));
        assert_eq!(s.replica(vni, 2).unwrap().key, 2);
        assert!(s.replica(vni, 3).is_none());
        assert!(s.replica(other, 2).is_none());
        let ip = replica(1).ip;
        assert!(s.is_replica(vni, ip) && !s.is_replica(other, ip) && !s.is_replica(vni, vip));
        assert_eq!(s.all().len(), 1);
        assert_eq!(
            (s.mss(vni, true), s.mss(vni, false)),
            (Some(1410), Some(1390))
        );
        assert_eq!(s.mss(other, true), None);
    }

    fn service(keys: &[u64]) -> Arc<Service> {
        let replicas = keys.iter().map(|key| Replica {
            ip: Ipv4Addr::new(10, 0, 1, *key as u8).into(),
            ..replica(*key)
        });
        Arc::new(Service {
            id: "id".into(),
            name: "web".into(),
            local_first: false,
            balancer: Balancer::default(),
            limits: Limits::default(),
            in_gap: false,
            replicas: replicas.collect(),
        })
    }

    proptest::proptest! {
        /// However replicas come, go and move, also into two services at once: tables that follow
        /// others know the places that tables made anew know.
        #[test]
        fn tables_that_follow_others_are_those_made_anew(
            steps in proptest::collection::vec(
                (0_usize..4, proptest::collection::vec(0_u64..6, 0..4)),
                1..20,
            ),
        ) {
            let mut services = vec![service(&[1, 2]), service(&[3])];
            let mut before = Services::default();
            for (at, keys) in steps {
                match services.get_mut(at) {
                    Some(known) => *known = service(&keys),
                    None if keys.is_empty() => drop(services.pop()),
                    None => services.push(service(&keys)),
                }
                let mut builder = ServicesBuilder::new();
                for service in &services {
                    builder.service(Arc::clone(service));
                }
                let after = builder.build_after(&before);
                proptest::prop_assert_eq!(&after.places, &Places::of(&services));
                before = after;
            }
        }
    }
}
