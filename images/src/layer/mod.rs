//! One layer: a tar archive from a stranger, unpacked into a folder of its own.
//!
//! Each file does one thing: `stream` makes bytes of compressed ones, `members` makes entries of
//! bytes, `plan` says what an entry comes to or why it is refused (no I/O), `extract` does it.
//! [`crate::unpack`] puts them together.

mod entry;
mod error;
mod extract;
mod limits;
mod members;
mod pax;
mod plan;
mod sparse;
mod stream;
mod tree;

pub(crate) use error::Fault;
pub use error::{LayerError, Refusal};
pub(crate) use extract::Extractor;
pub use extract::opaque_attribute;
pub use limits::Limits;
pub(crate) use members::Members;
pub(crate) use plan::plan;
pub(crate) use stream::Stream;
pub(crate) use tree::remove_path;
