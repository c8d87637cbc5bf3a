//! What `/livez`, `/readyz` and `/metrics` say. Live: every loop has moved within minutes. A lost API server is no
//! reason for a restart. Ready: the caches are filled, on the standby too, so that it can take over at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    cluster::{Stores, collect::Memory, fence::Fence, mirror::Mirror, observe},
    model::collect::Record,
    ops::{
        clock,
        http::Probes,
        metrics::{Census, Metrics, StoreCensus},
    },
};

/// Longer than any time-out of a loop's step.
const STUCK: Duration = Duration::from_mins(3);

#[derive(Debug, Default)]
pub struct Health {
    /// When each loop last moved.
    beats: Mutex<BTreeMap<&'static str, Instant>>,
    /// Why the start has not come further.
    waits_for: Mutex<Option<String>>,
}

impl Health {
    pub fn beat(&self, name: &'static str) {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Instant::now());
    }

    /// This loop ended and is not waited for.
    pub fn rest(&self, name: &'static str) {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    pub fn wait_for(&self, why: Option<String>) {
        *self.waits_for.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    fn waits_for(&self) -> Option<String> {
        self.waits_for.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn verdict(&self) -> Result<(), String> {
        let beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        match beats.iter().find(|(_, last)| last.elapsed() > STUCK) {
            Some((name, last)) => Err(format!("{name} has not moved for {} s", last.elapsed().as_secs())),
            None => Ok(()),
        }
    }
}

/// The controller, asked from outside.
pub struct Report {
    pub health: Arc<Health>,
    pub stores: Stores,
    pub fence: Fence,
    pub metrics: Arc<Metrics>,
    pub gc: Arc<Memory>,
    pub mirror: Arc<Mirror>,
}

impl Probes for Report {
    fn live(&self) -> Result<(), String> {
        self.health.verdict()
    }

    fn ready(&self) -> Result<(), String> {
        if let Some(why) = self.health.waits_for() {
            return Err(why);
        }
        let Stores { caches, jobs, pods, nodes } = &self.stores;
        let listed = [
            ("ImageCaches", is_filled(caches)),
            ("Jobs", is_filled(jobs)),
            ("pods", is_filled(pods)),
            ("nodes", is_filled(nodes)),
        ];
        match listed.iter().find(|(_, filled)| !filled) {
            Some((kind, _)) => Err(format!("the watch of {kind} has not listed yet")),
            None => Ok(()),
        }
    }

    fn metrics(&self) -> String {
        let caches = self.stores.caches.state();
        let readable: Vec<_> = caches.iter().filter_map(|cache| cache.0.as_ref().ok()).collect();
        let phase = |cache: &&crate::api::ImageCache| {
            let phase = cache.status.as_ref().and_then(|status| status.phase.clone());
            phase.unwrap_or_else(|| "New".to_owned())
        };
        self.metrics.encode(&Census {
            phases: readable.iter().map(phase).collect(),
            unreadable: caches.len() - readable.len(),
            pull_jobs: self.stores.jobs.state().iter().filter(|job| observe::is_running(job)).count(),
            leader: self.fence.is_open(),
            // Only a leader's is the newest.
            store: self.gc.record().filter(|_| self.fence.is_open()).and_then(|record| self.store(&record)),
        })
    }
}

impl Report {
    fn store(&self, record: &Record) -> Option<StoreCensus> {
        let report = record.report.as_ref()?;
        let mirror = self.mirror.volume(clock::now());
        let (capacity, free) =
            mirror.map_or((report.capacity, report.free), |volume| (volume.capacity, volume.free));
        let caches = report.caches.iter().map(|cache| {
            let unique = cache.size.saturating_sub(cache.shared);
            (cache.name.clone(), unique, cache.shared, cache.freed_if_deleted)
        });
        Some(StoreCensus {
            capacity,
            free,
            blobs: vec![
                ("rooted", report.rooted.bytes),
                ("leased", report.leased.bytes),
                ("young", report.young.bytes),
                ("trash", report.waiting.bytes),
            ],
            caches: caches.collect(),
            condemned_roots: report.condemned_roots,
            reported: record.reported.as_second(),
        })
    }
}

/// Its first list is complete.
fn is_filled<K>(store: &kube::runtime::reflector::Store<K>) -> bool
where
    K: kube::runtime::reflector::Lookup + Clone + 'static,
    K::DynamicType: Eq + std::hash::Hash + Clone,
{
    use futures::FutureExt as _;
    store.wait_until_ready().now_or_never().is_some_and(|ready| ready.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stands_still_is_named_and_one_that_ended_is_not() {
        let health = Health::default();
        health.beat("a");
        health.beat("b");
        tokio::time::advance(STUCK).await;
        health.beat("a");
        assert!(health.verdict().is_ok());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(health.verdict().unwrap_err().starts_with("b has not moved"));
        health.rest("b");
        assert!(health.verdict().is_ok());
    }
}
