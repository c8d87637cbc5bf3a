//! Repair: blobs that are missing or wrong come again from the repositories that the roots name for them. Each is
//! verified and durable before it takes the place of what was there, in one rename; what cannot be fetched stays as it
//! is. The registry is asked for every byte, so whoever repairs proves again that he may have it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use tokio::task::block_in_place;

use super::{
    AT_ONCE, LAST_LOOKS, TOUCH, commit,
    fetch::{self, Fetcher},
    fill,
    meter::Meter,
    plan,
    queue::Then,
};
use crate::{
    model::{
        class::Class,
        digest::Digest,
        failure::Failure,
        reference::RegistryHost,
        request::CacheKey,
        root::{Root, RootImage},
    },
    registry::Client,
    store::{Lease, Store},
};

pub struct Repair {
    pub store: Store,
    pub client: Client,
    /// What is missing, or has wrong bytes.
    pub bad: BTreeMap<Digest, u64>,
    pub meter: Arc<Meter>,
}

type Failures = BTreeMap<Digest, Failure>;

impl Repair {
    /// Returns what could not be repaired, and why. The rest is in the store, durably.
    pub async fn run(self) -> Result<Failures, Failure> {
        // Its partial downloads go on after a kill; no cache has this name, so no pull takes them for its own.
        let cache = CacheKey::of_uid("repair");
        let lease = Arc::new(block_in_place(|| self.lease(&cache))?);
        let fetcher = Arc::new(self.fetcher(cache, lease.clone())?);
        let mut failures = self.hopeless(&fetcher.images);
        let filled = {
            let filling = self.fill(&fetcher, &mut failures);
            tokio::pin!(filling);
            loop {
                tokio::select! {
                    filled = &mut filling => break filled,
                    () = tokio::time::sleep(TOUCH) => drop(block_in_place(|| lease.touch())?),
                }
            }
        };
        drop(fetcher);
        // What was fetched is named by roots: nobody needs to hear of it from a lease.
        if let Some(lease) = Arc::into_inner(lease) {
            block_in_place(|| lease.release())?;
        }
        filled?;
        block_in_place(|| self.store.tidy(self.bad.keys().filter(|digest| !failures.contains_key(digest))))?;
        Ok(failures)
    }

    fn lease(&self, cache: &CacheKey) -> Result<Lease, Failure> {
        let lease = self.store.lease(cache, "verify --repair")?;
        lease.add(&self.bad.iter().map(|(digest, size)| (digest.clone(), *size)).collect::<Vec<_>>())?;
        lease.set_to_fetch(self.bad.values().sum())?;
        Ok(lease)
    }

    fn fetcher(&self, cache: CacheKey, lease: Arc<Lease>) -> Result<Fetcher, Failure> {
        let listed = block_in_place(|| self.store.roots())?;
        let roots: Vec<Root> =
            listed.into_iter().filter_map(|listed| listed.root.ok()).map(|stored| stored.root).collect();
        let images = sources(&roots, &self.bad);
        for entry in images.iter().flat_map(|image| &image.closure) {
            self.meter.gauge(&entry.digest, entry.size);
        }
        let all: Vec<_> = images.iter().flat_map(|image| image.closure.clone()).collect();
        self.meter.expect(1);
        self.meter.image(0, &unique(all));
        Ok(Fetcher {
            store: self.store.clone(),
            client: self.client.clone(),
            lease,
            holdings: Mutex::default(),
            credentials: String::new(),
            now: Timestamp::UNIX_EPOCH,
            documents: BTreeMap::new(),
            images,
            reuse: false,
            wrong: self.bad.keys().cloned().collect(),
            done: Mutex::default(),
            cache,
            commits: commit::Commits::default(),
            blocks: Mutex::default(),
            no_ranges: Mutex::default(),
        })
    }

    /// What no root names any more, so that nobody knows where it comes from.
    fn hopeless(&self, images: &[RootImage]) -> Failures {
        let named: BTreeSet<&Digest> =
            images.iter().flat_map(|image| &image.closure).map(|entry| &entry.digest).collect();
        let lost = self.bad.keys().filter(|digest| !named.contains(digest));
        let failure = || Failure::new(Class::NotFound, "no cache needs it any more");
        lost.map(|digest| (digest.clone(), failure())).collect()
    }

    /// As after a pull: what a collector takes away meanwhile is fetched again.
    async fn fill(&self, fetcher: &Arc<Fetcher>, failures: &mut Failures) -> Result<(), Failure> {
        for _ in 0..LAST_LOOKS {
            failures.extend(self.fetch_all(fetcher, failures).await);
            block_in_place(|| self.store.sync_blobs())?;
            if self.missing(failures)?.is_empty() {
                return Ok(());
            }
        }
        let gone = || Failure::new(Class::Unknown, "it goes missing from the store again and again");
        failures.extend(self.missing(failures)?.into_iter().map(|digest| (digest, gone())));
        Ok(())
    }

    fn missing(&self, failures: &Failures) -> Result<Vec<Digest>, Failure> {
        block_in_place(|| {
            let mut missing = Vec::new();
            for (digest, size) in self.bad.iter().filter(|(digest, _)| !failures.contains_key(digest)) {
                if self.store.look(digest, *size)?.is_none() {
                    missing.push(digest.clone());
                }
            }
            Ok(missing)
        })
    }

    /// One blob that fails does not stop the others.
    async fn fetch_all(&self, fetcher: &Arc<Fetcher>, before: &Failures) -> Failures {
        let mut blobs = plan::blobs(&fetcher.images);
        blobs.retain(|blob| !before.contains_key(&blob.digest));
        let entries = fetcher.images.iter().flat_map(|image| &image.closure);
        let documents: BTreeSet<&Digest> = entries
            .filter(|entry| fetch::is_document(entry.kind) && !before.contains_key(&entry.digest))
            .map(|entry| &entry.digest)
            .collect();
        let failed = |digest: &Digest, ended: Result<(), Failure>| ended.err().map(|f| (digest.clone(), f));
        let documents = stream::iter(documents)
            .map(|digest| async move { failed(digest, self.document(fetcher, digest).await) })
            .buffered(AT_ONCE)
            .collect::<Vec<_>>();
        let blobs = fill::blobs(fetcher, &self.meter, blobs, Then::GoOn);
        let (documents, blobs) = tokio::join!(documents, blobs);
        let blobs = blobs.into_iter().map(|(blob, failure)| (blob.digest, failure));
        documents.into_iter().flatten().chain(blobs).collect()
    }

    /// From the first repository that gives it.
    async fn document(&self, fetcher: &Fetcher, digest: &Digest) -> Result<(), Failure> {
        let mut first = None;
        for image in &fetcher.images {
            let Some(entry) = image.closure.iter().find(|entry| entry.digest == *digest) else { continue };
            match fetcher.document(image, entry, &self.meter.gauge(digest, entry.size)).await {
                Ok(()) => return Ok(()),
                Err(failure) => first = first.or(Some(failure)),
            }
        }
        first.map_or(Ok(()), Err)
    }
}

/// Every repository once that a root names for bad blobs, the newest resolution first; of its content only those.
fn sources(roots: &[Root], bad: &BTreeMap<Digest, u64>) -> Vec<RootImage> {
    let mut images: BTreeMap<(RegistryHost, String), RootImage> = BTreeMap::new();
    for image in roots.iter().flat_map(|root| &root.images) {
        let needed = image.closure.iter().filter(|entry| bad.get(&entry.digest) == Some(&entry.size));
        let needed: Vec<_> = needed.cloned().collect();
        if needed.is_empty() {
            continue;
        }
        let place = (image.reference.host().clone(), image.reference.repository().to_owned());
        let source =
            images.entry(place).or_insert_with(|| RootImage { closure: Vec::new(), ..image.clone() });
        source.resolved = source.resolved.max(image.resolved);
        source.closure.extend(needed);
    }
    let mut images: Vec<RootImage> = images.into_values().collect();
    for image in &mut images {
        image.closure = unique(std::mem::take(&mut image.closure));
    }
    images.sort_by_key(|image| std::cmp::Reverse(image.resolved));
    images
}

fn unique(entries: Vec<crate::model::root::Entry>) -> Vec<crate::model::root::Entry> {
    let mut seen = BTreeSet::new();
    entries.into_iter().filter(|entry| seen.insert(entry.digest.clone())).collect()
}
