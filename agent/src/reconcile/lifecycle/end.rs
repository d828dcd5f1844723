//! How a task ended, and what its managers are told of it.

use weft_model::objects::{ContainerStatus, TaskState, TaskStatus};
use weft_sys::error_text::without_numbers;
use weft_sys::process::Exit;

/// How a task ended.
pub(super) enum End {
    Exited(Exit),
    /// The kernel killed one of its processes: it may have so many bytes at most, 0 where that is what
    /// the machine has.
    OutOfMemory(Exit, u64),
    Stopped(Exit),
    /// Its checks failed, and it was stopped for that.
    Unhealthy(Exit, String),
    NeverRan,
    /// Its container did not start, with the code that Docker shows of one.
    NotStarted(anyhow::Error, Option<i32>),
    /// It ended before, and its end may not have been reported.
    Known(TaskStatus),
    Rejected(anyhow::Error),
}

impl End {
    /// Whether there was a program that may have talked to others.
    pub(super) fn has_run(&self) -> bool {
        matches!(
            self,
            Self::Exited(_) | Self::OutOfMemory(..) | Self::Stopped(_) | Self::Unhealthy(..)
        )
    }

    /// The final status of the task. The texts of failures are docker's.
    pub(super) fn status(self, now: u64) -> TaskStatus {
        let (state, message, err, exit) = match self {
            Self::Known(status) => return status,
            Self::Exited(exit) if exit.success() => (
                TaskState::Complete,
                "finished".to_owned(),
                String::new(),
                exit.shell_code(),
            ),
            Self::Exited(exit) => {
                let code = code_of(exit);
                let err = format!("task: non-zero exit ({code})");
                (TaskState::Failed, "ended".to_owned(), err, Some(code))
            }
            Self::OutOfMemory(exit, limit) => {
                let code = code_of(exit);
                let limit = match limit {
                    0 => String::new(),
                    limit => format!(" (limit {})", memory(limit)),
                };
                let err = format!("task: non-zero exit ({code}): OOM killed{limit}");
                (TaskState::Failed, "ended".to_owned(), err, Some(code))
            }
            Self::Stopped(exit) => (
                TaskState::Shutdown,
                "shutdown".to_owned(),
                String::new(),
                exit.shell_code(),
            ),
            // Whatever code it ends with when it is stopped.
            Self::Unhealthy(exit, why) => {
                let code = code_of(exit);
                let how = if code == 0 { "exit" } else { "non-zero exit" };
                let err = format!("task: {how} ({code}): dockerexec: unhealthy container");
                let message = format!("its health check failed: {why}");
                (TaskState::Failed, message, err, Some(code))
            }
            Self::NeverRan => (
                TaskState::Shutdown,
                "shutdown".to_owned(),
                String::new(),
                None,
            ),
            Self::NotStarted(error, code) => (
                TaskState::Failed,
                "starting".to_owned(),
                without_numbers(&format!("{error:#}")),
                code,
            ),
            Self::Rejected(error) => (
                TaskState::Rejected,
                "rejected".to_owned(),
                without_numbers(&format!("{error:#}")),
                None,
            ),
        };
        TaskStatus {
            state,
            since: now,
            message,
            err,
            container: ContainerStatus {
                exit_code: exit,
                ..ContainerStatus::default()
            },
            ..TaskStatus::default()
        }
    }
}

/// The code that a shell would show; 255, as docker has it, where the machine lost its power, or
/// somebody killed the shim.
fn code_of(exit: Exit) -> i32 {
    exit.shell_code().unwrap_or(255)
}

/// Bytes as docker writes those of memory: `64MiB`.
fn memory(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    // Four digits that count at most, and none behind a point without need.
    let digits = if value < 10.0 {
        3
    } else if value < 100.0 {
        2
    } else {
        1
    };
    let text = format!("{value:.digits$}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_dockers_words_and_a_code_in_any_case() {
        let sick = "timeout".to_owned();
        for (end, state, err, code) in [
            (End::Exited(Exit::Code(0)), TaskState::Complete, "", Some(0)),
            (
                End::Exited(Exit::Code(3)),
                TaskState::Failed,
                "task: non-zero exit (3)",
                Some(3),
            ),
            (
                End::Exited(Exit::Signal(9)),
                TaskState::Failed,
                "task: non-zero exit (137)",
                Some(137),
            ),
            (
                End::OutOfMemory(Exit::Signal(9), 64 << 20),
                TaskState::Failed,
                "task: non-zero exit (137): OOM killed (limit 64MiB)",
                Some(137),
            ),
            (
                End::OutOfMemory(Exit::Code(1), 0),
                TaskState::Failed,
                "task: non-zero exit (1): OOM killed",
                Some(1),
            ),
            (
                End::NotStarted(anyhow::anyhow!("starting container failed: no"), Some(127)),
                TaskState::Failed,
                "starting container failed: no",
                Some(127),
            ),
            // The machine lost its power.
            (
                End::Exited(Exit::Unknown),
                TaskState::Failed,
                "task: non-zero exit (255)",
                Some(255),
            ),
            (
                End::Unhealthy(Exit::Signal(15), sick.clone()),
                TaskState::Failed,
                "task: non-zero exit (143): dockerexec: unhealthy container",
                Some(143),
            ),
            // A program that ends well when it is asked to has not done its work.
            (
                End::Unhealthy(Exit::Code(0), sick),
                TaskState::Failed,
                "task: exit (0): dockerexec: unhealthy container",
                Some(0),
            ),
            (
                End::Stopped(Exit::Signal(15)),
                TaskState::Shutdown,
                "",
                Some(143),
            ),
            (End::NeverRan, TaskState::Shutdown, "", None),
        ] {
            let status = end.status(7);
            assert_eq!((status.state, status.since), (state, 7), "{err}");
            assert_eq!(status.err, err);
            assert_eq!(status.container.exit_code, code, "{err}");
        }
        let known = TaskStatus {
            since: 1,
            ..TaskStatus::default()
        };
        assert_eq!(End::Known(known.clone()).status(7), known);
    }

    #[test]
    fn memory_is_written_as_docker_does() {
        for (bytes, text) in [
            (512, "512B"),
            (1024, "1KiB"),
            (64 << 20, "64MiB"),
            (100 << 20, "100MiB"),
            (3 << 29, "1.5GiB"),
            (1023 << 20, "1023MiB"),
            (1 << 60, "1024PiB"),
        ] {
            assert_eq!(memory(bytes), text);
        }
    }
}
