use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use weft_dataplane::TunnelOffload;
use weft_wire::ecn::Dscp;

use super::file::parse;
use super::{Config, ConfigError, Flags, LogFormat, Machine, MeshFrontEnd};

fn machine() -> Machine {
    Machine {
        hostname: "box".to_owned(),
        cpus: NonZeroUsize::new(4).unwrap(),
    }
}

fn flags(args: &[&str]) -> Flags {
    Flags::try_parse_from(std::iter::once("weftd").chain(args.iter().copied())).unwrap()
}

fn load(args: &[&str], file: Option<&str>) -> Result<Config, ConfigError> {
    let (mut settings, mut problems) = (flags(args).settings(), Vec::new());
    let told = file.map(|text| parse(Path::new("weft.toml"), text, &mut problems));
    let told = told.unwrap_or_default();
    settings.extend(told.settings);
    Config::resolve(&settings, told.registries, &machine(), problems)
}

#[test]
fn defaults() {
    let config = load(&[], None).unwrap();
    assert_eq!(config.name, "box");
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/weft"));
    assert_eq!(config.run_dir, PathBuf::from("/run/weft"));
    assert_eq!(config.socket, PathBuf::from("/run/weft/weft.sock"));
    assert_eq!(
        config.image_store,
        PathBuf::from("/var/lib/weft/images/shared")
    );
    assert!(config.registries.is_empty());
    assert_eq!(config.workers.get(), 4);
    assert_eq!(config.log_format, LogFormat::Text);
    assert_eq!(config.log_level, "info");
    assert_eq!(config.gossip_port, 7946);
    assert_eq!(config.mesh, MeshFrontEnd::Frame);
    assert_eq!(config.udp_idle, Duration::from_secs(180));
    assert_eq!(config.poll, Duration::from_micros(200));
    assert_eq!(config.tunnel_offload, TunnelOffload::Auto);
    assert!(config.fast_path);
    assert_eq!(config.gwbridge_subnet, None);
    assert!(config.dns_upstreams.is_empty());
}

#[test]
fn every_key_of_the_file_in_both_spellings() {
    let kebab = r#"
        name = "n1"
        data-dir = "/d"
        run-dir = "/r"
        host = "unix:///s"
        image-store = "/i"
        workers = 2
        log-format = "json"
        log-level = "info,weft_dataplane=debug"
        gossip-port = 0x1F00
        mesh = "socket"
        udp-idle = "5m"
        poll = 0
        tunnel-offload = "off"
        fast-path = "off"
        dscp = 46
        gwbridge-subnet = "172.30.0.1/16"
        runtime = "/usr/sbin/runc"
        dns-upstreams = ["192.0.2.1", "[2001:db8::1]:5353"]
    "#;
    let config = load(&[], Some(kebab)).unwrap();
    assert_eq!(
        config,
        load(
            &[],
            Some(
                &kebab
                    .replace("e-", "e_")
                    .replace("r-", "r_")
                    .replace("g-", "g_")
                    .replace("p-", "p_")
                    .replace("l-", "l_")
                    .replace("t-", "t_")
            )
        )
        .unwrap()
    );
    assert_eq!(config.name, "n1");
    assert_eq!(config.data_dir, PathBuf::from("/d"));
    assert_eq!(config.run_dir, PathBuf::from("/r"));
    assert_eq!(config.socket, PathBuf::from("/s"));
    assert_eq!(config.image_store, PathBuf::from("/i"));
    assert_eq!(config.workers.get(), 2);
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.log_level, "info,weft_dataplane=debug");
    assert_eq!(config.gossip_port, 0x1F00);
    assert_eq!(config.udp_idle, Duration::from_secs(300));
    assert_eq!(config.poll, Duration::ZERO);
    assert_eq!(config.tunnel_offload, TunnelOffload::Off);
    assert!(!config.fast_path);
    assert_eq!(config.dscp, Dscp::Fixed(46));
    assert_eq!(config.gwbridge_subnet.unwrap().to_string(), "172.30.0.0/16");
    assert_eq!(config.runtime, Some(PathBuf::from("/usr/sbin/runc")));
    assert_eq!(
        config.dns_upstreams,
        ["192.0.2.1:53", "[2001:db8::1]:5353"].map(|a| a.parse().unwrap())
    );
}

#[test]
fn a_runtime_is_a_path_or_the_one_that_fits() {
    let runtime = |text: &str| load(&["--runtime", text], None).map(|c| c.runtime);
    assert_eq!(
        runtime("/opt/crun").unwrap(),
        Some(PathBuf::from("/opt/crun"))
    );
    assert_eq!(load(&[], Some("runtime = \"\"")).unwrap().runtime, None);
    let text = runtime("crun").unwrap_err().to_string();
    let line = "--runtime: runtime: \"crun\": expected a path that starts with";
    assert!(text.contains(line), "{text}");
}

#[test]
fn flags_win_over_the_file() {
    let file = "name = \"file\"\nworkers = 2\nrun_dir = \"/r\"\ndns-upstreams = \"192.0.2.1\"";
    let config = load(
        &[
            "--name",
            "flag",
            "--dns-upstream",
            "192.0.2.2",
            "--dns-upstream",
            "192.0.2.3:54",
        ],
        Some(file),
    )
    .unwrap();
    assert_eq!(config.name, "flag");
    assert_eq!(config.workers.get(), 2);
    assert_eq!(config.socket, PathBuf::from("/r/weft.sock"));
    assert_eq!(
        config.dns_upstreams,
        ["192.0.2.2:53", "192.0.2.3:54"].map(|a| a.parse().unwrap())
    );
}

#[test]
fn all_errors_at_once_with_their_places() {
    let file = "name = \"ok\"\nworkerz = 3\nlog-format = \"xml\"\n\ngossip_port = 70000\nworkers = 1.5\ndns-upstreams = [\"a\", \"0.0.0.0\"]\nlog_format = \"text\"\n[mesh]\n";
    let error = load(
        &[
            "--name",
            "no spaces",
            "-H",
            "tcp://x",
            "--data-dir",
            "rel",
            "--gwbridge-subnet",
            "10.0.0.0/31",
        ],
        Some(file),
    )
    .unwrap_err();
    let text = error.to_string();
    for line in [
        "weft.toml:2: unknown key \"workerz\": did you mean \"workers\"?",
        "weft.toml:3: log-format: \"xml\": expected \"text\" or \"json\"",
        "weft.toml:5: gossip-port: \"70000\": expected a port",
        "weft.toml:6: workers: expected one value, not a fraction",
        "weft.toml:7: dns-upstreams: \"a\": expected an address",
        "weft.toml:7: dns-upstreams: \"0.0.0.0\": expected an address",
        "weft.toml:8: \"log-format\" is set again: weft.toml:3 has it already",
        "weft.toml:9: mesh: expected one value, not a table",
        "--name: name: \"no spaces\": expected 1 to 63",
        "-H: host: \"tcp://x\": expected unix:///path/of/socket",
        "--data-dir: data-dir: \"rel\": expected a path that starts with",
        "--gwbridge-subnet: gwbridge-subnet: \"10.0.0.0/31\": expected a prefix length",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert_eq!(error.problems.len(), 12, "{text}");
    assert!(
        text.starts_with("the configuration has 12 errors:"),
        "{text}"
    );
}

#[test]
fn registries_have_tables_of_their_own() {
    let file = r#"
        name = "n1"
        [registries."docker.io"]
        mirrors = ["https://mirror.example", "http://192.0.2.7:5000"]
        [registries."registry.example:5000"]
        insecure = true
        ca = "/etc/weft/ca.pem"
    "#;
    let config = load(&[], Some(file)).unwrap();
    let hub = &config.registries["docker.io"];
    assert_eq!(
        hub.mirrors,
        ["https://mirror.example", "http://192.0.2.7:5000"]
    );
    assert!(!hub.insecure && hub.ca.is_none());
    let own = &config.registries["registry.example:5000"];
    assert!(own.insecure && own.mirrors.is_empty());
    assert_eq!(own.ca, Some(PathBuf::from("/etc/weft/ca.pem")));

    let file = "[registries.\"https://r.example\"]\n[registries.\"r.example\"]\nmirrors = \"m\"\ninsecure = 1\nca = \"ca.pem\"\ninsecur = true\n";
    let text = load(&[], Some(file)).unwrap_err().to_string();
    for line in [
        "weft.toml:1: registries.\"https://r.example\": expected a host",
        "weft.toml:3: registries.\"r.example\": mirrors: expected a list",
        "weft.toml:4: registries.\"r.example\": insecure: expected true or false",
        "weft.toml:5: registries.\"r.example\": ca: expected the path",
        "weft.toml:6: registries.\"r.example\": unknown key \"insecur\": the keys are mirrors",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    let text = load(&[], Some("registries = 3")).unwrap_err().to_string();
    assert!(
        text.contains("weft.toml:1: registries: expected tables"),
        "{text}"
    );
}

#[test]
fn the_silence_of_datagrams_has_a_unit_and_limits() {
    let idle = |text: &str| load(&["--udp-idle", text], None).map(|c| c.udp_idle.as_secs());
    for (text, secs) in [("90", 90), ("90s", 90), ("2m", 120), ("24h", 86_400)] {
        assert_eq!(idle(text).unwrap(), secs);
    }
    let file = load(&[], Some("udp_idle = 45")).unwrap();
    assert_eq!(file.udp_idle.as_secs(), 45);
    for text in ["0", "25h", "m", "", "5ä", "1.5m", "99999999999999999999h"] {
        let error = idle(text).unwrap_err().to_string();
        assert!(error.contains("--udp-idle: udp-idle: "), "{error}");
        assert!(error.contains("expected a time from 1s to 24h"), "{error}");
    }
}

#[test]
fn polling_and_the_offload_of_tunnels_have_limits() {
    let config = load(&["--poll", "1000", "--tunnel-offload", "auto"], None).unwrap();
    assert_eq!(config.poll, Duration::from_millis(1));
    assert_eq!(config.tunnel_offload, TunnelOffload::Auto);
    let forced = load(&["--tunnel-offload", "on"], None).unwrap();
    assert_eq!(forced.tunnel_offload, TunnelOffload::On);
    assert!(load(&["--fast-path", "auto"], None).unwrap().fast_path);
    let wrong = [
        "--poll",
        "1001",
        "--tunnel-offload",
        "yes",
        "--fast-path",
        "on",
    ];
    let error = load(&wrong, None).unwrap_err().to_string();
    assert!(error.contains("expected 0 to 1000 microseconds"), "{error}");
    assert!(error.contains("expected auto, on or off"), "{error}");
    let says = "--fast-path: fast-path: \"on\": expected auto or off";
    assert!(error.contains(says), "{error}");
}

#[test]
fn the_class_of_service_is_a_number_or_that_of_the_packet_inside() {
    assert_eq!(load(&[], None).unwrap().dscp, Dscp::Fixed(0));
    let config = load(&["--dscp", "inherit"], None).unwrap();
    assert_eq!(config.dscp, Dscp::Inherit);
    for bad in ["64", "-1", "ef"] {
        let error = load(&[&format!("--dscp={bad}")], None).unwrap_err();
        let says = "expected 0 to 63, or inherit";
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn syntax_errors_have_lines() {
    let error = load(&[], Some("name = \"a\"\nworkers = = 3\nrun-dir \"x\"\n")).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("weft.toml:2: "), "{text}");
    assert!(text.contains("weft.toml:3: "), "{text}");
}

#[test]
fn a_missing_file_and_a_useless_host_name_are_named() {
    let flags = flags(&["--config", "/nonexistent/weft.toml"]);
    let machine = Machine {
        hostname: "(none)".to_owned(),
        ..machine()
    };
    let text = Config::load(&flags, &machine).unwrap_err().to_string();
    assert!(
        text.contains("/nonexistent/weft.toml: cannot read"),
        "{text}"
    );
    assert!(text.contains("give --name"), "{text}");
}

#[test]
fn long_socket_paths_are_refused_before_the_kernel_does() {
    let long = format!("unix:///{}", "s".repeat(107));
    let text = load(&["-H", &long], None).unwrap_err().to_string();
    assert!(text.contains("108 bytes"), "{text}");
}

#[test]
fn the_command_line_is_consistent() {
    use clap::CommandFactory;
    Flags::command().debug_assert();
}
