//! Small tools that demo and benches run inside namespaces, so that they need none of the
//! machine's.

pub(crate) mod dns;
pub(crate) mod get;
pub(crate) mod http;
pub(crate) mod ping;
pub(crate) mod replica;
