//! What each cache holds, what of it others hold too, and what would be freed without it. A digest counts once per
//! cache, and once in the total. It takes all roots at once, so it is never part of one object's status.

use std::collections::{BTreeMap, BTreeSet};

use super::{digest::Digest, request::CacheKey, root::Root};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account<'a> {
    /// The highest run; older ones that are still there count for what would be freed.
    pub newest: &'a Root,
    pub size: u64,
    /// Of these, bytes that other caches need too.
    pub shared: u64,
    pub freed_if_deleted: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts<'a> {
    /// In the order of their keys.
    pub caches: Vec<Account<'a>>,
    pub blobs: usize,
    pub bytes: u64,
}

impl<'a> Accounts<'a> {
    pub fn of(roots: impl IntoIterator<Item = &'a Root>) -> Self {
        let mut users: BTreeMap<&Digest, BTreeSet<&CacheKey>> = BTreeMap::new();
        let mut runs: BTreeMap<&CacheKey, Vec<&Root>> = BTreeMap::new();
        let mut all: BTreeMap<&Digest, u64> = BTreeMap::new();
        for root in roots {
            runs.entry(&root.cache).or_default().push(root);
            for (digest, size) in root.closure() {
                users.entry(digest).or_default().insert(&root.cache);
                all.insert(digest, size);
            }
        }
        let shared = |digest: &Digest| users.get(digest).is_some_and(|caches| caches.len() > 1);
        let account = |runs: &Vec<&'a Root>| {
            let newest = *runs.iter().max_by_key(|root| root.run)?;
            let closure = newest.closure();
            let own: BTreeMap<&Digest, u64> = runs.iter().flat_map(|root| root.closure()).collect();
            let sum = |of: &BTreeMap<&Digest, u64>, is_shared: bool| {
                of.iter().filter(|(digest, _)| shared(digest) == is_shared).map(|(_, size)| size).sum()
            };
            Some(Account {
                newest,
                size: closure.values().sum(),
                shared: sum(&closure, true),
                freed_if_deleted: sum(&own, false),
            })
        };
        let caches = runs.values().filter_map(account).collect();
        Self { caches, blobs: all.len(), bytes: all.values().sum() }
    }
}
