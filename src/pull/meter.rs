//! Counts bytes while they move. Every digest is counted once in all, and once in each image that holds it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use crate::model::{
    digest::Digest,
    report::{Bytes, Progress},
    root::Entry,
};

/// One blob's counter, shared by whoever moves its bytes.
#[derive(Debug)]
pub struct Gauge {
    size: u64,
    done: AtomicU64,
    reused: AtomicBool,
}

impl Gauge {
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Relaxed);
    }

    /// A failed attempt starts over.
    pub fn restart(&self) {
        self.done.store(0, Relaxed);
    }

    /// The store had it: nothing was moved.
    pub fn reuse(&self) {
        self.reused.store(true, Relaxed);
        self.done.store(self.size, Relaxed);
    }

    pub fn fetched(&self) {
        self.reused.store(false, Relaxed);
        self.done.store(self.size, Relaxed);
    }

    pub fn was_reused(&self) -> bool {
        self.reused.load(Relaxed)
    }

    fn bytes(&self) -> Bytes {
        let done = self.done.load(Relaxed).min(self.size);
        Bytes { done, total: self.size, reused: if self.was_reused() { done } else { 0 } }
    }
}

/// All counters of a run. Images appear in it as they are resolved.
#[derive(Debug, Default)]
pub struct Meter {
    blobs: Mutex<BTreeMap<Digest, Arc<Gauge>>>,
    images: Mutex<Vec<Vec<Digest>>>,
    /// The highest that was shown: a restarted blob never makes progress go back.
    shown: Mutex<Progress>,
}

impl Meter {
    pub fn new(images: usize) -> Self {
        let meter = Self::default();
        meter.expect(images);
        meter
    }

    /// Says how many images there will be.
    pub fn expect(&self, images: usize) {
        lock(&self.images).resize(images, Vec::new());
    }

    pub fn image(&self, index: usize, closure: &[Entry]) {
        for entry in closure {
            self.gauge(&entry.digest, entry.size);
        }
        if let Some(image) = lock(&self.images).get_mut(index) {
            *image = closure.iter().map(|entry| entry.digest.clone()).collect();
        }
    }

    pub fn gauge(&self, digest: &Digest, size: u64) -> Arc<Gauge> {
        let new = || Arc::new(Gauge { size, done: AtomicU64::new(0), reused: AtomicBool::new(false) });
        lock(&self.blobs).entry(digest.clone()).or_insert_with(new).clone()
    }

    pub fn progress(&self) -> Progress {
        let blobs: BTreeMap<Digest, Bytes> =
            lock(&self.blobs).iter().map(|(d, gauge)| (d.clone(), gauge.bytes())).collect();
        let images = lock(&self.images);
        let known: std::collections::BTreeSet<&Digest> = images.iter().flatten().collect();
        let now = Progress {
            all: sum(known.iter().filter_map(|digest| blobs.get(digest))),
            images: images
                .iter()
                .map(|image| sum(image.iter().filter_map(|digest| blobs.get(digest))))
                .collect(),
        };
        let mut shown = lock(&self.shown);
        shown.images.resize(now.images.len(), Bytes::default());
        shown.all = forward(shown.all, now.all);
        for (old, new) in shown.images.iter_mut().zip(now.images) {
            *old = forward(*old, new);
        }
        shown.clone()
    }
}

fn sum<'a>(blobs: impl Iterator<Item = &'a Bytes>) -> Bytes {
    blobs.fold(Bytes::default(), |a, b| Bytes {
        done: a.done + b.done,
        total: a.total + b.total,
        reused: a.reused + b.reused,
    })
}

fn forward(shown: Bytes, now: Bytes) -> Bytes {
    Bytes { done: now.done.max(shown.done).min(now.total), ..now }
}

/// A counter is right whatever panicked while holding it.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::root::EntryKind;

    fn entry(name: &str, size: u64) -> Entry {
        Entry {
            digest: Digest::sha256(name.as_bytes()),
            size,
            kind: EntryKind::Layer,
            media_type: String::new(),
        }
    }

    #[test]
    fn a_shared_layer_counts_once_in_all_and_once_in_each_image() {
        let meter = Meter::new(2);
        let (base, own) = (entry("base", 100), entry("own", 10));
        meter.image(0, &[base.clone(), own.clone()]);
        meter.image(1, std::slice::from_ref(&base));
        meter.gauge(&base.digest, 100).reuse();
        meter.gauge(&own.digest, 10).add(4);
        let progress = meter.progress();
        assert_eq!(progress.all, Bytes { done: 104, total: 110, reused: 100 });
        assert_eq!(progress.images[1], Bytes { done: 100, total: 100, reused: 100 });
    }

    #[test]
    fn a_blob_that_starts_over_does_not_take_progress_back() {
        let meter = Meter::new(1);
        let blob = entry("blob", 100);
        meter.image(0, std::slice::from_ref(&blob));
        let gauge = meter.gauge(&blob.digest, 100);
        gauge.add(60);
        assert_eq!(meter.progress().all.done, 60);
        gauge.restart();
        gauge.add(10);
        assert_eq!(meter.progress().all.done, 60);
        gauge.fetched();
        assert_eq!(meter.progress().all.done, 100);
    }
}
