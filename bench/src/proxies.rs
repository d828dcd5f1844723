//! HAProxy and nginx: what they are told, and how they are started and stopped.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use weft_cli::complain;
use weft_lab::Lab;

use crate::usage::descendants;

/// How long one may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Where Debian and others keep nginx's module for streams.
const MODULES: [&str; 4] = [
    "/usr/lib/nginx/modules/ngx_stream_module.so",
    "/usr/lib64/nginx/modules/ngx_stream_module.so",
    "/usr/share/nginx/modules/ngx_stream_module.so",
    "/usr/lib/x86_64-linux-gnu/nginx/modules/ngx_stream_module.so",
];

/// A balancer that weft is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Haproxy,
    Nginx,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Haproxy, Self::Nginx];

    /// Its name, also of the program.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    /// Its file, where it is installed.
    pub(crate) fn program(self) -> Option<PathBuf> {
        find(self.name())
    }

    /// Why it cannot be used here, if so.
    pub(crate) fn missing(self) -> Option<String> {
        let name = self.name();
        let Some(program) = self.program() else {
            return Some(format!("{name} is not installed"));
        };
        if self == Self::Nginx && stream_module().is_none() {
            let version = Command::new(program)
                .arg("-V")
                .stdin(Stdio::null())
                .output();
            let options = version.map(|output| output.stderr).unwrap_or_default();
            if !has_streams(&String::from_utf8_lossy(&options)) {
                return Some("nginx has no module for streams (libnginx-mod-stream)".to_owned());
            }
        }
        None
    }

    /// Port that it listens on.
    pub(crate) const fn port(self) -> u16 {
        match self {
            Self::Haproxy => 8001,
            Self::Nginx => 8002,
        }
    }

    /// Its configuration: the least loaded replica, bytes as they are, no checks.
    fn config(self, settings: &Settings<'_>, folder: &Path) -> String {
        match self {
            Self::Haproxy => haproxy(settings),
            Self::Nginx => nginx(settings, folder, stream_module()),
        }
    }

    /// Arguments that run it in the foreground.
    fn args(self, program: &Path, folder: &Path, config: &Path) -> Vec<String> {
        let text = |path: &Path| path.display().to_string();
        match self {
            Self::Haproxy => vec![text(program), "-db".into(), "-f".into(), text(config)],
            Self::Nginx => vec![
                text(program),
                "-p".into(),
                text(folder),
                "-c".into(),
                text(config),
                "-e".into(),
                text(&folder.join("errors.log")),
            ],
        }
    }
}

/// The file of a program, where it is installed: in the search path, or where systems keep what is
/// for root.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The file with nginx's module; none where it is built in, or missing.
fn stream_module() -> Option<&'static str> {
    MODULES.into_iter().find(|file| Path::new(file).is_file())
}

/// Whether the module is built in, from what `nginx -V` says.
fn has_streams(options: &str) -> bool {
    let mut words = options.split_ascii_whitespace();
    words.any(|word| word == "--with-stream")
}

/// What all kinds are told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings<'a> {
    pub(crate) listen: SocketAddr,
    pub(crate) replicas: &'a [SocketAddr],
    /// At once.
    pub(crate) connections: u64,
}

fn haproxy(settings: &Settings<'_>) -> String {
    let (listen, connections) = (settings.listen, settings.connections);
    let mut text = format!(
        "\
global
    maxconn {connections}

defaults
    mode tcp
    timeout connect 5s
    timeout client 10m
    timeout server 10m

listen web
    bind {listen}
    balance leastconn
"
    );
    for (number, replica) in (1..).zip(settings.replicas) {
        text += &format!("    server web{number} {replica}\n");
    }
    text
}

fn nginx(settings: &Settings<'_>, folder: &Path, module: Option<&str>) -> String {
    let mut text = String::new();
    // Built in where there is no such file.
    if let Some(module) = module {
        text += &format!("load_module {module};\n");
    }
    text += &format!(
        "\
user root;
daemon off;
pid {0}/nginx.pid;
error_log {0}/errors.log crit;
worker_processes auto;
worker_rlimit_nofile {1};
events {{
    worker_connections {1};
}}
stream {{
    upstream web {{
        least_conn;
",
        folder.display(),
        2 * settings.connections
    );
    for replica in settings.replicas {
        text += &format!("        server {replica} max_fails=0;\n");
    }
    text += &format!(
        "    }}
    server {{
        listen {} backlog=4096;
        proxy_connect_timeout 5s;
        proxy_pass web;
    }}
}}
",
        settings.listen
    );
    text
}

/// One that runs; it ends with this value, and with the lab in any case.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) kind: Kind,
    pub(crate) listen: SocketAddr,
    enter: Child,
}

impl Proxy {
    /// Starts it in a namespace of a lab's node; what it writes is in the lab's folder.
    pub(crate) fn start(
        kind: Kind,
        program: &Path,
        (lab, node, netns): (&Lab, &str, &Path),
        settings: Settings<'_>,
    ) -> anyhow::Result<Self> {
        let folder = lab.dir().join(kind.name());
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let config = folder.join("config");
        fs::write(&config, kind.config(&settings, &folder))
            .with_context(|| format!("cannot write {}", config.display()))?;
        let words = kind.args(program, &folder, &config);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let log = File::create(folder.join("output.log"))?;
        // A group of its own: Ctrl-C is for the bench, which then stops it.
        let enter = lab
            .command_in(node, netns, &words)?
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        Ok(Self {
            kind,
            listen: settings.listen,
            enter,
        })
    }

    /// Fails with what it said, once it has ended.
    pub(crate) fn check(&mut self, lab: &Lab) -> anyhow::Result<()> {
        if let Some(status) = self.enter.try_wait()? {
            let output = lab.dir().join(self.kind.name()).join("output.log");
            let said = fs::read_to_string(output).unwrap_or_default();
            bail!("{} ended, {status}: {}", self.kind.name(), said.trim());
        }
        Ok(())
    }

    /// Its processes as this one sees them, workers included.
    pub(crate) fn processes(&self) -> Vec<u32> {
        // The first one only waits for the others, in another namespace.
        descendants(self.enter.id())
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(first) = self.processes().first() {
            let pid = i32::try_from(*first).ok().and_then(Pid::from_raw);
            kill_process(pid.context("no process")?, Signal::TERM)?;
        }
        let deadline = Instant::now() + STOP_LIMIT;
        while self.enter.try_wait()?.is_none() {
            if Instant::now() > deadline {
                complain(&format!("{} does not stop, killing it", self.kind.name()));
                for process in self.processes() {
                    if let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) {
                        kill_process(pid, Signal::KILL)?;
                    }
                }
                self.enter.kill()?;
                self.enter.wait()?;
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            let name = self.kind.name();
            complain(&format!("{name} could not be stopped: {error:#}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(replicas: &[SocketAddr]) -> Settings<'_> {
        Settings {
            listen: "10.77.0.200:8001".parse().unwrap(),
            replicas,
            connections: 100,
        }
    }

    #[test]
    fn haproxy_is_told_the_least_loaded_replica() {
        let replicas = ["10.0.0.2:80", "10.0.0.3:80"].map(|addr| addr.parse().unwrap());
        let text = haproxy(&settings(&replicas));
        assert!(text.starts_with("global\n    maxconn 100\n"), "{text}");
        assert!(text.contains("    mode tcp\n"), "{text}");
        assert!(
            text.ends_with(
                "\
    bind 10.77.0.200:8001
    balance leastconn
    server web1 10.0.0.2:80
    server web2 10.0.0.3:80
"
            ),
            "{text}"
        );
    }

    #[test]
    fn nginx_loads_its_module_where_there_is_one() {
        let replicas = ["10.0.0.2:80".parse().unwrap()];
        let text = nginx(&settings(&replicas), Path::new("/run/x"), Some("/m.so"));
        assert!(
            text.starts_with("load_module /m.so;\nuser root;\n"),
            "{text}"
        );
        for part in [
            "pid /run/x/nginx.pid;",
            "    worker_connections 200;",
            "        least_conn;\n        server 10.0.0.2:80 max_fails=0;\n    }\n",
            "        listen 10.77.0.200:8001 backlog=4096;",
            "        proxy_pass web;\n    }\n}\n",
        ] {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
        let text = nginx(&settings(&[]), Path::new("/run/x"), None);
        assert!(text.starts_with("user root;\n"), "{text}");
    }

    #[test]
    fn a_module_that_is_built_in_is_found() {
        assert!(has_streams(
            "configure arguments: --with-stream --with-threads\n"
        ));
        assert!(!has_streams("configure arguments: --with-stream=dynamic"));
        assert!(!has_streams(""));
    }

    #[test]
    fn programs_run_in_the_foreground() {
        let (program, folder, config) = (Path::new("/p"), Path::new("/f"), Path::new("/f/c"));
        let words = Kind::Haproxy.args(program, folder, config);
        assert_eq!(words, ["/p", "-db", "-f", "/f/c"]);
        let words = Kind::Nginx.args(program, folder, config);
        assert_eq!(
            words,
            ["/p", "-p", "/f", "-c", "/f/c", "-e", "/f/errors.log"]
        );
    }
}
