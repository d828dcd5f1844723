//! Templates in what a task is made of: its host name, the values of its environment, and its mounts
//! (swarmkit `template/`). Expanded on the task's node; a trial when the service is made finds
//! mistakes. Those of secrets and configs are in [`payload`].

use gtmpl::{Context, Func, FuncError, Template, Value};
use weft_model::objects::{ContainerSpec, Mount};

use super::error::CommandError;

mod payload;

pub(super) use payload::check as check_payload;
pub use payload::{PayloadLookups, expand_payload};

/// Actions, and parentheses, of one template at most: each is a step of depth for who reads it.
const MAX_DEPTH: usize = 64;
/// Longest template, in bytes.
const MAX_LEN: usize = 16 << 10;
/// Longest host name, in bytes.
const MAX_HOSTNAME: usize = 64;
/// Longest text that a `join` makes, in bytes: as long as a config.
const MAX_JOINED: usize = 1_024_000;

/// What begins an action.
const ACTION: &str = "{{";
/// What ends one.
const END: &str = "}}";

/// Words of actions that are not carried out: they call templates without end, print without, or give
/// what was made a name, by which the next action can make it twice as long.
const REFUSED: [&str; 6] = ["define", "template", "block", "printf", "with", "range"];

/// The same of characters: `$` names too, and behind the others an action may go on where it seems to
/// have ended.
const REFUSED_CHARS: [char; 4] = ['$', '\\', '`', '\''];

/// What templates can name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TemplateFields {
    /// `.Service.ID`
    pub service_id: String,
    /// `.Service.Name`
    pub service_name: String,
    /// `.Node.ID`
    pub node_id: String,
    /// `.Node.Hostname`
    pub node_hostname: String,
    /// `.Node.Platform.Architecture`, such as `x86_64`
    pub architecture: String,
    /// `.Node.Platform.OS`
    pub os: String,
    /// `.Task.ID`
    pub task_id: String,
    /// `.Task.Name`
    pub task_name: String,
    /// `.Task.Slot`; the node's id for tasks of global services
    pub task_slot: String,
}

impl TemplateFields {
    /// Of no task, for a trial: as long as real ones are.
    pub(super) fn trial() -> Self {
        let id = "0123456789abcdefghijklmno";
        Self {
            service_id: id.to_owned(),
            service_name: "service".to_owned(),
            node_id: id.to_owned(),
            node_hostname: "node".to_owned(),
            architecture: "x86_64".to_owned(),
            os: "linux".to_owned(),
            task_id: id.to_owned(),
            task_name: "task".to_owned(),
            task_slot: "1".to_owned(),
        }
    }

    fn value(&self) -> Value {
        let text = |text: &String| Value::String(text.clone());
        object([
            (
                "Service",
                object([
                    ("ID", text(&self.service_id)),
                    ("Name", text(&self.service_name)),
                ]),
            ),
            (
                "Node",
                object([
                    ("ID", text(&self.node_id)),
                    ("Hostname", text(&self.node_hostname)),
                    (
                        "Platform",
                        object([
                            ("Architecture", text(&self.architecture)),
                            ("OS", text(&self.os)),
                        ]),
                    ),
                ]),
            ),
            (
                "Task",
                object([
                    ("ID", text(&self.task_id)),
                    ("Name", text(&self.task_name)),
                    ("Slot", text(&self.task_slot)),
                ]),
            ),
        ])
    }
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let fields = fields.into_iter();
    Value::Object(fields.map(|(key, value)| (key.to_owned(), value)).collect())
}

/// swarmkit's one function: `join SEPARATOR A B…`.
fn join(args: &[Value]) -> Result<Value, FuncError> {
    let mut texts = args.iter().map(|arg| match arg {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    let separator = texts
        .next()
        .ok_or_else(|| FuncError::AtLeastXArgs("join".to_owned(), 1))?;
    let texts: Vec<String> = texts.collect();
    // Before there is room for it.
    let between = separator.len().saturating_mul(texts.len());
    let length = texts.iter().map(String::len).sum::<usize>();
    if length.saturating_add(between) > MAX_JOINED {
        return Err(FuncError::Generic(format!(
            "join comes to more than {MAX_JOINED} bytes"
        )));
    }
    Ok(Value::String(texts.join(&separator)))
}

/// What stands in the actions of a template. Without what is refused here, no text in quotes can hold
/// the end of an action.
fn actions(text: &str) -> Result<Vec<&str>, String> {
    let mut actions = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(ACTION) {
        let (action, next) = after
            .split_once(END)
            .ok_or_else(|| format!("an action has no {END}"))?;
        if let Some(c) = action.chars().find(|c| REFUSED_CHARS.contains(c)) {
            return Err(format!("{c} is not carried out here"));
        }
        if action.contains(ACTION) || !action.matches('"').count().is_multiple_of(2) {
            return Err(format!(
                "a text in an action cannot hold {ACTION} or {END} here"
            ));
        }
        actions.push(action);
        rest = next;
    }
    Ok(actions)
}

/// The text that a template stands for; a text without actions stands for itself.
///
/// # Errors
/// It is no template, or names what is not there.
pub fn expand(text: &str, fields: &TemplateFields) -> Result<String, CommandError> {
    if !text.contains(ACTION) {
        return Ok(text.to_owned());
    }
    let refused = |why: &str| {
        let shown: String = text.chars().take(64).collect();
        CommandError::bad(format!(
            "invalid template {shown:?}: {why}. There are .Service.ID and .Name, .Node.ID, .Hostname \
             and .Platform.Architecture and .OS, .Task.ID, .Name and .Slot, such as {{{{.Task.Slot}}}}"
        ))
    };
    if text.len() > MAX_LEN {
        return Err(refused("it is longer than 16 KiB"));
    }
    if text.matches(ACTION).count() > MAX_DEPTH || text.matches('(').count() > MAX_DEPTH {
        return Err(refused("it has more than 64 actions or parentheses"));
    }
    let actions = actions(text).map_err(|why| refused(&why))?;
    let mut inside = actions
        .iter()
        .flat_map(|action| action.split(|c: char| !c.is_ascii_alphanumeric()));
    if let Some(word) = inside.find(|word| REFUSED.contains(word)) {
        return Err(refused(&format!("{word} is not carried out here")));
    }
    let mut template = Template::default();
    template.add_funcs(&[("join", join as Func)]);
    let parsed = template.parse(text);
    parsed.map_err(|error| refused(&error.to_string()))?;
    let rendered = template.render(&Context::from(fields.value()));
    rendered.map_err(|error| {
        let error = error.to_string();
        // The library prints all that there is behind it.
        let what = error.split_once(" for {").map(|(what, _)| what);
        refused(what.unwrap_or(&error))
    })
}

/// A host name, expanded.
///
/// # Errors
/// As of [`expand`], or what comes out is no host name.
pub fn expand_hostname(text: &str, fields: &TemplateFields) -> Result<String, CommandError> {
    let name = expand(text, fields)?;
    let plain = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
    if name.is_empty() || name.len() > MAX_HOSTNAME || !plain {
        return Err(CommandError::bad(format!(
            "invalid hostname {:?}: letters, digits, hyphens and dots, {MAX_HOSTNAME} at most",
            name.chars().take(MAX_HOSTNAME + 1).collect::<String>()
        )));
    }
    Ok(name)
}

/// A mount, expanded: source and target, and of a volume the values of its labels and of its driver's
/// options.
///
/// # Errors
/// As of [`expand`].
pub fn expand_mount(mount: &Mount, fields: &TemplateFields) -> Result<Mount, CommandError> {
    let mut expanded = mount.clone();
    expanded.source = expand(&mount.source, fields)?;
    expanded.target = expand(&mount.target, fields)?;
    if let Some(volume) = &mut expanded.volume_options {
        let options = volume.driver_config.iter_mut();
        let options = options.flat_map(|driver| driver.options.values_mut());
        for value in volume.labels.values_mut().chain(options) {
            *value = expand(value, fields)?;
        }
    }
    Ok(expanded)
}

/// Tries all templates of a task, before there is one.
pub(super) fn check(container: &ContainerSpec) -> Result<(), CommandError> {
    let trial = TemplateFields::trial();
    if !container.hostname.is_empty() {
        expand_hostname(&container.hostname, &trial)?;
    }
    for pair in &container.env {
        if let Some((_, value)) = pair.split_once('=') {
            expand(value, &trial)?;
        }
    }
    for mount in &container.mounts {
        expand_mount(mount, &trial)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weft_model::objects::{VolumeDriver, VolumeOptions};

    use super::*;

    #[test]
    fn fields_are_swarmkits() {
        let fields = TemplateFields {
            task_slot: "3".to_owned(),
            ..TemplateFields::trial()
        };
        for (text, expanded) in [
            ("plain", "plain"),
            ("a{{.Task.Slot}}b", "a3b"),
            (
                "{{.Service.Name}}-{{.Task.Slot}}.{{.Node.Hostname}}",
                "service-3.node",
            ),
            (
                "{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}",
                "linux/x86_64",
            ),
            (r#"{{join "-" .Service.Name .Task.Slot}}"#, "service-3"),
            (r#"{{if eq .Task.Slot "3"}}yes{{end}}"#, "yes"),
        ] {
            assert_eq!(expand(text, &fields), Ok(expanded.to_owned()), "{text}");
        }
    }

    /// Sixty actions that double what there is would fill every memory.
    #[test]
    fn no_text_is_longer_than_its_template_says() {
        let named = format!(
            r#"{{{{$a := "xx"}}}}{}{{{{$a}}}}"#,
            r"{{$a = print $a $a}}".repeat(60)
        );
        let doubled = r"{{with print . .}}".repeat(30);
        let dot = format!(
            "{{{{with .Task.ID}}}}{doubled}{{{{.}}}}{}",
            "{{end}}".repeat(31)
        );
        for (bomb, what) in [
            (named.as_str(), "$ is"),
            (dot.as_str(), "with is"),
            ("{{range .Task}}{{.}}{{end}}", "range is"),
            // Where an action ends, whatever stands in quotes.
            (r#"{{"}}" | printf "%99999999d" 1}}"#, "cannot hold"),
            (r#"{{print "a" "\"}}" (printf "%9d" 1)}}"#, r"\ is"),
            ("{{print `}}` (printf `%9d` 1)}}", "` is"),
            (r#"{{print "{{"}}"#, "cannot hold"),
        ] {
            let error = expand(bomb, &TemplateFields::trial()).unwrap_err();
            assert!(error.message.contains(what), "{bomb}: {error}");
        }
        // Outside of actions everything is text.
        let text = r#"{"a":{"slot":{{.Task.Slot}}}} costs 5$ with `it's`\"#;
        let expanded = expand(text, &TemplateFields::trial());
        assert_eq!(
            expanded,
            Ok(r#"{"a":{"slot":1}} costs 5$ with `it's`\"#.to_owned())
        );
    }

    #[test]
    fn mounts_are_templates_too() {
        let fields = TemplateFields {
            task_slot: "3".to_owned(),
            ..TemplateFields::trial()
        };
        let text = |text: &str| text.to_owned();
        let mount = |source: &str, label: &str, option: &str| Mount {
            source: text(source),
            target: text("/data/{{.Service.Name}}"),
            volume_options: Some(VolumeOptions {
                subpath: text("{{.Task.Slot}}"),
                labels: BTreeMap::from([(text("{{.Nope}}"), text(label))]),
                driver_config: Some(VolumeDriver {
                    name: text("local"),
                    options: BTreeMap::from([(text("device"), text(option))]),
                }),
                ..VolumeOptions::default()
            }),
            ..Mount::default()
        };
        let given = mount(
            "data-{{.Task.Slot}}",
            "{{.Node.Hostname}}",
            "/x/{{.Task.Slot}}",
        );
        let mut expected = mount("data-3", "node", "/x/3");
        expected.target = text("/data/service");
        assert_eq!(expand_mount(&given, &fields), Ok(expected));
        for bad in [
            mount("{{.Task.Nope}}", "", ""),
            mount("", "{{.Task.Nope}}", ""),
            mount("", "", "{{.Task.Nope}}"),
        ] {
            let container = ContainerSpec {
                mounts: vec![bad],
                ..ContainerSpec::default()
            };
            let message = check(&container).unwrap_err().message;
            assert!(message.starts_with("invalid template "), "{message}");
        }
    }

    #[test]
    fn mistakes_are_told_before_there_is_a_task() {
        let deep = "{{(".repeat(1000);
        for text in [
            "{{.Task.Nope}}",
            "{{.Service.Labels}}",
            "{{",
            "{{nope}}",
            r#"{{define "a"}}{{template "a"}}{{end}}{{template "a"}}"#,
            r#"{{printf "%99999999d" 1}}"#,
            deep.as_str(),
        ] {
            let error = expand(text, &TemplateFields::trial()).unwrap_err();
            let message = error.message;
            assert!(message.starts_with("invalid template "), "{message}");
            assert!(message.contains("{{.Task.Slot}}"), "{message}");
        }
        let container = |hostname: &str, env: &str| ContainerSpec {
            hostname: hostname.to_owned(),
            env: vec![env.to_owned()],
            ..ContainerSpec::default()
        };
        for (hostname, env, fine) in [
            ("", "A=b", true),
            ("web-{{.Task.Slot}}", "A={{.Node.ID}}", true),
            ("", "A={{.Node.Id}}", false),
            ("a b", "A=b", false),
            ("{{.Task.ID}}{{.Task.ID}}{{.Task.ID}}", "A=b", false),
            // Names of variables are no templates.
            ("", "{{.Nope}}", true),
        ] {
            let checked = check(&container(hostname, env));
            assert_eq!(checked.is_ok(), fine, "{hostname} {env}: {checked:?}");
        }
    }
}
