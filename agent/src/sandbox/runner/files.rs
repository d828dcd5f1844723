//! Contents of a task's files.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weft_model::objects::{DnsConfig, Task};
use weft_shim::spec;
use weft_sys::process::Process;
use weft_sys::replace_file::{Outlives, PRIVATE, replace_file};

use super::{RunError, Runner};
use crate::names::{DNS_ADDR, HOST_RESOLV_CONF};

pub(super) const RECORD: &str = "process.json";

/// A file of the task's own that it sees in the place of another one.
#[derive(Debug)]
pub(super) struct TaskFile {
    /// In the folder of the task.
    pub(super) name: &'static str,
    pub(super) path: PathBuf,
    /// Where it is seen.
    pub(super) target: &'static str,
}

/// Their names, and where they are seen.
pub(super) const SHOWN: [(&str, &str); 3] = [
    ("resolv.conf", "/etc/resolv.conf"),
    ("hosts", "/etc/hosts"),
    ("hostname", "/etc/hostname"),
];

impl Runner {
    /// Writes the files that the task sees, in its folder, which is made and cleared of what an earlier
    /// attempt left.
    pub(super) fn write_files(&self, task: &Task, dir: &Path) -> Result<Vec<TaskFile>, RunError> {
        std::fs::create_dir_all(dir)
            .and_then(|()| spec::forget(dir))
            .map_err(|source| RunError::File {
                path: dir.to_owned(),
                source,
            })?;
        let container = &task.spec.container;
        let hostname = self.hostname(task)?;
        let ips = task.attachments.iter().filter_map(|a| a.ips().next());
        let ips: Vec<_> = ips.collect();
        let texts = [
            resolv_conf(&host_resolv_conf(), &container.dns_config),
            hosts(&task.name(), &hostname, &ips, &container.hosts),
            format!("{hostname}\n"),
        ];
        let files = SHOWN.into_iter().zip(texts);
        files
            .map(|((name, target), text)| {
                let path = dir.join(name);
                match std::fs::write(&path, text) {
                    Ok(()) => Ok(TaskFile { name, path, target }),
                    Err(source) => Err(RunError::File { path, source }),
                }
            })
            .collect()
    }
}

/// Something that stands in one place of a line.
fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

fn words(given: &[String]) -> Vec<&str> {
    let given = given.iter().map(String::as_str);
    given.filter(|word| is_word(word)).collect()
}

/// Names are asked of the sandbox's own resolver, which asks the servers of the task for what it does
/// not know itself. The host's search domains stay where the task has none, so that short outside
/// names work as they do on the host. `ndots:0`: a service name is asked for as it is first.
pub(super) fn resolv_conf(host: &str, task: &DnsConfig) -> String {
    let own = words(&task.search).join(" ");
    let own = Some(own).filter(|own| !own.is_empty());
    let search = own.or_else(|| search_of(host));
    // Docker's word for none.
    let search = search.filter(|domains| !domains.is_empty() && domains != ".");
    let mut text = format!("nameserver {}\n", DNS_ADDR.ip());
    if let Some(domains) = search {
        writeln!(text, "search {domains}").expect("writing to a String succeeds");
    }
    let mut options = words(&task.options);
    if !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0");
    }
    writeln!(text, "options {}", options.join(" ")).expect("writing to a String succeeds");
    text
}

/// The search domains of a resolv.conf.
fn search_of(host: &str) -> Option<String> {
    host.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next()?;
            (keyword == "search" || keyword == "domain").then(|| {
                words
                    .filter(|word| !word.contains(char::REPLACEMENT_CHARACTER))
                    .collect::<Vec<_>>()
                    .join(" ")
            })
        })
        // resolv.conf(5): the last one counts.
        .next_back()
}

/// The node's own file, for its search domains. Foreign text: comments may be in any encoding.
pub(super) fn host_resolv_conf() -> String {
    match std::fs::read(HOST_RESOLV_CONF) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            tracing::warn!(path = HOST_RESOLV_CONF, %error, "tasks get no search domains of the host");
            String::new()
        }
    }
}

/// The usual local names, and the task's own names at its addresses, or at the one that Debian uses
/// where there is none: programs ask for their own name at the start. Then what the service adds,
/// `ADDRESS NAME`.
pub(super) fn hosts(task_name: &str, hostname: &str, ips: &[IpAddr], more: &[String]) -> String {
    const NO_NETWORK: [IpAddr; 1] = [IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1))];
    let mut text = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
    let names = if hostname == task_name {
        task_name.to_owned()
    } else {
        format!("{task_name} {hostname}")
    };
    let ips = if ips.is_empty() { &NO_NETWORK } else { ips };
    for ip in ips {
        writeln!(text, "{ip} {names}").expect("writing to a String succeeds");
    }
    for line in more {
        let mut words = line.split_whitespace();
        let ip: Option<IpAddr> = words.next().and_then(|word| word.parse().ok());
        let names: Vec<&str> = words.filter(|word| is_word(word)).collect();
        if let (Some(ip), false) = (ip, names.is_empty()) {
            let names = names.join(" ");
            writeln!(text, "{ip} {names}").expect("writing to a String succeeds");
        }
    }
    text
}

/// The host name of a task: its own name, or its id where that is too long for the kernel
/// (`__NEW_UTS_LEN`).
pub(super) fn hostname(task: &Task) -> String {
    let name = task.name();
    if name.len() <= 64 {
        name
    } else {
        task.id.to_string()
    }
}

/// What names one process: ids are reused, and start times count from boot.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessRecord {
    pid: u32,
    start_time: u64,
    boot_id: String,
}

impl ProcessRecord {
    pub(super) fn of(process: &Process) -> Self {
        Self {
            pid: process.pid(),
            start_time: process.start_time(),
            boot_id: boot_id(),
        }
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), RunError> {
        write_json(dir, RECORD, self)
    }

    /// `None` when there is none, or none that can be read: there is nothing to adopt then.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        let path = dir.join(RECORD);
        let bytes = std::fs::read(&path).ok()?;
        match serde_json::from_slice(&bytes) {
            Ok(record) => Some(record),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "ignoring a damaged process record");
                None
            }
        }
    }

    /// Whether it was written since the machine came up: numbers of another boot are anybody's now.
    pub(super) fn is_of_this_boot(&self) -> bool {
        self.boot_id == boot_id()
    }

    pub(super) fn adopt(&self) -> io::Result<Option<Process>> {
        if !self.is_of_this_boot() {
            return Ok(None);
        }
        Process::adopt(self.pid, self.start_time)
    }
}

/// In one step, so that a reader never sees half of it.
pub(super) fn write_json(dir: &Path, name: &str, value: &impl Serialize) -> Result<(), RunError> {
    let path = dir.join(name);
    let text = serde_json::to_vec(value).map_err(io::Error::from);
    // Of no use to another boot but for the status, which the manager has as well.
    text.and_then(|text| replace_file(&path, &text, PRIVATE, Outlives::Process))
        .map_err(|source| RunError::File { path, source })
}

/// Empty when `/proc` does not tell, which is the same at the next reading.
fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_search_domains_are_kept() {
        let host = "# comment\nnameserver 10.0.0.2\ndomain old.example\nsearch a.example  b.example\noptions ndots:5\n";
        assert_eq!(
            resolv_conf(host, &DnsConfig::default()),
            "nameserver 127.0.0.11\nsearch a.example b.example\noptions ndots:0\n"
        );
        let plain = "nameserver 127.0.0.11\noptions ndots:0\n";
        let none = DnsConfig::default();
        assert_eq!(resolv_conf("", &none), plain);
        let latin1 = String::from_utf8_lossy(b"# caf\xe9\nsearch corp.test caf\xe9.test\n");
        assert!(resolv_conf(&latin1, &none).contains("\nsearch corp.test\n"));
        assert_eq!(resolv_conf("search .\nsearchlight x\n", &none), plain);
    }

    #[test]
    fn what_a_service_says_of_names_counts_more() {
        let text = |text: &str| text.to_owned();
        let own = DnsConfig {
            nameservers: vec![text("192.0.2.53")],
            search: vec![text("a.example"), text("b.example")],
            options: vec![text("timeout:1"), text("evil\nnameserver 192.0.2.1")],
        };
        // Its servers are asked by the resolver.
        assert_eq!(
            resolv_conf("search host.example\n", &own),
            "nameserver 127.0.0.11\nsearch a.example b.example\noptions timeout:1 ndots:0\n"
        );
        let own = DnsConfig {
            search: vec![text(".")],
            options: vec![text("ndots:2")],
            ..DnsConfig::default()
        };
        assert_eq!(
            resolv_conf("search host.example\n", &own),
            "nameserver 127.0.0.11\noptions ndots:2\n"
        );
    }

    #[test]
    fn hosts_has_localhost_and_the_task() {
        let text = hosts(
            "web.1.x",
            "web.1.x",
            &[
                "10.0.1.5".parse().expect("ip"),
                "fd00::5".parse().expect("ip"),
            ],
            &[],
        );
        assert!(text.starts_with("127.0.0.1 localhost\n"));
        assert!(text.ends_with("10.0.1.5 web.1.x\nfd00::5 web.1.x\n"));
        let text = hosts("long.1.x", "x", &[], &[]);
        assert!(text.ends_with("\n127.0.1.1 long.1.x x\n"), "{text}");
        let more = ["192.0.2.7 db db.example", "nonsense", "192.0.2.8"].map(str::to_owned);
        let text = hosts("web.1.x", "x", &[], &more);
        assert!(text.ends_with(" x\n192.0.2.7 db db.example\n"), "{text}");
    }

    #[test]
    fn a_record_of_another_boot_or_a_damaged_one_adopts_nothing() {
        let dir = tempfile::tempdir().expect("dir");
        assert_eq!(ProcessRecord::read(dir.path()), None);
        let record = ProcessRecord {
            pid: std::process::id(),
            start_time: 1,
            boot_id: "other".into(),
        };
        record.write(dir.path()).expect("write");
        let read = ProcessRecord::read(dir.path()).expect("read");
        assert_eq!(read, record);
        assert!(!read.is_of_this_boot());
        assert!(read.adopt().expect("adopt").is_none());
        std::fs::write(dir.path().join(RECORD), "{").expect("write");
        assert_eq!(ProcessRecord::read(dir.path()), None);
    }
}
