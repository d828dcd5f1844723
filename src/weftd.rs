//! The agent's binary: everything is in `weft-agent`.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    weft_agent::main()
}
