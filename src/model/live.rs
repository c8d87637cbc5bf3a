//! The list of living caches that the controller hands to gc. It comes from one complete quorum list of the
//! objects, made after the report of the gc run that it names was read. A list may be longer than a `ConfigMap` can
//! be: then it comes in parts, each of which says how many entries there are in all and what their hash is, so that
//! a part that is missing or of another list is noticed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{digest::Digest, request::CacheKey};

pub const LIVE_FORMAT: u32 = 1;

/// What the cluster credits a cache with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Credited {
    pub run: u64,
    /// Of the root's file.
    pub root: Digest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveList {
    /// The store it is for.
    pub store: String,
    /// The last gc run whose report was read before the objects were listed.
    pub last_gc: Option<String>,
    /// Every cache that exists; without a credit if none of its runs was complete yet.
    pub caches: BTreeMap<CacheKey, Option<Credited>>,
}

/// One file of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LivePart {
    pub format: u32,
    pub store: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_gc: Option<String>,
    /// Entries of the whole list, and their hash.
    pub count: usize,
    pub hash: Digest,
    pub caches: Vec<LiveCache>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LiveCache {
    pub uid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credited: Option<Credited>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LiveError {
    #[error("the list of living caches has no parts")]
    Nothing,
    #[error("format {0} of the list of living caches is not known: use a newer imagecache")]
    Newer(u32),
    #[error("parts of different lists of living caches: their store, last gc run, count or hash differ")]
    Mixed,
    #[error("the list of living caches is not complete: {found} of {count} entries")]
    Incomplete { found: usize, count: usize },
    #[error("the list of living caches was changed on its way: its hash is not the one it names")]
    Changed,
    #[error("the list of living caches names {0} twice")]
    Twice(CacheKey),
}

impl LiveList {
    /// In parts of at most `entries` entries; one part if there are none.
    pub fn parts(&self, entries: usize) -> Vec<LivePart> {
        let caches: Vec<LiveCache> = self
            .caches
            .iter()
            .map(|(cache, credited)| LiveCache { uid: cache.to_string(), credited: credited.clone() })
            .collect();
        let part = |caches: &[LiveCache]| LivePart {
            format: LIVE_FORMAT,
            store: self.store.clone(),
            last_gc: self.last_gc.clone(),
            count: self.caches.len(),
            hash: self.hash(),
            caches: caches.to_vec(),
        };
        if caches.is_empty() {
            return vec![part(&[])];
        }
        caches.chunks(entries.max(1)).map(part).collect()
    }

    /// The list again, from all of its parts in any order.
    pub fn assemble(parts: &[LivePart]) -> Result<Self, LiveError> {
        let first = parts.first().ok_or(LiveError::Nothing)?;
        if let Some(newer) = parts.iter().find(|part| part.format > LIVE_FORMAT) {
            return Err(LiveError::Newer(newer.format));
        }
        let head =
            |part: &LivePart| (part.store.clone(), part.last_gc.clone(), part.count, part.hash.clone());
        if parts.iter().any(|part| head(part) != head(first)) {
            return Err(LiveError::Mixed);
        }
        let mut list =
            Self { store: first.store.clone(), last_gc: first.last_gc.clone(), caches: BTreeMap::new() };
        for entry in parts.iter().flat_map(|part| &part.caches) {
            let cache = CacheKey::of_uid(&entry.uid);
            if list.caches.insert(cache.clone(), entry.credited.clone()).is_some() {
                return Err(LiveError::Twice(cache));
            }
        }
        if list.caches.len() != first.count {
            return Err(LiveError::Incomplete { found: list.caches.len(), count: first.count });
        }
        if list.hash() != first.hash {
            return Err(LiveError::Changed);
        }
        Ok(list)
    }

    /// Of all entries, in the order of their keys.
    fn hash(&self) -> Digest {
        Digest::sha256(&serde_json::to_vec(&self.caches).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(n: u32) -> LiveList {
        let cache = |i: u32| format!("8f14e45f-{i:04}").parse().unwrap();
        let credited =
            |i: u32| i.is_multiple_of(2).then(|| Credited { run: 3, root: Digest::sha256(&i.to_le_bytes()) });
        LiveList {
            store: "0123".into(),
            last_gc: Some("abc".into()),
            caches: (0..n).map(|i| (cache(i), credited(i))).collect(),
        }
    }

    #[test]
    fn a_list_survives_its_way_in_parts_of_any_size_and_order() {
        for (entries, parts) in [(1, 7), (3, 3), (7, 1), (100, 1)] {
            let mut sent = list(7).parts(entries);
            assert_eq!(sent.len(), parts);
            sent.reverse();
            let text = serde_json::to_string(&sent).unwrap();
            let read: Vec<LivePart> = serde_json::from_str(&text).unwrap();
            assert_eq!(LiveList::assemble(&read), Ok(list(7)));
        }
        assert_eq!(LiveList::assemble(&list(0).parts(5)), Ok(list(0)), "nothing lives: a legal list");
    }

    #[test]
    fn a_part_that_is_missing_or_foreign_or_bent_is_noticed() {
        let parts = list(4).parts(2);
        assert_eq!(LiveList::assemble(&[]), Err(LiveError::Nothing));
        assert_eq!(LiveList::assemble(&parts[..1]), Err(LiveError::Incomplete { found: 2, count: 4 }));
        assert_eq!(
            LiveList::assemble(&[parts[0].clone(), list(5).parts(2)[1].clone()]),
            Err(LiveError::Mixed)
        );
        assert!(matches!(
            LiveList::assemble(&[parts.clone(), parts.clone()].concat()),
            Err(LiveError::Twice(_))
        ));
        let mut bent = parts.clone();
        bent[1].caches[0].credited = None;
        assert_eq!(LiveList::assemble(&bent), Err(LiveError::Changed));
        bent[1].format = 2;
        assert_eq!(LiveList::assemble(&bent), Err(LiveError::Newer(2)));
    }
}
