//! Every annotation of the three clouds that has a meaning on an ImageCache or on the pod that pulls for it: key,
//! dialect, form of the value, effect. Docs and tests come from this table, and what is missing in it is reported
//! to the user, so it is better complete than short.
//! Sources: ECI "ImageCache annotations" and "pod annotations"; Kingsoft KCI "self-built registries"; Tencent
//! TKE Serverless "annotations".

use crate::model::request::Dialect;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `host[:port]`, comma separated.
    Hosts,
    /// The same, or the word `all`.
    HostsOrAll,
    /// A number in these bounds.
    Number(u32, u32),
    /// `true` or `false`.
    Flag,
    /// `[region:]cri-...`, comma separated.
    Instances,
    /// The ARN of a RAM role.
    Role,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Not read here.
    Text,
}

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
    /// Password-free pulls: see `model::acr`.
    AcrInstances,
    AcrServiceRole,
    AcrUserRole,
    /// Known, and without effect here: the user is told.
    None,
}

#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub key: &'static str,
    pub dialect: Dialect,
    pub form: Form,
    pub effect: Effect,
    /// What the cloud means by it, as the end of "asks for ...".
    pub meaning: &'static str,
}

/// Keys with one of these prefixes that are no row are reported as unknown.
pub const PREFIXES: &[&str] =
    &["k8s.aliyun.com/", "k8s.ksyun.com/", "eks.tke.cloud.tencent.com/", crate::api::keys::OWN_PREFIX];

const fn row(key: &'static str, dialect: Dialect, form: Form, effect: Effect, meaning: &'static str) -> Row {
    Row { key, dialect, form, effect, meaning }
}

const fn eci(key: &'static str, meaning: &'static str) -> Row {
    row(key, Dialect::Eci, Form::Text, Effect::None, meaning)
}

const fn kci(key: &'static str, meaning: &'static str) -> Row {
    row(key, Dialect::Kci, Form::Text, Effect::None, meaning)
}

const fn tke(key: &'static str, meaning: &'static str) -> Row {
    row(key, Dialect::Tke, Form::Text, Effect::None, meaning)
}

const ARCHITECTURES: Form = Form::Word(&["amd64", "arm64"]);
const SYSTEMS: Form = Form::Word(&["linux", "windows"]);

/// Where two rows set one thing, the earlier row wins.
pub const TABLE: &[Row] = &[
    // ECI, on an ImageCache: how registries are reached.
    row(
        "k8s.aliyun.com/plain-http-registry",
        Dialect::Eci,
        Form::Hosts,
        Effect::PlainHttp,
        "plain HTTP for these registries",
    ),
    row(
        "k8s.aliyun.com/insecure-registry",
        Dialect::Eci,
        Form::Hosts,
        Effect::SkipVerify,
        "no certificate check for these registries",
    ),
    // ECI, on an ImageCache: the cache itself.
    row(
        "k8s.aliyun.com/imc-size",
        Dialect::Eci,
        Form::Number(20, 32768),
        Effect::Size,
        "a cache of this many GiB",
    ),
    row(
        "k8s.aliyun.com/imc-retention-days",
        Dialect::Eci,
        Form::Number(1, 65536),
        Effect::Retention,
        "expiry after this many days",
    ),
    row(
        "k8s.aliyun.com/imc-enable-reuse",
        Dialect::Eci,
        Form::Flag,
        Effect::Reuse,
        "layers that other caches have",
    ),
    row(
        "k8s.aliyun.com/eci-image-cache",
        Dialect::Eci,
        Form::Flag,
        Effect::Reuse,
        "layers that other caches have",
    ),
    row(
        "k8s.aliyun.com/auto-match-imagecache",
        Dialect::Eci,
        Form::Flag,
        Effect::Reuse,
        "layers that other caches have",
    ),
    row(
        "k8s.aliyun.com/imc-enable-flash",
        Dialect::Eci,
        Form::Flag,
        Effect::Flash,
        "readiness before the snapshot is made",
    ),
    row(
        "k8s.aliyun.com/imc-cpu-arch",
        Dialect::Eci,
        ARCHITECTURES,
        Effect::Architecture,
        "images for this architecture",
    ),
    row("k8s.aliyun.com/imc-os-type", Dialect::Eci, SYSTEMS, Effect::Os, "images for this operating system"),
    // ECI, on an ImageCache: the network and the identity of the pull.
    eci("k8s.aliyun.com/vswitch-ids", "a pull from these vSwitches"),
    eci("k8s.aliyun.com/security-group-id", "a pull in this security group"),
    eci("k8s.aliyun.com/resource-group-id", "a pull in this resource group"),
    row(
        "k8s.aliyun.com/acr-instance-ids",
        Dialect::Eci,
        Form::Instances,
        Effect::AcrInstances,
        "password-free pulls from these ACR instances",
    ),
    row(
        "k8s.aliyun.com/acr-instance-id",
        Dialect::Eci,
        Form::Instances,
        Effect::AcrInstances,
        "password-free pulls from this ACR instance",
    ),
    row(
        "k8s.aliyun.com/acr-service-arns",
        Dialect::Eci,
        Form::Role,
        Effect::AcrServiceRole,
        "password-free pulls with this RAM role",
    ),
    row(
        "k8s.aliyun.com/acr-user-arns",
        Dialect::Eci,
        Form::Role,
        Effect::AcrUserRole,
        "password-free pulls with the registry owner's RAM role",
    ),
    eci("k8s.aliyun.com/eip-instance-id", "a pull through this EIP"),
    row("k8s.aliyun.com/auto-create-eip", Dialect::Eci, Form::Flag, Effect::None, "a pull through a new EIP"),
    eci("k8s.aliyun.com/eip-bandwidth", "this bandwidth of a new EIP"),
    eci("k8s.aliyun.com/eip-internet-charge-type", "this charge type of a new EIP"),
    eci("k8s.aliyun.com/eip-isp", "this line type of a new EIP"),
    eci("k8s.aliyun.com/eip-common-bandwidth-package-id", "this bandwidth plan of a new EIP"),
    eci("k8s.aliyun.com/eip-public-ip-address-pool-id", "a new EIP from this pool"),
    // ECI, on pods: people copy them.
    eci("k8s.aliyun.com/eci-custom-hosts", "these host aliases for the pull"),
    eci("k8s.aliyun.com/eci-custom-dnsconfig", "this DNS for the pull"),
    eci("k8s.aliyun.com/eci-vswitch", "a pod in these vSwitches"),
    eci("k8s.aliyun.com/eci-security-group", "a pod in this security group"),
    eci("k8s.aliyun.com/eci-resource-group-id", "a pod in this resource group"),
    eci("k8s.aliyun.com/eci-eip-instanceid", "a pod with this EIP"),
    eci("k8s.aliyun.com/eci-with-eip", "a pod with a new EIP"),
    eci("k8s.aliyun.com/eci-use-specs", "a pod of one of these sizes"),
    eci("k8s.aliyun.com/eci-instance-family", "a pod on this instance family"),
    eci("k8s.aliyun.com/eci-instance-generation", "a pod on this instance generation"),
    eci("k8s.aliyun.com/eci-schedule-strategy", "this choice among vSwitches"),
    eci("k8s.aliyun.com/eci-spot-strategy", "a spot instance"),
    eci("k8s.aliyun.com/eci-spot-price-limit", "a spot instance at this price"),
    eci("k8s.aliyun.com/eci-spot-duration", "a spot instance for this long"),
    eci("k8s.aliyun.com/eci-spot-fallback", "another instance when no spot instance is free"),
    eci("k8s.aliyun.com/eci-ram-role-name", "a pod with this RAM role"),
    eci("k8s.aliyun.com/eci-extra-ephemeral-storage", "a pod with more ephemeral storage"),
    eci("k8s.aliyun.com/eci-ephemeral-storage-options", "these options of the pod's ephemeral storage"),
    eci("k8s.aliyun.com/eci-custom-tags", "these tags on the pod"),
    eci("k8s.aliyun.com/eci-fail-strategy", "this answer to failures of the pod"),
    eci("k8s.aliyun.com/eci-max-pending-minute", "this limit on a pod's waiting"),
    eci("k8s.aliyun.com/eci-auto-imc", "a match of pods with caches"),
    eci("k8s.aliyun.com/imc-perfect-match", "a match of all images of a pod"),
    eci("k8s.aliyun.com/imc-match-count-request", "a match of this many images of a pod"),
    eci("k8s.aliyun.com/eci-imc-id", "a pod from this cache"),
    eci("k8s.aliyun.com/eci-image-snapshot-id", "a pod from this cache"),
    // KCI, on pods.
    row(
        "k8s.ksyun.com/kci-http-registry",
        Dialect::Kci,
        Form::Hosts,
        Effect::PlainHttp,
        "plain HTTP for these registries",
    ),
    row(
        "k8s.ksyun.com/kci-insecure-registry",
        Dialect::Kci,
        Form::Hosts,
        Effect::SkipVerify,
        "no certificate check for these registries",
    ),
    kci("k8s.ksyun.com/kci-host-aliases", "these host aliases for the pull"),
    kci("k8s.ksyun.com/kci-dns-config", "this DNS for the pull"),
    kci("k8s.ksyun.com/kci-subnet-id", "a pull in this subnet"),
    kci("k8s.ksyun.com/kci-security-group-id", "a pull in this security group"),
    kci("k8s.ksyun.com/kci-kube-proxy-enabled", "a pod with kube-proxy"),
    // TKE, on pods and on its own ImageCache.
    row(
        "eks.tke.cloud.tencent.com/registry-http-endpoint",
        Dialect::Tke,
        Form::HostsOrAll,
        Effect::PlainHttp,
        "plain HTTP for these registries",
    ),
    row(
        "eks.tke.cloud.tencent.com/registry-insecure-skip-verify",
        Dialect::Tke,
        Form::HostsOrAll,
        Effect::SkipVerify,
        "no certificate check for these registries",
    ),
    tke("eks.tke.cloud.tencent.com/eip-attributes", "a pull through a new EIP"),
    tke("eks.tke.cloud.tencent.com/eip-id-list", "a pull through these EIPs"),
    tke("eks.tke.cloud.tencent.com/eip-claim-delete-policy", "an EIP that stays"),
    tke("eks.tke.cloud.tencent.com/security-group-id", "a pull in these security groups"),
    tke("eks.tke.cloud.tencent.com/subnet-id", "a pull in this subnet"),
    tke("eks.tke.cloud.tencent.com/resolv-conf", "this DNS for the pull"),
    tke("eks.tke.cloud.tencent.com/root-cbs-size", "a system disk of this size"),
    tke("eks.tke.cloud.tencent.com/use-image-cache", "a pod from a cache"),
    tke("eks.tke.cloud.tencent.com/image-cache-disk-type", "a cache disk of this type"),
    tke("eks.tke.cloud.tencent.com/image-cache-disk-size", "a cache disk of this size"),
    tke("eks.tke.cloud.tencent.com/image-cache-disk-retain-minute", "a cache disk that is kept for a while"),
    tke(
        "eks.tke.cloud.tencent.com/image-gc-high-threshold",
        "this start of the node's image garbage collection",
    ),
    tke(
        "eks.tke.cloud.tencent.com/image-gc-low-threshold",
        "this end of the node's image garbage collection",
    ),
    tke("eks.tke.cloud.tencent.com/cbs-reuse-key", "a disk of an earlier pod"),
    tke("eks.tke.cloud.tencent.com/reserve-sandbox-duration", "a sandbox that is kept for a while"),
    tke("eks.tke.cloud.tencent.com/spot-pod", "a spot instance"),
    tke("eks.tke.cloud.tencent.com/cpu", "a pod with this many CPUs"),
    tke("eks.tke.cloud.tencent.com/mem", "a pod with this much memory"),
    tke("eks.tke.cloud.tencent.com/cpu-type", "a pod on this CPU type"),
    tke("eks.tke.cloud.tencent.com/gpu-type", "a pod on this GPU type"),
    tke("eks.tke.cloud.tencent.com/role-name", "a pod with this CAM role"),
    tke("eks.tke.cloud.tencent.com/host-sysctls", "these kernel settings of the host"),
];
