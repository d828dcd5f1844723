//! What stays of tasks that have ended: their status and their output, for a while.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use weft_model::id::TaskId;
use weft_model::objects::TaskStatus;
use weft_shim::output;

use super::files::write_json;
use super::{RunError, Runner, kept};

/// Present once the task has ended: its final status.
const ENDED: &str = "ended.json";
/// Behind the name of an output's file: what came before, and when it came.
const OUTPUT_PARTS: [&str; 4] = ["", ".1", ".times", ".1.times"];
/// What the shim had to say, mostly nothing.
const SHIM_LOG: &str = "shim.log";
/// Folders of ended tasks that are kept at most, besides those asked for.
const KEPT_FOLDERS: usize = 50;
/// … and for so long at most.
const KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

impl Runner {
    /// Writes down how a task has ended, and takes away what it had but for its output. From then on
    /// [`Runner::known`] does not list it and [`Runner::ended`] tells its status; its logs stay until [`Runner::prune`]. Also for tasks that
    /// never started.
    ///
    /// # Errors
    /// [`RunError::BadId`], [`RunError::File`]; [`RunError::Memory`], and of a container those of its
    /// file system and its volumes, with its end written down all the same.
    pub fn finish(&self, task: &TaskId, status: &TaskStatus) -> Result<(), RunError> {
        let dir = self.task_dir(task)?;
        // First: also on a disk where nothing can be written down.
        let forgotten = self.clear_payloads(task);
        std::fs::create_dir_all(&dir).map_err(|source| RunError::File {
            path: dir.clone(),
            source,
        })?;
        // While nobody would do it again once the end is written down.
        let cleared = self.clear_container(task, &dir);
        write_json(&dir, ENDED, status)?;
        self.remove_group(task);
        // By its files whoever removes the folder knows what is there still.
        cleared?;
        tidy(&dir)?;
        forgotten
    }

    /// The final status of a task that has ended here; `None` for one that has not, and for one
    /// whose status is damaged.
    ///
    /// # Errors
    /// [`RunError::BadId`], [`RunError::File`].
    pub(crate) fn ended(&self, task: &TaskId) -> Result<Option<TaskStatus>, RunError> {
        let path = self.task_dir(task)?.join(ENDED);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(RunError::File { path, source }),
            Ok(bytes) => bytes,
        };
        match serde_json::from_slice(&bytes) {
            Ok(status) => Ok(Some(status)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "ignoring a damaged task status");
                Ok(None)
            }
        }
    }

    /// Removes the folders of ended tasks that are not in `keep` and either ended more than 24 hours
    /// ago or are not among the 50 that ended last.
    ///
    /// # Errors
    /// [`RunError::File`], the first one; the other folders are removed all the same.
    pub(crate) fn prune(&self, keep: &BTreeSet<TaskId>) -> Result<(), RunError> {
        self.prune_at(keep, SystemTime::now(), self.started.elapsed())
    }

    fn prune_at(
        &self,
        keep: &BTreeSet<TaskId>,
        wall: SystemTime,
        steady: Duration,
    ) -> Result<(), RunError> {
        let mut ended = Vec::new();
        for task in self.folders()? {
            if keep.contains(&task) {
                continue;
            }
            if let Some(at) = ended_at(&self.task_dir(&task)?) {
                ended.push((at, task));
            }
        }
        let ages = {
            let ages = self.ages.lock();
            let mut ages = ages.unwrap_or_else(PoisonError::into_inner);
            ages.look(&ended, wall, steady)
        };
        let mut ended: Vec<_> = ages.into_iter().zip(ended).collect();
        // Where nobody knows better, the stamp decides.
        ended.sort_by(|(a, x), (b, y)| a.cmp(b).then_with(|| y.cmp(x)));
        let mut result = Ok(());
        for (i, (age, (_, task))) in ended.iter().enumerate() {
            if i >= KEPT_FOLDERS || *age > KEPT_FOR {
                result = result.and(self.remove(task));
            }
        }
        result
    }
}

/// Removes all files of an ended task but its end and its output, whoever wrote them: descriptions of
/// what was run hold environments, also those that nobody finished writing. Folders are left to who made
/// them.
fn tidy(dir: &Path) -> Result<(), RunError> {
    let failed = |source| RunError::File {
        path: dir.to_owned(),
        source,
    };
    let mut result = Ok(());
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let said = || entry.metadata().is_ok_and(|file| file.len() > 0);
        let stays = name == ENDED || is_output(&name) || (name == SHIM_LOG && said());
        // The last one: by it the rest is found.
        if !(is_folder || stays || name == kept::FILE) {
            result = result.and(remove_file(entry.path()));
        }
    }
    result?;
    remove_file(dir.join(kept::FILE))
}

fn is_output(name: &str) -> bool {
    let mut parts = output::NAMES.iter().filter_map(|of| name.strip_prefix(of));
    parts.any(|part| OUTPUT_PARTS.contains(&part))
}

/// When the task of a folder ended; `None` while it has not.
pub(super) fn ended_at(dir: &Path) -> Option<SystemTime> {
    let metadata = std::fs::metadata(dir.join(ENDED)).ok()?;
    Some(metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH))
}

/// A task that is started (again) has not ended.
pub(super) fn forget_end(dir: &Path) -> Result<(), RunError> {
    remove_file(dir.join(ENDED))
}

fn remove_file(path: PathBuf) -> Result<(), RunError> {
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(RunError::File { path, source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use weft_model::id::NodeId;
    use weft_model::objects::{ContainerStatus, TaskState};

    use super::*;

    fn runner(dir: &tempfile::TempDir) -> Runner {
        Runner::new(dir.path().join("tasks"), "node-1", NodeId::from("n1"))
    }

    fn status() -> TaskStatus {
        TaskStatus {
            state: TaskState::Failed,
            since: 7,
            message: "ended".to_owned(),
            err: "task: non-zero exit (3)".to_owned(),
            container: ContainerStatus {
                exit_code: Some(3),
                ..ContainerStatus::default()
            },
            running_since: None,
        }
    }

    #[test]
    fn an_ended_task_keeps_its_status_and_its_output_only() {
        let dir = tempfile::tempdir().expect("dir");
        let runner = runner(&dir);
        let task = TaskId::from("t1");
        assert_eq!(runner.ended(&task).expect("none"), None);
        let files = runner.task_dir(&task).expect("dir");
        std::fs::create_dir_all(&files).expect("dir");
        let written = [
            super::super::files::RECORD,
            kept::BUNDLE_FILE,
            kept::FILE,
            "hosts",
            "spec.json",
            "spec.json.new",
            "guest-x1.json",
            ".config.json.7-1.unfinished",
            "stdout.log.1.times",
            "stdout.logx",
        ];
        for name in written.iter().chain(&output::NAMES) {
            std::fs::write(files.join(name), "{}").expect("write");
        }
        std::fs::write(files.join(SHIM_LOG), "").expect("write");
        assert_eq!(runner.known().expect("known"), std::slice::from_ref(&task));
        runner.finish(&task, &status()).expect("finish");
        assert!(runner.known().expect("known").is_empty());
        assert_eq!(runner.ended(&task).expect("ended"), Some(status()));
        let mut left: Vec<_> = std::fs::read_dir(&files)
            .expect("dir")
            .map(|e| e.expect("entry").file_name())
            .collect();
        left.sort();
        let output = ["stderr.log", "stdout.log", "stdout.log.1.times"];
        assert_eq!(left[0], ENDED);
        assert_eq!(left[1..], output);

        std::fs::write(files.join(ENDED), "{").expect("write");
        assert_eq!(runner.ended(&task).expect("damaged"), None);
        forget_end(&files).expect("forget");
        assert_eq!(runner.known().expect("known"), [task]);
    }

    #[test]
    fn a_task_that_never_started_can_end_and_ids_are_checked() {
        let dir = tempfile::tempdir().expect("dir");
        let runner = runner(&dir);
        let task = TaskId::from("t1");
        runner.finish(&task, &status()).expect("finish");
        assert_eq!(runner.ended(&task).expect("ended"), Some(status()));
        let bad = TaskId::from("../t1");
        assert!(matches!(
            runner.finish(&bad, &status()),
            Err(RunError::BadId(_))
        ));
        assert!(matches!(runner.ended(&bad), Err(RunError::BadId(_))));
    }

    #[test]
    fn old_folders_and_those_beyond_fifty_go() {
        let dir = tempfile::tempdir().expect("dir");
        let runner = runner(&dir);
        runner.prune(&BTreeSet::new()).expect("nothing there");
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let task = |i: usize| TaskId::from(format!("t{i}").as_str());
        for i in 0..60 {
            runner.finish(&task(i), &status()).expect("finish");
            let ended = runner.task_dir(&task(i)).expect("dir").join(ENDED);
            let file = std::fs::File::options()
                .write(true)
                .open(ended)
                .expect("open");
            file.set_modified(start + Duration::from_secs(i as u64))
                .expect("time");
        }
        std::fs::create_dir_all(runner.task_dir(&task(99)).expect("dir")).expect("running");
        let kept = |runner: &Runner| -> Vec<usize> {
            let there = |i: &usize| runner.task_dir(&task(*i)).expect("dir").exists();
            (0..100).filter(there).collect()
        };
        let keep = BTreeSet::from([task(0), task(55)]);
        runner
            .prune_at(&keep, start, Duration::ZERO)
            .expect("prune");
        // Two are kept apart: of the other 58 the newest 50 stay.
        let mut expected: Vec<usize> = std::iter::once(0).chain(9..60).collect();
        expected.push(99);
        assert_eq!(kept(&runner), expected);
        // Somebody sets the clock, one way and the other: nothing got older.
        for wall in [start + KEPT_FOR * 9, start - KEPT_FOR] {
            let second = Duration::from_secs(1);
            runner.prune_at(&keep, wall, second).expect("prune");
            assert_eq!(kept(&runner), expected);
        }
        // A new agent knows nothing but the date.
        let later = start + KEPT_FOR + Duration::from_secs(50);
        let runner = self::runner(&dir);
        runner
            .prune_at(&keep, later, Duration::ZERO)
            .expect("prune");
        let mut expected = vec![0];
        expected.extend(50..60);
        expected.push(99);
        assert_eq!(kept(&runner), expected);
    }
}
