//! Counters of the node's DNS.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use weft_dns::Outcome;

/// What happened since the agent started, over all sandboxes.
///
/// Each query ends in one of `answered`, `nodata`, `nxdomain`, `servfail`, `refused`, `malformed`
/// and `dropped`, also when it was forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct DnsStats {
    /// Messages from sandboxes.
    pub(crate) queries: u64,
    /// Replies with records.
    pub(crate) answered: u64,
    /// Replies for a known name that has no record of the asked type.
    pub(crate) nodata: u64,
    /// Replies that deny the name.
    pub(crate) nxdomain: u64,
    /// Replies that nobody could be asked, or nobody answered.
    pub(crate) servfail: u64,
    /// Replies that too much is under way, or that such queries are not served.
    pub(crate) refused: u64,
    /// Messages that were not understood, answered with an error or by closing the connection.
    pub(crate) malformed: u64,
    /// Messages without a reply: too short, not a query, or the client was gone.
    pub(crate) dropped: u64,
    /// Queries for names outside the cluster.
    pub(crate) forwarded: u64,
    /// Messages from upstreams that fitted nothing that was asked.
    pub(crate) upstream_ignored: u64,
    /// Replies in the cache now.
    pub(crate) cached: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) queries: AtomicU64,
    answered: AtomicU64,
    nodata: AtomicU64,
    nxdomain: AtomicU64,
    servfail: AtomicU64,
    refused: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) forwarded: AtomicU64,
    pub(super) upstream_ignored: AtomicU64,
}

impl Counters {
    pub(super) fn outcome(&self, outcome: Outcome) {
        add(match outcome {
            Outcome::Answered => &self.answered,
            Outcome::NoData => &self.nodata,
            Outcome::NxDomain => &self.nxdomain,
            Outcome::ServFail => &self.servfail,
            Outcome::Refused => &self.refused,
            Outcome::Malformed => &self.malformed,
        });
    }

    pub(super) fn read(&self, cached: usize) -> DnsStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DnsStats {
            queries: get(&self.queries),
            answered: get(&self.answered),
            nodata: get(&self.nodata),
            nxdomain: get(&self.nxdomain),
            servfail: get(&self.servfail),
            refused: get(&self.refused),
            malformed: get(&self.malformed),
            dropped: get(&self.dropped),
            forwarded: get(&self.forwarded),
            upstream_ignored: get(&self.upstream_ignored),
            cached: cached as u64,
        }
    }
}

/// Counts one.
pub(super) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
