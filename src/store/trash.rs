//! A blob's way out, and back. `trash/<gc run>/<alg>-<hex>` is taken out and not yet unlinked: whoever looks for a
//! blob looks here too. Beside the blobs, files say which of them were there when the file was made; a blob that
//! no file names was moved just now.

use std::{collections::BTreeMap, time::SystemTime};

use super::{Store, StoreError, flat_name, folder::seen, random_name};
use crate::model::digest::{Algorithm, Digest};

/// A blob as it lies in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlob {
    pub digest: Digest,
    pub size: u64,
    /// By the clock of the file system.
    pub modified: SystemTime,
}

/// A blob in the trash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trashed {
    /// The run of gc that moved it.
    pub gc: String,
    pub digest: Digest,
    pub size: u64,
    /// It was moved at this time or before; nobody wrote down when.
    pub moved: Option<SystemTime>,
}

/// A name for a run of gc.
pub fn gc_name() -> String {
    random_name()
}

impl Store {
    /// What time it is on this volume: every age is measured against it, never against the clock of a machine.
    pub fn clock(&self) -> Result<SystemTime, StoreError> {
        let name = format!(".clock.{}", random_name());
        let made = self.inner.ingest.create(&name);
        let stat = made.and_then(|_| self.inner.ingest.stat(&name));
        self.inner.ingest.forget(&name);
        stat?.map(|stat| stat.modified).ok_or_else(|| {
            StoreError::io("touch", self.inner.ingest.path().join(&name), rustix::io::Errno::NOENT)
        })
    }

    /// Every blob under its final name. Names that are no digests are not ours.
    pub fn blobs_there(&self) -> Result<Vec<StoredBlob>, StoreError> {
        let mut blobs = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let folder = self.blobs(algorithm);
            for name in folder.names()? {
                let Ok(digest) = format!("{}:{name}", algorithm.as_str()).parse::<Digest>() else { continue };
                if let Some(stat) = folder.stat(&name)? {
                    blobs.push(StoredBlob { digest, size: stat.size, modified: stat.modified });
                }
            }
        }
        Ok(blobs)
    }

    /// Every blob in the trash, with the time before which it was moved.
    pub fn list_trash(&self) -> Result<Vec<Trashed>, StoreError> {
        let mut all = Vec::new();
        for gc in self.inner.trash.names()? {
            let Some(folder) = seen(self.inner.trash.folder(&gc))? else { continue };
            let mut moved: BTreeMap<String, SystemTime> = BTreeMap::new();
            let mut blobs = Vec::new();
            for name in folder.names()? {
                let Some(stat) = folder.stat(&name)? else { continue };
                if let Some(digest) = digest_of(&name) {
                    blobs.push((name, digest, stat.size));
                } else if let Some(bytes) = seen(folder.read(&name))? {
                    // One that cannot be read says nothing.
                    for blob in serde_json::from_slice::<Vec<String>>(&bytes).unwrap_or_default() {
                        let first = moved.entry(blob).or_insert(stat.modified);
                        *first = stat.modified.min(*first);
                    }
                }
            }
            all.extend(blobs.into_iter().map(|(name, digest, size)| {
                let moved = moved.get(&name).copied();
                Trashed { gc: gc.clone(), digest, size, moved }
            }));
        }
        Ok(all)
    }

    /// Says that these are in the trash now. A blob enters the folder of one run at most once, so it stays true.
    pub fn note_moved(&self, trashed: &[Trashed]) -> Result<(), StoreError> {
        let mut by_run: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for blob in trashed {
            by_run.entry(&blob.gc).or_default().push(flat_name(&blob.digest));
        }
        for (gc, names) in by_run {
            let Some(folder) = seen(self.inner.trash.folder(gc))? else { continue };
            let bytes = serde_json::to_vec(&names).unwrap_or_default();
            folder.add(&format!("moved-{}.json", random_name()), &bytes)?;
        }
        Ok(())
    }

    /// Moves blobs to the folder of this run, which it makes, durably; returns those that were still there.
    pub fn move_to_trash(&self, gc: &str, blobs: &[StoredBlob]) -> Result<Vec<Trashed>, StoreError> {
        if blobs.is_empty() {
            return Ok(Vec::new());
        }
        let folder = self.inner.trash.new_folder(gc)?;
        let mut moved = Vec::new();
        for StoredBlob { digest, size, .. } in blobs {
            let from = self.blobs(digest.algorithm());
            if seen(from.rename(digest.hex(), &folder, &flat_name(digest)))?.is_some() {
                moved.push(Trashed { gc: gc.to_owned(), digest: digest.clone(), size: *size, moved: None });
            }
        }
        folder.sync()?;
        self.sync_blobs()?;
        self.note_moved(&moved)?;
        Ok(moved)
    }

    /// Gives a blob its name again, unless it was fetched anew meanwhile. `false` if it was gone from the trash.
    pub fn put_back(&self, trashed: &Trashed) -> Result<bool, StoreError> {
        let Some(folder) = seen(self.inner.trash.folder(&trashed.gc))? else { return Ok(false) };
        let there = folder.stat(&flat_name(&trashed.digest))?.is_some();
        self.restore(&folder, &trashed.digest, trashed.size)?;
        Ok(there)
    }

    /// The only place where a blob's bytes go for good. `false` if it was gone.
    pub fn unlink(&self, trashed: &Trashed) -> Result<bool, StoreError> {
        let Some(folder) = seen(self.inner.trash.folder(&trashed.gc))? else { return Ok(false) };
        Ok(seen(folder.remove(&flat_name(&trashed.digest)))?.is_some())
    }

    /// Removes the folders of earlier runs that hold no blob and have not changed since `before`.
    pub fn remove_empty_trash(&self, before: SystemTime) -> Result<(), StoreError> {
        for gc in self.inner.trash.names()? {
            let Some(folder) = seen(self.inner.trash.folder(&gc))? else { continue };
            let names = folder.names()?;
            if folder.changed()? > before || names.iter().any(|name| digest_of(name).is_some()) {
                continue;
            }
            names.iter().chain(&folder.temporary()?).for_each(|name| folder.forget(name));
            self.inner.trash.remove_folder(&gc)?;
        }
        Ok(())
    }
}

/// The digest that a flat name begins with, and only that.
fn digest_of(name: &str) -> Option<Digest> {
    name.replacen('-', ":", 1).parse().ok()
}
