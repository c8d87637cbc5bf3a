//! What is known of the bytes behind each digest: hashed since the mirror started, found wrong, or missing.
//! A verdict holds for one file as it was; a file that took its place is judged anew.

use std::{
    collections::HashMap,
    fs::{File, Metadata},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Semaphore;

use crate::model::digest::{Digest, Hasher};

const BUFFER: usize = 1 << 20;

/// A file as it was when it was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Identity {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let meta: Metadata = file.metadata()?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good(Identity),
    Wrong(Identity),
    Missing,
}

#[derive(Debug)]
pub(super) struct Proofs {
    verdicts: Mutex<HashMap<Digest, Verdict>>,
    /// Hashing whole blobs takes a core each.
    cores: Arc<Semaphore>,
    /// One hashing per digest at a time.
    running: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

impl Default for Proofs {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { verdicts: Mutex::default(), cores: Arc::new(Semaphore::new(cores)), running: Mutex::default() }
    }
}

impl Proofs {
    /// Whether the bytes of this very file are known: `None` if nobody hashed them yet.
    pub(super) fn known(&self, digest: &Digest, file: Identity) -> Option<bool> {
        match self.verdicts().get(digest)? {
            Verdict::Good(seen) if *seen == file => Some(true),
            Verdict::Wrong(seen) if *seen == file => Some(false),
            _ => None,
        }
    }

    pub(super) fn record(&self, digest: &Digest, verdict: Verdict) {
        let before = self.verdicts().insert(digest.clone(), verdict);
        if before == Some(verdict) {
            return;
        }
        match verdict {
            Verdict::Good(_) => {}
            Verdict::Wrong(_) => {
                tracing::error!(%digest, "the bytes of this blob are wrong: it is not served until it is pulled again");
            }
            Verdict::Missing => {
                tracing::error!(%digest, "this blob is missing: it is not served until it is pulled again");
            }
        }
    }

    /// Forgets a verdict that no longer describes what is there.
    pub(super) fn forget(&self, digest: &Digest) {
        self.verdicts().remove(digest);
    }

    pub(super) fn lost(&self) -> Vec<(Digest, Verdict)> {
        let verdicts = self.verdicts();
        let lost = verdicts.iter().filter(|(_, verdict)| !matches!(verdict, Verdict::Good(_)));
        lost.map(|(digest, verdict)| (digest.clone(), *verdict)).collect()
    }

    pub(super) fn is_lost(&self, digest: &Digest) -> bool {
        matches!(self.verdicts().get(digest), Some(Verdict::Wrong(_) | Verdict::Missing))
    }

    /// Drops what nobody can ask for any more.
    pub(super) fn retain(&self, wanted: impl Fn(&Digest) -> bool) {
        self.verdicts().retain(|digest, _| wanted(digest));
    }

    /// Hashes a whole blob, unless it is known. The verdict is kept even if the one who asked goes away.
    pub(super) async fn prove(self: &Arc<Self>, digest: &Digest, file: Arc<File>) -> io::Result<bool> {
        let identity = Identity::of(&file)?;
        let turn = Arc::clone(self.running().entry(digest.clone()).or_default());
        let turn = turn.lock_owned().await;
        if let Some(known) = self.known(digest, identity) {
            self.running().remove(digest);
            return Ok(known);
        }
        let core = self.cores.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (proofs, digest) = (Arc::clone(self), digest.clone());
        let hashing = tokio::task::spawn_blocking(move || {
            let good = hash(&file, &digest, identity.size);
            if let Ok(good) = good {
                proofs.record(&digest, if good { Verdict::Good(identity) } else { Verdict::Wrong(identity) });
            }
            proofs.running().remove(&digest);
            drop((turn, core));
            good
        });
        hashing.await.map_err(io::Error::other)?
    }

    fn verdicts(&self) -> MutexGuard<'_, HashMap<Digest, Verdict>> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Digest, Arc<tokio::sync::Mutex<()>>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(file: &File, digest: &Digest, size: u64) -> io::Result<bool> {
    let mut hasher = Hasher::new(digest.algorithm());
    let mut buffer = vec![0; BUFFER];
    let mut at = 0;
    while at < size {
        let n = file.read_at(&mut buffer, at)?;
        if n == 0 {
            return Ok(false);
        }
        hasher.update(&buffer[..n]);
        at += n as u64;
    }
    Ok(hasher.finish() == *digest)
}
