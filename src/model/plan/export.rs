//! The way to a snapshot that is not there yet: a volume, the Job that fills it, and what becomes of that Job. Its pod is
//! the volume's first consumer, so nobody waits for each other. Failures follow the rules of pulls, and are counted once.

use std::time::Duration;

use super::{
    Course, SnapshotStep,
    snapshot::{AGAIN, EXPORTED, PULLED, id, kept_by, number},
};
use crate::{
    api::image_cache::LedgerFailure,
    model::{
        class::Class,
        facts::{JobFact, JobState},
        failure::Failure,
        pod, retry,
        run::{self, RunState},
        snapshot::{Choice, Said, VolumeFact, Wanted, volume_bytes},
    },
};

impl<'a> Course<'a> {
    /// There is none yet: a volume, its export, then the snapshot.
    pub(super) fn make(&mut self, wanted: &Wanted, run: u64, root: &str) -> Said {
        let facts = &self.facts.snapshot;
        let volume = facts.volumes.iter().find(|volume| volume.run == run);
        let usable = volume.filter(|volume| !volume.deleting && volume.phase != "Lost");
        if let Some(job) = facts.exports.iter().find(|job| job.run == run)
            && let Some(said) = self.collect_export(wanted, job, usable)
        {
            return said;
        }
        let failure = self.remembered().failure.filter(|failure| number(failure.run) == run);
        if let Some(failure) = &failure {
            let due = retry::due(failure, self.judged.object.uid.as_str(), false, self.settings);
            if due > self.now {
                self.at(due);
                return self.failed(failure);
            }
        }
        if let Some(gone) = volume.filter(|volume| volume.deleting) {
            let message = format!("waits until claim {} is gone{}", gone.id.name, kept_by(&gone.finalizers));
            return Said::working("Exporting", PULLED, message);
        }
        if facts.exports.iter().any(|job| job.run == run) {
            return Said::working("Exporting", PULLED, "waits until an earlier export is gone");
        }
        let Ok(request) = &self.judged.request else {
            return Said::working("Exporting", PULLED, "the object is not valid: nothing new is begun");
        };
        let choice = match self.choice(wanted) {
            Ok(choice) => choice,
            Err(said) => return said,
        };
        if facts.busy >= self.settings.max_jobs {
            self.within(Duration::from_secs(15));
            return Said::working("Queued", PULLED, "waits until other exports are done");
        }
        let logical = self.facts.status.size.map(number).unwrap_or_default();
        let bytes = volume_bytes(request, logical, failure.as_ref());
        let began = match usable {
            None if volume.is_some() => {
                self.remove_volumes(|volume| volume.run == run);
                "the volume was lost; it is made again"
            }
            None => {
                self.step(SnapshotStep::MakeVolume { run, bytes, storage_class: choice.storage_class });
                "a volume is made"
            }
            Some(small) if failure.is_some() && small.bytes < bytes => {
                self.remove_volumes(|volume| volume.run == run);
                "the volume was too small; a larger one is made"
            }
            Some(_) => {
                let pod = pod::on(self.settings.cloud);
                self.step(SnapshotStep::Export { run, root: root.to_owned(), pod });
                "the export starts"
            }
        };
        self.within(Duration::from_secs(30));
        let refused = facts.refused.as_ref().map(|why| format!("{began}: {why}"));
        match (refused, failure) {
            (Some(why), _) => Said::trouble("Exporting", PULLED, why, false),
            (None, Some(failure)) => self.failed(&failure),
            (None, None) => Said::working("Exporting", PULLED, began),
        }
    }

    fn choice(&mut self, wanted: &Wanted) -> Result<Choice, Said> {
        self.snapshot.needs.classes = true;
        let Some(classes) = &self.facts.snapshot.classes else {
            return Err(Said::working("Exporting", PULLED, "the classes are looked at"));
        };
        classes.choose(wanted).map_err(|problem| {
            self.within(AGAIN);
            Said::trouble(problem.reason, PULLED, problem.message, true)
        })
    }

    /// What the export has come to; nothing if it is over and void.
    fn collect_export(
        &mut self,
        wanted: &Wanted,
        job: &'a JobFact,
        volume: Option<&VolumeFact>,
    ) -> Option<Said> {
        // It filled a volume that is not there any more.
        let void = volume.is_none_or(|volume| volume.created > job.created);
        if void && !job.deleting {
            self.step(SnapshotStep::RemoveExport(id(job)));
        }
        if void || job.deleting {
            return None;
        }
        if matches!(job.state, JobState::Succeeded { .. }) {
            let choice = match self.choice(wanted) {
                Ok(choice) => choice,
                Err(said) => return Some(said),
            };
            self.step(SnapshotStep::Take { run: job.run, class: choice.class });
            self.within(Duration::from_secs(30));
            let refused = self.facts.snapshot.refused.clone();
            return Some(match refused {
                Some(why) => Said::trouble("Snapshotting", EXPORTED, why, false),
                None => {
                    Said::working("Snapshotting", EXPORTED, "the volume is filled; its snapshot is taken")
                }
            });
        }
        match run::look_at("export", job, self.settings, self.now) {
            RunState::Going => None,
            RunState::Preparing { detail, until } => {
                self.at(until);
                if job.pod.as_ref().is_some_and(|pod| pod.started.is_some()) {
                    self.within(super::PROGRESS);
                }
                let message = detail
                    .map_or("the export starts".to_owned(), |why| format!("the export pod waits: {why}"));
                Some(self.after_failures(Said::working("Exporting", PULLED, message)))
            }
            RunState::Pulling { percent, until } => {
                self.at(until);
                self.within(super::PROGRESS);
                let percent = PULLED
                    + u8::try_from(u32::from(percent) * u32::from(EXPORTED - PULLED) / 100).unwrap_or(0);
                Some(self.after_failures(Said::working("Exporting", percent, "the volume is filled")))
            }
            // The Job's condition follows when the pod is gone from its node.
            RunState::Succeeded(..) => {
                self.within(Duration::from_secs(10));
                Some(Said::working("Exporting", EXPORTED, "the volume is filled"))
            }
            RunState::Refused(_) => {
                let failure = Failure::new(Class::Unknown, "the volume holds a higher run");
                Some(self.count_failure(job, &failure))
            }
            RunState::Failed(failure, _) => Some(self.count_failure(job, &failure)),
        }
    }

    /// A retry that runs does not hide why it was needed.
    fn after_failures(&self, said: Said) -> Said {
        let stalled =
            self.remembered().failure.is_some_and(|f| retry::stalls_at(&f, self.settings) <= self.now);
        if stalled { Said { failure: Some(Class::Snapshot), stalled, ..said } } else { said }
    }

    /// Counted once, however often it is seen.
    fn count_failure(&mut self, job: &JobFact, failure: &Failure) -> Said {
        let (now, run) = (self.now, i64::try_from(job.run).unwrap_or(i64::MAX));
        self.step(SnapshotStep::RemoveExport(id(job)));
        if matches!(failure.class, Class::BadContent | Class::NotFound) {
            // The store does not have what was credited: that is pulled again, and looked at with care.
            self.ledger.lose(now);
            self.within(Duration::ZERO);
            return Said::trouble("ContentLost", PULLED, failure.message.clone(), false);
        }
        let memory = self.memory();
        if memory.counted != job.uid {
            memory.counted.clone_from(&job.uid);
            let before = memory.failure.take().filter(|before| before.run == run);
            let message = format!("export: {}", failure.message);
            memory.failure = Some(LedgerFailure::after(before, run, failure, &message, (now, now)));
        }
        if failure.class == Class::NoSpace {
            self.remove_volumes(|volume| volume.run == job.run);
        }
        match self.remembered().failure {
            Some(failure) => {
                self.at(retry::due(&failure, self.judged.object.uid.as_str(), false, self.settings));
                self.failed(&failure)
            }
            None => Said::working("Exporting", PULLED, ""),
        }
    }

    fn failed(&mut self, failure: &LedgerFailure) -> Said {
        let stalls_at = retry::stalls_at(failure, self.settings);
        if stalls_at > self.now {
            self.at(stalls_at);
        }
        let class = retry::class(failure);
        let said = Said::trouble(class.as_str(), PULLED, failure.message.clone(), stalls_at <= self.now);
        Said { failure: Some(class), ..said }
    }
}
