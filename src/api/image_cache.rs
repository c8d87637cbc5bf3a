//! The ImageCache object: `eci.alibabacloud.com/v1`, cluster-scoped, compatible with the two schemas ECI
//! publishes. Bounds are in the schema; the grammar of images is judged by the controller, so that an object
//! with a bad name exists and says why. Comments here are what `kubectl explain` prints.

#![allow(unreachable_pub)] // the derive prints `pub` items in a private module
#![allow(clippy::duplicated_attributes)] // columns repeat their keys

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "eci.alibabacloud.com",
    version = "v1",
    kind = "ImageCache",
    plural = "imagecaches",
    singular = "imagecache",
    shortname = "ic",
    shortname = "imc",
    category = "all",
    status = "ImageCacheStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A list of container images that is kept ready: pulled once, verified, and served to the nodes.",
    label("imagecaches.eci.alibabacloud.com/provided-by", "imagecache"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "CacheId", type_ = "string", json_path = ".status.imageCacheId"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason", priority = 1),
    printcolumn(name = "Size", type_ = "integer", json_path = ".status.size", priority = 1),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expireDateTime", priority = 1),
    printcolumn(name = "Images", type_ = "string", json_path = ".spec.images", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
/// What to keep ready, and for how long.
pub struct ImageCacheSpec {
    /// The images to keep ready, 1 to 20, each as a pod would name it, such as nginx:1.27 or reg.example.com:5000/team/app:2.
    #[schemars(length(min = 1, max = 20), inner(length(min = 1, max = 512)))]
    #[x_kube(validation = Rule::new("self.size() >= 1 && self.size() <= 20")
        .message("images: list at least one image and at most 20; make a second ImageCache for more"))]
    pub images: Vec<String>,

    /// Up to 10 pull secrets of any namespace, each as namespace:name (namespace/name is accepted too).
    /// A secret is used for the registries it has entries for, and only for those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(max = 317)))]
    #[x_kube(validation = Rule::new(
            "self.all(s, s.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?[:/][a-z0-9]([-a-z0-9.]*[a-z0-9])?$'))"
        )
        .message("imagePullSecrets: write each secret as namespace:name, for example default:my-registry"))]
    pub image_pull_secrets: Vec<String>,

    /// How much the cache may hold, in GiB, 20 to 32768. Without it the operator's default (20) counts.
    /// A pull that needs more fails before a byte is moved and says how much it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 20, max = 32768))]
    #[x_kube(validation = Rule::new("self >= 20 && self <= 32768")
        .message("imageCacheSize: write a number of GiB from 20 to 32768"))]
    pub image_cache_size: Option<i32>,

    /// How many days the cache is kept after it became ready, 1 to 65536. Without it the cache never expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65536))]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 65536")
        .message("retentionDays: write a number of days from 1 to 65536, or leave it out to keep the cache"))]
    pub retention_days: Option<i32>,

    /// The platforms to pull, each as os/architecture[/variant], for example linux/arm64. Without it those of the
    /// cluster's nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 98)))]
    #[x_kube(validation = Rule::new(
            "self.all(p, p.matches('^[A-Za-z0-9._-]{1,32}(/[A-Za-z0-9._-]{1,32}){1,2}$'))"
        )
        .message("platforms: write each platform as os/architecture, for example linux/arm64"))]
    pub platforms: Vec<String>,

    /// Keep what refers to the images too: their signatures, attestations and SBOMs, as the registry's referrers API
    /// or its fallback tag lists them, and cosign's tags (.sig, .att, .sbom). The mirror serves them like the images.
    /// An image without any is no failure. Without this field nothing but the images is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referrers: Option<bool>,

    /// How often the registries are asked anew what the tags mean, at least: a number and m, h or d, from 5m, such as
    /// 12h or 7d. Only what changed is pulled, and the cache stays ready meanwhile. Without it tags are resolved when the
    /// object is made or edited, and on request (annotation imagecaches.eci.alibabacloud.com/refresh).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 5))]
    #[x_kube(validation = Rule::new("self.matches('^(([5-9]|[1-9][0-9]{1,3})m|[1-9][0-9]{0,3}h|[1-9][0-9]{0,2}d)$')")
        .message("refreshInterval: write a number and m, h or d, from 5m, for example 12h or 7d"))]
    pub refresh_interval: Option<String>,

    /// Who may pull the cache's private images from the mirror. Images that everybody may have are always served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serve: Option<Serve>,
}

/// Who may pull private images from the mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Serve {
    Public,
    Cluster,
}

/// What the controller found and did. Written by the controller only.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = {"observedGeneration": -1}))]
pub struct ImageCacheStatus {
    /// Pending, Preparing, Creating, Ready, Failed, Updating, UpdateFailed or Expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,

    /// Why the cache is not ready: one word, the same as in the Ready condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,

    /// How much of the bytes is there, as a percentage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,

    /// The id of this cache. It stays the same for as long as the object exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_cache_id: Option<String>,

    /// When the controller first saw the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,

    /// When phase, reason or content last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated_time: Option<Time>,

    /// When the cache expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_date_time: Option<Time>,

    /// The generation of the object that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready, Available, Reconciling and Stalled; Fresh: whether the registries could last be asked what the tags mean;
    /// where snapshots are taken, Snapshot too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// What became of each image, in the order of the spec. While an edit is not complete, images that only the old
    /// content has follow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageStatus>,

    /// Bytes of all images together, what they share counted once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,

    /// Settings that could not be honoured, and other things worth knowing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,

    /// The newest 50 events of making this cache.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<CacheEvent>,

    /// The newest snapshot of the cache that can be restored, or the one that is being taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotStatus>,

    /// The controller's memory. Not for use by others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<Ledger>,
}

/// What became of one image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageStatus {
    /// The full name of the image.
    pub name: String,
    /// The digest the name meant when it was pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Bytes of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// Bytes that came over the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pulled: Option<i64>,
    /// Bytes that were there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reused: Option<i64>,
    /// By which right they were used without fetching them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reused_by: Option<ReusedBytes>,
    /// Why the image could not be pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When the registry last said that the name means this digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Time>,
    /// What the name meant before, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<PreviousDigest>,
}

/// What the name of an image meant before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PreviousDigest {
    /// The digest.
    pub digest: String,
    /// When it was found to be replaced.
    pub until: Time,
}

/// Reused bytes, by the right that allowed it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReusedBytes {
    /// This cache held them from the same repository with the same credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<i64>,
    /// They belong to an image that is proved to be public.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<i64>,
    /// The registry answered that the cache's credentials may have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<i64>,
    /// Another image of this cache brought them in the same pull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_pull: Option<i64>,
}

/// Something that happened while the cache was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheEvent {
    /// The image or the cache it is about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Normal or Warning.
    #[serde(rename = "type", default, skip_serializing_if = "String::is_empty")]
    pub type_: String,
    /// One word for programs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Time>,
}

/// A snapshot of the cache's own volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotStatus {
    /// The VolumeSnapshot.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The VolumeSnapshotContent it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_name: Option<String>,
    /// The VolumeSnapshotClass it was taken with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Bytes that a volume made from it needs at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// Whether volumes can be made from it.
    pub ready: bool,
    /// The run whose content it holds.
    pub run: i64,
    /// Delete or Retain: what becomes of the content when the cache goes. As it was when the snapshot was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<String>,
}

/// All that decisions remember. Everything else of status is output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// The newest run: written before its Job is made.
    pub run: i64,
    /// Hash of what that run was opened for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub inputs_hash: String,
    /// Whether that run is under way: neither credited nor failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
    /// Versions of the pull secrets that run was given, as a hash.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub secrets: String,
    /// The content that is credited: present means complete, durable and verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<LedgerRoot>,
    /// The id of the store that content is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_id: Option<String>,
    /// The success that retention counts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Time>,
    /// Whether that success answered the last edit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answered: bool,
    /// The end of its retention that was reached: the object is kept without content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired: Option<Time>,
    /// The failures since the last success or edit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<LedgerFailure>,
    /// The first run for what is asked now: earlier ones do not answer it.
    #[serde(default)]
    pub asked: i64,
    /// The value of the refresh annotation that is answered when that run succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_refresh: Option<String>,
    /// The value of the refresh annotation that was answered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_refresh: Option<String>,
    /// The refresh of the content that is under way, or that failed and is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<LedgerRefresh>,
    /// Since when a pull secret is missing or may not be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets_missing: Option<Time>,
    /// The times that the store lost the content, one soon after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<LedgerLoss>,
    /// What is known of snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<LedgerSnapshot>,
}

/// What decisions remember of snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerSnapshot {
    /// The run that is complete, and not ready before its snapshot is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaited: Option<i64>,
    /// Whether there was older content when that run was credited, which is served meanwhile.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub update: bool,
    /// Hash of the content that was credited last: what a snapshot has to hold.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub wanted: String,
    /// The run that brought it. Later ones found the same, and what is made from it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// The newest snapshot that was ready and bound both ways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<LedgerTaken>,
    /// The failures of the newest run's export since its last success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<LedgerFailure>,
    /// UID of the export Job whose failure was counted last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub counted: String,
}

/// A snapshot that was ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerTaken {
    /// The run whose content it holds.
    pub run: i64,
    /// UID of the VolumeSnapshot.
    pub uid: String,
    /// The VolumeSnapshotContent that it was bound to.
    pub content: String,
    /// Hash of what it holds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub held: String,
}

/// A streak of losses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerLoss {
    /// How many there were.
    pub times: i32,
    /// When the last was seen.
    pub last: Time,
}

/// A complete pull, as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerRoot {
    /// The run that made it.
    pub run: i64,
    /// Digest of the root file.
    pub digest: String,
    /// When it was credited.
    pub at: Time,
    /// Hash of what it was pulled for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub inputs: String,
    /// When the registries last said what its names mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Time>,
    /// The oldest of the proofs that images of it are public, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proved: Option<Time>,
    /// When a later edit was taken back: its runs may have left roots, which the store keeps until a newer one is
    /// credited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_back: Option<Time>,
    /// The store the mirror spoke of at that time, if it was another one: then the mirror is behind, or on the wrong
    /// volume, and that alone does not mean that content was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror_store_id: Option<String>,
}

/// A refresh: the registries are asked anew, and the content stays until they have answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerRefresh {
    /// The newest run that was opened for it.
    pub run: i64,
    /// The value of the refresh annotation that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Whether only the proofs that images are public are renewed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proofs: bool,
    /// The failures since the registries last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<LedgerFailure>,
}

/// A streak of failures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerFailure {
    /// The run that failed last.
    pub run: i64,
    /// When the first of the streak failed.
    pub first: Time,
    /// When the last of the streak failed.
    pub last: Time,
    /// How many failed.
    pub attempts: i32,
    /// The class of the last.
    pub class: String,
    /// What was said of the last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Whether one of them was permanent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub permanent: bool,
    /// The bytes the cache could hold when the images turned out to be larger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<i64>,
}

/// The definition as it is installed.
pub fn crd() -> CustomResourceDefinition {
    ImageCache::crd()
}

/// The definition as `crds/imagecaches.yaml` holds it.
pub fn crd_yaml() -> Result<String, serde_saphyr::ser::Error> {
    serde_saphyr::to_string(&crd())
}
