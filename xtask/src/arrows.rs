//! Arrows between crates point inward: a crate depends on crates of inner rings only.

use cargo_metadata::{DependencyKind, Metadata};

use crate::report::Report;

/// Ring of every member. The exceptions are in [`SIBLINGS`] and [`UNWANTED`].
const RINGS: &[(&str, u8)] = &[
    ("weft-wire", 0),
    ("weft-model", 0),
    ("weft-vxlan", 1),
    ("weft-mesh", 1),
    ("weft-dns", 1),
    ("weft-gossip", 1),
    ("weft-cluster", 1),
    ("weft-stack", 1),
    ("weft-sys", 2),
    ("weft-fastpath", 2),
    ("weft-dataplane", 2),
    ("weft-shim", 2),
    ("weft-shim-program", 2),
    ("weft-runtime", 2),
    ("weft-volumes", 2),
    ("weft-images", 3),
    ("weft-swarm", 3),
    ("weft-agent", 3),
    ("weft-client", 3),
    ("weft-cli", 3),
    ("weft-lab", 3),
    ("weft-bench", 3),
    ("weft", 4),
    ("weft-netns-tests", 4),
    ("weft-benches", 4),
    ("weft-protocol", 4),
    ("weft-xtask", 4),
];

/// Arrows inside one ring that are wanted.
const SIBLINGS: &[(&str, &str)] = &[
    ("weft-fastpath", "weft-sys"),
    ("weft-dataplane", "weft-sys"),
    ("weft-dataplane", "weft-fastpath"),
    ("weft-shim", "weft-sys"),
    ("weft-runtime", "weft-sys"),
    ("weft-volumes", "weft-sys"),
    ("weft-agent", "weft-swarm"),
    ("weft-agent", "weft-images"),
    ("weft-cli", "weft-images"),
    ("weft-lab", "weft-images"),
    ("weft-cli", "weft-client"),
    ("weft-cli", "weft-lab"),
    ("weft-lab", "weft-client"),
    ("weft-bench", "weft-lab"),
    ("weft-bench", "weft-cli"),
];

/// Arrows that point inward and are not wanted all the same. Who talks to nodes by their API needs
/// its words, not what managers decide by and nodes tell each other. And what is managed goes on
/// without managers: they send orders, and reach for nothing that carries packets or names.
const UNWANTED: &[(&str, &str)] = &[
    ("weft-swarm", "weft-vxlan"),
    ("weft-swarm", "weft-mesh"),
    ("weft-swarm", "weft-dns"),
    ("weft-swarm", "weft-gossip"),
    ("weft-swarm", "weft-dataplane"),
    ("weft-swarm", "weft-shim"),
    ("weft-client", "weft-cluster"),
    ("weft-client", "weft-gossip"),
    ("weft-cli", "weft-cluster"),
    ("weft-cli", "weft-gossip"),
    ("weft-lab", "weft-cluster"),
    ("weft-lab", "weft-gossip"),
    ("weft-bench", "weft-cluster"),
    ("weft-bench", "weft-gossip"),
];

/// The library of test clusters: any crate that does I/O may use it in its tests.
const TEST_CLUSTERS: &str = "weft-lab";

/// A member and the members that it depends on.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) dependencies: Vec<(String, DependencyKind)>,
}

/// The members of the workspace, with arrows to other members only.
pub(crate) fn members(metadata: &Metadata) -> Vec<Member> {
    metadata
        .workspace_packages()
        .into_iter()
        .map(|package| Member {
            name: package.name.to_string(),
            dependencies: package
                .dependencies
                .iter()
                .filter(|dependency| dependency.path.is_some())
                .map(|dependency| (dependency.name.clone(), dependency.kind))
                .collect(),
        })
        .collect()
}

/// Every member with its ring: 0 and 1 are pure, 2 does I/O without an async runtime.
pub(crate) fn rings() -> impl Iterator<Item = (&'static str, u8)> {
    RINGS.iter().copied()
}

/// Crates that decide and do no I/O.
pub(crate) fn is_pure(name: &str) -> bool {
    ring(name).is_some_and(|ring| ring <= 1)
}

/// The ring of a member.
pub(crate) fn ring(name: &str) -> Option<u8> {
    RINGS
        .iter()
        .find(|(member, _)| *member == name)
        .map(|(_, ring)| *ring)
}

/// Reports every arrow that does not point inward and every member without a ring.
pub(crate) fn check(members: &[Member], report: &mut Report) {
    let mut arrows = 0;
    for member in members {
        let Some(from) = ring(&member.name) else {
            report.fail(format!(
                "{}: has no ring; add it to RINGS in xtask/src/arrows.rs",
                member.name
            ));
            continue;
        };
        for (dependency, kind) in &member.dependencies {
            arrows += 1;
            let Some(to) = ring(dependency) else {
                report.fail(format!(
                    "{} -> {dependency}: a path dependency that is no member with a ring",
                    member.name
                ));
                continue;
            };
            if !allowed(&member.name, from, dependency, to, *kind) {
                report.fail(format!(
                    "{} (ring {from}) -> {dependency} (ring {to}), {kind} dependency: arrows point \
                     inward only; move the shared part to an inner ring, or pass it in as a value",
                    member.name
                ));
            }
        }
    }
    report.checked(format!(
        "arrows: {arrows} between {} crates point inward",
        members.len()
    ));
}

/// Reports rings of crates that are gone.
pub(crate) fn check_rings(members: &[Member], report: &mut Report) {
    for (name, _) in RINGS {
        if !members.iter().any(|member| member.name == *name) {
            report.fail(format!(
                "{name}: is no member; remove it from RINGS in xtask/src/arrows.rs"
            ));
        }
    }
}

fn allowed(member: &str, from: u8, dependency: &str, to: u8, kind: DependencyKind) -> bool {
    (to < from && !UNWANTED.contains(&(member, dependency)))
        || SIBLINGS.contains(&(member, dependency))
        || (kind == DependencyKind::Development && from >= 2 && dependency == TEST_CLUSTERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(arrows: &[(&str, &str, DependencyKind)]) -> Vec<String> {
        let members: Vec<_> = arrows
            .iter()
            .map(|(from, to, kind)| Member {
                name: (*from).to_owned(),
                dependencies: vec![((*to).to_owned(), *kind)],
            })
            .collect();
        let mut report = Report::default();
        check(&members, &mut report);
        report.failures().to_vec()
    }

    #[test]
    fn inward_and_wanted_sibling_arrows_pass() {
        use DependencyKind::{Development, Normal};
        let found = failures(&[
            ("weft-mesh", "weft-wire", Normal),
            ("weft-gossip", "weft-model", Normal),
            ("weft-cluster", "weft-model", Normal),
            ("weft-cli", "weft-model", Normal),
            ("weft-dataplane", "weft-mesh", Normal),
            ("weft-dataplane", "weft-sys", Normal),
            ("weft-cli", "weft-lab", Normal),
            ("weft-agent", "weft-swarm", Normal),
            ("weft-swarm", "weft-cluster", Normal),
            ("weft-swarm", "weft-sys", Normal),
            ("weft-cli", "weft-client", Normal),
            ("weft-bench", "weft-cli", Normal),
            ("weft", "weft-agent", Normal),
            ("weft-netns-tests", "weft-lab", Normal),
            ("weft-agent", "weft-lab", Development),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn outward_and_sibling_arrows_are_reported() {
        use DependencyKind::{Build, Development, Normal};
        for (from, to, kind) in [
            ("weft-wire", "weft-mesh", Normal),
            ("weft-mesh", "weft-vxlan", Normal),
            ("weft-mesh", "weft-vxlan", Development),
            ("weft-dns", "weft-gossip", Build),
            ("weft-cluster", "weft-sys", Normal),
            ("weft-cluster", "weft-gossip", Normal),
            ("weft-gossip", "weft-cluster", Development),
            ("weft-model", "weft-wire", Normal),
            ("weft-model", "weft-cluster", Normal),
            ("weft-sys", "weft-dataplane", Normal),
            ("weft-swarm", "weft-gossip", Normal),
            ("weft-swarm", "weft-dataplane", Normal),
            ("weft-swarm", "weft-agent", Normal),
            ("weft-cli", "weft-swarm", Normal),
            ("weft-cli", "weft-agent", Normal),
            ("weft-cli", "weft-bench", Normal),
            ("weft-cli", "weft-cluster", Normal),
            ("weft-client", "weft-cluster", Normal),
            ("weft-lab", "weft-gossip", Development),
            ("weft-lab", "weft-cli", Normal),
            ("weft-agent", "weft-lab", Normal),
            ("weft-mesh", "weft-lab", Development),
            ("weft-benches", "weft-netns-tests", Normal),
        ] {
            let found = failures(&[(from, to, kind)]);
            assert_eq!(found.len(), 1, "{from} -> {to}");
            assert!(
                found[0].contains(from) && found[0].contains(to),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_crate_without_a_ring_is_reported() {
        let normal = DependencyKind::Normal;
        assert!(failures(&[("weft-new", "weft-wire", normal)])[0].contains("has no ring"));
        assert!(failures(&[("weft-mesh", "elsewhere", normal)])[0].contains("elsewhere"));
    }

    #[test]
    fn a_ring_without_a_crate_is_reported() {
        let mut members: Vec<Member> = RINGS
            .iter()
            .map(|(name, _)| Member {
                name: (*name).to_owned(),
                dependencies: Vec::new(),
            })
            .collect();
        let mut report = Report::default();
        check_rings(&members, &mut report);
        assert!(!report.failed());
        let gone = members.pop().unwrap().name;
        check_rings(&members, &mut report);
        assert!(report.failures()[0].contains(&gone));
    }

    #[test]
    fn the_inner_rings_are_pure() {
        assert!(is_pure("weft-wire") && is_pure("weft-mesh"));
        assert!(!is_pure("weft-sys") && !is_pure("elsewhere"));
    }
}
