//! Other nodes as a source of images: whoever has a content, or will have it soon, is asked before a
//! registry is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use weft_images::{Blob, BlobStream, Digest, ImageName, Manifest, Source, SourceFuture};
use weft_model::id::NodeId;

use super::circle::{Circle, Peer};
use super::givers::Givers;
use super::line::Found;
use super::lines::{Lines, Transfer};
use super::stream::{self, absent, broken};
use super::turn::{Rank, Said};
use super::words::{blob_path, name_path, turn_path};

/// Others that are asked first, and whom it is agreed with who asks the registry.
const MOST: usize = 32;
/// Of the others so many are asked at a time …
const BEHIND_AT_A_TIME: usize = 16;
/// … for so long, until the first one has it.
const BEHIND: Duration = Duration::from_secs(3);
/// How long it may take to find out what a name stands for elsewhere.
const BY_NAME: Duration = Duration::from_secs(8);
/// Nodes that are asked where a content is at a time.
const AT_A_TIME: usize = 4;
/// Between two looks at those who are fetching it.
const LOOK: Duration = Duration::from_millis(100);
/// How long a node that is fetching it may make no progress.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a manifest, at most, as the store has it.
const MOST_MANIFEST: usize = 4 << 20;

/// A node's place in the order of those who want an image.
pub(super) fn rank(image: &Digest, node: &NodeId) -> Rank {
    Rank(
        Digest::of(format!("{image} {node}").as_bytes())
            .hex()
            .to_owned(),
    )
}

/// Whether to wait for those who are fetching.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Others fetch it for this node, too.
    ForOthers,
    /// This node fetches it for others: what nobody has is for the registry.
    ForNobody,
}

/// The nodes that are asked about one image.
#[derive(Clone)]
pub(super) struct Peers {
    circle: Arc<dyn Circle>,
    lines: Arc<Lines>,
    /// In the order in which they are asked.
    peers: Vec<Peer>,
    /// All others, who are asked where none of those has it.
    behind: Vec<Peer>,
    wait: Wait,
    given: Arc<Given>,
}

/// What came of asking.
#[derive(Debug, Default)]
struct Given {
    givers: Givers,
    /// Those behind were asked, all of them in vain.
    nobody_behind: AtomicBool,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers")
            .field("peers", &self.peers)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}

/// Of more others than are asked at first those whose rank is the lowest: every node asks the same
/// ones, so that those who want an image at the same time hear of each other. And the rest.
fn chosen(mut peers: Vec<Peer>, image: &Digest) -> (Vec<Peer>, Vec<Peer>) {
    if peers.len() <= MOST {
        return (peers, Vec::new());
    }
    peers.sort_by_cached_key(|peer| rank(image, &peer.node));
    let behind = peers.split_off(MOST);
    (peers, behind)
}

/// In an order of this node's own, so that not all of them ask the same one first.
fn shuffled(mut peers: Vec<Peer>, seed: &str) -> Vec<Peer> {
    peers.sort_by_cached_key(|peer| Digest::of(format!("{seed} {}", peer.node).as_bytes()));
    peers
}

impl Peers {
    /// Those who are asked about an image.
    pub(super) fn of(circle: Arc<dyn Circle>, lines: Arc<Lines>, image: &Digest) -> Self {
        lines.keep(&*circle);
        let seed = format!("{image} {}", circle.node());
        let (peers, behind) = chosen(circle.peers(), image);
        Self {
            circle,
            lines,
            peers: shuffled(peers, &seed),
            behind: shuffled(behind, &seed),
            wait: Wait::ForNobody,
            given: Arc::default(),
        }
    }

    /// Whether they are waited for.
    pub(super) fn waiting(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// True where nobody is there to be asked.
    pub(super) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// This node's place in the order of those who want an image.
    pub(super) fn own_rank(&self, image: &Digest) -> Rank {
        rank(image, &self.circle.node())
    }

    /// What they do about an image: of those who answer.
    pub(super) async fn turns(&self, image: &Digest) -> Vec<Said> {
        let path: Arc<str> = turn_path(image).into();
        let mut asked = JoinSet::new();
        for peer in self.peers.clone() {
            let (circle, lines) = (Arc::clone(&self.circle), Arc::clone(&self.lines));
            let path = Arc::clone(&path);
            let rank = rank(image, &peer.node);
            asked.spawn(async move {
                let said = lines.turn(&*circle, &peer, &path, rank).await;
                quietly(&peer, said)
            });
        }
        asked.join_all().await.into_iter().flatten().collect()
    }

    /// Which image has a name on another node: what the first one says that knows it.
    /// Not for long.
    pub(super) async fn by_name(&self, name: &ImageName) -> Option<Digest> {
        timeout(BY_NAME, self.first_by_name(name)).await.ok()?
    }

    async fn first_by_name(&self, name: &ImageName) -> Option<Digest> {
        let path = name_path(name);
        for peer in self.peers.iter().chain(&self.behind) {
            let said = self.lines.text(&*self.circle, peer, &path).await;
            if let Some(Some(text)) = quietly(peer, said) {
                match text.trim().parse() {
                    Ok(digest) => return Some(digest),
                    Err(error) => {
                        tracing::warn!(node = %peer.node, %error, "a node names no image");
                    }
                }
            }
        }
        None
    }

    /// Those of them who may be asked for a content.
    fn good(&self, peers: &[Peer], digest: &Digest) -> Vec<Peer> {
        let peers = peers.iter();
        peers
            .filter(|peer| self.given.givers.is_good(&peer.node, digest))
            .cloned()
            .collect()
    }

    /// Where a content is, of a few nodes at once.
    async fn look_at(&self, few: &[Peer], path: &Arc<str>) -> Vec<(Peer, Found)> {
        let mut asked = JoinSet::new();
        for peer in few.iter().cloned() {
            let (circle, lines) = (Arc::clone(&self.circle), Arc::clone(&self.lines));
            let path = Arc::clone(path);
            asked.spawn(async move {
                let said = lines.look(&*circle, &peer, &path).await;
                quietly(&peer, said).map(|found| (peer, found))
            });
        }
        asked.join_all().await.into_iter().flatten().collect()
    }

    /// Where a content is, of those who are asked first, else of all others.
    async fn look_everywhere(&self, digest: &Digest, path: &Arc<str>) -> Vec<(Peer, Found)> {
        let found = self.look(&self.good(&self.peers, digest), path).await;
        let is_somewhere = |found: &[(Peer, Found)]| {
            let mut found = found.iter();
            found.any(|(_, found)| *found != Found::Absent)
        };
        let given = &self.given;
        if is_somewhere(&found) || given.nobody_behind.load(Ordering::Relaxed) {
            return found;
        }
        let begun = Instant::now();
        for few in self.good(&self.behind, digest).chunks(BEHIND_AT_A_TIME) {
            let found = self.look_at(few, path).await;
            if is_somewhere(&found) {
                return found;
            }
            if begun.elapsed() >= BEHIND {
                break;
            }
        }
        // Whoever has nothing of an image now has none of its layers a moment later.
        given.nobody_behind.store(true, Ordering::Relaxed);
        Vec::new()
    }

    /// Where a content is, of these nodes.
    async fn look(&self, peers: &[Peer], path: &Arc<str>) -> Vec<(Peer, Found)> {
        let mut found = Vec::new();
        for few in peers.chunks(AT_A_TIME) {
            found.extend(self.look_at(few, path).await);
            if found
                .iter()
                .any(|(_, found)| matches!(found, Found::Here(_)))
            {
                break;
            }
        }
        found
    }

    /// A content from a byte on, from whoever has it; nothing where nobody will have it soon.
    async fn content(&self, digest: &Digest, offset: u64) -> Option<(Peer, Transfer)> {
        let path: Arc<str> = blob_path(digest).into();
        let (mut most, mut since) = (BTreeMap::new(), Instant::now());
        let mut found = self.look_everywhere(digest, &path).await;
        loop {
            for (peer, found) in &found {
                if !matches!(found, Found::Here(_)) {
                    continue;
                }
                let taken = self.lines.take(&*self.circle, peer, &path, offset).await;
                if let Some(Some(transfer)) = quietly(peer, taken) {
                    self.given.givers.gives(&peer.node, digest);
                    return Some((peer.clone(), transfer));
                }
            }
            if self.wait == Wait::ForNobody {
                return None;
            }
            let mut moved = false;
            let mut asked = Vec::new();
            for (peer, found) in found {
                let bytes = match found {
                    Found::Coming(bytes) => bytes,
                    // It has it, and something else to do.
                    Found::Here(_) | Found::Busy => 0,
                    Found::Absent => continue,
                };
                let before = most.insert(peer.node.clone(), bytes);
                moved |= before.is_none_or(|before| before < bytes);
                asked.push(peer);
            }
            if moved {
                since = Instant::now();
            }
            if asked.is_empty() || since.elapsed() >= PATIENCE {
                return None;
            }
            sleep(LOOK).await;
            found = self.look(&asked, &path).await;
        }
    }
}

/// What a node says; that one does not answer is nothing that a person has to see.
fn quietly<T>(peer: &Peer, said: std::io::Result<T>) -> Option<T> {
    match said {
        Ok(said) => Some(said),
        Err(error) => {
            tracing::debug!(node = %peer.node, addr = %peer.addr, %error, "no answer about an image");
            None
        }
    }
}

impl Source for Peers {
    fn name(&self) -> String {
        "other nodes".to_owned()
    }

    fn manifest<'a>(&'a self, name: &'a ImageName) -> SourceFuture<'a, Manifest> {
        Box::pin(async move {
            // Names may stand for something else by now: the registry knows.
            let Some(digest) = name.digest() else {
                return Err(absent());
            };
            // Each time around there is one node less to be asked.
            while let Some((_, mut transfer)) = self.content(digest, 0).await {
                let mut bytes = Vec::new();
                while let Some(piece) = transfer.content.piece().await.map_err(broken)? {
                    bytes.extend_from_slice(&piece);
                    if bytes.len() > MOST_MANIFEST {
                        break;
                    }
                }
                if Digest::of(&bytes) == *digest {
                    return Ok(Manifest {
                        digest: digest.clone(),
                        bytes,
                    });
                }
                self.given.givers.were_bad(digest);
            }
            Err(absent())
        })
    }

    fn blob<'a>(
        &'a self,
        _name: &'a ImageName,
        blob: &'a Blob,
        offset: u64,
    ) -> SourceFuture<'a, BlobStream> {
        Box::pin(async move {
            let found = self.content(&blob.digest, offset).await;
            let (_, transfer) = found.ok_or_else(absent)?;
            Ok(stream::of(transfer))
        })
    }

    fn blame(&self, blob: &Blob) -> bool {
        let others = |peers: &[Peer]| !self.good(peers, &blob.digest).is_empty();
        self.given.givers.were_bad(&blob.digest) && (others(&self.peers) || others(&self.behind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(count: u8) -> Vec<Peer> {
        let of = |n: u8| Peer {
            node: NodeId(format!("n{n}")),
            addr: ([10, 0, 0, n], 7947).into(),
        };
        (0..count).map(of).collect()
    }

    #[test]
    fn all_nodes_ask_the_same_few_each_in_its_own_order() {
        let image = Digest::of(b"image");
        let (few, behind) = chosen(peers(32), &image);
        assert_eq!((few.len(), behind.len()), (32, 0));
        let (few, behind) = chosen(peers(200), &image);
        assert_eq!((few.len(), behind.len()), (MOST, 200 - MOST));
        assert!(behind.iter().all(|peer| !few.contains(peer)));
        // Another node does not see itself; what is left is the same.
        let without: Vec<Peer> = peers(200).into_iter().filter(|p| *p != few[0]).collect();
        assert_eq!(chosen(without, &image).0[..MOST - 1], few[1..]);
        assert_ne!(chosen(peers(200), &Digest::of(b"other")).0, few);
        let (one, two) = (shuffled(peers(9), "one"), shuffled(peers(9), "two"));
        assert_ne!(one, two);
        assert_eq!(one, shuffled(peers(9), "one"));
    }
}
