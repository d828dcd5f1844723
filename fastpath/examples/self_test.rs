//! Says what the programs are trusted with on this machine's kernel, in the words of `weft doctor`, and
//! without an agent. Needs root. `cargo xtask kernels` asks it on other kernels.

use std::error::Error;
use std::io::{self, Write};

use weft_fastpath::FlowCache;
use weft_fastpath::selftest::{self, Supported};

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    match trusted() {
        Ok(Supported { ipv6: true }) => writeln!(out, "kernel, IPv4 and IPv6"),
        Ok(Supported { ipv6: false }) => writeln!(out, "kernel, IPv4"),
        Err(why) => writeln!(out, "user space, because {why}"),
    }
}

fn trusted() -> Result<Supported, Box<dyn Error>> {
    Ok(selftest::run(&FlowCache::load()?)?)
}
