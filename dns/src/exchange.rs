//! One outside question on its way: who waits for it and whom it was put to.

use std::collections::VecDeque;
use std::net::SocketAddr;

use hickory_proto::op::Message;
use weft_wire::Instant;

use crate::answer::mix;
use crate::cache::Key;
use crate::forwarder_config::ForwarderConfig;
use crate::reply::Transport;
use crate::shares::Tenant;

/// Names one waiting client; chosen by the caller, used once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// A question without an answer so far.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) key: Key,
    pub(crate) transport: Transport,
    /// As the first client sent it, decoded.
    pub(crate) query: Message,
    /// As the first client sent it.
    pub(crate) bytes: Vec<u8>,
    pub(crate) waiters: Vec<Waiter>,
    /// On whose account it is: one of those who wait.
    pub(crate) payer: Tenant,
    /// Sent and not answered.
    pub(crate) open: Vec<Try>,
    pub(crate) give_up: Instant,
    next_try: Option<Instant>,
    /// Tries to come, each with its round: every upstream once, then every upstream again.
    plan: VecDeque<(SocketAddr, u8)>,
    tries: u64,
    seed: u64,
}

/// A client that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiter {
    pub(crate) token: Token,
    pub(crate) tenant: Tenant,
    /// Of its message.
    pub(crate) id: u16,
    /// Order of arrival, among all.
    pub(crate) number: u64,
}

/// One message sent to one upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Try {
    pub(crate) upstream: SocketAddr,
    pub(crate) id: u16,
    pub(crate) sent: Instant,
}

/// A question as it came in.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) tenant: Tenant,
    pub(crate) key: Key,
    pub(crate) transport: Transport,
    pub(crate) query: Message,
    pub(crate) bytes: Vec<u8>,
    pub(crate) seed: u64,
}

impl Exchange {
    /// Plans tries at `order`, the first of them due at once.
    pub(crate) fn new(asked: Asked, order: &[SocketAddr], give_up: Instant) -> Self {
        // A datagram may be lost, so each upstream is asked twice; a stream retransmits itself.
        let rounds = match asked.transport {
            Transport::Udp => 0..2,
            Transport::Tcp => 0..1,
        };
        Self {
            key: asked.key,
            transport: asked.transport,
            query: asked.query,
            bytes: asked.bytes,
            waiters: Vec::new(),
            payer: asked.tenant,
            open: Vec::new(),
            give_up,
            next_try: None,
            plan: rounds
                .flat_map(|round| order.iter().map(move |upstream| (*upstream, round)))
                .collect(),
            tries: 0,
            seed: asked.seed,
        }
    }

    /// When something is to be done if nothing arrives.
    pub(crate) fn deadline(&self) -> Instant {
        self.next_try
            .map_or(self.give_up, |next| next.min(self.give_up))
    }

    /// Candidate id number `nth` for the next try: unpredictable when the seed is.
    pub(crate) fn candidate_id(&self, nth: u16) -> u16 {
        let step = (self.tries << 16 | u64::from(nth)) + 1;
        let draw = mix(self
            .seed
            .wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        (draw >> 48) as u16
    }

    /// Takes the next upstream from the plan and says when the one after it is due.
    pub(crate) fn take_turn(
        &mut self,
        now: Instant,
        config: &ForwarderConfig,
    ) -> Option<SocketAddr> {
        let turn = self.plan.pop_front();
        self.next_try = turn.and_then(|(_, round)| {
            let pause = match self.plan.front()? {
                (_, next) if *next == round => config.race_after,
                _ => config.resend_after,
            };
            Some(now.after(pause))
        });
        self.tries += 1;
        turn.map(|(upstream, _)| upstream)
    }

    /// Takes an upstream that failed out of the race.
    pub(crate) fn failed(&mut self, upstream: SocketAddr) -> AfterFailure {
        self.open.retain(|attempt| attempt.upstream != upstream);
        self.plan.retain(|(other, _)| *other != upstream);
        match self.plan.front() {
            Some((_, 0)) => AfterFailure::AskNext,
            None => {
                self.next_try = None;
                if self.open.is_empty() {
                    AfterFailure::GiveUp
                } else {
                    AfterFailure::Wait
                }
            }
            Some(_) => AfterFailure::Wait,
        }
    }
}

/// What remains when an upstream has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterFailure {
    /// Another one was not asked yet: do it at once.
    AskNext,
    /// Others are still thinking.
    Wait,
    /// Nobody is left.
    GiveUp,
}
