//! Names of this node's images, and which task uses which one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use weft_sys::replace_file::{Outlives, PRIVATE, replace_file};
use weft_sys::state_file::{self, Found};

use super::{Digest, ImageName, Places, StoreError, written};

/// Bytes that a small file of state needs, more or less, for what is said of a full disk.
const SMALL: u64 = 64 << 10;

/// Images by their manifest, with their names.
type Images = BTreeMap<Digest, BTreeSet<ImageName>>;

/// What of the shared folder a node needs.
pub(super) type Roots = BTreeSet<Digest>;

/// What a node has. What is in memory is what is on disk: written first, then changed.
#[derive(Debug)]
pub(super) struct Names {
    images: Images,
    holds: BTreeMap<String, Digest>,
    roots: Roots,
    images_path: PathBuf,
    holds_path: PathBuf,
    roots_path: PathBuf,
    shared: PathBuf,
}

impl Names {
    /// What was there when the last process ended. A damaged file is set aside.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Full`].
    pub(super) fn open(places: &Places) -> Result<Self, StoreError> {
        let images_path = places.own.join("images.json");
        let holds_path = places.own.join("holds.json");
        let node = node_id(&places.own.join("node"))?;
        let mut names = Self {
            images: read(&images_path)?,
            holds: read(&holds_path)?,
            roots: Roots::new(),
            images_path,
            holds_path,
            roots_path: places.roots().join(format!("{node}.json")),
            shared: places.shared.clone(),
        };
        // Also where nothing is different: the shared folder may be another one.
        names.roots = roots_of(&names.images, &names.holds);
        write(
            &names.shared,
            &names.roots_path,
            &names.roots,
            Outlives::Process,
        )?;
        Ok(names)
    }

    /// All images of this node.
    pub(super) fn manifests(&self) -> BTreeSet<Digest> {
        self.images.keys().cloned().collect()
    }

    pub(super) fn names_of(&self, manifest: &Digest) -> Vec<ImageName> {
        let names = self.images.get(manifest).into_iter().flatten();
        names.cloned().collect()
    }

    /// All names with their images.
    pub(super) fn all(&self) -> impl Iterator<Item = (&ImageName, &Digest)> {
        self.images
            .iter()
            .flat_map(|(manifest, names)| names.iter().map(move |name| (name, manifest)))
    }

    pub(super) fn holds(&self) -> &BTreeMap<String, Digest> {
        &self.holds
    }

    /// Who uses an image, if anybody.
    pub(super) fn holder(&self, manifest: &Digest) -> Option<&str> {
        let mut holds = self.holds.iter();
        holds
            .find(|(_, held)| *held == manifest)
            .map(|(owner, _)| owner.as_str())
    }

    pub(super) fn set(
        &mut self,
        name: Option<&ImageName>,
        manifest: &Digest,
    ) -> Result<(), StoreError> {
        let there = self.images.get(manifest);
        if there.is_some_and(|names| name.is_none_or(|name| names.contains(name))) {
            return Ok(());
        }
        let mut images = self.images.clone();
        if let Some(name) = name {
            for names in images.values_mut() {
                names.remove(name);
            }
        }
        images
            .entry(manifest.clone())
            .or_default()
            .extend(name.cloned());
        self.change(images, None)
    }

    /// Takes names away, and an image as a whole where `forget` says so.
    pub(super) fn unset(
        &mut self,
        names: &[ImageName],
        forget: Option<&Digest>,
    ) -> Result<(), StoreError> {
        let mut images = self.images.clone();
        for image in images.values_mut() {
            image.retain(|name| !names.contains(name));
        }
        if let Some(manifest) = forget {
            images.remove(manifest);
        }
        self.change(images, None)
    }

    pub(super) fn hold(&mut self, owner: &str, manifest: &Digest) -> Result<(), StoreError> {
        if self.holds.get(owner) == Some(manifest) {
            return Ok(());
        }
        let mut holds = self.holds.clone();
        holds.insert(owner.to_owned(), manifest.clone());
        let mut images = self.images.clone();
        images.entry(manifest.clone()).or_default();
        self.change(images, Some(holds))
    }

    pub(super) fn release(&mut self, owner: &str) -> Result<(), StoreError> {
        if !self.holds.contains_key(owner) {
            return Ok(());
        }
        let mut holds = self.holds.clone();
        holds.remove(owner);
        self.change(self.images.clone(), Some(holds))
    }

    /// Writes what is needed more first, and what is needed less last: whoever removes unused content
    /// in between removes too little.
    fn change(
        &mut self,
        images: Images,
        holds: Option<BTreeMap<String, Digest>>,
    ) -> Result<(), StoreError> {
        let holds = holds.unwrap_or_else(|| self.holds.clone());
        let roots = roots_of(&images, &holds);
        let both: Roots = self.roots.union(&roots).cloned().collect();
        self.write_roots(both)?;
        if holds != self.holds {
            // Nothing runs after a loss of power.
            write(&self.shared, &self.holds_path, &holds, Outlives::Process)?;
            self.holds = holds;
        }
        if images != self.images {
            write(&self.shared, &self.images_path, &images, Outlives::Power)?;
            self.images = images;
        }
        self.write_roots(roots)
    }

    fn write_roots(&mut self, roots: Roots) -> Result<(), StoreError> {
        if roots != self.roots || !self.roots_path.exists() {
            write(&self.shared, &self.roots_path, &roots, Outlives::Process)?;
            self.roots = roots;
        }
        Ok(())
    }
}

/// Images, what is held, and the indexes that names mean.
fn roots_of(images: &Images, holds: &BTreeMap<String, Digest>) -> Roots {
    let named = images.values().flatten().filter_map(ImageName::digest);
    images
        .keys()
        .chain(holds.values())
        .chain(named)
        .cloned()
        .collect()
}

/// What this node is called among those that share a folder: made up once.
fn node_id(path: &Path) -> Result<String, StoreError> {
    match std::fs::read_to_string(path) {
        Ok(text) if text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) => {
            return Ok(text);
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(StoreError::io(path)(error));
        }
        _ => {}
    }
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| StoreError::io(path)(io::Error::other("no random numbers")))?;
    let id = format!("{:032x}", u128::from_be_bytes(bytes));
    replace_file(path, id.as_bytes(), PRIVATE, Outlives::Power).map_err(StoreError::io(path))?;
    Ok(id)
}

fn read<T: Default + serde::de::DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    match state_file::read(path).map_err(StoreError::io(path))? {
        Found::Value(value) => Ok(value),
        // It is told in the log.
        Found::Nothing | Found::Damaged(_) => Ok(T::default()),
    }
}

fn write(
    shared: &Path,
    path: &Path,
    value: &impl Serialize,
    outlives: Outlives,
) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(value).map_err(|error| StoreError::io(path)(error.into()))?;
    replace_file(path, &bytes, PRIVATE, outlives)
        .map_err(|error| written(shared, SMALL, error, path))
}
