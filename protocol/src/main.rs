//! `cargo run -p weft-protocol` writes `swarm/proto/weft.v1.rs` anew, after a change of
//! `swarm/proto/weft.proto` or of the crates that make code from it. The code is kept, so that
//! nobody who builds weft builds those two dozen crates; a test holds it against the proto file.

#![forbid(unsafe_code)]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// What the proto file gives, from `build.rs`.
const MADE: &str = include_str!(concat!(env!("OUT_DIR"), "/weft.v1.rs"));

/// The file that `weft-swarm` includes.
fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../swarm/proto/weft.v1.rs")
}

fn main() -> anyhow::Result<()> {
    let path = kept();
    fs::write(&path, MADE).with_context(|| format!("cannot write {}", path.display()))?;
    writeln!(
        std::io::stdout(),
        "swarm/proto/weft.v1.rs is what weft.proto says"
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_that_is_kept_is_what_the_proto_file_gives() {
        let kept = fs::read_to_string(kept()).unwrap();
        let line = kept.lines().zip(MADE.lines()).position(|(a, b)| a != b);
        let line = line.unwrap_or_else(|| kept.lines().count().min(MADE.lines().count())) + 1;
        assert!(
            kept == MADE,
            "swarm/proto/weft.v1.rs is not what weft.proto gives, from line {line} on: write it \
             anew with `cargo run -p weft-protocol`"
        );
    }
}
