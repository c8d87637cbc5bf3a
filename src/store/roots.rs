//! Roots: one file per complete pull of one cache, `roots/<cache>/<run>.json`, never overwritten.

use super::{Folder, Store, StoreError, folder::seen};
use crate::model::{
    digest::Digest,
    request::CacheKey,
    root::{ROOT_FORMAT, Root, RootImage},
};

/// A root as it is in the store, with the digest of its file: what the controller credits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRoot {
    pub root: Root,
    pub digest: Digest,
}

/// A root as it was found: one that cannot be read says why.
#[derive(Debug)]
pub struct ListedRoot {
    pub cache: CacheKey,
    pub run: u64,
    pub root: Result<StoredRoot, StoreError>,
}

impl Store {
    /// Adds the root, durably, and returns the digest of its file: of the one that is there already if it covers
    /// the same content. Blobs must be durable before, and must be looked at again afterwards.
    pub fn link_root(&self, root: &Root) -> Result<Digest, StoreError> {
        if root.store != self.id() {
            return Err(StoreError::OtherStore { theirs: root.store.clone(), ours: self.id().to_owned() });
        }
        // A collector may remove the cache's empty folder under our hands, once.
        match self.try_link_root(root) {
            Err(e) if e.is_absent() => self.try_link_root(root),
            other => other,
        }
    }

    fn try_link_root(&self, root: &Root) -> Result<Digest, StoreError> {
        let folder = self.inner.roots.make_folder(root.cache.as_str())?;
        // Even if it was there: whoever made it may have been killed before it was durable.
        self.inner.roots.sync()?;
        let (cache, run) = (root.cache.clone(), root.run);
        let removed = || StoreError::Removed { cache: cache.clone(), run };
        if Some(run) <= removed_up_to(&folder)? {
            return Err(removed());
        }
        if let Some(higher) = runs(&folder)?.pop().filter(|higher| *higher > run) {
            return Err(StoreError::HigherRun { cache, run, higher });
        }
        let mut bytes = serde_json::to_vec(root)
            .map_err(|e| StoreError::Damaged { path: folder.path().to_owned(), reason: e.to_string() })?;
        bytes.push(b'\n');
        let added = folder.add(&file_name(run), &bytes)?;
        // Asked for again: what was removed by hand before the link is no root, and no success.
        if Some(run) <= removed_up_to(&folder)? {
            seen(folder.remove(&file_name(run)))?;
            return Err(removed());
        }
        if added {
            return Ok(Digest::sha256(&bytes));
        }
        let there = self.read_root(&folder, &cache, run)?;
        if covers(&there.root, root) { Ok(there.digest) } else { Err(StoreError::RunTaken { cache, run }) }
    }

    /// The highest run of a cache that can be read.
    pub fn latest_root(&self, cache: &CacheKey) -> Result<Option<StoredRoot>, StoreError> {
        let Some(folder) = self.cache_folder(cache)? else { return Ok(None) };
        Ok(runs(&folder)?.into_iter().rev().find_map(|run| self.read_root(&folder, cache, run).ok()))
    }

    /// The highest run that a cache has or had, readable or not: the next one must be above it.
    pub fn highest_run(&self, cache: &CacheKey) -> Result<Option<u64>, StoreError> {
        let Some(folder) = self.cache_folder(cache)? else { return Ok(None) };
        Ok(runs(&folder)?.pop().max(removed_up_to(&folder)?))
    }

    pub fn root(&self, cache: &CacheKey, run: u64) -> Result<Option<StoredRoot>, StoreError> {
        let Some(folder) = self.cache_folder(cache)? else { return Ok(None) };
        seen(self.read_root(&folder, cache, run))
    }

    /// The root of a cache that has this digest, of whichever run.
    pub fn root_by_digest(
        &self,
        cache: &CacheKey,
        digest: &Digest,
    ) -> Result<Option<StoredRoot>, StoreError> {
        let Some(folder) = self.cache_folder(cache)? else { return Ok(None) };
        let there =
            runs(&folder)?.into_iter().rev().filter_map(|run| self.read_root(&folder, cache, run).ok());
        Ok(there.into_iter().find(|root| root.digest == *digest))
    }

    /// The name of every root that is there, sorted.
    pub fn list_roots(&self) -> Result<Vec<(CacheKey, u64)>, StoreError> {
        let mut list = Vec::new();
        for cache in self.inner.roots.names()?.iter().filter_map(|name| name.parse::<CacheKey>().ok()) {
            if let Some(folder) = self.cache_folder(&cache)? {
                list.extend(runs(&folder)?.into_iter().map(|run| (cache.clone(), run)));
            }
        }
        Ok(list)
    }

    /// Every root that is there. One that was removed since it was listed is left out.
    pub fn roots(&self) -> Result<Vec<ListedRoot>, StoreError> {
        let mut roots = Vec::new();
        for (cache, run) in self.list_roots()? {
            if let Some(root) = self.root(&cache, run).transpose() {
                roots.push(ListedRoot { cache, run, root });
            }
        }
        Ok(roots)
    }

    pub(super) fn cache_folder(&self, cache: &CacheKey) -> Result<Option<Folder>, StoreError> {
        seen(self.inner.roots.folder(cache.as_str()))
    }

    fn read_root(&self, folder: &Folder, cache: &CacheKey, run: u64) -> Result<StoredRoot, StoreError> {
        let name = file_name(run);
        let bytes = folder.read(&name)?;
        let path = folder.path().join(&name);
        let damaged = |reason: String| StoreError::Damaged { path: path.clone(), reason };
        let format: Format =
            serde_json::from_slice(&bytes).map_err(|e| damaged(format!("not a root: {e}")))?;
        if format.format > ROOT_FORMAT {
            return Err(StoreError::Newer { path, found: format.format, known: ROOT_FORMAT });
        }
        let root: Root = serde_json::from_slice(&bytes).map_err(|e| damaged(format!("not a root: {e}")))?;
        if root.cache != *cache || root.run != run {
            return Err(damaged(format!("holds run {} of cache {}", root.run, root.cache)));
        }
        if root.store != self.id() {
            return Err(StoreError::OtherStore { theirs: root.store, ours: self.id().to_owned() });
        }
        Ok(StoredRoot { root, digest: Digest::sha256(&bytes) })
    }
}

#[derive(serde::Deserialize)]
pub(super) struct Format {
    pub(super) format: u32,
}

pub(super) fn file_name(run: u64) -> String {
    format!("{run}.json")
}

/// All runs up to this one were removed by hand and never come back.
pub(super) fn removed_up_to(folder: &Folder) -> Result<Option<u64>, StoreError> {
    Ok(folder.names()?.iter().filter_map(|name| numbered(name, REMOVED)).max())
}

pub(super) const REMOVED: &str = ".removed";

/// The number of a name such as `7.json`; only in the spelling that we write.
pub(super) fn numbered(name: &str, ending: &str) -> Option<u64> {
    let digits = name.strip_suffix(ending)?;
    digits.parse().ok().filter(|number: &u64| number.to_string() == digits)
}

/// The runs in a cache's folder, ascending. Other names are not roots, and removed runs are none.
pub(super) fn runs(folder: &Folder) -> Result<Vec<u64>, StoreError> {
    let names = folder.names()?;
    let removed = names.iter().filter_map(|name| numbered(name, REMOVED)).max();
    let run = |name: &String| numbered(name, ".json").filter(|run| Some(*run) > removed);
    let mut runs: Vec<u64> = names.iter().filter_map(run).collect();
    runs.sort_unstable();
    Ok(runs)
}

/// Whether a root that was there first answers for what another one wants to say.
fn covers(there: &Root, wanted: &Root) -> bool {
    let means = |image: &RootImage| (image.reference.clone(), image.digest.clone());
    let all: Vec<_> = there.images.iter().map(means).collect();
    there.closure() == wanted.closure() && wanted.images.iter().all(|image| all.contains(&means(image)))
}
