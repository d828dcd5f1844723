//! Small tools that demo, benches and tests run inside namespaces, so that they need none of the
//! machine's. The program runs them as `demo-dns`, `demo-get`, `demo-http`, `demo-ping`,
//! `bench-replica` and `bench-spin`.

pub mod dns;
pub mod get;
pub(crate) mod http;
pub(crate) mod ping;
pub mod replica;
pub(crate) mod spin;
