//! What workers say: progress from the tail of a running pod's log, and the outcome from the termination message
//! and the log of one that ended. Both are remembered for as long as the pod is there. All of it may be lost.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, api::LogParams};

use super::{Cluster, Error, error::call, observe};
use crate::{
    model::{
        facts::ProgressFact,
        reference::Reference,
        report::{self, Outcome, Progress},
    },
    render::job::CONTAINER,
};

/// Logs read at one time.
const AT_ONCE: usize = 4;
/// The newest lines are enough for progress, which comes every few seconds among few other lines.
const PROGRESS_TAIL: (i64, i64) = (20, 128 * 1024);
/// A report has at most a few dozen `result` lines of some KiB.
const OUTCOME_TAIL: (i64, i64) = (200, 2 * 1024 * 1024);

/// What was read so far, by pod UID.
#[derive(Debug, Default)]
pub struct Logs(Mutex<HashMap<String, Known>>);

#[derive(Clone, Debug, Default)]
struct Known {
    progress: Option<ProgressFact>,
    outcome: Reading,
}

#[derive(Clone, Debug, Default)]
enum Reading {
    #[default]
    NotYet,
    /// Absent when it could not be understood.
    Done(Option<Box<Outcome>>),
}

impl Logs {
    fn knows(&self, pod: &str) -> bool {
        self.with(|known| known.get(pod).is_some_and(|known| known.progress.is_some()))
    }

    /// The newest progress of a worker that runs. One whose log was not read yet counts from now on: a new leader
    /// cannot know what moved before it looked, and must not take a long pull for one that stands still.
    fn progress(&self, pod: &str, now: Timestamp) -> ProgressFact {
        let unread = || ProgressFact { report: Progress::default(), changed: now };
        self.with(|known| {
            known.entry(pod.to_owned()).or_default().progress.get_or_insert_with(unread).clone()
        })
    }

    /// Somebody else may have led since: what was seen before says nothing about what stood still.
    pub fn forget(&self) {
        self.with(HashMap::clear);
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<String, Known>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Remembers a report; true if it says something new.
    fn note(&self, pod: &str, report: Progress, now: Timestamp) -> bool {
        self.with(|known| {
            let entry = known.entry(pod.to_owned()).or_default();
            let next = advance(entry.progress.as_ref(), report, now);
            let new = entry.progress.as_ref() != Some(&next);
            entry.progress = Some(next);
            new
        })
    }
}

/// Only bytes that grow count as movement.
fn advance(before: Option<&ProgressFact>, report: Progress, now: Timestamp) -> ProgressFact {
    let changed = match before {
        Some(before) if report.all.done <= before.report.all.done => before.changed,
        _ => now,
    };
    ProgressFact { report, changed }
}

impl Cluster {
    /// Reads the log of every worker that runs. Returns the caches whose progress changed, by name.
    pub async fn poll_progress(&self, now: Timestamp) -> Vec<String> {
        let pods = self.stores.pods.state();
        let there: Vec<String> = pods.iter().filter_map(|pod| pod.uid()).collect();
        self.logs.with(|known| known.retain(|uid, _| there.contains(uid)));
        let working = pods.into_iter().filter(|pod| observe::is_working(pod));
        let look = |pod: std::sync::Arc<Pod>| async move {
            let new = self.read_progress(&pod, now).await;
            new.then(|| observe::cache_name(&pod.metadata).map(str::to_owned)).flatten()
        };
        stream::iter(working.map(look))
            .buffer_unordered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await
    }

    /// How far a running worker is. Its log is read here when it never was: a new leader would tell of a pull that
    /// begins again.
    pub(super) async fn progress(&self, pod: &Pod, now: Timestamp) -> Option<ProgressFact> {
        let uid = pod.uid()?;
        if !self.logs.knows(&uid) {
            self.read_progress(pod, now).await;
        }
        Some(self.logs.progress(&uid, now))
    }

    /// True if the log says something new. One that cannot be read now is read two seconds later; the time limits
    /// are the plan's.
    async fn read_progress(&self, pod: &Pod, now: Timestamp) -> bool {
        let Ok(log) = self.tail(&pod.name_any(), PROGRESS_TAIL).await else { return false };
        let (Some(uid), Some(report)) = (pod.uid(), report::last_progress(&log)) else { return false };
        self.logs.note(&uid, report, now)
    }

    /// What became of a worker that ended; read once.
    pub(super) async fn outcome(&self, pod: &Pod, images: &[Reference]) -> Option<Outcome> {
        let uid = pod.uid()?;
        let before = self.logs.with(|known| known.get(&uid).map(|known| known.outcome.clone()));
        if let Some(Reading::Done(outcome)) = before {
            return outcome.map(|outcome| *outcome);
        }
        let message = observe::termination_message(pod)?;
        // Without the log the message still says class, digests and sizes.
        let log = match self.tail(&pod.name_any(), OUTCOME_TAIL).await {
            Ok(log) => log,
            Err(error) => {
                tracing::warn!(pod = pod.name_any(), %error, "the worker's log cannot be read");
                String::new()
            }
        };
        let outcome = Outcome::decode(message, &log, images)
            .inspect_err(|error| tracing::warn!(pod = pod.name_any(), %error, "no report"))
            .ok();
        self.logs.with(|known| {
            known.entry(uid).or_default().outcome = Reading::Done(outcome.clone().map(Box::new));
        });
        outcome
    }

    /// As much of a log as a report may be; nothing if it cannot be read.
    pub(super) async fn whole_report(&self, pod: &str) -> String {
        self.tail(pod, OUTCOME_TAIL).await.unwrap_or_else(|error| {
            tracing::warn!(pod, %error, "the log cannot be read");
            String::new()
        })
    }

    async fn tail(&self, pod: &str, (lines, bytes): (i64, i64)) -> Result<String, Error> {
        let wanted = LogParams {
            container: Some(CONTAINER.to_owned()),
            tail_lines: Some(lines),
            limit_bytes: Some(bytes),
            ..LogParams::default()
        };
        call(format!("read the log of pod {pod}"), self.pods().logs(pod, &wanted)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::report::Bytes;

    #[test]
    fn only_growing_bytes_count_as_movement() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let report = |done, total| Progress { all: Bytes { done, total, reused: 0 }, images: vec![] };
        let first = advance(None, report(0, 0), at(1));
        assert_eq!(first.changed, at(1));
        let same = advance(Some(&first), report(0, 50), at(2));
        assert_eq!((same.changed, same.report.all.total), (at(1), 50));
        assert_eq!(advance(Some(&same), report(7, 50), at(3)).changed, at(3));
    }

    #[test]
    fn a_new_leader_counts_standstill_from_its_own_first_look() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let logs = Logs::default();
        assert_eq!(logs.progress("pod", at(5000)).changed, at(5000));
        assert_eq!(
            logs.progress("pod", at(5007)).changed,
            at(5000),
            "a worker that says nothing stands still"
        );
        let report = Progress { all: Bytes { done: 9, total: 10, reused: 0 }, images: vec![] };
        assert!(logs.note("pod", report, at(5010)));
        assert_eq!(logs.progress("pod", at(9000)).changed, at(5010));
        logs.forget();
        assert_eq!(logs.progress("pod", at(9000)).changed, at(9000), "another one led meanwhile");
    }

    #[test]
    fn a_report_that_says_nothing_new_calls_nobody() {
        let logs = Logs::default();
        let report = Progress { all: Bytes { done: 5, total: 9, reused: 0 }, images: vec![] };
        assert!(logs.note("pod", report.clone(), Timestamp::UNIX_EPOCH));
        assert!(!logs.note("pod", report, Timestamp::MAX));
    }
}
