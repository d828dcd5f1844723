//! One layer of an image, as a tar.

use std::io;
use std::path::Path;

use anyhow::Context;
use tar::{Builder, EntryType, Header, HeaderMode};

/// The files of a layer. All belong to root, and are as old as each other, so that the same files make
/// the same layer. Paths are those of the container, without the first slash.
#[derive(Default)]
pub struct Layer {
    /// None for an empty one: a builder that is dropped writes its end.
    tar: Option<Builder<Vec<u8>>>,
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.tar.as_ref().map_or(0, |tar| tar.get_ref().len());
        f.debug_struct("Layer").field("bytes", &bytes).finish()
    }
}

impl Layer {
    /// Without any file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn tar(&mut self) -> &mut Builder<Vec<u8>> {
        self.tar.get_or_insert_with(|| {
            let mut tar = Builder::new(Vec::new());
            tar.mode(HeaderMode::Deterministic);
            tar.follow_symlinks(false);
            tar
        })
    }

    /// Adds a file with its permissions, as `0o755`.
    ///
    /// # Errors
    /// The path is absolute or has `..`.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> anyhow::Result<&mut Self> {
        let mut header = header(EntryType::Regular, mode);
        header.set_size(content.len() as u64);
        self.tar()
            .append_data(&mut header, path, content)
            .with_context(|| format!("no file {path} in a layer"))?;
        Ok(self)
    }

    /// Adds a folder with its permissions.
    ///
    /// # Errors
    /// As of [`Layer::file`].
    pub fn folder(&mut self, path: &str, mode: u32) -> anyhow::Result<&mut Self> {
        let mut header = header(EntryType::Directory, mode);
        self.tar()
            .append_data(&mut header, format!("{path}/"), io::empty())
            .with_context(|| format!("no folder {path} in a layer"))?;
        Ok(self)
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// As of [`Layer::file`].
    pub fn link(&mut self, path: &str, target: &str) -> anyhow::Result<&mut Self> {
        let mut header = header(EntryType::Symlink, 0o777);
        self.tar()
            .append_link(&mut header, path, target)
            .with_context(|| format!("no link {path} in a layer"))?;
        Ok(self)
    }

    /// Adds all that is in a folder of this machine; links stay links.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn tree(&mut self, folder: &Path) -> anyhow::Result<&mut Self> {
        self.tar()
            .append_dir_all("", folder)
            .with_context(|| format!("no layer of {}", folder.display()))?;
        Ok(self)
    }

    /// The tar.
    pub(super) fn finish(mut self) -> io::Result<Vec<u8>> {
        self.tar();
        let tar = self.tar.take().unwrap_or_else(|| Builder::new(Vec::new()));
        tar.into_inner()
    }
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_size(0);
    header
}
