//! OCI containers on this node: the bundle of one, its root file system, and the runtime program (`runc`, `crun`).

#![forbid(unsafe_code)]
