//! `inspect` speaks docker's spelling: `ID`, `Spec`, `CreatedAt`, instead of the API's.

use serde_json::{Map, Value};

/// Keys below these are words of the user and stay as they are.
const USER_KEYS: [&str; 2] = ["labels", "options"];

/// Unix milliseconds below these keys become RFC 3339 text.
const TIMES: [&str; 5] = [
    "created_at",
    "updated_at",
    "since",
    "certified",
    "last_error_at",
];

/// Respells every key of an API object in docker's way, and shows times as text.
///
/// The object inside the key `inner` (when there is one) is lifted to the top, so that
/// `{{.ID}}` and `{{.Spec.Name}}` work as they do with docker.
#[must_use]
pub(crate) fn docker_case(value: Value, inner: &str) -> Value {
    let value = match value {
        Value::Object(mut outer) => match outer.remove(inner) {
            Some(Value::Object(lifted)) => {
                let mut all = lifted;
                all.extend(outer);
                Value::Object(all)
            }
            Some(other) => {
                outer.insert(inner.to_owned(), other);
                Value::Object(outer)
            }
            None => Value::Object(outer),
        },
        other => other,
    };
    respell(value)
}

fn respell(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(key, value)| {
                    let value = if USER_KEYS.contains(&key.as_str()) {
                        value
                    } else if TIMES.contains(&key.as_str()) {
                        time(value)
                    } else {
                        respell(value)
                    };
                    (docker_key(&key), value)
                })
                .collect::<Map<_, _>>(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(respell).collect()),
        other => other,
    }
}

fn time(value: Value) -> Value {
    value
        .as_i64()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or(value, |t| Value::String(t.to_string()))
}

fn docker_key(key: &str) -> String {
    key.split('_')
        .map(|word| match word {
            "id" => "ID".to_owned(),
            "ip" => "IP".to_owned(),
            "ips" => "IPs".to_owned(),
            "vni" => "VNI".to_owned(),
            "mtu" => "MTU".to_owned(),
            "mac" => "MAC".to_owned(),
            "vip" => "VIP".to_owned(),
            "vips" => "VIPs".to_owned(),
            "cidr" => "CIDR".to_owned(),
            "ipv6" => "IPv6".to_owned(),
            _ => {
                let mut letters = word.chars();
                letters
                    .next()
                    .map(|first| first.to_uppercase().chain(letters).collect())
                    .unwrap_or_default()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_dockers_and_labels_are_the_users() {
        let api = json!({
            "service": {"id": "abc", "spec": {"name": "web", "labels": {"my_label": "x"}},
                        "meta": {"created_at": 0}, "vips": [{"ip": "10.0.0.2"}]},
            "port_errors": [],
        });
        assert_eq!(
            docker_case(api, "service"),
            json!({
                "ID": "abc", "Spec": {"Name": "web", "Labels": {"my_label": "x"}},
                "Meta": {"CreatedAt": "1970-01-01T00:00:00Z"}, "VIPs": [{"IP": "10.0.0.2"}],
                "PortErrors": [],
            })
        );
    }
}
