//! What we create in the cluster: the pull Job and its two Secrets, made of a pull request and the operator's
//! settings; the gc Job with its list of living caches; the volume of a snapshot, the Job that fills it, and the
//! snapshot. Pure. Nothing a user writes reaches securityContext, hostPath, nodeName, service account or image.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::ResourceRequirements,
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, OwnerReference},
    },
};
use kube::Resource as _;

use crate::{
    api::{ImageCache, keys},
    model::{pod::WORKER_LABELS, reference::RegistryHost, request::CacheKey},
};

pub mod export;
pub mod gc;
pub mod job;
mod place;
pub mod secret;
pub mod volume;

/// On Jobs: the images of the run as JSON, in the order of the request. A report is read back with them, also
/// after the object was edited.
pub const IMAGES: &str = "imagecaches.eci.alibabacloud.com/images";
/// On everything that mounts the store: one `ReadWriteOnce` volume keeps them on one node.
pub const STORE_LABEL: &str = "imagecaches.eci.alibabacloud.com/store";

/// How every pull pod looks, whatever is pulled.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// The namespace of Jobs and Secrets.
    pub namespace: String,
    pub image: String,
    /// As the controller's own pod has it; unset leaves it to Kubernetes.
    pub pull_policy: Option<String>,
    /// Names of Secrets in `namespace` for the image above.
    pub pull_secrets: Vec<String>,
    pub store_claim: String,
    /// The store's volume can be mounted on one node only: pull pods go where it is.
    pub one_node: bool,
    pub resources: ResourceRequirements,
    /// Token servers on other hosts that the operator trusts.
    pub auth_realms: Vec<(RegistryHost, String)>,
}

/// Which cache, and which of its runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    pub cache: &'a CacheKey,
    /// `metadata.name` of the `ImageCache`.
    pub name: &'a str,
    pub number: u64,
}

/// What a puller needs when nobody says otherwise. Page cache counts as memory but is given back.
pub fn default_resources() -> ResourceRequirements {
    let quantities = |all: &[(&str, &str)]| -> BTreeMap<String, Quantity> {
        all.iter().map(|(name, value)| ((*name).to_owned(), Quantity((*value).to_owned()))).collect()
    };
    ResourceRequirements {
        requests: Some(quantities(&[("cpu", "100m"), ("memory", "128Mi")])),
        limits: Some(quantities(&[("memory", "512Mi")])),
        claims: None,
    }
}

/// Labels of a run's children and of its pod.
pub fn labels(run: Run<'_>) -> BTreeMap<String, String> {
    let own = [(keys::CACHE_UID_LABEL, run.cache.to_string()), (keys::RUN_LABEL, run.number.to_string())];
    let all = WORKER_LABELS.map(|(key, value)| (key, value.to_owned())).into_iter().chain(own);
    all.map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Metadata of a child: found by labels, collected with its owner.
fn child(run: Run<'_>, namespace: &str, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels(run)),
        annotations: Some([(keys::CACHE_NAME.to_owned(), run.name.to_owned())].into()),
        owner_references: Some(vec![OwnerReference {
            api_version: ImageCache::api_version(&()).into_owned(),
            kind: ImageCache::kind(&()).into_owned(),
            name: run.name.to_owned(),
            uid: run.cache.to_string(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]),
        ..ObjectMeta::default()
    }
}
