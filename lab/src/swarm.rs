//! A swarm in a lab, driven as people drive one: by the node API.
//!
//! Demo, benches and namespace tests bring their clusters up by this and ask them by this; what is
//! special to each, such as what it prints, stays with it. Whatever happens, the lab and everything in
//! it is gone when the value is.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, anyhow, bail, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;
use weft_client::{Client, segment};
use weft_model::api::{
    Connect, Connected, JoinToken, NetworkDetail, NodeRow, ServiceDetail, SwarmInit,
    SwarmInitReply, SwarmJoin, SwarmJoinReply, TaskRow,
};
use weft_model::objects::{
    Network, NetworkSpec, NodeState, Reachability, Role, Service, ServiceSpec, TaskState,
};
use weft_sys::netns::Netns;

use crate::config::LabConfig;
use crate::lab::Lab;
use crate::patience::{LOOK, Patience};

/// The node that becomes the first manager, and is asked about the cluster unless [`Swarm::ask`] names
/// another one.
pub const MANAGER: &str = "node1";

/// Where agents have the namespaces of their tasks.
const TASK_NETNS: &str = "/run/weft/netns";

/// Machines with agents, whose first node is to be the manager of the others, or the first of several.
#[derive(Debug)]
pub struct Swarm {
    lab: Lab,
    patience: Patience,
    /// Drives conversations with nodes, on the thread that holds them.
    io: Runtime,
    /// The manager that is asked about the cluster. Held for no longer than it takes to read it.
    asked: Mutex<String>,
}

/// A node, as a manager lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// `node1`, …
    pub name: String,
    /// Its session is open and it carries traffic.
    pub ready: bool,
    /// True of the manager that decides.
    pub leads: bool,
    /// Whether it answers other managers, if it is one.
    pub reachability: Option<Reachability>,
}

/// A task that runs and shall run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// `web.1.<id>`
    pub name: String,
    /// Its node.
    pub node: String,
    /// Its first address on its first network.
    pub ip: IpAddr,
    /// Path of its network namespace on its node.
    pub netns: PathBuf,
}

/// A network namespace that was attached by hand.
#[derive(Debug)]
pub struct Attached {
    /// Itself; holding it keeps it alive when its node is killed.
    pub netns: Netns,
    /// Its path on its node.
    pub path: PathBuf,
    /// What the node says of its endpoint.
    pub endpoint: Connected,
}

impl Swarm {
    /// Makes a lab with every node in one swarm. `patience` is for this and every later step.
    ///
    /// # Errors
    /// As [`Lab::create`], [`Lab::wait_ready`] and [`Swarm::form`]. Nothing is left behind.
    pub fn create(config: &LabConfig, patience: Patience) -> anyhow::Result<Self> {
        let swarm = Self::of(Lab::create(config)?, patience)?;
        swarm.lab.wait_ready(swarm.patience.limit())?;
        swarm.form()?;
        Ok(swarm)
    }

    /// Drives a lab whose nodes may be in no swarm yet, and whose agents need not answer yet.
    ///
    /// # Errors
    /// No descriptors for it. Nothing is left behind.
    pub fn of(lab: Lab, patience: Patience) -> anyhow::Result<Self> {
        let io = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the I/O loop")?;
        Ok(Self {
            lab,
            patience,
            io,
            asked: Mutex::new(MANAGER.to_owned()),
        })
    }

    /// Makes the first node a manager, lets all others join it, and waits until all are ready.
    ///
    /// # Errors
    /// A node refuses, or is not ready in time.
    pub fn form(&self) -> anyhow::Result<()> {
        self.form_with(1)
    }

    /// The same with the first `managers` nodes as managers, all of which answer then.
    ///
    /// # Errors
    /// As of [`Swarm::form`].
    pub fn form_with(&self, managers: usize) -> anyhow::Result<()> {
        let swarm = self.init(MANAGER)?;
        let manager_token = if managers > 1 {
            self.token(Role::Manager)?.token
        } else {
            String::new()
        };
        for (at, node) in self.lab.nodes().enumerate().skip(1) {
            let token = if at < managers {
                &manager_token
            } else {
                &swarm.worker_token
            };
            self.join(node, token, &swarm.manager_addr)?;
        }
        self.wait_nodes(self.lab.nodes().count())?;
        self.wait_managers(managers)
    }

    /// From now on this manager is asked about the cluster.
    pub fn ask(&self, node: &str) {
        node.clone_into(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The manager that is asked about the cluster.
    #[must_use]
    pub fn asked(&self) -> String {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }

    /// The machines, and what can be done to them.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The same, for what changes them.
    pub fn lab_mut(&mut self) -> &mut Lab {
        &mut self.lab
    }

    /// Takes everything down.
    ///
    /// # Errors
    /// As [`Lab::down`].
    pub fn down(self) -> anyhow::Result<()> {
        self.lab.down()
    }

    /// Process ids of the agents, as this process sees them, in the order of their nodes.
    ///
    /// # Errors
    /// One does not run.
    pub fn agents(&self) -> anyhow::Result<Vec<u32>> {
        let pid = |node: &str| {
            let pid = self.lab.agent_pid(node)?;
            pid.with_context(|| format!("no agent runs on {node}"))
        };
        self.lab.nodes().map(pid).collect()
    }

    /// Kills the agent of a node and waits until the next one runs. It answers a moment later.
    ///
    /// # Errors
    /// No agent runs there, or none follows in time.
    pub fn restart_agent(&self, node: &str) -> anyhow::Result<()> {
        let before = self.lab.kill_agent(node)?;
        self.patience.until(|| {
            let now = self.lab.agent_pid(node)?;
            ensure!(
                now.is_some_and(|now| now != before),
                "the agent of {node} is not back"
            );
            Ok(())
        })
    }

    /// Asks the API of a node.
    ///
    /// # Errors
    /// No such node, or as [`Client::get`].
    pub fn get<T: DeserializeOwned>(&self, node: &str, path: &str) -> anyhow::Result<T> {
        let client = self.client(node)?;
        self.io.block_on(client.get(path))
    }

    /// Asks the API of a node for something that is no JSON.
    ///
    /// # Errors
    /// No such node, or as [`Client::get`].
    pub fn get_text(&self, node: &str, path: &str) -> anyhow::Result<String> {
        let client = self.client(node)?;
        self.io.block_on(client.get_text(path))
    }

    /// Tells the API of a node to do something.
    ///
    /// # Errors
    /// No such node, or as [`Client::post`].
    pub fn post<B, T>(&self, node: &str, path: &str, body: &B) -> anyhow::Result<T>
    where
        B: Serialize + Sync,
        T: DeserializeOwned,
    {
        let client = self.client(node)?;
        self.io.block_on(client.post(path, body))
    }

    /// Talks to the API of a node in several conversations at once; what each came to.
    ///
    /// # Errors
    /// No such node; the first error of a conversation.
    pub fn at_once<T, F>(
        &self,
        node: &str,
        talks: impl IntoIterator<Item = impl FnOnce(Client) -> F>,
    ) -> anyhow::Result<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = anyhow::Result<T>> + Send + 'static,
    {
        let client = self.client(node)?;
        self.io.block_on(async {
            let talks = talks.into_iter();
            let begun: Vec<_> = talks
                .map(|talk| tokio::spawn(talk(client.clone())))
                .collect();
            let mut ended = Vec::new();
            for talk in begun {
                ended.push(talk.await??);
            }
            Ok(ended)
        })
    }

    fn client(&self, node: &str) -> anyhow::Result<Client> {
        Client::new(&format!("unix://{}", self.lab.socket(node)?.display()))
    }

    /// Makes a swarm with this node as its first manager.
    ///
    /// # Errors
    /// It refuses.
    pub fn init(&self, node: &str) -> anyhow::Result<SwarmInitReply> {
        let request = SwarmInit {
            advertise_addr: Some(self.lab.node_addr(node)?.to_string()),
            ..SwarmInit::default()
        };
        self.post(node, "/v1/swarm/init", &request)
            .with_context(|| format!("{node} makes no swarm"))
    }

    /// The token that makes nodes of that role, and where to join.
    ///
    /// # Errors
    /// The manager refuses.
    pub fn token(&self, role: Role) -> anyhow::Result<JoinToken> {
        let role = match role {
            Role::Worker => "worker",
            Role::Manager => "manager",
        };
        self.get(&self.asked(), &format!("/v1/swarm/token/{role}"))
    }

    /// Lets a node join the manager at `HOST:PORT`.
    ///
    /// # Errors
    /// It refuses, or the manager does.
    pub fn join(&self, node: &str, token: &str, manager: &str) -> anyhow::Result<SwarmJoinReply> {
        let request = SwarmJoin {
            token: token.to_owned(),
            remote_addr: manager.to_owned(),
            advertise_addr: Some(self.lab.node_addr(node)?.to_string()),
            listen_addr: None,
            data_path_addr: None,
            availability: None,
        };
        self.post(node, "/v1/swarm/join", &request)
            .with_context(|| format!("{node} does not join"))
    }

    /// Nodes by name, and whether their session is open and they carry traffic.
    ///
    /// # Errors
    /// The manager does not say.
    pub fn nodes(&self) -> anyhow::Result<Vec<(String, bool)>> {
        let members = self.members(&self.asked())?.into_iter();
        Ok(members.map(|member| (member.name, member.ready)).collect())
    }

    /// Nodes, as this one lists them.
    ///
    /// # Errors
    /// It does not say: it is no manager, or none leads.
    pub fn members(&self, asked: &str) -> anyhow::Result<Vec<Member>> {
        let rows: Vec<NodeRow> = self.get(asked, "/v1/nodes")?;
        let told = rows.into_iter().map(|row| {
            let manager = row.node.manager_status.as_ref();
            Member {
                ready: row.node.status.state == NodeState::Ready
                    && row.node.status.impaired.is_none()
                    && row.cloned.is_none(),
                leads: manager.is_some_and(|manager| manager.leader),
                reachability: manager.map(|manager| manager.reachability),
                name: row.node.description.hostname,
            }
        });
        Ok(told.collect())
    }

    /// Waits until one of these managers leads, by the word of one of them, and returns its name.
    ///
    /// # Errors
    /// None does in time; with what the last one that was asked said.
    pub fn wait_leader(&self, among: &[&str]) -> anyhow::Result<String> {
        self.patience.until(|| {
            let mut said = None;
            for node in among {
                match self.members(node) {
                    Ok(members) => {
                        let mut members = members.into_iter();
                        let leads = |m: &Member| m.leads && among.contains(&m.name.as_str());
                        if let Some(leader) = members.find(leads) {
                            return Ok(leader.name);
                        }
                    }
                    Err(error) => said = Some(error),
                }
            }
            Err(said.unwrap_or_else(|| anyhow!("none of {} leads", among.join(", "))))
        })
    }

    /// Waits until one of so many managers leads, and the others answer it.
    ///
    /// # Errors
    /// They are not, or do not in time.
    pub fn wait_managers(&self, count: usize) -> anyhow::Result<()> {
        self.patience.until(|| {
            let members = self.members(&self.asked())?;
            let reachable = |m: &&Member| m.reachability == Some(Reachability::Reachable);
            let answer = members.iter().filter(reachable).count();
            let leads = members.iter().any(|member| member.leads);
            ensure!(
                leads && answer == count,
                "{answer} of {count} managers answer, {} leads",
                if leads { "one" } else { "none" }
            );
            Ok(())
        })
    }

    /// Waits until so many nodes are ready.
    ///
    /// # Errors
    /// They are not in time.
    pub fn wait_nodes(&self, count: usize) -> anyhow::Result<()> {
        self.patience.until(|| {
            let ready = self.nodes()?.iter().filter(|(_, ready)| *ready).count();
            ensure!(ready == count, "{ready} of {count} nodes are ready");
            Ok(())
        })
    }

    /// Makes an overlay network.
    ///
    /// # Errors
    /// The manager refuses.
    pub fn make_network(&self, spec: &NetworkSpec) -> anyhow::Result<Network> {
        self.post(&self.asked(), "/v1/networks", spec)
            .with_context(|| format!("no network {}", spec.name))
    }

    /// Makes a service; its tasks run later.
    ///
    /// # Errors
    /// The manager refuses.
    pub fn make_service(&self, spec: &ServiceSpec) -> anyhow::Result<Service> {
        self.post(&self.asked(), "/v1/services", spec)
            .with_context(|| format!("no service {}", spec.name))
    }

    /// Makes a network namespace on a node and attaches it to a network; `service` counts it among the
    /// replicas of that service.
    ///
    /// # Errors
    /// The node refuses until the time is over, or a namespace of that name is there already.
    pub fn attach(
        &self,
        node: &str,
        name: &str,
        network: &str,
        service: Option<&str>,
    ) -> anyhow::Result<Attached> {
        let path = self.lab.add_netns(node, name)?;
        let request = Connect {
            netns: path.display().to_string(),
            name: Some(format!("{name}-{node}")),
            service: service.map(str::to_owned),
            ..Connect::default()
        };
        let endpoint = self.connect(node, network, [request])?.pop();
        Ok(Attached {
            netns: self.lab.netns(node, Some(&path))?,
            path,
            endpoint: endpoint.context("the node attached nothing")?,
        })
    }

    /// Attaches network namespaces of a node to a network, all at once.
    ///
    /// # Errors
    /// The node refuses one of them until the time is over.
    pub fn connect(
        &self,
        node: &str,
        network: &str,
        requests: impl IntoIterator<Item = Connect>,
    ) -> anyhow::Result<Vec<Connected>> {
        let path = format!("/v1/networks/{}/connect", segment(network));
        let client = self.client(node)?;
        self.io.block_on(async {
            let asked: Vec<_> = requests
                .into_iter()
                .map(|request| {
                    let (client, path) = (client.clone(), path.clone());
                    tokio::spawn(connect(client, path, request, self.patience.clone()))
                })
                .collect();
            let mut connected = Vec::new();
            for one in asked {
                connected.push(one.await??);
            }
            Ok(connected)
        })
    }

    /// Tasks of a service that run and shall run, in the order of their nodes.
    ///
    /// # Errors
    /// The manager does not say, or one has no address.
    pub fn tasks(&self, service: &str) -> anyhow::Result<Vec<Task>> {
        let rows = self.task_rows(service)?;
        let running = rows.iter().filter(|row| runs(row)).map(|row| {
            let name = row.task.name();
            let ip = row.task.attachments.first().and_then(|a| a.ips().next());
            anyhow::Ok(Task {
                ip: ip.with_context(|| format!("{name} has no address"))?,
                name,
                node: row.node_name.clone(),
                netns: Path::new(TASK_NETNS).join(row.task.id.as_str()),
            })
        });
        let mut tasks = running.collect::<anyhow::Result<Vec<_>>>()?;
        tasks.sort_by(|a, b| a.node.cmp(&b.node));
        Ok(tasks)
    }

    /// Waits until so many tasks of a service run.
    ///
    /// # Errors
    /// They do not in time; with what their nodes say of the others.
    pub fn wait_tasks(&self, service: &str, count: usize) -> anyhow::Result<Vec<Task>> {
        self.patience.until(|| {
            let tasks = self.tasks(service)?;
            if tasks.len() != count {
                let rows = self.task_rows(service)?;
                let others = rows.iter().filter(|row| !runs(row));
                let errors: Vec<&str> = others.map(|row| row.task.status.err.as_str()).collect();
                let found = tasks.len();
                bail!("{found} of {count} tasks of {service} run {errors:?}");
            }
            Ok(tasks)
        })
    }

    /// All tasks of a service that the managers remember.
    ///
    /// # Errors
    /// The manager does not say.
    pub fn task_rows(&self, service: &str) -> anyhow::Result<Vec<TaskRow>> {
        let path = format!("/v1/services/{}/tasks", segment(service));
        self.get(&self.asked(), &path)
    }

    /// Virtual address of a service on a network.
    ///
    /// # Errors
    /// The manager does not say, or there is none.
    pub fn vip(&self, service: &str, network: &str) -> anyhow::Result<IpAddr> {
        let path = format!("/v1/networks/{}", segment(network));
        let asked = self.asked();
        let found: NetworkDetail = self.get(&asked, &path)?;
        let path = format!("/v1/services/{}", segment(service));
        let detail: ServiceDetail = self.get(&asked, &path)?;
        let mut vips = detail.service.endpoint.vips.iter();
        let vip = vips.find(|vip| vip.network == found.network.id);
        vip.map(|vip| vip.addr.addr())
            .with_context(|| format!("{service} has no virtual address on {network}"))
    }
}

fn runs(row: &TaskRow) -> bool {
    row.task.desired == TaskState::Running && row.task.status.state == TaskState::Running
}

/// The node may hear of a network or a service a moment later than the manager.
async fn connect(
    client: Client,
    path: String,
    request: Connect,
    patience: Patience,
) -> anyhow::Result<Connected> {
    let deadline = Instant::now() + patience.limit();
    loop {
        let error = match client.post(&path, &request).await {
            Ok(connected) => return Ok(connected),
            Err(error) => error,
        };
        patience.going_on()?;
        if Instant::now() > deadline {
            return Err(error);
        }
        tokio::time::sleep(LOOK).await;
    }
}
