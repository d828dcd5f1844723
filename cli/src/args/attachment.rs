//! `--network`: a network to join, with more names (docker/cli `opts/network.go`).

use weft_model::objects::NetworkAttachmentSpec;

/// Parses `NAME[,alias=A]…` or `name=NAME,alias=A[,alias=B]`.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn parse_attachment(text: &str) -> Result<NetworkAttachmentSpec, String> {
    let mut spec = NetworkAttachmentSpec::default();
    for (index, field) in text.split(',').enumerate() {
        match field.split_once('=') {
            None if index == 0 => spec.target = field.to_owned(),
            None => return Err(format!("invalid field {field}: expected key=value")),
            Some(("name", value)) => spec.target = value.to_owned(),
            Some(("alias", "")) => return Err("invalid alias: it is empty".to_owned()),
            Some(("alias", value)) => spec.aliases.push(value.to_owned()),
            Some((key, _)) => {
                return Err(format!("invalid field key {key}: known are name and alias"));
            }
        }
    }
    if spec.target.is_empty() {
        return Err("network name/id is not specified".to_owned());
    }
    Ok(spec)
}
