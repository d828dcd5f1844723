//! Everything that talks to the Linux kernel: TAP devices, batched UDP with segmentation offload,
//! epoll, network namespaces, route netlink, nftables, child processes in namespaces.
//!
//! No async, no threads that outlive a call, no policy: callers decide what to do, this crate does it.
//! It is the only crate of the workspace with `unsafe`; every block says why it is sound.
//!
//! Functions that act "in the current namespace" act in the namespace of the calling *thread*;
//! [`netns::Netns::run_in`] runs a closure on a thread inside another one. File descriptors keep the
//! namespace that they were opened in, so TAPs and sockets may be handed back out.

#![expect(unsafe_code, reason = "the one crate that talks to the kernel")]

pub mod affinity;
pub mod capabilities;
pub mod clock;
pub mod descriptors;
pub mod epoll;
pub mod error_text;
pub mod event;
pub mod instance_lock;
mod ioctl;
pub mod ipsec;
pub mod kernel_words;
pub mod mounts;
pub mod namespaces;
pub mod netlink;
pub mod netns;
pub mod netns_lock;
pub mod nft;
pub mod offload;
pub mod open_files;
pub mod pressure;
pub mod private_folder;
pub mod privileges;
pub mod process;
pub mod replace_file;
pub mod seccomp;
pub mod shared_words;
pub mod signals;
pub mod state_file;
pub mod tap;
pub mod terminal;
pub mod udp;
pub mod unwritable_program;
