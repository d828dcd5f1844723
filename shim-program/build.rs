//! Builds the shim of tasks once more, as a small static program, for `weft` and `weftd` to carry.
//!
//! There is one beside each task. Of the multi-call program each would make half a megabyte of pages its
//! own, by what the loader relocates; and process 1 of a container (`--init`) finds no libraries there.
//! A flag of the compiler for one program alone is nothing that a manifest can say, so cargo is called for
//! it. Where it cannot be linked so, as the C library is not there as an archive, `weft` carries none and
//! is the shim itself.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the shim is made of.
const SOURCES: [&str; 6] = [
    "../shim/src",
    "../shim/Cargo.toml",
    "../sys/src",
    "../sys/Cargo.toml",
    "../Cargo.lock",
    // Its profile.
    "../Cargo.toml",
];

fn main() -> Result<(), Box<dyn Error>> {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let carried = out.join("shim-program");
    match build(&out) {
        Ok(program) => {
            std::fs::copy(program, &carried)?;
        }
        Err(why) => {
            println!("cargo::warning=weft carries no static shim, and is the shim itself: {why}");
            std::fs::write(&carried, [])?;
        }
    }
    println!("cargo::rustc-env=WEFT_SHIM_PROGRAM={}", carried.display());
    Ok(())
}

/// The path of the program, or the last that cargo said.
fn build(out: &Path) -> Result<PathBuf, String> {
    let variable = |name: &str| env::var(name).map_err(|error| format!("{name}: {error}"));
    let (cargo, target) = (variable("CARGO")?, variable("TARGET")?);
    // Not the folder of whoever calls this: that one is locked.
    let folder = out.join("shim");
    let built = Command::new(cargo)
        .args(["rustc", "--quiet", "--offline", "--package", "weft-shim"])
        .args([
            "--bin",
            "weft-shim",
            "--profile",
            "shim",
            "--target",
            &target,
        ])
        .arg("--target-dir")
        .arg(&folder)
        .args([
            "--",
            "-Ctarget-feature=+crt-static",
            "-Crelocation-model=static",
        ])
        // Of the compilation of the whole: a checker in place of the compiler, and its flags.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .output()
        .map_err(|error| format!("cargo cannot be called: {error}"))?;
    if built.status.success() {
        return Ok(folder.join(target).join("shim/weft-shim"));
    }
    let said = String::from_utf8_lossy(&built.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    Err(last.unwrap_or("cargo failed").trim().to_owned())
}
