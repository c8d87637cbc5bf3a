//! A blob's way in: a private file that gets its final name only when its size and digest are right and its bytes
//! are durable. Pieces may come in any order and from several tasks; the digest follows the contiguous prefix, from
//! memory when the next bytes have just arrived, else from the file.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use rustix::{
    fs::{FallocateFlags, Mode, Timespec, Timestamps, UTIME_NOW},
    io::Errno,
};

use super::{
    Block, Ranges, Store, StoreError,
    block::ALIGN,
    fail::{self, Change},
    flat_name, random_name,
};
use crate::model::digest::{Digest, Hasher};

/// Smaller blobs go through the page cache: one short write, and they are often read again soon.
const DIRECT_FROM: u64 = 1 << 20;
/// How much is read at once where the digest has to catch up.
const READ: usize = 1 << 20;

/// One attempt to bring one blob in. Dropped unfinished, it leaves nothing behind, unless a checkpoint was made: then
/// a later attempt can take its durable ranges over.
#[derive(Debug)]
pub struct Ingest {
    pub(super) store: Store,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) name: String,
    pub(super) file: File,
    /// The same file past the page cache, where the file system allows it.
    direct: Option<File>,
    direct_works: AtomicBool,
    pub(super) state: Mutex<State>,
    prefix: Mutex<Prefix>,
    /// Held while a checkpoint is made, so that none appears after the blob has its name.
    pub(super) checkpoint: Mutex<()>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub written: Ranges,
    /// A checkpoint is there: the file is worth keeping.
    pub kept: bool,
    /// It has its final name.
    pub published: bool,
    /// A write or a sync failed, or the content is wrong: nobody may take anything over. The first reason.
    pub spoiled: Option<Errno>,
}

/// The digest of the first `at` bytes.
#[derive(Debug)]
struct Prefix {
    hasher: Hasher,
    at: u64,
}

impl Prefix {
    fn new(digest: &Digest) -> Self {
        Self { hasher: Hasher::new(digest.algorithm()), at: 0 }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.at += bytes.len() as u64;
    }
}

impl Store {
    pub fn ingest(&self, digest: &Digest, size: u64) -> Result<Ingest, StoreError> {
        let name = format!("{}.{}", flat_name(digest), random_name());
        let file = self.inner.ingest.create(&name)?;
        let mut ingest = Ingest {
            store: self.clone(),
            digest: digest.clone(),
            size,
            name,
            file,
            direct: None,
            direct_works: AtomicBool::new(true),
            state: Mutex::default(),
            prefix: Mutex::new(Prefix::new(digest)),
            checkpoint: Mutex::new(()),
        };
        if size >= DIRECT_FROM {
            ingest.direct = self.inner.ingest.open_direct(&ingest.name);
            ingest.allocate()?;
        }
        Ok(ingest)
    }
}

impl Ingest {
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are there, durable or not.
    pub fn written(&self) -> u64 {
        self.state().written.sum()
    }

    /// What is still to come.
    pub fn gaps(&self) -> Vec<std::ops::Range<u64>> {
        self.state().written.gaps(self.size)
    }

    pub fn is_complete(&self) -> bool {
        self.written() == self.size
    }

    /// Space is taken at once, so that a full disk shows before an hour of downloading, and in one piece.
    fn allocate(&self) -> Result<(), StoreError> {
        fail::before(Change::Take).map_err(|e| self.failed("reserve the space of", e))?;
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, self.size) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                rustix::fs::ftruncate(&self.file, self.size).map_err(|e| self.failed("size", e))
            }
            other => other.map_err(|e| self.failed("reserve the space of", e)),
        }
    }

    /// Appends to what is there, for content that comes in order. More bytes than the descriptor says are refused.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let at = self.written();
        self.check(at, bytes.len())?;
        fail::before(Change::Take).map_err(|e| self.failed("write", e))?;
        self.file.write_all_at(bytes, at).map_err(|e| self.failed("write", e))?;
        self.arrived(at, bytes)
    }

    /// Whoever brings bytes from here on says so first. If somebody hashed such bytes ahead and never wrote them, ours
    /// may be others: the digest starts over, from the file.
    pub fn begin_at(&self, at: u64) {
        let mut prefix = self.prefix.lock().unwrap_or_else(PoisonError::into_inner);
        if prefix.at > at {
            *prefix = Prefix::new(&self.digest);
        }
    }

    /// Takes bytes that will be written at `at` into the digest, if it is their turn: now the CPU has them at hand.
    pub fn hash_ahead(&self, at: u64, bytes: &[u8]) {
        if let Ok(mut prefix) = self.prefix.try_lock()
            && prefix.at == at
        {
            prefix.take(bytes);
        }
    }

    /// Puts the content of a block where it belongs. Contiguous bytes of large blobs pass the page cache; others
    /// stay in it until the digest has reached them.
    pub fn write_at(&self, at: u64, block: &mut Block) -> Result<(), StoreError> {
        self.check(at, block.len())?;
        fail::before(Change::Take).map_err(|e| self.failed("write", e))?;
        if !self.write_direct(at, block)? {
            self.file.write_all_at(block.filled(), at).map_err(|e| self.failed("write", e))?;
        }
        self.arrived(at, block.filled())
    }

    /// Whether the block was written past the page cache. Its last part may be padded only at the blob's end, which
    /// is cut to its size when the blob is finished.
    fn write_direct(&self, at: u64, block: &mut Block) -> Result<bool, StoreError> {
        let Some(direct) = self.direct.as_ref().filter(|_| self.direct_works.load(Relaxed)) else {
            return Ok(false);
        };
        let in_order = self.prefix.try_lock().is_ok_and(|prefix| prefix.at >= at);
        let end = at + block.len() as u64;
        let whole = block.len().is_multiple_of(ALIGN) || end == self.size;
        if !in_order || !whole || !at.is_multiple_of(ALIGN as u64) {
            return Ok(false);
        }
        let Some(padded) = block.padded() else { return Ok(false) };
        match direct.write_all_at(padded, at) {
            Ok(()) => Ok(true),
            // Alignment that this file system wants otherwise: through the cache from now on.
            Err(e) if Errno::from_io_error(&e) == Some(Errno::INVAL) => {
                self.direct_works.store(false, Relaxed);
                Ok(false)
            }
            Err(e) => Err(self.failed("write", e)),
        }
    }

    fn arrived(&self, at: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.state().written.insert(at..at + bytes.len() as u64);
        // Whoever holds the digest now finds these bytes when it catches up, or `verify` does.
        let Ok(mut prefix) = self.prefix.try_lock() else { return Ok(()) };
        // From where it is, if that is within them: what was hashed ahead is not hashed again.
        let known = prefix.at.checked_sub(at).and_then(|known| usize::try_from(known).ok());
        if let Some(rest) = known.and_then(|known| bytes.get(known..)) {
            prefix.take(rest);
        }
        self.catch_up(&mut prefix)
    }

    /// Hashes what is there and follows the prefix without a gap.
    fn catch_up(&self, prefix: &mut Prefix) -> Result<(), StoreError> {
        let mut buffer = Vec::new();
        loop {
            let Some(end) = self.state().written.end_at(prefix.at) else { return Ok(()) };
            buffer.resize(READ, 0);
            while prefix.at < end {
                let len = usize::try_from(end - prefix.at).map_or(READ, |left| left.min(READ));
                self.file.read_exact_at(&mut buffer[..len], prefix.at).map_err(|e| self.failed("read", e))?;
                prefix.take(&buffer[..len]);
            }
        }
    }

    /// Verifies and makes durable; what is left to do is [`Ingest::publish`]. A failed fsync loses the blob: the
    /// kernel may have dropped the pages, so a second try would lie.
    pub fn verify(&self) -> Result<(), StoreError> {
        self.check_spoiled()?;
        let written = self.written();
        if written != self.size {
            return Err(self.bad(format!("{written} bytes, but its descriptor says {}", self.size)));
        }
        let actual = {
            let mut prefix = self.prefix.lock().unwrap_or_else(PoisonError::into_inner);
            self.catch_up(&mut prefix)?;
            std::mem::replace(&mut *prefix, Prefix::new(&self.digest)).hasher.finish()
        };
        if actual != self.digest {
            return Err(self.bad(format!("its bytes have the digest {actual}")));
        }
        rustix::fs::ftruncate(&self.file, self.size).map_err(|e| self.failed("cut to size", e))?;
        fail::sync(&self.file, rustix::fs::fdatasync).map_err(|e| self.failed("make durable", e))?;
        fail::before(Change::Keep).map_err(|e| self.failed("set the mode of", e))?;
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(0o444))
            .map_err(|e| self.failed("set the mode of", e))?;
        rustix::fs::futimens(&self.file, &NOW).map_err(|e| self.failed("set the time of", e))
    }

    /// Gives a verified blob its name; the name itself is durable after `sync_blobs`. What other attempts left of
    /// the same blob goes.
    pub fn publish(&self) -> Result<(), StoreError> {
        let _no_checkpoint = self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
        // The kernel tells a failed write to one fsync of a file: a checkpoint beside `verify` may have been told.
        self.check_spoiled()?;
        let blobs = self.store.blobs(self.digest.algorithm());
        match self.store.inner.ingest.rename(&self.name, blobs, self.digest.hex()) {
            // NFS repeats a request whose answer was lost, and another winner removes what is left of us: the work
            // is done, if what is there is right.
            Err(e) if e.is_absent() && self.is_stored()? => {}
            other => other?,
        }
        self.state().published = true;
        if self.size > super::partial::CHECKPOINTS_ABOVE {
            self.store.forget_attempts(&self.digest);
        }
        Ok(())
    }

    fn is_stored(&self) -> Result<bool, StoreError> {
        let Some(file) = self.store.look(&self.digest, self.size)? else { return Ok(false) };
        super::is_right(&file, &self.digest, &|_| {})
            .map_err(|e| self.failed("read what took the place of", e))
    }

    /// [`Ingest::verify`] and [`Ingest::publish`].
    pub fn finish(self) -> Result<(), StoreError> {
        self.verify()?;
        self.publish()
    }

    fn check(&self, at: u64, len: usize) -> Result<(), StoreError> {
        if at.checked_add(len as u64).is_some_and(|end| end <= self.size) {
            return Ok(());
        }
        Err(self.bad(format!("more than the {} bytes that its descriptor says", self.size)))
    }

    fn check_spoiled(&self) -> Result<(), StoreError> {
        let spoiled = self.state().spoiled;
        spoiled.map_or(Ok(()), |errno| Err(self.failed("make durable", errno)))
    }

    fn bad(&self, reason: String) -> StoreError {
        self.state().spoiled.get_or_insert(Errno::BADMSG);
        StoreError::Content { digest: self.digest.clone(), reason }
    }

    pub(super) fn failed(&self, action: &'static str, source: impl Into<std::io::Error>) -> StoreError {
        let source = source.into();
        self.state().spoiled.get_or_insert(Errno::from_io_error(&source).unwrap_or(Errno::IO));
        StoreError::io(action, self.store.inner.ingest.path().join(&self.name), source)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time of the file system, not of this machine.
pub(super) const NOW: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
    last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
};

impl Drop for Ingest {
    fn drop(&mut self) {
        let (published, keep) = {
            let state = self.state();
            (state.published, state.kept && state.spoiled.is_none())
        };
        if !published && !keep {
            self.store.forget_attempt(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_that_fails_beside_the_last_one_keeps_the_blob_from_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create_or_open(dir.path()).unwrap();
        let digest = Digest::sha256(b"blob");
        let mut ingest = store.ingest(&digest, 4).unwrap();
        ingest.write(b"blob").unwrap();
        ingest.verify().unwrap();
        let error = ingest.failed("make durable", Errno::NOSPC);
        assert_eq!(ingest.publish().unwrap_err().class(), error.class());
        drop(ingest);
        assert!(store.find(&digest, 4).unwrap().is_none());
        assert_eq!(std::fs::read_dir(dir.path().join("ingest")).unwrap().count(), 0);
    }

    /// A file that answers EINVAL to a write, as a file system does that wants another alignment.
    fn refusing() -> File {
        File::options().write(true).open("/proc/self/oom_score_adj").unwrap()
    }

    #[test]
    fn a_disk_that_refuses_to_be_written_past_the_cache_is_written_through_it() {
        for folder in [std::env::temp_dir(), "/dev/shm".into()].iter().filter(|folder| folder.is_dir()) {
            let folder = tempfile::tempdir_in(folder).unwrap();
            let store = Store::create_or_open(folder.path()).unwrap();
            let bytes = vec![b'x'; 2 << 20];
            let digest = Digest::sha256(&bytes);
            for direct in [None, Some(refusing())] {
                let mut ingest = store.ingest(&digest, bytes.len() as u64).unwrap();
                let refuses = direct.is_some();
                ingest.direct = direct.or(ingest.direct.take());
                let mut block = Block::new(1 << 20);
                for at in [0, 1 << 20] {
                    block.clear();
                    block.fill(&bytes[at..], usize::MAX);
                    ingest.write_at(at as u64, &mut block).unwrap();
                }
                assert!(!(refuses && ingest.direct_works.load(Relaxed)));
                ingest.finish().unwrap();
                assert!(store.look(&digest, bytes.len() as u64).unwrap().is_some());
            }
        }
    }
}
