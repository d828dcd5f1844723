//! Which image a word stands for, as docker reads it: a name, a name with a digest, or the beginning
//! of an id.

use std::collections::BTreeSet;

use super::names::Names;
use super::{Digest, Image, ImageName, Store, StoreError};

/// Digits of an id that a word has at least.
const FEWEST_DIGITS: usize = 4;

/// What a word stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Match {
    /// These names of this image.
    Names(Digest, Vec<ImageName>),
    /// An image by its id: all of its manifests.
    Id(BTreeSet<Digest>),
}

impl Store {
    /// The image that `word` stands for, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Ambiguous`]; those of [`Store::image`].
    pub fn find(&self, word: &str) -> Result<Option<Image>, StoreError> {
        let manifest = match self.matching(word)? {
            None => return Ok(None),
            Some(Match::Names(manifest, _)) => Some(manifest),
            Some(Match::Id(manifests)) => manifests.into_iter().next(),
        };
        manifest.map(|manifest| self.image(&manifest)).transpose()
    }

    /// What `word` stands for.
    ///
    /// # Errors
    /// [`StoreError::Ambiguous`], [`StoreError::Io`].
    pub(super) fn matching(&self, word: &str) -> Result<Option<Match>, StoreError> {
        let ambiguous = |count| StoreError::Ambiguous {
            word: word.to_owned(),
            count,
        };
        // Docker: an id of all its digits is never a name, fewer may be one.
        if let Some((manifest, names)) = word
            .parse::<ImageName>()
            .ok()
            .map(|name| by_name(&self.lock(), &name))
            .transpose()
            .map_err(ambiguous)?
            .flatten()
        {
            return Ok(Some(Match::Names(manifest, names)));
        }
        let digits = word.strip_prefix("sha256:").unwrap_or(word);
        let is_hex = digits
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !is_hex || digits.len() < FEWEST_DIGITS {
            return Ok(None);
        }
        let mut ids = BTreeSet::new();
        let mut manifests = BTreeSet::new();
        for image in self.images()? {
            if image.id.hex().starts_with(digits) || image.manifest.hex().starts_with(digits) {
                ids.insert(image.id);
                manifests.insert(image.manifest);
            }
        }
        match ids.len() {
            0 => Ok(None),
            1 => Ok(Some(Match::Id(manifests))),
            count => Err(ambiguous(count)),
        }
    }
}

/// The names that `wanted` means, all of one image. A tag means the name of just this spelling, else
/// those with that tag and a digest, as pinned services have them. A digest counts more than the tag
/// beside it, and is that of a manifest or of what the image was pulled as.
///
/// # Errors
/// How many images it may be.
fn by_name(names: &Names, wanted: &ImageName) -> Result<Option<(Digest, Vec<ImageName>)>, usize> {
    if let Some((name, manifest)) = names.all().find(|(name, _)| *name == wanted) {
        return Ok(Some((manifest.clone(), vec![name.clone()])));
    }
    let found: Vec<(&ImageName, &Digest)> = names
        .all()
        .filter(|(name, manifest)| {
            let is_same = (name.domain(), name.path()) == (wanted.domain(), wanted.path());
            is_same
                && match wanted.digest() {
                    Some(digest) => name.digest() == Some(digest) || *manifest == digest,
                    None => name.tag() == wanted.tag(),
                }
        })
        .collect();
    let manifests: BTreeSet<&Digest> = found.iter().map(|(_, manifest)| *manifest).collect();
    match manifests.len() {
        0 => Ok(None),
        1 => {
            let names = found.iter().map(|(name, _)| (*name).clone()).collect();
            Ok(Some((found[0].1.clone(), names)))
        }
        count => Err(count),
    }
}
