//! One connection's way with a blob: bytes from the registry into blocks, hashed on the way while the CPU has them at
//! hand, and blocks into the file.

use std::{
    ops::Range,
    sync::{PoisonError, atomic::Ordering::Relaxed},
};

use tokio::{task::block_in_place, time::Instant};

use super::{
    commit::blocking,
    download::Download,
    fetch::{Fetcher, Job},
    plan::Blob,
};
use crate::{
    model::{failure::Failure, root::RootImage},
    store::{Block, partial::CHECKPOINTS_ABOVE},
};

/// What is read, and hashed, at once: small enough for the CPU's caches.
const READ: usize = 256 << 10;

impl Fetcher {
    /// One more connection for a blob that others have begun. A failure leaves the rest to them.
    pub(super) async fn help(&self, job: &Job, download: &Download) {
        let Some(image) = job.blob.images.first().and_then(|index| self.images.get(*index)) else { return };
        if let Err(failure) = self.receive(image, &job.blob, download, true).await {
            tracing::debug!(%failure, "a part of a blob is left to its first connection");
        }
    }

    /// Takes part after part, until none is free.
    pub(super) async fn receive(
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
        block_in_place(|| download.ingest.begin_at(at));
        let mut busy_since = Instant::now();
        let result = loop {
            if at == left.end && at < ask {
                match go_on(download, at) {
                    Some(end) => left.end = end,
                    // Somebody else has the next part.
                    None => break Ok(()),
                }
            }
            // Blocks end at multiples of their size, so that all but the first are aligned in the file.
            let size = buffer.capacity() as u64;
            let room = (at / size + 1) * size - at;
            let room = usize::try_from(room.min(left.end - at)).unwrap_or(usize::MAX);
            let asked = Instant::now();
            let read = match body.read(buffer.room(room.min(READ))).await {
                Ok(0) => break Ok(()),
                Ok(read) => read,
                Err(failure) => break Err(failure),
            };
            let came = Instant::now();
            download.received(read as u64, came - asked, asked - busy_since);
            busy_since = came;
            download.ingest.hash_ahead(at, buffer.grow(read));
            at += read as u64;
            if at.is_multiple_of(size) {
                buffer = self.write(download, left, buffer).await?;
            }
        };
        if !buffer.is_empty() {
            buffer = self.write(download, left, buffer).await?;
        }
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        result.map(|()| true)
    }

    /// Writing is work for another thread; meanwhile the connection fills its own buffers.
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

    /// One buffer for each connection that receives is all that bodies ever take: 64 MiB at most.
    fn block(&self) -> Block {
        let kept = self.blocks.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let size = if self.client.limits().connections > 16 { 2 << 20 } else { 4 << 20 };
        let mut block = kept.unwrap_or_else(|| Block::new(size));
        block.clear();
        block
    }
}

/// The part after this one, if it is free.
fn go_on(download: &Download, at: u64) -> Option<u64> {
    let end = download.go_on(at)?;
    block_in_place(|| download.ingest.begin_at(at));
    Some(end)
}
