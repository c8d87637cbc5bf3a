//! Takes away what no cache needs: `docs/store.md`, "gc". It runs beside pulls and readers, may be killed or frozen
//! at any instruction, and two at once lose nothing. The order of its steps is load-bearing: `tests/protocol` tries
//! every other one. What goes is decided by pure functions ([`judge`], [`blobs`]); this file acts.

pub mod blobs;
pub mod judge;
pub mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use blobs::Needed;
use judge::{Found, Judgement, State};

use crate::{
    model::{
        collected::{Broken, Remains, Report, RootReport},
        digest::Digest,
        live::LiveList,
    },
    store::{
        ListedRoot, Mark, Store, StoreError, StoredBlob, StoredRoot, Trashed, condemned::RootName, trash,
    },
};

/// Ages, by the clock of the volume.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long a blob that nobody needs stays under its name.
    pub grace: Duration,
    /// How long it stays in the trash. Views of a network file system that are as old as this lose data.
    pub trash: Duration,
    /// How long a root stays after it was condemned.
    pub condemned: Duration,
    /// A lease that was not touched for so long has no owner.
    pub stale: Duration,
    /// How long it is known which marks a run saw.
    pub notes: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            grace: Duration::from_hours(1),
            trash: Duration::from_mins(15),
            condemned: Duration::from_mins(10),
            stale: Duration::from_hours(24),
            notes: Duration::from_hours(24 * 30),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum GcError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the list of living caches is for store {theirs}, but this is store {ours}: nothing was touched")]
    OtherStore { theirs: String, ours: String },
}

/// One run. Without a list no root of the cluster is judged; by hand that is how it is.
pub fn collect(
    store: &Store,
    live: Option<&LiveList>,
    settings: &Settings,
    dry_run: bool,
) -> Result<Report, GcError> {
    if let Some(list) = live.filter(|list| list.store != store.id()) {
        return Err(GcError::OtherStore { theirs: list.store.clone(), ours: store.id().to_owned() });
    }
    let gc = Gc { store, settings, dry_run, name: trash::gc_name() };
    Ok(gc.run(live)?)
}

struct Gc<'a> {
    store: &'a Store,
    settings: &'a Settings,
    dry_run: bool,
    name: String,
}

/// What a reading of leases and roots says.
#[derive(Default)]
struct Marked {
    needed: Needed,
    roots: Vec<StoredRoot>,
    stale: Vec<String>,
    refused: Vec<String>,
}

impl Gc<'_> {
    fn run(&self, live: Option<&LiveList>) -> Result<Report, StoreError> {
        let (store, now) = (self.store, self.store.clock()?);
        // First of all: what enters the trash from here on is not unlinked by this run.
        let listed = self.list_trash()?;

        let found = self.find_roots()?;
        let judgement = judge::judge(&found, live);
        let roots = self.condemn(&judgement, &found, live, now)?;
        let removed: BTreeSet<RootName> =
            roots.iter().filter(|root| root.removed).map(|root| (root.cache.clone(), root.run)).collect();

        let first = self.mark(&removed, now)?;
        let mut refused = [judgement.refused, first.refused].concat();
        let sorted = blobs::candidates(store.blobs_there()?, &first.needed, now, self.settings.grace);
        let candidates = if refused.is_empty() { sorted.candidates.as_slice() } else { &[] };
        let taken_out = report::there(candidates);
        let moved = self.move_to_trash(candidates)?;

        // What was said while the candidates moved counts as if it had been said before.
        let fresh = self.mark(&removed, now)?;
        refused
            .extend(fresh.refused.into_iter().filter(|reason| !refused.contains(reason)).collect::<Vec<_>>());
        let mut trash = blobs::sort_trash(listed, moved, &fresh.needed, now, self.settings.trash);
        self.put_back(&trash.put_back)?;
        if refused.is_empty() {
            self.unlink(&trash.unlink)?;
        } else {
            trash.waiting.append(&mut trash.unlink);
        }
        let unfinished = self.leftovers(&fresh.needed, &first.stale, now)?;
        let broken = [judgement.broken, self.incomplete(live, &fresh.roots, &sorted.rooted)?].concat();
        let space = store.space()?;
        let condemned = || roots.iter().filter(|root| !root.removed);
        Ok(Report {
            gc: self.name.clone(),
            store: store.id().to_owned(),
            dry_run: self.dry_run,
            listed: live.is_some(),
            at: report::timestamp(now).unwrap_or_default(),
            freed: report::trashed(&trash.unlink),
            unfinished,
            taken_out,
            put_back: report::trashed(&trash.put_back),
            waiting: report::trashed(&trash.waiting),
            waiting_until: report::first(
                trash.waiting.iter().map(|blob| blob.moved.unwrap_or(now)),
                self.settings.trash,
            ),
            rooted: report::there(&sorted.rooted),
            leased: report::there(&sorted.leased),
            young: report::there(&sorted.young),
            young_until: report::first(sorted.young.iter().map(|blob| blob.modified), self.settings.grace),
            live_roots: found.len() - judgement.doomed.len(),
            removed_roots: removed.len(),
            condemned_roots: condemned().count(),
            condemned_until: condemned().filter_map(|root| root.until).min(),
            stale_leases: first.stale.len(),
            capacity: space.capacity,
            free: space.free,
            refused,
            broken,
            caches: report::caches(fresh.roots.iter().map(|stored| &stored.root)),
            roots,
        })
    }

    /// What lies in the trash. The age of a blob whose move nobody wrote down begins now.
    fn list_trash(&self) -> Result<Vec<Trashed>, StoreError> {
        let listed = self.store.list_trash()?;
        let unknown: Vec<Trashed> = listed.iter().filter(|blob| blob.moved.is_none()).cloned().collect();
        if !self.dry_run {
            self.store.note_moved(&unknown)?;
        }
        Ok(listed)
    }

    fn find_roots(&self) -> Result<Vec<Found>, StoreError> {
        let listed = self.store.roots()?;
        let mut runs: BTreeMap<_, usize> = BTreeMap::new();
        for root in listed.iter().filter(|root| root.cache.is_local() && root.root.is_ok()) {
            *runs.entry(root.cache.clone()).or_default() += 1;
        }
        let mut found = Vec::new();
        for ListedRoot { cache, run, root } in listed {
            let state = match root {
                Ok(stored) => {
                    // Only where another run of the cache could take its place.
                    let decides = runs.get(&cache).is_some_and(|runs| *runs > 1);
                    let complete = !decides || self.is_complete(&stored)?;
                    State::Intact { digest: stored.digest, complete }
                }
                Err(e @ (StoreError::Damaged { .. } | StoreError::OtherStore { .. })) => {
                    State::Damaged(e.to_string())
                }
                Err(e) => State::Unreadable(e.to_string()),
            };
            found.push(Found { root: (cache, run), state });
        }
        Ok(found)
    }

    fn is_complete(&self, stored: &StoredRoot) -> Result<bool, StoreError> {
        for (digest, size) in stored.root.closure() {
            if self.store.find(digest, size)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Credited roots that are what the list says, and whose content is not all there.
    fn incomplete(
        &self,
        live: Option<&LiveList>,
        roots: &[StoredRoot],
        there: &[StoredBlob],
    ) -> Result<Vec<Broken>, StoreError> {
        let there: BTreeMap<&Digest, u64> = there.iter().map(|blob| (&blob.digest, blob.size)).collect();
        let mut broken = Vec::new();
        for stored in roots {
            let (cache, run) = (&stored.root.cache, stored.root.run);
            let credited = live.and_then(|list| list.caches.get(cache)?.as_ref());
            if credited.is_none_or(|credited| credited.run != run || credited.root != stored.digest) {
                continue;
            }
            for (digest, size) in stored.root.closure() {
                if there.get(digest) != Some(&size) && self.store.find(digest, size)?.is_none() {
                    let reason = format!("{digest} is missing");
                    broken.push(Broken { cache: cache.clone(), run, reason });
                    break;
                }
            }
        }
        Ok(broken)
    }

    /// Marks what is doomed, unmarks what is not, and removes those roots whose time has come. Last it notes which
    /// marks it saw: the list that names this run is newer than all of them.
    fn condemn(
        &self,
        judgement: &Judgement,
        found: &[Found],
        live: Option<&LiveList>,
        now: SystemTime,
    ) -> Result<Vec<RootReport>, StoreError> {
        let store = self.store;
        let last_gc = live.and_then(|list| list.last_gc.as_deref());
        let seen = last_gc.map(|gc| store.seen_by(gc)).transpose()?.unwrap_or_default();
        let marks: BTreeMap<RootName, Mark> =
            store.marks()?.into_iter().map(|mark| (mark.root.clone(), mark)).collect();
        let there: BTreeSet<&RootName> = found.iter().map(|found| &found.root).collect();
        // A mark on a root of the cluster that was not judged stays as it is.
        let judged = |root: &RootName| !there.contains(root) || root.0.is_local() || live.is_some();
        for root in marks.keys().filter(|root| !judgement.doomed.contains_key(*root) && judged(root)) {
            if !self.dry_run {
                store.unmark(root)?;
            }
        }
        let (mut reports, mut noted) = (Vec::new(), BTreeSet::new());
        for (root, why) in &judgement.doomed {
            let mark = marks.get(root);
            let goes =
                mark.is_some_and(|mark| judge::may_go(root, mark, &seen, now, self.settings.condemned));
            if !self.dry_run {
                if goes {
                    store.remove_root(&root.0, root.1)?;
                    store.unmark(root)?;
                } else if mark.is_none() {
                    store.mark(root, &self.name, &why.to_string())?;
                }
            }
            if !goes {
                noted.insert(root.clone());
            }
            let since = mark.map_or(now, |mark| mark.since);
            reports.push(report::root(root, why, goes, Some(since + self.settings.condemned)));
        }
        if !self.dry_run {
            if !noted.is_empty() {
                store.note_seen(&self.name, noted)?;
            }
            if reports.iter().any(|report| report.removed) {
                store.rewrite_index()?;
            }
        }
        Ok(reports)
    }

    /// Reads the leases, then all roots that are there: a pull that drops its lease has its root before.
    /// In a dry run the roots that would be gone are.
    fn mark(&self, removed: &BTreeSet<RootName>, now: SystemTime) -> Result<Marked, StoreError> {
        let mut marked = Marked::default();
        for listed in self.store.leases()? {
            match listed.lease {
                _ if listed.touched + self.settings.stale <= now => marked.stale.push(listed.name),
                Ok(lease) => marked.needed.leased.extend(lease.blobs.into_keys()),
                Err(e) => marked.refused.push(format!("a lease of a pull cannot be read: {e}")),
            }
        }
        for ListedRoot { cache, run, root } in self.store.roots()? {
            match root {
                _ if self.dry_run && removed.contains(&(cache.clone(), run)) => {}
                Ok(stored) => {
                    marked.needed.rooted.extend(stored.root.closure().into_keys().cloned());
                    marked.roots.push(stored);
                }
                Err(e) => marked.refused.push(format!("run {run} of cache {cache} cannot be read: {e}")),
            }
        }
        Ok(marked)
    }

    fn move_to_trash(&self, candidates: &[StoredBlob]) -> Result<Vec<Trashed>, StoreError> {
        if !self.dry_run {
            return self.store.move_to_trash(&self.name, candidates);
        }
        let moved = |blob: &StoredBlob| Trashed {
            gc: self.name.clone(),
            digest: blob.digest.clone(),
            size: blob.size,
            moved: None,
        };
        Ok(candidates.iter().map(moved).collect())
    }

    fn put_back(&self, blobs: &[Trashed]) -> Result<(), StoreError> {
        if self.dry_run || blobs.is_empty() {
            return Ok(());
        }
        for blob in blobs {
            self.store.put_back(blob)?;
        }
        self.store.sync_blobs()
    }

    fn unlink(&self, blobs: &[Trashed]) -> Result<(), StoreError> {
        for blob in blobs.iter().filter(|_| !self.dry_run) {
            self.store.unlink(blob)?;
        }
        Ok(())
    }

    fn leftovers(&self, needed: &Needed, stale: &[String], now: SystemTime) -> Result<Remains, StoreError> {
        let before = |age: Duration| now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let store = self.store;
        let unfinished =
            store.remove_unfinished(&needed.leased, before(self.settings.grace), self.dry_run)?;
        if !self.dry_run {
            for name in stale {
                store.remove_lease(name)?;
            }
            store.remove_locks(before(self.settings.grace))?;
            store.remove_empty_trash(before(self.settings.trash))?;
            store.remove_remains(before(self.settings.stale), before(self.settings.notes))?;
        }
        Ok(unfinished)
    }
}
