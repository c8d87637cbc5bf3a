//! `imagecache rm`: removes caches that were made by hand, and says what gc will free. The names are checked before
//! anything is removed.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;

use super::{choose::by_name, table::human};
use crate::{
    cli::{Output, RmArgs},
    model::{class::Class, digest::Digest, failure::Failure, request::CacheKey, root::Root, text::count},
    ops::out::{print, tell},
    store::{ListedLease, ListedRoot, Store, StoreError},
};

/// Owners touch their leases every few minutes at most.
const ALIVE: std::time::Duration = std::time::Duration::from_mins(10);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Removed {
    pub store: String,
    pub caches: Vec<RemovedCache>,
    /// Bytes that nothing else in the store names: what gc frees.
    pub unneeded: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RemovedCache {
    pub cache: CacheKey,
    pub runs: Vec<u64>,
    /// A pull of it runs, or ended without success a moment ago: what it makes stays.
    pub being_pulled: bool,
}

/// Runs the command and returns the exit status.
pub fn run(args: &RmArgs) -> u8 {
    match rm(&args.volume, &args.caches, args.force) {
        Ok(removed) if args.output == Output::Json => {
            print(&serde_json::to_string_pretty(&removed).unwrap_or_default());
            0
        }
        Ok(removed) => {
            print(&removed.to_text(&args.volume));
            0
        }
        Err(failure) => {
            tell(&failure.to_string());
            failure.class.exit_code()
        }
    }
}

/// Durable when this returns. Pulls, readers and gc may run meanwhile.
pub fn rm(volume: &Path, names: &[String], force: bool) -> Result<Removed, Failure> {
    let store = Store::open(volume)?;
    let chosen = choose(names, &store.roots()?, force)?;
    let mut caches = Vec::new();
    for cache in &chosen {
        let runs = store.remove_cache(cache)?;
        caches.push(RemovedCache { cache: cache.clone(), runs, being_pulled: end_leases(&store, cache)? });
    }
    store.rewrite_index()?;
    Ok(Removed { store: store.id().to_owned(), caches, unneeded: unneeded(&store)? })
}

/// The keys that the names mean. None of them is a cluster's, or it is forced.
fn choose(names: &[String], roots: &[ListedRoot], force: bool) -> Result<Vec<CacheKey>, Failure> {
    let mut chosen = Vec::new();
    for name in names {
        let cache = by_name(name, roots)?;
        if !force && !cache.is_local() {
            let advice = "delete that, and its controller frees the bytes; or use --force";
            let message = format!("cache {cache} belongs to an ImageCache of a cluster: {advice}");
            return Err(Failure::new(Class::InvalidSpec, message));
        }
        chosen.push(cache);
    }
    chosen.sort();
    chosen.dedup();
    Ok(chosen)
}

/// Removes what earlier attempts of the cache left to be continued. Whether an attempt may still be at work.
fn end_leases(store: &Store, cache: &CacheKey) -> Result<bool, StoreError> {
    let now = store.clock()?;
    let mut alive = false;
    for ListedLease { name, touched, lease } in store.leases()? {
        if !lease.is_ok_and(|lease| lease.cache == *cache) {
            continue;
        }
        if touched + ALIVE > now {
            alive = true;
        } else {
            store.remove_lease(&name)?;
        }
    }
    Ok(alive)
}

/// Bytes of blobs that no root and no lease names.
fn unneeded(store: &Store) -> Result<u64, StoreError> {
    let roots: Vec<Root> =
        store.roots()?.into_iter().filter_map(|listed| Some(listed.root.ok()?.root)).collect();
    let mut needed: BTreeMap<Digest, u64> =
        roots.iter().flat_map(Root::closure).map(|(digest, size)| (digest.clone(), size)).collect();
    needed.extend(
        store.leases()?.into_iter().filter_map(|listed| listed.lease.ok()).flat_map(|lease| lease.blobs),
    );
    let blobs = store.blobs_there()?;
    Ok(blobs.iter().filter(|blob| !needed.contains_key(&blob.digest)).map(|blob| blob.size).sum())
}

impl Removed {
    pub fn to_text(&self, volume: &Path) -> String {
        let mut parts = Vec::new();
        for RemovedCache { cache, runs, being_pulled } in &self.caches {
            parts.push(format!("removed {cache}, {}\n", count(runs.len(), "run")));
            if *being_pulled {
                parts.push(format!(
                    "  a pull of {cache} may be running: what it needs is kept, and its result will be there\n"
                ));
            }
        }
        parts.push(format!(
            "{} is needed by no cache now: `imagecache gc {}` takes out what came more than an hour ago, and frees \
             it when it is run again 15 minutes later\n",
            human(self.unneeded),
            volume.display()
        ));
        parts.concat()
    }
}
