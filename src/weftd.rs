//! The agent's binary: everything is in `weft-agent`, and the shims that it starts of itself in
//! `weft-shim`.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    if weft_shim::is_called() {
        weft_shim::main()
    } else {
        weft_agent::main(weft_shim_program::PROGRAM)
    }
}
