//! Small tools that the demo runs inside namespaces, so that it needs none of the machine's.

pub(crate) mod dns;
pub(crate) mod get;
pub(crate) mod http;
pub(crate) mod ping;
