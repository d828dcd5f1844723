//! Tasks of this node: one lifecycle each, driven by what the orders want.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use weft_control::assignment::Assignment;
use weft_control::id::TaskId;
use weft_control::objects::{Attachment, Task, TaskState, TaskStatus};
use weft_control::records::EndpointRecord;
use weft_dataplane::{Port, PortCounters};
use weft_dns::ClientView;
use weft_sys::process::Exit;
use weft_sys::tap::Tap;
use weft_wire::{Mac, Vni};

use super::local::LocalPort;
use super::member::Member;
use super::running::{Running, blocking, unix_ms};
use crate::sandbox::runner::RunningTask;
use crate::sandbox::{PortConfig, Sandbox};

/// Between the moment when a task is withdrawn from balancers and DNS, and SIGTERM: what gossip
/// needs to reach every node.
const WITHDRAW: Duration = Duration::from_millis(500);

/// What a lifecycle is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Run,
    Stop,
}

#[derive(Debug)]
struct Handle {
    wish: watch::Sender<Wish>,
    task: JoinHandle<()>,
}

/// Lifecycles by task.
#[derive(Debug)]
pub(super) struct Tasks {
    member: Arc<Member>,
    running: Arc<Running>,
    handles: BTreeMap<TaskId, Handle>,
}

impl Tasks {
    pub(super) fn new(member: Arc<Member>, running: Arc<Running>) -> Self {
        Self {
            member,
            running,
            handles: BTreeMap::new(),
        }
    }

    /// Starts what is wanted and not there, stops what is there and not wanted.
    pub(super) async fn converge(&mut self, orders: &Arc<Assignment>) {
        let mut listed = BTreeSet::new();
        for task in &orders.tasks {
            listed.insert(task.id.clone());
            let wanted = task.desired <= TaskState::Running;
            match self.handles.get(&task.id) {
                Some(handle) => {
                    if !wanted {
                        stop(handle);
                    }
                }
                None if task.status.state.is_terminal() => {}
                None => {
                    let wish = watch::Sender::new(if wanted { Wish::Run } else { Wish::Stop });
                    let lifecycle = Lifecycle {
                        member: Arc::clone(&self.member),
                        running: Arc::clone(&self.running),
                        orders: Arc::clone(orders),
                        task: task.clone(),
                        wish: wish.subscribe(),
                    };
                    let task_id = task.id.clone();
                    let task = tokio::spawn(lifecycle.run());
                    self.handles.insert(task_id, Handle { wish, task });
                }
            }
        }
        for (id, handle) in &self.handles {
            if !listed.contains(id) {
                stop(handle);
            }
        }
        let over: Vec<TaskId> = self
            .handles
            .iter()
            .filter(|(id, h)| h.task.is_finished() && !listed.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in over {
            if let Some(handle) = self.handles.remove(&id)
                && let Err(error) = handle.task.await
            {
                tracing::error!(task = %id, %error, "a task lifecycle panicked");
            }
        }
    }

    /// Ends what an earlier agent ran and the orders no longer know.
    pub(super) async fn end_strangers(&self, orders: &Assignment) {
        let listed: BTreeSet<TaskId> = orders.tasks.iter().map(|t| t.id.clone()).collect();
        let member = Arc::clone(&self.member);
        let ended = blocking(move || -> anyhow::Result<()> {
            for id in member.runner.known()? {
                if listed.contains(&id) {
                    continue;
                }
                if let Some(process) = member.runner.adopt(&id)? {
                    tracing::info!(task = %id, pid = process.pid(), "not assigned any more: ends");
                    process.stop(Duration::from_secs(10))?;
                }
                Sandbox::remove(member.netns_path(id.as_str()))?;
                member.runner.remove(&id)?;
            }
            Ok(())
        });
        if let Err(error) = ended.await.and_then(|r| r) {
            tracing::warn!(error = %format!("{error:#}"), "tasks of an earlier run were not ended");
        }
    }

    /// Stops every task and waits for the end of all.
    pub(super) async fn stop_all(mut self) {
        for handle in self.handles.values() {
            stop(handle);
        }
        for (id, handle) in std::mem::take(&mut self.handles) {
            if let Err(error) = handle.task.await {
                tracing::error!(task = %id, %error, "a task lifecycle panicked");
            }
        }
    }

    /// Lets go of the tasks: processes and TAPs stay for the next agent.
    pub(super) fn abandon(self) {
        for handle in self.handles.values() {
            handle.task.abort();
        }
    }
}

fn stop(handle: &Handle) {
    handle
        .wish
        .send_if_modified(|w| std::mem::replace(w, Wish::Stop) != Wish::Stop);
}

/// One task from its first order to its end.
struct Lifecycle {
    member: Arc<Member>,
    running: Arc<Running>,
    orders: Arc<Assignment>,
    task: Task,
    wish: watch::Receiver<Wish>,
}

/// How a task ended.
enum End {
    Exited(Exit),
    Stopped(Exit),
    NeverRan,
    Rejected(anyhow::Error),
}

impl Lifecycle {
    async fn run(mut self) {
        let id = self.task.id.clone();
        let end = self.live().await.unwrap_or_else(End::Rejected);
        for attachment in &self.task.attachments {
            self.member.local.remove(&attachment.endpoint);
        }
        self.member.dns.stop(id.as_str()).await;
        let path = self.member.netns_path(id.as_str());
        let runner = self.member.runner.clone();
        let gateway = self.running.gateway.clone();
        let gone = id.clone();
        let cleaned = blocking(move || -> anyhow::Result<()> {
            if let (Some(gateway), Ok(sandbox)) = (gateway, Sandbox::open(&path.to_string_lossy()))
            {
                gateway.disconnect(&sandbox)?;
            }
            Sandbox::remove(&path)?;
            runner.remove(&gone)?;
            Ok(())
        });
        if let Err(error) = cleaned.await.and_then(|r| r) {
            tracing::warn!(task = %id, %error, "the sandbox was not removed");
        }
        let (state, message, err, exit_code) = match end {
            End::Exited(exit) if exit.success() => (
                TaskState::Complete,
                "finished",
                String::new(),
                exit.shell_code(),
            ),
            End::Exited(exit) => (
                TaskState::Failed,
                "ended",
                format!("task: {exit}"),
                exit.shell_code(),
            ),
            End::Stopped(exit) => (
                TaskState::Shutdown,
                "shutdown",
                String::new(),
                exit.shell_code(),
            ),
            End::NeverRan => (TaskState::Shutdown, "shutdown", String::new(), None),
            End::Rejected(error) => {
                tracing::warn!(task = %id, error = %format!("{error:#}"), "task rejected");
                (TaskState::Rejected, "rejected", format!("{error:#}"), None)
            }
        };
        self.report(state, message, err, exit_code);
    }

    fn report(&self, state: TaskState, message: &str, err: String, exit_code: Option<i32>) {
        self.member.session.report(
            self.task.id.clone(),
            TaskStatus {
                state,
                since: unix_ms(),
                message: message.to_owned(),
                err,
                exit_code,
            },
        );
    }

    async fn live(&mut self) -> anyhow::Result<End> {
        let (runner, id) = (self.member.runner.clone(), self.task.id.clone());
        let adopted = blocking(move || runner.adopt(&id)).await??;
        if adopted.is_none() {
            if *self.wish.borrow() == Wish::Stop {
                return Ok(End::NeverRan);
            }
            let (runner, task) = (self.member.runner.clone(), self.task.clone());
            blocking(move || runner.check(&task)).await??;
            self.report(TaskState::Preparing, "preparing", String::new(), None);
        }
        let sandbox = self.prepare().await?;
        let process = match adopted {
            Some(process) => {
                tracing::info!(task = %self.task.name(), pid = process.pid(), "adopted");
                process
            }
            None => {
                self.report(TaskState::Starting, "starting", String::new(), None);
                let (runner, task) = (self.member.runner.clone(), self.task.clone());
                blocking(move || runner.start(&task, &sandbox)).await??
            }
        };
        let mut end = watch_end(&process)?;
        self.set_ready(true);
        self.report(TaskState::Running, "started", String::new(), None);
        tokio::select! {
            exit = ended(&mut end) => return Ok(End::Exited(exit)),
            stop = self.wish.wait_for(|w| *w == Wish::Stop) => {
                // The sender lives as long as the table of lifecycles: an error means that too.
                drop(stop);
            }
        }
        self.set_ready(false);
        // Balancers and resolvers everywhere learn of it before the process does.
        tokio::select! {
            exit = ended(&mut end) => return Ok(End::Stopped(exit)),
            () = tokio::time::sleep(WITHDRAW) => {}
        }
        let grace = Duration::from_millis(self.task.spec.stop_grace_ms);
        Ok(End::Stopped(blocking(move || process.stop(grace)).await??))
    }

    fn set_ready(&self, ready: bool) {
        for attachment in &self.task.attachments {
            self.member.local.set_ready(&attachment.endpoint, ready);
        }
    }

    /// Makes the namespace, its ports, its way out and its resolver; what is there is taken over.
    async fn prepare(&self) -> anyhow::Result<Sandbox> {
        let path = self.member.netns_path(self.task.id.as_str());
        let mut sandbox = blocking(move || Sandbox::open_or_create(&path)).await??;
        let mut outside = false;
        for (index, attachment) in self.task.attachments.iter().enumerate() {
            outside |= self
                .network(attachment)
                .is_some_and(|n| !n.spec.internal && !n.spec.ingress);
            sandbox = self.add_port(sandbox, index, attachment).await?;
        }
        // A task that is only published has a way out too, as in Swarm.
        outside |= self
            .task
            .attachments
            .iter()
            .all(|a| self.network(a).is_some_and(|n| n.spec.ingress));
        let gateway = self.running.gateway.clone().filter(|_| outside);
        let (sandbox, egress, sockets) = blocking(move || {
            let egress = gateway.map(|g| g.connect(&sandbox));
            let sockets = sandbox.dns_sockets();
            (sandbox, egress, sockets)
        })
        .await?;
        if let Some(Err(error)) = egress {
            self.member
                .warnings
                .set("gateway", format!("a sandbox has no way out: {error}"));
        }
        let (udp, tcp) = sockets?;
        let view = ClientView {
            networks: self
                .task
                .attachments
                .iter()
                .filter(|a| self.network(a).is_some_and(|n| !n.spec.ingress))
                .map(|a| a.network.as_str().to_owned())
                .collect(),
            internal_only: !outside,
            stack: None,
        };
        self.member
            .dns
            .serve(self.task.id.as_str(), udp, tcp, view)?;
        Ok(sandbox)
    }

    fn network(&self, attachment: &Attachment) -> Option<&weft_control::objects::Network> {
        self.orders
            .networks
            .iter()
            .find(|n| n.id == attachment.network)
    }

    async fn add_port(
        &self,
        sandbox: Sandbox,
        index: usize,
        attachment: &Attachment,
    ) -> anyhow::Result<Sandbox> {
        let network = self.network(attachment).ok_or_else(|| {
            anyhow::anyhow!("network {} is not in the orders", attachment.network)
        })?;
        let config = port_config(ifname(index), attachment, network, self.running.mtu);
        let (sandbox, tap) = blocking(move || {
            let tap = sandbox.add_port(&config);
            (sandbox, tap)
        })
        .await?;
        let record = EndpointRecord {
            id: attachment.endpoint.clone(),
            network: attachment.network.clone(),
            node: self.member.node_id.clone(),
            name: self.task.name(),
            ips: attachment.ips.clone(),
            mac: attachment.mac,
            aliases: attachment.aliases.clone(),
            service: Some(self.task.service.clone()),
            task: Some(self.task.id.clone()),
            ready: false,
            host_ports: Vec::new(),
        };
        self.member.local.insert(local_port(
            &self.member,
            &self.running,
            tap?,
            network.vni,
            record,
        )?);
        Ok(sandbox)
    }
}

/// Learns of the end of a process. A parked thread with a small stack waits for each: the safe
/// way to wait for a process that may not be our child.
fn watch_end(process: &RunningTask) -> anyhow::Result<watch::Receiver<Option<Exit>>> {
    let (sender, receiver) = watch::channel(None);
    let process = process.clone();
    std::thread::Builder::new()
        .name("task-end".to_owned())
        .stack_size(64 * 1024)
        .spawn(move || {
            let exit = process.wait().unwrap_or_else(|error| {
                tracing::error!(pid = process.pid(), %error, "cannot wait for a task");
                Exit::Unknown
            });
            sender.send_replace(Some(exit));
        })?;
    Ok(receiver)
}

async fn ended(end: &mut watch::Receiver<Option<Exit>>) -> Exit {
    match end.wait_for(Option::is_some).await {
        Ok(exit) => exit.unwrap_or(Exit::Unknown),
        Err(_) => Exit::Unknown,
    }
}

/// eth0, eth2, eth3, …: eth1 leads to the gateway bridge.
fn ifname(index: usize) -> String {
    let number = if index == 0 { 0 } else { index + 1 };
    format!("eth{number}")
}

/// What a sandbox needs to know of an attachment.
pub(super) fn port_config(
    ifname: String,
    attachment: &Attachment,
    network: &weft_control::objects::Network,
    mtu: u16,
) -> PortConfig {
    let ips = attachment
        .ips
        .iter()
        .filter_map(|ip| {
            let subnet = network.subnets.iter().find(|s| s.cidr.contains(ip))?;
            IpNet::new(*ip, subnet.cidr.prefix_len()).ok()
        })
        .collect();
    PortConfig {
        ifname,
        mac: attachment.mac,
        ips,
        gateways: network.subnets.iter().map(|s| s.gateway).collect(),
        mtu: u32::from(mtu),
    }
}

/// The data plane's side of an attachment.
pub(super) fn local_port(
    member: &Member,
    running: &Running,
    tap: Tap,
    vni: u32,
    record: EndpointRecord,
) -> anyhow::Result<LocalPort> {
    let first = record
        .ips
        .first()
        .ok_or_else(|| anyhow::anyhow!("endpoint {} has no address", record.id))?;
    let port = Port {
        id: member.local.next_id(),
        name: record.name.as_str().into(),
        vni: Vni::new(vni).ok_or_else(|| anyhow::anyhow!("VNI {vni} is out of range"))?,
        mac: Mac(record.mac.0),
        ips: record.ips.clone(),
        worker: running.plane.worker_for(*first),
        tap: Arc::new(tap),
        counters: Arc::new(PortCounters::default()),
    };
    Ok(LocalPort {
        port: Arc::new(port),
        record,
    })
}
