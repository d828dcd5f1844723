//! Replies of upstreams, kept for as long as their records live.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record};
use weft_wire::Instant;

use crate::reply::{Outcome, Reply};
use crate::shares::{Shares, Tenant};

/// Bounds of the cache of outside names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// Replies kept.
    pub entries: usize,
    /// Sum of the sizes of kept queries and replies, in bytes.
    pub bytes: usize,
    /// Longest time for which a reply with records is kept.
    pub positive: Duration,
    /// Longest time for which "no such name" or "no such record" is kept (RFC 2308).
    pub negative: Duration,
}

impl Default for CacheLimits {
    /// 4096 replies, 2 MiB, five minutes, half a minute.
    fn default() -> Self {
        Self {
            entries: 4096,
            bytes: 2 << 20,
            positive: Duration::from_secs(300),
            negative: Duration::from_secs(30),
        }
    }
}

/// A query without its id, behind one byte for its transport. Replies fit exactly those clients
/// that sent the same bytes: same EDNS, same DO and CD, same letter case.
pub(crate) type Key = Arc<[u8]>;

/// Bounded map from queries to replies. When it is full, who keeps the most of it loses what expires
/// first, so that nobody's names are pushed out by another's.
#[derive(Debug)]
pub(crate) struct Cache {
    limits: CacheLimits,
    entries: BTreeMap<Key, Entry>,
    by_expiry: BTreeSet<(Instant, Key)>,
    by_tenant: BTreeSet<(Tenant, Instant, Key)>,
    bytes: usize,
    /// Entries and bytes of each tenant.
    counts: Shares,
    sizes: Shares,
}

#[derive(Debug)]
struct Entry {
    /// Who asked first.
    tenant: Tenant,
    stored: Instant,
    expires: Instant,
    reply: Box<[u8]>,
}

impl Cache {
    pub(crate) fn new(limits: CacheLimits) -> Self {
        Self {
            limits,
            entries: BTreeMap::new(),
            by_expiry: BTreeSet::new(),
            by_tenant: BTreeSet::new(),
            bytes: 0,
            counts: Shares::default(),
            sizes: Shares::default(),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.by_expiry.clear();
        self.by_tenant.clear();
        self.bytes = 0;
        self.counts.clear();
        self.sizes.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The kept reply with its TTLs counted down, under the id of this query.
    pub(crate) fn get(&mut self, now: Instant, key: &Key, id: u16) -> Option<Reply> {
        let entry = self.entries.get(key)?;
        if entry.expires <= now {
            self.remove(&Key::clone(key));
            return None;
        }
        let age = u32::try_from(now.since(entry.stored).as_secs()).unwrap_or(u32::MAX);
        let mut message = Message::from_vec(&entry.reply).ok()?;
        for record in sections(&mut message) {
            record.ttl = record.ttl.saturating_sub(age);
        }
        message.metadata.id = id;
        let outcome = outcome(&message);
        let bytes = message.to_vec().ok()?;
        Some(Reply { bytes, outcome })
    }

    /// Keeps `reply` on the account of `tenant` when it may be kept; `limit` is the largest reply for
    /// this query in bytes.
    pub(crate) fn put(
        &mut self,
        now: Instant,
        tenant: Tenant,
        key: &Key,
        reply: &[u8],
        limit: usize,
    ) {
        let Ok(message) = Message::from_vec(reply) else {
            return;
        };
        let Some(lifetime) = lifetime(&message, &self.limits) else {
            return;
        };
        // What comes out again is encoded anew: it must still fit.
        let size = key.len() + reply.len();
        let fits = message.to_vec().is_ok_and(|bytes| bytes.len() <= limit);
        if !fits || size > self.limits.bytes || self.limits.entries == 0 {
            return;
        }
        self.remove(key);
        if !self.make_room(now, tenant, size) {
            return;
        }
        let expires = now.after(lifetime);
        self.by_expiry.insert((expires, Key::clone(key)));
        self.by_tenant.insert((tenant, expires, Key::clone(key)));
        self.bytes += size;
        self.counts.add(tenant, 1);
        self.sizes.add(tenant, size);
        self.entries.insert(
            Key::clone(key),
            Entry {
                tenant,
                stored: now,
                expires,
                reply: reply.into(),
            },
        );
    }

    /// Makes room for one entry of `size` bytes: first goes what has expired, then what expires first
    /// of who keeps the most, which may be `tenant`. False when that leaves no room.
    fn make_room(&mut self, now: Instant, tenant: Tenant, size: usize) -> bool {
        loop {
            let crowded = self.entries.len() >= self.limits.entries;
            if !crowded && self.bytes + size <= self.limits.bytes {
                return true;
            }
            let expired = self.by_expiry.first().filter(|(at, _)| *at <= now);
            let key = if let Some((_, key)) = expired {
                Key::clone(key)
            } else {
                let greediest = if crowded {
                    self.counts.greediest(tenant, 1)
                } else {
                    self.sizes.greediest(tenant, size)
                };
                let from = greediest.unwrap_or(tenant);
                let least = (from, Instant::default(), Key::from([]));
                let soonest = self.by_tenant.range(least..).next();
                let Some((_, _, key)) = soonest.filter(|(of, ..)| *of == from) else {
                    return false;
                };
                Key::clone(key)
            };
            self.remove(&key);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            let size = key.len() + entry.reply.len();
            self.bytes -= size;
            self.counts.remove(entry.tenant, 1);
            self.sizes.remove(entry.tenant, size);
            self.by_expiry.remove(&(entry.expires, Key::clone(key)));
            self.by_tenant
                .remove(&(entry.tenant, entry.expires, Key::clone(key)));
        }
    }
}

/// What an upstream's message says.
pub(crate) fn outcome(message: &Message) -> Outcome {
    match Outcome::of(message.metadata.response_code) {
        Outcome::Answered if message.answers.is_empty() && !message.metadata.truncation => {
            Outcome::NoData
        }
        other => other,
    }
}

/// For how long a message may be kept: the least TTL of its records, and for a denial the SOA's
/// minimum (RFC 2308 section 5). `None` for what must not be kept.
fn lifetime(message: &Message, limits: &CacheLimits) -> Option<Duration> {
    let code = message.metadata.response_code;
    if message.metadata.truncation
        || message.signature.is_some()
        || !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
    {
        return None;
    }
    let mut secs: Option<u32> = None;
    let mut lower = |ttl: u32| secs = Some(secs.map_or(ttl, |least| least.min(ttl)));
    let mut denied = false;
    for record in &message.authorities {
        if let RData::SOA(soa) = &record.data {
            denied = true;
            lower(soa.minimum);
        }
    }
    let positive = code == ResponseCode::NoError && !message.answers.is_empty();
    // RFC 2308 section 5: denials without SOA should not be cached.
    if !positive && !denied {
        return None;
    }
    for record in message
        .answers
        .iter()
        .chain(&message.authorities)
        .chain(&message.additionals)
    {
        lower(record.ttl);
    }
    let cap = if denied {
        limits.negative
    } else {
        limits.positive
    };
    let lifetime = Duration::from_secs(secs?.into()).min(cap);
    (!lifetime.is_zero()).then_some(lifetime)
}

fn sections(message: &mut Message) -> impl Iterator<Item = &mut Record> {
    message
        .answers
        .iter_mut()
        .chain(&mut message.authorities)
        .chain(&mut message.additionals)
}
