//! A table of nftables without what changes by itself: numbers of rules, counters.

use std::collections::BTreeMap;

use serde_json::Value;

/// What is in a table, by kind and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shape(BTreeMap<String, Vec<String>>);

impl Shape {
    /// Reads what `nft -j list table` says.
    pub(super) fn of(table: &Value) -> Self {
        let mut shape = Self::default();
        let objects = table["nftables"].as_array();
        for object in objects.into_iter().flatten() {
            let Some((kind, body)) = object.as_object().and_then(|o| o.iter().next()) else {
                continue;
            };
            let (name, of_chain) = match kind.as_str() {
                "metainfo" => continue,
                "rule" => (&body["chain"], true),
                _ => (&body["name"], false),
            };
            let name = name.as_str().unwrap_or_default();
            let key = if of_chain {
                format!("chain {name}")
            } else {
                format!("{kind} {name}")
            };
            let mut body = body.clone();
            if let Some(elements) = body.get_mut("elem").and_then(Value::as_array_mut) {
                elements.sort_by_cached_key(Value::to_string);
            }
            settle(&mut body);
            shape.0.entry(key).or_default().push(body.to_string());
        }
        shape
    }

    /// What `found` has not, or has in another form, in the words of `nft`: only the table where
    /// there is none.
    pub(super) fn lost(&self, found: &Self) -> Vec<String> {
        if found.0.is_empty() {
            let tables = self.0.keys().filter(|name| name.starts_with("table "));
            return tables.cloned().collect();
        }
        let missing = |(name, body): &(&String, &Vec<String>)| found.0.get(*name) != Some(*body);
        let names = self.0.iter().filter(missing).map(|(name, _)| name.clone());
        names.collect()
    }
}

/// Takes out what changes without anybody changing a rule.
fn settle(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for name in ["handle", "packets", "bytes", "expires"] {
                fields.remove(name);
            }
            fields.values_mut().for_each(settle);
        }
        Value::Array(values) => values.iter_mut().for_each(settle),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table(elements: &[u16], rules: &[&str], packets: u64) -> Shape {
        let mut objects = vec![
            json!({"metainfo": {"version": "1.0.6"}}),
            json!({"table": {"family": "inet", "name": "t", "handle": packets}}),
            json!({"set": {"name": "s", "handle": packets, "elem": elements}}),
            json!({"counter": {"name": "n", "packets": packets, "bytes": packets}}),
            json!({"chain": {"name": "c", "hook": "input", "handle": packets}}),
        ];
        let rule = |text| {
            let expressions =
                json!([{"match": text}, {"counter": {"packets": packets, "bytes": 0}}]);
            json!({"rule": {"chain": "c", "handle": packets, "expr": expressions}})
        };
        objects.extend(rules.iter().map(rule));
        Shape::of(&json!({ "nftables": objects }))
    }

    #[test]
    fn counters_and_the_order_of_elements_are_no_difference() {
        let wanted = table(&[1, 2], &["a", "b"], 1);
        assert_eq!(wanted, table(&[2, 1], &["a", "b"], 7));
        let lost = |found: Shape| wanted.lost(&found).join(", ");
        assert_eq!(lost(table(&[2, 1, 3], &["a", "b"], 1)), "set s");
        for rules in [
            &["a"][..],
            &["b", "a"],
            &["a", "b", "c"],
            &["x", "a", "b"],
            &[],
        ] {
            assert_eq!(lost(table(&[1, 2], rules, 1)), "chain c", "{rules:?}");
        }
        let nothing = Shape::of(&Value::Null);
        assert_eq!(lost(nothing.clone()), "table t");
        assert_eq!(nothing.lost(&wanted), [""; 0]);
    }
}
