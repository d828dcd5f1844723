//! `weft`, and `weftd` when it is called by that name: wiring only.
//!
//! One executable can be both, so that `weft lab` and `weft demo` can start real agents from
//! their own file, whatever folder it is in.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let name = std::env::args_os().next();
    let is_agent = name
        .as_deref()
        .and_then(|name| Path::new(name).file_name())
        .is_some_and(|name| name == "weftd");
    if is_agent {
        weft_agent::main()
    } else {
        weft_cli::main()
    }
}
