//! Marks on roots that a collector found missing from its list. A root is removed only by a list that is newer
//! than its mark. No clock can tell that, because a collector may be frozen for days with its list in hand; so each
//! one notes which marks it saw before its report, and whoever read that report before it made a list names it.
//!
//! | file | says |
//! |---|---|
//! | `<cache>.<run>.json` | this root was condemned, by whom and why; since its own time of change |
//! | `seen-<gc run>.json` | the marks that were there when this run reported |

use std::{collections::BTreeSet, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{Store, StoreError, folder::seen};
use crate::model::request::CacheKey;

const MARK_FORMAT: u32 = 1;

/// The name of a root: a cache and one of its runs.
pub type RootName = (CacheKey, u64);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub root: RootName,
    /// By the clock of the file system.
    pub since: SystemTime,
    /// The run of gc that made it.
    pub gc: String,
}

#[derive(Serialize, Deserialize)]
struct MarkFile {
    format: u32,
    gc: String,
    /// For people.
    why: String,
}

#[derive(Serialize, Deserialize)]
struct SeenFile {
    format: u32,
    marks: BTreeSet<RootName>,
}

impl Store {
    /// Every mark that is there. One that cannot be read is as good as none, and is removed.
    pub fn marks(&self) -> Result<Vec<Mark>, StoreError> {
        let folder = &self.inner.condemned;
        let mut marks = Vec::new();
        for name in folder.names()? {
            let Some(root) = root_of(&name) else { continue };
            let Some(stat) = folder.stat(&name)? else { continue };
            let Some(bytes) = seen(folder.read(&name))? else { continue };
            match serde_json::from_slice::<MarkFile>(&bytes) {
                Ok(file) if file.format <= MARK_FORMAT => {
                    marks.push(Mark { root, since: stat.modified, gc: file.gc });
                }
                Ok(_) => {}
                Err(_) => folder.forget(&name),
            }
        }
        Ok(marks)
    }

    /// Marks a root; a mark that is there stays as it is.
    pub fn mark(&self, (cache, run): &RootName, gc: &str, why: &str) -> Result<(), StoreError> {
        let file = MarkFile { format: MARK_FORMAT, gc: gc.to_owned(), why: why.to_owned() };
        let bytes = serde_json::to_vec(&file).unwrap_or_default();
        self.inner.condemned.add(&format!("{cache}.{run}.json"), &bytes).map(drop)
    }

    pub fn unmark(&self, (cache, run): &RootName) -> Result<(), StoreError> {
        seen(self.inner.condemned.remove(&format!("{cache}.{run}.json"))).map(drop)
    }

    /// Says which marks this run of gc saw, before it reports.
    pub fn note_seen(&self, gc: &str, marks: BTreeSet<RootName>) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(&SeenFile { format: MARK_FORMAT, marks }).unwrap_or_default();
        self.inner.condemned.add(&seen_name(gc), &bytes).map(drop)
    }

    /// The marks that a run of gc saw; none if it is not known.
    pub fn seen_by(&self, gc: &str) -> Result<BTreeSet<RootName>, StoreError> {
        // What is no name of ours is no file of ours.
        if !gc.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(BTreeSet::new());
        }
        let Some(bytes) = seen(self.inner.condemned.read(&seen_name(gc)))? else {
            return Ok(BTreeSet::new());
        };
        Ok(serde_json::from_slice::<SeenFile>(&bytes).map(|file| file.marks).unwrap_or_default())
    }
}

fn seen_name(gc: &str) -> String {
    format!("seen-{gc}.json")
}

fn root_of(name: &str) -> Option<RootName> {
    let (cache, run) = name.strip_suffix(".json")?.rsplit_once('.')?;
    Some((cache.parse().ok()?, run.parse().ok()?))
}
