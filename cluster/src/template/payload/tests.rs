use super::*;

/// A task with one secret, a config that is none of UTF-8, and a variable.
struct Task;

impl PayloadLookups for Task {
    fn secret(&self, target: &str) -> Option<&[u8]> {
        match target {
            "key" => Some(b"hunter2"),
            "template" => Some(b"{{.Task.Slot}}"),
            _ => None,
        }
    }

    fn config(&self, target: &str) -> Option<&[u8]> {
        match target {
            "/etc/raw" => Some(&[0xff, 0xfe]),
            "long" => Some(&[b'x'; 1000]),
            _ => None,
        }
    }

    fn env(&self, key: &str) -> Option<String> {
        (key == "GREETING").then(|| "gr\u{fc}\u{df} {{.Service.Name}}".to_owned())
    }
}

fn expanded(text: &str) -> Result<String, String> {
    let bytes = expand_payload(text.as_bytes(), &TemplateFields::trial(), &Task, 1500);
    let bytes = bytes.map_err(|error| error.message)?;
    Ok(String::from_utf8(bytes).expect("text"))
}

fn refusal(text: &str) -> String {
    let message = expanded(text).expect_err(text);
    assert!(message.starts_with("invalid template: "), "{message}");
    assert!(message.contains("{{env \"KEY\"}}"), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
    message
}

#[test]
fn functions_are_swarmkits() {
    for (text, out) in [
        ("plain", "plain"),
        ("a={{secret \"key\"}}\n", "a=hunter2\n"),
        ("{{- secret \"key\" -}} \n", "hunter2"),
        (
            "\u{fc} \n{{- env \"NOTHING\" -}}\t\u{fc} {{- /* no */ -}} .",
            "\u{fc}\u{fc}.",
        ),
        // What becomes neighbours is no action.
        ("{ {{- /* no */ -}} { printf 1 }}", "{{ printf 1 }}"),
        ("[{ {{- env \"NOTHING\" -}} {{/**/}} {", "[{ {"),
        // As it is, also where it is a template.
        ("{{secret \"template\"}}", "{{.Task.Slot}}"),
        ("{{env \"GREETING\"}}", "gr\u{fc}\u{df} {{.Service.Name}}"),
        ("<{{env \"NOTHING\"}}>", "<>"),
        ("{{.Service.Name}}.{{.Task.Slot}}", "service.1"),
        (
            "{{join \":\" .Service.Name (secret \"key\") (env \"X\")}}",
            "service:hunter2:",
        ),
        (
            "{{if eq (secret \"key\") \"hunter2\"}}yes{{else}}no{{end}}",
            "yes",
        ),
        ("{{if env \"NOTHING\"}}yes{{else}}no{{end}}", "no"),
        ("{{secret \"key\" | urlquery}}", "hunter2"),
        // What is not asked for is not missed.
        ("{{if env \"NOTHING\"}}{{secret \"nope\"}}{{end}}.", "."),
        ("{{/* secret of {{nobody}} */}}x", "x"),
        // Templates of others, as Prometheus has them.
        ("{{\"{{\"}} $labels.job {{\"}}\"}}", "{{ $labels.job }}"),
        ("it's \u{fc}ber `{}` $x", "it's \u{fc}ber `{}` $x"),
    ] {
        assert_eq!(expanded(text), Ok(out.to_owned()), "{text}");
    }
    let raw = expand_payload(&[0xff, b'{'], &TemplateFields::trial(), &Task, 10);
    assert_eq!(raw, Ok(vec![0xff, b'{']), "bytes that are no template");
}

#[test]
fn what_a_task_does_not_see_is_named() {
    for (text, says) in [
        ("{{secret \"nope\"}}", "secret target nope not found"),
        ("{{config \"key\"}}", "config target key not found"),
        (
            "{{config \"/etc/raw\"}}",
            "config target /etc/raw is no text in UTF-8",
        ),
        (
            "{{.Task.Nope}} {{secret \"key\"}}",
            "there is no field Nope",
        ),
        ("{{.Secrets}}", "there is no field Secrets"),
    ] {
        let message = refusal(text);
        assert!(message.contains(says), "{text}: {message}");
    }
}

#[test]
fn what_is_not_carried_out_is_refused_with_its_line() {
    for (text, says) in [
        (
            "\n{{secret .Task.Slot}}",
            "line 2: secret takes one name in quotes",
        ),
        (
            "{{secret \"key\" \"b\"}}",
            "line 1: secret takes one name in quotes",
        ),
        ("{{\"key\" | secret}}", "secret takes one name in quotes"),
        (
            "{{range .Task}}{{.}}{{end}}",
            "range is not carried out here",
        ),
        (
            "{{printf \"%99999999d\" 1}}",
            "printf is not carried out here",
        ),
        ("{{print . .}}", "a dot by itself is not carried out here"),
        ("{{secret \"key\"}}{{(.)}}", "a dot by itself"),
        ("{{$a := secret \"key\"}}", "$ is not carried out here"),
        (
            "{{.Lookup0}}{{secret \"key\"}}",
            "Lookup0 is not carried out here",
        ),
        ("{{secret \"key\"", "an action has no }}"),
        ("{{ {{ }}", "there is {{ within an action"),
        ("a\nb {{\n}}", "line 2: an action has to stand on one line"),
        ("{{\u{fc}}}", "none of English"),
        (
            "\n\n{{nope \"hunter2\"}}",
            "line 3: the action cannot be read",
        ),
        ("{{if .Task.Slot}}", "a condition has no end"),
        (
            "{{- /*\n*/ -}}\n{{- - x}}",
            "line 3: the action cannot be read",
        ),
        ("{{/* }}", "a comment has to end with */}}"),
    ] {
        let message = refusal(text);
        assert!(message.contains(says), "{text}: {message}");
        let checked = check(text.as_bytes()).expect_err(text).message;
        assert_eq!(checked, message, "{text}");
    }
    let text = [&b"{{secret \"key\"}}"[..], &[0xff]].concat();
    let message = check(&text).expect_err("no text").message;
    assert!(message.contains("it is no text in UTF-8"), "{message}");
}

#[test]
fn no_template_is_a_bomb() {
    let long = "{{config \"long\"}}";
    assert_eq!(expanded(long).map(|out| out.len()), Ok(1000));
    let twice = refusal(&long.repeat(2));
    assert!(twice.contains("has more than 1500 bytes"), "{twice}");
    let many = refusal(&"{{env \"A\"}}".repeat(MAX_ACTIONS + 1));
    assert!(many.contains("more than 1024 actions"), "{many}");
    let nested = format!(
        "{}{}",
        "{{if true}}".repeat(MAX_DEPTH + 1),
        "{{end}}".repeat(MAX_DEPTH + 1)
    );
    let nested = refusal(&nested);
    assert!(nested.contains("more than 64 conditions"), "{nested}");
    // Little text, and as much between each two of nothing.
    let words = refusal(&format!("{{{{join \"x\"{}}}}}", " \"\"".repeat(300)));
    assert!(words.contains("more than 256 words"), "{words}");
    let joined = format!(
        "{{{{join \"{}\"{}}}}}",
        "x".repeat(9000),
        " \"\"".repeat(200)
    );
    refusal(&joined);
    let deep = refusal(&format!("{{{{{}", "(".repeat(1000)));
    assert!(deep.contains("an action has no }}"), "{deep}");
    let deep = refusal(&format!("{{{{{}}}}}", "(".repeat(1000)));
    assert!(deep.contains("parentheses"), "{deep}");
}

#[test]
fn what_needs_a_task_is_not_missed_before_there_is_one() {
    assert_eq!(check(b"{{secret \"nope\"}} {{.Task.Nope}}"), Ok(()));
    assert_eq!(check(&[0xff, 0xfe]), Ok(()));
}
