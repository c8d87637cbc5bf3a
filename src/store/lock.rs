//! One download per digest among all pulls on this store. The lock only saves work: two winners of one digest are
//! harmless. It is an flock on a file of its own, so it dies with its holder, and the file is never unlinked.

use std::{fs::File, thread, time::Duration};

use rustix::{fs::FlockOperation, io::Errno};

use super::{Store, StoreError, fail, flat_name, random_name};
use crate::model::digest::Digest;

const POLL: Duration = Duration::from_millis(50);

/// Held until dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Store {
    /// The lock, or `None` while somebody else holds it.
    pub fn try_lock(&self, digest: &Digest) -> Result<Option<Lock>, StoreError> {
        self.lock_file(&format!("{}.lock", flat_name(digest)))
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

    fn lock_file(&self, name: &str) -> Result<Option<Lock>, StoreError> {
        let file = self.inner.ingest.open_or_create(name)?;
        if fail::no_locks() {
            return Ok(Some(Lock { _file: file }));
        }
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Ok(None),
            // A file system without locks: everybody goes on, as if alone.
            Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK | Errno::INVAL) => {
                Ok(Some(Lock { _file: file }))
            }
            Err(e) => Err(StoreError::io("lock", self.inner.ingest.path().join(name), e)),
        }
    }
}
