//! The text of a template, before the library reads it.

use super::ranges::Open;

/// Name under which the library knows the function that prints as Go does.
pub(super) const SHOW: &str = "_show";

/// First words of actions that print nothing by themselves.
const KEYWORDS: [&str; 10] = [
    "if", "else", "end", "range", "with", "define", "template", "block", "break", "continue",
];

/// Sends what an action prints through [`SHOW`], writes ranges as the library can carry them out
/// ([`Open::replaced`]), and takes `\t` and `\n` outside of actions for a
/// tab and a line end, as in a shell. Inside of actions they are Go's.
pub(super) fn prepare(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 32);
    let mut open = Open::default();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(&literal(before));
        out.push_str("{{");
        let Some(end) = end_of_action(after) else {
            // Never closed: the library says so.
            out.push_str(after);
            return out;
        };
        let (action, behind) = after.split_at(end);
        let (body, trim) = match action.strip_suffix(" -") {
            Some(body) => (body, " -"),
            None => (action, ""),
        };
        let (front, inner) = match body.strip_prefix("- ") {
            Some(inner) => ("- ", inner),
            None => ("", body),
        };
        if let Some(actions) = open.replaced(inner) {
            out.push_str(front);
            out.push_str(&actions.join("}}{{"));
        } else {
            out.push_str(body);
            if prints(body) {
                out.push_str(" | ");
                out.push_str(SHOW);
            }
        }
        out.push_str(trim);
        out.push_str("}}");
        rest = behind.strip_prefix("}}").unwrap_or_default();
    }
    out.push_str(&literal(rest));
    out
}

fn literal(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// Where the `}}` is that closes the action: not one inside of a quoted text.
fn end_of_action(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match quote {
            Some('`') if letter == '`' => quote = None,
            Some('`') => {}
            Some(_) if letter == '\\' => drop(letters.next()),
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None if matches!(letter, '"' | '`' | '\'') => quote = Some(letter),
            None if text[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    None
}

fn prints(body: &str) -> bool {
    let body = body.strip_prefix("- ").unwrap_or(body).trim();
    let word = |text: &str| {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
        end.unwrap_or(text.len())
    };
    if body.is_empty() || body.starts_with("/*") {
        return false;
    }
    if let Some(variable) = body.strip_prefix('$') {
        let after = variable[word(variable)..].trim_start();
        return !(after.starts_with(":=") || after.starts_with('=') || after.starts_with(','));
    }
    !KEYWORDS.contains(&&body[..word(body)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_actions_that_print_are_changed() {
        for (text, prepared) in [
            ("a\\tb", "a\tb"),
            ("{{.A}}\\n{{ .B }}", "{{.A | _show}}\n{{ .B  | _show}}"),
            (r#"{{"\n"}}"#, r#"{{"\n" | _show}}"#),
            (r#"{{"a}}\"b"}}c"#, r#"{{"a}}\"b" | _show}}c"#),
            ("{{`}}`}}", "{{`}}` | _show}}"),
            ("{{- .A -}}", "{{- .A | _show -}}"),
            (
                "{{if .A}}x{{else}}{{.B}}{{end}}",
                "{{if .A}}x{{else}}{{.B | _show}}{{end}}",
            ),
            ("{{$x := .A}}{{$x}}", "{{$x := .A}}{{$x | _show}}"),
            ("{{$x.Y}}", "{{$x.Y | _show}}"),
            ("{{/* no }} here", "{{/* no }} here"),
            ("{{iffy}}", "{{iffy | _show}}"),
            (
                "{{range .A}}x{{else}}y{{end}}",
                "{{if _any (.A)}}{{range _values (.A)}}x{{end}}{{else}}y{{end}}",
            ),
            (
                "{{- range $k, $v := .A -}}x{{- end -}}",
                "{{- if _any (.A)}}{{range _pairs (.A)}}{{$k := .Key}}{{range $v := .Value -}}x\
                 {{- end}}{{end}}{{end -}}",
            ),
            (
                "{{range $v := .A}}{{if $v}}x{{else}}y{{end}}{{end}}",
                "{{if _any (.A)}}{{range $v := _values (.A)}}{{if $v}}x{{else}}y{{end}}{{end}}{{end}}",
            ),
            ("{{range}}{{end}}{{end}}", "{{range}}{{end}}{{end}}"),
            ("{{.A", "{{.A"),
            ("{{", "{{"),
            ("", ""),
        ] {
            assert_eq!(prepare(text), prepared, "{text}");
        }
    }
}
