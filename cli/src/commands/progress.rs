//! How progress is drawn: docker's bars where a terminal is wide enough, lines that are rewritten in
//! place on any other, and lines that follow each other elsewhere (docker/cli
//! `cli/command/service/progress`, moby `pkg/jsonmessage`).

use std::io;

use weft_model::objects::TaskState;

use crate::commands::rows;
use crate::output::Printer;

/// Columns of terminals that have no room for bars.
const NARROW: usize = 110;

/// Columns of a bar between its ends.
const WIDTH: usize = 50;

/// Letters of the longest state on the way to running.
const LONGEST: usize = 9;

/// Characters of an error on a terminal.
const MAX_ERROR: usize = 75;

/// Steps to a task that runs, and to one that has done its part of a job.
const RUNNING: usize = 9;
const COMPLETE: usize = 10;

/// What a slot has to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SlotState {
    /// How far its task is.
    At(TaskState),
    /// What is wrong with it.
    Error(String),
}

/// Where bars run to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Up, to tasks that run.
    Running,
    /// Up, to tasks that have done their part of a job.
    Complete,
    /// Down, while a service becomes what it was.
    Back,
}

impl Way {
    /// How many steps of how many are taken; nothing of what is on no way.
    fn steps(self, state: TaskState) -> Option<(usize, usize)> {
        let taken = match state {
            TaskState::New => 1,
            // Docker's second one, "allocated", is none of ours.
            TaskState::Pending => 3,
            TaskState::Assigned => 4,
            TaskState::Accepted => 5,
            TaskState::Preparing => 6,
            TaskState::Ready => 7,
            TaskState::Starting => 8,
            TaskState::Running => RUNNING,
            TaskState::Complete if self == Self::Complete => COMPLETE,
            _ => return None,
        };
        Some(match self {
            Self::Running => (taken, RUNNING),
            Self::Complete => (taken, COMPLETE),
            Self::Back => (RUNNING - taken, RUNNING),
        })
    }
}

/// `running   [=====>     ]`, without the bar where the terminal has no room for it. `width` are the
/// columns of the terminal, if there is one.
pub(super) fn drawn(slot: &SlotState, way: Way, width: Option<usize>) -> String {
    let state = match slot {
        SlotState::Error(error) if width.is_some() => return cut(error),
        SlotState::Error(error) => return error.clone(),
        SlotState::At(state) => *state,
    };
    let word = rows::state_word(state);
    let wide = width.is_some_and(|columns| columns > NARROW);
    match way.steps(state).filter(|_| wide) {
        Some((taken, all)) => format!("{word:<LONGEST$} {}", bar(taken, all)),
        None => word,
    }
}

fn bar(taken: usize, all: usize) -> String {
    let filled = (taken * 100 / all / 2).min(WIDTH);
    let (done, left) = ("=".repeat(filled), " ".repeat(WIDTH - filled));
    format!("[{done}>{left}]")
}

fn cut(error: &str) -> String {
    if error.chars().count() <= MAX_ERROR {
        return error.to_owned();
    }
    let short: String = error.chars().take(MAX_ERROR - 1).collect();
    format!("{short}…")
}

/// Lines that are known by what they begin with. A terminal has each of them once, written anew when it
/// changes; elsewhere what is new follows.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// What each begins with, and what follows that.
    lines: Vec<(String, String)>,
}

impl Board {
    /// Has a line say something.
    pub(super) fn say(&mut self, name: &str, text: &str, out: &mut Printer) -> io::Result<()> {
        let known = self.lines.iter().position(|(known, _)| known == name);
        let up = match known {
            Some(at) if self.lines[at].1 == text => return Ok(()),
            Some(at) => {
                text.clone_into(&mut self.lines[at].1);
                self.lines.len() - at
            }
            None => {
                self.lines.push((name.to_owned(), text.to_owned()));
                0
            }
        };
        let line = format!("{name}: {text}");
        let line = line.trim_end();
        let Some(columns) = out.width() else {
            return out.line(line);
        };
        // One that goes on in a second row would move all others.
        let line: String = line.chars().take(columns).collect();
        if up > 0 {
            out.rewrite(up, &line)
        } else {
            out.line(&line)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::tests::shared;

    const WIDE: Option<usize> = Some(160);

    fn at(state: TaskState, way: Way, width: Option<usize>) -> String {
        drawn(&SlotState::At(state), way, width)
    }

    #[test]
    fn bars_are_dockers() {
        let bar = |filled: usize| format!("[{}>{}]", "=".repeat(filled), " ".repeat(50 - filled));
        for (state, filled) in [
            (TaskState::New, 5),
            (TaskState::Pending, 16),
            (TaskState::Assigned, 22),
            (TaskState::Preparing, 33),
            (TaskState::Starting, 44),
            (TaskState::Running, 50),
        ] {
            let line = format!("{:<9} {}", rows::state_word(state), bar(filled));
            assert_eq!(at(state, Way::Running, WIDE), line);
        }
        assert_eq!(
            at(TaskState::Running, Way::Running, WIDE),
            "running   [==================================================>]"
        );
        assert_eq!(
            at(TaskState::Running, Way::Back, WIDE),
            "running   [>                                                  ]"
        );
        let preparing = format!("preparing {}", bar(16));
        assert_eq!(at(TaskState::Preparing, Way::Back, WIDE), preparing);
        let complete = format!("complete  {}", bar(50));
        assert_eq!(at(TaskState::Complete, Way::Complete, WIDE), complete);
        assert_eq!(at(TaskState::Complete, Way::Running, WIDE), "complete");
    }

    #[test]
    fn bars_need_a_terminal_of_more_than_110_columns() {
        for width in [None, Some(80), Some(110)] {
            assert_eq!(at(TaskState::Ready, Way::Running, width), "ready");
        }
        assert!(at(TaskState::Ready, Way::Running, Some(111)).contains('>'));
    }

    #[test]
    fn errors_are_cut_where_they_have_to_stay_one_line() {
        let error = SlotState::Error("x".repeat(90));
        assert_eq!(drawn(&error, Way::Running, None), "x".repeat(90));
        let short = format!("{}…", "x".repeat(74));
        assert_eq!(drawn(&error, Way::Running, WIDE), short);
        let error = SlotState::Error("x".repeat(75));
        assert_eq!(drawn(&error, Way::Running, WIDE), "x".repeat(75));
    }

    #[test]
    fn a_terminal_has_every_line_once() {
        let (reader, writer) = shared();
        let mut out = Printer::to_terminal(writer, 20);
        let mut board = Board::default();
        for (name, text) in [
            ("overall progress", "0 out of 2 tasks"),
            ("1/2", ""),
            ("1/2", "ready"),
            ("1/2", "ready"),
            ("overall progress", "1"),
        ] {
            board.say(name, text, &mut out).unwrap();
        }
        assert_eq!(
            reader.text(),
            "overall progress: 0 \n1/2:\n\
             \x1b[1A\r\x1b[2K1/2: ready\r\x1b[1B\
             \x1b[2A\r\x1b[2Koverall progress: 1\r\x1b[2B"
        );
    }

    #[test]
    fn elsewhere_what_is_new_follows() {
        let (reader, writer) = shared();
        let mut out = Printer::to(writer);
        let mut board = Board::default();
        for text in ["ready", "ready", "running"] {
            board.say("1/1", text, &mut out).unwrap();
        }
        assert_eq!(reader.text(), "1/1: ready\n1/1: running\n");
    }
}
