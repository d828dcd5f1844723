//! A swarm in a lab, driven as people drive one: by the node API.
//!
//! Demo, benches and namespace tests bring their clusters up by this and ask them by this; what is
//! special to each, such as what it prints, stays with it. Whatever happens, the lab and everything in
//! it is gone when the value is.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;
use weft_client::{Client, segment};
use weft_model::api::{
    Connect, Connected, NetworkDetail, NodeRow, ServiceDetail, SwarmInit, SwarmInitReply,
    SwarmJoin, SwarmJoinReply, TaskRow,
};
use weft_model::objects::{Network, NetworkSpec, NodeState, Service, ServiceSpec, TaskState};
use weft_sys::netns::Netns;

use crate::config::LabConfig;
use crate::lab::Lab;
use crate::patience::{LOOK, Patience};

/// The node that becomes the manager, and is asked about the cluster.
pub const MANAGER: &str = "node1";

/// Where agents have the namespaces of their tasks.
const TASK_NETNS: &str = "/run/weft/netns";

/// Machines with agents, whose first node is to be the manager of the others.
#[derive(Debug)]
pub struct Swarm {
    lab: Lab,
    patience: Patience,
    /// Drives conversations with nodes, on the thread that holds them.
    io: Runtime,
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
        Ok(Self { lab, patience, io })
    }

    /// Makes the first node a manager, lets all others join it, and waits until all are ready.
    ///
    /// # Errors
    /// A node refuses, or is not ready in time.
    pub fn form(&self) -> anyhow::Result<()> {
        let swarm = self.init(MANAGER)?;
        for node in self.lab.nodes().filter(|node| *node != MANAGER) {
            self.join(node, &swarm.worker_token, &swarm.manager_addr)?;
        }
        self.wait_nodes(self.lab.nodes().count())
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
        };
        self.post(node, "/v1/swarm/join", &request)
            .with_context(|| format!("{node} does not join"))
    }

    /// Nodes by name, and whether their session is open and they carry traffic.
    ///
    /// # Errors
    /// The manager does not say.
    pub fn nodes(&self) -> anyhow::Result<Vec<(String, bool)>> {
        let rows: Vec<NodeRow> = self.get(MANAGER, "/v1/nodes")?;
        let told = rows.into_iter().map(|row| {
            let ready = row.node.status.state == NodeState::Ready
                && row.node.status.impaired.is_none()
                && row.cloned.is_none();
            (row.node.description.hostname, ready)
        });
        Ok(told.collect())
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
        self.post(MANAGER, "/v1/networks", spec)
            .with_context(|| format!("no network {}", spec.name))
    }

    /// Makes a service; its tasks run later.
    ///
    /// # Errors
    /// The manager refuses.
    pub fn make_service(&self, spec: &ServiceSpec) -> anyhow::Result<Service> {
        self.post(MANAGER, "/v1/services", spec)
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

    fn task_rows(&self, service: &str) -> anyhow::Result<Vec<TaskRow>> {
        self.get(MANAGER, &format!("/v1/services/{}/tasks", segment(service)))
    }

    /// Virtual address of a service on a network.
    ///
    /// # Errors
    /// The manager does not say, or there is none.
    pub fn vip(&self, service: &str, network: &str) -> anyhow::Result<IpAddr> {
        let path = format!("/v1/networks/{}", segment(network));
        let found: NetworkDetail = self.get(MANAGER, &path)?;
        let path = format!("/v1/services/{}", segment(service));
        let detail: ServiceDetail = self.get(MANAGER, &path)?;
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
