//! What a plan holds: intents, the wanted status, and when to look again.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use super::{acr, judge::SecretName, pod::PodShape, reference::RegistryHost, request::PullRequest};
use crate::api::ImageCacheStatus;

/// Carried out in this order: status (with the object's resourceVersion, and only if it differs), then the
/// actions, then the events. If the status is refused, nothing else is done and the object is read again.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// The whole wanted status.
    pub status: ImageCacheStatus,
    /// New ones only.
    pub events: Vec<Event>,
    pub again: Again,
}

/// Intents; `render` makes objects of them. Each may be repeated.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make the request Secret, the credentials Secret and the Job of this run, in this order.
    StartRun(Box<StartRun>),
    /// Write the credentials Secret of the live Job again: the pull secrets changed, or a login runs out.
    RenewCredentials {
        run: u64,
        secrets: Vec<SecretName>,
        hosts: BTreeSet<RegistryHost>,
        logins: acr::Logins,
    },
    /// Remove both Secrets of the run, then its Job with its pod. The Job goes last: it is what is seen.
    RemoveRun { run: u64, job: JobId },
    /// Remove both Secrets of a run that was given up before its Job was seen. Should that be missed, they go when the
    /// next run starts, or with the object.
    RemoveSecrets { run: u64 },
    /// Delete the ImageCache after a live read.
    DeleteObject(DeleteObject),
    /// A step towards a snapshot of the cache's own volume.
    Snapshot(SnapshotStep),
}

/// Carried out only on the object as it is: a view that is behind would remove what is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotStep {
    MakeVolume {
        run: u64,
        bytes: u64,
        storage_class: String,
    },
    /// Make the Job that fills the volume with this root.
    Export {
        run: u64,
        root: String,
        pod: PodShape,
    },
    Take {
        run: u64,
        class: String,
    },
    RemoveExport(JobId),
    RemoveVolume(JobId),
    RemoveSnapshot(JobId),
}

#[derive(Clone, Debug, PartialEq)]
pub struct StartRun {
    pub request: PullRequest,
    pub secrets: Vec<SecretName>,
    /// Only entries that match one of these reach the worker.
    pub hosts: BTreeSet<RegistryHost>,
    /// Password-free logins, taken when this is carried out.
    pub logins: acr::Logins,
    /// What is special about its pod.
    pub pod: PodShape,
    /// Addresses that it holds as long as it lives.
    pub eips: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobId {
    pub name: String,
    pub uid: String,
    pub resource_version: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteObject {
    pub uid: String,
    pub resource_version: String,
    /// The API server's clock must have reached this.
    pub not_before: Timestamp,
    pub reason: String,
}

/// A Kubernetes event about the ImageCache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub warning: bool,
    pub reason: String,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    After(Duration),
    /// Nothing is due: the next change calls.
    OnChange,
}
