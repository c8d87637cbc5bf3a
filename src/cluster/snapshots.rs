//! Snapshots of caches' own volumes: what the watches show of them, the classes and contents that are read live, and
//! the steps a plan takes. The definitions may be absent, come and go: that is an answer, never an error.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::PersistentVolumeClaim, storage::v1};
use kube::{
    Api, ResourceExt as _,
    api::ListParams,
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::reflector::Store,
};
use tokio::{sync::watch, time::Instant};

use super::{
    Cluster, Error,
    error::{call, found},
    observe,
};
use crate::{
    api::snapshot::{GROUP, VERSION, VolumeSnapshot, VolumeSnapshotContent},
    model::{
        facts::JobFact,
        judge::Object,
        plan::{Needs, SnapshotStep},
        request::CacheKey,
        snapshot::{self, Classes, Seen, SnapshotClass, StorageClass},
    },
    render::{self, Run},
};

const DEFAULT_SNAPSHOT_CLASS: &str = "snapshot.storage.kubernetes.io/is-default-class";
const DEFAULT_STORAGE_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// Without the right to watch one kind, work goes on without snapshots.
const PATIENCE: Duration = Duration::from_secs(10);
/// Classes change seldom, and many caches may ask at once.
const CLASSES_LAST: Duration = Duration::from_secs(10);
/// Longer than a watch may be silent; then the Job is in the store, or it is gone again.
const SEEN_BY_THEN: Duration = Duration::from_mins(2);

/// What the watches keep up to date, where snapshots are wanted.
#[derive(Clone)]
pub struct Stores {
    pub exports: Store<Job>,
    pub volumes: Store<PersistentVolumeClaim>,
    pub snapshots: Store<VolumeSnapshot>,
}

/// The three kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Exports,
    Volumes,
    Snapshots,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exports => "exports",
            Self::Volumes => "volumes",
            Self::Snapshots => "snapshots",
        }
    }
}

pub struct Snapshots {
    pub stores: Stores,
    /// The last answer for each kind.
    seen: watch::Sender<BTreeMap<Kind, snapshot::Api>>,
    classes: Mutex<Option<(Instant, Classes)>>,
    /// Exports that were just started, by cache: the watch may not show them yet.
    started: Mutex<HashMap<String, Instant>>,
    /// Why the last step of a cache was refused.
    refused: Mutex<HashMap<String, String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Snapshots {
    pub fn new(stores: Stores) -> Self {
        Self {
            stores,
            seen: watch::Sender::default(),
            classes: Mutex::default(),
            started: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    /// What a watch was answered. True if that is news.
    pub fn learn(&self, kind: Kind, api: snapshot::Api) -> bool {
        self.seen.send_if_modified(|seen| seen.insert(kind, api.clone()) != Some(api))
    }

    pub fn api(&self) -> snapshot::Api {
        let seen = self.seen.borrow();
        let all = [Kind::Snapshots, Kind::Volumes, Kind::Exports].map(|kind| seen.get(&kind));
        let bad = all.iter().flatten().find(|api| ***api != snapshot::Api::Present);
        match bad {
            Some(api) => (*api).clone(),
            None if all.iter().all(Option::is_some) => snapshot::Api::Present,
            None => snapshot::Api::Unknown,
        }
    }

    /// Each was looked for once: else what is there would be told as missing.
    pub async fn looked_for(&self) {
        let mut seen = self.seen.subscribe();
        let all = seen.wait_for(|seen| seen.len() == 3);
        if !matches!(tokio::time::timeout(PATIENCE, all).await, Ok(Ok(_))) {
            tracing::warn!("it is not known yet whether the cluster has VolumeSnapshots; going on");
        }
    }

    pub fn begin(&self, cache: &str) {
        locked(&self.started).insert(cache.to_owned(), Instant::now());
    }

    /// Why its last step was refused, or nothing once one succeeded.
    pub fn note(&self, cache: &str, refused: Option<String>) {
        match refused {
            Some(why) => locked(&self.refused).insert(cache.to_owned(), why),
            None => locked(&self.refused).remove(cache),
        };
    }

    /// Other caches whose export runs.
    pub fn busy(&self, cache: &str) -> u32 {
        let jobs = self.stores.exports.state();
        let mut started = locked(&self.started);
        let of = |job: &Job| observe::cache_uid(&job.metadata).map(str::to_owned);
        let shown: BTreeSet<String> = jobs.iter().filter_map(|job| of(job)).collect();
        started.retain(|cache, at| !shown.contains(cache) && at.elapsed() < SEEN_BY_THEN);
        let running = jobs.iter().filter(|job| observe::is_running(job)).filter_map(|job| of(job));
        let mut all: BTreeSet<String> = running.chain(started.keys().cloned()).collect();
        all.remove(cache);
        u32::try_from(all.len()).unwrap_or(u32::MAX)
    }

    /// Forgets caches that are gone.
    pub fn tidy(&self, there: impl Fn(&str) -> bool) {
        locked(&self.refused).retain(|cache, _| there(cache));
    }
}

impl Cluster {
    /// Everything but what is read live.
    pub(super) async fn snapshot_facts(&self, uid: &CacheKey, now: Timestamp) -> Result<Seen, Error> {
        let Some(snapshots) = &self.snapshots else { return Ok(Seen::default()) };
        let Stores { exports, volumes, snapshots: taken } = &snapshots.stores;
        let key = uid.as_str();
        // Labels alone are anybody's.
        let ours = |meta: &kube::api::ObjectMeta| {
            observe::cache_uid(meta) == Some(key) && observe::controller_uid(meta) == Some(key)
        };
        let mut jobs: Vec<JobFact> = Vec::new();
        for job in exports.state_filter(|job| ours(&job.metadata)) {
            jobs.push(self.job_fact(&job, now).await?);
        }
        let volumes = volumes.state_filter(|claim| ours(&claim.metadata));
        let taken = taken.state_filter(|one| ours(&one.metadata));
        let mut seen = Seen {
            api: snapshots.api(),
            volumes: volumes.iter().map(|claim| observe::volume(claim)).collect(),
            exports: jobs,
            snapshots: taken.iter().map(|one| observe::snapshot(one)).collect(),
            busy: snapshots.busy(key),
            refused: locked(&snapshots.refused).get(key).cloned(),
            ..Seen::default()
        };
        seen.volumes.sort_by_key(|volume| volume.run);
        seen.exports.sort_by_key(|job| job.run);
        seen.snapshots.sort_by_key(|one| one.run);
        Ok(seen)
    }

    pub(super) async fn read_needs(&self, needs: &Needs, seen: &mut Seen) -> Result<(), Error> {
        if needs.classes {
            seen.classes = Some(self.classes().await?);
        }
        for name in &needs.contents {
            let api: Api<VolumeSnapshotContent> = Api::all(self.client.clone());
            let content = found(call(format!("get volumesnapshotcontent {name}"), api.get(name)).await)?;
            seen.contents.insert(name.clone(), content.as_ref().map(observe::content));
        }
        Ok(())
    }

    async fn classes(&self) -> Result<Classes, Error> {
        let Some(snapshots) = &self.snapshots else { return Ok(Classes::default()) };
        if let Some((at, classes)) = &*locked(&snapshots.classes)
            && at.elapsed() < CLASSES_LAST
        {
            return Ok(classes.clone());
        }
        let kind = GroupVersionKind::gvk(GROUP, VERSION, "VolumeSnapshotClass");
        let kind = ApiResource::from_gvk_with_plural(&kind, "volumesnapshotclasses");
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
        let all = ListParams::default();
        let listed = found(call("list volumesnapshotclasses", api.list(&all)).await)?;
        let storage: Api<v1::StorageClass> = Api::all(self.client.clone());
        let storage = call("list storageclasses", storage.list(&all)).await?;
        let classes = Classes {
            snapshot: listed.iter().flat_map(|list| &list.items).map(snapshot_class).collect(),
            storage: storage.items.iter().map(storage_class).collect(),
        };
        *locked(&snapshots.classes) = Some((Instant::now(), classes.clone()));
        Ok(classes)
    }

    pub(super) async fn take_step(&self, object: &Object, step: &SnapshotStep) -> Result<(), Error> {
        let namespace = &self.worker.namespace;
        let cache = &object.uid;
        let run = |number: u64| Run { cache, name: &object.name, number };
        match step {
            SnapshotStep::MakeVolume { run: number, bytes, storage_class } => {
                let claim = render::volume::claim(run(*number), namespace, *bytes, storage_class);
                self.put(&self.claims(), &claim, cache).await
            }
            SnapshotStep::Export { run: number, root, pod } => {
                let job = render::export::job(run(*number), root, pod, &self.worker);
                self.put(&self.jobs(), &job, cache).await
            }
            SnapshotStep::Take { run: number, class } => {
                let snapshot = render::volume::snapshot(run(*number), namespace, class);
                self.put(&self.volume_snapshots(), &snapshot, cache).await
            }
            removal => self.remove_child(removal).await,
        }
    }

    /// A removal needs no cache.
    pub async fn remove_child(&self, step: &SnapshotStep) -> Result<(), Error> {
        match step {
            SnapshotStep::RemoveExport(id) => self.remove(&self.jobs(), &meta(id)).await,
            SnapshotStep::RemoveVolume(id) => self.remove(&self.claims(), &meta(id)).await,
            SnapshotStep::RemoveSnapshot(id) => self.remove(&self.volume_snapshots(), &meta(id)).await,
            SnapshotStep::MakeVolume { .. } | SnapshotStep::Export { .. } | SnapshotStep::Take { .. } => {
                Ok(())
            }
        }
    }

    pub(super) fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), &self.worker.namespace)
    }

    pub(super) fn volume_snapshots(&self) -> Api<VolumeSnapshot> {
        Api::namespaced(self.client.clone(), &self.worker.namespace)
    }

    /// Children whose cache is gone, after `--cascade=orphan` or a create that came late.
    pub fn snapshot_orphans(&self, known: impl Fn(&str) -> bool) -> Vec<(String, String, SnapshotStep)> {
        let Some(snapshots) = &self.snapshots else { return Vec::new() };
        let orphan = |meta: &kube::api::ObjectMeta| {
            let uid = observe::cache_uid(meta).filter(|uid| !known(uid))?.to_owned();
            let name = observe::cache_name(meta).unwrap_or_default().to_owned();
            meta.deletion_timestamp.is_none().then(|| (uid, name, observe::id(meta)))
        };
        let Stores { exports, volumes, snapshots: taken } = &snapshots.stores;
        let exports = exports
            .state()
            .into_iter()
            .filter_map(|o| orphan(&o.metadata))
            .map(|(u, n, id)| (u, n, SnapshotStep::RemoveExport(id)));
        let volumes = volumes
            .state()
            .into_iter()
            .filter_map(|o| orphan(&o.metadata))
            .map(|(u, n, id)| (u, n, SnapshotStep::RemoveVolume(id)));
        let present = snapshots.api() == snapshot::Api::Present;
        let taken = taken.state().into_iter().filter(|_| present).filter_map(|o| orphan(&o.metadata));
        let taken = taken.map(|(u, n, id)| (u, n, SnapshotStep::RemoveSnapshot(id)));
        exports.chain(volumes).chain(taken).collect()
    }
}

fn meta(id: &crate::model::plan::JobId) -> kube::api::ObjectMeta {
    kube::api::ObjectMeta {
        name: Some(id.name.clone()),
        uid: Some(id.uid.clone()),
        resource_version: Some(id.resource_version.clone()),
        ..kube::api::ObjectMeta::default()
    }
}

fn is_default(meta: &kube::api::ObjectMeta, key: &str) -> bool {
    meta.annotations.as_ref().and_then(|all| all.get(key)).is_some_and(|value| value == "true")
}

fn snapshot_class(class: &DynamicObject) -> SnapshotClass {
    SnapshotClass {
        name: class.name_any(),
        driver: class.data["driver"].as_str().unwrap_or_default().to_owned(),
        default: is_default(&class.metadata, DEFAULT_SNAPSHOT_CLASS),
    }
}

fn storage_class(class: &v1::StorageClass) -> StorageClass {
    StorageClass {
        name: class.name_any(),
        provisioner: class.provisioner.clone(),
        default: is_default(&class.metadata, DEFAULT_STORAGE_CLASS),
        created: class.creation_timestamp().map(|time| time.0).unwrap_or_default(),
    }
}
