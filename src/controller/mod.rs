//! The operator: watches, and for each object gather, judge, plan, apply, report. One replica leads; the others keep
//! their caches warm and take over within seconds. A process that is told to stop is done within two.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ResourceRequirements;
use kube::Client;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

use crate::{
    acr::{Acr, endpoints::Endpoints, identity::Identity},
    cluster::{
        Cluster, collect::Memory, fence::Fence, logins::Logins, mirror::Mirror, pace::Pacer,
        snapshots::Snapshots,
    },
    model::{reference::RegistryHost, settings::Settings},
    ops::{http, metrics::Metrics},
    render,
};

pub mod collect;
pub mod flags;
pub mod health;
pub mod leader;
pub mod reconcile;
pub mod startup;
pub mod watches;
pub mod work;

pub use startup::Error;

/// What the command line says, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub settings: Settings,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub listen: SocketAddr,
    /// The namespace of this pod, of pull Jobs and of their Secrets.
    pub namespace: String,
    /// This pod's name, inside a cluster.
    pub pod_name: Option<String>,
    /// The image of pull pods, instead of this pod's own.
    pub worker_image: Option<String>,
    pub worker_resources: ResourceRequirements,
    pub store_claim: String,
    /// The store's volume can be mounted on one node only (`ReadWriteOnce`).
    pub one_node: bool,
    /// The base URL of the mirror.
    pub mirror: Option<Url>,
    /// Caches that are deleted in a second, at most.
    pub deletions_per_second: u32,
    pub auth_realms: Vec<(RegistryHost, String)>,
    /// The ConfigMap with the placement map.
    pub placement: String,
    /// Who this is at Alibaba Cloud, and where that is asked.
    pub acr: Option<(Identity, Endpoints)>,
    /// Work on a definition that is not ours.
    pub take_over: bool,
}

impl Config {
    pub fn new(namespace: impl Into<String>, listen: SocketAddr) -> Self {
        Self {
            settings: Settings::default(),
            listen,
            namespace: namespace.into(),
            pod_name: None,
            worker_image: None,
            worker_resources: render::default_resources(),
            store_claim: "imagecache-store".to_owned(),
            one_node: true,
            mirror: None,
            deletions_per_second: 5,
            auth_realms: Vec::new(),
            placement: "imagecache-placement".to_owned(),
            acr: None,
            take_over: false,
        }
    }
}

/// Runs until told to stop, in a cluster or with the current kubeconfig.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
    let cluster = kube::Config::infer().await.map_err(|e| Error::NoCluster(e.to_string()))?;
    let client = startup::client(cluster, watches::SILENCE)?;
    let listener =
        TcpListener::bind(config.listen).await.map_err(|error| Error::Listen(config.listen, error))?;
    Box::pin(run_with(config, client, listener, stop)).await
}

/// As [`run`], with a client and a listener that are there already.
pub async fn run_with(
    config: Config,
    client: Client,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), Error> {
    let acr = config.acr.clone().map(|(identity, endpoints)| Acr::new(identity, endpoints)).transpose()?;
    let watches = watches::Watches::new(config.placement.clone());
    let (fence, bell) = (Fence::default(), watches::Bell::default());
    let (health, metrics) = (Arc::<health::Health>::default(), Arc::<Metrics>::default());
    let (tasks, ending) = (TaskTracker::new(), CancellationToken::new());
    // Also ends the tasks when the start fails.
    let _ends = ending.clone().drop_guard();
    // Probes are answered first: they say what the start waits for.
    let (gc, mirror) = (Arc::<Memory>::default(), Arc::new(Mirror::new(config.mirror.clone())));
    let report = health::Report {
        health: Arc::clone(&health),
        stores: watches.stores.clone(),
        fence: fence.clone(),
        metrics: Arc::clone(&metrics),
        gc: Arc::clone(&gc),
        mirror: Arc::clone(&mirror),
    };
    tasks.spawn(http::serve(listener, Arc::new(report), ending.clone()));
    let Some(worker) = startup::prepare(&client, &config, &health, &stop).await? else {
        tracing::info!("stopped");
        return Ok(());
    };
    let settings = startup::settings(&config, &worker)?;
    tracing::info!(namespace = config.namespace, image = worker.image, "starting");

    let identity: Arc<str> = identity(config.pod_name.as_deref()).into();
    let cluster = Cluster {
        client: client.clone(),
        stores: watches.stores.clone(),
        worker: Arc::new(worker),
        fence: fence.clone(),
        slots: Arc::default(),
        logs: Arc::default(),
        secret_reads: Arc::default(),
        logins: Arc::new(Logins::new(acr)),
        server_clock: Arc::default(),
        deletions: Arc::new(Pacer::per_second(config.deletions_per_second)),
        mirror,
        gc,
        profiles: Arc::default(),
        snapshots: settings.snapshots.as_ref().map(|_| Arc::new(Snapshots::new(watches.snapshot_stores()))),
        identity: Arc::clone(&identity),
    };
    watches.start(&cluster, &bell, &health, &metrics, &tasks, &ending);

    let mut elector = leader::Elector::new(client, &config.namespace, identity, fence.clone());
    let context = Arc::new(reconcile::Context::new(cluster, settings, metrics));
    let standing_down = CancellationToken::new();
    let terms = async {
        serve_terms(&context, &bell, &health, &fence, &stop).await;
        standing_down.cancel();
    };
    tokio::join!(terms, elector.run(&health, &standing_down));
    // Nothing is written any more: others may go on.
    elector.resign().await;
    ending.cancel();
    tasks.close();
    // A probe's connection may linger.
    drop(tokio::time::timeout(Duration::from_millis(200), tasks.wait()).await);
    tracing::info!("stopped");
    Ok(())
}

/// Leads whenever this process may, until told to stop.
async fn serve_terms(
    context: &Arc<reconcile::Context>,
    bell: &watches::Bell,
    health: &health::Health,
    fence: &Fence,
    stop: &CancellationToken,
) {
    let stores = &context.cluster.stores;
    let filled = async {
        // Their writers live as long as the watches.
        let _ = futures::join!(
            stores.caches.wait_until_ready(),
            stores.jobs.wait_until_ready(),
            stores.pods.wait_until_ready(),
            stores.nodes.wait_until_ready(),
            context.cluster.profiles.looked_for(),
            snapshots_looked_for(&context.cluster),
        );
    };
    tokio::select! {
        () = filled => {}
        () = stop.cancelled() => return,
    }
    loop {
        tokio::select! {
            () = fence.opened() => {}
            () = stop.cancelled() => return,
        }
        let ended = async {
            tokio::select! {
                () = fence.closed() => tracing::warn!("the lease is lost"),
                () = stop.cancelled() => {}
            }
        };
        work::lead(context, bell, health, ended).await;
        if stop.is_cancelled() {
            return;
        }
    }
}

async fn snapshots_looked_for(cluster: &Cluster) {
    if let Some(snapshots) = &cluster.snapshots {
        snapshots.looked_for().await;
    }
}

/// A new one for each process: a restarted container is not its predecessor.
fn identity(pod: Option<&str>) -> String {
    format!("{}-{:08x}", pod.unwrap_or("imagecache"), rand::random::<u32>())
}
