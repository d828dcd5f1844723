//! The programs of the fast path, compiled: `cargo xtask bpf` writes the object, and with `--check`
//! compares the one that is kept with what the source gives.
//!
//! The object is in the repository, so that nobody who builds weft needs a compiler for BPF. It is the
//! same for every folder and machine as long as compiler and headers are. As other headers of the
//! kernel bring other types along, the comparison is not of bytes but of what is loaded: tables,
//! sections, instructions.

mod btf;
mod elf;

use std::env::consts::ARCH;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use cargo_metadata::Metadata;

use self::btf::Types;
use self::elf::Kind;
use crate::report::Report;

/// From the root of the repository, as the object names it.
const SOURCE: &str = "fastpath/bpf/weft.bpf.c";
/// Folder of the object that is kept.
const FOLDER: &str = "fastpath/bpf";
const OBJECT: &str = "weft.bpf.o";

// Another version makes other instructions of the same source.
const CLANG: &str = "clang-14";
const STRIP: &str = "llvm-strip-14";
const OBJDUMP: &str = "llvm-objdump-14";

const FLAGS: &[&str] = &[
    "-O2",
    // For types (BTF); the rest is stripped.
    "-g",
    "-target",
    "bpfel",
    "-mcpu=v3",
    "-std=gnu17",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-address-of-packed-member",
    // Neither the path of the repository nor headers that somebody has in /usr/local.
    "-ffile-compilation-dir=.",
    "-nostdlibinc",
];
/// Variables that bring folders of headers along.
const VARIABLES: [&str; 2] = ["CPATH", "C_INCLUDE_PATH"];

/// Of the system; those of the machine are below a folder that has its name.
const HEADERS: &str = "/usr/include";
const INSTALL: &str = "on Debian 12, `apt-get install clang-14 llvm-14 libbpf-dev linux-libc-dev`";

/// Compiles the programs anew, into the repository.
pub(crate) fn write(metadata: &Metadata) -> anyhow::Result<()> {
    let made = make(metadata)?.join(OBJECT);
    let kept = metadata.workspace_root.as_std_path().join(FOLDER);
    fs::copy(made, kept.join(OBJECT)).with_context(|| format!("cannot write {FOLDER}/{OBJECT}"))?;
    Ok(())
}

/// Reports an object that is not what the source gives.
pub(crate) fn check(metadata: &Metadata, report: &mut Report) -> anyhow::Result<()> {
    let kept = metadata.workspace_root.as_std_path().join(FOLDER);
    let (kept, made) = (shown(&kept)?, shown(&make(metadata)?)?);
    if let Some(difference) = difference(&kept, &made) {
        report.fail(format!(
            "{FOLDER}/{OBJECT} is not what {SOURCE} gives: {difference}; run `cargo xtask bpf` and \
             commit"
        ));
    }
    report.checked(format!(
        "bpf: {} lines of tables and programs",
        kept.lines().count()
    ));
    Ok(())
}

/// Compiles the programs into a folder of what cargo builds, and returns that.
fn make(metadata: &Metadata) -> anyhow::Result<PathBuf> {
    let of_machine = format!("{HEADERS}/{ARCH}-linux-gnu");
    for header in [
        format!("{HEADERS}/bpf/bpf_helpers.h"),
        format!("{of_machine}/asm/types.h"),
    ] {
        ensure!(
            Path::new(&header).exists(),
            "the header {header} is missing, which {SOURCE} needs: {INSTALL}"
        );
    }
    let folder = metadata.target_directory.as_std_path().join("bpf");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let object = folder.join(OBJECT);
    let mut clang = Command::new(CLANG);
    for variable in VARIABLES {
        clang.env_remove(variable);
    }
    clang
        .current_dir(metadata.workspace_root.as_std_path())
        .args(FLAGS)
        .args(["-isystem", of_machine.as_str(), "-isystem", HEADERS])
        .args(["-c", SOURCE, "-o"])
        .arg(&object);
    run(&mut clang)?;
    run(Command::new(STRIP).arg("-g").arg(&object))?;
    Ok(folder)
}

/// What there is of the object in a folder once it is loaded, line by line.
fn shown(folder: &Path) -> anyhow::Result<String> {
    let path = folder.join(OBJECT);
    let object = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut lines, data) = declared(&object).with_context(|| path.display().to_string())?;
    // By its name alone, which they print.
    let mut contents = Command::new(OBJDUMP);
    contents.current_dir(folder).arg("-s");
    for section in data {
        contents.args(["-j", section]);
    }
    lines.push(run(contents.arg(OBJECT))?);
    // With relocations: they say which table an instruction is about.
    let mut code = Command::new(OBJDUMP);
    code.args(["-d", "-r", "--no-show-raw-insn", OBJECT]);
    lines.push(run(code.current_dir(folder))?);
    Ok(lines.join("\n"))
}

/// Tables, sources and sections of an object, a line each, and the names of sections with data.
fn declared(object: &[u8]) -> anyhow::Result<(Vec<String>, Vec<&str>)> {
    let sections = elf::sections(object)?;
    let types = sections.iter().find(|section| section.name == ".BTF");
    let types = Types::read(types.context("it has no types (.BTF)")?.bytes)?;
    let mut lines = types.tables()?;
    lines.extend(types.sources().iter().map(|path| format!("source {path}")));
    let mut data = Vec::new();
    for section in &sections {
        // The length of code follows from its instructions, that of notes from headers.
        lines.push(match section.kind {
            Kind::Data => format!("section {}, {} bytes", section.name, section.len),
            Kind::Code | Kind::Notes => format!("section {}", section.name),
        });
        if section.kind == Kind::Data {
            data.push(section.name);
        }
    }
    Ok((lines, data))
}

/// The first line that is not the same, and what it belongs to.
fn difference(kept: &str, made: &str) -> Option<String> {
    let (mut kept, mut made) = (kept.lines(), made.lines());
    let mut place = String::new();
    loop {
        match (kept.next(), made.next()) {
            (None, None) => return None,
            (Some(line), other) if other == Some(line) => {
                // `0000000000000490 <LBB0_37>:` is before the instructions of a place.
                if let Some((_, name)) = line.split_once(" <")
                    && let Some(name) = name.strip_suffix(">:")
                {
                    place = format!("in {name}, ");
                }
            }
            (kept, made) => {
                let [kept, made] = [kept, made].map(|line| line.unwrap_or("nothing").trim());
                return Some(format!("{place}it has `{kept}` in place of `{made}`"));
            }
        }
    }
}

/// Runs a program to its end; what it printed. Its errors go where ours go.
fn run(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = match command.stderr(Stdio::inherit()).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "the program {name} is missing; the object is made by this version of it and no other: \
             {INSTALL}"
        ),
        output => output.with_context(|| format!("cannot run {name}"))?,
    };
    ensure!(output.status.success(), "{name} failed: {}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("{name} printed no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_told_with_its_place() {
        let kept = "table a, max_entries 7\nsection code\n\n0000 <leave>:\n  0:\tr1 = 0\n\
                    0008 <LBB0_1>:\n  1:\tr2 = 0\n  2:\texit\n";
        assert_eq!(difference(kept, kept), None);
        for (from, to, expected) in [
            (
                "max_entries 7",
                "max_entries 8",
                "it has `table a, max_entries 7` in place of `table a, max_entries 8`",
            ),
            (
                "r1 = 0",
                "r1 = 1",
                "in leave, it has `0:\tr1 = 0` in place of `0:\tr1 = 1`",
            ),
            (
                "r2 = 0\n  2:",
                "r3 = 0\n  2:",
                "in LBB0_1, it has `1:\tr2 = 0` in place of `1:\tr3 = 0`",
            ),
            (
                "  2:\texit\n",
                "",
                "in LBB0_1, it has `2:\texit` in place of `nothing`",
            ),
        ] {
            let made = kept.replace(from, to);
            assert_eq!(difference(kept, &made).as_deref(), Some(expected));
        }
        assert!(difference("", "a").unwrap().contains("has `nothing`"));
    }

    #[test]
    fn the_object_that_is_kept_names_tables_and_no_machine() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"));
        let object = fs::read(path.join("..").join(FOLDER).join(OBJECT)).unwrap();
        let (lines, data) = declared(&object).unwrap();
        let table = |line: &&String| line.starts_with("table ");
        let tables: Vec<&String> = lines.iter().filter(table).collect();
        assert!(
            tables
                .iter()
                .any(|line| line.starts_with("table out_flows, ")),
            "{tables:?}"
        );
        for fields in [", type ", ", max_entries "] {
            assert!(
                tables.iter().all(|line| line.contains(fields)),
                "{tables:?}"
            );
        }
        // One that was compiled by hand has a path that exists nowhere else.
        assert!(lines.contains(&format!("source ./{SOURCE}")), "{lines:?}");
        assert!(
            !lines.iter().any(|line| line.starts_with("source /")),
            "{lines:?}"
        );
        assert!(data.contains(&"license"), "{data:?}");
    }

    #[test]
    fn a_program_that_is_missing_is_told_with_its_packages() {
        let error = run(&mut Command::new("weft-no-such-program")).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("the program weft-no-such-program is missing"),
            "{text}"
        );
        assert!(text.contains("clang-14 llvm-14 libbpf-dev"), "{text}");
        let error = run(&mut Command::new("false")).unwrap_err();
        assert!(error.to_string().starts_with("false failed: "), "{error}");
    }
}
