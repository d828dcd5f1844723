//! Images of containers that are made here, of files of this machine: labs have no internet. Tests and
//! benches run them; `weft image load` takes them, as it takes what `docker save` wrote.

mod archive;
mod busybox;
mod layer;
mod registry;
mod voting;
mod wordpress;

pub use archive::{Archive, Content};
pub use busybox::{BUSYBOX, base, busybox, web};
pub use layer::Layer;
pub use registry::Registry;
pub use voting::{RESULT_PORT, VISUALIZER_PORT, VOTE_PORT, VOTING_SERVICES, voting, voting_file};
pub use wordpress::{WORDPRESS_PORT, wordpress, wordpress_file};

use std::collections::BTreeMap;

use anyhow::Context;
use serde_json::{Value, json};

/// An image: its files, and what a container of it is unless somebody says otherwise.
#[derive(Debug, Clone)]
pub struct Image {
    /// Name with its tag: `web:1`.
    name: String,
    /// Tars, bottom first.
    layers: Vec<Vec<u8>>,
    /// `config` of the image's configuration, in Docker's words: `Cmd`, `Env`, `StopSignal`, ….
    config: BTreeMap<String, Value>,
}

impl Image {
    /// An image of this name, with nothing in it.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            layers: Vec::new(),
            config: BTreeMap::new(),
        }
    }

    /// Its name with its tag.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same under another name, such as one that begins with a registry.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// The same with one layer more on top.
    ///
    /// # Errors
    /// An entry of the layer was too long for a tar.
    pub fn with(mut self, layer: Layer) -> anyhow::Result<Self> {
        self.layers.push(layer.finish().context("no layer")?);
        Ok(self)
    }

    /// The same with a word of its configuration: `Cmd`, `Entrypoint`, `Env`, `WorkingDir`, `User`,
    /// `StopSignal`, `Volumes`, `Healthcheck`, `ExposedPorts`, `Labels`.
    #[must_use]
    pub fn set(mut self, word: &str, value: Value) -> Self {
        self.config.insert(word.to_owned(), value);
        self
    }

    /// The same with the program that it runs.
    #[must_use]
    pub fn runs(self, command: &[&str]) -> Self {
        self.set("Cmd", json!(command))
    }
}
