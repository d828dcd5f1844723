//! Looks for a value everywhere that it must not be.

use std::path::PathBuf;

use weft_netns_tests::Cluster;

use super::super::NODES;
use super::written;

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A value that nothing else has, and what it looks like as text, also inside of something larger that
/// is written in base64.
#[derive(Debug)]
pub(super) struct Value {
    /// 64 hexadecimal digits.
    pub(super) text: String,
    patterns: PathBuf,
}

impl Value {
    /// A new one, known by a file for grep.
    pub(super) fn random(cluster: &Cluster, name: &str) -> Self {
        let mut uuids = String::new();
        for _ in 0..2 {
            let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid");
            uuids.push_str(&uuid.expect("a random number").replace(['-', '\n'], ""));
        }
        assert_eq!(uuids.len(), 64, "{uuids}");
        let patterns = forms(&uuids).join("\n");
        let patterns = written(cluster, &format!("{name}.patterns"), &patterns);
        Self {
            text: uuids,
            patterns,
        }
    }

    /// Asserts that a text does not have it.
    #[track_caller]
    pub(super) fn is_not_in(&self, what: &str, text: &str) {
        for form in forms(&self.text) {
            assert!(!text.contains(&form), "{what} has it");
        }
    }

    /// Files that have it: of a node's data and run folders, without what is mounted there (tasks see
    /// it in memory of their own), of all logs, and what processes of the node show of themselves.
    pub(super) fn files(&self, cluster: &Cluster, node: &str) -> Vec<String> {
        let lab = cluster.lab().dir();
        let (patterns, lab) = (self.patterns.display(), lab.display());
        let script = format!(
            "{{ find {lab}/{node} {lab}/logs /run -xdev -type f; \
             ls -d /proc/[0-9]*/cmdline /proc/[0-9]*/environ; }} 2>/dev/null | tr '\\n' '\\0' | \
             xargs -0 grep -laF -f {patterns} -- 2>/dev/null; true"
        );
        let said = cluster.run(node, None, &["sh", "-c", &script]).ok();
        said.lines().map(str::to_owned).collect()
    }

    /// Asserts that nobody shows it who must not.
    pub(super) fn is_nowhere(&self, cluster: &Cluster) {
        for node in NODES {
            self.the_search_would_find_it(cluster, node);
            assert_eq!(self.files(cluster, node), [""; 0], "{node}");
            for path in ["/metrics", "/v1/info", "/v1/doctor", "/v1/mesh/ports"] {
                self.is_not_in(path, &asked(cluster, node, path));
            }
        }
        for path in [
            "/v1/secrets",
            "/v1/configs",
            "/v1/services",
            "/v1/nodes",
            "/v1/networks",
        ] {
            let answer = asked(cluster, "node1", path);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
            self.is_not_in(path, &answer);
        }
        for node in cluster.rows(&["node", "ls"]) {
            let id = node["ID"].as_str().unwrap_or_default();
            let path = format!("/v1/nodes/{id}/tasks");
            let answer = asked(cluster, "node1", &path);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
            self.is_not_in(&path, &answer);
        }
        let words = ["events", "--since", "1h", "--until", "0s"];
        let said = cluster.weft("node1", &words).ok();
        assert!(said.contains("secret"), "events know of secrets: {said}");
        self.is_not_in("events", &said);
    }

    /// A search that finds nothing proves nothing by itself.
    fn the_search_would_find_it(&self, cluster: &Cluster, node: &str) {
        let planted = cluster.lab().dir().join(node).join("data/planted");
        for form in forms(&self.text) {
            std::fs::write(&planted, format!("x{form}y")).expect("a file");
            let found = self.files(cluster, node);
            std::fs::remove_file(&planted).expect("a file");
            assert_eq!(found, [planted.display().to_string()], "{form}");
        }
    }
}

/// The answer of a node's API, with its head.
fn asked(cluster: &Cluster, node: &str, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: weftd\r\nconnection: close\r\n\r\n");
    cluster.api(node, request.as_bytes())
}

/// Itself, and the middle of it in base64, wherever in a group of three bytes it begins.
fn forms(text: &str) -> Vec<String> {
    let mut forms = vec![text.to_owned()];
    for before in 0..3 {
        let bytes = [&[0_u8; 2][..before], text.as_bytes()].concat();
        let whole = &bytes[..bytes.len() - bytes.len() % 3];
        let mut encoded = String::new();
        for group in whole.chunks_exact(3) {
            let word = group
                .iter()
                .fold(0, |word, byte| (word << 8) | usize::from(*byte));
            for shift in [18, 12, 6, 0] {
                encoded.push(char::from(DIGITS[(word >> shift) & 63]));
            }
        }
        // What the bytes before are part of is not of the value alone.
        forms.push(encoded.split_off(if before == 0 { 0 } else { 4 }));
    }
    forms
}

#[test]
fn forms_are_those_of_base64() {
    // `printf abcdefgh | base64`, and the same with one byte and with two before it.
    let wanted = ["abcdefgh", "YWJjZGVm", "Y2RlZmdo", "YmNkZWZn"];
    assert_eq!(forms("abcdefgh"), wanted);
}
