//! Counts bytes while they move. Every digest is counted once in all, and once in each image that holds it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::model::{
    digest::Digest,
    report::{Bytes, Progress, Right},
    root::Entry,
};

/// One blob's counter, shared by whoever moves its bytes. One word, so that nobody sees half of a change.
#[derive(Debug)]
pub struct Gauge {
    size: u64,
    /// Bytes that are done; with [`REUSED`] they were not moved. A blob is far below that.
    done: AtomicU64,
}

const REUSED: u64 = 1 << 63;
/// And by which right.
const RIGHT: u32 = 60;
const BYTES: u64 = (1 << RIGHT) - 1;

impl Gauge {
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Relaxed);
    }

    /// A failed attempt starts over.
    pub fn restart(&self) {
        self.done.store(0, Relaxed);
    }

    /// The store had it: nothing was moved.
    pub fn reuse(&self, right: Right) {
        let right = match right {
            Right::Held => 0,
            Right::Public => 1,
            Right::Asked => 2,
        };
        self.done.store(self.size.min(BYTES) | right << RIGHT | REUSED, Relaxed);
    }

    pub fn fetched(&self) {
        self.done.store(self.size, Relaxed);
    }

    /// By which right, if nothing was moved.
    pub fn reused_by(&self) -> Option<Right> {
        let word = self.done.load(Relaxed);
        let right = match (word & !REUSED) >> RIGHT {
            0 => Right::Held,
            1 => Right::Public,
            _ => Right::Asked,
        };
        (word & REUSED != 0).then_some(right)
    }

    fn bytes(&self) -> Bytes {
        let word = self.done.load(Relaxed);
        let done = (word & BYTES).min(self.size);
        Bytes { done, total: self.size, reused: if word & REUSED == 0 { 0 } else { done } }
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
        let new = || Arc::new(Gauge { size, done: AtomicU64::new(0) });
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
    use std::collections::BTreeSet;

    use proptest::prelude::*;

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
        meter.gauge(&base.digest, 100).reuse(Right::Asked);
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

    proptest! {
        /// Whatever happens to blobs on the way, in whatever order images become known.
        #[test]
        fn no_sum_ever_goes_back_and_the_end_is_the_total_to_the_byte(
            sizes in prop::collection::vec(0_u64..1000, 6),
            held in prop::collection::vec(prop::collection::btree_set(0_usize..6, 0..6), 3),
            steps in prop::collection::vec((0_usize..9, 0_usize..6, 0_u64..700), 0..60),
            ends in prop::collection::vec(any::<bool>(), 6),
        ) {
            let meter = Meter::new(held.len());
            let blobs: Vec<Entry> = (0..6).map(|i| entry(&i.to_string(), sizes[i])).collect();
            let closure = |image: usize| held[image].iter().map(|i| blobs[*i].clone()).collect::<Vec<_>>();
            let gauge = |i: usize| meter.gauge(&blobs[i].digest, blobs[i].size);
            let mut before = meter.progress();
            let mut check = |meter: &Meter| {
                let now = meter.progress();
                let pairs = before.images.iter().chain([&before.all]).zip(now.images.iter().chain([&now.all]));
                for (old, new) in pairs {
                    prop_assert!(old.done <= new.done && old.total <= new.total, "{before:?} {now:?}");
                    prop_assert!(new.reused <= new.done && new.done <= new.total, "{now:?}");
                }
                before = now;
                Ok(())
            };
            for (kind, i, bytes) in steps {
                match kind {
                    0..3 => meter.image(kind, &closure(kind)),
                    3..6 => gauge(i).add(bytes),
                    6 => gauge(i).restart(),
                    7 => gauge(i).reuse(Right::Public),
                    _ => gauge(i).fetched(),
                }
                check(&meter)?;
            }
            (0..held.len()).for_each(|image| meter.image(image, &closure(image)));
            (0..6).for_each(|i| if ends[i] { gauge(i).reuse(Right::Held) } else { gauge(i).fetched() });
            check(&meter)?;
            let sum = |of: &BTreeSet<usize>| Bytes {
                done: of.iter().map(|i| sizes[*i]).sum(),
                total: of.iter().map(|i| sizes[*i]).sum(),
                reused: of.iter().filter(|i| ends[**i]).map(|i| sizes[*i]).sum(),
            };
            let end = meter.progress();
            prop_assert_eq!(&end.images, &held.iter().map(sum).collect::<Vec<_>>());
            prop_assert_eq!(end.all, sum(&held.iter().flatten().copied().collect()));
        }
    }
}
