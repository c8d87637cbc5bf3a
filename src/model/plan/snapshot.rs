//! The snapshot of a cache's own volume, step by step: volume, export, snapshot, and away with the volume. What was
//! done is read from the objects themselves, so a controller that was killed anywhere goes on from there; the ledger
//! holds only what no object says (what is waited for, what was ready once, and failures). An old snapshot stays until
//! the new one is ready. Steps of a run that is not the credited one are taken back.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use super::{Action, Course, JobId, SnapshotStep};
use crate::{
    api::image_cache::{LedgerSnapshot, LedgerTaken, SnapshotStatus},
    model::{
        digest::Digest,
        facts::{Facts, JobFact},
        judge::{CacheRequest, Judged},
        report::{ImageOutcome, Outcome},
        retry::after,
        settings::Settings,
        snapshot::{Api, Said, Seen, SnapshotFact, VolumeFact, Wanted},
        stage::Stage,
    },
};

/// Where pulls end, and where exports do.
pub(super) const PULLED: u8 = 80;
pub(super) const EXPORTED: u8 = 95;
/// A problem of the cluster is looked at again this often.
pub(super) const AGAIN: Duration = Duration::from_secs(30);

/// What must be read live before `plan` is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub classes: bool,
    pub contents: BTreeSet<String>,
}

pub fn snapshot_needs(judged: &Judged, facts: &Facts, settings: &Settings, now: Timestamp) -> Needs {
    if judged.object.deleting || settings.snapshots.is_none() {
        return Needs::default();
    }
    let mut course = Course::new(judged, facts, settings, now);
    if let super::Walked::At(stage) = course.walk() {
        course.snapshots(stage);
    }
    course.snapshot.needs
}

/// What came of it, to be told.
#[derive(Clone, Debug, Default)]
pub(in crate::model) struct Outlook {
    pub told: Told,
    pub shown: Option<SnapshotStatus>,
    pub(super) needs: Needs,
}

#[derive(Clone, Debug, Default)]
pub(in crate::model) enum Told {
    /// Nobody wants snapshots.
    #[default]
    Nothing,
    /// Nobody has looked yet.
    AsBefore,
    Said(Said),
}

impl Seen {
    pub(super) fn runs(&self) -> impl Iterator<Item = u64> {
        let exports = self.exports.iter().map(|job| job.run);
        let volumes = self.volumes.iter().map(|volume| volume.run);
        exports.chain(volumes).chain(self.snapshots.iter().map(|snapshot| snapshot.run))
    }
}

pub(super) fn number(run: i64) -> u64 {
    u64::try_from(run).unwrap_or_default()
}

impl<'a> Course<'a> {
    pub(super) fn memory(&mut self) -> &mut LedgerSnapshot {
        self.ledger.snapshot.get_or_insert_default()
    }

    pub(super) fn remembered(&self) -> LedgerSnapshot {
        self.ledger.snapshot.clone().unwrap_or_default()
    }

    /// The open run is about to be credited. What was ready stays so when its registries were only asked anew.
    pub(super) fn await_snapshot(&mut self, request: &CacheRequest, outcome: &Outcome) {
        let on = self.settings.snapshots.is_some();
        if !on && self.ledger.snapshot.is_none() {
            return;
        }
        let (run, update) = (self.ledger.run, self.has_content());
        let refresh = self.ledger.root.is_some() && self.ledger.answered;
        let memory = self.memory();
        let ready = refresh && memory.awaited.is_none();
        let wanted = held(request, outcome);
        let since = memory.since.filter(|_| memory.wanted == wanted).unwrap_or(run);
        (memory.wanted, memory.since) = (wanted, Some(since));
        memory.awaited = (on && !request.flash && !ready).then_some(since);
        memory.update = memory.awaited.is_some() && update;
    }

    /// Credited, and more than the first content that still waits for its snapshot.
    pub(super) fn has_content(&self) -> bool {
        let waits =
            self.ledger.snapshot.as_ref().is_some_and(|memory| memory.awaited.is_some() && !memory.update);
        self.ledger.root.is_some() && !waits
    }

    /// Takes the next step, and says where the cache stands because of it.
    pub(super) fn snapshots(&mut self, stage: Stage) -> Stage {
        let Some(wanted) = &self.settings.snapshots else {
            self.forget_awaited();
            return stage;
        };
        let facts = &self.facts.snapshot;
        let before = self.facts.status.snapshot.clone();
        let said = match &facts.api {
            Api::Unknown => {
                self.within(Duration::from_secs(5));
                (self.snapshot.told, self.snapshot.shown) = (Told::AsBefore, before);
                None
            }
            Api::Absent => {
                self.snapshot.shown = None;
                Some(Said::off(
                    "NoSnapshotApi",
                    "the cluster has no VolumeSnapshots (snapshot.storage.k8s.io/v1): install the CRDs and the controller of external-snapshotter; until then none are taken",
                ))
            }
            Api::Forbidden(why) => {
                self.snapshot.shown = before;
                Some(Said::off(
                    "Forbidden",
                    format!("VolumeSnapshots or claims may not be seen: install config/snapshots ({why})"),
                ))
            }
            Api::Present => {
                let said = self.drive(wanted, &stage);
                self.snapshot.shown = self.shown();
                Some(said)
            }
        };
        let (stage, said) = self.wait_for(stage, said);
        if let Some(said) = said {
            self.snapshot.told = Told::Said(said);
        }
        stage
    }

    fn forget_awaited(&mut self) {
        if let Some(memory) = &mut self.ledger.snapshot {
            (memory.awaited, memory.update) = (None, false);
        }
    }

    /// Ready, or waiting for the snapshot to be. What was ready once stays so.
    fn wait_for(&mut self, stage: Stage, said: Option<Said>) -> (Stage, Option<Said>) {
        if stage != Stage::Ready {
            return (stage, said);
        }
        if self.ledger.root.is_none() {
            // Its export found that the content is not there any more.
            return (Stage::Waiting, said);
        }
        let awaited = self.remembered().awaited;
        let flash = self.judged.request.as_ref().is_ok_and(|request| request.flash);
        let waits = awaited.is_some() && awaited == self.since() && !flash;
        let stage = match &said {
            None if waits => Stage::Snapshotting { failure: None, stalled: false },
            Some(said) if waits && !said.taken && said.percent.is_some() => {
                Stage::Snapshotting { failure: said.failure, stalled: said.stalled }
            }
            _ => {
                self.forget_awaited();
                Stage::Ready
            }
        };
        (stage, said)
    }

    fn drive(&mut self, wanted: &Wanted, stage: &Stage) -> Said {
        let facts = &self.facts.snapshot;
        let Some(root) = self.ledger.root.clone() else {
            if *stage == Stage::Expired {
                self.remove_volumes(|_| true);
                self.remove_snapshots(|_| true);
            }
            self.remove_exports(|_| true);
            return match stage {
                Stage::Expired => {
                    Said { warning: false, ..Said::off("Expired", "its snapshot went with its content") }
                }
                _ => Said::working("Pulling", 0, "taken when the pull is complete"),
            };
        };
        let run = self.target().unwrap_or_else(|| number(self.since().unwrap_or(root.run)));
        self.remove_exports(|job| job.run != run);
        self.remove_volumes(|volume| volume.run != run);
        // Two at once would hinder each other; one that is ready stays until the next one is.
        self.remove_snapshots(|old| old.run < run && !old.ready);
        match facts.snapshots.iter().find(|snapshot| snapshot.run == run) {
            Some(gone) if gone.deleting => self.lost_or(
                run,
                Said::working(
                    "Deleting",
                    EXPORTED,
                    format!(
                        "VolumeSnapshot {} is being deleted; when it is gone it is taken again{}",
                        gone.id.name,
                        kept_by(&gone.finalizers)
                    ),
                ),
            ),
            Some(snapshot) => self.follow(snapshot),
            None => {
                let said = self.make(wanted, run, &root.digest);
                self.lost_or(run, said)
            }
        }
    }

    /// The run that brought the content that is there.
    fn since(&self) -> Option<i64> {
        let since = self.ledger.snapshot.as_ref().and_then(|memory| memory.since);
        self.ledger.root.as_ref().map(|root| since.filter(|since| *since <= root.run).unwrap_or(root.run))
    }

    /// The older run whose snapshot holds just what was credited since.
    fn target(&self) -> Option<u64> {
        let memory = self.remembered();
        let taken = memory.taken.filter(|taken| taken.held == memory.wanted)?;
        let there = |snapshot: &SnapshotFact| snapshot.id.uid == taken.uid && !snapshot.deleting;
        self.facts.snapshot.snapshots.iter().any(there).then(|| number(taken.run))
    }

    /// What is said where a snapshot of this content was there before.
    fn lost_or(&self, run: u64, said: Said) -> Said {
        let memory = self.remembered();
        let was = memory.taken.is_some_and(|t| number(t.run) == run || t.held == memory.wanted);
        if !was || said.failure.is_some() {
            return said;
        }
        let message = format!("the snapshot was deleted; it is taken again: {}", said.message);
        Said { reason: "SnapshotLost", message, warning: true, ..said }
    }

    /// There is a VolumeSnapshot of the credited run: until it is ready, bound both ways, and for as long as it is.
    fn follow(&mut self, snapshot: &'a SnapshotFact) -> Said {
        let facts = &self.facts.snapshot;
        let name = &snapshot.id.name;
        self.remove_exports(|_| true);
        let taken = self.remembered().taken;
        let known =
            taken.is_some_and(|t| t.uid == snapshot.id.uid && snapshot.content.as_ref() == Some(&t.content));
        if snapshot.ready && known {
            return self.is_taken(snapshot);
        }
        let content = snapshot.content.as_ref().filter(|_| snapshot.ready || known);
        if let Some(content) = content {
            self.snapshot.needs.contents.insert(content.clone());
        }
        let read = content.and_then(|content| facts.contents.get(content));
        match (snapshot.ready, read) {
            (true, Some(Some(content))) if snapshot.is_bound_by(content, &self.settings.namespace) => {
                let taken = LedgerTaken {
                    run: i64::try_from(snapshot.run).unwrap_or(i64::MAX),
                    uid: snapshot.id.uid.clone(),
                    content: snapshot.content.clone().unwrap_or_default(),
                    held: self.remembered().wanted,
                };
                let memory = self.memory();
                (memory.taken, memory.failure) = (Some(taken), None);
                memory.counted.clear();
                self.is_taken(snapshot)
            }
            (true, Some(_)) => {
                self.within(AGAIN);
                let content = snapshot.content.as_deref().unwrap_or_default();
                Said::trouble(
                    "NotBound",
                    EXPORTED,
                    format!(
                        "VolumeSnapshot {name} says that it is bound to VolumeSnapshotContent {content}, which says otherwise or is not there: it is not used"
                    ),
                    true,
                )
            }
            (true, None) => Said::working(
                "Snapshotting",
                EXPORTED,
                format!("VolumeSnapshot {name} is ready; its content is looked at"),
            ),
            (false, Some(None)) => {
                self.step(SnapshotStep::RemoveSnapshot(snapshot.id.clone()));
                Said {
                    warning: true,
                    ..Said::working(
                        "SnapshotLost",
                        PULLED,
                        "the content of the snapshot was deleted; it is taken again",
                    )
                }
            }
            (false, _) if known => {
                self.within(AGAIN);
                let error = snapshot.error.as_deref().unwrap_or("no reason is known");
                Said::trouble(
                    "SnapshotLost",
                    EXPORTED,
                    format!("VolumeSnapshot {name} was ready and is not any more: {error}"),
                    true,
                )
            }
            (false, _) => self.in_the_making(snapshot),
        }
    }

    fn is_taken(&mut self, snapshot: &SnapshotFact) -> Said {
        let run = snapshot.run;
        self.remove_volumes(|_| true);
        self.remove_snapshots(|old| old.run < run);
        let message = format!("VolumeSnapshot {} can be restored", snapshot.id.name);
        Said { taken: true, ..Said::working("ReadyToUse", 100, message) }
    }

    /// Errors of drivers are advisory: the snapshotter goes on trying, and a second snapshot would only add to it.
    fn in_the_making(&mut self, snapshot: &SnapshotFact) -> Said {
        let (name, run) = (&snapshot.id.name, snapshot.run);
        let there = self.facts.snapshot.volumes.iter().any(|volume| volume.run == run && !volume.deleting);
        if snapshot.content.is_none() && !there {
            self.step(SnapshotStep::RemoveSnapshot(snapshot.id.clone()));
            return Said::working(
                "Snapshotting",
                PULLED,
                "the volume was deleted before the snapshot was taken; both are made again",
            );
        }
        let late = after(snapshot.created, self.settings.stalled_after);
        let stalled = late <= self.now;
        if !stalled {
            self.at(late);
        }
        match &snapshot.error {
            Some(error) => {
                Said::trouble("Snapshotting", EXPORTED, format!("VolumeSnapshot {name}: {error}"), stalled)
            }
            None if stalled => Said::trouble(
                "Snapshotting",
                EXPORTED,
                format!(
                    "VolumeSnapshot {name} is not ready for long; nothing says why: look at the logs of csi-snapshotter"
                ),
                true,
            ),
            None => Said::working("Snapshotting", EXPORTED, format!("VolumeSnapshot {name} is being taken")),
        }
    }

    /// The one that can be restored, else the one in the making.
    fn shown(&self) -> Option<SnapshotStatus> {
        let facts = &self.facts.snapshot;
        let removed = |snapshot: &&SnapshotFact| {
            !self.actions.contains(&Action::Snapshot(SnapshotStep::RemoveSnapshot(snapshot.id.clone())))
        };
        let there = || facts.snapshots.iter().filter(removed);
        let ready = there().filter(|snapshot| snapshot.ready && !snapshot.deleting);
        let best = ready
            .max_by_key(|snapshot| snapshot.run)
            .or_else(|| there().max_by_key(|snapshot| snapshot.run))?;
        let content = best.content.as_ref().and_then(|content| facts.contents.get(content)?.as_ref());
        Some(best.told(&self.settings.namespace, content, self.facts.status.snapshot.as_ref()))
    }

    pub(super) fn step(&mut self, step: SnapshotStep) {
        let action = Action::Snapshot(step);
        if !self.actions.contains(&action) {
            self.actions.push(action);
        }
    }

    pub(super) fn remove_exports(&mut self, which: impl Fn(&JobFact) -> bool) {
        for job in self.facts.snapshot.exports.iter().filter(|job| !job.deleting && which(job)) {
            self.step(SnapshotStep::RemoveExport(id(job)));
        }
    }

    pub(super) fn remove_volumes(&mut self, which: impl Fn(&VolumeFact) -> bool) {
        for volume in self.facts.snapshot.volumes.iter().filter(|volume| !volume.deleting && which(volume)) {
            self.step(SnapshotStep::RemoveVolume(volume.id.clone()));
        }
    }

    fn remove_snapshots(&mut self, which: impl Fn(&SnapshotFact) -> bool) {
        for old in self.facts.snapshot.snapshots.iter().filter(|old| !old.deleting && which(old)) {
            self.step(SnapshotStep::RemoveSnapshot(old.id.clone()));
        }
    }
}

pub(super) fn kept_by(finalizers: &[String]) -> String {
    if finalizers.is_empty() { String::new() } else { format!(" (kept by {})", finalizers.join(", ")) }
}

/// A hash of all that a volume of this content holds and says.
fn held(request: &CacheRequest, outcome: &Outcome) -> String {
    let image = |i: &ImageOutcome| (i.reference.to_string(), i.digest.clone(), i.size, i.public);
    let images: BTreeSet<_> = outcome.images.iter().map(image).collect();
    let words = serde_json::to_vec(&(images, request.serve)).unwrap_or_default();
    Digest::sha256(&words).hex()[..32].to_owned()
}

pub(super) fn id(job: &JobFact) -> JobId {
    JobId { name: job.name.clone(), uid: job.uid.clone(), resource_version: job.resource_version.clone() }
}
