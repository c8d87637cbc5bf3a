//! The gc Job: its list of living caches, its report, and what is remembered of it. `model::collect` decides.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Pod},
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, ObjectMeta},
};

use super::{
    Cluster, Error, Guarded, Why,
    apply::written_by_us,
    error::{call, found},
    observe,
};
use crate::{
    model::{
        class::Class,
        collect::{self, GcJob, Pace, Record, live_list},
        collected::Report,
        facts::JobState,
        live::{LiveList, LivePart},
        request::CacheKey,
        text,
    },
    render,
};

/// Objects a page: all pages are of one version of the whole list.
const PAGE: u32 = 500;
const MAX_FAILURE: usize = 500;

/// What a leader knows between two looks.
#[derive(Debug, Default)]
pub struct Memory {
    deletions: Mutex<Option<(Timestamp, Timestamp)>>,
    /// As it is in the cluster.
    record: Mutex<Option<Record>>,
}

impl Memory {
    /// An object is gone, and its bytes are to go.
    pub fn deleted(&self, now: Timestamp) {
        let mut deletions = self.deletions.lock().unwrap_or_else(PoisonError::into_inner);
        *deletions = Some((deletions.map_or(now, |(first, _)| first), now));
    }

    pub fn deletions(&self) -> Option<(Timestamp, Timestamp)> {
        *self.deletions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn record(&self) -> Option<Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_record(&self, record: Option<Record>) {
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = record;
    }

    /// Runs of this cache whose content is not in the store, as the last report says.
    pub fn broken(&self, cache: &CacheKey) -> BTreeSet<u64> {
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let report = record.as_ref().and_then(|record| record.report.as_ref());
        let broken = report.into_iter().flat_map(|report| &report.broken);
        broken.filter(|broken| broken.cache == *cache).map(|broken| broken.run).collect()
    }

    fn take_deletions(&self) -> Option<(Timestamp, Timestamp)> {
        self.deletions.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// They were not answered after all.
    fn put_back(&self, taken: Option<(Timestamp, Timestamp)>) {
        let mut deletions = self.deletions.lock().unwrap_or_else(PoisonError::into_inner);
        *deletions = match (taken, *deletions) {
            (Some((first, _)), Some((_, last))) => Some((first, last)),
            (taken, there) => taken.or(there),
        };
    }
}

impl Cluster {
    fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.worker.namespace)
    }

    /// The Job that is there now, with its pod.
    pub async fn gc_job(&self) -> Result<Option<(GcJob, Option<Pod>)>, Error> {
        let Some(job) = found(call("get job imagecache-gc", self.jobs().get(collect::NAME)).await)? else {
            return Ok(None);
        };
        let fact = observe::job(&job);
        let wanted = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={}", collect::NAME));
        let pods = call("list the pods of job imagecache-gc", self.pods().list(&wanted)).await?.items;
        let ours = pods.into_iter().filter(|pod| observe::job_uid(pod) == Some(fact.uid.as_str()));
        let pod = ours.max_by_key(ResourceExt::creation_timestamp);
        let job = GcJob {
            uid: fact.uid,
            resource_version: fact.resource_version,
            created: fact.created,
            deleting: fact.deleting,
            state: fact.state,
            pod: pod.as_ref().map(observe::pod),
        };
        Ok(Some((job, pod)))
    }

    /// Reads what is remembered. What cannot be read is as good as lost.
    pub async fn load_gc_record(&self) -> Result<(), Error> {
        let map = found(call("get configmap imagecache-gc", self.config_maps().get(collect::NAME)).await)?;
        self.gc.set_record(map.as_ref().and_then(render::gc::read));
        Ok(())
    }

    /// Written before it is relied on.
    pub async fn remember_gc(&self, record: Record) -> Result<(), Error> {
        let unusable =
            |e: serde_json::Error| Error::new("render configmap imagecache-gc", Why::Unusable(e.to_string()));
        let mut map = render::gc::record(&record, &self.worker.namespace).map_err(unusable)?;
        let (api, how) = (self.config_maps(), written_by_us());
        self.fence.check("write configmap imagecache-gc")?;
        match found(call("get configmap imagecache-gc", api.get(collect::NAME)).await)? {
            Some(there) => {
                map.metadata.resource_version = there.metadata.resource_version;
                call("update configmap imagecache-gc", api.replace(collect::NAME, &how, &map)).await?;
            }
            None => drop(call("create configmap imagecache-gc", api.create(&how, &map)).await?),
        }
        self.gc.set_record(Some(record));
        Ok(())
    }

    /// Lists what lives, then makes the Job and what it reads.
    pub async fn start_gc(&self, pace: &Pace) -> Result<(), Error> {
        // What is deleted from here on may still be on the list.
        let answered = self.gc.take_deletions();
        let started = self.try_start_gc(pace).await;
        if started.is_err() {
            self.gc.put_back(answered);
        }
        started
    }

    async fn try_start_gc(&self, pace: &Pace) -> Result<(), Error> {
        // Read before the list is: the list is newer than what that run saw.
        self.load_gc_record().await?;
        let parts = self.living().await?.map(|list| list.parts(render::gc::ENTRIES)).unwrap_or_default();
        let name = format!("{:08x}", rand::random::<u32>());
        let wanted = render::gc::job(&name, parts.len(), pace, &self.worker);
        self.fence.check("create job imagecache-gc")?;
        let how = written_by_us();
        let job = match call("create job imagecache-gc", self.jobs().create(&how, &wanted)).await {
            Ok(job) => job,
            // Of another leader: that one is looked after.
            Err(Error { why: Why::AlreadyExists, .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        tracing::info!(list = parts.len(), "gc Job made");
        let made = self.make_lists(&name, &parts, &job).await;
        if made.is_err() {
            // Its pod would wait for them.
            self.remove_gc_job(&job).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the gc Job has no list; it is given up later");
            });
        }
        made
    }

    async fn make_lists(&self, name: &str, parts: &[LivePart], job: &Job) -> Result<(), Error> {
        let unusable =
            |e: serde_json::Error| Error::new("render the lists of gc", Why::Unusable(e.to_string()));
        for map in render::gc::parts(name, parts, job).map_err(unusable)? {
            let doing = format!("create configmap {}", map.name_any());
            self.fence.check(&doing)?;
            call(doing, self.config_maps().create(&written_by_us(), &map)).await?;
        }
        Ok(())
    }

    /// One complete list, from the store of the API server and not from its cache: no resourceVersion is given.
    async fn living(&self) -> Result<Option<LiveList>, Error> {
        let api: Api<Guarded> = Api::all(self.client.clone());
        let mut wanted = ListParams::default().limit(PAGE);
        let mut objects = Vec::new();
        loop {
            let page = call("list all imagecaches", api.list(&wanted)).await?;
            objects.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => wanted = wanted.continue_token(&token),
                None => break,
            }
        }
        // One that cannot be read lives, too.
        let read = objects.iter().filter_map(|object| {
            let status = object.0.as_ref().ok().and_then(|cache| cache.status.as_ref());
            Some((CacheKey::of_uid(&object.uid()?), status))
        });
        Ok(live_list(read, self.gc.record().as_ref(), self.mirror.store()))
    }

    /// What a Job that ended left behind: its report, or why there is none.
    pub async fn gc_result(&self, job: &GcJob, pod: Option<&Pod>) -> Result<Report, String> {
        let message = pod.and_then(observe::termination_message).unwrap_or_default();
        let log = match pod {
            Some(pod) => self.whole_report(&pod.name_any()).await,
            None => String::new(),
        };
        Report::decode(message, &log).map_err(|unread| {
            let exit = job.pod.as_ref().and_then(|pod| pod.exit.as_ref()).map(|exit| exit.code);
            let disrupted = job.pod.as_ref().and_then(|pod| pod.disrupted.clone());
            let why = match (&job.state, disrupted, exit) {
                _ if !message.is_empty() && exit != Some(0) => message.trim().to_owned(),
                (_, Some(why), _) => format!("its pod was taken away: {why}"),
                (_, None, Some(0)) => unread.to_string(),
                (_, None, Some(code)) => format!("it ended with exit code {code}"),
                (JobState::Failed { reason, message, .. }, ..) => {
                    format!("{reason}: {message}")
                }
                _ => "its report is lost".to_owned(),
            };
            text::cut(&why, MAX_FAILURE)
        })
    }

    pub async fn remove_gc(&self, job: &GcJob) -> Result<(), Error> {
        let meta = ObjectMeta {
            name: Some(collect::NAME.to_owned()),
            uid: Some(job.uid.clone()),
            resource_version: Some(job.resource_version.clone()),
            ..ObjectMeta::default()
        };
        self.remove(&self.jobs(), &meta).await
    }

    async fn remove_gc_job(&self, job: &Job) -> Result<(), Error> {
        let meta = ObjectMeta {
            name: job.metadata.name.clone(),
            uid: job.metadata.uid.clone(),
            ..ObjectMeta::default()
        };
        self.remove(&self.jobs(), &meta).await
    }

    /// When a pull last failed because the volume is full.
    pub fn no_space(&self) -> Option<Timestamp> {
        let full = |cache: &Guarded| {
            let failure = cache.0.as_ref().ok()?.status.as_ref()?.ledger.as_ref()?.failure.as_ref()?;
            (failure.class == Class::NoSpace.as_str()).then_some(failure.last.0)
        };
        self.stores.caches.state().iter().filter_map(|cache| full(cache)).max()
    }

    /// Whether the mirror, since it was last looked at, sees roots of objects that are gone, and that no run of gc has
    /// condemned: deletions that nobody noticed.
    pub fn has_strays(&self, looked: Timestamp, now: Timestamp) -> bool {
        let record = self.gc.record();
        let report = record.as_ref().and_then(|record| record.report.as_ref());
        let known: BTreeSet<(&CacheKey, u64)> =
            report.into_iter().flat_map(|report| &report.roots).map(|root| (&root.cache, root.run)).collect();
        let living: BTreeSet<CacheKey> = self
            .stores
            .caches
            .state()
            .iter()
            .filter_map(|cache| Some(CacheKey::of_uid(&cache.uid()?)))
            .collect();
        let since = record.as_ref().map_or(looked, |record| record.ended.max(looked));
        self.mirror.roots_since(since, now).iter().any(|root| {
            !root.cache.is_local()
                && !living.contains(&root.cache)
                && !known.contains(&(&root.cache, root.run))
        })
    }
}
