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

    pub fn encode(&self, census: &Census) -> String {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.caches.clear();
        for phase in &census.phases {
            self.caches.get_or_create(&Phase { phase: phase.clone() }).inc();
        }
        self.unreadable.set(number(census.unreadable));
        self.pull_jobs.set(number(census.pull_jobs));
        self.leader.set(i64::from(census.leader));
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
        let census = Census {
            phases: vec!["Ready".into(), "Ready".into(), "Failed".into()],
            unreadable: 1,
            pull_jobs: 2,
            leader: true,
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
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(!metrics.encode(&Census::default()).contains("Ready"), "a phase without caches is gone");
    }
}
