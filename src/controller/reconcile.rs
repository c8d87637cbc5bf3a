//! One pass over one object: gather, judge, plan, apply, report.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kube::{ResourceExt as _, core::error_boundary::InvalidObject, runtime::controller::Action as Next};
use tokio::time::Instant;

use crate::{
    api::{ImageCache, ImageCacheStatus, image_cache::ImageStatus},
    cluster::{Cluster, Error, Guarded, Why, events::About},
    model::{
        facts::Facts,
        judge::{Judged, judge},
        names,
        plan::{Action, Again, Event, Plan, SnapshotStep, plan},
        queue::Running,
        settings::Settings,
    },
    ops::{clock, metrics::Metrics},
};

/// No pass may hold its object for ever; each call has a time-out of its own.
const LONGEST: Duration = Duration::from_mins(2);
/// Even a settled cache is looked at now and then: a missed event must not leave it for ever.
const AT_LEAST: Duration = Duration::from_mins(10);
const RACE: Duration = Duration::from_secs(1);
const NOT_DUE: Duration = Duration::from_mins(1);
const FIRST_ERROR: Duration = Duration::from_secs(1);
const MOST_ERROR: Duration = Duration::from_mins(5);

pub struct Context {
    pub cluster: Cluster,
    pub settings: Settings,
    pub metrics: Arc<Metrics>,
    /// Errors in a row, by name.
    errors: Mutex<HashMap<String, u32>>,
    /// Unreadable objects that were reported: their versions, by name.
    reported: Mutex<HashMap<String, Option<String>>>,
}

impl Context {
    pub fn new(cluster: Cluster, settings: Settings, metrics: Arc<Metrics>) -> Self {
        Self { cluster, settings, metrics, errors: Mutex::default(), reported: Mutex::default() }
    }

    /// Forgets objects that are gone.
    pub fn tidy(&self) {
        let caches = self.cluster.stores.caches.state();
        let there: Vec<String> = caches.iter().map(|cache| cache.name_any()).collect();
        let uids: Vec<String> = caches.iter().filter_map(|cache| cache.uid()).collect();
        self.cluster.slots.tidy(|uid| uids.iter().any(|there| there == uid));
        if let Some(snapshots) = &self.cluster.snapshots {
            snapshots.tidy(|uid| uids.iter().any(|there| there == uid));
        }
        self.cluster.deletions.tidy(|uid| uids.iter().any(|there| there == uid));
        self.cluster.logins.tidy(|uid| uids.iter().any(|there| there == uid));
        lock(&self.errors).retain(|name, _| there.contains(name));
        lock(&self.reported).retain(|name, _| there.contains(name));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub async fn reconcile(cache: Arc<Guarded>, context: Arc<Context>) -> Result<Next, Error> {
    let started = Instant::now();
    let result = match &cache.0 {
        Ok(cache) => match tokio::time::timeout(LONGEST, Box::pin(pass(cache, &context))).await {
            Ok(result) => result,
            Err(_) => Err(Error::new(format!("reconcile {}", cache.name_any()), Why::Timeout)),
        },
        Err(invalid) => {
            unreadable(invalid, &context).await;
            Ok(Next::await_change())
        }
    };
    let outcome = result.as_ref().map_or_else(Error::label, |_| "done");
    context.metrics.reconciled(outcome, started.elapsed().as_secs_f64());
    if result.is_ok() {
        lock(&context.errors).remove(&cache.name_any());
    }
    result
}

/// When to try again: soon after a race, later and later after errors, never all at once.
#[allow(clippy::needless_pass_by_value)] // the shape kube asks for
pub fn after_error(cache: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Next {
    let name = cache.name_any();
    if error.is_race() {
        tracing::debug!(cache = name, %error, "again");
        return Next::requeue(match error.why {
            Why::NotDue => NOT_DUE,
            Why::NotItsTurn(wait) => wait,
            _ => RACE,
        });
    }
    let attempt = {
        let mut errors = lock(&context.errors);
        let attempt = errors.entry(name.clone()).or_default();
        *attempt = attempt.saturating_add(1);
        *attempt
    };
    let delay = delay(attempt, rand::random_range(0.5..1.0));
    tracing::warn!(cache = name, %error, attempt, retry_s = delay.as_secs(), "reconcile failed");
    Next::requeue(delay)
}

fn delay(attempt: u32, jitter: f64) -> Duration {
    let doubled = FIRST_ERROR.saturating_mul(1 << attempt.min(16));
    doubled.min(MOST_ERROR).mul_f64(jitter)
}

async fn pass(cache: &ImageCache, context: &Context) -> Result<Next, Error> {
    let Context { cluster, metrics, .. } = context;
    let settings = &Settings { profile: cluster.profiles.now(), ..context.settings.clone() };
    let now = clock::now();
    let judged = judge(cache, settings);
    let mut facts = cluster.gather(cache, &judged, settings, now).await?;
    let (plan, slot) = {
        let mut turn = cluster.slots.turn();
        facts.queue = turn.queue(cluster, cache, settings);
        if let Some(snapshots) = &cluster.snapshots {
            facts.snapshot.busy = snapshots.busy(judged.object.uid.as_str());
        }
        let plan = plan(&judged, &facts, settings, now);
        let exports = |action: &Action| matches!(action, Action::Snapshot(SnapshotStep::Export { .. }));
        if let Some(snapshots) = cluster.snapshots.as_ref().filter(|_| plan.actions.iter().any(exports)) {
            snapshots.begin(judged.object.uid.as_str());
        }
        let start = plan.actions.iter().find_map(|action| match action {
            Action::StartRun(start) => Some(start),
            _ => None,
        });
        let slot = start.map(|start| {
            let request = &start.request;
            let job = names::job(&request.cache, request.run);
            let running = Running {
                name: request.name.clone(),
                hosts: request.images.iter().map(|image| image.host().clone()).collect(),
                eips: start.eips.clone(),
                over: false,
            };
            turn.take(job.clone(), request.cache.to_string(), running);
            job
        });
        (plan, slot)
    };
    let done = carry_out(cluster, &judged, &facts, &plan).await;
    match (&done, slot) {
        (Err(why), Some(job)) => cluster.slots.give_back(&job, judged.object.uid.as_str(), why),
        (Ok(_), Some(_)) => cluster.slots.keep(judged.object.uid.as_str()),
        (_, None) => {}
    }
    let written = done?;
    if written {
        metrics.pulled(newly_pulled(&facts.status, &plan.status));
    }
    Ok(match plan.again {
        Again::After(delay) => Next::requeue(delay.min(AT_LEAST)),
        Again::OnChange => Next::requeue(AT_LEAST.mul_f64(rand::random_range(0.8..1.0))),
    })
}

/// Status first, then the actions, then the events. True if the status was written.
///
/// Renewed credentials go before the status that says which were given: if they cannot be written, the same plan
/// must follow again, and writing them twice is nothing.
async fn carry_out(cluster: &Cluster, judged: &Judged, facts: &Facts, plan: &Plan) -> Result<bool, Error> {
    let object = &judged.object;
    let is_renewal = |action: &&Action| matches!(action, Action::RenewCredentials { .. });
    for renewal in plan.actions.iter().filter(is_renewal) {
        cluster.apply(object, renewal).await?;
    }
    let written = cluster.write_status(object, &facts.status, &plan.status).await?;
    let starts =
        plan.actions.iter().any(|action| matches!(action, Action::StartRun(_) | Action::Snapshot(_)));
    if starts && !written {
        cluster.confirm(object).await?;
    }
    let mut acted = Ok(());
    for action in plan.actions.iter().filter(|action| !is_renewal(action)) {
        acted = cluster.apply(object, action).await;
        if let (Action::Snapshot(_), Some(snapshots)) = (action, &cluster.snapshots) {
            let refused = acted.as_ref().err().filter(|why| !why.is_race()).map(ToString::to_string);
            snapshots.note(object.uid.as_str(), refused);
        }
        if acted.is_err() {
            break;
        }
    }
    // What the status says is told, even if an action has to be repeated; a deletion is told when it is done.
    let deletes = plan.actions.iter().any(|action| matches!(action, Action::DeleteObject(_)));
    if acted.is_ok() || !deletes {
        let uid = object.uid.as_str();
        let about = About { name: &object.name, uid, resource_version: &object.resource_version };
        for event in &plan.events {
            cluster.publish(about, event, clock::now()).await;
        }
    }
    acted.map(|()| written)
}

/// Bytes that came over the network for content that is credited for the first time.
fn newly_pulled(old: &ImageCacheStatus, new: &ImageCacheStatus) -> u64 {
    let root = |status: &ImageCacheStatus| status.ledger.as_ref().and_then(|ledger| ledger.root.clone());
    if root(new).is_none() || root(new) == root(old) {
        return 0;
    }
    // A refresh that finds an image unchanged says of it what was said before.
    let same = |image: &&ImageStatus| {
        let before = |old: &ImageStatus| old.name == image.name && old.digest == image.digest;
        root(old).is_none() || !old.images.iter().any(before)
    };
    let pulled = new.images.iter().filter(same).filter_map(|image| u64::try_from(image.pulled?).ok());
    pulled.fold(0, u64::saturating_add)
}

/// An object that does not fit our schema: said once for each of its versions, and left alone.
async fn unreadable(invalid: &InvalidObject, context: &Context) {
    let meta = &invalid.metadata;
    let name = meta.name.clone().unwrap_or_default();
    let version = meta.resource_version.clone();
    if lock(&context.reported).insert(name.clone(), version.clone()) == Some(version.clone()) {
        return;
    }
    tracing::error!(cache = name, error = invalid.error, "this ImageCache cannot be read and is left alone");
    let about = About {
        name: &name,
        uid: meta.uid.as_deref().unwrap_or_default(),
        resource_version: version.as_deref().unwrap_or_default(),
    };
    let event = Event {
        warning: true,
        reason: "Unreadable".to_owned(),
        message: format!(
            "the object does not fit the schema of this version ({}): edit it, or delete it and apply it again",
            invalid.error
        ),
    };
    context.cluster.publish(about, &event, clock::now()).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::image_cache::{Ledger, LedgerRoot};

    #[test]
    fn delays_grow_to_a_limit_and_never_below_half() {
        assert_eq!(delay(1, 0.5), Duration::from_secs(1));
        assert!(delay(3, 0.5) > delay(2, 0.5));
        assert_eq!(delay(u32::MAX, 1.0), MOST_ERROR);
    }

    #[test]
    fn bytes_are_counted_once_for_each_content() {
        let root = LedgerRoot {
            run: 1,
            digest: "sha256:x".into(),
            at: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH),
            mirror_store_id: None,
            inputs: String::new(),
            resolved: None,
            proved: None,
            taken_back: None,
        };
        let images = vec![
            ImageStatus { pulled: Some(40), ..ImageStatus::default() },
            ImageStatus { pulled: Some(2), ..ImageStatus::default() },
        ];
        let ledger = Ledger { root: Some(root), ..Ledger::default() };
        let ready = ImageCacheStatus { images, ledger: Some(ledger), ..ImageCacheStatus::default() };
        assert_eq!(newly_pulled(&ImageCacheStatus::default(), &ready), 42);
        assert_eq!(newly_pulled(&ready, &ready), 0);
        assert_eq!(newly_pulled(&ready, &ImageCacheStatus::default()), 0);
    }
}
