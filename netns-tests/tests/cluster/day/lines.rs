//! Lines of docker's progress and tables, as a terminal shows them.

/// What bars look like when tasks have converged.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bars {
    Full,
    /// Of a rollback.
    Empty,
    /// Of a terminal that has no room for any.
    None,
}

impl Bars {
    /// What follows the number of a line.
    fn text(self) -> String {
        match self {
            Self::Full => format!("running   [{}>]", "=".repeat(50)),
            Self::Empty => format!("running   [>{}]", " ".repeat(50)),
            Self::None => "running".to_owned(),
        }
    }
}

/// Asserts that these are `head`, so many tasks that run, and the verdict about service `id`.
#[track_caller]
pub(super) fn converged(lines: &[String], head: &[&str], tasks: usize, bars: Bars, id: &str) {
    let what = match bars {
        Bars::Empty => "rolling back update: ",
        Bars::Full | Bars::None => "",
    };
    let mut wanted: Vec<String> = head.iter().map(|line| (*line).to_owned()).collect();
    wanted.push(format!(
        "overall progress: {what}{tasks} out of {tasks} tasks"
    ));
    let text = bars.text();
    wanted.extend((1..=tasks).map(|number| format!("{number}/{tasks}: {text}")));
    wanted.push(format!("verify: Service {id} converged"));
    assert_eq!(lines, wanted);
}

/// The same of a service with one task on each of these nodes, by the ids of those, in any order.
#[track_caller]
pub(super) fn converged_on(lines: &[String], nodes: &[String], id: &str) {
    let count = nodes.len();
    let text = Bars::Full.text();
    let mut wanted: Vec<String> = nodes
        .iter()
        .map(|id| format!("{}: {text}", &id[..12]))
        .collect();
    wanted.push(format!("overall progress: {count} out of {count} tasks"));
    wanted.push(format!("verify: Service {id} converged"));
    wanted.sort();
    let mut found = lines.to_vec();
    found.sort();
    assert_eq!(found, wanted);
    assert!(lines[0].starts_with("overall progress: "), "{lines:#?}");
    assert!(lines[count + 1].starts_with("verify: "), "{lines:#?}");
}

/// Cells of a line of a table: at least two spaces are between them.
pub(super) fn cells(line: &str) -> Vec<&str> {
    let cells = line.split("  ").map(str::trim);
    cells.filter(|cell| !cell.is_empty()).collect()
}

/// Asserts that a row of `service ps` is a task that has run for a while: `NAME IMAGE NODE`.
#[track_caller]
pub(super) fn is_running(line: &str, name: &str, node: Option<&str>) {
    let cells = cells(line);
    let cells: Result<[&str; 6], _> = cells.try_into();
    let [id, named, image, on, desired, current] = cells.expect("a row has six cells");
    assert_eq!((id.len(), named, image), (12, name, "host"), "{line}");
    assert!(node.is_none_or(|node| node == on), "{line}");
    let since = current.strip_prefix("Running ");
    let ago = since.is_some_and(|since| since.ends_with(" ago"));
    assert!(desired == "Running" && ago, "{line}");
}
