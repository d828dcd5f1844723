//! `weft bench containers`: how soon containers serve, what weft needs beside them, and what images
//! cost. There is no other side: the figures stand beside those that are required.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use weft_cli::{Printer, complain};
use weft_lab::image::{Archive, Image, Layer, Registry, base, web};
use weft_lab::tools::get::fetch;
use weft_lab::{Lab, LabConfig, MANAGER, OUTSIDE, Patience, Stop, Swarm};
use weft_model::objects::{
    ContainerSpec, EndpointSpec, NetworkAttachmentSpec, NetworkSpec, PortSpec, Runtime,
    ServiceMode, ServiceSpec, TaskSpec,
};
use weft_sys::netns::Netns;

use crate::args::{BenchContainersArgs, ContainersTest};
use crate::required::{self, Measured};
use crate::usage;

/// How long anything may take that is waited for.
const LIMIT: Duration = Duration::from_secs(60);

/// Between two looks at something that is measured.
const PAUSE: Duration = Duration::from_millis(2);

/// How long a client waits for one answer: it asks from the start on, before anybody listens.
const ANSWER: Duration = Duration::from_millis(100);

const NETWORK: &str = "front";

/// Host and port that images are named after.
const REGISTRY: &str = "10.77.0.254:5000";

/// Port of the first service; each has the next one.
const PUBLISHED: u16 = 8000;
const TARGET: u16 = 80;

/// Of the registry on the machine outside.
const REGISTRY_PORT: u16 = 5000;

/// Bytes of a layer that is pulled, compressed and not: they are random.
const LAYER_BYTES: usize = 6_400_000;

/// Runs those that were asked for; the exit status says whether all that is required held.
pub(crate) fn run(args: &BenchContainersArgs, out: &mut Printer) -> anyhow::Result<ExitCode> {
    weft_lab::gain_privileges()?;
    let stop = Stop::on_signals()?;
    let bench = Bench { args, stop };
    let mut measured = Vec::new();
    if bench.has(ContainersTest::Start) {
        measured.push(bench.start()?);
    }
    if bench.has(ContainersTest::Many) {
        measured.extend(bench.many()?);
    }
    if bench.has(ContainersTest::Pull) {
        measured.push(bench.pull()?);
    }
    if bench.has(ContainersTest::Nodes) {
        measured.push(bench.nodes()?);
    }
    required::print(&measured, &args.format, out)
}

struct Bench<'a> {
    args: &'a BenchContainersArgs,
    stop: Stop,
}

impl Bench<'_> {
    fn has(&self, test: ContainersTest) -> bool {
        self.args.only.is_empty() || self.args.only.contains(&test)
    }

    fn patience(&self) -> Patience {
        Patience::new(LIMIT, &self.stop)
    }

    /// So many nodes in one swarm, with a network. Each has images of its own where they are said not
    /// to share them.
    fn lab(&self, kind: &str, nodes: u8, shares_images: bool) -> anyhow::Result<Swarm> {
        let config = LabConfig {
            nodes,
            shares_images,
            insecure_registries: vec![REGISTRY.to_owned()],
            ..LabConfig::new(&format!("{}-{kind}", self.args.name))?
        };
        let lab = Lab::create(&config)?;
        lab.wait_ready(LIMIT)?;
        let swarm = Swarm::of(lab, self.patience())?;
        swarm.form()?;
        swarm.make_network(&NetworkSpec {
            name: NETWORK.to_owned(),
            ..NetworkSpec::default()
        })?;
        Ok(swarm)
    }

    /// From the command until a client outside has an answer, by the published port of a node.
    fn start(&self) -> anyhow::Result<Measured> {
        let swarm = self.lab("start", 3, true)?;
        let client = swarm.lab().netns(OUTSIDE, None)?;
        let image = hello()?;
        self.load(&swarm, &image)?;
        let mut runs = Vec::new();
        for run in 1..=self.args.created {
            let name = format!("one{run}");
            let published = PUBLISHED + u16::from(run);
            let spec = service(&name, &image, 1, published);
            let at = SocketAddr::new(swarm.lab().node_addr(MANAGER)?, published);
            let begun = Instant::now();
            swarm.make_service(&spec)?;
            self.answers(&client, at, 1, begun)
                .with_context(|| format!("{name} does not serve"))?;
            runs.push(begun.elapsed().as_secs_f64());
            self.remove(&swarm, &name)?;
        }
        swarm.down()?;
        let test = "create of one container, until it serves".to_owned();
        Ok(Measured::times(test, runs, 0.3, 0.12))
    }

    /// From the command until each of many containers on one node has answered; and what of weft's own
    /// is in memory for each of them.
    fn many(&self) -> anyhow::Result<[Measured; 2]> {
        let swarm = self.lab("many", 1, true)?;
        let client = swarm.lab().netns(OUTSIDE, None)?;
        let image = hello()?;
        self.load(&swarm, &image)?;
        let containers = self.args.containers;
        let (mut times, mut memory) = (Vec::new(), Vec::new());
        for run in 1..=self.args.runs {
            let name = format!("many{run}");
            let published = PUBLISHED + u16::from(run);
            let spec = service(&name, &image, containers.into(), published);
            let at = SocketAddr::new(swarm.lab().node_addr(MANAGER)?, published);
            let begun = Instant::now();
            swarm.make_service(&spec)?;
            self.answers(&client, at, containers.into(), begun)
                .with_context(|| format!("not all of {name} serve"))?;
            let took = begun.elapsed().as_secs_f64();
            complain(&format!("{containers} containers served after {took:.2} s"));
            times.push(took);
            let agent = swarm.lab().agent_pid(MANAGER)?.context("no agent runs")?;
            let shims = usage::shims(agent)?;
            ensure!(
                shims.len() == usize::from(containers),
                "{} shims run for {containers} containers",
                shims.len()
            );
            let bytes = usage::proportional_bytes(&shims)? as f64;
            memory.push(bytes / f64::from(containers) / 1e6);
            self.remove(&swarm, &name)?;
        }
        swarm.down()?;
        let test = format!("create of {containers} containers on one node, until all serve");
        let memory = Measured {
            unit: "MB",
            ..Measured::times("memory beside a container".to_owned(), memory, 1.0, 0.3)
        };
        Ok([Measured::times(test, times, 2.5, 1.2), memory])
    }

    /// `weft image pull` of a layer that is nowhere yet.
    fn pull(&self) -> anyhow::Result<Measured> {
        let swarm = self.lab("pull", 1, true)?;
        let registry = self.registry(&swarm)?;
        let mut runs = Vec::new();
        for run in 1..=self.args.runs {
            let image = large(&format!("large:{run}"), run.into())?;
            registry.push(&image)?;
            let begun = Instant::now();
            weft(&swarm, &["image", "pull", "-q", &image.name])?;
            runs.push(begun.elapsed().as_secs_f64());
        }
        drop(registry);
        swarm.down()?;
        let test = "pull of a layer of 6.4 MB, unpacked".to_owned();
        Ok(Measured::times(test, runs, 0.284, 0.15))
    }

    /// What a registry sends, as a part of the image, when a service has a container on each of three
    /// nodes.
    fn nodes(&self) -> anyhow::Result<Measured> {
        let swarm = self.lab("nodes", 3, false)?;
        let registry = self.registry(&swarm)?;
        let mut runs = Vec::new();
        // The lower layer is the same in all rounds.
        let mut there = BTreeSet::new();
        for run in 1..=self.args.runs {
            let image = large(&format!("shared:{run}"), u64::from(run) << 32)?;
            registry.push(&image)?;
            let before = registry.bytes_served()?;
            let name = format!("shared{run}");
            let published = PUBLISHED + u16::from(run);
            let spec = ServiceSpec {
                mode: ServiceMode::Global,
                ..service(&name, &image, 1, published)
            };
            swarm.make_service(&spec)?;
            swarm.wait_tasks(&name, 3)?;
            let sent = registry.bytes_served()?.saturating_sub(before);
            let contents = image.layers.iter().chain([&image.config, &image.manifest]);
            let new = contents.filter(|content| there.insert(content.digest.clone()));
            let needed: usize = new.map(|content| content.bytes.len()).sum();
            complain(&format!(
                "three nodes needed {needed} bytes of an image, and its registry sent {sent}"
            ));
            runs.push(sent as f64 / needed as f64);
            self.remove(&swarm, &name)?;
        }
        drop(registry);
        swarm.down()?;
        let test = "bytes of a registry for one image on three nodes".to_owned();
        Ok(Measured {
            unit: "images",
            ..Measured::times(test, runs, 1.05, 1.0)
        })
    }

    /// Brings an image to the first node, and has it unpacked there: the first container pays for that,
    /// which is no part of a start.
    fn load(&self, swarm: &Swarm, image: &Archive) -> anyhow::Result<()> {
        let file = swarm.lab().dir().join("image.tar");
        image.write_file(&file)?;
        let path = file.display().to_string();
        weft(swarm, &["image", "load", "-q", "-i", &path])?;
        let name = "warm";
        let spec = ServiceSpec {
            mode: ServiceMode::Global,
            ..service(name, image, 1, PUBLISHED)
        };
        swarm.make_service(&spec)?;
        swarm.wait_tasks(name, swarm.lab().nodes().count())?;
        self.remove(swarm, name)
    }

    fn registry(&self, swarm: &Swarm) -> anyhow::Result<Registry> {
        let dir = swarm.lab().dir().join("registry");
        let registry = Registry::start(swarm.lab(), &dir, REGISTRY_PORT, &self.patience())?;
        ensure!(
            registry.host() == REGISTRY,
            "the registry is {}",
            registry.host()
        );
        Ok(registry)
    }

    /// Asks until so many containers have said their names.
    fn answers(
        &self,
        client: &Netns,
        at: SocketAddr,
        count: usize,
        begun: Instant,
    ) -> anyhow::Result<()> {
        let ask = || {
            let mut heard = BTreeSet::new();
            let mut last = None;
            while heard.len() < count {
                self.stop.going_on()?;
                if begun.elapsed() > LIMIT {
                    let heard = heard.len();
                    return Err(last.map_or_else(
                        || anyhow!("{heard} of {count} answer"),
                        |error: std::io::Error| {
                            anyhow::Error::from(error).context(format!("{heard} of {count} answer"))
                        },
                    ));
                }
                match fetch(at, "/", ANSWER) {
                    Ok(answer) => {
                        heard.insert(answer.body);
                    }
                    Err(error) => {
                        last = Some(error);
                        std::thread::sleep(PAUSE);
                    }
                }
            }
            anyhow::Ok(())
        };
        client.run_in(ask)?
    }

    /// Removes a service and waits until nothing of it runs.
    fn remove(&self, swarm: &Swarm, name: &str) -> anyhow::Result<()> {
        weft(swarm, &["service", "rm", name])?;
        self.patience().until(|| {
            let mut left = 0;
            for agent in swarm.agents()? {
                left += usage::shims(agent)?.len();
            }
            ensure!(left == 0, "{left} containers of {name} have not ended");
            Ok(())
        })
    }
}

/// The image of a server that says its host name.
fn hello() -> anyhow::Result<Archive> {
    Archive::of(&web(&format!("{REGISTRY}/hello:1"), "1")?)
}

/// An image whose upper layer has so many random bytes; another seed makes other ones.
fn large(name: &str, seed: u64) -> anyhow::Result<Archive> {
    let mut layer = Layer::new();
    layer.file("large", 0o644, &noise(seed, LAYER_BYTES))?;
    let image: Image = base(&format!("{REGISTRY}/{name}"))?.with(layer)?;
    Archive::of(&image.runs(&[
        "sh",
        "-c",
        "trap 'exit 0' TERM; while :; do sleep 0.1; done",
    ]))
}

/// Bytes that cannot be compressed (splitmix64).
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend((word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// The image by its digest, as `weft service create` writes it: nobody has to be asked what it is.
fn pinned(image: &Archive) -> String {
    format!("{}@{}", image.name, image.manifest.digest)
}

/// This program, as a person would type it; what it printed.
pub(crate) fn weft(swarm: &Swarm, words: &[&str]) -> anyhow::Result<String> {
    let socket: &Path = swarm.lab().socket(MANAGER)?;
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let said = Command::new(program)
        .args(["-H", &format!("unix://{}", socket.display())])
        .args(words)
        .output()
        .context("this program cannot be run")?;
    ensure!(
        said.status.success(),
        "weft {}: {}",
        words.join(" "),
        String::from_utf8_lossy(&said.stderr)
    );
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

/// A service of an image, whose containers say the numbers of their tasks.
fn service(name: &str, image: &Archive, replicas: u32, published: u16) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        mode: ServiceMode::Replicated { replicas },
        task: Arc::new(TaskSpec {
            runtime: Runtime::Container,
            container: ContainerSpec {
                image: pinned(image),
                hostname: format!("{name}-{{{{.Task.Slot}}}}"),
                stop_grace: Duration::from_secs(1),
                ..ContainerSpec::default()
            },
            networks: vec![NetworkAttachmentSpec {
                target: NETWORK.to_owned(),
                ..NetworkAttachmentSpec::default()
            }],
            ..TaskSpec::default()
        }),
        endpoint: EndpointSpec {
            ports: vec![PortSpec {
                published,
                target: TARGET,
                ..PortSpec::default()
            }],
            ..EndpointSpec::default()
        },
        ..ServiceSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_as_long_as_asked_and_of_its_seed() {
        assert_eq!(noise(1, 1000).len(), 1000);
        assert_eq!(noise(1, 1000), noise(1, 1000));
        assert_ne!(noise(1, 1000), noise(2, 1000));
    }
}
