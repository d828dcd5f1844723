//! `--mount`: what a task sees besides its image, in docker's words (docker/cli `opts/mount.go`).

use std::path::Path;

use weft_model::objects::{
    BindOptions, Mount, MountType, Propagation, TmpfsOptions, VolumeDriver, VolumeOptions,
};

use super::placement::parse_bytes;

/// Parses one `--mount`: a record of CSV, each field `KEY=VALUE`, or `KEY` for what is true.
///
/// # Errors
/// What is wrong, in docker's words where docker has some.
pub(crate) fn parse_mount(text: &str) -> Result<Mount, String> {
    let mut given = Given::default();
    for field in fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field.as_str(), None),
        };
        if key.trim() != key {
            return Err(format!(
                "invalid option '{key}' in '{field}': option should not have whitespace"
            ));
        }
        let key = key.to_ascii_lowercase();
        match value {
            None => given.flag(&key, &field)?,
            Some(value) if value.trim().is_empty() => {
                return Err(format!("invalid value for '{key}': value is empty"));
            }
            Some(value) if value.trim() != value => {
                return Err(format!(
                    "invalid value for '{key}' in '{field}': value should not have whitespace"
                ));
            }
            Some(value) => given.option(&key, value, &field)?,
        }
    }
    given.mount()
}

/// The fields of one record, as Go's `encoding/csv` reads them.
///
/// # Errors
/// It is empty, or a quote stands where none can.
pub(super) fn fields(text: &str) -> Result<Vec<String>, String> {
    if text.is_empty() {
        return Err("value is empty".to_owned());
    }
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, next) = match rest.split_once(',') {
                Some((field, next)) => (field, Some(next)),
                None => (rest, None),
            };
            if field.contains('"') {
                return Err(format!("'{field}': bare \" in non-quoted field"));
            }
            fields.push(field.to_owned());
            match next {
                Some(next) => rest = next,
                None => return Ok(fields),
            }
            continue;
        };
        let (mut field, mut left) = (String::new(), quoted);
        loop {
            let (part, next) = left
                .split_once('"')
                .ok_or_else(|| format!("'{rest}': extraneous or missing \" in quoted-field"))?;
            field.push_str(part);
            // Two of them are one.
            match next.strip_prefix('"') {
                Some(next) => {
                    field.push('"');
                    left = next;
                }
                None => {
                    left = next;
                    break;
                }
            }
        }
        fields.push(field);
        match left.strip_prefix(',') {
            Some(next) => rest = next,
            None if left.is_empty() => return Ok(fields),
            None => {
                return Err(format!(
                    "'{rest}': extraneous or missing \" in quoted-field"
                ));
            }
        }
    }
}

/// strconv.ParseBool
fn parse_bool(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("invalid value for {key}: {value}")),
    }
}

/// A relative path means something here only; `.` at its beginning tells it from a volume's name.
fn absolute(source: &str) -> String {
    if !source.starts_with('.') {
        return source.to_owned();
    }
    let path = std::path::absolute(source);
    let path = path.map(|path| normal(&path));
    path.unwrap_or_else(|_| source.to_owned())
}

/// Without `..`, as Go's `filepath.Clean`.
fn normal(path: &Path) -> String {
    let mut clean = std::path::PathBuf::new();
    for part in path.components() {
        if part == std::path::Component::ParentDir {
            clean.pop();
        } else {
            clean.push(part);
        }
    }
    clean.to_string_lossy().into_owned()
}

fn parse_propagation(value: &str) -> Result<Propagation, String> {
    Ok(match value.to_ascii_lowercase().as_str() {
        "private" => Propagation::Private,
        "rprivate" => Propagation::Rprivate,
        "shared" => Propagation::Shared,
        "rshared" => Propagation::Rshared,
        "slave" => Propagation::Slave,
        "rslave" => Propagation::Rslave,
        _ => return Err(format!("invalid propagation mode: {value}")),
    })
}

/// What one `--mount` says.
#[derive(Debug, Default)]
struct Given {
    kind: Option<MountType>,
    source: String,
    target: String,
    read_only: bool,
    bind: Option<BindOptions>,
    volume: Option<VolumeOptions>,
    tmpfs: Option<TmpfsOptions>,
}

impl Given {
    fn bind(&mut self) -> &mut BindOptions {
        self.bind.get_or_insert_default()
    }

    fn volume(&mut self) -> &mut VolumeOptions {
        self.volume.get_or_insert_default()
    }

    fn driver(&mut self) -> &mut VolumeDriver {
        self.volume().driver_config.get_or_insert_default()
    }

    /// A key alone.
    fn flag(&mut self, key: &str, field: &str) -> Result<(), String> {
        match key {
            "readonly" | "ro" | "volume-nocopy" | "volume-sticky" | "bind-create-src" => {
                self.option(key, "true", field)
            }
            "bind-nonrecursive" => self.option(key, "true", field),
            _ => Err(format!("invalid field '{field}' must be a key=value pair")),
        }
    }

    fn option(&mut self, key: &str, value: &str, field: &str) -> Result<(), String> {
        match key {
            "type" => self.kind = Some(parse_type(value)?),
            "source" | "src" => self.source = absolute(value),
            "target" | "dst" | "destination" => value.clone_into(&mut self.target),
            "readonly" | "ro" => self.read_only = parse_bool(key, value)?,
            // Of Docker for Mac; nobody does anything about it.
            "consistency" => {}
            _ if key.starts_with("bind-") => self.bind_option(key, value, field)?,
            _ if key.starts_with("volume-") => self.volume_option(key, value, field)?,
            "tmpfs-size" => {
                let bytes = parse_bytes(value);
                let bytes = bytes.map_err(|_| format!("invalid value for {key}: {value}"))?;
                self.tmpfs.get_or_insert_default().size_bytes = bytes;
            }
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8);
                let mode = mode.map_err(|_| format!("invalid value for {key}: {value}"))?;
                self.tmpfs.get_or_insert_default().mode = mode;
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
        Ok(())
    }

    fn bind_option(&mut self, key: &str, value: &str, field: &str) -> Result<(), String> {
        match key {
            "bind-propagation" => self.bind().propagation = parse_propagation(value)?,
            "bind-create-src" => self.bind().create_mountpoint = parse_bool(key, value)?,
            "bind-nonrecursive" => {
                return Err(
                    "bind-nonrecursive is deprecated, use bind-recursive=disabled instead"
                        .to_owned(),
                );
            }
            "bind-recursive" => match value {
                "enabled" => {
                    self.bind();
                }
                "disabled" => self.bind().non_recursive = true,
                "writable" => self.bind().read_only_non_recursive = true,
                "readonly" => self.bind().read_only_force_recursive = true,
                _ => {
                    return Err(format!(
                        "invalid value for {key}: {value} (must be \"enabled\", \"disabled\", \
                         \"writable\", or \"readonly\")"
                    ));
                }
            },
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
        Ok(())
    }

    fn volume_option(&mut self, key: &str, value: &str, field: &str) -> Result<(), String> {
        let (name, rest) = value.split_once('=').unwrap_or((value, ""));
        let pair = (name.to_owned(), rest.to_owned());
        match key {
            "volume-subpath" => value.clone_into(&mut self.volume().subpath),
            "volume-nocopy" => self.volume().no_copy = parse_bool(key, value)?,
            "volume-sticky" => self.volume().sticky = parse_bool(key, value)?,
            "volume-label" => {
                self.volume().labels.extend([pair]);
            }
            "volume-driver" => value.clone_into(&mut self.driver().name),
            "volume-opt" => {
                self.driver().options.extend([pair]);
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
        Ok(())
    }

    /// All of it, if it fits together.
    fn mount(self) -> Result<Mount, String> {
        let kind = self.kind.unwrap_or_default();
        let (of, word) = match kind {
            MountType::Volume => ("volume-*", "volume"),
            MountType::Bind => ("bind-*", "bind"),
            MountType::Tmpfs => ("tmpfs-*", "tmpfs"),
        };
        for (options, there) in [
            ("volume-*", self.volume.is_some()),
            ("bind-*", self.bind.is_some()),
            ("tmpfs-*", self.tmpfs.is_some()),
        ] {
            if there && options != of {
                return Err(format!(
                    "cannot mix '{options}' options with mount type '{word}'"
                ));
            }
        }
        if self.target.is_empty() {
            return Err("target is required".to_owned());
        }
        if let Some(bind) = &self.bind {
            let requires = |what: &str, needed: &str| {
                format!(
                    "option 'bind-recursive={what}' requires '{needed}' to be specified in \
                     conjunction"
                )
            };
            if bind.read_only_non_recursive && !self.read_only {
                return Err(requires("writable", "readonly"));
            }
            if bind.read_only_force_recursive && !self.read_only {
                return Err(requires("readonly", "readonly"));
            }
            if bind.read_only_force_recursive && bind.propagation != Propagation::Rprivate {
                return Err(requires("readonly", "bind-propagation=rprivate"));
            }
        }
        Ok(Mount {
            kind,
            source: self.source,
            target: self.target,
            read_only: self.read_only,
            bind_options: self.bind,
            volume_options: self.volume,
            tmpfs_options: self.tmpfs,
        })
    }
}

fn parse_type(value: &str) -> Result<MountType, String> {
    match value.to_ascii_lowercase().as_str() {
        "volume" => Ok(MountType::Volume),
        "bind" => Ok(MountType::Bind),
        "tmpfs" => Ok(MountType::Tmpfs),
        other => Err(format!(
            "mount type unknown: '{other}': there are volume, bind and tmpfs"
        )),
    }
}

/// What `--mount-add` and `--mount-rm` make of the mounts of a service: one that is added takes the place
/// of the one with its target.
///
/// # Errors
/// Two that are added have one target.
pub(crate) fn change_mounts(
    mounts: &mut Vec<Mount>,
    add: &[Mount],
    rm: &[String],
) -> anyhow::Result<()> {
    if add.is_empty() && rm.is_empty() {
        return Ok(());
    }
    for (at, mount) in add.iter().enumerate() {
        if add[..at].iter().any(|other| other.target == mount.target) {
            anyhow::bail!(
                "duplicate mount target: {}; give --mount-add once for it",
                mount.target
            );
        }
    }
    mounts.retain(|mount| add.iter().all(|added| added.target != mount.target));
    mounts.extend(add.iter().cloned());
    mounts.retain(|mount| !rm.contains(&mount.target));
    mounts.sort_by(|a, b| (&a.source, &a.target).cmp(&(&b.source, &b.target)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_as_dockers() {
        let mount = parse_mount(
            "type=volume,src=data,dst=/data,ro,volume-nocopy,volume-label=a=b,volume-label=c,\
             volume-driver=local,volume-opt=type=nfs,\"volume-opt=o=addr=nas,rw\",volume-subpath=x/y",
        )
        .expect("a volume");
        let options = mount.volume_options.expect("options");
        assert_eq!(
            (mount.kind, mount.source.as_str(), mount.target.as_str()),
            (MountType::Volume, "data", "/data")
        );
        assert!(mount.read_only && options.no_copy && !options.sticky);
        assert_eq!(options.labels["a"], "b");
        assert_eq!(options.labels["c"], "");
        assert_eq!(options.subpath, "x/y");
        let driver = options.driver_config.expect("a driver");
        assert_eq!(driver.options["o"], "addr=nas,rw");
        assert_eq!(driver.options["type"], "nfs");
        // The default, and no options where none are given.
        let plain = parse_mount("destination=/x").expect("a volume of its own");
        let expected = Mount {
            target: "/x".into(),
            ..Mount::default()
        };
        assert_eq!(plain, expected);
        let bind = parse_mount(
            "TYPE=Bind,source=/srv,target=/x,readonly=true,bind-propagation=rprivate,\
             bind-recursive=readonly,bind-create-src,consistency=cached",
        )
        .expect("a bind");
        let options = bind.bind_options.expect("options");
        assert!(options.read_only_force_recursive && options.create_mountpoint);
        let tmpfs =
            parse_mount("type=tmpfs,dst=/t,tmpfs-size=10m,tmpfs-mode=1770").expect("memory");
        let expected = TmpfsOptions {
            size_bytes: 10 << 20,
            mode: 0o1770,
        };
        assert_eq!(tmpfs.tmpfs_options, Some(expected));
        let sticky = parse_mount("src=data,dst=/d,volume-sticky=true").expect("a volume");
        assert!(sticky.volume_options.expect("options").sticky);
    }

    #[test]
    fn a_relative_source_is_made_absolute_here() {
        let here = std::env::current_dir().expect("a folder");
        let source = |text: &str| parse_mount(text).expect(text).source;
        assert_eq!(
            source("type=bind,src=./a/../b,dst=/x"),
            here.join("b").display().to_string()
        );
        let parent = here.parent().unwrap_or(&here);
        assert_eq!(
            source("type=bind,src=..,dst=/x"),
            parent.display().to_string()
        );
        // The name of a volume; the manager refuses it as the source of a bind.
        assert_eq!(source("type=bind,src=data,dst=/x"), "data");
    }

    #[test]
    fn what_docker_refuses_is_refused_in_its_words() {
        for (text, says) in [
            ("", "value is empty"),
            ("type=bind,source=/x", "target is required"),
            ("foo", "invalid field 'foo' must be a key=value pair"),
            ("target=/x,foo=bar", "unexpected key 'foo' in 'foo=bar'"),
            (
                "target=/x,volume-foo=bar",
                "unexpected key 'volume-foo' in 'volume-foo=bar'",
            ),
            (
                "type=volume,target=/x,tmpfs-size=1m",
                "cannot mix 'tmpfs-*' options with mount type 'volume'",
            ),
            (
                "type=bind,src=/a,target=/x,volume-nocopy",
                "cannot mix 'volume-*' options with mount type 'bind'",
            ),
            (
                "type=tmpfs,target=/x,bind-propagation=rslave",
                "cannot mix 'bind-*' options with mount type 'tmpfs'",
            ),
            ("target=/x,readonly=no", "invalid value for readonly: no"),
            (
                "target=/x,volume-nocopy=bar",
                "invalid value for volume-nocopy: bar",
            ),
            (
                "type=tmpfs,target=/x,tmpfs-size=much",
                "invalid value for tmpfs-size: much",
            ),
            (
                "type=tmpfs,target=/x,tmpfs-mode=9",
                "invalid value for tmpfs-mode: 9",
            ),
            (
                "type=bind,src=/a,dst=/x,bind-propagation=up",
                "invalid propagation mode: up",
            ),
            (
                "type=bind,src=/a,dst=/x,bind-recursive=no",
                "invalid value for bind-recursive: no (must be \"enabled\", \"disabled\", \
                 \"writable\", or \"readonly\")",
            ),
            (
                "type=bind,src=/a,dst=/x,bind-nonrecursive",
                "bind-nonrecursive is deprecated, use bind-recursive=disabled instead",
            ),
            (
                "type=bind,src=/a,dst=/x,bind-recursive=writable",
                "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction",
            ),
            (
                "type=bind,src=/a,dst=/x,ro,bind-recursive=readonly,bind-propagation=slave",
                "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be \
                 specified in conjunction",
            ),
            (
                "type=volume, target=/x",
                "invalid option ' target' in ' target=/x': option should not have whitespace",
            ),
            (
                "type=volume,target= /x",
                "invalid value for 'target' in 'target= /x': value should not have whitespace",
            ),
            (
                "type=volume,target=",
                "invalid value for 'target': value is empty",
            ),
            (
                "type=npipe,target=/x",
                "mount type unknown: 'npipe': there are volume, bind and tmpfs",
            ),
            ("a\"b", "'a\"b': bare \" in non-quoted field"),
            ("\"a", "'\"a': extraneous or missing \" in quoted-field"),
            (
                "\"a\"b",
                "'\"a\"b': extraneous or missing \" in quoted-field",
            ),
        ] {
            assert_eq!(parse_mount(text).expect_err(text), says, "{text}");
        }
    }

    #[test]
    fn records_are_csv() {
        let read = |text: &str| fields(text).expect(text);
        assert_eq!(read("a,b=c"), ["a", "b=c"]);
        assert_eq!(read("\"a,b\",c"), ["a,b", "c"]);
        assert_eq!(read("\"a\"\"b\""), ["a\"b"]);
        assert_eq!(read("a,"), ["a", ""]);
    }

    #[test]
    fn an_update_replaces_by_target() {
        let parsed = |texts: &[&str]| -> Vec<Mount> {
            let texts = texts.iter();
            texts.map(|text| parse_mount(text).expect(text)).collect()
        };
        let mut mounts = parsed(&["src=b,dst=/b", "src=a,dst=/a", "src=c,dst=/c"]);
        let before = mounts.clone();
        change_mounts(&mut mounts, &[], &[]).expect("nothing");
        assert_eq!(mounts, before, "in their order");
        let add = parsed(&["src=other,dst=/a", "src=d,dst=/d"]);
        change_mounts(&mut mounts, &add, &["/c".to_owned()]).expect("changed");
        assert_eq!(
            mounts,
            parsed(&["src=b,dst=/b", "src=d,dst=/d", "src=other,dst=/a"])
        );
        let twice = parsed(&["src=x,dst=/a", "src=y,dst=/a"]);
        let error = change_mounts(&mut mounts, &twice, &[]).expect_err("twice");
        assert!(error.to_string().starts_with("duplicate mount target: /a"));
    }
}
