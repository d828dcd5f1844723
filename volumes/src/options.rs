//! Options of the driver `local`: `type`, `device`, `o` and `size`, checked and kept as Docker does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weft_model::api::{Volume, VolumeRequest};

use crate::error::Fault;

/// Name of the driver.
pub(crate) const DRIVER: &str = "local";
/// What the kernel takes of data for a mount, with its end: a page.
const MAX_TEXT: usize = 4095;

/// Which other options an option needs (`mandatoryOpts` of Docker's `local_unix.go`).
const NEEDS: [(&str, &[&str]); 3] = [
    ("device", &["type"]),
    ("type", &["device"]),
    ("o", &["device", "type"]),
];

/// A limit of what a volume takes. Written for the form's sake: nobody holds one here.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Quota {
    /// Bytes; 0 is none.
    pub(crate) size: u64,
}

/// What is mounted at the folder of a volume, as `opts.json` has it. It may hold a password.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Options {
    /// A kind of file system, such as `nfs` or `tmpfs`; `none` for a bind.
    pub(crate) mount_type: String,
    /// As mount(8) has them after `-o`.
    pub(crate) mount_opts: String,
    /// What is mounted: a device, a share, a folder.
    pub(crate) mount_device: String,
    /// A limit.
    pub(crate) quota: Quota,
}

impl Options {
    /// Reads options that a user gave; an empty value is none.
    pub(crate) fn check(given: &BTreeMap<String, String>) -> Result<Self, Fault> {
        let known = ["type", "device", "o", "size"];
        if let Some(unknown) = given.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(Fault::Option(unknown.chars().take(64).collect()));
        }
        let get = |key: &str| given.get(key).map_or("", String::as_str);
        for key in known {
            if get(key).contains('\0') || get(key).len() > MAX_TEXT {
                return Err(Fault::Text(key));
            }
        }
        for (option, needs) in NEEDS {
            let missing = needs.iter().find(|needed| get(needed).is_empty());
            if let Some(missing) = missing.filter(|_| given.contains_key(option)) {
                return Err(Fault::Missing(missing));
            }
        }
        if get("type") == "cifs" && has_port(get("device")) {
            return Err(Fault::Port);
        }
        if !get("size").is_empty() {
            return Err(Fault::Quota);
        }
        Ok(Self {
            mount_type: get("type").to_owned(),
            mount_opts: get("o").to_owned(),
            mount_device: get("device").to_owned(),
            quota: Quota::default(),
        })
    }

    /// True where nothing is mounted.
    pub(crate) fn is_plain(&self) -> bool {
        self.mount_device.is_empty()
    }

    /// As they were given.
    pub(crate) fn to_map(&self) -> BTreeMap<String, String> {
        let given = [
            ("type", &self.mount_type),
            ("device", &self.mount_device),
            ("o", &self.mount_opts),
        ];
        let given = given.into_iter().filter(|(_, value)| !value.is_empty());
        given
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .collect()
    }
}

/// Whether a share's address (`//host:445/share`) names a port.
fn has_port(device: &str) -> bool {
    let rest = device.strip_prefix("//").unwrap_or(device);
    let rest = rest.split_once("://").map_or(rest, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    // An IPv6 address has its colons in brackets.
    let after = host.rsplit(']').next().unwrap_or_default();
    after.contains(':')
}

/// Whether a driver is the one that there is; empty means it, too.
pub(crate) fn check_driver(driver: &str) -> Result<(), Fault> {
    match driver {
        "" | DRIVER => Ok(()),
        other => Err(Fault::Driver(other.chars().take(64).collect())),
    }
}

/// What people should know where a volume was asked for that is there already, and is another one:
/// as Docker, weft leaves it as it is. Values are not repeated, as one may be a password.
#[must_use]
pub fn differs(there: &Volume, asked: &VolumeRequest) -> Option<String> {
    // Who asks for none takes it as it is.
    let what = match (
        !asked.options.is_empty() && there.options != asked.options,
        !asked.labels.is_empty() && there.labels != asked.labels,
    ) {
        (false, false) => return None,
        (true, false) => "options",
        (false, true) => "labels",
        (true, true) => "options and labels",
    };
    Some(format!(
        "volume {} was there already, with other {what}, and stays as it is; to have those that were \
         asked for, remove it first (\"weft volume rm {}\"), which removes what is in it",
        there.name, there.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn options_are_checked_as_dockers() {
        let fault = |pairs: &[(&str, &str)]| Options::check(&map(pairs)).err();
        assert!(Options::check(&map(&[])).expect("none").is_plain());
        for (pairs, expected) in [
            (&[("x", "1")][..], Fault::Option("x".into())),
            (&[("type", "tmpfs")], Fault::Missing("device")),
            (&[("device", "/srv")], Fault::Missing("type")),
            (&[("o", "ro")], Fault::Missing("device")),
            (&[("o", "ro"), ("device", "/x")], Fault::Missing("type")),
            (&[("size", "10G")], Fault::Quota),
            (
                &[("type", "cifs"), ("device", "//nas:445/share")],
                Fault::Port,
            ),
            (
                &[("type", "tmpfs"), ("device", "a\0b")],
                Fault::Text("device"),
            ),
        ] {
            assert_eq!(fault(pairs), Some(expected), "{pairs:?}");
        }
        assert_eq!(
            fault(&[("x", "1")]).expect("unknown").to_string(),
            "invalid option: \"x\": there are \"type\", \"device\", \"o\" and \"size\""
        );
        let given = map(&[
            ("type", "nfs"),
            ("device", ":/srv"),
            ("o", "addr=nas,password=geheim"),
        ]);
        let options = Options::check(&given).expect("an NFS share");
        assert_eq!(options.to_map(), given);
        let text = serde_json::to_string(&options).expect("written");
        assert_eq!(
            text,
            r#"{"MountType":"nfs","MountOpts":"addr=nas,password=geheim","MountDevice":":/srv","Quota":{"Size":0}}"#
        );
    }

    #[test]
    fn ports_of_shares_are_seen() {
        for (device, port) in [
            ("//nas/share", false),
            ("//user@nas/share", false),
            ("//[fd00::1]/share", false),
            ("//[fd00::1]:445/share", true),
            ("smb://nas:445/share", true),
            ("//nas/a:b", false),
        ] {
            assert_eq!(has_port(device), port, "{device}");
        }
    }

    #[test]
    fn other_options_of_a_volume_that_is_there_are_told() {
        let there = Volume {
            name: "data".into(),
            ..Volume::default()
        };
        let mut asked = VolumeRequest::default();
        assert_eq!(differs(&there, &asked), None);
        asked.options = map(&[("o", "password=geheim")]);
        let told = differs(&there, &asked).expect("others");
        assert!(told.contains("with other options,"), "{told}");
        assert!(!told.contains("geheim"), "{told}");
        asked.labels = map(&[("a", "b")]);
        let told = differs(&there, &asked).expect("others");
        assert!(told.contains("options and labels"), "{told}");
        assert_eq!(check_driver("local"), Ok(()));
        assert!(check_driver("rexray").is_err());
    }
}
