//! Which of the images of an index a machine runs.

use std::fmt;

use oci_spec::image::{Descriptor, ImageIndex};
use serde::{Deserialize, Serialize};

/// Annotation of what is no image but says something of one: where it was built, what is in it.
const ATTESTATION: &str = "vnd.docker.reference.type";
/// How many platforms an error names.
const NAMED: usize = 12;

/// Operating system and processor, in the words of Go and Docker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, `arm`, `386`, …
    pub architecture: String,
    /// What of the architecture is used: `v3` of amd64, `v8` of arm64, `v7` of arm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Why an index has nothing for a machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// Only images for others; docker's words, and what there is.
    #[error(
        "no matching manifest for {wanted} in the manifest list entries: it has {}",
        listed(.found)
    )]
    NoMatch {
        /// What the machine is.
        wanted: Platform,
        /// What the index has.
        found: Vec<Platform>,
    },
    /// One image, for another machine.
    #[error(
        "the image does not match the specified platform: wanted {wanted}, actual: {found}; push one for \
         {wanted}, or place the service by --constraint node.platform.arch=={}", .found.architecture
    )]
    Other {
        /// What the machine is.
        wanted: Platform,
        /// What the image is for.
        found: Platform,
    },
}

impl Platform {
    /// What this machine runs. Of amd64 the highest level that its processor has.
    #[must_use]
    pub fn of_machine() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", Some(level())),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "x86" => ("386", None),
            "powerpc64" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Self {
            os: std::env::consts::OS.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// The platform of an entry of an index.
    #[must_use]
    pub fn of_spec(platform: &oci_spec::image::Platform) -> Self {
        Self {
            os: platform.os().to_string(),
            architecture: platform.architecture().to_string(),
            variant: platform.variant().clone().filter(|text| !text.is_empty()),
        }
    }

    /// How well an image for `other` runs here; 0 is best.
    ///
    /// As containerd: each variant below one's own, and the architecture of 32 bits after those.
    #[must_use]
    pub fn preference(&self, other: &Self) -> Option<u32> {
        if self.os != other.os {
            return None;
        }
        let own = number(&self.architecture, self.variant.as_deref());
        let given = number(&other.architecture, other.variant.as_deref());
        match (self.architecture.as_str(), other.architecture.as_str()) {
            (mine, theirs) if mine == theirs => match (own, given) {
                (Some(own), Some(given)) => own.checked_sub(given),
                _ => (self.variant == other.variant || other.variant.is_none()).then_some(0),
            },
            ("amd64", "386") => Some(100),
            ("arm64", "arm") => Some(100 + 8_u32.saturating_sub(given.unwrap_or(7))),
            _ => None,
        }
    }

    /// True for an image that says nothing of where it runs, or that runs here.
    #[must_use]
    pub fn runs(&self, other: &Self) -> bool {
        let unsaid = |text: &str| text.is_empty() || text == "unknown";
        unsaid(&other.architecture) || unsaid(&other.os) || self.preference(other).is_some()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            // What everybody means who says amd64 or arm64.
            None | Some("v1" | "v8") => Ok(()),
            Some(variant) => write!(f, "/{variant}"),
        }
    }
}

/// The image of an index that `wanted` runs best; of equals the first. What says something of images,
/// but is none, is passed over. An entry that names no platform is taken where no other fits.
///
/// # Errors
/// [`PlatformError::NoMatch`].
pub fn choose(index: &ImageIndex, wanted: &Platform) -> Result<Descriptor, PlatformError> {
    let mut best: Option<(u32, &Descriptor)> = None;
    for entry in images(index) {
        let rank = match entry.platform() {
            Some(platform) => wanted.preference(&Platform::of_spec(platform)),
            None => Some(u32::MAX),
        };
        if let Some(rank) = rank
            && best.is_none_or(|(known, _)| rank < known)
        {
            best = Some((rank, entry));
        }
    }
    best.map(|(_, entry)| entry.clone())
        .ok_or_else(|| PlatformError::NoMatch {
            wanted: wanted.clone(),
            found: platforms(index),
        })
}

/// The platforms that an index has images for.
#[must_use]
pub fn platforms(index: &ImageIndex) -> Vec<Platform> {
    images(index)
        .filter_map(|entry| entry.platform().as_ref().map(Platform::of_spec))
        .collect()
}

fn images(index: &ImageIndex) -> impl Iterator<Item = &Descriptor> {
    index.manifests().iter().filter(|entry| is_image(entry))
}

pub(crate) fn is_image(entry: &Descriptor) -> bool {
    let attests = entry
        .annotations()
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key(ATTESTATION));
    let unknown = entry
        .platform()
        .as_ref()
        .is_some_and(|platform| platform.os().to_string() == "unknown");
    !attests && !unknown
}

/// Variants that follow each other, as numbers.
fn number(architecture: &str, variant: Option<&str>) -> Option<u32> {
    let usual = match architecture {
        "amd64" => 1,
        "arm64" => 8,
        "arm" => 7,
        _ => return None,
    };
    match variant {
        None | Some("") => Some(usual),
        // arm64 in Go's words: `v8`, `v8.1`, `v9.0`; what comes after the point asks for no more here.
        Some(text) => {
            let digits = text.strip_prefix('v').unwrap_or(text);
            digits.split('.').next()?.parse().ok()
        }
    }
}

/// The level of the x86-64 psABI that this processor has.
#[cfg(target_arch = "x86_64")]
fn level() -> &'static str {
    let second = is_x86_feature_detected!("cmpxchg16b")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("sse3")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("sse4.1")
        && is_x86_feature_detected!("sse4.2");
    let third = second
        && is_x86_feature_detected!("avx")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("movbe");
    let fourth = third
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (second, third, fourth) {
        (_, _, true) => "v4",
        (_, true, _) => "v3",
        (true, _, _) => "v2",
        _ => "v1",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn level() -> &'static str {
    "v1"
}

/// For an error.
fn listed(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "none".to_owned();
    }
    let mut names: Vec<String> = platforms
        .iter()
        .take(NAMED)
        .map(|platform| {
            let name = platform.to_string();
            name.chars()
                .filter(|letter| !letter.is_control())
                .take(60)
                .collect()
        })
        .collect();
    if platforms.len() > NAMED {
        names.push("…".to_owned());
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        Platform {
            os: parts.next().expect("an os"),
            architecture: parts.next().expect("an architecture"),
            variant: parts.next(),
        }
    }

    fn index(entries: &[&str]) -> ImageIndex {
        let manifests: Vec<serde_json::Value> = entries
            .iter()
            .enumerate()
            .map(|(n, text)| {
                let mut entry = serde_json::json!({
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": format!("sha256:{n:064x}"),
                    "size": n,
                });
                if !text.is_empty() {
                    entry["platform"] =
                        serde_json::to_value(platform(text)).expect("a platform as JSON");
                }
                entry
            })
            .collect();
        serde_json::from_value(serde_json::json!({"schemaVersion": 2, "manifests": manifests}))
            .expect("an index")
    }

    fn chosen(entries: &[&str], wanted: &str) -> Option<u64> {
        choose(&index(entries), &platform(wanted))
            .ok()
            .map(|entry| entry.size())
    }

    #[test]
    fn variants() {
        let levels = [
            "linux/amd64",
            "linux/amd64/v2",
            "linux/amd64/v3",
            "linux/arm64",
        ];
        assert_eq!(chosen(&levels, "linux/amd64/v3"), Some(2));
        assert_eq!(chosen(&levels, "linux/amd64/v4"), Some(2));
        assert_eq!(chosen(&levels, "linux/amd64/v2"), Some(1));
        assert_eq!(chosen(&levels, "linux/amd64"), Some(0));
        assert_eq!(chosen(&levels, "linux/arm64/v8"), Some(3));
        assert_eq!(chosen(&["linux/arm64/v8"], "linux/arm64"), Some(0));
        assert_eq!(chosen(&["linux/arm64/v9"], "linux/arm64"), None);
        let arms = ["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"];
        assert_eq!(chosen(&arms, "linux/arm/v7"), Some(1));
        assert_eq!(chosen(&arms, "linux/arm/v6"), Some(2));
        assert_eq!(chosen(&arms, "linux/arm64/v8"), Some(1));
        assert_eq!(
            chosen(&["linux/386", "linux/amd64"], "linux/amd64"),
            Some(1)
        );
        assert_eq!(chosen(&["linux/386"], "linux/amd64"), Some(0));
        assert_eq!(chosen(&["linux/riscv64"], "linux/riscv64"), Some(0));
        assert_eq!(chosen(&["windows/amd64"], "linux/amd64"), None);
    }

    #[test]
    fn what_is_no_image_is_passed_over() {
        let mut list = index(&["unknown/unknown", "linux/amd64"]);
        assert_eq!(
            choose(&list, &platform("linux/amd64")).expect("one").size(),
            1
        );
        assert_eq!(platforms(&list), [platform("linux/amd64")]);
        let mut attests = list.manifests()[1].clone();
        attests.set_annotations(Some(
            [(ATTESTATION.to_owned(), "attestation-manifest".to_owned())].into(),
        ));
        list.set_manifests(vec![attests]);
        assert!(choose(&list, &platform("linux/amd64")).is_err());
    }

    #[test]
    fn an_entry_without_a_platform_is_the_last_one() {
        assert_eq!(chosen(&["", "linux/amd64"], "linux/amd64"), Some(1));
        assert_eq!(chosen(&["", "linux/arm64"], "linux/amd64"), Some(0));
    }

    #[test]
    fn an_error_names_what_there_is() {
        let error = choose(
            &index(&["linux/arm64/v8", "windows/amd64"]),
            &platform("linux/amd64/v3"),
        );
        assert_eq!(
            error.expect_err("nothing for it").to_string(),
            "no matching manifest for linux/amd64/v3 in the manifest list entries: it has linux/arm64, \
             windows/amd64"
        );
    }

    #[test]
    fn this_machine_runs_what_it_is() {
        let machine = Platform::of_machine();
        assert_eq!(machine.preference(&machine), Some(0));
        assert!(machine.runs(&platform("unknown/unknown")));
        assert!(!machine.runs(&platform("plan9/amd64")));
    }
}
