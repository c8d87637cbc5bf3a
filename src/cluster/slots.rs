//! The pull Jobs of all caches, for the limits on how many run at once. Jobs that were just made count before the
//! watch shows them, else caches that are reconciled at the same time would all take the last slot.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kube::ResourceExt as _;
use tokio::time::Instant;

use super::{Cluster, Error, Guarded, observe};
use crate::{
    api::ImageCache,
    model::{
        annotations,
        facts::Queue,
        queue::{Running, Taken, Waiter},
        reference::Reference,
        settings::Settings,
    },
    ops::clock,
};

/// Longer than a watch may be silent; then the Job is in the store, or it is gone again.
const SEEN_BY_THEN: Duration = Duration::from_mins(2);

#[derive(Debug, Default)]
pub struct Slots {
    started: Mutex<BTreeMap<String, Started>>,
    /// Why a cache's last start did not succeed, by UID.
    refused: Mutex<BTreeMap<String, String>>,
    /// By UID, with the version it was read from: each pass looks at all that wait.
    waiters: Mutex<HashMap<String, (String, Arc<Waiter>)>>,
}

#[derive(Debug)]
struct Started {
    cache: String,
    job: Running,
    at: Instant,
}

/// The queue cannot change between its count and the start that follows from it.
pub struct Turn<'a>(MutexGuard<'a, BTreeMap<String, Started>>);

impl Slots {
    /// One at a time. Not to be held over a request.
    pub fn turn(&self) -> Turn<'_> {
        Turn(self.started.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The Job could not be made after all.
    pub fn give_back(&self, job: &str, cache: &str, why: &Error) {
        self.turn().0.remove(job);
        if !why.is_race() {
            self.refused().insert(cache.to_owned(), why.to_string());
        }
    }

    /// The Job is made.
    pub fn keep(&self, cache: &str) {
        self.refused().remove(cache);
    }

    /// Why the cache's last start did not succeed. Its owner cannot read our log.
    pub fn refusal(&self, cache: &str) -> Option<String> {
        self.refused().get(cache).cloned()
    }

    /// Forgets caches that are gone.
    pub fn tidy(&self, there: impl Fn(&str) -> bool) {
        self.refused().retain(|cache, _| there(cache));
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner).retain(|cache, _| there(cache));
    }

    fn waiter(&self, cache: &ImageCache) -> Arc<Waiter> {
        let (uid, version) = (cache.uid().unwrap_or_default(), cache.resource_version().unwrap_or_default());
        let mut known = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&uid) {
            Some((seen, waiter)) if *seen == version => Arc::clone(waiter),
            _ => {
                let waiter = Arc::new(waiter(cache));
                known.insert(uid, (version, Arc::clone(&waiter)));
                waiter
            }
        }
    }

    /// Its run is open and waits for a slot. What waits for a secret takes no place in the queue.
    fn waits(&self, cache: &Guarded) -> Option<Arc<Waiter>> {
        let cache = cache.0.as_ref().ok()?;
        let status = cache.status.as_ref()?;
        let open =
            status.ledger.as_ref().is_some_and(|ledger| ledger.open && ledger.secrets_missing.is_none());
        (open && cache.metadata.deletion_timestamp.is_none()).then(|| self.waiter(cache))
    }

    fn refused(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// A Job of this name is about to be made.
    pub fn take(&mut self, name: String, cache: String, job: Running) {
        self.0.insert(name, Started { cache, job, at: Instant::now() });
    }

    /// The cache's Jobs that were made, as far as known, and that the watch has not shown yet.
    pub fn unseen(&self, cache: &str) -> Vec<String> {
        self.0.iter().filter(|(_, started)| started.cache == cache).map(|(job, _)| job.clone()).collect()
    }

    pub fn queue(&mut self, cluster: &Cluster, me: &ImageCache, settings: &Settings) -> Queue {
        let uid = me.uid().unwrap_or_default();
        let jobs = cluster.stores.jobs.state();
        let seen: BTreeSet<String> = jobs.iter().map(|job| job.name_any()).collect();
        self.0.retain(|job, started| !seen.contains(job) && started.at.elapsed() < SEEN_BY_THEN);
        let mut running: Vec<Running> = Vec::new();
        let mut served: BTreeSet<String> = BTreeSet::new();
        for job in &jobs {
            let of = observe::cache_uid(&job.metadata).unwrap_or_default();
            if of == uid {
                continue;
            }
            let over = !observe::is_running(job);
            if !over {
                served.insert(of.to_owned());
            }
            running.push(Running {
                name: observe::cache_name(&job.metadata).unwrap_or_default().to_owned(),
                hosts: observe::hosts(job).into_iter().collect(),
                eips: observe::eips(job).into_iter().collect(),
                over,
            });
        }
        for started in self.0.values().filter(|started| started.cache != uid) {
            running.push(started.job.clone());
            served.insert(started.cache.clone());
        }
        let waiting: Vec<Arc<Waiter>> = cluster
            .stores
            .caches
            .state()
            .iter()
            .filter_map(|cache| cluster.slots.waits(cache))
            .filter(|waiter| waiter.uid != uid && !served.contains(&waiter.uid))
            .collect();
        let taken = taken(cluster, &uid, &served, settings);
        Queue::of(&running, &waiting, taken, &cluster.slots.waiter(me), settings)
    }
}

/// What others hold. Bytes are those of the mirror's report, where each digest counts once, and of what was credited
/// since; without one, what the caches say.
fn taken(cluster: &Cluster, me: &str, served: &BTreeSet<String>, settings: &Settings) -> Taken {
    let mut taken = Taken::default();
    if settings.max_caches.is_none() && settings.max_store_bytes.is_none() {
        return taken;
    }
    let reported = cluster.mirror.used(clock::now());
    taken.bytes = reported.map_or(0, |(_, used)| used);
    for cache in cluster.stores.caches.state() {
        let uid = cache.uid().unwrap_or_default();
        let status = cache.0.as_ref().ok().and_then(|cache| cache.status.as_ref());
        let ledger = status.and_then(|status| status.ledger.as_ref());
        let root = ledger.and_then(|ledger| ledger.root.as_ref());
        if let Some(root) = root
            && reported.is_none_or(|(read, _)| root.at.0 > read)
        {
            let size = status.and_then(|status| u64::try_from(status.size?).ok());
            taken.bytes = taken.bytes.saturating_add(size.unwrap_or_default());
        }
        let has_place = root.is_some() || ledger.is_some_and(|ledger| ledger.answered && ledger.open);
        if uid != me && (has_place || served.contains(&uid)) {
            taken.caches = taken.caches.saturating_add(1);
        }
    }
    taken
}

/// The caches that wait for a slot, those first whose turn it is.
pub fn waiting(cluster: &Cluster) -> Vec<String> {
    let jobs = cluster.stores.jobs.state();
    let served: BTreeSet<&str> = jobs.iter().filter_map(|job| observe::cache_uid(&job.metadata)).collect();
    let all = cluster.stores.caches.state();
    let mut named: Vec<(Arc<Waiter>, String)> = all
        .iter()
        .filter_map(|cache| Some((cluster.slots.waits(cache)?, cache.name_any())))
        .filter(|(waiter, _)| !served.contains(waiter.uid.as_str()))
        .collect();
    named.sort_by_key(|(waiter, _)| (!waiter.first_try, waiter.created));
    named.into_iter().map(|(_, name)| name).collect()
}

fn waiter(cache: &ImageCache) -> Waiter {
    let references = cache.spec.images.iter().filter_map(|image| image.parse::<Reference>().ok());
    let ledger = cache.status.as_ref().and_then(|status| status.ledger.as_ref());
    let seen = cache.metadata.annotations.as_ref().map(annotations::read);
    let eips = seen.and_then(|seen| seen.existing_eips).map(|set| set.value).unwrap_or_default();
    Waiter {
        uid: cache.uid().unwrap_or_default(),
        name: cache.name_any(),
        hosts: references.map(|reference| reference.host().clone()).collect(),
        eips: eips.into_iter().collect(),
        fresh: ledger.is_none_or(|ledger| ledger.root.is_none() && !ledger.answered),
        first_try: ledger.is_none_or(|ledger| ledger.failure.is_none() && !ledger.is_refreshing()),
        created: cache.creation_timestamp().map(|time| time.0).unwrap_or_default(),
    }
}
