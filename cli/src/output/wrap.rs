//! Text and tables in the width of a screen: lines end between words.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};

/// Spaces between columns, as docker has it.
const GAP: u16 = 3;

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
    let rows: Vec<Vec<&str>> = lines
        .map(|line| line.split('\t').map(str::trim_end).collect())
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
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// The longest word of each column. An indent belongs to the word behind it.
fn least_widths(rows: &[Vec<&str>]) -> Vec<u16> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let longest = |cell: &str| {
        let inner = cell.trim_start();
        let indent = cell.chars().count() - inner.chars().count();
        let words = inner.split(' ').map(|word| word.chars().count());
        words.max().unwrap_or(0) + indent
    };
    (0..count)
        .map(|at| {
            let cells = rows.iter().filter_map(|row| row.get(at));
            let widest = cells.map(|cell| longest(cell)).max().unwrap_or(0);
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
        // No word is broken, whatever the width.
        assert_eq!(columns(rows.into_iter(), Some(9)), whole);
    }
}
