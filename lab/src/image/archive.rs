//! An image as files: what `docker save` writes since Engine 25, an OCI layout and `manifest.json` in
//! one tar, and its parts as a registry wants them.

use std::io::{Cursor, Write};
use std::path::Path;

use anyhow::Context;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tar::{Builder, Header};
use weft_images::Digest;

use super::Image;

/// Of a manifest, its configuration and its layers (OCI image specification 1.1).
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Bytes by their digest.
#[derive(Debug, Clone)]
pub struct Content {
    /// `sha256:…`
    pub digest: Digest,
    /// Themselves.
    pub bytes: Vec<u8>,
}

impl Content {
    fn of(bytes: Vec<u8>) -> Self {
        Self {
            digest: Digest::of(&bytes),
            bytes,
        }
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({
            "mediaType": media_type,
            "digest": self.digest.as_str(),
            "size": self.bytes.len(),
        })
    }

    /// Where it is in a layout.
    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest.hex())
    }
}

/// All contents of an image, which has layers of gzip.
#[derive(Debug, Clone)]
pub struct Archive {
    /// Name with its tag.
    pub name: String,
    /// Bottom first.
    pub layers: Vec<Content>,
    /// Its digest is the id of the image.
    pub config: Content,
    /// Its digest pins the image.
    pub manifest: Content,
}

impl Archive {
    /// Media type of [`Archive::manifest`].
    pub const MEDIA_TYPE: &'static str = MANIFEST;

    /// Compresses an image for a machine like this one.
    ///
    /// # Errors
    /// Not seen in practice.
    pub fn of(image: &Image) -> anyhow::Result<Self> {
        let mut layers = Vec::new();
        let mut diff_ids = Vec::new();
        for tar in &image.layers {
            diff_ids.push(Digest::of(tar).as_str().to_owned());
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(tar)?;
            layers.push(Content::of(gzip.finish()?));
        }
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = Content::of(serde_json::to_vec(&json!({
            "created": "2026-01-01T00:00:00Z",
            "architecture": architecture,
            "os": "linux",
            "config": image.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        }))?);
        let described: Vec<Value> = layers.iter().map(|layer| layer.descriptor(LAYER)).collect();
        let manifest = Content::of(serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(CONFIG),
            "layers": described,
        }))?);
        Ok(Self {
            name: image.name.clone(),
            layers,
            config,
            manifest,
        })
    }

    /// Bytes that a node without any of it has to get: manifest, configuration and layers.
    #[must_use]
    pub fn size(&self) -> u64 {
        let contents = self.layers.iter().chain([&self.config, &self.manifest]);
        contents.map(|content| content.bytes.len() as u64).sum()
    }

    /// Writes what `docker save` writes.
    ///
    /// # Errors
    /// As the writer.
    pub fn write(&self, into: impl Write) -> anyhow::Result<()> {
        let mut tar = Builder::new(into);
        let mut add = |path: &str, bytes: &[u8]| {
            let mut header = Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, path, Cursor::new(bytes))
        };
        for content in self.layers.iter().chain([&self.config, &self.manifest]) {
            add(&content.path(), &content.bytes)?;
        }
        add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let whole = if self.name.contains('/') {
            self.name.clone()
        } else {
            format!("docker.io/library/{}", self.name)
        };
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let mut descriptor = self.manifest.descriptor(MANIFEST);
        descriptor["annotations"] = json!({
            "io.containerd.image.name": whole,
            "org.opencontainers.image.ref.name": tag,
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor],
        });
        add("index.json", &serde_json::to_vec(&index)?)?;
        let layers: Vec<String> = self.layers.iter().map(Content::path).collect();
        let saved = json!([{
            "Config": self.config.path(),
            "RepoTags": [self.name],
            "Layers": layers,
        }]);
        add("manifest.json", &serde_json::to_vec(&saved)?)?;
        tar.into_inner()?.flush()?;
        Ok(())
    }

    /// The same into a new file.
    ///
    /// # Errors
    /// As the file system.
    pub fn write_file(&self, path: &Path) -> anyhow::Result<()> {
        let file = std::fs::File::create(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        self.write(std::io::BufWriter::new(file))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::super::Layer;
    use super::*;

    #[test]
    fn an_archive_has_what_its_manifest_says() {
        let mut layer = Layer::new();
        layer.folder("www", 0o755).unwrap();
        layer.file("www/index.html", 0o644, b"hello\n").unwrap();
        layer.link("www/other.html", "index.html").unwrap();
        let image = Image::new("web:1").with(layer).unwrap();
        let image = image.runs(&["sh"]).set("StopSignal", json!("SIGUSR1"));
        let archive = Archive::of(&image).unwrap();
        assert_eq!(
            Archive::of(&image).unwrap().manifest.digest,
            archive.manifest.digest,
            "the same image is the same bytes"
        );
        let mut bytes = Vec::new();
        archive.write(&mut bytes).unwrap();

        let mut found = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            found.insert(path, content);
        }
        let json_at = |path: &str| -> Value { serde_json::from_slice(&found[path]).unwrap() };
        let at = |digest: &Value| {
            let hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
            format!("blobs/sha256/{hex}")
        };
        let index = json_at("index.json");
        let manifest = json_at(&at(&index["manifests"][0]["digest"]));
        let config = json_at(&at(&manifest["config"]["digest"]));
        assert_eq!(config["config"]["StopSignal"], "SIGUSR1");
        let layer = &found[&at(&manifest["layers"][0]["digest"])];
        assert_eq!(manifest["layers"][0]["size"], layer.len());
        let mut tar = Vec::new();
        GzDecoder::new(layer.as_slice())
            .read_to_end(&mut tar)
            .unwrap();
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            Digest::of(&tar).as_str(),
            "the id of a layer is of its tar"
        );
        let names: Vec<String> = tar::Archive::new(tar.as_slice())
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["www/", "www/index.html", "www/other.html"]);
        assert_eq!(json_at("manifest.json")[0]["RepoTags"][0], "web:1");
    }
}
