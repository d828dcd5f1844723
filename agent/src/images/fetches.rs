//! Images that this node fetches: each one once, however many tasks wait for it. Who gives up waiting
//! does not end a fetch.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use weft_images::{Digest, ImageName, Progress};
use zeroize::Zeroizing;

use super::turn::Stage;

/// Credentials as they were given, in the form of Docker's header; empty for nobody in particular.
pub(super) type Asker = Zeroizing<String>;

/// How a fetch ended: the image's manifest, or why there is none.
pub(super) type Outcome = Result<Digest, Arc<anyhow::Error>>;

/// What an image is fetched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// A task is to start.
    Task,
    /// Somebody says so: registries are asked whatever is remembered of them.
    Command,
}

/// Those under way, by name.
#[derive(Default)]
pub(super) struct Fetches(Mutex<BTreeMap<ImageName, Arc<Fetch>>>);

impl std::fmt::Debug for Fetches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.lock().keys()).finish()
    }
}

/// One of them.
pub(super) struct Fetch {
    asker: Asker,
    occasion: Occasion,
    /// How far it is.
    pub(super) progress: Arc<Progress>,
    doing: Mutex<Option<(Digest, Stage)>>,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Fetch {
    fn new(asker: Asker, occasion: Occasion) -> Self {
        Self {
            asker,
            occasion,
            progress: Arc::default(),
            doing: Mutex::default(),
            outcome: watch::Sender::new(None),
        }
    }

    /// For whom it is.
    pub(super) fn asker(&self) -> &Asker {
        &self.asker
    }

    /// What for.
    pub(super) fn occasion(&self) -> Occasion {
        self.occasion
    }

    /// True where its failure is one for this asker on this occasion, too: it was asked by the same, and
    /// as insistently.
    pub(super) fn speaks_for(&self, asker: &Asker, occasion: Occasion) -> bool {
        self.asker == *asker && (occasion == Occasion::Task || self.occasion == occasion)
    }

    /// Tells other nodes who ask what is done about which image.
    pub(super) fn tell(&self, image: &Digest, stage: Stage) {
        let mut doing = self.doing.lock().unwrap_or_else(PoisonError::into_inner);
        *doing = Some((image.clone(), stage));
    }

    /// Which image it is, once that is known, and what is done about it.
    pub(super) fn doing(&self) -> Option<(Digest, Stage)> {
        let doing = self.doing.lock().unwrap_or_else(PoisonError::into_inner);
        doing.clone()
    }

    /// To wait for the end.
    pub(super) fn outcome(&self) -> watch::Receiver<Option<Outcome>> {
        self.outcome.subscribe()
    }
}

/// A fetch that somebody carries out: whatever becomes of that, it ends with this.
pub(super) struct Carried {
    all: Arc<Fetches>,
    name: ImageName,
    fetch: Arc<Fetch>,
}

impl Carried {
    /// The fetch.
    pub(super) fn fetch(&self) -> &Arc<Fetch> {
        &self.fetch
    }

    /// Ends it.
    pub(super) fn end(self, outcome: Outcome) {
        self.fetch.outcome.send_replace(Some(outcome));
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        let own = all.get(&self.name);
        if own.is_some_and(|fetch| Arc::ptr_eq(fetch, &self.fetch)) {
            all.remove(&self.name);
        }
        drop(all);
        self.fetch.outcome.send_if_modified(|outcome| {
            let open = outcome.is_none();
            if open {
                let why = "weftd has a defect: fetching an image panicked; its log says where";
                *outcome = Some(Err(Arc::new(anyhow::anyhow!(why))));
            }
            open
        });
    }
}

/// What somebody who wants an image finds.
pub(super) enum Joined {
    /// Another one is at it, for the same asker or for another one.
    Shared(Arc<Fetch>),
    /// Nobody: it is to be carried out.
    Own(Carried),
}

impl Fetches {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ImageName, Arc<Fetch>>> {
        // Every change is a single step, so it stays whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the fetch of an image, or begins one.
    pub(super) fn join(
        self: &Arc<Self>,
        name: &ImageName,
        asker: Asker,
        occasion: Occasion,
    ) -> Joined {
        let mut all = self.lock();
        if let Some(fetch) = all.get(name) {
            return Joined::Shared(Arc::clone(fetch));
        }
        let fetch = Arc::new(Fetch::new(asker, occasion));
        all.insert(name.clone(), Arc::clone(&fetch));
        drop(all);
        Joined::Own(Carried {
            all: Arc::clone(self),
            name: name.clone(),
            fetch,
        })
    }

    /// Those of which it is known which image it is.
    pub(super) fn known(&self) -> Vec<(Digest, Stage, Arc<Fetch>)> {
        let all = self.lock();
        let known = all.values().filter_map(|fetch| {
            let (image, stage) = fetch.doing()?;
            Some((image, stage, Arc::clone(fetch)))
        });
        known.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> ImageName {
        "nginx:1".parse().expect("a name")
    }

    fn asker(text: &str) -> Asker {
        Zeroizing::new(text.to_owned())
    }

    fn own(fetches: &Arc<Fetches>, of: &str) -> Carried {
        let Joined::Own(carried) = fetches.join(&name(), asker(of), Occasion::Task) else {
            unreachable!("nobody else is at it")
        };
        carried
    }

    #[tokio::test]
    async fn whoever_wants_it_shares_the_fetch_and_its_end() {
        let fetches = Arc::new(Fetches::default());
        let carried = own(&fetches, "a");
        let Joined::Shared(shared) = fetches.join(&name(), asker("b"), Occasion::Task) else {
            unreachable!("somebody is at it")
        };
        assert_eq!(shared.asker().as_str(), "a");
        assert!(fetches.known().is_empty(), "nobody knows which image it is");
        let image = Digest::of(b"image");
        carried.fetch().tell(&image, Stage::Claims);
        let known = fetches.known();
        assert_eq!((&known[0].0, known[0].1), (&image, Stage::Claims));
        let mut outcome = shared.outcome();
        carried.end(Ok(image.clone()));
        let ended = outcome.wait_for(Option::is_some).await.expect("told");
        let ended = ended.clone().expect("an end").expect("an image");
        assert_eq!(ended, image);
        // The next one begins anew.
        drop(own(&fetches, "c"));
    }

    #[test]
    fn a_failure_is_one_for_who_would_have_asked_alike() {
        let of = |occasion| Fetch::new(asker("a"), occasion);
        for (fetch, occasion, speaks) in [
            (of(Occasion::Task), Occasion::Task, true),
            (of(Occasion::Command), Occasion::Task, true),
            (of(Occasion::Command), Occasion::Command, true),
            // It may have gone by what is remembered.
            (of(Occasion::Task), Occasion::Command, false),
        ] {
            assert_eq!(fetch.speaks_for(&asker("a"), occasion), speaks);
            assert!(!fetch.speaks_for(&asker("b"), occasion));
        }
    }

    #[tokio::test]
    async fn a_fetch_that_is_dropped_has_failed() {
        let fetches = Arc::new(Fetches::default());
        let carried = own(&fetches, "");
        let mut outcome = carried.fetch().outcome();
        drop(carried);
        let ended = outcome.wait_for(Option::is_some).await.expect("told");
        let error = ended.clone().expect("an end").expect_err("it failed");
        assert!(error.to_string().contains("defect"), "{error}");
        assert!(fetches.known().is_empty());
    }
}
