//! A leader's care for the store: starts gc Jobs, reads what they report, and says it. `model::collect` decides.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::{reconcile::Context, watches::Bell, work::every};
use crate::{
    cluster::{Error, events::About},
    model::{
        collect::{self, GcJob, Record, Situation, Step, next},
        collected::Report,
        facts::JobState,
        plan::Event,
    },
    ops::clock,
};

const TICK: Duration = Duration::from_secs(2);

/// Never ends.
pub async fn collect(context: &Context, bell: &Bell) {
    let mut ticks = every(TICK);
    let mut collector = Collector::new(clock::now());
    loop {
        ticks.tick().await;
        match collector.step(context, clock::now()).await {
            Ok(Some(report)) => call(context, bell, &report),
            Ok(None) => {}
            Err(error) if error.is_race() => tracing::debug!(%error, "gc: again"),
            Err(error) => tracing::warn!(%error, "gc is held up"),
        }
    }
}

/// Caches whose content is not there are to be pulled again.
fn call(context: &Context, bell: &Bell, report: &Report) {
    for cache in context.cluster.stores.caches.state() {
        if cache.uid().is_some_and(|uid| report.broken.iter().any(|broken| broken.cache.as_str() == uid)) {
            bell.call(&cache.name_any());
        }
    }
}

/// One leader's term.
pub struct Collector {
    leading: Timestamp,
    /// The record was read in this term.
    loaded: bool,
    /// The Job may be another one than the one known.
    look: bool,
    job: Option<(GcJob, Option<Pod>)>,
    /// When the mirror's report was last looked at for deletions that nobody noticed.
    looked: Timestamp,
}

impl Collector {
    pub fn new(leading: Timestamp) -> Self {
        Self { leading, loaded: false, look: true, job: None, looked: Timestamp::MIN }
    }

    /// One look, and what follows from it. A report that was just read, or is read for the first time in this term.
    pub async fn step(&mut self, context: &Context, now: Timestamp) -> Result<Option<Report>, Error> {
        let cluster = &context.cluster;
        let pace = &context.settings.gc;
        if !self.loaded {
            cluster.load_gc_record().await?;
            self.loaded = true;
            return Ok(cluster.gc.record().and_then(|record| record.report));
        }
        if self.look {
            self.job = cluster.gc_job().await?;
        }
        let situation = self.situation(context, now);
        let step = next(&situation, pace, now);
        self.look = situation.job.as_ref().is_some_and(|job| job.deleting || job.state == JobState::Active)
            || step != Step::Wait;
        let known = self.job.as_ref();
        match (step, known) {
            (Step::Start, _) => cluster.start_gc(pace).await.map(|()| None),
            (Step::Collect, Some((job, pod))) => {
                let result = cluster.gc_result(job, pod.as_ref()).await;
                remember(context, job, result, now).await
            }
            (Step::GiveUp(why), Some((job, _))) => {
                remember(context, job, Err(why), now).await?;
                cluster.remove_gc(job).await.map(|()| None)
            }
            (Step::Remove, Some((job, _))) => cluster.remove_gc(job).await.map(|()| None),
            _ => Ok(None),
        }
    }

    fn situation(&mut self, context: &Context, now: Timestamp) -> Situation {
        let cluster = &context.cluster;
        let job = self.job.as_ref().map(|(job, _)| job.clone());
        let record = cluster.gc.record();
        let at_work = job.as_ref().is_some_and(|job| {
            job.state == JobState::Active || record.as_ref().is_none_or(|record| record.job != job.uid)
        });
        // Those that were noticed are waited for already.
        if !at_work && cluster.gc.deletions().is_none() {
            if cluster.has_strays(self.looked, now) {
                cluster.gc.deleted(now);
            }
            self.looked = now;
        }
        Situation {
            job,
            record,
            leading: self.leading,
            deletions: cluster.gc.deletions(),
            no_space: cluster.no_space(),
        }
    }
}

/// Written down first, told after.
async fn remember(
    context: &Context,
    job: &GcJob,
    result: Result<Report, String>,
    now: Timestamp,
) -> Result<Option<Report>, Error> {
    let cluster = &context.cluster;
    let record = Record::of(job, result.clone(), cluster.gc.record().as_ref(), now);
    cluster.remember_gc(record).await?;
    let event = event(&result);
    match &result {
        Ok(report) => {
            let freed = report.freed.bytes.saturating_add(report.unfinished.bytes);
            context.metrics.collected(if report.refused.is_empty() { "done" } else { "refused" }, freed);
            tracing::info!(gc = report.gc, "{}", event.message);
        }
        Err(why) => {
            context.metrics.collected("failed", 0);
            tracing::warn!(why, "gc failed");
        }
    }
    let about = About { name: collect::NAME, uid: &job.uid, resource_version: &job.resource_version };
    cluster.publish_of_job(about, &event, now).await;
    Ok(result.ok())
}

fn event(result: &Result<Report, String>) -> Event {
    let (warning, reason, message) = match result {
        Ok(report) if report.refused.is_empty() => (false, "Collected", report.summary()),
        Ok(report) => (true, "CollectionRefused", report.summary()),
        Err(why) => (true, "CollectionFailed", format!("nothing was collected: {why}")),
    };
    Event { warning, reason: reason.to_owned(), message }
}
