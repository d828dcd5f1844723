//! Images: names of repositories and digests, clients of registries, the node's store of blobs and unpacked layers.

#![forbid(unsafe_code)]
