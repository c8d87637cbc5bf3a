//! All facts of one cache: from the watches' stores, and live where a decision needs it. Decides nothing.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Event, Pod},
};
use kube::{Api, ResourceExt as _, api::ListParams};

use super::{
    Cluster, Error,
    error::{call, found},
    observe,
};
use crate::{
    api::{ImageCache, image_cache::Ledger},
    model::{
        facts::{Facts, JobFact, JobState, PodFact},
        judge::Judged,
        names, plan,
        platform::Platform,
        reference::Reference,
        request::CacheKey,
        settings::Settings,
    },
};

fn open_run(ledger: Option<&Ledger>) -> Option<u64> {
    ledger.filter(|ledger| ledger.open).and_then(|ledger| u64::try_from(ledger.run).ok())
}

impl Cluster {
    /// Everything but the queue is final; that is counted again when its turn comes.
    pub async fn gather(
        &self,
        cache: &ImageCache,
        judged: &Judged,
        settings: &Settings,
        now: Timestamp,
    ) -> Result<Facts, Error> {
        let uid = &judged.object.uid;
        let status = cache.status.clone().unwrap_or_default();
        let (queue, mut unseen) = {
            let mut turn = self.slots.turn();
            (turn.queue(self, cache, settings), turn.unseen(uid.as_str()))
        };
        // Who waits for a slot has no Job, and many may wait: they are not asked about.
        let admitted = judged.request.as_ref().map_or(true, |request| {
            queue.admits(request.images.iter().map(Reference::host), &request.eips, settings)
        });
        if admitted {
            unseen.extend(open_run(status.ledger.as_ref()).map(|run| names::job(uid, run)));
        }
        let mut jobs = Vec::new();
        for job in self.jobs_of(uid, unseen).await? {
            jobs.push(self.job_fact(&job, now).await?);
        }
        let mut facts = Facts {
            jobs,
            mirror: self.mirror.fact(uid, now),
            gc_broken: self.gc.broken(uid),
            queue,
            refused: self.slots.refusal(uid.as_str()),
            node_platforms: self.node_platforms(),
            secrets_read: self.secret_reads.last(uid),
            login: self.logins.fact(uid),
            snapshot: self.snapshot_facts(uid, now).await?,
            status,
            ..Facts::default()
        };
        if plan::needs_clock(judged, &facts, settings, now) {
            facts.server_clock = self.server_clock(&judged.object.name).await?;
        }
        if plan::needs_secrets(judged, &facts, settings, now)
            && let Ok(request) = &judged.request
        {
            facts.secrets = self.secret_states(&request.secrets).await?;
            self.secret_reads.note(uid, now);
        }
        let needs = plan::snapshot_needs(judged, &facts, settings, now);
        self.read_needs(&needs, &mut facts.snapshot).await?;
        Ok(facts)
    }

    /// The Jobs that carry this UID. The watch may not show one that was just made, so that one is asked for by name
    /// before anybody concludes that it is gone.
    async fn jobs_of(&self, uid: &CacheKey, unseen: Vec<String>) -> Result<Vec<Arc<Job>>, Error> {
        let ours = |job: &Job| observe::cache_uid(&job.metadata) == Some(uid.as_str());
        let mut jobs = self.stores.jobs.state_filter(ours);
        for name in unseen {
            if !jobs.iter().any(|job| job.name_any() == name)
                && let Some(job) = found(call(format!("get job {name}"), self.jobs().get(&name)).await)?
                && ours(&job)
            {
                jobs.push(Arc::new(job));
            }
        }
        jobs.sort_by_key(|job| job.name_any());
        Ok(jobs)
    }

    pub(super) async fn job_fact(&self, job: &Job, now: Timestamp) -> Result<JobFact, Error> {
        let mut fact = observe::job(job);
        let of_job = |pod: &Pod| observe::job_uid(pod) == Some(fact.uid.as_str());
        let pods = self.stores.pods.state_filter(of_job);
        // The newest: an evicted pod has a successor.
        match pods.iter().max_by_key(|pod| pod.creation_timestamp()) {
            Some(pod) => {
                if observe::is_working(pod) {
                    fact.progress = self.progress(pod, now).await;
                }
                fact.pod = Some(self.pod_fact(pod, job).await);
            }
            None if fact.state == JobState::Active && !fact.deleting => {
                fact.no_pod = self.refusal(&fact).await?;
            }
            None => {}
        }
        Ok(fact)
    }

    async fn pod_fact(&self, pod: &Pod, job: &Job) -> PodFact {
        let mut fact = observe::pod(pod);
        if let Some(exit) = &mut fact.exit {
            exit.outcome = self.outcome(pod, &observe::images(job)).await;
        }
        fact
    }

    /// Pods that admission refuses leave no trace but events of their Job.
    async fn refusal(&self, job: &JobFact) -> Result<Option<String>, Error> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &self.worker.namespace);
        let wanted = format!("involvedObject.uid={},reason=FailedCreate", job.uid);
        let wanted = ListParams::default().fields(&wanted).limit(50);
        let events = call(format!("list events of job {}", job.name), api.list(&wanted)).await?;
        let when = |event: &Event| {
            let seen = event.last_timestamp.as_ref().map(|time| time.0);
            seen.or_else(|| event.event_time.as_ref().map(|time| time.0))
        };
        Ok(events.items.into_iter().max_by_key(when).and_then(|event| event.message))
    }

    /// In a stable order, each once.
    pub fn node_platforms(&self) -> Vec<Platform> {
        let nodes = self.stores.nodes.state();
        let all: BTreeSet<Platform> = nodes.iter().filter_map(|node| observe::node_platform(node)).collect();
        all.into_iter().collect()
    }
}
