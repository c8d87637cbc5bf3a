//! What a key does: to the request, and to the pull pod on each platform.

use super::table::Row;
use crate::model::cloud::Cloud;

/// What a value does to the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    PlainHttp,
    SkipVerify,
    Size,
    Retention,
    Reuse,
    Flash,
    Architecture,
    Os,
    /// The network the pull pod is in.
    Subnets,
    SecurityGroups,
    ResourceGroup,
    /// The address it leaves the network by.
    ExistingEip,
    NewEip,
    /// A property of a new address, under the same key on the pod.
    NewEipDetail,
    /// TKE: a new address with its properties in one JSON object.
    NewEipObject,
    /// How names are looked up.
    Hosts,
    Dns,
    /// Password-free pulls: see `model::acr`.
    AcrInstances,
    AcrServiceRole,
    AcrUserRole,
    /// A property of the pod itself, under the same key, where its own cloud runs it.
    Pod,
    /// Known, and without effect on a pull: the user is told why.
    None(&'static str),
}

impl Effect {
    /// The pod's annotation on a cloud that says it by one.
    pub fn pod_key(self, cloud: Cloud) -> Option<&'static str> {
        let keys: [Option<&str>; 3] = match self {
            Self::PlainHttp => [
                Some("k8s.aliyun.com/plain-http-registry"),
                Some("k8s.ksyun.com/kci-http-registry"),
                Some("eks.tke.cloud.tencent.com/registry-http-endpoint"),
            ],
            Self::SkipVerify => [
                Some("k8s.aliyun.com/insecure-registry"),
                Some("k8s.ksyun.com/kci-insecure-registry"),
                Some("eks.tke.cloud.tencent.com/registry-insecure-skip-verify"),
            ],
            Self::Subnets => [
                Some("k8s.aliyun.com/eci-vswitch"),
                Some("k8s.ksyun.com/kci-subnet-id"),
                Some("eks.tke.cloud.tencent.com/subnet-id"),
            ],
            Self::SecurityGroups => [
                Some("k8s.aliyun.com/eci-security-group"),
                Some("k8s.ksyun.com/kci-security-group-id"),
                Some("eks.tke.cloud.tencent.com/security-group-id"),
            ],
            Self::ResourceGroup => [Some("k8s.aliyun.com/eci-resource-group-id"), None, None],
            Self::ExistingEip => [
                Some("k8s.aliyun.com/eci-eip-instanceid"),
                None,
                Some("eks.tke.cloud.tencent.com/eip-id-list"),
            ],
            Self::NewEip => {
                [Some("k8s.aliyun.com/eci-with-eip"), None, Some("eks.tke.cloud.tencent.com/eip-attributes")]
            }
            Self::NewEipObject => [None, None, Some("eks.tke.cloud.tencent.com/eip-attributes")],
            Self::Hosts => {
                [Some("k8s.aliyun.com/eci-custom-hosts"), Some("k8s.ksyun.com/kci-host-aliases"), None]
            }
            Self::Dns => [
                Some("k8s.aliyun.com/eci-custom-dnsconfig"),
                Some("k8s.ksyun.com/kci-dns-config"),
                Some("eks.tke.cloud.tencent.com/resolv-conf"),
            ],
            _ => return None,
        };
        match cloud {
            Cloud::Kubernetes => None,
            Cloud::Eci => keys[0],
            Cloud::Kci => keys[1],
            Cloud::Tke => keys[2],
        }
    }

    /// A setting of the pod's network or of the pod itself: an edit of it alone is no reason to pull again.
    pub fn is_placement(self) -> bool {
        matches!(
            self,
            Self::Subnets
                | Self::SecurityGroups
                | Self::ResourceGroup
                | Self::ExistingEip
                | Self::NewEip
                | Self::NewEipDetail
                | Self::NewEipObject
                | Self::Pod
        )
    }
}

impl Row {
    /// For the documentation and `imagecache explain`: what the key does on this platform.
    pub fn does(&self, cloud: Cloud) -> String {
        let pod = self.effect.pod_key(cloud).map(|key| format!("pod annotation `{key}`"));
        let own = cloud.speaks(self.dialect);
        let and = |says: &str| pod.as_ref().map_or(says.to_owned(), |pod| format!("{says}; {pod}"));
        let mapped = |what: &str| format!("{what} by the operator's placement map; not mapped: a notice");
        match self.effect {
            Effect::PlainHttp => and("these registries are reached over plain HTTP"),
            Effect::SkipVerify => and("the certificates of these registries are not checked"),
            Effect::Size => "as `spec.imageCacheSize`".to_owned(),
            Effect::Retention => "as `spec.retentionDays`".to_owned(),
            Effect::Reuse => "layers that the store has are reused, by the rules of permission".to_owned(),
            Effect::Flash => "where the operator takes snapshots (`--snapshot-class`), ready comes with the store and the snapshot after it; else a notice".to_owned(),
            Effect::Architecture | Effect::Os => {
                "the platform that is pulled, never where the pull runs".to_owned()
            }
            Effect::Subnets => {
                own.then_some(pod).flatten().unwrap_or_else(|| mapped("node affinity (several: any of them)"))
            }
            Effect::SecurityGroups | Effect::ResourceGroup => {
                own.then_some(pod).flatten().unwrap_or_else(|| mapped("labels of the pod"))
            }
            Effect::ExistingEip => {
                let how = own
                    .then_some(pod)
                    .flatten()
                    .unwrap_or_else(|| mapped("labels and annotations of the pod"));
                format!("{how}; one pull at a time uses it, and it is kept")
            }
            Effect::NewEip | Effect::NewEipObject => {
                let how = own
                    .then_some(pod)
                    .flatten()
                    .unwrap_or_else(|| mapped("labels and annotations of the pod"));
                format!("{how}; it goes with the pod")
            }
            Effect::NewEipDetail | Effect::Pod if own => format!("pod annotation `{}`", self.key),
            Effect::NewEipDetail | Effect::Pod => "a notice".to_owned(),
            Effect::Hosts => and("`hostAliases` of the pod, and first in the pull's own lookup"),
            Effect::Dns => and("`dnsConfig` of the pod, and the pull's own lookup"),
            Effect::AcrInstances | Effect::AcrServiceRole | Effect::AcrUserRole => {
                "logins where the operator has an identity at Alibaba Cloud and allows it, else a notice: see \
                 `acr.md`"
                    .to_owned()
            }
            Effect::None(why) => format!("a notice: {why}"),
        }
    }
}
