//! Adapter over `foca`: its callbacks become queues, its identities nodes.

use std::collections::BTreeMap;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{Foca, NoCustomBroadcast, Notification, OwnedNotification, Runtime, State, Timer};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use weft_model::id::NodeId;

use super::identity::{Identity, IdentityCodec};
use super::queue::retransmit_limit;
use super::{Config, InputError, MAX_DATAGRAM};

/// Room for the wrapping of a SWIM packet in a datagram.
const WRAP: usize = 8;

/// A member that came or went, in foca's words.
pub(crate) type Note = OwnedNotification<Identity>;

#[derive(Debug, Default)]
struct Outbox {
    sends: Vec<(Identity, Vec<u8>)>,
    timers: Vec<(Duration, Timer<Identity>)>,
    notes: Vec<Note>,
}

impl Runtime<Identity> for Outbox {
    fn notify(&mut self, note: Notification<'_, Identity>) {
        self.notes.push(note.to_owned());
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.sends.push((to, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        self.timers.push((after, event));
    }
}

/// SWIM membership of one node.
pub(crate) struct Membership {
    foca: Foca<Identity, IdentityCodec, StdRng, NoCustomBroadcast>,
    outbox: Outbox,
    config: Config,
    limit: u32,
    announce_to_dead: Duration,
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership")
            .field("identity", self.foca.identity())
            .field("members", &self.foca.num_members())
            .finish_non_exhaustive()
    }
}

fn foca_config(config: &Config, limit: u32, announce_to_dead: Duration) -> foca::Config {
    let one = NonZeroUsize::MIN;
    let three = NonZeroUsize::new(config.fanout).unwrap_or(one);
    foca::Config {
        probe_period: config.probe_period,
        probe_rtt: config.probe_rtt,
        num_indirect_probes: three,
        max_transmissions: u8::try_from(limit)
            .ok()
            .and_then(NonZeroU8::new)
            .unwrap_or(NonZeroU8::MIN),
        suspect_to_down_after: config.suspicion,
        remove_down_after: Some(config.failed_life),
        max_packet_size: NonZeroUsize::new(MAX_DATAGRAM - WRAP).unwrap_or(one),
        notify_down_members: true,
        periodic_announce: None,
        periodic_announce_to_down_members: Some(foca::PeriodicParams {
            frequency: announce_to_dead,
            num_members: one,
        }),
        periodic_gossip: Some(foca::PeriodicParams {
            frequency: config.gossip_period,
            num_members: three,
        }),
    }
}

impl Membership {
    pub(crate) fn new(identity: Identity, config: Config, seed: [u8; 32]) -> Self {
        let limit = retransmit_limit(10);
        let announce_to_dead = Duration::from_secs(1);
        Self {
            foca: Foca::new(
                identity,
                foca_config(&config, limit, announce_to_dead),
                StdRng::from_seed(seed),
                IdentityCodec,
            ),
            outbox: Outbox::default(),
            config,
            limit,
            announce_to_dead,
        }
    }

    pub(crate) const fn identity(&self) -> &Identity {
        self.foca.identity()
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &foca::Member<Identity>> {
        let me = &self.foca.identity().node;
        self.foca
            .iter_membership_state()
            .filter(move |m| m.id().node != *me)
    }

    /// Members that count, this node not among them.
    pub(crate) const fn active(&self) -> usize {
        self.foca.num_members()
    }

    /// What is known of `node`, in whatever state.
    pub(crate) fn get(&self, node: &NodeId) -> Option<&foca::Member<Identity>> {
        self.members().find(|m| m.id().node == *node)
    }

    /// Feeds a packet of another member.
    pub(crate) fn handle_packet(&mut self, packet: &[u8]) -> Result<(), InputError> {
        refused(self.foca.handle_data(packet, &mut self.outbox))
    }

    pub(crate) fn handle_timer(&mut self, timer: Timer<Identity>) -> Result<(), InputError> {
        refused(self.foca.handle_timer(timer, &mut self.outbox))
    }

    /// Merges what someone says of members.
    pub(crate) fn apply(
        &mut self,
        updates: impl Iterator<Item = foca::Member<Identity>>,
    ) -> Result<(), InputError> {
        refused(self.foca.apply_many(updates, true, &mut self.outbox))
    }

    /// Shows itself to `to` and asks it for members.
    pub(crate) fn announce(&mut self, to: Identity) -> Result<(), InputError> {
        refused(self.foca.announce(to, &mut self.outbox))
    }

    /// Tells a few members what is new, without waiting for the next round.
    pub(crate) fn gossip(&mut self) -> Result<(), InputError> {
        refused(self.foca.gossip(&mut self.outbox))
    }

    pub(crate) fn leave(&mut self) -> Result<(), InputError> {
        refused(self.foca.leave_cluster(&mut self.outbox))
    }

    /// Starts again as `identity`: in a new life, or in the same one after being taken for dead.
    ///
    /// Members are kept, what was still to be told of them is not: a node that was cut off has
    /// nothing but wrong news. Timers handed out before are void.
    pub(crate) fn revive(&mut self, identity: Identity, seed: [u8; 32]) -> Result<(), InputError> {
        let me = identity.node.clone();
        let told = self.outbox.notes.len();
        let fresh = Foca::new(
            identity,
            foca_config(&self.config, self.limit, self.announce_to_dead),
            StdRng::from_seed(seed),
            IdentityCodec,
        );
        let old = std::mem::replace(&mut self.foca, fresh);
        let known = old
            .iter_membership_state()
            .filter(|m| m.id().node != me)
            .cloned();
        refused(self.foca.apply_many(known, false, &mut self.outbox))?;
        // The members are no news.
        self.outbox.notes.truncate(told);
        self.gossip()
    }

    /// Adapts to the number of other members, dead and alive.
    pub(crate) fn resize(&mut self, alive: usize, known: usize) -> Result<(), InputError> {
        // Every node sends as often, so one in e^limit misses it.
        let limit = retransmit_limit(alive) + 6;
        // All nodes together knock at each dead one about twice a second.
        let dead = known.saturating_sub(alive).max(1);
        let share = u32::try_from((alive + 1) / (2 * dead)).unwrap_or(u32::MAX);
        let announce = Duration::from_secs(1)
            .saturating_mul(share.max(1))
            .min(Duration::from_secs(10));
        if limit == self.limit && announce == self.announce_to_dead {
            return Ok(());
        }
        self.limit = limit;
        self.announce_to_dead = announce;
        refused(
            self.foca
                .set_config(foca_config(&self.config, limit, announce)),
        )
    }

    pub(crate) fn take_sends(&mut self) -> Vec<(Identity, Vec<u8>)> {
        std::mem::take(&mut self.outbox.sends)
    }

    pub(crate) fn take_timers(&mut self) -> Vec<(Duration, Timer<Identity>)> {
        std::mem::take(&mut self.outbox.timers)
    }

    pub(crate) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.outbox.notes)
    }

    /// State of every known member.
    pub(crate) fn states(&self) -> BTreeMap<&NodeId, State> {
        self.members().map(|m| (&m.id().node, m.state())).collect()
    }
}

fn refused(result: Result<(), foca::Error>) -> Result<(), InputError> {
    match result {
        // Knocking at dead members may reach an earlier life of this node itself.
        Ok(()) | Err(foca::Error::DataFromOurselves) => Ok(()),
        Err(foca::Error::Decode(e)) => Err(InputError::Malformed(e.to_string())),
        Err(e) => Err(InputError::Refused(e.to_string())),
    }
}
