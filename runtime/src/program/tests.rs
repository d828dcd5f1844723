//! Against small programs that answer as runc and crun do.

use std::io::Write;
use std::process::{Command, Stdio};

use super::*;

/// Written by another process: while one of this one has the file open for writing, as a child of
/// another test may between fork and exec, nobody can execute it.
fn program(folder: &Path, name: &str, script: &str) -> PathBuf {
    std::fs::create_dir_all(folder).expect("folder");
    let path = folder.join(name);
    let mut shell = Command::new("/bin/sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut stdin = shell.stdin.take().expect("a pipe");
    write!(stdin, "#!/bin/sh\n{script}\n").expect("written");
    drop(stdin);
    assert!(shell.wait().expect("it ends").success());
    path
}

fn says(folder: &Path, name: &str, version: &str) {
    program(
        folder,
        name,
        &format!("echo '{name} version {version}'; echo more"),
    );
}

#[test]
fn the_first_program_that_answers_and_fits_is_taken() {
    let dir = tempfile::tempdir().expect("dir");
    let (first, second) = (dir.path().join("a"), dir.path().join("b"));
    let folders = [&*first, &*second];
    let none = find_in(&folders, CgroupKind::V2)
        .expect_err("none")
        .to_string();
    assert!(none.contains("install the package crun or runc"), "{none}");
    assert!(none.contains(&first.display().to_string()), "{none}");

    says(&second, CRUN, "1.8.1");
    let hybrid = find_in(&folders, CgroupKind::Hybrid).expect_err("crun refuses");
    assert!(
        hybrid.to_string().ends_with("install the package runc"),
        "{hybrid}"
    );
    let found = find_in(&folders, CgroupKind::V1).expect("crun");
    assert_eq!(found.to_string(), "crun 1.8.1");
    assert_eq!(found.path, second.join(CRUN));

    says(&second, RUNC, "1.1.5+ds1");
    // One that answers something else is passed over.
    program(&first, RUNC, "echo usage >&2; exit 1");
    for (kind, name) in [
        (CgroupKind::V2, CRUN),
        (CgroupKind::V1, RUNC),
        (CgroupKind::Hybrid, RUNC),
        (CgroupKind::None, RUNC),
    ] {
        assert_eq!(find_in(&folders, kind).expect(name).name, name);
    }
}

#[test]
fn a_program_that_was_named_is_that_or_none() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("written");
    let chatty = program(dir.path(), "chatty", "echo hello");
    for (path, says) in [
        (Path::new("runc"), "write its full path"),
        (Path::new("/no/such/runtime"), "there is no such program"),
        (&*file, "there is no such program"),
        (&*chatty, "but \"hello\""),
    ] {
        let error = find(Some(path)).expect_err("no runtime").to_string();
        assert!(error.contains(says), "{error}");
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}

#[test]
fn a_runtime_is_asked_with_its_root() {
    let dir = tempfile::tempdir().expect("dir");
    let script = r#"echo "$*" >> "$2/asked"
case "$3 $4" in
"state up") echo '{"ociVersion":"1.0.2","id":"up","pid":42,"status":"running","bundle":"/b","owner":""}' ;;
"features ") echo '{"ociVersionMin":"1.0.0","mountOptions":["ro","rro"]}' ;;
"delete --force") case "$5" in gone) echo 'container "gone" does not exist' >&2; exit 1 ;; bad) echo 'device busy' >&2; exit 1 ;; esac ;;
"kill up") ;;
*) echo 'container does not exist' >&2; exit 1 ;;
esac"#;
    let path = program(dir.path(), RUNC, script);
    let runtime = Installed {
        program: RuntimeProgram {
            name: RUNC.to_owned(),
            path,
            version: "1".to_owned(),
        },
        root: dir.path().to_owned(),
    };
    let up = runtime.state("up").expect("asked").expect("there");
    assert_eq!((&*up.status, up.pid), ("running", 42));
    assert_eq!(runtime.state("down").expect("asked"), None);
    assert!(runtime.features().expect("asked").recursive_read_only());
    runtime.delete("up").expect("removed");
    runtime.delete("gone").expect("none is success");
    let bad = runtime.delete("bad").expect_err("busy").to_string();
    assert!(
        bad.ends_with("delete --force bad failed: device busy"),
        "{bad}"
    );
    runtime.kill("up", 15, false).expect("sent");
    runtime
        .kill("up", 9, true)
        .expect_err("this one knows no --all");
    let asked = std::fs::read_to_string(dir.path().join("asked")).expect("read");
    let root = dir.path().display();
    assert_eq!(
        asked.lines().next(),
        Some(&*format!("--root {root} state up"))
    );
    assert!(
        asked.contains(&format!("--root {root} kill --all up 9\n")),
        "{asked}"
    );
}
