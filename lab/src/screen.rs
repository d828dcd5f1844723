//! What a terminal shows: the few orders of ECMA-48 that progress is drawn with.

use anyhow::{Context, bail};

/// A screen of any height, without an edge on the right.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    lines: Vec<Vec<char>>,
    row: usize,
    column: usize,
}

impl Screen {
    /// What is there after all of this was written: lines without spaces at their end.
    ///
    /// # Errors
    /// An order that this does not know.
    pub(crate) fn after(text: &str) -> anyhow::Result<Vec<String>> {
        let mut screen = Self::default();
        screen.write(text)?;
        let lines = screen.lines.iter().map(|line| {
            let line: String = line.iter().collect();
            line.trim_end().to_owned()
        });
        let mut lines: Vec<String> = lines.collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        Ok(lines)
    }

    fn write(&mut self, text: &str) -> anyhow::Result<()> {
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            rest = &rest[letter.len_utf8()..];
            match letter {
                '\n' => self.row += 1,
                '\r' => self.column = 0,
                '\x1b' => rest = self.obey(rest)?,
                letter => self.put(letter),
            }
        }
        Ok(())
    }

    /// An order, `CSI NUMBER LETTER`; what follows it.
    fn obey<'a>(&mut self, text: &'a str) -> anyhow::Result<&'a str> {
        let cut_off = "a terminal was given an order without an end";
        let order = text.strip_prefix('[').context(cut_off)?;
        let is_letter = |c: char| c.is_ascii_alphabetic();
        let end = order.find(is_letter).context(cut_off)?;
        let (number, rest) = order.split_at(end);
        let count = number.parse::<usize>().ok();
        match (rest.chars().next(), count) {
            (Some('A'), _) => self.row = self.row.saturating_sub(count.unwrap_or(1)),
            (Some('B'), _) => self.row += count.unwrap_or(1),
            (Some('J'), None | Some(0)) => {
                self.lines.truncate(self.row + 1);
                let column = self.column;
                self.line().truncate(column);
            }
            (Some('K'), None | Some(0)) => {
                let column = self.column;
                self.line().truncate(column);
            }
            (Some('K'), Some(2)) => self.line().clear(),
            // Colours.
            (Some('m'), _) => {}
            _ => bail!("a terminal was given an order that nobody here knows: ESC [{order:?}"),
        }
        Ok(&rest[1..])
    }

    fn line(&mut self) -> &mut Vec<char> {
        if self.lines.len() <= self.row {
            self.lines.resize(self.row + 1, Vec::new());
        }
        &mut self.lines[self.row]
    }

    fn put(&mut self, letter: char) {
        let column = self.column;
        let line = self.line();
        if line.len() <= column {
            line.resize(column + 1, ' ');
        }
        line[column] = letter;
        self.column += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_written_anew_where_they_are() {
        let text = "id\r\nfirst: 0 \r\nsecond: ready\r\n\
                    \x1b[2A\r\x1b[2Kfirst: 1\r\x1b[2B\x1b[1A\r\x1b[2Kb\r\x1b[1Bend\r\n";
        assert_eq!(Screen::after(text).unwrap(), ["id", "first: 1", "b", "end"]);
        let redrawn = "a\r\nbbb\r\nccc\r\n\x1b[2A\x1b[JB\r\n";
        assert_eq!(Screen::after(redrawn).unwrap(), ["a", "B"]);
        let painted = "\x1b[31mred\x1b[0m words\rb";
        assert_eq!(Screen::after(painted).unwrap(), ["bed words"]);
    }

    #[test]
    fn orders_that_nobody_knows_are_told() {
        for text in ["\x1b[5X", "\x1b[", "\x1bc", "\x1b[1K"] {
            assert!(Screen::after(text).is_err(), "{text:?}");
        }
    }
}
