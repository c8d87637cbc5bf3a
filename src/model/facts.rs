//! What was observed, as plain data. The gatherer fills it and decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{
    acr::Logins,
    failure::Failure,
    judge::SecretName,
    platform::Platform,
    reference::RegistryHost,
    report::{Outcome, Progress},
    snapshot,
};
use crate::api::ImageCacheStatus;

/// Everything `plan` may look at besides the object itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The status as it was read with the object; decisions read its ledger only.
    pub status: ImageCacheStatus,
    /// The pull Jobs that carry this object's UID, of whichever run.
    pub jobs: Vec<JobFact>,
    /// The pull secrets, if they were read (`plan::needs_secrets` says when); absent ones were not.
    pub secrets: BTreeMap<SecretName, SecretState>,
    /// When they were last read, as the gatherer remembers.
    pub secrets_read: Option<Timestamp>,
    /// The mirror's newest report, if one is known.
    pub mirror: Option<MirrorFact>,
    /// Runs that gc was told to be credited and whose content it did not find.
    pub gc_broken: BTreeSet<u64>,
    pub queue: Queue,
    /// What became of the last password-free login, as the gatherer remembers.
    pub login: Option<LoginFact>,
    /// What the API server's clock says, if it was asked (`plan::needs_clock` says when).
    pub server_clock: Option<Timestamp>,
    /// Why the Job could not be made when that was last tried (a quota, an admission webhook).
    pub refused: Option<String>,
    /// The platforms of the cluster's nodes, in a stable order.
    pub node_platforms: Vec<Platform>,
    /// What there is of snapshots, if the operator wants any.
    pub snapshot: snapshot::Seen,
}

impl Facts {
    /// When the running worker's login is to be taken again. A new leader does not know, and takes it at once.
    pub fn login_due(&self, logins: &Logins, run: i64, now: Timestamp) -> Option<Timestamp> {
        (!logins.is_empty()).then(|| self.login_of(run).map_or(now, |login| login.again))
    }

    pub fn login_of(&self, run: i64) -> Option<&LoginFact> {
        self.login.as_ref().filter(|login| u64::try_from(run) == Ok(login.run))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct JobFact {
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    /// From the Job's run label.
    pub run: u64,
    pub created: Timestamp,
    /// It has a deletion timestamp.
    pub deleting: bool,
    pub state: JobState,
    /// The newest pod of the Job.
    pub pod: Option<PodFact>,
    /// While there is no pod: the newest message of a `FailedCreate` event.
    pub no_pod: Option<String>,
    /// The newest progress of the worker's log.
    pub progress: Option<ProgressFact>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    Active,
    /// Condition `Complete`.
    Succeeded {
        at: Timestamp,
    },
    /// Condition `Failed` or `FailureTarget`, with its reason and message.
    Failed {
        at: Timestamp,
        reason: String,
        message: String,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct ProgressFact {
    pub report: Progress,
    /// When its bytes last grew, as the gatherer saw it.
    pub changed: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PodFact {
    pub name: String,
    pub created: Timestamp,
    /// When the worker's container started; absent while it waits.
    pub started: Option<Timestamp>,
    /// Why the container waits (`ImagePullBackOff`, `CreateContainerConfigError`), reason and message.
    pub waiting: Option<(String, String)>,
    /// The message of `PodScheduled=False`.
    pub unschedulable: Option<String>,
    /// The pod's own reason and message when it was taken away (`Evicted`, `Preempting`, a `DisruptionTarget`
    /// condition).
    pub disrupted: Option<String>,
    pub exit: Option<Exit>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    pub code: i32,
    pub at: Timestamp,
    /// The kubelet's reason is `OOMKilled`.
    pub oom: bool,
    /// The termination message and the log, decoded; absent when it cannot be read.
    pub outcome: Option<Outcome>,
}

/// What `get` said of a pull secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretState {
    /// UID and resourceVersion tell versions apart. A hash of the content would tell more than it should.
    Found {
        uid: String,
        resource_version: String,
    },
    Missing,
    /// Reading it is not granted.
    Forbidden,
    /// It is there, and no pull secret: why.
    Unusable(String),
}

/// A password-free login that was taken for a run, or could not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginFact {
    pub run: u64,
    /// When it is to be taken again, or tried again.
    pub again: Timestamp,
    pub failure: Option<Failure>,
}

/// The mirror's report, cut down to this cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorFact {
    /// When the controller read it.
    pub read: Timestamp,
    pub store: String,
    /// Runs of this cache whose root is there but whose content is not.
    pub broken: BTreeSet<u64>,
}

/// The pull Jobs of all other caches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    pub running: u32,
    pub per_host: BTreeMap<RegistryHost, u32>,
    /// Addresses that other pulls hold, or that are theirs next: by address, the name of the cache.
    pub eips: BTreeMap<String, String>,
    /// Caches that wait for a slot with the first try of their inputs, and come before this one: as many as matter.
    pub first_tries_ahead: u32,
    /// Why a cache that has no content yet may not get any now: a quota, in numbers.
    pub no_room: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::acr::Registry;

    #[test]
    fn a_login_is_due_when_it_says_so_and_at_once_when_nobody_knows() {
        let (now, later) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(60).unwrap());
        let mut logins = Logins::default();
        let mut facts = Facts::default();
        assert_eq!(facts.login_due(&logins, 3, now), None, "there is none to take");
        let personal = Registry::Personal("cn-hangzhou".parse().unwrap());
        logins.hosts.insert("registry.cn-hangzhou.aliyuncs.com".parse().unwrap(), personal);
        assert_eq!(facts.login_due(&logins, 3, now), Some(now));
        facts.login = Some(LoginFact { run: 3, again: later, failure: None });
        assert_eq!(facts.login_due(&logins, 3, now), Some(later));
        assert_eq!(facts.login_due(&logins, 4, now), Some(now), "that was another run's");
    }
}
