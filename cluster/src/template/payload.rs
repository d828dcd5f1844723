//! Templates in secrets and configs (swarmkit `template/context.go`, `PayloadContext`): the fields of
//! other templates, and what else the task sees.
//!
//! What a template of a secret says is a secret: no error repeats it, but for names of fields and of
//! files.

use std::io;

use gtmpl::error::ExecError;
use gtmpl::{Context, Func, Template, Value};

use super::super::error::CommandError;
use super::{ACTION, END, MAX_DEPTH, REFUSED, REFUSED_CHARS, TemplateFields, join};

/// Actions of one template at most, and texts that it looks up.
const MAX_ACTIONS: usize = 1024;
/// Words of one action at most: each may be a copy of what it stands for while it is carried out.
const MAX_WORDS: usize = 256;
/// What a field is called that stands for a text that was looked up; its number follows.
const LOOKUP: &str = "Lookup";

/// What the task of a template sees besides.
pub trait PayloadLookups {
    /// Bytes of the secret that the task sees as a file of that name (its target, as the service has
    /// it), as they are, also where they are a template themselves.
    fn secret(&self, target: &str) -> Option<&[u8]>;
    /// The same of a config.
    fn config(&self, target: &str) -> Option<&[u8]>;
    /// Value of a variable of its environment.
    fn env(&self, key: &str) -> Option<String>;
}

/// A function that looks something up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Secret,
    Config,
    Env,
}

impl Function {
    const ALL: [Self; 3] = [Self::Secret, Self::Config, Self::Env];

    fn word(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Config => "config",
            Self::Env => "env",
        }
    }
}

/// What is looked up: `{{secret "key"}}`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lookup<'a> {
    function: Function,
    name: &'a str,
}

impl Lookup<'_> {
    /// The text, or why there is none. As in swarmkit, a variable that is not there is empty.
    fn text(&self, lookups: &dyn PayloadLookups) -> Result<String, String> {
        let (what, name) = (self.function.word(), self.name);
        let bytes = match self.function {
            Function::Env => return Ok(lookups.env(name).unwrap_or_default()),
            Function::Secret => lookups.secret(name),
            Function::Config => lookups.config(name),
        };
        let bytes = bytes.ok_or_else(|| {
            format!("{what} target {name} not found: the service does not have it as a file of that name")
        })?;
        let text = std::str::from_utf8(bytes);
        let text = text.map_err(|_| format!("{what} target {name} is no text in UTF-8"))?;
        Ok(text.to_owned())
    }
}

/// A part of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    /// With the number of its line.
    Action(usize, &'a str),
}

fn refused(why: &str) -> CommandError {
    CommandError::bad(format!(
        "invalid template: {why}. There are .Service.ID and .Name, .Node.ID, .Hostname and \
         .Platform.Architecture and .OS, .Task.ID, .Name and .Slot, and secret, config and env with a \
         name in quotes, such as {{{{env \"KEY\"}}}}"
    ))
}

/// Where the action ends that `rest` begins with, and whether it is a comment. Without what is
/// refused here, that is where the library has it end.
fn action_end(rest: &str) -> Result<(usize, bool), String> {
    let trimmed = rest.strip_prefix("- ").unwrap_or(rest);
    if trimmed.starts_with("/*") {
        let end = rest.find("*/").map(|end| end + "*/".len());
        let end = end.map(|end| {
            let dash = if rest[end..].starts_with(" -") { 2 } else { 0 };
            end + dash
        });
        return match end {
            Some(end) if rest[end..].starts_with(END) => Ok((end, true)),
            _ => Err(format!("a comment has to end with */{END}")),
        };
    }
    let mut quoted = false;
    for (at, c) in rest.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '\n' | '\r' => return Err("an action has to stand on one line".to_owned()),
            '\\' => return Err("\\ is not carried out here".to_owned()),
            _ if quoted => {}
            '}' if rest[at..].starts_with(END) => return Ok((at, false)),
            '{' if rest[at..].starts_with(ACTION) => {
                return Err(format!("there is {ACTION} within an action"));
            }
            _ if REFUSED_CHARS.contains(&c) => {
                return Err(format!("{c} is not carried out here"));
            }
            _ if c.is_ascii() => {}
            _ => return Err("a letter outside of quotes that is none of English".to_owned()),
        }
    }
    Err(format!("an action has no {END}"))
}

/// The parts of a template but for comments, and with the white space gone that actions take away: where
/// a letter of several bytes comes before it, the library would end within that.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];
    let (mut pieces, mut actions, mut line) = (Vec::new(), 0, 1);
    let breaks = |part: &str| part.matches('\n').count();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(ACTION) {
        actions += 1;
        if actions > MAX_ACTIONS {
            return Err(format!("it has more than {MAX_ACTIONS} actions"));
        }
        line += breaks(before);
        let at = |why: String| format!("line {line}: {why}");
        let (end, comment) = action_end(after).map_err(at)?;
        let (inside, next) = after.split_at(end);
        let next = next.strip_prefix(END).unwrap_or(next);
        let (before, inside) = match inside.strip_prefix("- ") {
            Some(inside) => (before.trim_end_matches(SPACE), inside),
            None => (before, inside),
        };
        let (inside, next) = match inside.strip_suffix(" -") {
            Some(inside) => (inside, next.trim_start_matches(SPACE)),
            None => (inside, next),
        };
        pieces.push(Piece::Text(before));
        if !comment {
            if inside.starts_with("- ") || inside.ends_with(" -") {
                return Err(at("the action cannot be read".to_owned()));
            }
            pieces.push(Piece::Action(line, inside));
        }
        let gone = after.len() - next.len();
        line += after.get(..gone).map_or(0, breaks);
        rest = next;
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

/// A template as the library is given it.
struct Prepared<'a> {
    /// Each call that looks something up is a field.
    text: String,
    /// By the number of the field.
    lookups: Vec<Lookup<'a>>,
    /// What is in each action, with its line.
    actions: Vec<(usize, String)>,
}

/// The function that an action calls at the end of `outside`, before the quotes that follow; and what
/// comes before the call.
fn called(outside: &str) -> Option<(Function, &str)> {
    let head = outside.trim_end();
    Function::ALL.into_iter().find_map(|function| {
        let before = head.strip_suffix(function.word())?;
        let part_of_another = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
        (!before.ends_with(part_of_another)).then_some((function, before))
    })
}

/// Words of what stands outside of quotes that are not carried out.
fn check_words(outside: &str) -> Result<(), String> {
    let words = outside.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.')));
    for word in words {
        // All fields at once, and with them all that is looked up, copied each time.
        if word == "." {
            return Err("a dot by itself is not carried out here".to_owned());
        }
        if let Some(function) = Function::ALL.iter().find(|one| one.word() == word) {
            return Err(one_name(*function));
        }
        let mut parts = word.split('.');
        if let Some(part) = parts.find(|part| REFUSED.contains(part) || part.starts_with(LOOKUP)) {
            return Err(format!("{part} is not carried out here"));
        }
    }
    Ok(())
}

/// Words and texts in quotes of an action: what it has a function called with, and more.
fn words(action: &str) -> usize {
    let quoted = action.split('"').skip(1).step_by(2).count();
    let outside = action.split('"').step_by(2);
    quoted
        + outside
            .map(|part| part.split_whitespace().count())
            .sum::<usize>()
}

/// How deep conditions and parentheses of an action may be one within another.
fn depth(action: &str) -> usize {
    let outside = action.split('"').step_by(2);
    let depths = outside.map(|part| {
        let words = part.split(|c: char| !c.is_ascii_alphanumeric());
        part.matches('(').count() + words.filter(|word| *word == "if").count()
    });
    depths.sum()
}

/// What the library makes of a template. What it says of one that it cannot read repeats it.
fn read(text: &str) -> Option<Template> {
    let mut template = Template::default();
    template.add_funcs(&[("join", join as Func)]);
    template.parse(text).is_ok().then_some(template)
}

impl<'a> Prepared<'a> {
    fn new(text: &'a [u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "it is no text in UTF-8".to_owned())?;
        let mut this = Self {
            text: String::with_capacity(text.len()),
            lookups: Vec::new(),
            actions: Vec::new(),
        };
        let mut deep = 0;
        for piece in pieces(text)? {
            match piece {
                Piece::Text(text) => match text.strip_suffix('{') {
                    // With what follows it, it would begin an action.
                    Some(head) => {
                        this.text.push_str(head);
                        this.put("\"{\"");
                    }
                    None => this.text.push_str(text),
                },
                Piece::Action(line, inside) => {
                    if words(inside) > MAX_WORDS {
                        return Err(format!(
                            "line {line}: an action has more than {MAX_WORDS} words"
                        ));
                    }
                    deep += depth(inside);
                    let action = this.without_calls(inside);
                    let action = action.map_err(|why| format!("line {line}: {why}"))?;
                    this.put(&action);
                    this.actions.push((line, action));
                }
            }
        }
        if deep > MAX_DEPTH {
            return Err(format!(
                "its actions have more than {MAX_DEPTH} conditions or parentheses"
            ));
        }
        Ok(this)
    }

    fn put(&mut self, inside: &str) {
        for part in [ACTION, inside, END] {
            self.text.push_str(part);
        }
    }

    /// An action with fields in place of what is looked up.
    fn without_calls(&mut self, action: &'a str) -> Result<String, String> {
        let mut parts = action.split('"');
        let mut done = String::with_capacity(action.len());
        while let Some(outside) = parts.next() {
            let Some(quoted) = parts.next() else {
                check_words(outside)?;
                done.push_str(outside);
                break;
            };
            let Some((function, before)) = called(outside) else {
                check_words(outside)?;
                for part in [outside, "\"", quoted, "\""] {
                    done.push_str(part);
                }
                continue;
            };
            check_words(before)?;
            let mut behind = parts.clone();
            let next = behind.next().map_or("", str::trim_start);
            let is_last = next.is_empty() && behind.next().is_none();
            if !(is_last || next.starts_with(['|', ')'])) {
                return Err(one_name(function));
            }
            let number = self.number(Lookup {
                function,
                name: quoted,
            })?;
            done.push_str(before);
            done.push_str(&format!(".{LOOKUP}{number}"));
        }
        Ok(done)
    }

    /// The number of what is looked up, the same for the same.
    fn number(&mut self, lookup: Lookup<'a>) -> Result<usize, String> {
        let known = self.lookups.iter().position(|one| *one == lookup);
        if let Some(known) = known {
            return Ok(known);
        }
        if self.lookups.len() >= MAX_ACTIONS {
            return Err(format!("more than {MAX_ACTIONS} texts are looked up"));
        }
        self.lookups.push(lookup);
        Ok(self.lookups.len() - 1)
    }

    /// As the library reads it.
    fn parse(&self) -> Result<Template, String> {
        read(&self.text).ok_or_else(|| self.unreadable())
    }

    /// The first action that is none by itself.
    fn unreadable(&self) -> String {
        let bad = self.actions.iter().find(|(_, action)| {
            let mut words = action.split_whitespace();
            let alone = match words.next() {
                Some("else" | "end") => return false,
                Some("if") => format!("{ACTION}{action}{END}{ACTION}end{END}"),
                _ => format!("{ACTION}{action}{END}"),
            };
            read(&alone).is_none()
        });
        match bad {
            Some((line, _)) => format!(
                "line {line}: the action cannot be read, or calls a function that there is not"
            ),
            None => "a condition has no end, or an end no condition".to_owned(),
        }
    }

    /// Everything that it may name. What cannot be looked up is missed only where it is asked for.
    fn value(
        &self,
        fields: &TemplateFields,
        lookups: &dyn PayloadLookups,
        max_bytes: usize,
    ) -> Result<Value, String> {
        let mut value = fields.value();
        let mut left = max_bytes;
        if let Value::Object(all) = &mut value {
            for (number, lookup) in self.lookups.iter().enumerate() {
                if let Ok(text) = lookup.text(lookups) {
                    let rest = left.checked_sub(text.len());
                    left = rest.ok_or_else(|| too_long(max_bytes))?;
                    all.insert(format!("{LOOKUP}{number}"), Value::String(text));
                }
            }
        }
        Ok(value)
    }

    /// The lookup that a field stands for.
    fn lookup(&self, field: &str) -> Option<&Lookup<'a>> {
        let number: usize = field.strip_prefix(LOOKUP)?.parse().ok()?;
        self.lookups.get(number)
    }

    /// Why the library gave up, without the values that it would show.
    fn why(&self, error: &ExecError, lookups: &dyn PayloadLookups) -> String {
        let ExecError::NoFiledFor(field, _) = error else {
            return "an action of it cannot be carried out with what it names".to_owned();
        };
        let Some(lookup) = self.lookup(field) else {
            return format!("there is no field {field}");
        };
        let missing = lookup.text(lookups).err();
        missing.unwrap_or_else(|| format!("{} cannot be looked up", lookup.name))
    }
}

fn one_name(function: Function) -> String {
    format!(
        "{} takes one name in quotes, and nothing else",
        function.word()
    )
}

fn too_long(max_bytes: usize) -> String {
    format!("what comes out of it has more than {max_bytes} bytes")
}

/// What comes out, up to so many bytes.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
    /// There was more.
    over: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.most - self.bytes.len() {
            self.over = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether bytes have anything of a template.
fn has_actions(text: &[u8]) -> bool {
    text.windows(ACTION.len())
        .any(|part| part == ACTION.as_bytes())
}

/// The bytes that a template of a secret or a config stands for, `max_bytes` at most; bytes without
/// actions stand for themselves. Besides the fields of [`super::expand`] there are swarmkit's functions
/// `secret`, `config` and `env`, each with a name in quotes. What they find goes in as it is, also where
/// it is a template itself.
///
/// # Errors
/// It is no template, names what is not there, or has too much in it. What it says is not repeated, as
/// it may be a secret.
pub fn expand_payload(
    text: &[u8],
    fields: &TemplateFields,
    lookups: &dyn PayloadLookups,
    max_bytes: usize,
) -> Result<Vec<u8>, CommandError> {
    if !has_actions(text) {
        return Ok(text.to_vec());
    }
    let prepared = Prepared::new(text).map_err(|why| refused(&why))?;
    let template = prepared.parse().map_err(|why| refused(&why))?;
    let value = prepared.value(fields, lookups, max_bytes);
    let context = Context::from(value.map_err(|why| refused(&why))?);
    let mut out = Bounded {
        bytes: Vec::with_capacity(text.len()),
        most: max_bytes,
        over: false,
    };
    match template.execute(&mut out, &context) {
        Ok(()) => Ok(out.bytes),
        Err(_) if out.over => Err(refused(&too_long(max_bytes))),
        Err(error) => Err(refused(&prepared.why(&error, lookups))),
    }
}

/// Tries a template as far as that can be done without a task.
pub(crate) fn check(text: &[u8]) -> Result<(), CommandError> {
    if !has_actions(text) {
        return Ok(());
    }
    let prepared = Prepared::new(text).map_err(|why| refused(&why))?;
    prepared.parse().map(drop).map_err(|why| refused(&why))
}

#[cfg(test)]
mod tests;
