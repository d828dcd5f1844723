use super::*;

fn config() -> Config {
    toml::from_str(include_str!("../../../deny.toml")).unwrap()
}

fn good(name: &str) -> Krate {
    Krate {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        source: Source::CratesIo,
        licence: Some("MIT OR Apache-2.0".to_owned()),
        private: false,
        wildcards: Vec::new(),
        parents: BTreeSet::from(["weft-agent".to_owned()]),
    }
}

fn judged(krates: &[Krate]) -> Report {
    let (config, mut report) = (config(), Report::default());
    licences(&config.licenses, krates, &mut report);
    bans(&config.bans, krates, &mut report);
    sources(&config.sources, krates, &mut report);
    report
}

#[test]
fn what_the_file_allows_passes() {
    let own = Krate {
        source: Source::Path,
        licence: None,
        private: true,
        wildcards: vec![("weft-wire".to_owned(), true)],
        ..good("weft-agent")
    };
    let foca = Krate {
        licence: Some("MPL-2.0".to_owned()),
        ..good("foca")
    };
    let report = judged(&[own, foca, good("tokio")]);
    assert!(!report.failed(), "{report}");
}

#[test]
fn every_kind_of_violation_fails_and_names_the_crate() {
    let base = || good("culprit");
    for (krate, says) in [
        (
            Krate {
                licence: Some("GPL-3.0-only".to_owned()),
                ..base()
            },
            "not allowed",
        ),
        (
            Krate {
                licence: Some("MPL-2.0".to_owned()),
                ..base()
            },
            "asked for by weft-agent",
        ),
        (
            Krate {
                licence: None,
                ..base()
            },
            "names no licence",
        ),
        (
            Krate {
                licence: Some("see LICENSE".to_owned()),
                ..base()
            },
            "cannot be read",
        ),
        (
            Krate {
                name: "openssl-sys".to_owned(),
                ..base()
            },
            "banned",
        ),
        (
            Krate {
                wildcards: vec![("tokio".to_owned(), false)],
                ..base()
            },
            "any version of tokio",
        ),
        (
            // A path without a version is for what is not published.
            Krate {
                wildcards: vec![("weft-wire".to_owned(), true)],
                ..base()
            },
            "any version of weft-wire",
        ),
        (
            Krate {
                source: Source::Git("git+ssh://example.org/x".to_owned()),
                ..base()
            },
            "does not know",
        ),
        (
            Krate {
                source: Source::Registry("registry+ssh://example.org".to_owned()),
                ..base()
            },
            "does not know",
        ),
    ] {
        let report = judged(std::slice::from_ref(&krate));
        assert_eq!(report.failures().len(), 1, "{report}");
        let failure = &report.failures()[0];
        assert!(
            failure.contains(says) && failure.contains(&krate.name),
            "{failure}"
        );
    }
}

#[test]
fn two_versions_and_idle_entries_are_told() {
    let older = Krate {
        version: "0.9.0".to_owned(),
        ..good("twice")
    };
    let report = judged(&[older, good("twice")]);
    assert!(!report.failed());
    let said = report.warnings().join("\n");
    assert!(said.contains("twice 0.9.0 and 1.0.0"), "{said}");
    assert!(
        said.contains("allows ISC") && said.contains("exception for foca"),
        "{said}"
    );
}

#[test]
fn a_setting_without_effect_is_an_error() {
    let text = include_str!("../../../deny.toml");
    let wrong = text.replace("[bans]\n", "[bans]\nskip = []\n");
    assert!(toml::from_str::<Config>(&wrong).is_err());
    let wrong = text.replace("\"warn\"", "\"perhaps\"");
    assert!(toml::from_str::<Config>(&wrong).is_err());
}

#[test]
fn only_what_is_built_counts() {
    let tree = "weft v0.1.0 (/src/weft)\n\ntokio v1.0.0\nserde_derive v1.0.9 (proc-macro) (*)\n";
    let expected = [
        ("weft", "0.1.0"),
        ("tokio", "1.0.0"),
        ("serde_derive", "1.0.9"),
    ];
    let expected = expected.map(|(name, version)| (name.to_owned(), version.to_owned()));
    assert_eq!(built(tree), BTreeSet::from(expected));
}
