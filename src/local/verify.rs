//! `imagecache verify`: hashes every blob that a root names again, on all cores, and says which caches and images
//! are hurt. Nothing is changed; `repair` goes on from what this finds.

use std::{
    cell::Cell,
    collections::BTreeMap,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use serde::Serialize;

use super::{
    ls::Broken,
    table::{Align, columns, human},
};
use crate::{
    model::{
        class::Class, digest::Digest, failure::Failure, reference::Reference, request::CacheKey, root::Root,
        text::count,
    },
    store::{Store, StoreError, is_right_on_disk},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub done: u64,
    pub total: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    pub store: String,
    pub blobs: usize,
    pub bytes: u64,
    pub bad: Vec<BadBlob>,
    /// Roots that cannot be read.
    pub broken: Vec<Broken>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BadBlob {
    pub digest: Digest,
    pub size: u64,
    pub problem: Problem,
    /// It was fetched again: it is good now.
    pub repaired: bool,
    /// Why it could not be repaired. It is as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    pub used_by: Vec<User>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Problem {
    Missing,
    /// Cut short, or longer than it should be: no reader takes it for the blob.
    WrongSize,
    WrongBytes,
    /// The disk cannot give its bytes.
    Unreadable,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    pub cache: CacheKey,
    pub name: String,
    pub image: Reference,
}

/// `progress` is called from several threads, after every piece that was read.
pub fn verify(volume: &Path, progress: &(dyn Fn(Progress) + Sync)) -> Result<Verified, StoreError> {
    let store = Store::open(volume)?;
    let (mut roots, mut broken) = (Vec::new(), Vec::new());
    for listed in store.roots()? {
        match listed.root {
            Ok(stored) => roots.push(stored.root),
            Err(e) => broken.push(Broken { cache: listed.cache, run: listed.run, reason: e.to_string() }),
        }
    }
    let all: BTreeMap<&Digest, u64> = roots.iter().flat_map(Root::closure).collect();
    // Largest first: no core waits long for the last one.
    let mut queue: Vec<(&Digest, u64)> = all.iter().map(|(digest, size)| (*digest, *size)).collect();
    queue.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    let total = all.values().sum();
    let done = AtomicU64::new(0);
    let add = |bytes: u64| {
        let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        progress(Progress { done, total });
    };
    let bad = in_parallel(&queue, |(digest, size)| check(&store, digest, *size, &add))?;
    let mut bad: Vec<BadBlob> = bad
        .into_iter()
        .map(|(digest, size, problem)| {
            let used_by = users(&roots, &digest);
            BadBlob { digest, size, problem, repaired: false, failure: None, used_by }
        })
        .collect();
    bad.sort_by(|a, b| a.digest.cmp(&b.digest));
    Ok(Verified { store: store.id().to_owned(), blobs: queue.len(), bytes: total, bad, broken })
}

type Finding = (Digest, u64, Problem);

fn check(
    store: &Store,
    digest: &Digest,
    size: u64,
    add: &impl Fn(u64),
) -> Result<Option<Finding>, StoreError> {
    let found = |problem| Ok(Some((digest.clone(), size, problem)));
    let Some(file) = store.find(digest, size)? else {
        add(size);
        let there = store.size_in_place(digest)?.is_some_and(|there| there != size);
        return found(if there { Problem::WrongSize } else { Problem::Missing });
    };
    // Counts the whole size, whatever happens: progress ends at its total.
    let left = Cell::new(size);
    let checked = is_right_on_disk(&file, digest, &|bytes| {
        let counted = left.get().min(bytes);
        left.set(left.get() - counted);
        add(counted);
    });
    add(left.get());
    match checked {
        Ok(true) => Ok(None),
        Ok(false) => found(Problem::WrongBytes),
        Err(_) => found(Problem::Unreadable),
    }
}

/// What the work found, from as many threads as there are cores. The first error ends it.
fn in_parallel<T: Sync, F: Send>(
    queue: &[T],
    work: impl Fn(&T) -> Result<Option<F>, StoreError> + Sync,
) -> Result<Vec<F>, StoreError> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Ok(Vec::new()));
    let run = || {
        while let Some(item) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = work(item);
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            match (result, found.as_mut()) {
                (Ok(finding), Ok(all)) => all.extend(finding),
                (Err(e), Ok(_)) => *found = Err(e),
                (_, Err(_)) => return,
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(run);
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn users(roots: &[Root], digest: &Digest) -> Vec<User> {
    let images = roots.iter().flat_map(|root| root.images.iter().map(move |image| (root, image)));
    let mut users: Vec<User> = images
        .filter(|(_, image)| image.closure.iter().any(|entry| entry.digest == *digest))
        .map(|(root, image)| User {
            cache: root.cache.clone(),
            name: root.name.clone(),
            image: image.reference.clone(),
        })
        .collect();
    users.sort();
    users.dedup();
    users
}

impl Verified {
    /// What the command exits with; `None` if everything is right, or is again.
    pub fn class(&self) -> Option<Class> {
        let mut failures = self.left().map(|blob| blob.failure.as_ref());
        match failures.next() {
            Some(failure) => Some(failure.map_or(Class::BadContent, |failure| failure.class)),
            None => (!self.broken.is_empty()).then_some(Class::BadContent),
        }
    }

    /// What is still bad.
    pub fn left(&self) -> impl Iterator<Item = &BadBlob> {
        self.bad.iter().filter(|blob| !blob.repaired)
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    pub fn to_text(&self) -> String {
        let read = format!("{}, {}; store {}", count(self.blobs, "blob"), human(self.bytes), self.store);
        if self.bad.is_empty() && self.broken.is_empty() {
            return format!("every byte is right: {read}\n");
        }
        let mut parts = Vec::new();
        if !self.bad.is_empty() {
            parts.extend([self.bad_table(), "\n".into()]);
        }
        parts.extend(self.broken.iter().map(|broken| format!("{broken}\n")));
        for blob in self.left() {
            parts.extend(
                blob.failure
                    .as_ref()
                    .map(|failure| format!("{}: {}: {failure}\n", blob.digest, failure.class)),
            );
        }
        let left = self.left().count();
        let repaired = match self.bad.len() - left {
            0 => String::new(),
            repaired => format!(", {repaired} repaired"),
        };
        parts.push(format!("bad: {} of {read}{repaired}\n", self.bad.len()));
        if self.left().any(|blob| blob.failure.is_some()) {
            parts.push(
                "what could not be repaired is as it was: run it again when its registry gives it\n".into(),
            );
        } else if left > 0 {
            parts.push("verify --repair fetches them again from where they came\n".into());
        }
        parts.concat()
    }

    fn bad_table(&self) -> String {
        use Align::{Left, Right};
        let header = [
            ("PROBLEM", Left),
            ("REPAIR", Left),
            ("SIZE", Right),
            ("CACHE", Left),
            ("IMAGE", Left),
            ("BLOB", Left),
        ];
        let row = |(blob, user): (&BadBlob, &User)| {
            let problem = match blob.problem {
                Problem::Missing => "missing",
                Problem::WrongSize => "wrong size",
                Problem::WrongBytes => "wrong bytes",
                Problem::Unreadable => "unreadable",
            };
            let repair = match &blob.failure {
                _ if blob.repaired => "done".to_owned(),
                Some(failure) => failure.class.to_string(),
                None => "-".to_owned(),
            };
            let (name, image) = (user.name.clone(), user.image.to_string());
            vec![problem.to_owned(), repair, human(blob.size), name, image, blob.digest.to_string()]
        };
        let lines = self.bad.iter().flat_map(|blob| blob.used_by.iter().map(move |user| (blob, user)));
        columns(&header, &lines.map(row).collect::<Vec<_>>())
    }
}
