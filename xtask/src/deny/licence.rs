//! SPDX licence expressions (SPDX 2.3 annex D).

use anyhow::{Context, bail, ensure};

/// Whether the licences that `allowed` knows suffice for what `expression` demands. A licence `WITH`
/// an exception is asked for as one.
pub(super) fn satisfied(
    expression: &str,
    allowed: &mut dyn FnMut(&str) -> bool,
) -> anyhow::Result<bool> {
    // Manifests from before SPDX write a slash where either may be chosen.
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words };
    let result = parser.either(allowed)?;
    ensure!(parser.words.is_empty(), "{:?} is left over", parser.words);
    Ok(result)
}

struct Parser<'a> {
    words: &'a [&'a str],
}

impl Parser<'_> {
    fn next_is(&mut self, word: &str) -> bool {
        let is = self.words.first() == Some(&word);
        if is {
            self.words = &self.words[1..];
        }
        is
    }

    fn either(&mut self, allowed: &mut dyn FnMut(&str) -> bool) -> anyhow::Result<bool> {
        let mut result = self.both(allowed)?;
        while self.next_is("OR") {
            // All are read, so that every licence in use is known.
            result |= self.both(allowed)?;
        }
        Ok(result)
    }

    /// AND binds closer than OR.
    fn both(&mut self, allowed: &mut dyn FnMut(&str) -> bool) -> anyhow::Result<bool> {
        let mut result = self.one(allowed)?;
        while self.next_is("AND") {
            result &= self.one(allowed)?;
        }
        Ok(result)
    }

    fn one(&mut self, allowed: &mut dyn FnMut(&str) -> bool) -> anyhow::Result<bool> {
        if self.next_is("(") {
            let result = self.either(allowed)?;
            ensure!(self.next_is(")"), "a bracket is not closed");
            return Ok(result);
        }
        let (id, rest) = self.words.split_first().context("a licence is missing")?;
        if matches!(*id, "OR" | "AND" | "WITH" | ")") {
            bail!("{id} stands where a licence should");
        }
        self.words = rest;
        if self.next_is("WITH") {
            let (exception, rest) = self.words.split_first().context("WITH what?")?;
            self.words = rest;
            return Ok(allowed(&format!("{id} WITH {exception}")));
        }
        Ok(allowed(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alternative_is_enough_and_all_parts_are_needed() {
        for (expression, suffices) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("MIT OR GPL-3.0", true),
            ("GPL-3.0/MIT", true),
            ("MIT AND GPL-3.0", false),
            ("MIT AND (GPL-3.0 OR ISC)", true),
            ("GPL-3.0 OR MIT AND ISC", true),
            ("(GPL-3.0 OR MIT) AND AGPL-3.0", false),
            ("ISC WITH some-exception", false),
            ("MIT OR ISC WITH some-exception", true),
            ("Apache-2.0 WITH LLVM-exception", true),
        ] {
            let mut allowed =
                |id: &str| matches!(id, "MIT" | "ISC" | "Apache-2.0 WITH LLVM-exception");
            let got = satisfied(expression, &mut allowed).unwrap();
            assert_eq!(got, suffices, "{expression}");
        }
    }

    #[test]
    fn what_is_no_expression_is_an_error() {
        for expression in [
            "", "MIT OR", "AND MIT", "(MIT", "MIT)", "MIT ISC", "MIT WITH",
        ] {
            let read = satisfied(expression, &mut |_| true);
            assert!(read.is_err(), "{expression}");
        }
    }
}
