//! Follows the roots of the volume: what the table is built from, what is lost, and what the report says. Polls,
//! because no file system event crosses a network; root files never change, so their names are enough.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use super::{
    proof::{Identity, Proofs, Verdict},
    table::{Policy, Table},
};
use crate::{
    model::{
        digest::Digest,
        request::CacheKey,
        volume::{BrokenRoot, SeenRoot, VolumeReport},
    },
    store::{Space, Store, StoreError, StoredRoot},
};

/// One reading of the volume.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Absent while nothing was pulled to the volume yet.
    pub store: Option<Store>,
    pub table: Table,
    roots: BTreeMap<(CacheKey, u64), Arc<StoredRoot>>,
    /// Roots that cannot be read, and why.
    unreadable: BTreeMap<(CacheKey, u64), String>,
    /// Every digest that a root names, with its size.
    blobs: BTreeMap<Digest, u64>,
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let store = self.store.as_ref().map_or("none", Store::id);
        write!(
            f,
            "store {store}, {} roots, {} blobs, {} unreadable",
            self.roots.len(),
            self.blobs.len(),
            self.unreadable.len()
        )
    }
}

impl View {
    /// Reads what is new; `None` if nothing is.
    pub(super) fn read(volume: &Path, before: &Self, policy: &Policy) -> Result<Option<Self>, StoreError> {
        let store = match Store::open(volume) {
            Err(StoreError::Absent(_)) => return Ok(before.store.is_some().then(Self::default)),
            other => other?,
        };
        let same_store = before.store.as_ref().is_some_and(|known| known.id() == store.id());
        let mut roots = BTreeMap::new();
        let mut unreadable = BTreeMap::new();
        for name in store.list_roots()? {
            if let Some(known) = before.roots.get(&name).filter(|_| same_store) {
                roots.insert(name, Arc::clone(known));
                continue;
            }
            match store.root(&name.0, name.1) {
                Ok(Some(root)) => drop(roots.insert(name, Arc::new(root))),
                Ok(None) => {}
                Err(e) => drop(unreadable.insert(name, e.to_string())),
            }
        }
        let unchanged = same_store && roots.keys().eq(before.roots.keys()) && unreadable == before.unreadable;
        if unchanged {
            return Ok(None);
        }
        for ((cache, run), reason) in
            unreadable.iter().filter(|(name, _)| !before.unreadable.contains_key(*name))
        {
            tracing::error!(%cache, run, reason, "a root cannot be read");
        }
        let list: Vec<Arc<StoredRoot>> = roots.values().cloned().collect();
        let blobs =
            list.iter().flat_map(|root| root.root.closure()).map(|(digest, size)| (digest.clone(), size));
        let (table, blobs) = (Table::build(&list, policy), blobs.collect());
        Ok(Some(Self { store: Some(store), table, roots, unreadable, blobs }))
    }

    /// Looks whether blobs are there: all of them, or only those that were lost.
    pub(super) fn check(&self, proofs: &Proofs, all: bool) -> Result<(), StoreError> {
        let Some(store) = &self.store else { return Ok(()) };
        proofs.retain(|digest| self.blobs.contains_key(digest));
        let lost: BTreeMap<Digest, Verdict> = proofs.lost().into_iter().collect();
        for (digest, size) in self.blobs.iter().filter(|(digest, _)| all || lost.contains_key(digest)) {
            let there = store.find(digest, *size)?.and_then(|file| Identity::of(&file).ok());
            match (there, lost.get(digest)) {
                (None, _) => proofs.record(digest, Verdict::Missing),
                (Some(_), Some(Verdict::Missing)) => proofs.forget(digest),
                (Some(now), Some(Verdict::Wrong(then))) if now != *then => proofs.forget(digest),
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn report(&self, proofs: &Proofs, space: Space) -> VolumeReport {
        let seen = |((cache, run), root): (&(CacheKey, u64), &Arc<StoredRoot>)| SeenRoot {
            cache: cache.clone(),
            run: *run,
            digest: root.digest.clone(),
        };
        let unreadable = self.unreadable.iter().map(|((cache, run), reason)| BrokenRoot {
            cache: cache.clone(),
            run: *run,
            reason: reason.clone(),
        });
        let lost = proofs.lost();
        let incomplete = self.roots.iter().filter_map(|((cache, run), root)| {
            let closure = root.root.closure();
            let (digest, verdict) = lost.iter().find(|(digest, _)| closure.contains_key(digest))?;
            let how = if *verdict == Verdict::Missing { "is missing" } else { "has wrong bytes" };
            Some(BrokenRoot { cache: cache.clone(), run: *run, reason: format!("blob {digest} {how}") })
        });
        VolumeReport {
            store: self.store.as_ref().map(|store| store.id().to_owned()),
            roots: self.roots.iter().map(seen).collect(),
            broken: unreadable.chain(incomplete).collect(),
            capacity: space.capacity,
            free: space.free,
            used: self.blobs.values().sum(),
        }
    }
}
