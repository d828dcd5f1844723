//! Secrets and configs of tasks in a line for people.

use serde_json::Value;
use weft_model::objects::PayloadFile;

/// `[key, conf as /etc/app.conf]`; nothing of what is no list of secrets or configs in Docker's JSON.
#[must_use]
pub(super) fn references(value: &Value) -> Option<String> {
    let references = value.as_array().filter(|list| !list.is_empty())?;
    let words: Option<Vec<String>> = references.iter().map(reference).collect();
    Some(format!("[{}]", words?.join(", ")))
}

/// Its name, and what is not as it is where nobody says anything.
fn reference(value: &Value) -> Option<String> {
    let name = ["SecretName", "ConfigName"]
        .iter()
        .find_map(|key| value.get(key)?.as_str())?;
    let file = value.get("File")?;
    let said = |key: &str| file.get(key).and_then(Value::as_str).unwrap_or_default();
    let default = PayloadFile::default();
    let mut words = name.to_owned();
    let target = said("Name");
    if !target.is_empty() && target != name {
        words.push_str(&format!(" as {target}"));
    }
    for (key, word, usual) in [("UID", "uid", &default.uid), ("GID", "gid", &default.gid)] {
        if said(key) != usual {
            words.push_str(&format!(" {word} {}", said(key)));
        }
    }
    let mode = file.get("Mode").and_then(Value::as_u64);
    if let Some(mode) = mode.filter(|mode| *mode != u64::from(default.mode)) {
        words.push_str(&format!(" mode {mode:04o}"));
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_model::objects::SecretReference;

    use super::*;

    #[test]
    fn they_have_names_and_what_is_unusual() {
        let reference = |name: &str, file: PayloadFile| SecretReference {
            file,
            id: "s1".into(),
            name: name.to_owned(),
        };
        let file = |name: &str| PayloadFile {
            name: name.to_owned(),
            ..PayloadFile::default()
        };
        let private = PayloadFile {
            uid: "33".to_owned(),
            mode: 0o400,
            ..file("/etc/pass")
        };
        let list = [reference("key", file("key")), reference("pass", private)];
        let value = serde_json::to_value(list).expect("written");
        assert_eq!(
            references(&value).as_deref(),
            Some("[key, pass as /etc/pass uid 33 mode 0400]")
        );
        for other in [json!([]), json!(["A=1"]), json!({"SecretName": "key"})] {
            assert_eq!(references(&other), None, "{other}");
        }
    }
}
