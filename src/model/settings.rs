//! The operator's settings that decisions read, checked where they are parsed.

use std::{sync::Arc, time::Duration};

use super::{
    acr::Allowed,
    cloud::Cloud,
    collect::Pace,
    lookup::{Dns, HostAlias},
    platform::Platform,
    profile::Profile,
    reference::RegistryHost,
};

#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is a yes or no of the operator
pub struct Settings {
    /// GiB a cache may hold when neither spec nor annotation says.
    pub default_size_gib: u32,
    /// What an unset `imc-enable-reuse` means.
    pub reuse_default: bool,
    /// Pulled when the object names none; empty means those of the nodes.
    pub platforms: Vec<Platform>,
    /// Registries whose anonymous answers prove that an image is public.
    pub public_registries: Vec<RegistryHost>,
    /// Whether a credential may go to a registry that is listed as plain HTTP by name.
    pub credentials_over_http: bool,
    /// Password-free pulls from ACR. Unset: the operator has no identity there.
    pub acr: Option<Allowed>,
    /// Pull Jobs at once, in all and for one upstream host.
    pub max_jobs: u32,
    pub max_jobs_per_host: u32,
    /// Caches that may hold content, and bytes that the store may hold: then new caches wait.
    pub max_caches: Option<u32>,
    pub max_store_bytes: Option<u64>,
    /// A Job whose bytes do not move for this long is ended.
    pub no_progress: Duration,
    /// A Job whose pod does not start for this long is ended.
    pub pending: Duration,
    /// Transient failures are retried this often at the slowest, permanent ones that often.
    pub retry_transient: Duration,
    pub retry_permanent: Duration,
    /// A streak of transient failures that lasts this long counts as a permanent one.
    pub stalled_after: Duration,
    /// What happens at expiry. Unset: delete, but keep what a GitOps tool would make again.
    pub on_expiry: Option<OnExpiry>,
    /// Objects that never were ready and fail for good are deleted after this long. Unset: never.
    pub delete_failed_after: Option<Duration>,
    /// When the store is collected.
    pub gc: Pace,
    /// Where pull pods run.
    pub cloud: Cloud,
    /// The namespace of pull pods.
    pub namespace: String,
    /// The registry of the pull pods' own image.
    pub worker_host: Option<RegistryHost>,
    /// The store's volume keeps pull pods on one node.
    pub one_node: bool,
    /// A place that is not known here makes an object invalid, instead of a notice.
    pub strict_placement: bool,
    /// For all caches that say nothing else.
    pub host_aliases: Option<Vec<HostAlias>>,
    pub dns: Option<Dns>,
    /// Each cache becomes a snapshot of a volume of its own, too. Unset: none does.
    pub snapshots: Option<super::snapshot::Wanted>,
    /// What the cluster's ConfigMaps say, as they were last seen.
    pub profile: Arc<Profile>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExpiry {
    Delete,
    Keep,
}

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

impl Default for Settings {
    fn default() -> Self {
        Self {
            default_size_gib: 20,
            reuse_default: true,
            platforms: Vec::new(),
            public_registries: Vec::new(),
            credentials_over_http: true,
            acr: None,
            max_jobs: 4,
            max_jobs_per_host: 3,
            max_caches: None,
            max_store_bytes: None,
            no_progress: MINUTE * 10,
            pending: MINUTE * 10,
            retry_transient: MINUTE * 10,
            retry_permanent: HOUR,
            stalled_after: MINUTE * 30,
            on_expiry: None,
            delete_failed_after: Some(HOUR * 24),
            gc: Pace::default(),
            cloud: Cloud::default(),
            namespace: String::new(),
            worker_host: None,
            one_node: false,
            strict_placement: false,
            host_aliases: None,
            dns: None,
            snapshots: None,
            profile: Arc::default(),
        }
    }
}
