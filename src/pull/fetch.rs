//! One blob into the store: by right of reuse, or fetched, verified and durable.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::{task::block_in_place, time::Instant};

use super::{
    commit::{Commits, blocking},
    download::Download,
    meter::Gauge,
    permission::{Holdings, Owner, Right as Allowed},
    plan::Blob,
    queue::Queue,
};
use crate::{
    model::{
        class::Class,
        digest::Digest,
        failure::Failure,
        reference::{Reference, RegistryHost},
        report::Right,
        request::CacheKey,
        root::{Entry, EntryKind, RootImage},
    },
    registry::Client,
    store::{Block, Lease, Store, StoreError},
};

/// What every blob of a run needs. Shared by all of its tasks.
pub(super) struct Fetcher {
    pub store: Store,
    pub client: Client,
    pub lease: Arc<Lease>,
    pub holdings: Mutex<Holdings>,
    /// Hash of the credentials at hand.
    pub credentials: String,
    pub now: Timestamp,
    /// Indexes and manifests that were read on the way, by digest.
    pub documents: BTreeMap<Digest, Bytes>,
    pub images: Vec<RootImage>,
    pub reuse: bool,
    /// Stored, but with bytes that are not what the name says: to be fetched over.
    pub wrong: BTreeSet<Digest>,
    /// What this run has the right to and found or put in the store.
    pub done: Mutex<BTreeSet<Digest>>,
    pub cache: CacheKey,
    pub commits: Commits,
    pub blocks: Mutex<Vec<Block>>,
    /// Registries that answer a range with something else.
    pub no_ranges: Mutex<BTreeSet<RegistryHost>>,
}

/// One blob of the queue.
pub(super) struct Job {
    pub index: usize,
    pub blob: Blob,
    pub host: RegistryHost,
    pub gauge: Arc<Gauge>,
    pub queue: Arc<Queue>,
    /// Since when another pull is waited for, and how much of it was durable then.
    pub watch: Mutex<Option<(Instant, u64)>>,
}

pub(super) enum Ended {
    Done,
    /// Another pull is at it: ask again later.
    Aside,
}

/// Documents are read to know what an image needs, so they are at hand; configs and layers are only moved.
pub(super) fn is_document(kind: EntryKind) -> bool {
    matches!(kind, EntryKind::Index | EntryKind::Manifest)
}

impl Fetcher {
    /// Brings an index or a manifest into the store: as it was read, or read again if it went missing.
    pub(super) async fn document(
        &self,
        image: &RootImage,
        entry: &Entry,
        gauge: &Gauge,
    ) -> Result<(), Failure> {
        let stored = block_in_place(|| self.store.look(&entry.digest, entry.size))?.is_some();
        let read = self.documents.get(&entry.digest);
        if stored && (!self.wrong.contains(&entry.digest) || self.is_done(&entry.digest)) {
            // Read from upstream in this run, or taken over with a complete root.
            if read.is_some() {
                gauge.fetched();
            } else {
                gauge.reuse(Right::Held);
            }
            return Ok(());
        }
        let bytes = if let Some(bytes) = read {
            bytes.clone()
        } else {
            let (host, repository) = (image.reference.host(), image.reference.repository());
            self.client.manifest(host, repository, &entry.digest, Some(entry.size)).await?.bytes
        };
        let (store, digest, size) = (self.store.clone(), entry.digest.clone(), entry.size);
        blocking(move || {
            let mut ingest = store.ingest(&digest, size)?;
            ingest.write(&bytes)?;
            ingest.finish()
        })
        .await?;
        self.done(&entry.digest);
        gauge.fetched();
        Ok(())
    }

    /// Brings one blob into the store. Its digest is in the lease already.
    /// Its connection is free for others as soon as all bytes have come.
    pub(super) async fn obtain(&self, job: &Job) -> Result<Ended, Failure> {
        let (blob, gauge) = (&job.blob, &job.gauge);
        if let Some(right) = self.reuse_stored(blob).await? {
            if self.done(&blob.digest) {
                gauge.reuse(right);
            }
            return Ok(Ended::Done);
        }
        let lock = block_in_place(|| self.store.try_lock(&blob.digest))?;
        if lock.is_none() && !self.out_of_patience(blob, job)? {
            return Ok(Ended::Aside);
        }
        // Another worker may have finished it meanwhile.
        if let Some(right) = self.reuse_stored(blob).await? {
            self.done(&blob.digest);
            gauge.reuse(right);
            return Ok(Ended::Done);
        }
        let adopt = lock.is_some();
        self.fetch(job, adopt).await?;
        self.done(&blob.digest);
        gauge.fetched();
        Ok(Ended::Done)
    }

    fn done(&self, digest: &Digest) -> bool {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.clone())
    }

    fn is_done(&self, digest: &Digest) -> bool {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }

    /// Another pull is fetching it. It is waited for as long as enough of it becomes durable.
    fn out_of_patience(&self, blob: &Blob, job: &Job) -> Result<bool, Failure> {
        let patience = self.client.limits().patience;
        let durable = block_in_place(|| self.store.durable(&blob.digest, blob.size))?;
        let mut watch = job.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, before) = *watch.get_or_insert((Instant::now(), durable));
        if since.elapsed() < patience {
            return Ok(false);
        }
        if (durable.saturating_sub(before) as f64) < PATIENT_RATE * patience.as_secs_f64() {
            return Ok(true);
        }
        *watch = Some((Instant::now(), durable));
        Ok(false)
    }

    /// By which right this cache may use what the store has, unfetched.
    async fn reuse_stored(&self, blob: &Blob) -> Result<Option<Right>, Failure> {
        if block_in_place(|| self.store.look(&blob.digest, blob.size))?.is_none() {
            return Ok(None);
        }
        if self.is_done(&blob.digest) {
            return Ok(Some(Right::Held));
        }
        if self.wrong.contains(&blob.digest) {
            return Ok(None);
        }
        let allowed = match self.allowed(blob) {
            // Another pull may have brought it since this one began.
            Allowed::Fetch if self.reuse => {
                block_in_place(|| self.learn())?;
                self.allowed(blob)
            }
            allowed => allowed,
        };
        match allowed {
            Allowed::Free(right) => Ok(Some(right)),
            Allowed::Fetch => Ok(None),
            Allowed::Ask(images) => {
                for index in images {
                    let reference = &self.images[index].reference;
                    // A question that fails is no answer: fetching will tell why.
                    if self
                        .client
                        .has_blob(reference.host(), reference.repository(), &blob.digest)
                        .await
                        .unwrap_or(false)
                    {
                        return Ok(Some(Right::Asked));
                    }
                }
                Ok(None)
            }
        }
    }

    /// The images of the run as they are recorded: public only with content that a registry gives openly.
    pub(super) fn recorded(&self) -> (Vec<RootImage>, Vec<(Reference, Digest)>) {
        let mut holdings = self.holdings.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = Owner { cache: &self.cache, credentials: &self.credentials };
        holdings.learn_lease(&self.lease.said(), &owner);
        holdings.open(&self.images)
    }

    fn allowed(&self, blob: &Blob) -> Allowed {
        let holdings = self.holdings.lock().unwrap_or_else(PoisonError::into_inner);
        holdings.right(&blob.digest, &blob.images, &self.images, self.reuse)
    }

    /// What is said of the store's content by now. Leases first: a pull that drops its lease has its root before.
    fn learn(&self) -> Result<(), StoreError> {
        let owner = Owner { cache: &self.cache, credentials: &self.credentials };
        let leases = self.store.leases()?;
        let listed = self.store.list_roots()?;
        let mut holdings = self.holdings.lock().unwrap_or_else(PoisonError::into_inner);
        for lease in leases.into_iter().filter_map(|listed| listed.lease.ok()) {
            holdings.learn_lease(&lease, &owner);
        }
        for (cache, run) in listed {
            if !holdings.knows(&cache, run)
                && let Ok(Some(stored)) = self.store.root(&cache, run)
            {
                holdings.learn_root(&stored.root, &owner, self.now);
            }
        }
        Ok(())
    }

    /// From the first repository that gives it; one that denies or garbles it does not end the search, nor does a
    /// registry that is down if another one has it. Bytes with the
    /// wrong digest are fetched once more from the start, because what was resumed may be what was wrong.
    async fn fetch(&self, job: &Job, adopt: bool) -> Result<(), Failure> {
        let blob = &job.blob;
        let (mut first, mut restarted, mut sources): (Option<Failure>, _, _) =
            (None, false, blob.images.iter());
        let mut source = sources.next();
        let mut download = self.begin(job, adopt).await?;
        while let Some(index) = source {
            let image = &self.images[*index];
            let ended = match self.fetch_from(image, job, &download).await {
                Ok(()) => self.finish(image, job, &download).await.map_err(|failure| (failure, true)),
                Err(failure) => Err((failure, false)),
            };
            let (failure, at_the_end) = match ended {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            };
            if at_the_end && !restarted && failure.class == Class::BadContent {
                restarted = true;
            } else {
                let host = image.reference.host();
                let elsewhere = |index: &&usize| self.images[**index].reference.host() != host;
                source = match failure.class {
                    Class::Auth | Class::NotFound | Class::BadContent => sources.next(),
                    class if is_upstreams(class) => sources.find(elsewhere),
                    _ => None,
                };
                first.get_or_insert(failure.clone());
            }
            if failure.class == Class::BadContent {
                job.queue.show(job.index, None);
                job.gauge.restart();
                download = self.begin(job, false).await?;
            }
        }
        Err(first.unwrap_or_else(|| {
            Failure::new(Class::Unknown, format!("no image of this run holds {}", blob.digest))
        }))
    }

    /// A file of our own, with what earlier attempts of this cache made durable.
    async fn begin(&self, job: &Job, adopt: bool) -> Result<Arc<Download>, Failure> {
        let (store, digest, size) = (self.store.clone(), job.blob.digest.clone(), job.blob.size);
        let cache = self.cache.clone();
        let mut ingest = blocking(move || {
            let ingest = store.ingest(&digest, size)?;
            if adopt {
                ingest.adopt(&cache)?;
            }
            Ok(ingest)
        })
        .await?;
        // Whole without a byte from the registry: then it has to say that we may have it.
        if size > 0 && ingest.is_complete() && !self.may_have(&job.blob).await {
            ingest = block_in_place(|| self.store.ingest(&job.blob.digest, size))?;
        }
        job.gauge.add(ingest.written());
        let alone = self.ranges_are_ignored(&job.host);
        let download = Arc::new(Download::new(Arc::new(ingest), job.gauge.clone(), alone));
        job.queue.show(job.index, Some(download.clone()));
        Ok(download)
    }

    async fn may_have(&self, blob: &Blob) -> bool {
        for index in &blob.images {
            let reference = &self.images[*index].reference;
            let asked = self.client.has_blob(reference.host(), reference.repository(), &blob.digest).await;
            if asked.unwrap_or(false) {
                return true;
            }
        }
        false
    }

    fn ranges_are_ignored(&self, host: &RegistryHost) -> bool {
        self.no_ranges.lock().unwrap_or_else(PoisonError::into_inner).contains(host)
    }

    /// Everything, with the help of others or alone.
    async fn fetch_from(&self, image: &RootImage, job: &Job, download: &Download) -> Result<(), Failure> {
        loop {
            self.receive(image, &job.blob, download, false).await?;
            // Those who help may still give something back.
            let changed = download.changed.notified();
            if download.ingest.is_complete() || job.blob.size == 0 {
                return Ok(());
            }
            if !download.is_left_alone() {
                changed.await;
            }
        }
    }

    /// Work for the disk: others have the connection meanwhile. After a failure the blob has it again.
    async fn finish(&self, image: &RootImage, job: &Job, download: &Download) -> Result<(), Failure> {
        job.queue.free(job.index);
        let ingest = download.ingest.clone();
        let finished = match blocking(move || ingest.verify()).await {
            Ok(()) => {
                let host = (!image.overridden).then(|| image.reference.host().clone());
                self.commits.commit(download.ingest.clone(), host, &self.lease).await
            }
            failed => failed,
        };
        job.queue.take_again(job.index);
        finished
    }
}

/// The registry is out of reach, and another one may not be.
fn is_upstreams(class: Class) -> bool {
    use Class::{Certificate, Dns, Network, PlainHttp, RateLimited, ServerError, Timeout};
    matches!(class, Network | Dns | Timeout | RateLimited | ServerError | PlainHttp | Certificate)
}

/// Bytes a second that another pull has to make durable for us to wait for it.
const PATIENT_RATE: f64 = (1 << 20) as f64;
