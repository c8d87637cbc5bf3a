//! The watches, and whom each change calls. They run on the standby, too. Only a leader listens to the calls.
//! Owners are cluster-scoped and children are not, so callers are named by hand: `owns` would make two different
//! keys of one object, and two reconciles of it at once.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, channel::mpsc, pin_mut};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Node, PersistentVolumeClaim, Pod},
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        reflector::{ObjectRef, Store, store::Writer},
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::health::Health;
use crate::{
    api::{keys, snapshot::VolumeSnapshot},
    cluster::{
        Cluster, Guarded, Stores, observe,
        profiles::Source,
        slots,
        snapshots::{self, Kind},
    },
    model::{platform::Platform, profile, snapshot},
    ops::{clock, metrics::Metrics},
};

/// A watch that says nothing for five seconds more is taken for dead.
const WATCH_SECONDS: u32 = 55;
/// No connection to the API server is silent for longer, else it is dead. Lists and the begin of a watch have no
/// other time-out.
pub const SILENCE: Duration = Duration::from_secs(70);
const TICK: Duration = Duration::from_secs(15);
/// Caches called when a slot becomes free; the others come back by themselves.
const CALLED_FOR_A_SLOT: usize = 50;

/// Calls for reconciles: heard while somebody leads.
#[derive(Clone, Default)]
pub struct Bell(Arc<Mutex<Option<mpsc::UnboundedSender<ObjectRef<Guarded>>>>>);

impl Bell {
    /// From now on calls go to this receiver.
    pub fn listen(&self) -> mpsc::UnboundedReceiver<ObjectRef<Guarded>> {
        let (sender, receiver) = mpsc::unbounded();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    pub fn call(&self, name: &str) {
        let mut sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.as_ref().is_some_and(|s| s.unbounded_send(ObjectRef::new(name)).is_err()) {
            *sender = None;
        }
    }

    pub fn call_all(&self, caches: &Store<Guarded>) {
        for cache in caches.state() {
            self.call(&cache.name_any());
        }
    }
}

/// The stores with their writers, before the watches run.
pub struct Watches {
    pub stores: Stores,
    /// The name of the ConfigMap with the placement map.
    placement: String,
    caches: Writer<Guarded>,
    jobs: Writer<Job>,
    pods: Writer<Pod>,
    nodes: Writer<PartialObjectMeta<Node>>,
    snapshots: SnapshotWriters,
}

#[derive(Default)]
struct SnapshotWriters {
    exports: Writer<Job>,
    volumes: Writer<PersistentVolumeClaim>,
    snapshots: Writer<VolumeSnapshot>,
}

impl Watches {
    pub fn new(placement: String) -> Self {
        let (caches, jobs, pods, nodes) =
            (Writer::default(), Writer::default(), Writer::default(), Writer::default());
        let stores = Stores {
            caches: caches.as_reader(),
            jobs: jobs.as_reader(),
            pods: pods.as_reader(),
            nodes: nodes.as_reader(),
        };
        Self { stores, placement, caches, jobs, pods, nodes, snapshots: SnapshotWriters::default() }
    }

    /// Those that are filled only where the operator wants snapshots.
    pub fn snapshot_stores(&self) -> snapshots::Stores {
        snapshots::Stores {
            exports: self.snapshots.exports.as_reader(),
            volumes: self.snapshots.volumes.as_reader(),
            snapshots: self.snapshots.snapshots.as_reader(),
        }
    }
}

/// What all watches share.
#[derive(Clone)]
struct Shared {
    bell: Bell,
    cluster: Cluster,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl Watches {
    pub fn start(
        self,
        cluster: &Cluster,
        bell: &Bell,
        health: &Arc<Health>,
        metrics: &Arc<Metrics>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let Self { stores: _, placement, caches, jobs, pods, nodes, snapshots } = self;
        let shared = Shared {
            bell: bell.clone(),
            cluster: cluster.clone(),
            health: Arc::clone(health),
            metrics: Arc::clone(metrics),
            stop: stop.clone(),
        };
        let client = &cluster.client;
        let namespace = &cluster.worker.namespace;
        let ours = || config().labels(keys::CACHE_UID_LABEL);
        tasks.spawn(shared.clone().follow(
            "imagecaches",
            Api::all(client.clone()),
            config(),
            caches,
            on_cache,
        ));
        let in_namespace = |client: &Client| Api::namespaced(client.clone(), namespace);
        let pulls = config().labels(&format!("{},!{}", keys::CACHE_UID_LABEL, keys::ROLE_LABEL));
        tasks.spawn(shared.clone().follow("jobs", in_namespace(client), pulls, jobs, on_job));
        let pod_api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        tasks.spawn(shared.clone().follow("pods", pod_api, ours(), pods, on_pod));
        if cluster.snapshots.is_some() {
            let exports = config().labels(&format!(
                "{},{}={}",
                keys::CACHE_UID_LABEL,
                keys::ROLE_LABEL,
                keys::ROLE_EXPORT
            ));
            tasks.spawn(shared.clone().follow_if_there(
                Kind::Exports,
                in_namespace(client),
                exports,
                snapshots.exports,
            ));
            let volumes: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
            tasks.spawn(shared.clone().follow_if_there(Kind::Volumes, volumes, ours(), snapshots.volumes));
            let taken: Api<VolumeSnapshot> = Api::namespaced(client.clone(), namespace);
            tasks.spawn(shared.clone().follow_if_there(Kind::Snapshots, taken, ours(), snapshots.snapshots));
        }
        let known: Mutex<Vec<Platform>> = Mutex::default();
        let on_node = move |shared: &Shared, event: &Event<PartialObjectMeta<Node>>| {
            on_node(shared, event, &known);
        };
        tasks.spawn(shared.clone().follow("nodes", Api::all(client.clone()), config(), nodes, on_node));
        for (source, kind, place, name) in [
            (Source::EciProfile, "eci-profile", profile::NAMESPACE, profile::ECI_PROFILE),
            (Source::EksConfig, "eks-config", profile::NAMESPACE, profile::EKS_CONFIG),
            (Source::Placement, "placement", namespace.as_str(), placement.as_str()),
        ] {
            let writer = Writer::<ConfigMap>::default();
            let store = writer.as_reader();
            let on_config = move |shared: &Shared, event: &Event<ConfigMap>| {
                on_config(shared, event, &store, source);
            };
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), place);
            let one = config().fields(&format!("metadata.name={name}"));
            tasks.spawn(shared.clone().follow(kind, api, one, writer, on_config));
        }
    }
}

fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

impl Shared {
    async fn follow<K>(
        self,
        kind: &'static str,
        api: Api<K>,
        config: watcher::Config,
        writer: Writer<K>,
        on: impl Fn(&Self, &Event<K>),
    ) where
        K: Resource<DynamicType: Eq + Hash + Clone> + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let stream = watcher::watcher(api, config)
            .default_backoff()
            .modify(|object| object.managed_fields_mut().clear())
            .reflect(writer);
        pin_mut!(stream);
        loop {
            self.health.beat(kind);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(TICK) => {}
                event = stream.next() => match event {
                    Some(Ok(event)) => on(&self, &event),
                    Some(Err(error)) => {
                        self.metrics.watch_broke(kind);
                        tracing::warn!(kind, %error, "watch broke; it is taken up again");
                    }
                    None => return,
                },
            }
        }
    }

    /// As [`Shared::follow`], of a kind that the cluster may not have, or not show us: that is told as what it is, and
    /// looked for again. Also when it was there and its definition is removed. A watch that was refused is not taken up
    /// where it was: what is there then may be another definition's.
    async fn follow_if_there<K>(self, kind: Kind, api: Api<K>, config: watcher::Config, mut writer: Writer<K>)
    where
        K: Resource<DynamicType: Eq + Hash + Clone> + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let Some(snapshots) = self.cluster.snapshots.clone() else { return };
        let name = kind.as_str();
        let learn = |api: snapshot::Api| {
            if snapshots.learn(kind, api.clone()) {
                tracing::info!(kind = name, ?api, "watched for snapshots");
                self.bell.call_all(&self.cluster.stores.caches);
            }
        };
        loop {
            let stream = watcher::watcher(api.clone(), config.clone())
                .default_backoff()
                .modify(|object| object.managed_fields_mut().clear());
            pin_mut!(stream);
            let refused = loop {
                self.health.beat(name);
                let event = tokio::select! {
                    () = self.stop.cancelled() => return,
                    () = tokio::time::sleep(TICK) => continue,
                    event = stream.next() => event,
                };
                match event {
                    Some(Ok(event)) => {
                        writer.apply_watcher_event(&event);
                        match &event {
                            Event::Apply(child) | Event::Delete(child) => self.call_owner(child.meta()),
                            Event::InitDone => {
                                learn(snapshot::Api::Present);
                                self.bell.call_all(&self.cluster.stores.caches);
                            }
                            Event::Init | Event::InitApply(_) => {}
                        }
                    }
                    Some(Err(error)) => {
                        if let Some(refused) = refusal(&error) {
                            break refused;
                        }
                        self.metrics.watch_broke(name);
                        tracing::warn!(kind = name, %error, "watch broke; it is taken up again");
                    }
                    None => return,
                }
            };
            learn(refused);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(TICK.mul_f64(rand::random_range(0.7..1.0))) => {}
            }
        }
    }

    /// A slot became free.
    fn call_for_a_slot(&self) {
        for name in slots::waiting(&self.cluster).iter().take(CALLED_FOR_A_SLOT) {
            self.bell.call(name);
        }
    }

    fn call_owner(&self, child: &kube::api::ObjectMeta) {
        if let Some(name) = observe::cache_name(child) {
            self.bell.call(name);
        }
    }
}

/// Whether the API server said that there is no such kind, or that we may not see it.
fn refusal(error: &watcher::Error) -> Option<snapshot::Api> {
    let (code, words) = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => (status.code, &status.message),
        _ => return None,
    };
    match code {
        404 => Some(snapshot::Api::Absent),
        403 => Some(snapshot::Api::Forbidden(words.clone())),
        _ => None,
    }
}

// The store takes a whole list at once, at `InitDone`; objects of the list are not acted on before.

fn on_cache(shared: &Shared, event: &Event<Guarded>) {
    match event {
        Event::Apply(cache) => shared.bell.call(&cache.name_any()),
        Event::Delete(_) => {
            shared.cluster.gc.deleted(clock::now());
            shared.call_for_a_slot();
        }
        Event::InitDone => shared.bell.call_all(&shared.cluster.stores.caches),
        Event::Init | Event::InitApply(_) => {}
    }
}

fn on_job(shared: &Shared, event: &Event<Job>) {
    match event {
        Event::Apply(job) => {
            shared.call_owner(&job.metadata);
            if !observe::is_running(job) {
                shared.call_for_a_slot();
            }
        }
        Event::Delete(job) => {
            shared.call_owner(&job.metadata);
            shared.call_for_a_slot();
        }
        Event::InitDone => shared.bell.call_all(&shared.cluster.stores.caches),
        Event::Init | Event::InitApply(_) => {}
    }
}

fn on_pod(shared: &Shared, event: &Event<Pod>) {
    match event {
        Event::Apply(pod) | Event::Delete(pod) => shared.call_owner(&pod.metadata),
        Event::InitDone => shared.bell.call_all(&shared.cluster.stores.caches),
        Event::Init | Event::InitApply(_) => {}
    }
}

/// Nodes change all the time; only another set of platforms matters.
fn on_node(shared: &Shared, event: &Event<PartialObjectMeta<Node>>, known: &Mutex<Vec<Platform>>) {
    if matches!(event, Event::Init | Event::InitApply(_)) {
        return;
    }
    let platforms = shared.cluster.node_platforms();
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if *known != platforms {
        let names: BTreeSet<String> = platforms.iter().map(ToString::to_string).collect();
        tracing::info!(?names, "platforms of the nodes");
        *known = platforms;
        shared.bell.call_all(&shared.cluster.stores.caches);
    }
}

/// Edits of defaults are for the next pull, but what waits because of them is looked at again.
fn on_config(shared: &Shared, event: &Event<ConfigMap>, store: &Store<ConfigMap>, source: Source) {
    if matches!(event, Event::Init | Event::InitApply(_)) {
        return;
    }
    let there = store.state().first().map(|config| config.data.clone().unwrap_or_default());
    if shared.cluster.profiles.learn(source, there) {
        tracing::info!(?source, "defaults changed");
        shared.bell.call_all(&shared.cluster.stores.caches);
    }
}
