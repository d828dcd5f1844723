//! The shim as a program of its own: everything is in `weft-shim`, the library.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    weft_shim::main()
}
