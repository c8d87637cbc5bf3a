//! What we read and write in the cluster: facts in, actions out. The only user of the API server besides
//! `controller`, and the place of every time-out and precondition.
//!
//! | file | answers for |
//! |---|---|
//! | [`error`] | what the API server's answers mean; the time-out of every call |
//! | [`fence`] | whether this process may write now |
//! | [`observe`] | Kubernetes objects to facts (pure) |
//! | [`gather`] | all facts of one cache |
//! | [`slots`] | the pull Jobs of all caches, those just started included |
//! | [`logs`] | progress and outcome of workers |
//! | [`mirror`] | the mirror's report |
//! | [`profiles`] | defaults that the clouds and the operator keep in ConfigMaps |
//! | [`secrets`] | pull secrets: by name, only when needed |
//! | [`logins`] | password-free logins: taken for a run, kept nowhere |
//! | [`snapshots`] | snapshots of caches' own volumes |
//! | [`apply`] | a plan's actions |
//! | [`collect`] | the gc Job, its list and its report |
//! | [`remove`] | deletions, each with its preconditions |
//! | [`pace`] | deletions of caches, so many a second |
//! | [`server_clock`] | what the API server's clock says |
//! | [`status`], [`events`] | what users see |

use std::sync::Arc;

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Node, Pod, Secret},
};
use kube::{
    Api, Client,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::reflector::Store,
};

use crate::{api::ImageCache, render::Worker};

pub mod apply;
pub mod collect;
pub mod error;
pub mod events;
pub mod fence;
pub mod gather;
pub mod logins;
pub mod logs;
pub mod mirror;
pub mod observe;
pub mod pace;
pub mod profiles;
pub mod remove;
pub mod secrets;
pub mod server_clock;
pub mod slots;
pub mod snapshots;
pub mod status;

pub use error::{Error, Why};

/// An `ImageCache` as it is stored: one that cannot be read keeps nobody else from being served.
pub type Guarded = DeserializeGuard<ImageCache>;

/// What the watches keep up to date. Secrets are not among it, on purpose.
#[derive(Clone)]
pub struct Stores {
    pub caches: Store<Guarded>,
    pub jobs: Store<Job>,
    pub pods: Store<Pod>,
    pub nodes: Store<PartialObjectMeta<Node>>,
}

/// The cluster as one leader sees it and changes it.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    pub stores: Stores,
    pub worker: Arc<Worker>,
    pub fence: fence::Fence,
    pub slots: Arc<slots::Slots>,
    pub logs: Arc<logs::Logs>,
    pub secret_reads: Arc<secrets::Reads>,
    pub logins: Arc<logins::Logins>,
    pub mirror: Arc<mirror::Mirror>,
    pub server_clock: Arc<server_clock::ServerClock>,
    /// Of deletions of caches.
    pub deletions: Arc<pace::Pacer>,
    pub profiles: Arc<profiles::Profiles>,
    /// Where the operator wants any.
    pub snapshots: Option<Arc<snapshots::Snapshots>>,
    pub gc: Arc<collect::Memory>,
    /// The name of this process in events.
    pub identity: Arc<str>,
}

impl Cluster {
    pub fn caches(&self) -> Api<ImageCache> {
        Api::all(self.client.clone())
    }

    fn jobs(&self) -> Api<Job> {
        Api::namespaced(self.client.clone(), &self.worker.namespace)
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.worker.namespace)
    }

    /// The Secrets of pull Jobs.
    fn own_secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.worker.namespace)
    }
}
