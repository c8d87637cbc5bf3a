//! Snapshots of a cache's own volume: what was observed, and what follows from each part of it alone. The order of
//! steps is `plan::snapshot`'s.
//! Sources: Kubernetes, "Volume Snapshots", "Volume Snapshot Classes", "Storage Classes" (defaults);
//! kubernetes-csi/external-snapshotter, the comments of its v1 types.

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use super::quantity::bytes;
use super::{class::Class, facts::JobFact, judge::CacheRequest, plan::JobId};
use crate::api::image_cache::{LedgerFailure, SnapshotStatus};

/// What the operator wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The VolumeSnapshotClass; unset is the cluster's default for the driver.
    pub class: Option<String>,
    /// The StorageClass of the volumes that snapshots are taken of; unset is the cluster's default.
    pub storage_class: Option<String>,
}

impl Wanted {
    /// As it is typed: an empty name is the default.
    pub fn new(class: String, storage_class: Option<String>) -> Self {
        let named = |name: String| (!name.is_empty()).then_some(name);
        Self { class: named(class), storage_class: storage_class.and_then(named) }
    }
}

/// Everything that was observed for one cache.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    pub api: Api,
    pub volumes: Vec<VolumeFact>,
    pub exports: Vec<JobFact>,
    pub snapshots: Vec<SnapshotFact>,
    /// The contents that were asked for, by name; `None` is not there.
    pub contents: BTreeMap<String, Option<ContentFact>>,
    /// The classes of the cluster, if they were asked for.
    pub classes: Option<Classes>,
    /// Other caches whose export runs.
    pub busy: u32,
    /// Why the last step was refused (a quota, an admission webhook).
    pub refused: Option<String>,
}

/// Whether the cluster knows snapshots at all, and lets us see them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Api {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    Absent,
    Forbidden(String),
    Present,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeFact {
    pub id: JobId,
    pub run: u64,
    pub created: Timestamp,
    pub deleting: bool,
    /// What keeps it, once it is being deleted.
    pub finalizers: Vec<String>,
    /// `Bound`, `Pending` or `Lost`.
    pub phase: String,
    /// Bytes it was asked with.
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFact {
    pub id: JobId,
    pub run: u64,
    pub created: Timestamp,
    pub deleting: bool,
    /// What keeps it, once it is being deleted.
    pub finalizers: Vec<String>,
    pub class: Option<String>,
    /// The content it says that it is bound to.
    pub content: Option<String>,
    pub ready: bool,
    pub restore_bytes: Option<u64>,
    /// Advisory: it may clear.
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentFact {
    /// The snapshot it says that it is bound to.
    pub snapshot_uid: String,
    pub snapshot_name: String,
    pub snapshot_namespace: String,
    pub deletion_policy: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    pub snapshot: Vec<SnapshotClass>,
    pub storage: Vec<StorageClass>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotClass {
    pub name: String,
    pub driver: String,
    pub default: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageClass {
    pub name: String,
    pub provisioner: String,
    pub default: bool,
    pub created: Timestamp,
}

/// Which classes are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub class: String,
    pub storage_class: String,
}

/// Why no snapshot can be taken, until somebody changes the cluster: one word, and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub reason: &'static str,
    pub message: String,
}

impl Classes {
    pub fn choose(&self, wanted: &Wanted) -> Result<Choice, Problem> {
        let storage = self.storage_class(wanted.storage_class.as_deref())?;
        let class = self.snapshot_class(wanted.class.as_deref(), storage)?;
        if class.driver == storage.provisioner {
            return Ok(Choice { class: class.name.clone(), storage_class: storage.name.clone() });
        }
        let message = format!(
            "VolumeSnapshotClass {} is of {}, and volumes of StorageClass {} are made by {}: name classes of one driver",
            class.name, class.driver, storage.name, storage.provisioner
        );
        Err(Problem { reason: "WrongDriver", message })
    }

    fn storage_class(&self, name: Option<&str>) -> Result<&StorageClass, Problem> {
        let missing = |message| Problem { reason: "NoStorageClass", message };
        if let Some(name) = name {
            let there = self.storage.iter().find(|class| class.name == name);
            return there.ok_or_else(|| {
                missing(format!(
                    "there is no StorageClass {name}: make it, or name another one by --snapshot-storage-class"
                ))
            });
        }
        // Kubernetes takes the newest of several defaults.
        let defaults = self.storage.iter().filter(|class| class.default);
        defaults.max_by_key(|class| (class.created, std::cmp::Reverse(&class.name))).ok_or_else(|| {
            missing(
                "the cluster has no default StorageClass: name one by --snapshot-storage-class".to_owned(),
            )
        })
    }

    fn snapshot_class(&self, name: Option<&str>, storage: &StorageClass) -> Result<&SnapshotClass, Problem> {
        let missing = |message| Problem { reason: "NoSnapshotClass", message };
        if let Some(name) = name {
            let there = self.snapshot.iter().find(|class| class.name == name);
            return there.ok_or_else(|| {
                missing(format!(
                    "there is no VolumeSnapshotClass {name}: make it, or name another one by --snapshot-class"
                ))
            });
        }
        let driver = &storage.provisioner;
        let mut defaults = self.snapshot.iter().filter(|class| class.default && class.driver == *driver);
        match (defaults.next(), defaults.next()) {
            (Some(class), None) => Ok(class),
            (Some(one), Some(two)) => Err(Problem {
                reason: "TwoDefaultClasses",
                message: format!(
                    "{} and {} are both default VolumeSnapshotClasses of {driver}: leave one of them, or name one by \
                     --snapshot-class",
                    one.name, two.name
                ),
            }),
            _ => Err(missing(format!(
                "{driver}, which makes volumes of StorageClass {}, has no default VolumeSnapshotClass: name one by \
                 --snapshot-class",
                storage.name
            ))),
        }
    }
}

const GIB: u64 = 1 << 30;

/// Bytes to ask a volume with, whole GiB (store.md, "Export to a cache's own volume"). File systems keep a share for
/// themselves; where that turned out to be too little, once more half of it.
pub fn volume_bytes(request: &CacheRequest, logical: u64, failure: Option<&LedgerFailure>) -> u64 {
    let needed = request.size_limit.max(logical);
    let wanted = needed.saturating_add(needed / 10).saturating_add(GIB);
    let was_full = failure.is_some_and(|failure| failure.class == Class::NoSpace.as_str());
    let wanted = if was_full { wanted.saturating_add(wanted / 2) } else { wanted };
    wanted.div_ceil(GIB).saturating_mul(GIB)
}

impl SnapshotFact {
    /// Both point at each other: a snapshot may name any content, and a content any snapshot.
    pub fn is_bound_by(&self, content: &ContentFact, namespace: &str) -> bool {
        content.snapshot_uid == self.id.uid
            && content.snapshot_name == self.id.name
            && content.snapshot_namespace == namespace
    }

    /// `before` is what was told of it, with the policy that was read once.
    pub fn told(
        &self,
        namespace: &str,
        content: Option<&ContentFact>,
        before: Option<&SnapshotStatus>,
    ) -> SnapshotStatus {
        let same = before.filter(|b| b.name == self.id.name && b.content_name == self.content);
        SnapshotStatus {
            name: self.id.name.clone(),
            namespace: namespace.to_owned(),
            content_name: self.content.clone(),
            class: self.class.clone(),
            size: self.restore_bytes.and_then(|bytes| i64::try_from(bytes).ok()),
            ready: self.ready && !self.deleting,
            run: i64::try_from(self.run).unwrap_or(i64::MAX),
            deletion_policy: content
                .map(|content| content.deletion_policy.clone())
                .or_else(|| same.and_then(|same| same.deletion_policy.clone())),
        }
    }
}

/// What is said of a cache's snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// That of the content that is there is ready.
    pub taken: bool,
    pub reason: &'static str,
    pub message: String,
    pub warning: bool,
    /// How far the whole cache is because of it.
    pub percent: Option<u8>,
    /// What keeps it, where readiness waits for it.
    pub failure: Option<Class>,
    /// It does not look as if it would pass by itself.
    pub stalled: bool,
}

impl Said {
    pub fn working(reason: &'static str, percent: u8, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            taken: false,
            reason,
            message,
            warning: false,
            percent: Some(percent),
            failure: None,
            stalled: false,
        }
    }

    pub fn trouble(reason: &'static str, percent: u8, message: impl Into<String>, stalled: bool) -> Self {
        Self {
            warning: true,
            failure: Some(Class::Snapshot),
            stalled,
            ..Self::working(reason, percent, message)
        }
    }

    /// Nothing is waited for.
    pub fn off(reason: &'static str, message: impl Into<String>) -> Self {
        Self { percent: None, warning: true, ..Self::working(reason, 100, message) }
    }
}
