//! One blob into the store: by right of reuse, or fetched, verified and durable.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    task::block_in_place,
    time::{Instant, timeout},
};

use super::{
    commit::{Commits, blocking},
    download::Download,
    meter::Gauge,
    permission::{Holdings, Right},
    plan::Blob,
    queue::{Next, Queue, Then},
};
use crate::{
    model::{
        class::Class,
        digest::Digest,
        failure::Failure,
        reference::RegistryHost,
        request::CacheKey,
        root::{Entry, EntryKind, RootImage},
    },
    registry::Client,
    store::{Block, Lease, Store, partial::CHECKPOINTS_ABOVE},
};

/// What every blob of a run needs. Shared by all of its tasks.
pub(super) struct Fetcher {
    pub store: Store,
    pub client: Client,
    pub lease: Arc<Lease>,
    pub holdings: Holdings,
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
pub(super) struct Job<'a> {
    pub index: usize,
    pub blob: &'a Blob,
    pub host: &'a RegistryHost,
    pub gauge: Arc<Gauge>,
    pub queue: &'a Queue,
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

/// Moves what is next, until nothing is left. The queue says whether there is a connection for it.
pub(super) async fn mover(
    fetcher: &Fetcher,
    queue: &Queue,
    jobs: &[Job<'_>],
    failed: &impl Fn(&Job<'_>, Failure) -> Then,
) {
    loop {
        let changed = queue.changed.notified();
        match queue.next(Instant::now()) {
            Next::Begin(index) => match fetcher.obtain(&jobs[index]).await {
                Ok(Ended::Aside) => queue.put_aside(index, Instant::now() + ASIDE),
                Ok(Ended::Done) => {
                    queue.free(index);
                    queue.done(index, Then::GoOn);
                }
                Err(failure) => {
                    let then = failed(&jobs[index], failure);
                    queue.free(index);
                    queue.done(index, then);
                }
            },
            Next::Help(index, download) => {
                fetcher.help(&jobs[index], &download).await;
                queue.free(index);
            }
            Next::Wait(pause) => drop(timeout(pause, changed).await),
            Next::End => return,
        }
    }
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
                gauge.reuse();
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
    pub(super) async fn obtain(&self, job: &Job<'_>) -> Result<Ended, Failure> {
        let (blob, gauge) = (job.blob, &job.gauge);
        if self.reuse_stored(blob).await? {
            if self.done(&blob.digest) {
                gauge.reuse();
            }
            return Ok(Ended::Done);
        }
        let lock = block_in_place(|| self.store.try_lock(&blob.digest))?;
        if lock.is_none() && !self.out_of_patience(blob, job)? {
            return Ok(Ended::Aside);
        }
        // Another worker may have finished it meanwhile.
        if self.reuse_stored(blob).await? {
            self.done(&blob.digest);
            gauge.reuse();
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
    fn out_of_patience(&self, blob: &Blob, job: &Job<'_>) -> Result<bool, Failure> {
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

    /// Whether the store has it and this cache may use it unfetched.
    async fn reuse_stored(&self, blob: &Blob) -> Result<bool, Failure> {
        if block_in_place(|| self.store.look(&blob.digest, blob.size))?.is_none() {
            return Ok(false);
        }
        if self.is_done(&blob.digest) {
            return Ok(true);
        }
        if self.wrong.contains(&blob.digest) {
            return Ok(false);
        }
        match self.holdings.right(&blob.digest, &blob.images, &self.images, self.reuse) {
            Right::Free => Ok(true),
            Right::Fetch => Ok(false),
            Right::Ask(images) => {
                for index in images {
                    let reference = &self.images[index].reference;
                    // A question that fails is no answer: fetching will tell why.
                    if self
                        .client
                        .has_blob(reference.host(), reference.repository(), &blob.digest)
                        .await
                        .unwrap_or(false)
                    {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }

    /// From the first repository that gives it; one that denies or garbles it does not end the search, nor does a
    /// registry that is down if another one has it. Bytes with the
    /// wrong digest are fetched once more from the start, because what was resumed may be what was wrong.
    async fn fetch(&self, job: &Job<'_>, adopt: bool) -> Result<(), Failure> {
        let blob = job.blob;
        let (mut first, mut restarted, mut sources): (Option<Failure>, _, _) =
            (None, false, blob.images.iter());
        let mut source = sources.next();
        let mut download = self.begin(job, adopt).await?;
        while let Some(index) = source {
            let image = &self.images[*index];
            let ended = match self.fetch_from(image, job, &download).await {
                Ok(()) => self.finish(job, &download).await.map_err(|failure| (failure, true)),
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
    async fn begin(&self, job: &Job<'_>, adopt: bool) -> Result<Arc<Download>, Failure> {
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
        if size > 0 && ingest.is_complete() && !self.may_have(job.blob).await {
            ingest = block_in_place(|| self.store.ingest(&job.blob.digest, size))?;
        }
        job.gauge.add(ingest.written());
        let alone = self.ranges_are_ignored(job.host);
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
    async fn fetch_from(&self, image: &RootImage, job: &Job<'_>, download: &Download) -> Result<(), Failure> {
        loop {
            self.receive(image, job.blob, download, false).await?;
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

    /// One more connection for a blob that others have begun. A failure leaves the rest to them.
    pub(super) async fn help(&self, job: &Job<'_>, download: &Download) {
        let Some(image) = job.blob.images.first().and_then(|index| self.images.get(*index)) else { return };
        if let Err(failure) = self.receive(image, job.blob, download, true).await {
            tracing::debug!(%failure, "a part of a blob is left to its first connection");
        }
    }

    /// Takes part after part, until none is free.
    async fn receive(
        &self,
        image: &RootImage,
        blob: &Blob,
        download: &Download,
        helps: bool,
    ) -> Result<(), Failure> {
        while let Some((part, ask)) = download.claim() {
            let mut left = part.clone();
            let result = self.part(image, blob, download, &mut left, ask, helps).await;
            let useless = helps && !matches!(result, Ok(true));
            download.leave(left, useless);
            if !result? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Streams from the start of `left` towards `ask`, as far as the parts on the way are free. `left` shrinks to what
    /// was not written. `false` if the registry ignores ranges, which is of no help to anybody.
    async fn part(
        &self,
        image: &RootImage,
        blob: &Blob,
        download: &Download,
        left: &mut Range<u64>,
        ask: u64,
        helps: bool,
    ) -> Result<bool, Failure> {
        let (host, repository) = (image.reference.host(), image.reference.repository());
        let wanted = left.start..ask;
        let mut body = self.client.blob_range(host, repository, &blob.digest, blob.size, wanted).await?;
        if body.ignores_ranges() {
            self.no_ranges.lock().unwrap_or_else(PoisonError::into_inner).insert(host.clone());
            if helps {
                return Ok(false);
            }
        }
        let mut buffer = self.block();
        // What was taken from the stream; `left.start` follows when it is written.
        let mut at = left.start;
        let result = loop {
            if at == left.end && at < ask {
                match download.go_on(at) {
                    Some(end) => left.end = end,
                    // Somebody else has the next part.
                    None => break Ok(()),
                }
            }
            let mut bytes = match body.next().await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => break Ok(()),
                Err(failure) => break Err(failure),
            };
            while !bytes.is_empty() {
                if at == left.end {
                    match download.go_on(at) {
                        Some(end) => left.end = end,
                        None => break,
                    }
                }
                // Blocks end at multiples of their size, so that all but the first are aligned in the file.
                let size = buffer.capacity() as u64;
                let room = (left.start / size + 1) * size - left.start;
                let room = usize::try_from(room.min(left.end - left.start)).unwrap_or(usize::MAX);
                let taken = buffer.fill(&bytes, room);
                let _ = bytes.split_to(taken);
                at += taken as u64;
                download.received(taken as u64);
                if buffer.len() == room && (room == buffer.capacity() || at.is_multiple_of(size)) {
                    buffer = self.write(download, left, buffer).await?;
                }
            }
        };
        if !buffer.is_empty() {
            buffer = self.write(download, left, buffer).await?;
        }
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        result.map(|()| true)
    }

    /// Hashing and writing are work for another thread; meanwhile the connection fills its own buffers.
    async fn write(
        &self,
        download: &Download,
        left: &mut Range<u64>,
        mut block: Block,
    ) -> Result<Block, Failure> {
        let (ingest, at, written) = (download.ingest.clone(), left.start, block.len() as u64);
        let block = blocking(move || {
            ingest.write_at(at, &mut block)?;
            block.clear();
            Ok(block)
        })
        .await?;
        left.start += written;
        if download.ingest.size() > CHECKPOINTS_ABOVE && download.checkpoint_is_due() {
            let (ingest, cache) = (download.ingest.clone(), self.cache.clone());
            let running = download.checkpointing.clone();
            // Not waited for: if it fails the blob is spoiled, which shows when it is verified.
            tokio::task::spawn_blocking(move || {
                if let Err(error) = ingest.checkpoint(&cache) {
                    tracing::debug!(%error, "no checkpoint");
                }
                running.store(false, Relaxed);
            });
        }
        Ok(block)
    }

    /// Work for the disk: others have the connection meanwhile. After a failure the blob has it again.
    async fn finish(&self, job: &Job<'_>, download: &Download) -> Result<(), Failure> {
        job.queue.free(job.index);
        let ingest = download.ingest.clone();
        let finished = match blocking(move || ingest.verify()).await {
            Ok(()) => self.commits.commit(download.ingest.clone(), &self.lease).await,
            failed => failed,
        };
        job.queue.take_again(job.index);
        finished
    }

    /// One buffer for each connection that receives is all that bodies ever take: 64 MiB at most.
    fn block(&self) -> Block {
        let kept = self.blocks.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let size = if self.client.limits().connections > 16 { 2 << 20 } else { 4 << 20 };
        let mut block = kept.unwrap_or_else(|| Block::new(size));
        block.clear();
        block
    }
}

/// The registry is out of reach, and another one may not be.
fn is_upstreams(class: Class) -> bool {
    use Class::{Certificate, Dns, Network, PlainHttp, RateLimited, ServerError, Timeout};
    matches!(class, Network | Dns | Timeout | RateLimited | ServerError | PlainHttp | Certificate)
}

/// How long a blob that another pull is fetching is put aside.
const ASIDE: Duration = Duration::from_millis(100);
/// Bytes a second that another pull has to make durable for us to wait for it.
const PATIENT_RATE: f64 = (1 << 20) as f64;
