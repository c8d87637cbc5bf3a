//! What is left of an attempt that did not end: its durable ranges, in a sidecar beside its data file. A later attempt
//! copies them into a file of its own and hashes them again; the old file is never continued (`docs/store.md`, Pull).

use std::{collections::BTreeSet, fs::File, os::unix::fs::FileExt as _, sync::PoisonError};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{
    Ingest, Store, StoreError,
    fail::{self, Change},
    flat_name,
};
use crate::model::{digest::Digest, request::CacheKey};

/// Smaller blobs start over: a sidecar costs more than it saves.
pub const CHECKPOINTS_ABOVE: u64 = 16 << 20;
const SIDECAR: &str = ".ranges";
const COPY: usize = 1 << 20;

/// Written only after the data it speaks of was synced. Not synced itself: a lost or torn sidecar loses the progress
/// and nothing else, because whatever it says is hashed again.
#[derive(Debug, Serialize, Deserialize)]
struct Sidecar {
    format: u32,
    size: u64,
    /// Whose attempt: what a cache has fetched gives another one no right to the bytes.
    cache: CacheKey,
    /// Half-open.
    ranges: Vec<(u64, u64)>,
}

const FORMAT: u32 = 1;

impl Ingest {
    /// Makes what was written so far durable and says so beside it.
    pub fn checkpoint(&self, cache: &CacheKey) -> Result<(), StoreError> {
        if self.size <= CHECKPOINTS_ABOVE {
            return Ok(());
        }
        let _one = self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
        let written = {
            let state = self.state();
            if state.published || state.spoiled.is_some() {
                return Ok(());
            }
            state.written.clone()
        };
        fail::sync(&self.file, rustix::fs::fdatasync).map_err(|e| self.failed("make durable", e))?;
        let ranges = written.iter().map(|range| (range.start, range.end)).collect();
        let sidecar = Sidecar { format: FORMAT, size: self.size, cache: cache.clone(), ranges };
        let bytes = serde_json::to_vec(&sidecar).unwrap_or_default();
        self.store.inner.ingest.replace_unsynced(&format!("{}{SIDECAR}", self.name), &bytes)?;
        self.state().kept = true;
        Ok(())
    }

    /// Takes over what earlier attempts of this cache made durable, and returns how many bytes that is. Their files go
    /// when ours is as durable as they were. Call it with the digest's lock held, on a fresh ingest.
    pub fn adopt(&self, cache: &CacheKey) -> Result<u64, StoreError> {
        if self.size <= CHECKPOINTS_ABOVE {
            return Ok(0);
        }
        let ingest = &self.store.inner.ingest;
        let mut adopted = Vec::new();
        for name in self.store.attempts(&self.digest)? {
            if name == self.name {
                continue;
            }
            let Some(sidecar) = self.store.sidecar(&name, self.size) else { continue };
            let owned = sidecar.cache == *cache || (sidecar.cache.is_local() && cache.is_local());
            // One that went meanwhile has nothing to give.
            let Ok(file) = ingest.open(&name) else { continue };
            if !owned {
                continue;
            }
            // Where locks do not work somebody may be writing to it.
            if !self.store.locks_work()? {
                return Ok(0);
            }
            if self.copy_from(&file, &sidecar.ranges)? {
                adopted.push(name);
            }
        }
        if adopted.is_empty() {
            return Ok(0);
        }
        self.checkpoint(cache)?;
        for name in &adopted {
            self.store.forget_attempt(name);
        }
        Ok(self.written())
    }

    /// Copies what we do not have yet; whether all of it could be read.
    fn copy_from(&self, old: &File, ranges: &[(u64, u64)]) -> Result<bool, StoreError> {
        for (start, end) in ranges {
            let wanted: Vec<_> = self
                .gaps()
                .into_iter()
                .map(|gap| gap.start.max(*start)..gap.end.min(*end))
                .filter(|part| part.start < part.end)
                .collect();
            for part in wanted {
                if !self.copy_range(old, part.start, part.end)? {
                    return Ok(false);
                }
                self.state().written.insert(part);
            }
        }
        Ok(true)
    }

    /// In the kernel, which shares the blocks where the file system can; else by hand.
    fn copy_range(&self, old: &File, start: u64, end: u64) -> Result<bool, StoreError> {
        fail::before(Change::Take).map_err(|e| self.failed("copy an earlier attempt to", e))?;
        let mut at = start;
        while at < end {
            let (mut from, mut to) = (at, at);
            let left = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
            match rustix::fs::copy_file_range(old, Some(&mut from), &self.file, Some(&mut to), left) {
                Ok(0) => return Ok(false),
                Ok(copied) => at += copied as u64,
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => break,
                Err(e) => return Err(self.failed("copy an earlier attempt to", e)),
            }
        }
        let mut buffer = vec![0; if at < end { COPY } else { 0 }];
        while at < end {
            let len = usize::try_from(end - at).map_or(COPY, |left| left.min(COPY));
            if old.read_exact_at(&mut buffer[..len], at).is_err() {
                return Ok(false);
            }
            self.file.write_all_at(&buffer[..len], at).map_err(|e| self.failed("write", e))?;
            at += len as u64;
        }
        Ok(true)
    }
}

impl Store {
    /// The most that any attempt at this blob has made durable.
    pub fn durable(&self, digest: &Digest, size: u64) -> Result<u64, StoreError> {
        let sum =
            |sidecar: Sidecar| sidecar.ranges.iter().map(|(start, end)| end.saturating_sub(*start)).sum();
        let names = self.attempts(digest)?;
        Ok(names.iter().filter_map(|name| self.sidecar(name, size)).map(sum).max().unwrap_or_default())
    }

    /// The data files of all attempts at this blob.
    fn attempts(&self, digest: &Digest) -> Result<Vec<String>, StoreError> {
        let flat = flat_name(digest);
        let is_attempt = |name: &String| {
            let random = name.strip_prefix(&flat).and_then(|rest| rest.strip_prefix('.'));
            random.is_some_and(|random| random.len() == 32 && random.bytes().all(|b| b.is_ascii_hexdigit()))
        };
        Ok(self.inner.ingest.names()?.into_iter().filter(is_attempt).collect())
    }

    /// One that cannot be read, that a newer version wrote or that speaks of another size is none.
    fn sidecar(&self, name: &str, size: u64) -> Option<Sidecar> {
        let bytes = self.inner.ingest.read(&format!("{name}{SIDECAR}")).ok()?;
        let sidecar: Sidecar = serde_json::from_slice(&bytes).ok()?;
        let sound = sidecar.ranges.iter().all(|(start, end)| start < end && *end <= size);
        (sidecar.format == FORMAT && sidecar.size == size && sound).then_some(sidecar)
    }

    /// Removes what attempts at a blob left that is in the store now. One that still runs finds its work done.
    pub(super) fn forget_attempts(&self, digest: &Digest) {
        for name in self.inner.ingest.all_names().unwrap_or_default() {
            if rest_of_attempt(&name) == Some(&flat_name(digest)) {
                self.inner.ingest.forget(&name);
            }
        }
    }

    /// After a complete pull: removes what killed attempts at these blobs left and their lock files, except where
    /// somebody is at work.
    pub fn tidy<'a>(&self, digests: impl IntoIterator<Item = &'a Digest>) -> Result<(), StoreError> {
        let names = self.inner.ingest.all_names()?;
        let left: BTreeSet<&str> = names.iter().filter_map(|name| flat_of(name)).collect();
        for digest in digests.into_iter().filter(|digest| left.contains(&*flat_name(digest))) {
            if let Some(_lock) = self.try_lock(digest)? {
                self.forget_attempts(digest);
            }
            self.forget_lock(digest)?;
        }
        Ok(())
    }

    /// The sidecar first: without it nobody trusts the data.
    pub(super) fn forget_attempt(&self, name: &str) {
        self.inner.ingest.forget(&format!("{name}{SIDECAR}"));
        self.inner.ingest.forget(name);
    }
}

/// The digest part of a name that an attempt leaves: data, sidecar, or a sidecar that was being written.
fn rest_of_attempt(name: &str) -> Option<&str> {
    flat_of(name).filter(|_| name.strip_suffix(".lock").is_none())
}

/// The digest part of any name in `ingest/`.
fn flat_of(name: &str) -> Option<&str> {
    let (flat, _) = name.strip_prefix('.').unwrap_or(name).split_once('.')?;
    (!flat.is_empty()).then_some(flat)
}
