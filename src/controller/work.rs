//! What a leader does: reconciles what it is called for, follows workers' progress and the mirror, and sweeps up
//! children whose cache is gone.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::api::batch::v1::Job;
use kube::{ResourceExt as _, runtime::applier};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    collect::collect,
    health::Health,
    reconcile::{Context, after_error, reconcile},
    watches::Bell,
};
use crate::{
    cluster::{
        Cluster, Error,
        error::{call, found},
        mirror::News,
        observe,
    },
    model::{plan::JobId, request::CacheKey},
    ops::clock,
};

/// Objects at one time: they wait for the API server, not for the processor.
const AT_ONCE: u16 = 16;
const PROGRESS: Duration = Duration::from_secs(2);
const MIRROR: Duration = Duration::from_secs(30);
const SWEEP: Duration = Duration::from_mins(1);
/// What is left to running passes when the process is told to stop. All they do may be repeated.
const GRACE: Duration = Duration::from_secs(1);
const BEAT: &str = "the leader's work";

/// Works until `ended`, then finishes what runs, for a moment.
pub async fn lead(context: &Arc<Context>, bell: &Bell, health: &Health, ended: impl Future<Output = ()>) {
    let stores = &context.cluster.stores;
    let calls = bell.listen();
    context.cluster.logs.forget();
    bell.call_all(&stores.caches);
    let (over, told) = futures::channel::oneshot::channel::<()>();
    let queue = calls.map(Ok::<_, Infallible>).take_until(told);
    let config = kube::runtime::Config::default().concurrency(AT_ONCE);
    let passes = applier(
        |cache, context| Box::pin(reconcile(cache, context)),
        after_error,
        Arc::clone(context),
        stores.caches.clone(),
        Box::pin(queue),
        config,
    )
    // Errors were logged where they came up; an object that is gone is none.
    .for_each(|_| std::future::ready(()));
    tokio::pin!(passes, ended);
    tokio::select! {
        () = &mut passes => {}
        () = progress(context, bell, health) => {}
        () = mirror(context, bell) => {}
        () = sweep(context) => {}
        () = Box::pin(collect(context, bell)) => {}
        () = &mut ended => {}
    }
    drop(over);
    if tokio::time::timeout(GRACE, passes).await.is_err() {
        tracing::debug!("passes were cut short");
    }
    health.rest(BEAT);
}

async fn progress(context: &Context, bell: &Bell, health: &Health) {
    let mut ticks = every(PROGRESS);
    loop {
        ticks.tick().await;
        health.beat(BEAT);
        for name in context.cluster.poll_progress(clock::now()).await {
            bell.call(&name);
        }
    }
}

async fn mirror(context: &Context, bell: &Bell) {
    let (cluster, mut ticks) = (&context.cluster, every(MIRROR));
    loop {
        ticks.tick().await;
        match cluster.mirror.refresh(clock::now()).await {
            Ok(News::Nothing) => {}
            Ok(News::All) => bell.call_all(&cluster.stores.caches),
            Ok(News::Caches(uids)) => {
                for cache in cluster.stores.caches.state() {
                    if cache.uid().is_some_and(|uid| uids.iter().any(|key| key.as_str() == uid)) {
                        bell.call(&cache.name_any());
                    }
                }
            }
            // The mirror may be down at any time.
            Err(error) => tracing::debug!(%error, "no report"),
        }
    }
}

/// Children normally go with their owner. After `--cascade=orphan`, or when a Job was made late by a leader that was
/// frozen, nobody else would remove them.
async fn sweep(context: &Context) {
    let mut ticks = every(SWEEP);
    loop {
        ticks.tick().await;
        context.tidy();
        for job in orphans(&context.cluster) {
            if let Err(error) = remove_orphan(&context.cluster, &job).await {
                tracing::warn!(job = job.name_any(), %error, "orphan not removed yet");
            }
        }
        sweep_snapshots(&context.cluster).await;
    }
}

async fn sweep_snapshots(cluster: &Cluster) {
    let caches: Vec<String> = cluster.stores.caches.state().iter().filter_map(|cache| cache.uid()).collect();
    for (uid, name, step) in cluster.snapshot_orphans(|uid| caches.iter().any(|known| known == uid)) {
        let removed = async {
            let cache = is_there(cluster, &name, &uid).await?;
            if cache { Ok(()) } else { cluster.remove_child(&step).await }
        };
        if let Err(error) = removed.await {
            tracing::warn!(cache = name, %error, "orphan not removed yet");
        }
    }
}

/// The watch may be behind: a child is no orphan as long as its cache is really there.
async fn is_there(cluster: &Cluster, name: &str, uid: &str) -> Result<bool, Error> {
    if name.is_empty() {
        return Ok(false);
    }
    let there = found(call(format!("get imagecache {name}"), cluster.caches().get_metadata(name)).await)?;
    Ok(there.and_then(|cache| cache.metadata.uid).is_some_and(|there| there == uid))
}

fn orphans(cluster: &Cluster) -> Vec<Arc<Job>> {
    let caches: Vec<String> = cluster.stores.caches.state().iter().filter_map(|cache| cache.uid()).collect();
    let known = |job: &Job| {
        observe::cache_uid(&job.metadata).is_none_or(|uid| caches.iter().any(|known| known == uid))
    };
    cluster.stores.jobs.state_filter(|job| job.metadata.deletion_timestamp.is_none() && !known(job))
}

async fn remove_orphan(cluster: &Cluster, job: &Job) -> Result<(), Error> {
    let fact = observe::job(job);
    let Some(uid) = observe::cache_uid(&job.metadata).and_then(|uid| uid.parse::<CacheKey>().ok()) else {
        return Ok(());
    };
    let name = observe::cache_name(&job.metadata).unwrap_or_default();
    if is_there(cluster, name, uid.as_str()).await? {
        return Ok(());
    }
    let id = JobId { name: fact.name, uid: fact.uid, resource_version: fact.resource_version };
    cluster.remove_run(&uid, fact.run, &id).await
}

pub(super) fn every(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
