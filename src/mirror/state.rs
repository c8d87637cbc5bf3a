//! What all connections share, and what it says of itself: probes, report, metrics.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Config,
    follow::View,
    guard::Heart,
    proof::Proofs,
    reply::{self, Reply},
    route::Admin,
    table::Policy,
};
use crate::{
    model::volume::VolumeReport,
    store::{Space, StoreError},
};

/// Blobs that nobody asks for are looked at this often.
const CHECK: Duration = Duration::from_mins(1);
const BEAT: Duration = Duration::from_secs(1);
/// Not ready when the volume does not answer for this long; its end comes with `stall_limit`.
const SLOW: Duration = Duration::from_secs(5);

pub(super) struct State {
    pub config: Config,
    pub proofs: Arc<Proofs>,
    pub metrics: Metrics,
    view: RwLock<Arc<View>>,
    read: AtomicBool,
    volume: Mutex<Volume>,
}

struct Volume {
    space: Space,
    answered: Instant,
}

impl State {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            proofs: Arc::default(),
            metrics: Metrics::default(),
            view: RwLock::default(),
            read: AtomicBool::new(false),
            volume: Mutex::new(Volume { space: Space::default(), answered: Instant::now() }),
        }
    }

    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the roots again and again.
    pub(super) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut checked: Option<Instant> = None;
        let mut said = String::new();
        loop {
            let all = checked.is_none_or(|at| at.elapsed() >= CHECK);
            match self.clone().blocking(move |state| state.look(all)).await {
                Ok(()) => {
                    if all {
                        checked = Some(Instant::now());
                    }
                    said.clear();
                }
                Err(error) => {
                    if said != error {
                        tracing::error!(%error, "the roots cannot be read: what was known before is served");
                    }
                    said = error;
                }
            }
            self.read.store(said.is_empty(), Ordering::Relaxed);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.config.poll) => {}
            }
        }
    }

    /// A new table is checked whole before it is used: a manifest whose blobs are gone is not answered once.
    fn look(&self, all: bool) -> Result<(), StoreError> {
        let before = self.view();
        let policy = Policy {
            serve_private: self.config.serve_private,
            public_registries: self.config.public_registries.clone(),
        };
        match View::read(&self.config.volume, &before, &policy)? {
            Some(view) => {
                view.check(&self.proofs, true)?;
                tracing::info!(%view, "the roots were read");
                *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
                Ok(())
            }
            None => before.check(&self.proofs, all),
        }
    }

    /// Beats as long as the runtime and the volume answer.
    pub(super) async fn beat(self: Arc<Self>, heart: Heart, stop: CancellationToken) {
        loop {
            let space = self.clone().blocking(|state| Space::of(&state.config.volume)).await;
            {
                let mut volume = self.volume.lock().unwrap_or_else(PoisonError::into_inner);
                volume.answered = Instant::now();
                volume.space = space.unwrap_or_default();
            }
            heart.beat();
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(BEAT) => {}
            }
        }
    }

    async fn blocking<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, String> {
        let done = tokio::task::spawn_blocking(move || work(&self).map_err(|e| e.to_string())).await;
        done.map_err(|e| e.to_string())?
    }

    fn space(&self) -> (Space, bool) {
        let volume = self.volume.lock().unwrap_or_else(PoisonError::into_inner);
        (volume.space, volume.answered.elapsed() < SLOW)
    }

    fn report(&self) -> VolumeReport {
        self.view().report(&self.proofs, self.space().0)
    }

    pub(super) fn admin(&self, admin: Admin) -> Reply {
        let ready = self.read.load(Ordering::Relaxed);
        match admin {
            // An empty report would read as lost content.
            Admin::Ready | Admin::Report if !ready => {
                plain(StatusCode::SERVICE_UNAVAILABLE, "the roots were not read\n")
            }
            Admin::Ready if !self.space().1 => plain(StatusCode::SERVICE_UNAVAILABLE, "the volume is slow\n"),
            Admin::Live | Admin::Ready => plain(StatusCode::OK, "ok\n"),
            Admin::Report => {
                let body = serde_json::to_vec(&self.report()).unwrap_or_default();
                reply::text(StatusCode::OK, "application/json", body)
            }
            Admin::Metrics => {
                let text = self.metrics.encode(&self.report(), self.proofs.lost().len());
                reply::text(
                    StatusCode::OK,
                    "application/openmetrics-text; version=1.0.0; charset=utf-8",
                    text,
                )
            }
        }
    }
}

fn plain(status: StatusCode, text: &'static str) -> Reply {
    reply::text(status, "text/plain; charset=utf-8", text)
}

/// Where the volume is, for a message.
pub(super) fn stalled(volume: &Path) -> ! {
    tracing::error!(?volume, "no progress: the runtime or the volume hangs; ending the process");
    std::process::exit(70)
}

#[derive(Default)]
pub(super) struct Metrics {
    requests: Family<[(&'static str, String); 1], Counter>,
}

impl Metrics {
    pub(super) fn answered(&self, status: StatusCode) {
        self.requests.get_or_create(&[("code", status.as_str().to_owned())]).inc();
    }

    fn encode(&self, report: &VolumeReport, lost: usize) -> String {
        let mut registry = Registry::with_prefix("imagecache_mirror");
        registry.register("requests", "Requests answered, by status code", self.requests.clone());
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        for (name, help, value) in [
            ("roots", "Complete pulls that are in the store", count(report.roots.len())),
            (
                "broken_roots",
                "Complete pulls that cannot be read or whose blobs are lost",
                count(report.broken.len()),
            ),
            ("lost_blobs", "Blobs that are missing or whose bytes are wrong", count(lost)),
            ("volume_capacity_bytes", "Size of the volume", report.capacity),
            ("volume_free_bytes", "Free bytes of the volume", report.free),
            ("used_bytes", "Bytes of all blobs that complete pulls name", report.used),
        ] {
            let gauge = Gauge::<i64>::default();
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            registry.register(name, help, gauge);
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &registry);
        text
    }
}
