//! What the dead leave behind: unfinished downloads, temporary names, folders with nothing in them. None of it is
//! ever taken for content, so it goes by age alone.

use std::{collections::BTreeSet, time::SystemTime};

use super::{
    Folder, Store, StoreError,
    folder::seen,
    roots::{REMOVED, numbered},
};
use crate::model::{collected::Remains, digest::Digest};

impl Store {
    /// Removes unfinished downloads (data files and what lies beside them) that no lease names and nobody wrote to
    /// since `before`. Not lock files: those have their own rule.
    pub fn remove_unfinished(
        &self,
        leased: &BTreeSet<Digest>,
        before: SystemTime,
        dry_run: bool,
    ) -> Result<Remains, StoreError> {
        let folder = &self.inner.ingest;
        let mut removed = Remains::default();
        for name in folder.names()?.iter().filter(|name| !has_ending(name, "lock")) {
            let Some(stat) = folder.stat(name)? else { continue };
            if stat.modified > before || digest_of_attempt(name).is_some_and(|d| leased.contains(&d)) {
                continue;
            }
            if dry_run || seen(folder.remove(name))?.is_some() {
                removed.files += 1;
                removed.bytes += stat.size;
            }
        }
        Ok(removed)
    }

    /// Removes temporary files, notes of gc runs and empty folders of caches that nobody touched since `before`.
    pub fn remove_remains(&self, before: SystemTime, notes_before: SystemTime) -> Result<(), StoreError> {
        let inner = &self.inner;
        for folder in [
            &inner.base,
            &inner.sha256,
            &inner.sha512,
            &inner.roots,
            &inner.leases,
            &inner.ingest,
            &inner.condemned,
        ] {
            remove_old(folder, folder.temporary()?, before)?;
        }
        let notes = inner.condemned.names()?.into_iter().filter(|name| name.starts_with("seen-"));
        remove_old(&inner.condemned, notes, notes_before)?;
        for cache in inner.roots.names()? {
            let Some(folder) = seen(inner.roots.folder(&cache))? else { continue };
            remove_old(&folder, folder.temporary()?, before)?;
            if let Ok(cache) = cache.parse() {
                self.remove_removed(&cache)?;
            }
            let names = folder.names()?;
            if folder.changed()? > before || !names.iter().all(|name| numbered(name, REMOVED).is_some()) {
                continue;
            }
            // By now everybody who read those runs has seen that they are gone.
            remove_old(&folder, names, before)?;
            inner.roots.remove_folder(&cache)?;
        }
        Ok(())
    }
}

fn remove_old(
    folder: &Folder,
    names: impl IntoIterator<Item = String>,
    before: SystemTime,
) -> Result<(), StoreError> {
    for name in names {
        if folder.stat(&name)?.is_some_and(|stat| stat.modified <= before) {
            seen(folder.remove(&name))?;
        }
    }
    Ok(())
}

/// The digest of `<alg>-<hex>.<random>` and of names that go on from there.
fn digest_of_attempt(name: &str) -> Option<Digest> {
    name.split('.').next()?.replacen('-', ":", 1).parse().ok()
}

fn has_ending(name: &str, ending: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, last)| last == ending)
}
