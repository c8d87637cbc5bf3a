//! Every annotation of the three clouds that has a meaning on an ImageCache or on the pod that pulls for it: key,
//! dialect, form of the value, effect, and the page that says so. The parser, docs/annotations.md and the tests are
//! made from this table, and what is missing in it is not understood, so it is better complete than short.

use super::{
    effect::Effect,
    form::Form,
    pages::{
        ECI_2019, ECI_CACHE, ECI_CACHE_2026, ECI_CRD, ECI_DNS, ECI_HOSTS, ECI_KNATIVE, ECI_MATCH, ECI_POD,
        KCI, KCI_PROVIDER, Page, TKE_CACHE, TKE_FAQ, TKE_POD,
    },
};
use crate::model::request::Dialect;

#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub key: &'static str,
    pub dialect: Dialect,
    pub form: Form,
    pub effect: Effect,
    /// What the cloud means by it, as the end of "asks for ...".
    pub meaning: &'static str,
    pub page: &'static Page,
}

/// The clouds' prefixes. Other tools use them too, so a key that resembles none of the table is left alone.
pub const PREFIXES: &[&str] = &["k8s.aliyun.com/", "k8s.ksyun.com/", "eks.tke.cloud.tencent.com/"];

const fn row(
    dialect: Dialect,
    key: &'static str,
    form: Form,
    effect: Effect,
    meaning: &'static str,
    page: &'static Page,
) -> Row {
    Row { key, dialect, form, effect, meaning, page }
}

const ARCHITECTURES: Form = Form::Word(&["amd64", "arm64"]);
const SYSTEMS: Form = Form::Word(&["linux", "windows"]);

const OF_PODS: &str = "it is a setting of pods that use images, not of pulls";
const NO_ROLE: &str = "pull pods are the operator's, and a cache gives them no rights";

/// Where two rows set one thing, the earlier row wins.
#[rustfmt::skip] // a table: one line a row
pub const TABLE: &[Row] = &[
    // ECI, on an ImageCache: how registries are reached.
    row(Dialect::Eci, "k8s.aliyun.com/plain-http-registry", Form::Hosts, Effect::PlainHttp, "plain HTTP for these registries", &ECI_CACHE),
    row(Dialect::Eci, "k8s.aliyun.com/insecure-registry", Form::Hosts, Effect::SkipVerify, "no certificate check for these registries", &ECI_CACHE),
    // ECI, on an ImageCache: the cache itself.
    row(Dialect::Eci, "k8s.aliyun.com/imc-size", Form::Number(20, 32768), Effect::Size, "a cache of this many GiB", &ECI_CACHE),
    row(Dialect::Eci, "k8s.aliyun.com/imc-retention-days", Form::Number(1, 65536), Effect::Retention, "expiry after this many days", &ECI_CACHE),
    row(Dialect::Eci, "k8s.aliyun.com/imc-enable-reuse", Form::Flag, Effect::Reuse, "layers that other caches have", &ECI_CACHE),
    row(Dialect::Eci, "k8s.aliyun.com/eci-image-cache", Form::Flag, Effect::Reuse, "layers that other caches have", &ECI_KNATIVE),
    row(Dialect::Eci, "k8s.aliyun.com/auto-match-imagecache", Form::Flag, Effect::Reuse, "layers that other caches have", &ECI_2019),
    row(Dialect::Eci, "k8s.aliyun.com/imc-enable-flash", Form::Flag, Effect::Flash, "readiness before the snapshot is made", &ECI_CACHE),
    row(Dialect::Eci, "k8s.aliyun.com/imc-cpu-arch", ARCHITECTURES, Effect::Architecture, "images for this architecture", &ECI_CACHE_2026),
    row(Dialect::Eci, "k8s.aliyun.com/imc-os-type", SYSTEMS, Effect::Os, "images for this operating system", &ECI_CACHE_2026),
    // ECI, on an ImageCache: the network and the identity of the pull.
    row(Dialect::Eci, "k8s.aliyun.com/vswitch-ids", Form::Ids("vsw-", 10), Effect::Subnets, "a pull from these vSwitches", &ECI_CACHE),
    row(Dialect::Eci, "k8s.aliyun.com/security-group-id", Form::Ids("sg-", 1), Effect::SecurityGroups, "a pull in this security group", &ECI_CACHE),
    row(Dialect::Eci, "k8s.aliyun.com/resource-group-id", Form::Ids("rg-", 1), Effect::ResourceGroup, "a pull in this resource group", &ECI_CACHE),
    row(Dialect::Eci, "k8s.aliyun.com/acr-instance-ids", Form::Instances, Effect::AcrInstances, "password-free pulls from these ACR instances", &ECI_CACHE),
    row(Dialect::Eci, "k8s.aliyun.com/acr-instance-id", Form::Instances, Effect::AcrInstances, "password-free pulls from this ACR instance", &ECI_CACHE),
    row(Dialect::Eci, "k8s.aliyun.com/acr-service-arns", Form::Role, Effect::AcrServiceRole, "password-free pulls with this RAM role", &ECI_CACHE),
    row(Dialect::Eci, "k8s.aliyun.com/acr-user-arns", Form::Role, Effect::AcrUserRole, "password-free pulls with the registry owner's RAM role", &ECI_CACHE),
    row(Dialect::Eci, "k8s.aliyun.com/eip-instance-id", Form::Ids("eip-", 1), Effect::ExistingEip, "a pull through this EIP", &ECI_CACHE),
    row(Dialect::Eci, "k8s.aliyun.com/auto-create-eip", Form::Flag, Effect::NewEip, "a pull through a new EIP", &ECI_CACHE),
    row(Dialect::Eci, "k8s.aliyun.com/eip-bandwidth", Form::Number(1, 1000), Effect::NewEipDetail, "this bandwidth of a new EIP, in Mbit/s", &ECI_CACHE),
    row(Dialect::Eci, "k8s.aliyun.com/eip-internet-charge-type", Form::Word(&["PayByBandwidth", "PayByTraffic"]), Effect::NewEipDetail, "this charge type of a new EIP", &ECI_CACHE),
    row(Dialect::Eci, "k8s.aliyun.com/eip-isp", Form::Word(&["BGP", "BGP_PRO"]), Effect::NewEipDetail, "this line type of a new EIP", &ECI_CACHE),
    row(Dialect::Eci, "k8s.aliyun.com/eip-common-bandwidth-package-id", Form::Ids("cbwp-", 1), Effect::NewEipDetail, "this bandwidth plan of a new EIP", &ECI_CACHE),
    row(Dialect::Eci, "k8s.aliyun.com/eip-public-ip-address-pool-id", Form::Ids("", 1), Effect::NewEipDetail, "a new EIP from this pool", &ECI_POD),
    // ECI, on pods: people copy them.
    row(Dialect::Eci, "k8s.aliyun.com/eci-custom-hosts", Form::EciHosts, Effect::Hosts, "these host aliases for the pull", &ECI_HOSTS),
    row(Dialect::Eci, "k8s.aliyun.com/eci-custom-dnsconfig", Form::EciDns, Effect::Dns, "these name servers for the pull", &ECI_DNS),
    row(Dialect::Eci, "k8s.aliyun.com/eci-vswitch", Form::Ids("vsw-", 10), Effect::Subnets, "a pull from these vSwitches", &ECI_POD),
    row(Dialect::Eci, "k8s.aliyun.com/eci-security-group", Form::Ids("sg-", 5), Effect::SecurityGroups, "a pull in these security groups", &ECI_POD),
    row(Dialect::Eci, "k8s.aliyun.com/eci-resource-group-id", Form::Ids("rg-", 1), Effect::ResourceGroup, "a pull in this resource group", &ECI_POD),
    row(Dialect::Eci, "k8s.aliyun.com/eci-eip-instanceid", Form::Ids("eip-", 1), Effect::ExistingEip, "a pull through this EIP", &ECI_POD),
    row(Dialect::Eci, "k8s.aliyun.com/eci-with-eip", Form::Flag, Effect::NewEip, "a pull through a new EIP", &ECI_POD),
    row(Dialect::Eci, "k8s.aliyun.com/eci-use-specs", Form::Words(5), Effect::Pod, "a pod of one of these sizes", &ECI_POD),
    row(Dialect::Eci, "k8s.aliyun.com/eci-instance-family", Form::Words(10), Effect::Pod, "a pod on this instance family", &ECI_POD),
    row(Dialect::Eci, "k8s.aliyun.com/eci-instance-generation", Form::Words(10), Effect::Pod, "a pod on this instance generation", &ECI_POD),
    row(Dialect::Eci, "k8s.aliyun.com/eci-schedule-strategy", Form::Word(&["VSwitchOrdered", "VSwitchRandom"]), Effect::Pod, "this choice among vSwitches", &ECI_POD),
    row(Dialect::Eci, "k8s.aliyun.com/eci-spot-strategy", Form::Words(1), Effect::Pod, "a spot instance", &ECI_POD),
    row(Dialect::Eci, "k8s.aliyun.com/eci-spot-price-limit", Form::Words(1), Effect::Pod, "a spot instance at this price", &ECI_POD),
    row(Dialect::Eci, "k8s.aliyun.com/eci-spot-duration", Form::Words(1), Effect::Pod, "a spot instance for this long", &ECI_POD),
    row(Dialect::Eci, "k8s.aliyun.com/eci-spot-fallback", Form::Words(1), Effect::Pod, "another instance when no spot instance is free", &ECI_POD),
    row(Dialect::Eci, "k8s.aliyun.com/eci-extra-ephemeral-storage", Form::Gib(1, 32768), Effect::Pod, "a pod with more ephemeral storage", &ECI_POD),
    row(Dialect::Eci, "k8s.aliyun.com/eci-ephemeral-storage-options", Form::Object, Effect::Pod, "these options of the pod's ephemeral storage", &ECI_POD),
    row(Dialect::Eci, "k8s.aliyun.com/eci-custom-tags", Form::Words(3), Effect::Pod, "these tags on the pod", &ECI_POD),
    row(Dialect::Eci, "k8s.aliyun.com/eci-fail-strategy", Form::Word(&["fail-back", "fail-over", "fail-fast"]), Effect::Pod, "this answer to failures of the pod", &ECI_POD),
    row(Dialect::Eci, "k8s.aliyun.com/eci-max-pending-minute", Form::Number(10, 1440), Effect::Pod, "this limit on a pod's waiting", &ECI_POD),
    row(Dialect::Eci, "k8s.aliyun.com/eci-ram-role-name", Form::Text, Effect::None(NO_ROLE), "a pod with this RAM role", &ECI_POD),
    row(Dialect::Eci, "k8s.aliyun.com/eci-auto-imc", Form::Text, Effect::None(OF_PODS), "a match of pods with caches", &ECI_MATCH),
    row(Dialect::Eci, "k8s.aliyun.com/imc-perfect-match", Form::Text, Effect::None(OF_PODS), "a match of all images of a pod", &ECI_MATCH),
    row(Dialect::Eci, "k8s.aliyun.com/imc-match-count-request", Form::Text, Effect::None(OF_PODS), "a match of this many images of a pod", &ECI_MATCH),
    row(Dialect::Eci, "k8s.aliyun.com/eci-imc-id", Form::Text, Effect::None(OF_PODS), "a pod from this cache", &ECI_MATCH),
    row(Dialect::Eci, "k8s.aliyun.com/eci-image-snapshot-id", Form::Text, Effect::None(OF_PODS), "a pod from this cache", &ECI_CRD),
    // KCI, on pods.
    row(Dialect::Kci, "k8s.ksyun.com/kci-http-registry", Form::Hosts, Effect::PlainHttp, "plain HTTP for these registries", &KCI),
    row(Dialect::Kci, "k8s.ksyun.com/kci-insecure-registry", Form::Hosts, Effect::SkipVerify, "no certificate check for these registries", &KCI),
    row(Dialect::Kci, "k8s.ksyun.com/kci-host-aliases", Form::PodHosts, Effect::Hosts, "these host aliases for the pull", &KCI),
    row(Dialect::Kci, "k8s.ksyun.com/kci-dns-config", Form::PodDns, Effect::Dns, "these name servers for the pull", &KCI),
    row(Dialect::Kci, "k8s.ksyun.com/kci-subnet-id", Form::Ids("", 1), Effect::Subnets, "a pull in this subnet", &KCI_PROVIDER),
    row(Dialect::Kci, "k8s.ksyun.com/kci-security-group-id", Form::Ids("", 5), Effect::SecurityGroups, "a pull in this security group", &KCI_PROVIDER),
    row(Dialect::Kci, "k8s.ksyun.com/kci-kube-proxy-enabled", Form::Flag, Effect::Pod, "a pod with kube-proxy", &KCI_PROVIDER),
    // TKE, on pods and on its own ImageCache.
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/registry-http-endpoint", Form::HostsOrAll, Effect::PlainHttp, "plain HTTP for these registries", &TKE_FAQ),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/registry-insecure-skip-verify", Form::HostsOrAll, Effect::SkipVerify, "no certificate check for these registries", &TKE_FAQ),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/eip-id-list", Form::Ids("eip-", 10), Effect::ExistingEip, "a pull through these EIPs", &TKE_POD),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/eip-attributes", Form::Object, Effect::NewEipObject, "a pull through a new EIP", &TKE_CACHE),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/eip-claim-delete-policy", Form::Word(&["Never"]), Effect::NewEipDetail, "a new EIP that stays", &TKE_POD),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/security-group-id", Form::Ids("sg-", 5), Effect::SecurityGroups, "a pull in these security groups", &TKE_POD),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/subnet-id", Form::Ids("subnet-", 1), Effect::Subnets, "a pull in this subnet", &TKE_POD),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/resolv-conf", Form::ResolvConf, Effect::Dns, "these name servers for the pull", &TKE_POD),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/root-cbs-size", Form::Number(20, 32768), Effect::Pod, "a system disk of this many GB", &TKE_POD),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/spot-pod", Form::Flag, Effect::Pod, "a spot instance", &TKE_POD),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/cpu", Form::Words(1), Effect::Pod, "a pod with this many CPUs", &TKE_POD),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/mem", Form::Words(1), Effect::Pod, "a pod with this much memory", &TKE_POD),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/cpu-type", Form::Words(10), Effect::Pod, "a pod on one of these CPU types", &TKE_POD),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/gpu-type", Form::Text, Effect::None(OF_PODS), "a pod on this GPU type", &TKE_POD),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/use-image-cache", Form::Text, Effect::None(OF_PODS), "a pod from a cache", &TKE_POD),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/image-cache-disk-type", Form::Text, Effect::None(OF_PODS), "a cache disk of this type", &TKE_POD),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/image-cache-disk-size", Form::Text, Effect::None(OF_PODS), "a cache disk of this size", &TKE_POD),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/image-cache-disk-retain-minute", Form::Text, Effect::None(OF_PODS), "a cache disk that is kept for a while", &TKE_POD),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/image-gc-high-threshold", Form::Text, Effect::None(OF_PODS), "this start of the node's image garbage collection", &TKE_POD),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/image-gc-low-threshold", Form::Text, Effect::None(OF_PODS), "this end of the node's image garbage collection", &TKE_POD),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/cbs-reuse-key", Form::Text, Effect::None(OF_PODS), "a disk of an earlier pod", &TKE_POD),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/reserve-sandbox-duration", Form::Text, Effect::None(OF_PODS), "a sandbox that is kept for a while", &TKE_POD),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/role-name", Form::Text, Effect::None(NO_ROLE), "a pod with this CAM role", &TKE_POD),
    row(Dialect::Tke, "eks.tke.cloud.tencent.com/host-sysctls", Form::Text, Effect::None(NO_ROLE), "these kernel settings of the host", &TKE_POD),
];
