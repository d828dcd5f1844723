//! Values as Go prints them: package `fmt`, as far as templates need it.

use gtmpl::Value;

use super::restored;

/// As `%v`, and as a template prints a value.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Nil | Value::NoValue => "<no value>".to_owned(),
        other => inner(other),
    }
}

/// A value inside of another one.
fn inner(value: &Value) -> String {
    match value {
        Value::Nil | Value::NoValue => "<nil>".to_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(inner).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) | Value::Map(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| key.as_str());
            let pairs: Vec<String> = pairs
                .into_iter()
                .map(|(key, value)| format!("{key}:{}", inner(value)))
                .collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

/// A quoted text, as `%q`.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in restored(text).chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if weft_model::text::is_unsafe(c) && u32::from(c) > 0xffff => {
                out.push_str(&format!("\\U{:08x}", u32::from(c)));
            }
            c if weft_model::text::is_unsafe(c) => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The kind of a value, for what Go says of a verb that does not fit.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "bool",
        Value::String(_) => "string",
        Value::Number(n) if n.as_i64().is_some() || n.as_u64().is_some() => "int",
        Value::Number(_) => "float64",
        Value::Array(_) => "[]interface {}",
        _ => "map[string]interface {}",
    }
}

/// One `%…` of a format.
#[derive(Debug, Default)]
struct Verb {
    left: bool,
    zeros: bool,
    plus: bool,
    width: usize,
    precision: Option<usize>,
}

/// Widest field that is made, in characters.
const MAX_WIDTH: usize = 4096;

impl Verb {
    fn read(format: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Self {
        let mut verb = Self::default();
        while let Some(flag) = format.next_if(|c| matches!(c, '-' | '0' | '+' | ' ' | '#')) {
            verb.left |= flag == '-';
            verb.zeros |= flag == '0';
            verb.plus |= flag == '+';
        }
        let mut number = || {
            let mut n = None;
            while let Some(digit) = format.peek().and_then(|c| c.to_digit(10)) {
                format.next();
                let digit = usize::try_from(digit).unwrap_or_default();
                n = Some((n.unwrap_or(0_usize) * 10 + digit).min(MAX_WIDTH));
            }
            n
        };
        verb.width = number().unwrap_or(0);
        if format.next_if_eq(&'.').is_some() {
            let mut precision = 0_usize;
            while let Some(digit) = format.peek().and_then(|c| c.to_digit(10)) {
                format.next();
                let digit = usize::try_from(digit).unwrap_or_default();
                precision = (precision * 10 + digit).min(MAX_WIDTH);
            }
            verb.precision = Some(precision);
        }
        verb
    }

    fn of(&self, letter: char, value: &Value) -> String {
        let cut = |text: String| match self.precision {
            Some(most) => text.chars().take(most).collect(),
            None => text,
        };
        let signed = |text: String| match self.plus && !text.starts_with('-') {
            true => format!("+{text}"),
            false => text,
        };
        let shown = match (letter, value) {
            ('s', Value::Number(_) | Value::Bool(_)) => self.misfit(letter, value),
            ('s', _) => cut(text(value)),
            ('v', Value::Number(_)) => signed(text(value)),
            ('v', _) => text(value),
            ('q', Value::String(s)) => quoted(&cut(s.clone())),
            ('q', Value::Array(items)) => {
                let items: Vec<String> = items.iter().map(|i| self.of('q', i)).collect();
                format!("[{}]", items.join(" "))
            }
            ('t', Value::Bool(b)) => b.to_string(),
            ('d', Value::Number(n)) if n.as_i64().is_some() || n.as_u64().is_some() => {
                signed(n.to_string())
            }
            ('f', Value::Number(n)) => match n.as_f64() {
                Some(f) => signed(format!("{f:.*}", self.precision.unwrap_or(6))),
                None => signed(n.to_string()),
            },
            ('x', Value::Number(n)) if n.as_u64().is_some() => {
                format!("{:x}", n.as_u64().unwrap_or_default())
            }
            ('X', Value::Number(n)) if n.as_u64().is_some() => {
                format!("{:X}", n.as_u64().unwrap_or_default())
            }
            ('x', Value::String(s)) => restored(s).bytes().map(|b| format!("{b:02x}")).collect(),
            ('X', Value::String(s)) => restored(s).bytes().map(|b| format!("{b:02X}")).collect(),
            _ => self.misfit(letter, value),
        };
        self.padded(shown, matches!(value, Value::Number(_)))
    }

    fn misfit(&self, letter: char, value: &Value) -> String {
        format!("%!{letter}({}={})", kind(value), text(value))
    }

    fn padded(&self, text: String, number: bool) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        if missing == 0 {
            text
        } else if self.left {
            text + &" ".repeat(missing)
        } else if self.zeros && number {
            let (sign, digits) = text.split_at(text.find(|c| !matches!(c, '-' | '+')).unwrap_or(0));
            format!("{sign}{}{digits}", "0".repeat(missing))
        } else {
            " ".repeat(missing) + &text
        }
    }
}

/// As Go's `Sprintf`.
pub(super) fn sprintf(format: &str, args: &[Value]) -> String {
    let mut out = String::new();
    let mut letters = format.chars().peekable();
    let mut args = args.iter();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let verb = Verb::read(&mut letters);
        match letters.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(letter) => match args.next() {
                None => out.push_str(&format!("%!{letter}(MISSING)")),
                Some(value) => out.push_str(&verb.of(letter, value)),
            },
        }
    }
    let extra: Vec<String> = args
        .map(|value| format!("{}={}", kind(value), text(value)))
        .collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

/// As Go's `Sprint`: a space between two values of which neither is a text.
pub(super) fn sprint(args: &[Value]) -> String {
    let mut out = String::new();
    let mut before_is_text = true;
    for value in args {
        let is_text = matches!(value, Value::String(_));
        if !before_is_text && !is_text {
            out.push(' ');
        }
        out.push_str(&text(value));
        before_is_text = is_text;
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn verbs_are_gos() {
        let s = Value::from("a\"b");
        let n = Value::from(42);
        for (format, args, expected) in [
            ("%q", vec![s.clone()], "\"a\\\"b\""),
            ("%5s|%-5s|", vec![s.clone(), s.clone()], "  a\"b|a\"b  |"),
            ("%.2s", vec![s.clone()], "a\""),
            ("%d %05d %x %+d", vec![n.clone(); 4], "42 00042 2a +42"),
            ("%v%%", vec![n.clone()], "42%"),
            ("%.2f", vec![Value::from(1.5)], "1.50"),
            ("%t", vec![Value::from(true)], "true"),
            ("%d", vec![s.clone()], "%!d(string=a\"b)"),
            ("%s", vec![], "%!s(MISSING)"),
            ("x", vec![n.clone()], "x%!(EXTRA int=42)"),
            ("%", vec![], "%!(NOVERB)"),
            ("%x", vec![s], "612262"),
        ] {
            assert_eq!(sprintf(format, &args), expected, "{format}");
        }
        assert_eq!(
            sprintf("%99999999999s", &[n]).len(),
            MAX_WIDTH.max("%!s(int=42)".len())
        );
    }

    #[test]
    fn maps_and_lists_are_gos() {
        let map: HashMap<String, Value> = [
            ("b".to_owned(), Value::Array(vec![1.into(), "x".into()])),
            ("a".to_owned(), Value::Nil),
        ]
        .into();
        assert_eq!(text(&Value::Map(map)), "map[a:<nil> b:[1 x]]");
        assert_eq!(text(&Value::NoValue), "<no value>");
        assert_eq!(
            sprint(&["a".into(), 1.into(), 2.into(), "b".into()]),
            "a1 2b"
        );
    }
}
