//! A small cluster that obeys plans: one ImageCache, its Jobs, a store, an upstream, a mirror. Status writes and
//! deletes have preconditions, creates look live first, and everything can be interrupted or seen too late.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use imagecache::{
    api::{ImageCache, ImageCacheSpec, ImageCacheStatus, keys},
    model::{
        class::Class,
        digest::Digest,
        facts::{Exit, Facts, JobFact, JobState, MirrorFact, PodFact, ProgressFact, SecretState},
        failure::Failure,
        judge::{Judged, judge},
        names,
        plan::{Action, Again, Needs, Plan, needs_secrets, plan, snapshot_needs},
        reference::Reference,
        report::{Bytes, ImageOutcome, Outcome, Progress},
        request::{PullRequest, Resolve},
        settings::Settings,
        snapshot::Wanted,
    },
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::storage::{NAMESPACE, Storage};

pub(crate) const UID: &str = "8f14e45f-ceea-467f-a0e6-1c2b3d4e5f60";

#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) fact: JobFact,
    pub(crate) request: PullRequest,
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) settings: Settings,
    /// `None` after the object was deleted.
    pub(crate) object: Option<ImageCache>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) secret: SecretState,
    /// What the upstream answers; `None` is content.
    pub(crate) upstream: Option<Class>,
    /// What its errors say.
    pub(crate) says: String,
    pub(crate) store: String,
    pub(crate) roots: BTreeSet<u64>,
    /// What the roots' runs were told: for which inputs, the digests, and when.
    answers: BTreeMap<u64, Answer>,
    /// How often each tag was moved.
    pub(crate) tags: BTreeMap<String, u32>,
    /// Since the cache was settled last.
    pub(crate) tags_moved: bool,
    /// Everybody may have the images.
    pub(crate) public: bool,
    /// Images that registries were asked about.
    pub(crate) asked: u64,
    /// How far our clock is ahead of the API server's.
    pub(crate) ahead: SignedDuration,
    pub(crate) broken: BTreeSet<u64>,
    pub(crate) mirror: bool,
    pub(crate) busy: u32,
    pub(crate) storage: Storage,
    /// Jobs, so far.
    pub(crate) made: u64,
}

#[derive(Clone)]
struct Answer {
    inputs: String,
    digests: Vec<Digest>,
    resolved: Timestamp,
    proved: Option<Timestamp>,
}

/// The operator wants snapshots, and the cluster can take them.
pub(crate) fn with_snapshots(world: World) -> World {
    let wanted = Wanted { class: Some("snaps".into()), storage_class: None };
    let settings = Settings { snapshots: Some(wanted), namespace: NAMESPACE.into(), ..world.settings };
    World { settings, storage: Storage::new(), ..world }
}

pub(crate) fn cache(images: &[&str]) -> ImageCache {
    let images = images.iter().map(|&image| image.to_owned()).collect();
    let mut object = ImageCache::new("demo", ImageCacheSpec { images, ..ImageCacheSpec::default() });
    object.metadata.uid = Some(UID.to_owned());
    object.metadata.generation = Some(1);
    object.metadata.resource_version = Some("1".to_owned());
    object.status = Some(ImageCacheStatus { observed_generation: Some(-1), ..ImageCacheStatus::default() });
    object
}

impl World {
    pub(crate) fn new(object: ImageCache) -> Self {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        Self {
            now,
            settings: Settings::default(),
            object: Some(object),
            jobs: vec![],
            secret: SecretState::Found { uid: "s".into(), resource_version: "1".into() },
            upstream: None,
            says: "GET https://r/v2/".into(),
            store: "store-1".into(),
            roots: BTreeSet::new(),
            answers: BTreeMap::new(),
            tags: BTreeMap::new(),
            tags_moved: false,
            public: false,
            asked: 0,
            ahead: SignedDuration::ZERO,
            broken: BTreeSet::new(),
            mirror: true,
            busy: 0,
            storage: Storage::default(),
            made: 0,
        }
    }

    pub(crate) fn status(&self) -> ImageCacheStatus {
        self.object.as_ref().and_then(|object| object.status.clone()).unwrap_or_default()
    }

    pub(crate) fn run(&self) -> i64 {
        self.status().ledger.unwrap_or_default().run
    }

    pub(crate) fn phase(&self) -> String {
        self.status().phase.unwrap_or_default()
    }

    /// Status, reason and message of a condition.
    pub(crate) fn condition(&self, kind: &str) -> (bool, String, String) {
        let status = self.status();
        let found = status.conditions.into_iter().find(|c| c.type_ == kind).expect(kind);
        (found.status == "True", found.reason, found.message)
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now.checked_add(SignedDuration::try_from(time).unwrap()).unwrap();
    }

    /// What the API server says.
    pub(crate) fn server_clock(&self) -> Timestamp {
        self.now.checked_sub(self.ahead).unwrap()
    }

    /// The tag means something else from now on.
    pub(crate) fn push(&mut self, image: &str) {
        *self.tags.entry(image.to_owned()).or_default() += 1;
    }

    /// What the registry says that the reference means.
    pub(crate) fn digest(&self, reference: &Reference) -> Digest {
        let version = self.tags.get(&reference.to_string()).copied().unwrap_or_default();
        reference
            .digest()
            .cloned()
            .unwrap_or_else(|| Digest::sha256(format!("{reference} {version}").as_bytes()))
    }

    /// `kubectl annotate imagecache demo imagecaches.eci.alibabacloud.com/refresh=VALUE`
    pub(crate) fn ask_anew(&mut self, value: &str) {
        let value = value.to_owned();
        self.edit(|object| {
            object.metadata.annotations.get_or_insert_default().insert(keys::REFRESH.to_owned(), value);
        });
    }

    /// Deleted and applied again: another object of the same name. Jobs of the old one may still be there.
    pub(crate) fn recreate(&mut self, mut object: ImageCache) {
        let uid = object.metadata.uid.take().unwrap_or_default();
        let next = u64::from_str_radix(&uid[..8], 16).unwrap() + 1;
        object.metadata.uid = Some(format!("{next:08x}{}", &uid[8..]));
        object.metadata.generation = Some(1);
        object.status = cache(&[]).status;
        bump(&mut object);
        self.object = Some(object);
        self.roots.clear();
        self.answers.clear();
        self.broken.clear();
    }

    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut ImageCache)) {
        let Some(object) = &mut self.object else { return };
        let spec = object.spec.clone();
        change(object);
        if object.spec != spec {
            *object.metadata.generation.as_mut().unwrap() += 1;
        }
        bump(object);
    }

    /// What a reconcile would see now.
    pub(crate) fn look(&self) -> Option<(Judged, Facts)> {
        let object = self.object.as_ref()?;
        let judged = judge(object, &self.settings);
        let mut facts = Facts {
            status: object.status.clone().unwrap_or_default(),
            jobs: self.own_jobs().map(|job| job.fact.clone()).collect(),
            ..Facts::default()
        };
        facts.mirror = self.mirror.then(|| MirrorFact {
            read: self.now,
            store: self.store.clone(),
            broken: self.broken.clone(),
        });
        facts.queue.running = self.busy;
        facts.server_clock = Some(self.server_clock());
        if needs_secrets(&judged, &facts, &self.settings, self.now) {
            let request = judged.request.as_ref().unwrap();
            facts.secrets = request.secrets.iter().map(|s| (s.clone(), self.secret.clone())).collect();
        }
        facts.snapshot = self.storage.seen();
        let needs = snapshot_needs(&judged, &facts, &self.settings, self.now);
        self.storage.answer(&needs, &mut facts.snapshot);
        Some((judged, facts))
    }

    pub(crate) fn own_jobs(&self) -> impl Iterator<Item = &Job> {
        let uid = self.object.as_ref().and_then(|object| object.metadata.uid.clone());
        self.jobs.iter().filter(move |job| uid.as_deref() == Some(job.request.cache.as_str()))
    }

    /// What would be read live.
    pub(crate) fn snapshot_needs(&self) -> Needs {
        let (judged, facts) = self.look().unwrap();
        snapshot_needs(&judged, &facts, &self.settings, self.now)
    }

    pub(crate) fn plan(&self) -> Option<Plan> {
        let (judged, facts) = self.look()?;
        Some(plan(&judged, &facts, &self.settings, self.now))
    }

    /// One whole reconcile; says when to come back.
    pub(crate) fn reconcile(&mut self) -> Again {
        let Some((judged, facts)) = self.look() else { return Again::OnChange };
        let plan = plan(&judged, &facts, &self.settings, self.now);
        let again = plan.again;
        self.apply(&judged, &facts, plan, usize::MAX);
        again
    }

    /// Carries out a plan as the effects must, up to so many steps.
    pub(crate) fn apply(&mut self, judged: &Judged, facts: &Facts, plan: Plan, steps: usize) {
        let mut version = judged.object.resource_version.clone();
        let mut left = steps;
        if plan.status != facts.status {
            let Some(object) = &mut self.object else { return };
            if left == 0 || object.metadata.resource_version.as_ref() != Some(&version) {
                return;
            }
            left -= 1;
            object.status = Some(plan.status);
            version = bump(object);
        }
        for action in plan.actions {
            if left == 0 {
                return;
            }
            left -= 1;
            self.act(action, &version);
        }
    }

    fn act(&mut self, action: Action, version: &str) {
        match action {
            Action::StartRun(start) => {
                let live = self.object.as_ref().and_then(|o| o.metadata.resource_version.as_deref());
                if live == Some(version) && self.own_jobs().next().is_none() {
                    self.create(start.request);
                }
            }
            Action::RemoveRun { job, .. } => {
                self.jobs.retain(|seen| seen.fact.uid != job.uid);
            }
            Action::DeleteObject(delete) => {
                let live = self.object.as_ref().and_then(|o| o.metadata.resource_version.as_deref());
                if live == Some(&delete.resource_version) && self.server_clock() >= delete.not_before {
                    self.object = None;
                    self.jobs.clear();
                    self.storage.is_gone();
                }
            }
            Action::Snapshot(step) => {
                let live = self.object.as_ref().and_then(|o| o.metadata.resource_version.as_deref());
                if live == Some(version) {
                    self.storage.act(&step, self.now);
                }
            }
            Action::RenewCredentials { .. } | Action::RemoveSecrets { .. } => {}
        }
    }

    fn create(&mut self, request: PullRequest) {
        self.made += 1;
        let fact = JobFact {
            name: names::job(&request.cache, request.run),
            uid: format!("job-{}", self.made),
            resource_version: "1".into(),
            run: request.run,
            created: self.now,
            deleting: false,
            state: JobState::Active,
            pod: None,
            no_pod: None,
            progress: None,
        };
        self.jobs.push(Job { fact, request });
    }

    pub(crate) fn job(&mut self) -> Option<&mut Job> {
        let uid = self.object.as_ref().and_then(|object| object.metadata.uid.clone());
        let live = |job: &&mut Job| job.fact.state == JobState::Active && !job.fact.deleting;
        self.jobs.iter_mut().find(|job| live(job) && uid.as_deref() == Some(job.request.cache.as_str()))
    }

    pub(crate) fn pod_starts(&mut self) {
        let now = self.now;
        if let Some(job) = self.job() {
            job.fact.pod.get_or_insert(pod(now)).started = Some(now);
        }
    }

    pub(crate) fn pulls(&mut self, percent: u64) {
        let now = self.now;
        self.pod_starts();
        if let Some(job) = self.job() {
            let all = Bytes { done: percent, total: 100, reused: 0 };
            let changed = match &job.fact.progress {
                Some(before) if before.report.all.done >= percent => return,
                _ => now,
            };
            job.fact.progress = Some(ProgressFact { report: Progress { all, images: vec![] }, changed });
        }
    }

    /// The worker of the live Job ends as the upstream and the store allow; its report may get lost.
    pub(crate) fn job_ends(&mut self, report_is_lost: bool) {
        let (now, store) = (self.now, self.store.clone());
        let highest = self.roots.last().copied();
        let Some(request) = self.job().map(|job| job.request.clone()) else { return };
        let run = request.run;
        let by_proof = self.public && matches!(request.resolve, Resolve::Proofs(_));
        let known = self.answer(&request).filter(|_| !(by_proof && self.upstream.is_some()));
        let failure = self.upstream.filter(|_| known.is_none());
        let failure = failure.map(|class| Failure::new(class, format!("{}: {class}", self.says)));
        let higher_run = highest.filter(|highest| *highest > run);
        let root = (failure.is_none() && higher_run.is_none()).then(|| Digest::sha256(&run.to_be_bytes()));
        if known.is_none() {
            self.asked += request.images.len() as u64;
        }
        let answer = known.unwrap_or_else(|| Answer {
            inputs: request.inputs.clone(),
            digests: request.images.iter().map(|image| self.digest(image)).collect(),
            resolved: now,
            proved: self.public.then_some(now),
        });
        let (resolved, proved, public) = (Some(answer.resolved), answer.proved, self.public);
        let image = |(reference, digest): (&Reference, &Digest)| ImageOutcome {
            reference: reference.clone(),
            digest: Some(digest.clone()),
            size: 10,
            pulled: 10,
            reused_by: imagecache::model::report::ReusedBy::default(),
            reused: 0,
            public,
            resolved,
            failure: failure.clone(),
        };
        let images = request.images.iter().zip(&answer.digests).map(image).collect();
        if root.is_some() {
            self.roots.insert(run);
            self.answers.insert(run, answer);
        }
        let Some(job) = self.job() else { return };
        let notices = vec![];
        let code =
            if root.is_some() { 0 } else { failure.as_ref().map_or(21, |f| f.class.exit_code().into()) };
        let size = 10;
        let outcome = Outcome {
            run,
            store,
            root: root.clone(),
            size,
            resolved,
            proved,
            images,
            failure,
            higher_run,
            notices,
        };
        let outcome = (!report_is_lost).then_some(outcome);
        job.fact.pod.get_or_insert(pod(now)).exit = Some(Exit { code, at: now, oom: false, outcome });
        job.fact.state = if root.is_some() {
            JobState::Succeeded { at: now }
        } else {
            JobState::Failed { at: now, reason: "PodFailurePolicy".into(), message: "exit code".into() }
        };
    }

    /// What an earlier run was told, if it answers this one too.
    fn answer(&self, request: &PullRequest) -> Option<Answer> {
        let of = |run: &u64| self.answers.get(run).filter(|_| !self.broken.contains(run)).cloned();
        match request.resolve {
            Resolve::Since(run) => {
                let same = self.answers.range(run..).filter(|(_, answer)| answer.inputs == request.inputs);
                of(same.max_by_key(|(run, _)| **run)?.0)
            }
            Resolve::Proofs(run) => {
                let proved = self.upstream.is_none().then_some(self.now).filter(|_| self.public);
                of(&run).map(|answer| Answer { proved: answer.proved.and(proved), ..answer })
            }
        }
    }

    pub(crate) fn store_is_replaced(&mut self) {
        self.store.push('x');
        self.roots.clear();
        self.answers.clear();
        self.broken.clear();
    }

    /// What the design's table and kstatus say must agree.
    pub(crate) fn kstatus(&self) -> &'static str {
        let Some(object) = &self.object else { return "Terminating" };
        let status = self.status();
        if status.observed_generation != object.metadata.generation {
            return "InProgress";
        }
        let holds = |kind: &str| status.conditions.iter().any(|c| c.type_ == kind && c.status == "True");
        match (holds("Reconciling"), holds("Stalled"), holds("Ready")) {
            (true, true, _) => "both",
            (true, false, false) => "InProgress",
            (false, true, false) => "Failed",
            (false, false, true) => "Current",
            _ => "nothing holds",
        }
    }
}

fn pod(now: Timestamp) -> PodFact {
    PodFact {
        name: "pod".into(),
        created: now,
        started: None,
        waiting: None,
        unschedulable: None,
        disrupted: None,
        exit: None,
    }
}

fn bump(object: &mut ImageCache) -> String {
    let version = object.metadata.resource_version.as_mut().unwrap();
    *version = (version.parse::<u64>().unwrap() + 1).to_string();
    version.clone()
}

pub(crate) fn tracked(object: &mut ImageCache) {
    let key = "argocd.argoproj.io/tracking-id".to_owned();
    object.metadata.annotations.get_or_insert_default().insert(key, "app".to_owned());
}

pub(crate) fn at(time: Option<Time>) -> Timestamp {
    time.expect("a time").0
}
