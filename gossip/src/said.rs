//! What a value says, decoded once, when it arrives.

use std::sync::Arc;

use weft_model::records::{EndpointRecord, LoadRecord, NodeRecord, PressureRecord, Table};

/// A value, decoded. Records that others keep are shared, not copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    Node(Arc<NodeRecord>),
    Endpoint(Arc<EndpointRecord>),
    Load(LoadRecord),
    Pressure(PressureRecord),
    /// No record of its table, or under another key than the record's own.
    Undecodable,
    /// Nothing: the entry was deleted, or is of a table that this version does not know.
    Nothing,
}

impl Said {
    /// A node speaks of itself under its own id, of its pressure too, and of an endpoint under the
    /// endpoint's.
    pub(crate) fn of(table: Option<Table>, owner: &str, key: &str, value: &[u8]) -> Self {
        let said = match table {
            Some(Table::Node) => serde_json::from_slice(value)
                .ok()
                .filter(|_| key == owner)
                .map(|record| Self::Node(Arc::new(record))),
            Some(Table::Endpoint) => serde_json::from_slice(value)
                .ok()
                .filter(|record: &EndpointRecord| key == record.id.as_str())
                .map(|record| Self::Endpoint(Arc::new(record))),
            Some(Table::Load) if key == owner => {
                serde_json::from_slice(value).ok().map(Self::Pressure)
            }
            Some(Table::Load) => serde_json::from_slice(value).ok().map(Self::Load),
            None => Some(Self::Nothing),
        };
        said.unwrap_or(Self::Undecodable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_speaks_of_itself_and_of_an_endpoint_under_its_id() {
        let said = |table, key, text: &str| Said::of(Some(table), "n", key, text.as_bytes());
        let is_node = |s: &Said| matches!(s, Said::Node(record) if record.mtu == 1500);
        assert!(is_node(&said(Table::Node, "n", r#"{"mtu": 1500}"#)));
        assert_eq!(
            said(Table::Node, "other", r#"{"mtu": 1500}"#),
            Said::Undecodable
        );
        let text = r#"{"id": "e", "ready": true, "of a later version": 1}"#;
        let is_endpoint = |s: &Said| matches!(s, Said::Endpoint(record) if record.ready);
        assert!(is_endpoint(&said(Table::Endpoint, "e", text)));
        assert_eq!(said(Table::Endpoint, "f", text), Said::Undecodable);
        let load = LoadRecord {
            active: 3,
            draining: false,
        };
        assert_eq!(said(Table::Load, "e", r#"{"active": 3}"#), Said::Load(load));
        let hot = r#"{"pressure": 4200}"#;
        let pressure = Said::Pressure(PressureRecord { pressure: 4200 });
        assert_eq!(said(Table::Load, "n", hot), pressure);
        assert_eq!(
            said(Table::Load, "other", hot),
            Said::Undecodable,
            "of itself only"
        );
        for table in [Table::Node, Table::Endpoint, Table::Load] {
            assert_eq!(said(table, "n", "1"), Said::Undecodable);
        }
        assert_eq!(Said::of(None, "n", "n", b"1"), Said::Nothing);
    }
}
