//! The storage side of the simulated cluster: claims, exports, VolumeSnapshots and their contents, as Kubernetes, the
//! snapshotter and a driver would keep them.

use std::collections::{BTreeMap, BTreeSet};

use imagecache::model::{
    class::Class,
    digest::Digest,
    facts::{Exit, JobFact, JobState, PodFact, ProgressFact},
    failure::Failure,
    names,
    plan::{JobId, Needs, SnapshotStep},
    report::{Bytes, Outcome, Progress},
    snapshot::{Api, Classes, ContentFact, Seen, SnapshotClass, SnapshotFact, StorageClass, VolumeFact},
};
use jiff::Timestamp;

use crate::world::UID;

pub(crate) const NAMESPACE: &str = "system";

#[derive(Clone, Default)]
pub(crate) struct Storage {
    pub(crate) api: Api,
    pub(crate) classes: Classes,
    pub(crate) volumes: Vec<VolumeFact>,
    /// Volumes that hold their run, by UID.
    pub(crate) filled: BTreeSet<String>,
    pub(crate) exports: Vec<JobFact>,
    pub(crate) snapshots: Vec<SnapshotFact>,
    pub(crate) contents: BTreeMap<String, ContentFact>,
    /// Why exports fail.
    pub(crate) broken: Option<Class>,
    /// What the driver says instead of taking snapshots.
    pub(crate) error: Option<String>,
    pub(crate) busy: u32,
    /// Everything that was done, in order.
    pub(crate) done: Vec<String>,
    made: u64,
}

pub(crate) fn class(name: &str, driver: &str, default: bool) -> SnapshotClass {
    SnapshotClass { name: name.into(), driver: driver.into(), default }
}

impl Storage {
    pub(crate) fn new() -> Self {
        let storage = StorageClass {
            name: "disks".into(),
            provisioner: "csi.example.com".into(),
            default: true,
            created: Timestamp::UNIX_EPOCH,
        };
        let classes =
            Classes { snapshot: vec![class("snaps", "csi.example.com", true)], storage: vec![storage] };
        Self { api: Api::Present, classes, ..Self::default() }
    }

    pub(crate) fn seen(&self) -> Seen {
        let there = self.api == Api::Present;
        Seen {
            api: self.api.clone(),
            volumes: self.volumes.clone(),
            exports: self.exports.clone(),
            snapshots: if there { self.snapshots.clone() } else { vec![] },
            busy: self.busy,
            ..Seen::default()
        }
    }

    pub(crate) fn answer(&self, needs: &Needs, seen: &mut Seen) {
        seen.classes = needs.classes.then(|| self.classes.clone());
        for name in &needs.contents {
            seen.contents.insert(name.clone(), self.contents.get(name).cloned());
        }
    }

    fn id(&mut self, name: String) -> JobId {
        self.made += 1;
        JobId { name, uid: format!("uid-{}", self.made), resource_version: "1".into() }
    }

    pub(crate) fn act(&mut self, step: &SnapshotStep, now: Timestamp) {
        let cache = UID.parse().unwrap();
        match step {
            SnapshotStep::MakeVolume { run, bytes, storage_class } => {
                assert_eq!(storage_class, "disks");
                if self.volumes.iter().any(|volume| volume.run == *run) {
                    return;
                }
                let id = self.id(names::snapshot(&cache, *run));
                self.done.push(format!("volume {run}"));
                let phase = "Pending".into();
                self.volumes.push(VolumeFact {
                    id,
                    run: *run,
                    created: now,
                    deleting: false,
                    finalizers: vec![],
                    phase,
                    bytes: *bytes,
                });
            }
            SnapshotStep::Export { run, .. } => {
                if self.exports.iter().any(|job| job.run == *run) {
                    return;
                }
                let id = self.id(names::export_job(&cache, *run));
                self.done.push(format!("export {run}"));
                self.exports.push(export(id, *run, now));
            }
            SnapshotStep::Take { run, class } => {
                assert_eq!(class, "snaps");
                if self.api != Api::Present || self.snapshots.iter().any(|snapshot| snapshot.run == *run) {
                    return;
                }
                let volume = self.volumes.iter().find(|volume| volume.run == *run);
                let filled = volume.is_some_and(|volume| self.filled.contains(&volume.id.uid));
                assert!(filled, "a snapshot of a volume that does not hold run {run}");
                let id = self.id(names::snapshot(&cache, *run));
                self.done.push(format!("snapshot {run}"));
                self.snapshots.push(SnapshotFact {
                    id,
                    run: *run,
                    created: now,
                    deleting: false,
                    finalizers: vec![],
                    class: Some(class.clone()),
                    content: None,
                    ready: false,
                    restore_bytes: None,
                    error: None,
                });
            }
            SnapshotStep::RemoveExport(id) => self.exports.retain(|job| job.uid != id.uid),
            SnapshotStep::RemoveVolume(id) => {
                // Kept while a snapshot of it is being taken, and while a pod uses it.
                let in_use = |volume: &VolumeFact| {
                    self.snapshots.iter().any(|s| s.run == volume.run && !s.ready && s.content.is_some())
                        || self
                            .exports
                            .iter()
                            .any(|job| job.run == volume.run && job.state == JobState::Active)
                };
                let lingers = self.volumes.iter().any(|volume| volume.id.uid == id.uid && in_use(volume));
                if lingers {
                    self.volumes.iter_mut().filter(|v| v.id.uid == id.uid).for_each(|v| v.deleting = true);
                } else {
                    self.volumes.retain(|volume| volume.id.uid != id.uid);
                }
            }
            SnapshotStep::RemoveSnapshot(id) => self.remove_snapshot(&id.uid),
        }
    }

    pub(crate) fn remove_snapshot(&mut self, uid: &str) {
        let gone: Vec<SnapshotFact> =
            self.snapshots.extract_if(.., |snapshot| snapshot.id.uid == uid).collect();
        for snapshot in gone {
            self.done.push(format!("no snapshot {}", snapshot.run));
            if let Some(content) = snapshot.content {
                self.contents.remove(&content);
            }
        }
    }

    pub(crate) fn export_moves(&mut self, percent: u64, now: Timestamp) {
        for job in self.exports.iter_mut().filter(|job| job.state == JobState::Active) {
            job.pod.get_or_insert_with(|| pod(now)).started.get_or_insert(now);
            let all = Bytes { done: percent, total: 100, reused: 0 };
            job.progress = Some(ProgressFact { report: Progress { all, images: vec![] }, changed: now });
            // The first consumer.
            self.volumes.iter_mut().filter(|v| v.run == job.run).for_each(|v| v.phase = "Bound".into());
        }
    }

    pub(crate) fn export_ends(&mut self, now: Timestamp) {
        self.export_moves(100, now);
        for job in self.exports.iter_mut().filter(|job| job.state == JobState::Active) {
            let failure = self.broken.map(|class| Failure::new(class, format!("volume: {class}")));
            let code = failure.as_ref().map_or(0, |failure| failure.class.exit_code().into());
            job.state = if code == 0 {
                JobState::Succeeded { at: now }
            } else {
                JobState::Failed { at: now, reason: "PodFailurePolicy".into(), message: "exit code".into() }
            };
            if code == 0 {
                self.filled
                    .extend(self.volumes.iter().filter(|v| v.run == job.run).map(|v| v.id.uid.clone()));
            }
            let outcome = Outcome {
                resolved: None,
                proved: None,
                run: job.run,
                store: "own".into(),
                root: (code == 0).then(|| Digest::sha256(b"root")),
                size: 10,
                images: vec![],
                failure,
                higher_run: None,
                notices: vec![],
            };
            let pod = job.pod.get_or_insert_with(|| pod(now));
            pod.exit = Some(Exit { code, at: now, oom: false, outcome: Some(outcome) });
        }
    }

    /// The snapshotter does what it can.
    pub(crate) fn snapshotter_acts(&mut self) {
        let (error, volumes) = (self.error.clone(), self.volumes.clone());
        for snapshot in self.snapshots.iter_mut().filter(|snapshot| !snapshot.ready && !snapshot.deleting) {
            snapshot.error.clone_from(&error);
            let there = snapshot.content.is_some() || volumes.iter().any(|volume| volume.run == snapshot.run);
            if error.is_some() || !there {
                continue;
            }
            let name =
                snapshot.content.get_or_insert_with(|| format!("snapcontent-{}", snapshot.id.uid)).clone();
            if snapshot.restore_bytes.is_some() && !self.contents.contains_key(&name) {
                continue; // deleted by hand: it does not come back
            }
            (snapshot.ready, snapshot.restore_bytes) = (true, Some(23 << 30));
            self.contents.insert(
                name,
                ContentFact {
                    snapshot_uid: snapshot.id.uid.clone(),
                    snapshot_name: snapshot.id.name.clone(),
                    snapshot_namespace: NAMESPACE.into(),
                    deletion_policy: "Delete".into(),
                },
            );
        }
        self.finalizers();
    }

    /// What was only kept by finalizers goes.
    pub(crate) fn finalizers(&mut self) {
        self.exports.retain(|job| !job.deleting);
        let gone: Vec<String> =
            self.snapshots.iter().filter(|s| s.deleting).map(|s| s.id.uid.clone()).collect();
        for uid in &gone {
            self.remove_snapshot(uid);
        }
        self.volumes.retain(|volume| !volume.deleting);
    }

    /// Somebody removes the content behind a snapshot's back.
    pub(crate) fn content_is_deleted(&mut self) {
        self.contents.clear();
        for snapshot in self.snapshots.iter_mut().filter(|snapshot| snapshot.ready) {
            snapshot.ready = false;
            snapshot.error = Some("VolumeSnapshotContent is missing".into());
        }
    }

    pub(crate) fn works(&mut self) {
        let works = Self::new();
        (self.api, self.classes) = (works.api, works.classes);
        (self.broken, self.error, self.busy) = (None, None, 0);
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.volumes.is_empty() && self.exports.is_empty()
    }

    pub(crate) fn is_gone(&mut self) {
        self.volumes.clear();
        self.exports.clear();
        self.snapshots.clear();
    }

    pub(crate) fn runs(&self) -> Vec<u64> {
        self.snapshots.iter().filter(|snapshot| snapshot.ready).map(|snapshot| snapshot.run).collect()
    }
}

fn export(id: JobId, run: u64, now: Timestamp) -> JobFact {
    JobFact {
        name: id.name,
        uid: id.uid,
        resource_version: id.resource_version,
        run,
        created: now,
        deleting: false,
        state: JobState::Active,
        pod: None,
        no_pod: None,
        progress: None,
    }
}

fn pod(now: Timestamp) -> PodFact {
    PodFact {
        name: "export".into(),
        created: now,
        started: None,
        waiting: None,
        unschedulable: None,
        disrupted: None,
        exit: None,
    }
}
