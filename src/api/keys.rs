//! Names that others read: group, labels, annotations of our own, field managers, GitOps tracking keys.
//! The clouds' annotations are rows of `model::annotations`.

pub const GROUP: &str = "eci.alibabacloud.com";
pub const CRD_NAME: &str = "imagecaches.eci.alibabacloud.com";

/// The label that marks the CRD as ours: the controller refuses to start on a CRD without it, because managed
/// clusters ship one of the same name with a controller of their own.
pub const CRD_OWNER_LABEL: &str = "imagecaches.eci.alibabacloud.com/provided-by";
pub const CRD_OWNER: &str = "imagecache";

pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
pub const MANAGED_BY: &str = "imagecache";
/// On every child: the UID of its ImageCache.
pub const CACHE_UID_LABEL: &str = "imagecaches.eci.alibabacloud.com/cache-uid";
/// On Jobs, their pods and their Secrets: the number of the run.
pub const RUN_LABEL: &str = "imagecaches.eci.alibabacloud.com/run";
/// On Jobs that are no pulls, and on their pods: what they are.
pub const ROLE_LABEL: &str = "imagecaches.eci.alibabacloud.com/role";
pub const ROLE_EXPORT: &str = "export";
/// On every child: the name of its ImageCache. An annotation, since names may be longer than labels.
pub const CACHE_NAME: &str = "imagecaches.eci.alibabacloud.com/cache-name";
/// On Jobs: the registry hosts it pulls from, comma separated; the queue is counted from them.
pub const HOSTS: &str = "imagecaches.eci.alibabacloud.com/registry-hosts";

/// On Jobs: the existing EIPs its pod holds, comma separated.
pub const EIPS: &str = "imagecaches.eci.alibabacloud.com/eips";

/// On an ImageCache, by the user: a new value asks the registries anew what the tags mean.
pub const REFRESH: &str = "imagecaches.eci.alibabacloud.com/refresh";

/// Prefix of our own keys.
pub const OWN_PREFIX: &str = "imagecaches.eci.alibabacloud.com/";

pub const FIELD_MANAGER: &str = "imagecache-controller";
/// A manager of its own, so that status never meets what users and GitOps tools apply.
pub const STATUS_MANAGER: &str = "imagecache-controller-status";

/// Objects with one of these are made again by their tool when they are deleted.
/// Sources: Argo CD, "Resource tracking" (`tracking-id`, the instance label); Flux, kustomize- and
/// helm-controller ownership labels.
pub const GITOPS_ANNOTATIONS: &[&str] = &["argocd.argoproj.io/tracking-id"];
pub const GITOPS_LABELS: &[&str] =
    &["argocd.argoproj.io/instance", "kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name"];
