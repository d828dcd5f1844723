//! Text and tables in the width of a screen: lines end between words.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};

/// Spaces between columns, as docker has it.
const GAP: u16 = 3;

/// What stands before a task that came earlier in the same slot.
const BRANCH: &str = " \\_ ";

/// A space at which no line ends.
const NO_BREAK: &str = "\u{a0}";

/// Breaks a paragraph into lines of at most `width` columns; a word that is longer has a line of its
/// own. Without a width it is one line.
#[must_use]
pub(crate) fn wrap(text: &str, width: Option<usize>) -> Vec<String> {
    let Some(width) = width else {
        return vec![text.to_owned()];
    };
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let long = line.chars().count() + 1 + word.chars().count() > width;
        if long && !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// Aligns lines whose cells are separated by tabs. In a width, cells that do not fit go on in the
/// next line, between words; where even single words do not fit, the width is not kept.
pub(super) fn columns<'a>(lines: impl Iterator<Item = &'a str>, width: Option<usize>) -> String {
    let rows: Vec<Vec<String>> = lines
        .map(|line| {
            line.split('\t')
                .map(|cell| joined(cell.trim_end()))
                .collect()
        })
        .collect();
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    for row in &rows {
        table.add_row(row.clone());
    }
    let least = least_widths(&rows);
    for (column, least) in table.column_iter_mut().zip(&least) {
        column.set_padding((0, GAP));
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least + GAP)));
    }
    let needed: usize = least.iter().map(|least| usize::from(least + GAP)).sum();
    // The gap behind the last column is not printed.
    let width = width.map(|width| width + usize::from(GAP));
    if let Some(width) = width.filter(|width| needed <= *width) {
        table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(u16::try_from(width).unwrap_or(u16::MAX));
    }
    let mut out = String::new();
    for line in table.lines() {
        out.push_str(line.replace(NO_BREAK, " ").trim_end());
        out.push('\n');
    }
    out
}

/// The cell with its indent and the word behind it as one word.
fn joined(cell: &str) -> String {
    let inner = cell
        .strip_prefix(BRANCH)
        .unwrap_or_else(|| cell.trim_start());
    let (indent, inner) = cell.split_at(cell.len() - inner.len());
    indent.replace(' ', NO_BREAK) + inner
}

/// The longest word of each column.
fn least_widths(rows: &[Vec<String>]) -> Vec<u16> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let longest = |cell: &String| {
        let words = cell.split(' ').map(|word| word.chars().count());
        words.max().unwrap_or(0)
    };
    (0..count)
        .map(|at| {
            let cells = rows.iter().filter_map(|row| row.get(at));
            let widest = cells.map(longest).max().unwrap_or(0);
            u16::try_from(widest).unwrap_or(u16::MAX - GAP)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_between_words() {
        assert_eq!(wrap("one two three", Some(8)), ["one two", "three"]);
        assert_eq!(
            wrap("incomprehensible a b", Some(8)),
            ["incomprehensible", "a b"]
        );
        assert_eq!(wrap("one two three", None), ["one two three"]);
        assert_eq!(wrap("", Some(8)), [""]);
    }

    #[test]
    fn cells_go_on_in_the_next_line() {
        let rows = ["NAME\tSTATE", "web\tbusy: another program has it"];
        let whole = "NAME   STATE\nweb    busy: another program has it\n";
        assert_eq!(columns(rows.into_iter(), None), whole);
        assert_eq!(columns(rows.into_iter(), Some(80)), whole);
        let narrow = columns(rows.into_iter(), Some(24));
        assert!(narrow.lines().all(|line| line.len() <= 24), "{narrow}");
        for word in ["busy:", "another", "program"] {
            assert!(narrow.contains(word), "{word} is broken: {narrow}");
        }
        let tasks = [
            "NAME\tERROR",
            "web.1\t",
            " \\_ web.1\tno suitable node here",
        ];
        let narrow = columns(tasks.into_iter(), Some(22));
        assert!(narrow.lines().all(|line| line.len() <= 22), "{narrow}");
        assert!(narrow.contains("\n \\_ web.1   no"), "{narrow}");
        // No word is broken, whatever the width.
        assert_eq!(columns(rows.into_iter(), Some(9)), whole);
    }
}
