//! One download per digest among all pulls on this store. The lock only saves work: two winners of one digest are
//! harmless. It is an flock on a file of its own, so it dies with its holder. The file is unlinked only by who holds it,
//! and whoever locks a file that has lost its name meanwhile lets it go and takes the one that has the name now.

use std::{
    fs::File,
    thread,
    time::{Duration, SystemTime},
};

use rustix::{fs::FlockOperation, io::Errno};

use super::{Store, StoreError, fail, flat_name, folder::seen, ingest::NOW, random_name};
use crate::model::digest::Digest;

const POLL: Duration = Duration::from_millis(50);
/// How often a file that lost its name is let go, before the lock counts as taken.
const TRIES: usize = 10;
const ENDING: &str = ".lock";

/// Held until dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Store {
    /// The lock, or `None` while somebody else holds it.
    pub fn try_lock(&self, digest: &Digest) -> Result<Option<Lock>, StoreError> {
        self.lock_file(&format!("{}{ENDING}", flat_name(digest)))
    }

    /// One collector at a time saves work; two lose nothing. `None` while another one is at work.
    pub fn try_lock_gc(&self) -> Result<Option<Lock>, StoreError> {
        self.lock_file("gc.lock")
    }

    /// Waits for the lock until `give_up` says so; asked every 50 ms.
    pub fn lock(&self, digest: &Digest, give_up: impl Fn() -> bool) -> Result<Option<Lock>, StoreError> {
        loop {
            match self.try_lock(digest)? {
                None if !give_up() => thread::sleep(POLL),
                done => return Ok(done),
            }
        }
    }

    /// Whether a second opener is kept out. Where not, nothing of another pull may be adopted.
    pub fn locks_work(&self) -> Result<bool, StoreError> {
        let name = format!(".locks.{}", random_name());
        let first = self.lock_file(&name);
        let second = self.lock_file(&name);
        self.inner.ingest.forget(&name);
        Ok(first?.is_some() && second?.is_none())
    }

    /// Removes the lock files of digests that nobody holds and nobody has taken since `before`.
    pub fn remove_locks(&self, before: SystemTime) -> Result<(), StoreError> {
        for name in self.inner.ingest.names()?.iter().filter(|name| is_of_digest(name)) {
            if self.inner.ingest.stat(name)?.is_some_and(|stat| stat.modified <= before) {
                self.remove_lock(name)?;
            }
        }
        Ok(())
    }

    /// The same for one digest, whenever it was taken.
    pub(super) fn forget_lock(&self, digest: &Digest) -> Result<(), StoreError> {
        self.remove_lock(&format!("{}{ENDING}", flat_name(digest)))
    }

    fn remove_lock(&self, name: &str) -> Result<(), StoreError> {
        let folder = &self.inner.ingest;
        let Some(file) = seen(folder.open(name))? else { return Ok(()) };
        // Held while its name goes: who waits for it sees that it has none, and looks again.
        if self.flock(&file, name)? && has_name(&file) {
            seen(folder.remove(name))?;
        }
        Ok(())
    }

    fn lock_file(&self, name: &str) -> Result<Option<Lock>, StoreError> {
        for _ in 0..TRIES {
            let file = self.inner.ingest.open_or_create(name)?;
            if !self.flock(&file, name)? {
                return Ok(None);
            }
            if has_name(&file) {
                // For those who remove old ones; a time that cannot be set only makes them do so sooner.
                let _ = rustix::fs::futimens(&file, &NOW);
                return Ok(Some(Lock { _file: file }));
            }
        }
        Ok(None)
    }

    /// Whether it is ours until the file is closed.
    fn flock(&self, file: &File, name: &str) -> Result<bool, StoreError> {
        if fail::no_locks() {
            return Ok(true);
        }
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Ok(false),
            // A file system without locks: everybody goes on, as if alone.
            Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK | Errno::INVAL) => Ok(true),
            Err(e) => Err(StoreError::io("lock", self.inner.ingest.path().join(name), e)),
        }
    }
}

/// Lock files are never renamed, so one without a name was removed. NFS asks its server after a lock, and says ESTALE.
fn has_name(file: &File) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| stat.st_nlink > 0)
}

/// Not the lock of gc, which is one file.
fn is_of_digest(name: &str) -> bool {
    let digest = name.strip_suffix(ENDING).map(|flat| flat.replacen('-', ":", 1));
    digest.is_some_and(|digest| digest.parse::<Digest>().is_ok())
}
