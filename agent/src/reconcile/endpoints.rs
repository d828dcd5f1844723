//! Endpoints made by `network connect`: sandboxes that someone else owns.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::Mutex;
use weft_cluster::{Attach, Detacher};
use weft_dns::ClientView;
use weft_model::api::{Connect, Connected, Disconnect};
use weft_model::assignment::{Assignment, EndpointView};
use weft_model::id::EndpointId;
use weft_model::objects::{Endpoint, Network};
use weft_model::records::EndpointRecord;
use weft_sys::netns::{Netns, NetnsError};
use weft_sys::tap::Tap;

use super::attach::{local_port, port_config};
use super::places::{self, Place, Places};
use super::stacks::{stack_of, tell_places};
use crate::api::ApiError;
use crate::blocking::blocking;
use crate::compile::known::KnownEndpoint;
use crate::parts::data_path::DataPath;
use crate::parts::handles::Handles;
use crate::sandbox::{DnsSockets, Sandbox, SandboxError};

/// Whether each namespace still is the one that was attached. All in one call: a thousand hand-overs
/// to another thread would cost more than the looks.
async fn check(
    known: &BTreeMap<EndpointId, Place>,
) -> anyhow::Result<HashMap<EndpointId, anyhow::Result<()>>> {
    let known = known.clone();
    blocking(move || {
        known
            .into_iter()
            .map(|(id, place)| (id, place.open().map(drop)))
            .collect()
    })
    .await
}

/// Why a sandbox cannot be had; where it is not there, with the node that was asked, which may be
/// another one than its user has in mind.
fn not_here(error: &SandboxError, node: &str) -> String {
    match error {
        SandboxError::Netns(NetnsError::NotFound { .. } | NetnsError::NoProcess { .. }) => format!(
            "{error}; this is node {node}: if it is on another node, ask that one, by the option -H \
             or WEFT_HOST"
        ),
        error => error.to_string(),
    }
}

/// What an endpoint has in its sandbox.
struct Made {
    tap: Tap,
    /// None where the sandbox is served already: on its second network.
    sockets: Option<Result<DnsSockets, SandboxError>>,
}

/// Endpoints on this node that `network connect` made.
/// No two of its locks are held at once.
pub(crate) struct Endpoints {
    handles: Arc<Handles>,
    places: Mutex<Places>,
    /// Those that orders have held, an earlier agent's too: only they can be gone from them.
    seen: Mutex<BTreeSet<EndpointId>>,
}

impl Endpoints {
    /// Those that an earlier agent wrote down.
    pub(crate) fn new(handles: Arc<Handles>, places: Places) -> Self {
        Self {
            handles,
            seen: Mutex::new(places.ids()),
            places: Mutex::new(places),
        }
    }

    /// `weft network connect`. Nothing is left behind when it fails.
    pub(crate) async fn connect(
        &self,
        data_path: &Arc<DataPath>,
        network: &str,
        body: Connect,
    ) -> Result<Connected, ApiError> {
        let netns = body.netns.clone();
        let sandbox = blocking(move || Sandbox::open(&netns))
            .await
            .map_err(|e| ApiError::internal(e.to_string()))?
            .map_err(|e| {
                ApiError::bad_request(not_here(&e, &self.handles.membership.node.hostname))
            })?;
        let wanted = body.ifname.clone();
        let (sandbox, ifname, inode, own) = blocking(move || {
            let free = match wanted {
                Some(name) => sandbox.check_free(&name).map(|()| name),
                None => sandbox.first_free_ifname(),
            };
            let inode = sandbox.netns().inode();
            let own = Netns::current().ok().and_then(|own| own.inode().ok());
            (sandbox, free, inode, own)
        })
        .await
        .map_err(|e| ApiError::internal(e.to_string()))?;
        let ifname = ifname.map_err(|e| match e {
            SandboxError::Ifname { .. } => ApiError::conflict(e.to_string()),
            e => ApiError::internal(e.to_string()),
        })?;
        let inode = inode.map_err(|e| ApiError::internal(e.to_string()))?;
        if own == Some(inode) {
            return Err(ApiError::bad_request(format!(
                "{} is the network namespace of the node itself: give that of a container or one made with `ip netns add`",
                body.netns
            )));
        }
        self.handles.manager.is_on()?;
        let endpoint = self
            .handles
            .session
            .attach(&Attach {
                network: network.to_owned(),
                ip: body.ip,
                aliases: body.aliases.clone(),
                service: body.service.clone(),
                name: body.name.clone(),
            })
            .await?;
        let place = Place {
            netns: body.netns,
            ifname: ifname.clone(),
            inode,
        };
        let Some(network) = self.network_of(&endpoint).await else {
            self.undo_attach(&endpoint).await;
            return Err(ApiError::unavailable(
                "the manager allocated the endpoint but its network did not arrive here; try again",
            ));
        };
        let failed = |error: anyhow::Error| {
            ApiError::internal(format!(
                "cannot attach {} to network {}: {error:#}",
                ifname, network.spec.name
            ))
        };
        let made = match self
            .make_local(data_path, sandbox, &endpoint, &network, &place)
            .await
        {
            Ok(made) => made,
            // Whatever has that name in the sandbox now is not ours.
            Err(error) => {
                self.undo_attach(&endpoint).await;
                return Err(failed(error));
            }
        };
        let taken = match self.keep_place(&endpoint, &place).await {
            Ok(()) => {
                self.take_local(data_path, made, &endpoint, &network, &place)
                    .await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            let id = &endpoint.attachment.endpoint;
            self.forget_place(id).await;
            self.remove_local(data_path, id, &place).await;
            self.undo_attach(&endpoint).await;
            return Err(failed(error));
        }
        let ips: Vec<IpAddr> = endpoint.attachment.ips().collect();
        Ok(Connected {
            id: endpoint.attachment.endpoint.clone(),
            name: endpoint.name,
            ip: ips
                .first()
                .copied()
                .ok_or_else(|| ApiError::internal("the endpoint has no address"))?,
            ips,
            mac: endpoint.attachment.mac,
            ifname,
            network: network.spec.name,
            mtu: u32::from(data_path.mtu()),
        })
    }

    /// Gives an allocation back.
    async fn undo_attach(&self, endpoint: &Endpoint) {
        let network = endpoint.attachment.network.as_str();
        let id = endpoint.attachment.endpoint.as_str();
        if let Err(error) = self.handles.session.detach(network, id, false).await {
            tracing::warn!(endpoint = id, %error, "the allocation was not given back");
        }
    }

    /// The endpoint's network as the orders have it; a new network may be a moment behind.
    async fn network_of(&self, endpoint: &Endpoint) -> Option<Network> {
        let mut orders = self.handles.session.assignments();
        let found = tokio::time::timeout(std::time::Duration::from_secs(5), async {
            loop {
                let network = orders.borrow_and_update().as_ref().and_then(|o| {
                    let id = &endpoint.attachment.network;
                    o.shared.networks.iter().find(|n| &n.id == id).cloned()
                });
                if network.is_some() {
                    return network;
                }
                orders.changed().await.ok()?;
            }
        });
        found.await.ok().flatten()
    }

    /// Makes the interface and its way out, or takes up those that are there. An interface that
    /// this call made is gone again when it fails.
    async fn make_local(
        &self,
        data_path: &DataPath,
        sandbox: Sandbox,
        endpoint: &Endpoint,
        network: &Network,
        place: &Place,
    ) -> anyhow::Result<Made> {
        let attachment = &endpoint.attachment;
        let config = port_config(place.ifname.clone(), attachment, network, data_path.mtu());
        let gateway = data_path.gateway.clone();
        let internal = network.spec.internal;
        let served = self.handles.dns.serves(&place.resolver());
        let closed = internal && !self.has_way_out(place.inode, &attachment.endpoint).await;
        let made = blocking(move || {
            let tap = sandbox.add_port(&config);
            if closed && let Some(Err(error)) = gateway.wait().map(|g| g.disconnect(&sandbox)) {
                tracing::warn!(%error, "a sandbox on internal networks keeps its way out");
            }
            // A foreign sandbox with a way out of its own keeps it.
            let has_own = || sandbox.has_own_way_out().unwrap_or(true);
            let egress = if tap.is_err() || internal || has_own() {
                None
            } else {
                let gateway = gateway.wait();
                gateway.and_then(|g| g.connect(&sandbox).err())
            };
            let sockets = (!served).then(|| sandbox.dns_sockets());
            (tap, egress, sockets)
        })
        .await?;
        let (tap, egress, sockets) = made;
        if let Some(error) = egress {
            tracing::warn!(endpoint = %endpoint.name, %error, "the sandbox has no way out");
        }
        Ok(Made { tap: tap?, sockets })
    }

    /// Puts a port that was made, and whose place is kept, into the tables and the resolver.
    async fn take_local(
        &self,
        data_path: &Arc<DataPath>,
        made: Made,
        endpoint: &Endpoint,
        network: &Network,
        place: &Place,
    ) -> anyhow::Result<()> {
        let attachment = &endpoint.attachment;
        let said = EndpointRecord {
            id: attachment.endpoint.clone(),
            ready: true,
            draining: false,
            ipv4_only: Vec::new(),
            without_ipv6: false,
        };
        let record = KnownEndpoint::new(EndpointView::from(endpoint), &said);
        let id = self.handles.local.next_id();
        let port = local_port(id, data_path, made.tap, network.vni, record)?;
        self.handles.local.insert(port);
        let view = self.client_view(place).await;
        match made.sockets {
            Some(Ok(sockets)) => self.handles.dns.serve(&place.resolver(), sockets, view)?,
            Some(Err(error)) => {
                tracing::warn!(endpoint = %endpoint.name, %error, "no resolver in the sandbox");
            }
            None => {
                self.handles.dns.update_client(&place.resolver(), view);
            }
        }
        Ok(())
    }

    /// True when a sandbox is on a network with a way to the outside, that of endpoint `but` left
    /// out. One that the orders do not tell of counts as such.
    async fn has_way_out(&self, inode: u64, but: &EndpointId) -> bool {
        let others: Vec<EndpointId> = {
            let places = self.places.lock().await;
            let here = places.known.iter().filter(|(_, p)| p.inode == inode);
            here.map(|(id, _)| id.clone())
                .filter(|id| id != but)
                .collect()
        };
        let Some(orders) = self.handles.session.assignments().borrow().clone() else {
            return !others.is_empty();
        };
        others.iter().any(|id| {
            let mut ordered = orders.own.endpoints.iter().map(|e| &e.attachment);
            let network = ordered
                .find(|a| a.endpoint == *id)
                .map(|a| a.network.clone())
                .or_else(|| Some(self.handles.local.get(id)?.record.network.clone()));
            let mut networks = orders.shared.networks.iter();
            networks
                .find(|n| Some(&n.id) == network.as_ref())
                .is_none_or(|n| !n.spec.internal)
        })
    }

    /// Networks that a sandbox is on, and its stack, for DNS.
    async fn client_view(&self, place: &Place) -> ClientView {
        let places = self.places.lock().await;
        let ports: Vec<_> = places
            .known
            .iter()
            .filter(|(_, p)| p.inode == place.inode)
            .filter_map(|(id, _)| self.handles.local.get(id))
            .collect();
        let networks: Vec<String> = ports.iter().map(|p| p.record.network.0.clone()).collect();
        let orders = self.handles.session.assignments().borrow().clone();
        let services = ports.iter().filter_map(|port| port.record.service.as_ref());
        let stack = orders.as_ref().and_then(|o| stack_of(o, services));
        let internal_only = orders.is_some_and(|o| {
            networks.iter().all(|id| {
                o.shared
                    .networks
                    .iter()
                    .any(|n| n.id.as_str() == id && n.spec.internal)
            })
        });
        ClientView {
            networks,
            internal_only,
            stack,
        }
    }

    /// Re-attaches endpoints after a restart, lets go of those whose namespace is gone, and detaches
    /// those that the orders no longer hold.
    pub(crate) async fn converge(&self, data_path: &Arc<DataPath>, orders: &Arc<Assignment>) {
        self.find_lost_places(orders).await;
        let known = self.places.lock().await.known.clone();
        let mut checked = match check(&known).await {
            Ok(checked) => checked,
            Err(error) => {
                tracing::error!(%error, "the sandboxes were not looked at");
                return;
            }
        };
        for endpoint in &orders.own.endpoints {
            let id = &endpoint.attachment.endpoint;
            let (Some(place), Some(checked)) = (known.get(id), checked.remove(id)) else {
                continue;
            };
            let subject = format!("endpoint {}", endpoint.name);
            let outcome = match (checked, self.handles.local.get(id)) {
                (Ok(()), Some(_)) => Ok(()),
                (Ok(()), None) => self.reattach(data_path, orders, endpoint, place).await,
                (Err(error), Some(_)) => {
                    // Whoever owned the sandbox ended it: no client may be sent there.
                    self.handles.local.remove(id);
                    self.handles.dns.stop(&place.resolver()).await;
                    Err(error)
                }
                (Err(_), None) => self.reattach(data_path, orders, endpoint, place).await,
            };
            match outcome {
                Ok(()) => self.handles.warnings.clear(&subject),
                Err(error) => self.handles.warnings.set(
                    &subject,
                    format!(
                        "endpoint {name} is not attached: {error:#}; `weft network disconnect NETWORK {name}` gives its address back",
                        name = endpoint.name
                    ),
                ),
            }
        }
        tell_places(&self.handles.dns, orders, &known);
        let ordered: HashSet<&EndpointId> = orders
            .own
            .endpoints
            .iter()
            .map(|e| &e.attachment.endpoint)
            .collect();
        if self.handles.session.is_remembered(orders) {
            return;
        }
        for (id, place) in &known {
            // The allocation exists before the orders show it; only what was seen in them counts.
            let mut seen = self.seen.lock().await;
            if ordered.contains(id) {
                if !seen.contains(id) {
                    seen.insert(id.clone());
                }
            } else if seen.remove(id) {
                drop(seen);
                self.detach_local(data_path, id, place).await;
            }
        }
    }

    /// Finds the sandboxes of endpoints again that the list of places does not have, when it was lost.
    async fn find_lost_places(&self, orders: &Arc<Assignment>) {
        let remembered = self.handles.session.is_remembered(orders);
        let mut places = self.places.lock().await;
        let ordered = orders.own.endpoints.iter();
        let ordered = ordered.map(|e| e.attachment.endpoint.clone());
        let mut wanted = places.lacking(ordered, remembered);
        if !wanted.is_empty() {
            let searched = wanted.clone();
            let found = match blocking(move || places::find(&searched)).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::error!(%error, "lost endpoints were not searched for");
                    return;
                }
            };
            wanted.retain(|id| !found.contains_key(id));
            if !found.is_empty() {
                tracing::warn!(
                    count = found.len(),
                    "sandboxes of endpoints were found again"
                );
                places.take(found);
                if let Err(error) = places.save() {
                    tracing::warn!(%error, "the list of endpoints was not saved");
                }
            }
        }
        if remembered {
            return;
        }
        if wanted.is_empty() {
            if places.damage().is_some() {
                places.forget_damage();
                self.handles.warnings.clear(places::FILE);
            }
            return;
        }
        let lost = orders.own.endpoints.iter();
        for endpoint in lost.filter(|e| wanted.contains(&e.attachment.endpoint)) {
            let name = &endpoint.name;
            self.handles.warnings.set(
                &format!("endpoint {name}"),
                format!(
                    "endpoint {name} is not attached: nobody knows any more where its sandbox is, and none says it has it; `weft network disconnect NETWORK {name}` gives its address back, then connect it again"
                ),
            );
        }
        // Of what is missing each has its own warning now, which ends with it.
        places.forget_damage();
    }

    async fn reattach(
        &self,
        data_path: &Arc<DataPath>,
        orders: &Assignment,
        endpoint: &Endpoint,
        place: &Place,
    ) -> anyhow::Result<()> {
        let network = orders
            .shared
            .networks
            .iter()
            .find(|n| n.id == endpoint.attachment.network)
            .ok_or_else(|| anyhow::anyhow!("its network is not in the orders"))?;
        let mut place = place.clone();
        let (sandbox, inode) = {
            let place = place.clone();
            blocking(move || -> anyhow::Result<(Sandbox, u64)> {
                let sandbox = place.open_again()?;
                let inode = sandbox.netns().inode()?;
                Ok((sandbox, inode))
            })
            .await??
        };
        place.inode = inode;
        let made = self
            .make_local(data_path, sandbox, endpoint, network, &place)
            .await?;
        if let Err(error) = self.keep_place(endpoint, &place).await {
            // What was attached stays so, on a full disk too.
            tracing::warn!(endpoint = %endpoint.name, %error, "its new place was not written down");
        }
        self.take_local(data_path, made, endpoint, network, &place)
            .await
    }

    /// Writes down where an endpoint is, unless that is known.
    async fn keep_place(&self, endpoint: &Endpoint, place: &Place) -> anyhow::Result<()> {
        let mut places = self.places.lock().await;
        let id = endpoint.attachment.endpoint.clone();
        if places.known.insert(id, place.clone()).as_ref() == Some(place) {
            return Ok(());
        }
        places.save()
    }

    /// `weft network disconnect`.
    pub(crate) async fn disconnect(
        &self,
        data_path: &Arc<DataPath>,
        network: &str,
        body: &Disconnect,
    ) -> Result<(), ApiError> {
        self.handles.manager.is_on()?;
        let gone = match self.handles.manager.get() {
            Some(manager) if manager.leads() => {
                let who = if body.force {
                    Detacher::Force
                } else {
                    Detacher::Manager(&self.handles.node_id)
                };
                manager.detach(who, network, &body.endpoint).await?
            }
            Some(_) | None => {
                let session = &self.handles.session;
                session.detach(network, &body.endpoint, body.force).await?
            }
        };
        self.handles
            .warnings
            .clear(&format!("endpoint {}", gone.name));
        let id = gone.attachment.endpoint;
        let place = self.places.lock().await.known.get(&id).cloned();
        if let Some(place) = place {
            self.detach_local(data_path, &id, &place).await;
        }
        Ok(())
    }

    /// Takes the place of an endpoint out of the list; false when somebody else did.
    async fn forget_place(&self, id: &EndpointId) -> bool {
        let mut places = self.places.lock().await;
        let found = places.known.remove(id).is_some();
        if found && let Err(error) = places.save() {
            tracing::warn!(%error, "the list of endpoints was not saved");
        }
        found
    }

    async fn detach_local(&self, data_path: &Arc<DataPath>, id: &EndpointId, place: &Place) {
        // The command and the loop may both come here; the interface may be a new one by then.
        if self.forget_place(id).await {
            self.remove_local(data_path, id, place).await;
        }
    }

    async fn remove_local(&self, data_path: &Arc<DataPath>, id: &EndpointId, place: &Place) {
        self.handles.local.remove(id);
        let last = {
            let places = self.places.lock().await;
            !places.known.values().any(|p| p.inode == place.inode)
        };
        if last {
            self.handles.dns.stop(&place.resolver()).await;
        } else {
            let view = self.client_view(place).await;
            self.handles.dns.update_client(&place.resolver(), view);
        }
        // The way out goes with the last network that has one.
        let closed = last || !self.has_way_out(place.inode, id).await;
        let (place, endpoint) = (place.clone(), id.clone());
        let gateway = data_path.gateway.clone();
        let removed = blocking(move || -> anyhow::Result<()> {
            // A namespace that is gone took everything with it; another one is none of ours.
            let Ok(sandbox) = place.open() else {
                return match gateway.wait() {
                    Some(gateway) => Ok(gateway.forget_gone()?),
                    None => Ok(()),
                };
            };
            sandbox.remove_port(&place.ifname, &endpoint)?;
            if let Some(gateway) = gateway.wait().filter(|_| closed) {
                gateway.disconnect(&sandbox)?;
            }
            if last {
                sandbox.remove_way_to_resolver()?;
            }
            Ok(())
        });
        if let Err(error) = removed.await.and_then(|r| r) {
            tracing::warn!(endpoint = %id, %error, "the interface was not removed");
        }
    }

    /// Detaches everything: the node leaves the swarm.
    pub(crate) async fn detach_all(&self, data_path: &Arc<DataPath>) {
        let known = self.places.lock().await.known.clone();
        for (id, place) in &known {
            self.detach_local(data_path, id, place).await;
        }
    }
}
