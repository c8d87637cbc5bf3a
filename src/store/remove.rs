//! Taking roots away. A root is what keeps blobs, so its removal is all that a removal is; the bytes are gc's.

use super::{
    Store, StoreError,
    folder::seen,
    roots::{REMOVED, file_name, numbered, removed_up_to, runs},
};
use crate::model::request::CacheKey;

impl Store {
    /// Removes one root, durably. `false` if it was gone.
    pub fn remove_root(&self, cache: &CacheKey, run: u64) -> Result<bool, StoreError> {
        let Some(folder) = self.cache_folder(cache)? else { return Ok(false) };
        let removed = seen(folder.remove(&file_name(run)))?.is_some();
        folder.sync()?;
        Ok(removed)
    }

    /// Removes a cache by hand, durably, and returns the runs that it had. A note says up to which run they are gone:
    /// with it they are, in one step, whatever lies under their names now or will. So a pull that is late does not bring
    /// one back, and a run number never means two things to those who read it. A higher run is a new wish, and stays.
    pub fn remove_cache(&self, cache: &CacheKey) -> Result<Vec<u64>, StoreError> {
        let Some(folder) = self.cache_folder(cache)? else { return Ok(Vec::new()) };
        let removed = runs(&folder)?;
        if let Some(highest) = removed.last() {
            folder.add(&format!("{highest}{REMOVED}"), b"")?;
        }
        self.remove_removed(cache)?;
        Ok(removed)
    }

    /// Removes the files of runs that are gone by a note, and the notes below it.
    pub(super) fn remove_removed(&self, cache: &CacheKey) -> Result<(), StoreError> {
        let Some(folder) = self.cache_folder(cache)? else { return Ok(()) };
        let Some(highest) = removed_up_to(&folder)? else { return Ok(()) };
        for name in folder.names()? {
            let run = numbered(&name, ".json").is_some_and(|run| run <= highest);
            if run || numbered(&name, REMOVED).is_some_and(|note| note < highest) {
                seen(folder.remove(&name))?;
            }
        }
        folder.sync()
    }
}
