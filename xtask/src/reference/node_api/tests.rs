use super::*;

const API: &str = "\
//! The API.
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | GET /v1/info | | [`Info`] |
//! | GET, POST /v1/nodes | `Spec` | `[Node]`, `{}` |
//! | GET /v1/conns?[`Query`] | | list of [`Node`] |
//!
//! Every error is an
//! [`Error`], see [`MAX`].

use x::Y;
";

const MODEL: &str = "\
/// What it is, a [`Node`] perhaps.
pub struct Info {
    /// Of the node, `a|b`.
    pub names: Vec<String>,
    /// Where.
    #[serde(default)]
    pub node: Node,
}

/// A node.
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Which.
    pub mode: Option<Mode>,
}

/// A mode.
#[serde(rename_all = \"kebab-case\")]
pub enum Mode {
    /// One on each.
    OnEach,
    /// So many.
    Many {
        /// Wanted.
        replicas: u32,
    },
}

/// Not reached.
pub struct Other {}
";

#[test]
fn a_page_has_the_table_and_the_types_that_it_leads_to() {
    let page = page(API, &types::read(MODEL)).unwrap();
    for line in [
        "| GET `/v1/info` | | [`Info`](#info) |",
        "| GET, POST `/v1/nodes` | `Spec` | list of [`Node`](#node), `{}` |",
        "| GET `/v1/conns`?`Query` | | list of [`Node`](#node) |",
        "Every error is an `Error`, see `MAX`.",
        "### Info",
        "What it is, a [`Node`](#node) perhaps.",
        "| `names` | list of text | Of the node, `a\\|b`. |",
        "| `node` | [`Node`](#node), optional | Where. |",
        "| `id` | id | Its id. |",
        "| `mode` | [`Mode`](#mode), optional | Which. |",
        "| `\"on-each\"` | One on each. |",
        "| `{\"many\": {…}}` | So many. |",
        "| in it `replicas`: number | Wanted. |",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
    assert!(!page.contains("Other"));
    assert!(super::page("//! Nothing.\n", &Types::new()).is_err());
}

#[test]
fn names_are_those_that_are_written() {
    const API: &str = "//! | GET /v1/services | | [`Row`], [`State`], [`NetDetail`] |\n";
    const MODEL: &str = "\
/// A row.
#[serde(rename_all = \"PascalCase\")]
pub struct Row {
    /// Flat.
    #[serde(flatten)]
    pub meta: Meta,
    /// How many.
    pub service_mode: Mode,
    /// How long.
    #[serde(default, rename = \"StopGracePeriod\", with = \"crate::time::nanoseconds\")]
    pub stop_grace: Duration,
}

/// What all have.
#[serde(rename_all = \"PascalCase\")]
pub struct Meta {
    /// When.
    #[serde(with = \"crate::time::rfc3339\")]
    pub created_at: u64,
}

/// A mode.
#[serde(from = \"ModeObject\", into = \"ModeObject\")]
pub enum Mode {
    /// So many.
    Replicated {
        /// Wanted.
        replicas: u32,
    },
    /// Everywhere.
    Global,
}

enum ModeObject {
    #[serde(rename_all = \"PascalCase\")]
    Replicated {
        replicas: u32,
    },
    Global {},
}

/// A net.
#[serde(from = \"NetObject\", into = \"NetObject\")]
pub struct Net {
    /// Which.
    pub meta: Meta,
}

#[serde(rename_all = \"PascalCase\", deny_unknown_fields)]
struct NetObject {
    /// Since.
    #[serde(alias = \"CreatedAt\", with = \"crate::time::rfc3339\")]
    created: u64,
    /// So large.
    #[serde(rename = \"MTU\")]
    mtu: u32,
}

/// More of it.
#[serde(rename_all = \"PascalCase\")]
pub struct NetDetail {
    /// Flat.
    #[serde(flatten)]
    pub net: Net,
    /// Ends.
    pub end_count: u32,
}

/// A state.
#[serde(tag = \"LocalNodeState\", rename_all = \"lowercase\")]
pub enum State {
    /// None.
    Inactive,
    /// One.
    Active(Meta),
}
";
    let page = page(API, &types::read(MODEL)).unwrap();
    for line in [
        "| `CreatedAt` | time | When. |",
        "| `ServiceMode` | [`Mode`](#mode) | How many. |",
        "| `StopGracePeriod` | number of nanoseconds, optional | How long. |",
        "| `{\"Replicated\": {…}}` | So many. |",
        "| in it `Replicas`: number | Wanted. |",
        "| `{\"Global\": {}}` | Everywhere. |",
        "| `EndCount` | number | Ends. |",
        "| `\"LocalNodeState\": \"inactive\"` | None. |",
        "| `\"LocalNodeState\": \"active\"` beside the fields of [`Meta`](#meta) | One. |",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
    // Of the net itself, and of what it lies flat in.
    for line in [
        "| `Created` | time | Since. |",
        "| `MTU` | number | So large. |",
    ] {
        assert_eq!(page.lines().filter(|l| *l == line).count(), 2, "{page}");
    }
    for name in ["`meta`", "`net`", "ModeObject", "NetObject"] {
        assert!(!page.contains(name), "{name} is in\n{page}");
    }
}

#[test]
fn calls_are_those_that_are_served() {
    let routes = "use axum::routing::{delete, get};\nRouter::new()\n.route(\"/v1/info\", get(info::<S>))\n\
             .route(\n\"/v1/nodes\",\nget(forget::<S>).post(add::<S>),\n)\n\
             .route(\"/v1/conns\", get(conns))\n.fallback(delete(unknown))\n";
    assert_eq!(told(API), served(routes));
    let calls: Vec<String> = served(routes).into_iter().collect();
    assert_eq!(
        calls,
        [
            "GET /v1/conns",
            "GET /v1/info",
            "GET /v1/nodes",
            "POST /v1/nodes"
        ]
    );
}

#[test]
fn types_are_told_in_words() {
    let known = Known::from(["Node".to_owned()]);
    for (of, words) in [
        ("Option<Vec<Node>>", "list of [`Node`](#node)"),
        ("BTreeMap<String, u64>", "map of text to number"),
        ("(u64, String)", "list: number, text"),
        ("crate::id::TaskId", "id"),
        ("Strange<u8>", "`Strange<u8>`"),
    ] {
        assert_eq!(shown(of, &known), words);
    }
}
