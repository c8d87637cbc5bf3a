//! The controller's numbers, as `OpenMetrics`. Families are made once; what can be counted from the caches is set
//! when the text is asked for.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// How one pass over one object ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Phase {
    phase: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Share {
    cache: String,
    share: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cache {
    cache: String,
}

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<Outcome, Counter>,
    reconcile_seconds: Histogram,
    caches: Family<Phase, Gauge>,
    pull_jobs: Gauge,
    unreadable: Gauge,
    leader: Gauge,
    pulled_bytes: Counter<u64, AtomicU64>,
    watch_errors: Family<Kind, Counter>,
    gc_runs: Family<Outcome, Counter>,
    gc_freed_bytes: Counter<u64, AtomicU64>,
    store: StoreGauges,
}

/// A gauge that can be absent.
type NoLabels = [(&'static str, &'static str); 0];

/// The store as gc and the mirror last reported it. Families, because each is absent while nothing is known.
#[derive(Debug, Default)]
struct StoreGauges {
    volume: Family<State, Gauge>,
    blobs: Family<State, Gauge>,
    caches: Family<Share, Gauge>,
    freed_if_deleted: Family<Cache, Gauge>,
    condemned: Family<NoLabels, Gauge>,
    reported: Family<NoLabels, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut all = Self {
            registry: Registry::with_prefix("imagecache"),
            reconciles: Family::default(),
            reconcile_seconds: Histogram::new(exponential_buckets(0.001, 4.0, 8)),
            caches: Family::default(),
            pull_jobs: Gauge::default(),
            unreadable: Gauge::default(),
            leader: Gauge::default(),
            pulled_bytes: Counter::default(),
            watch_errors: Family::default(),
            gc_runs: Family::default(),
            gc_freed_bytes: Counter::default(),
            store: StoreGauges::default(),
        };
        let to = &mut all.registry;
        to.register(
            "reconciles",
            "Passes over an ImageCache, by how they ended: done, or the kind of error",
            all.reconciles.clone(),
        );
        to.register_with_unit(
            "reconcile",
            "How long a pass took",
            Unit::Seconds,
            all.reconcile_seconds.clone(),
        );
        to.register("caches", "ImageCaches, by phase", all.caches.clone());
        to.register("pull_jobs", "Pull Jobs that run", all.pull_jobs.clone());
        to.register(
            "unreadable_caches",
            "ImageCaches that do not fit the schema and are left alone",
            all.unreadable.clone(),
        );
        to.register("leader", "Whether this process is the leader", all.leader.clone());
        to.register_with_unit(
            "pulled",
            "Bytes that complete pulls fetched",
            Unit::Bytes,
            all.pulled_bytes.clone(),
        );
        to.register("watch_errors", "Watches that broke and were taken up again", all.watch_errors.clone());
        to.register("gc_runs", "Collections, by outcome: done, refused, failed", all.gc_runs.clone());
        let freed = all.gc_freed_bytes.clone();
        to.register_with_unit(
            "gc_freed",
            "Bytes that collections gave back to the volume",
            Unit::Bytes,
            freed,
        );
        all.store.register(to);
        all
    }
}

/// What is counted when the text is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// A phase for each readable cache.
    pub phases: Vec<String>,
    pub unreadable: usize,
    pub pull_jobs: usize,
    pub leader: bool,
    pub store: Option<StoreCensus>,
}

/// Bytes of the store, from its newest reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreCensus {
    pub capacity: u64,
    pub free: u64,
    /// By why they are kept: `rooted`, `leased`, `young`, `trash`.
    pub blobs: Vec<(&'static str, u64)>,
    /// Name, unique, shared, freed if deleted: of a bounded number of caches.
    pub caches: Vec<(String, u64, u64, u64)>,
    pub condemned_roots: usize,
    /// Seconds since 1970.
    pub reported: i64,
}

impl StoreGauges {
    fn register(&self, to: &mut Registry) {
        let bytes = Unit::Bytes;
        to.register_with_unit(
            "store_volume",
            "The store's volume, by state: capacity, free",
            bytes.clone(),
            self.volume.clone(),
        );
        to.register_with_unit(
            "store_blobs",
            "Content in the store, by why it is kept: rooted, leased, young, trash",
            bytes.clone(),
            self.blobs.clone(),
        );
        to.register_with_unit(
            "cache",
            "What the largest caches hold, by share: unique, shared with others",
            bytes.clone(),
            self.caches.clone(),
        );
        to.register_with_unit(
            "cache_freed_if_deleted",
            "What the end of one of the largest caches would free, older runs of it included",
            bytes,
            self.freed_if_deleted.clone(),
        );
        to.register("gc_condemned_roots", "Roots that wait for their removal", self.condemned.clone());
        to.register_with_unit(
            "gc_last_report_timestamp",
            "When the last collection that reported was started",
            Unit::Seconds,
            self.reported.clone(),
        );
    }

    fn set(&self, census: Option<&StoreCensus>) {
        self.volume.clear();
        self.blobs.clear();
        self.caches.clear();
        self.freed_if_deleted.clear();
        self.condemned.clear();
        self.reported.clear();
        let Some(census) = census else { return };
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        for (state, bytes) in [("capacity", census.capacity), ("free", census.free)] {
            self.volume.get_or_create(&State { state }).set(number(bytes));
        }
        for (state, bytes) in &census.blobs {
            self.blobs.get_or_create(&State { state }).set(number(*bytes));
        }
        for (cache, unique, shared, freed) in &census.caches {
            for (share, bytes) in [("unique", unique), ("shared", shared)] {
                self.caches.get_or_create(&Share { cache: cache.clone(), share }).set(number(*bytes));
            }
            self.freed_if_deleted.get_or_create(&Cache { cache: cache.clone() }).set(number(*freed));
        }
        self.condemned.get_or_create(&[]).set(i64::try_from(census.condemned_roots).unwrap_or(i64::MAX));
        self.reported.get_or_create(&[]).set(census.reported);
    }
}

impl Metrics {
    /// `outcome` is `done`, or an error's label.
    pub fn reconciled(&self, outcome: &'static str, seconds: f64) {
        self.reconciles.get_or_create(&Outcome { outcome }).inc();
        self.reconcile_seconds.observe(seconds);
    }

    pub fn pulled(&self, bytes: u64) {
        self.pulled_bytes.inc_by(bytes);
    }

    pub fn watch_broke(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&Kind { kind }).inc();
    }

    /// `outcome` is `done`, `refused` or `failed`.
    pub fn collected(&self, outcome: &'static str, freed: u64) {
        self.gc_runs.get_or_create(&Outcome { outcome }).inc();
        self.gc_freed_bytes.inc_by(freed);
    }

    pub fn encode(&self, census: &Census) -> String {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.caches.clear();
        for phase in &census.phases {
            self.caches.get_or_create(&Phase { phase: phase.clone() }).inc();
        }
        self.unreadable.set(number(census.unreadable));
        self.pull_jobs.set(number(census.pull_jobs));
        self.leader.set(i64::from(census.leader));
        self.store.set(census.store.as_ref());
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_out_under_the_names_that_dashboards_use() {
        let metrics = Metrics::default();
        metrics.reconciled("done", 0.01);
        metrics.pulled(7);
        metrics.watch_broke("jobs");
        metrics.collected("done", 9);
        let store = StoreCensus {
            capacity: 100,
            blobs: vec![("rooted", 30)],
            caches: vec![("shop".into(), 20, 10, 21)],
            condemned_roots: 2,
            reported: 1_700_000_000,
            ..StoreCensus::default()
        };
        let census = Census {
            phases: vec!["Ready".into(), "Ready".into(), "Failed".into()],
            unreadable: 1,
            pull_jobs: 2,
            leader: true,
            store: Some(store),
        };
        let text = metrics.encode(&census);
        for line in [
            "imagecache_reconciles_total{outcome=\"done\"} 1",
            "imagecache_reconcile_seconds_count 1",
            "imagecache_caches{phase=\"Ready\"} 2",
            "imagecache_pull_jobs 2",
            "imagecache_unreadable_caches 1",
            "imagecache_leader 1",
            "imagecache_pulled_bytes_total 7",
            "imagecache_watch_errors_total{kind=\"jobs\"} 1",
            "imagecache_gc_runs_total{outcome=\"done\"} 1",
            "imagecache_gc_freed_bytes_total 9",
            "imagecache_store_volume_bytes{state=\"capacity\"} 100",
            "imagecache_store_blobs_bytes{state=\"rooted\"} 30",
            "imagecache_cache_bytes{cache=\"shop\",share=\"unique\"} 20",
            "imagecache_cache_bytes{cache=\"shop\",share=\"shared\"} 10",
            "imagecache_cache_freed_if_deleted_bytes{cache=\"shop\"} 21",
            "imagecache_gc_condemned_roots{} 2",
            "imagecache_gc_last_report_timestamp_seconds{} 1700000000",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        let none = metrics.encode(&Census::default());
        assert!(
            !none.contains("Ready") && !none.contains("shop"),
            "what is not there any more is gone: {none}"
        );
    }
}
