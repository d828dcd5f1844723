use std::sync::Arc;

use weft_model::id::NodeId;

use super::*;
use crate::commands::tests::{detail, shared, task, update_status};

const COLUMNS: usize = 160;

fn running(id: &str, slot: u32) -> TaskRow {
    task(id, slot, 5, TaskState::Running, TaskState::Running, "")
}

/// One that is still what the service was before.
fn old(id: &str, slot: u32) -> TaskRow {
    let mut row = running(id, slot);
    Arc::make_mut(&mut row.task.spec).force_update = 7;
    row
}

/// What a wide terminal has of tasks, without the bars.
fn lines(screen: &mut Screen, detail: &ServiceDetail, rows: &[TaskRow]) -> Vec<String> {
    let progress = Progress::of(detail, rows);
    let lines = screen.lines(&progress, Some(COLUMNS)).into_iter();
    let word = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
    lines
        .map(|(name, text)| format!("{name}: {}", word(&text)))
        .collect()
}

#[test]
fn an_update_fills_the_lines_of_a_terminal_as_it_comes_to_slots() {
    let mut detail = detail(3);
    detail.service.update_status = Some(update_status(UpdateState::Updating, ""));
    let mut screen = Screen::default();
    let mut seen = |rows: &[TaskRow]| lines(&mut screen, &detail, rows);
    assert_eq!(
        seen(&[old("a", 1), old("b", 2), old("c", 3)]),
        ["1/3: ", "2/3: ", "3/3: "]
    );
    assert_eq!(
        seen(&[old("a", 1), running("b2", 2), old("c", 3)]),
        ["1/3: running", "2/3: ", "3/3: "]
    );
    let next = task("a2", 1, 9, TaskState::Ready, TaskState::Preparing, "");
    assert_eq!(
        seen(&[next, running("b2", 2), old("c", 3)]),
        ["1/3: running", "2/3: preparing", "3/3: "]
    );
}

#[test]
fn lines_of_slots_that_are_gone_are_those_of_others() {
    let detail = detail(2);
    let mut screen = Screen::default();
    let gone = task("b", 2, 5, TaskState::Remove, TaskState::Shutdown, "");
    let first = [running("a", 1), running("b", 2), running("c", 3)];
    let both = ["1/2: running", "2/2: running"];
    assert_eq!(lines(&mut screen, &detail, &first), both);
    let preparing = task("c", 3, 5, TaskState::Running, TaskState::Preparing, "");
    assert_eq!(
        lines(&mut screen, &detail, &[running("a", 1), gone, preparing]),
        ["1/2: running", "2/2: preparing"]
    );
}

#[test]
fn a_rollback_runs_its_bars_down() {
    let mut detail = detail(1);
    let status = update_status(UpdateState::RollbackStarted, "manually requested rollback");
    detail.service.update_status = Some(status);
    let (reader, writer) = shared();
    let mut out = Printer::to_terminal(writer, COLUMNS);
    let mut screen = Screen::default();
    screen
        .say("rollback", "manually requested rollback", &mut out)
        .unwrap();
    let progress = Progress::of(&detail, &[running("a", 1)]);
    screen.show(&progress, &mut out).unwrap();
    assert_eq!(
        reader.text(),
        format!(
            "rollback: manually requested rollback\n\
             overall progress: rolling back update: 1 out of 1 tasks\n\
             1/1: running   [>{}]\n",
            " ".repeat(50)
        )
    );
}

#[test]
fn global_services_have_a_line_for_each_node() {
    let mut detail = detail(1);
    detail.service.spec.mode = ServiceMode::Global;
    detail.status.desired = 2;
    let (reader, writer) = shared();
    let mut out = Printer::to_terminal(writer, 80);
    let mut screen = Screen::default();
    let nothing = Progress::of(&detail, &[]);
    screen.show(&nothing, &mut out).unwrap();
    assert_eq!(reader.text(), "overall progress: waiting for new tasks\n");
    let of_node = |id: &str, node: &str| {
        let mut row = running(id, 0);
        row.task.node = Some(NodeId::from(node));
        row
    };
    let (first, second) = ("aaaaaaaaaaaa1234567890123", "bbbbbbbbbbbb1234567890123");
    let rows = [of_node("b", second), of_node("a", first)];
    assert_eq!(
        lines(&mut screen, &detail, &rows),
        ["aaaaaaaaaaaa: running", "bbbbbbbbbbbb: running"]
    );
    assert!(Progress::of(&detail, &rows).converged());
}

#[test]
fn more_than_twenty_tasks_have_no_lines_of_their_own() {
    let rows: Vec<TaskRow> = (1..=21).map(|slot| running("a", slot)).collect();
    let (reader, writer) = shared();
    let mut out = Printer::to_terminal(writer, COLUMNS);
    let progress = Progress::of(&detail(21), &rows);
    Screen::default().show(&progress, &mut out).unwrap();
    assert_eq!(reader.text(), "overall progress: 21 out of 21 tasks\n");
}

#[test]
fn watched_tasks_that_do_not_stay_are_told() {
    let mut detail = detail(1);
    detail.service.update_status = Some(update_status(UpdateState::Updating, ""));
    let policy = UpdateConfig::default();
    let mut verifying = Verifying::default();
    let mut said = |row: TaskRow| verifying.note(&Progress::of(&detail, &[row]), &policy);
    assert!(said(running("a", 1)).is_some_and(|text| text.starts_with("Waiting 5 seconds")));
    let failed = task("a", 1, 5, TaskState::Running, TaskState::Failed, "boom");
    assert_eq!(
        said(failed.clone()).as_deref(),
        Some("Detected task failure")
    );
    assert_eq!(said(failed), None, "once");
}
