//! `weft`, `weftd` when it is called by that name, the shim of a task, and what a lab runs: wiring only.
//!
//! One executable can be all of them, so that `weft lab` and `weft demo` can start real agents from
//! their own file, whatever folder it is in, and agents the shims of their tasks.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let name = std::env::args_os().next();
    let is_agent = name
        .as_deref()
        .and_then(|name| Path::new(name).file_name())
        .is_some_and(|name| name == "weftd");
    if weft_shim::is_called() {
        weft_shim::main()
    } else if is_agent {
        weft_agent::main(weft_shim_program::PROGRAM)
    } else if weft_lab::is_called() {
        weft_lab::main()
    } else {
        weft_cli::main(&[weft_bench::command()])
    }
}
