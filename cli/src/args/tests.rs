use clap::CommandFactory;
use weft_model::objects::{PortSpec, Protocol, PublishMode};

use super::*;

fn ports(text: &str) -> Vec<PortSpec> {
    parse_publish(text).unwrap().0
}

fn refused(text: &str) -> String {
    parse_publish(text).unwrap_err()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn short_ports() {
    let p = ports("8000:80");
    assert_eq!((p[0].published, p[0].target), (8000, 80));
    assert_eq!(
        (p[0].protocol, p[0].mode, p[0].host_ip),
        (Protocol::Tcp, PublishMode::Ingress, None)
    );
    let p = ports("80");
    assert_eq!((p[0].published, p[0].target), (0, 80));
    let p = ports("127.0.0.1:53:5353/udp");
    assert_eq!(p[0].host_ip, Some("127.0.0.1".parse().unwrap()));
    assert_eq!(
        (p[0].published, p[0].target, p[0].protocol),
        (53, 5353, Protocol::Udp)
    );
    let p = ports("[::1]:8000:80");
    assert_eq!(p[0].host_ip, Some("::1".parse().unwrap()));
}

#[test]
fn port_ranges_are_paired_in_order() {
    let p = ports("80-82:8080-8082");
    let pairs: Vec<_> = p.iter().map(|p| (p.published, p.target)).collect();
    assert_eq!(pairs, [(80, 8080), (81, 8081), (82, 8082)]);
    let p = ports("9000-9001");
    let pairs: Vec<_> = p.iter().map(|p| (p.published, p.target)).collect();
    assert_eq!(pairs, [(0, 9000), (0, 9001)]);
    assert_eq!(
        refused("80-81:80-85"),
        "invalid ranges specified for container and host Ports: 80-85 and 80-81"
    );
    assert_eq!(refused("90-80:1-2"), "invalid hostPort: 90-80");
}

#[test]
fn long_ports() {
    let p = ports("published=8080,target=80,protocol=udp,mode=host");
    assert_eq!((p[0].published, p[0].target), (8080, 80));
    assert_eq!(
        (p[0].protocol, p[0].mode),
        (Protocol::Udp, PublishMode::Host)
    );
}

#[test]
fn port_errors_have_dockers_words() {
    assert_eq!(refused(""), "no port specified: <empty>");
    assert_eq!(refused("published=80"), "missing mandatory field 'target'");
    assert_eq!(refused("target=80,invalid=3"), "invalid field key: invalid");
    assert_eq!(
        refused("target=80,protocol=invalid"),
        "invalid protocol value 'invalid'"
    );
    assert_eq!(
        refused("target=80,mode=invalid"),
        "invalid publish mode value (invalid): must be either 'ingress' or 'host'"
    );
    assert_eq!(refused("0-2:80-82"), "invalid hostPort: 0-2");
    assert_eq!(refused("8000:0"), "invalid containerPort: 0");
    assert_eq!(refused("80:bad"), "invalid containerPort: bad");
    assert_eq!(refused("x.y.z:80:80"), "invalid IP address: x.y.z");
    assert_eq!(refused("80:70000"), "invalid containerPort: 70000");
}

#[test]
fn attachments() {
    let a = parse_attachment("front,alias=www,alias=shop").unwrap();
    assert_eq!(a.target, "front");
    assert_eq!(a.aliases, ["www", "shop"]);
    assert_eq!(
        parse_attachment("name=front,alias=www").unwrap().target,
        "front"
    );
    assert_eq!(
        parse_attachment("alias=www").unwrap_err(),
        "network name/id is not specified"
    );
    assert_eq!(
        parse_attachment("front,ip=1").unwrap_err(),
        "invalid field key ip: known are name and alias"
    );
}

#[test]
fn an_empty_host_is_none() {
    let host = |args: &[&str]| Cli::try_parse_from(args).unwrap().host();
    assert_eq!(host(&["weft", "-H", "", "info"]), DEFAULT_HOST);
    assert_eq!(host(&["weft", "-H", "unix:///x", "info"]), "unix:///x");
    let of = |option: Option<&str>, variable: Option<&str>| {
        host_of(option.map(str::to_owned), variable.map(str::to_owned))
    };
    assert_eq!(of(None, None), DEFAULT_HOST);
    assert_eq!(of(None, Some("")), DEFAULT_HOST);
    assert_eq!(of(None, Some("unix:///y")), "unix:///y");
    assert_eq!(of(Some("unix:///x"), Some("")), "unix:///x");
    assert_eq!(of(Some("unix:///x"), Some("unix:///y")), "unix:///x");
}

#[test]
fn durations() {
    assert_eq!(parse_duration_ms("250ms"), Ok(250));
    assert_eq!(parse_duration_ms("1m30s"), Ok(90_000));
    assert_eq!(parse_duration_ms("2h"), Ok(7_200_000));
    for bad in [
        "",
        "5",
        "s",
        "5x",
        "-1s",
        "99999999999999999999s",
        "18446744073709551615h",
    ] {
        assert!(parse_duration_ms(bad).is_err(), "{bad} was accepted");
    }
}

#[test]
fn options_after_the_image_belong_to_the_command() {
    let cli = Cli::try_parse_from([
        "weft", "service", "create", "--name", "web", "-p", "8000:80", "host", "server", "-p",
        "80", "--name", "x",
    ])
    .unwrap();
    let Command::Service(ServiceCommand::Create(args)) = cli.command else {
        panic!("another command was parsed");
    };
    assert_eq!(args.name.as_deref(), Some("web"));
    assert_eq!(
        args.image_and_command,
        ["host", "server", "-p", "80", "--name", "x"]
    );
    assert_eq!(args.publish.len(), 1);
    assert_eq!(args.restart_delay, 5_000);
}

#[test]
fn what_tasks_may_do_is_spelled_as_docker_does() {
    let create = |words: &str| {
        let line = format!("weft service create --name web {words} host server -u x");
        let cli = Cli::try_parse_from(line.split_ascii_whitespace());
        cli.map(|cli| match cli.command {
            Command::Service(ServiceCommand::Create(args)) => args,
            other => panic!("{other:?}"),
        })
    };
    let args = create(
        "-u www:33 --cap-add net_admin --cap-drop ALL --cap-drop cap_kill \
                       --security-opt no-new-privileges",
    )
    .unwrap();
    assert_eq!(args.user.as_deref(), Some("www:33"));
    assert_eq!(args.cap_add, ["CAP_NET_ADMIN"]);
    assert_eq!(args.cap_drop, ["ALL", "CAP_KILL"]);
    assert_eq!(args.no_new_privileges, Some(true));
    for (option, value) in [
        ("no-new-privileges:false", false),
        ("no-new-privileges=true", true),
    ] {
        let args = create(&format!("--security-opt {option}")).unwrap();
        assert_eq!(args.no_new_privileges, Some(value));
    }
    let wrong = create("--cap-add NET").unwrap_err().to_string();
    assert!(
        wrong.contains("unknown capability \"NET\": write ALL or one of CHOWN"),
        "{wrong}"
    );
    let wrong = create("--security-opt seccomp=unconfined")
        .unwrap_err()
        .to_string();
    assert!(wrong.contains("there is no-new-privileges"), "{wrong}");
}

#[test]
fn wrong_usage_is_told_apart() {
    for (line, expected) in [
        (
            vec!["weft", "service", "scale", "web"],
            "invalid scale specifier 'web'",
        ),
        (
            vec!["weft", "service", "scale", "web=x"],
            "invalid replicas value x",
        ),
        (
            vec!["weft", "network", "create", "--subnet", "10.0.0/24", "n"],
            "invalid value '10.0.0/24'",
        ),
        (
            vec![
                "weft", "network", "peer", "add", "--ip", "10.0.0.9", "--mac", "zz", "--vtep",
                "10.1.1.1", "n",
            ],
            "invalid MAC address",
        ),
    ] {
        let error = Cli::try_parse_from(&line).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line:?}");
        assert!(
            error.to_string().contains(expected),
            "{line:?} said: {error}"
        );
    }
}

#[test]
fn the_host_may_stand_anywhere() {
    for line in [
        ["weft", "-H", "unix:///x", "node", "ls"],
        ["weft", "node", "ls", "-H", "unix:///x"],
    ] {
        assert_eq!(Cli::try_parse_from(line).unwrap().host(), "unix:///x");
    }
    // Its long form stands before the command: behind it, docker has another meaning of the word.
    let words = ["weft", "--host", "unix:///x"];
    let words = words
        .into_iter()
        .chain("service create --host db:10.0.0.5 nginx".split_ascii_whitespace());
    assert_eq!(Cli::try_parse_from(words).unwrap().host(), "unix:///x");
    let words = ["weft", "node", "ls", "--host", "unix:///x"];
    Cli::try_parse_from(words).unwrap_err();
}

#[test]
fn a_subnet_that_cannot_be_says_why() {
    let said = |cidr: &str| {
        let words = ["weft", "network", "create", "--subnet", cidr, "x"];
        Cli::try_parse_from(words)
            .map(drop)
            .map_err(|e| e.to_string())
    };
    for (cidr, why) in [
        ("10.0.0.0/33", "a prefix has 0 to 32 bits"),
        ("fd00::/129", "a prefix has 0 to 128 bits"),
        ("10.0.0.0/x", "a prefix has 0 to 32 bits"),
        ("10.0.0/8", "is no IP address"),
        ("10.0.0.0", "the length of the prefix is missing"),
    ] {
        let text = said(cidr).unwrap_err();
        assert!(text.contains(why), "{cidr}: {text}");
    }
    said("10.0.0.0/24").unwrap();
    said("fd00:1::/64").unwrap();
}

#[test]
fn usage_does_not_name_options_of_every_command() {
    for words in [
        &["weft", "network", "rm"][..],
        &["weft", "service", "scale", "web"],
        &["weft", "ping"],
    ] {
        let text = Cli::try_parse_from(words).unwrap_err().to_string();
        assert!(!text.contains("--host"), "{text}");
    }
}

#[test]
fn inspect_has_dockers_forms() {
    let format = |word: &[&str]| {
        let words = [&["weft", "node", "inspect", "self"], word].concat();
        let cli = Cli::try_parse_from(words).unwrap();
        let Command::Node(NodeCommand::Inspect(args)) = cli.command else {
            panic!("another command");
        };
        args.format().format
    };
    assert_eq!(format(&[]), None);
    assert_eq!(format(&["--pretty"]).as_deref(), Some("table"));
    assert_eq!(format(&["-f", "{{.ID}}"]).as_deref(), Some("{{.ID}}"));
}
