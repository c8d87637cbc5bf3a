//! What a running pull needs, said before it looks at anything: gc spares what a lease names, and others see how
//! many bytes are still to come. Ages are compared with a file just touched on the same volume, never with the
//! clock of this machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use rustix::fs::AtFlags;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError, folder::seen, ingest::NOW, random_name, roots::Format};
use crate::model::{digest::Digest, reference::RegistryHost, request::CacheKey};

const LEASE_FORMAT: u32 = 1;
/// Older leases reserve no space: their owners touch them every few minutes at most.
const FRESH: Duration = Duration::from_mins(10);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseFile {
    pub format: u32,
    pub cache: CacheKey,
    /// For people: which cache, which run.
    pub who: String,
    /// Bytes that are still to be fetched.
    pub to_fetch: u64,
    pub blobs: BTreeMap<Digest, u64>,
    /// What this cache fetched itself and has no root for yet, by this attempt or an earlier one. It may ask its
    /// registries for these again by HEAD instead of fetching them twice, whatever its settings.
    #[serde(default)]
    pub fetched: BTreeSet<Digest>,
    /// The registries that gave it, reached without overrides: they may be asked who else may have it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<RegistryHost, BTreeSet<Digest>>,
}

impl LeaseFile {
    pub fn new(cache: &CacheKey, who: &str) -> Self {
        Self {
            format: LEASE_FORMAT,
            cache: cache.clone(),
            who: who.to_owned(),
            to_fetch: 0,
            blobs: BTreeMap::new(),
            fetched: BTreeSet::new(),
            hosts: BTreeMap::new(),
        }
    }
}

/// Removed when dropped, unless it says what was fetched: then the next attempt of the cache takes it over, and a
/// collector spares those blobs until it is stale. If its file vanishes the owner goes on: the last look at the closure covers it.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    name: String,
    file: Mutex<LeaseFile>,
    fetched_before: BTreeSet<Digest>,
}

impl Store {
    /// A lease that names only what earlier attempts of this cache fetched, whose leases it replaces. Durable when
    /// this returns. Should one of those attempts still live, its last look at the closure covers it.
    pub fn lease(&self, cache: &CacheKey, who: &str) -> Result<Lease, StoreError> {
        let leases = &self.inner.leases;
        let mut earlier = Vec::new();
        let mut file = LeaseFile::new(cache, who);
        for name in leases.names()? {
            // One that went meanwhile, or that a newer version wrote, is not ours to take over.
            let Some(old) = read(self, &name).filter(|old| old.cache == *cache) else { continue };
            file.blobs.extend(old.blobs.into_iter().filter(|(digest, _)| old.fetched.contains(digest)));
            file.fetched.extend(old.fetched);
            for (host, digests) in old.hosts {
                file.hosts.entry(host).or_default().extend(digests);
            }
            earlier.push(name);
        }
        let fetched_before = file.fetched.clone();
        let name = format!("{}.json", random_name());
        let lease = Lease { store: self.clone(), name, file: Mutex::new(file), fetched_before };
        lease.write(&lease.locked())?;
        for name in earlier {
            leases.forget(&name);
        }
        Ok(lease)
    }
}

/// A lease as a collector finds it.
#[derive(Debug)]
pub struct ListedLease {
    pub name: String,
    /// When its owner last said that it lives, by the clock of the file system.
    pub touched: SystemTime,
    pub lease: Result<LeaseFile, StoreError>,
}

impl Store {
    /// A lease for somebody who reads, such as an export: no pull takes it over, and it takes over none.
    pub fn hold(&self, who: &str, blobs: &[(Digest, u64)]) -> Result<Lease, StoreError> {
        let cache = format!("reader-{}", random_name());
        let cache = CacheKey::of_uid(&cache);
        let lease = self.lease(&cache, who)?;
        lease.add(blobs)?;
        Ok(lease)
    }

    /// Every lease that is there, readable or not.
    pub fn leases(&self) -> Result<Vec<ListedLease>, StoreError> {
        let folder = &self.inner.leases;
        let mut leases = Vec::new();
        for name in folder.names()? {
            // The time first: a lease that is replaced in between is newer than it seems, never older.
            let Some(stat) = folder.stat(&name)? else { continue };
            let lease = match seen(folder.read(&name)) {
                Ok(None) => continue,
                Ok(Some(bytes)) => parse(&bytes, || folder.path().join(&name)),
                Err(e) => Err(e),
            };
            leases.push(ListedLease { name, touched: stat.modified, lease });
        }
        Ok(leases)
    }

    /// Takes a lease away whose owner is gone. Should it live, its last look at the closure covers it.
    pub fn remove_lease(&self, name: &str) -> Result<bool, StoreError> {
        Ok(seen(self.inner.leases.remove(name))?.is_some())
    }
}

fn parse(bytes: &[u8], path: impl Fn() -> std::path::PathBuf) -> Result<LeaseFile, StoreError> {
    let damaged =
        |e: serde_json::Error| StoreError::Damaged { path: path(), reason: format!("not a lease: {e}") };
    let Format { format } = serde_json::from_slice(bytes).map_err(damaged)?;
    if format > LEASE_FORMAT {
        return Err(StoreError::Newer { path: path(), found: format, known: LEASE_FORMAT });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

fn read(store: &Store, name: &str) -> Option<LeaseFile> {
    store.inner.leases.read(name).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
}

impl Lease {
    /// Adds what the pull needs. Durable when this returns: only then may a digest be looked up.
    pub fn add(&self, blobs: &[(Digest, u64)]) -> Result<(), StoreError> {
        let mut file = self.locked();
        let before = file.blobs.len();
        file.blobs.extend(blobs.iter().cloned());
        if file.blobs.len() == before {
            return Ok(());
        }
        self.write(&file)
    }

    /// What it says now.
    pub fn said(&self) -> LeaseFile {
        self.locked().clone()
    }

    /// What earlier attempts of this cache fetched.
    pub fn fetched_before(&self) -> BTreeSet<Digest> {
        self.fetched_before.clone()
    }

    /// Says that this blob was fetched and is durable.
    pub fn fetched(&self, digest: &Digest) -> Result<(), StoreError> {
        self.fetched_all([(digest, None)])
    }

    /// The same of several blobs, in one write; each with the registry that gave it, if no override led there.
    pub fn fetched_all<'a>(
        &self,
        blobs: impl IntoIterator<Item = (&'a Digest, Option<&'a RegistryHost>)>,
    ) -> Result<(), StoreError> {
        let mut file = self.locked();
        let before = file.fetched.len();
        for (digest, host) in blobs {
            file.fetched.insert(digest.clone());
            if let Some(host) = host {
                file.hosts.entry(host.clone()).or_default().insert(digest.clone());
            }
        }
        if file.fetched.len() == before {
            return Ok(());
        }
        self.write(&file)
    }

    /// Says how many bytes are still to be fetched.
    pub fn set_to_fetch(&self, bytes: u64) -> Result<(), StoreError> {
        let mut file = self.locked();
        file.to_fetch = bytes;
        self.write(&file)
    }

    /// Says that the owner lives. `false` if the lease has vanished.
    pub fn touch(&self) -> Result<bool, StoreError> {
        match rustix::fs::utimensat(
            self.store.inner.leases.fd(),
            &*self.name,
            &NOW,
            AtFlags::SYMLINK_NOFOLLOW,
        ) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(e) => Err(StoreError::io("touch", self.store.inner.leases.path().join(&self.name), e)),
        }
    }

    /// Bytes that other running pulls still have to fetch: free space that is spoken for.
    pub fn reserved_by_others(&self) -> Result<u64, StoreError> {
        self.touch()?;
        let leases = &self.store.inner.leases;
        let Ok(now) = leases.open(&self.name).and_then(|file| modified(&file)) else { return Ok(0) };
        let mut sum = 0_u64;
        for name in leases.names()?.iter().filter(|name| **name != self.name) {
            // A lease that went meanwhile, or that a newer version wrote, reserves nothing.
            let Ok(file) = leases.open(name) else { continue };
            let fresh = modified(&file)? + FRESH > now;
            let lease = read(&self.store, name).filter(|_| fresh);
            sum = sum.saturating_add(lease.map_or(0, |lease| lease.to_fetch));
        }
        Ok(sum)
    }

    /// Ends the lease: after the last look at the closure, before success is reported.
    pub fn release(self) -> Result<(), StoreError> {
        self.locked().fetched.clear();
        match self.store.inner.leases.remove(&self.name) {
            Err(e) if !e.is_absent() => Err(e),
            _ => Ok(()),
        }
    }

    fn write(&self, file: &LeaseFile) -> Result<(), StoreError> {
        self.store.inner.leases.replace(&self.name, &serde_json::to_vec(file).unwrap_or_default())
    }

    fn locked(&self) -> MutexGuard<'_, LeaseFile> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn modified(file: &std::fs::File) -> Result<SystemTime, StoreError> {
    file.metadata()
        .and_then(|meta| meta.modified())
        .map_err(|e| StoreError::io("read the time of", "a lease", e))
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut file = self.locked();
        if file.fetched.is_empty() {
            self.store.inner.leases.forget(&self.name);
        } else {
            // Nothing is on its way any more.
            file.to_fetch = 0;
            if let Err(error) = self.write(&file) {
                tracing::debug!(%error, lease = self.name, "the lease keeps its reservation until it is stale");
            }
        }
    }
}
