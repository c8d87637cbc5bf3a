//! When the store is collected, and with which list of living caches: a pure function of facts. One Job at a time,
//! by its name. What is remembered is in a `ConfigMap` beside the Job; if that is lost, the next list names no earlier
//! run of gc, which only makes it wait longer (`docs/store.md`, gc 3).

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    collected::Report,
    facts::{JobState, PodFact},
    live::{Credited, LiveList},
    request::CacheKey,
    retry::after,
};
use crate::api::ImageCacheStatus;

/// The Job, and the `ConfigMap` that remembers its reports.
pub const NAME: &str = "imagecache-gc";

const MINUTE: Duration = Duration::from_mins(1);

/// The operator's settings of collections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between two collections that nothing else calls for. Unset: none.
    pub interval: Option<Duration>,
    /// How long a blob that nobody needs stays under its name.
    pub grace: Duration,
    /// After a deletion others are waited for, and this long at most.
    pub quiet: Duration,
    pub patience: Duration,
    /// The first one after nothing is remembered.
    pub first: Duration,
    /// After a run that changed nothing the next one waits so long at least, whatever it is to follow up.
    pub spacing: Duration,
    /// A pod that did not start after this is given up.
    pub pending: Duration,
    /// Ages inside the store are not waited for: for tests on a local disk.
    pub no_waiting: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            interval: Some(MINUTE * 360),
            grace: MINUTE * 60,
            quiet: Duration::from_secs(30),
            patience: MINUTE * 5,
            first: MINUTE * 10,
            spacing: MINUTE * 10,
            pending: MINUTE * 10,
            no_waiting: false,
        }
    }
}

/// What the `ConfigMap` holds: the last Job whose end was seen, and the last report that could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// UID of that Job.
    pub job: String,
    /// When it was made; its list is not older.
    pub started: Timestamp,
    pub ended: Timestamp,
    /// Jobs in a row that failed, or refused to sweep.
    #[serde(default)]
    pub troubles: u32,
    /// Why that Job failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Of this Job or of an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// When the Job of that report was made.
    #[serde(default)]
    pub reported: Timestamp,
}

impl Record {
    /// What is remembered of a Job that ended.
    pub fn of(job: &GcJob, result: Result<Report, String>, before: Option<&Self>, now: Timestamp) -> Self {
        let fine = result.as_ref().is_ok_and(|report| report.refused.is_empty());
        let troubles = before.map_or(0, |before| before.troubles);
        let mut record = Self {
            job: job.uid.clone(),
            started: job.created,
            ended: now,
            troubles: if fine { 0 } else { troubles.saturating_add(1) },
            failure: None,
            report: before.and_then(|before| before.report.clone()),
            reported: before.map(|before| before.reported).unwrap_or_default(),
        };
        match result {
            Ok(report) => (record.report, record.reported) = (Some(report.bounded()), job.created),
            Err(why) => record.failure = Some(why),
        }
        record
    }

    /// The newest run of gc whose report was read.
    pub fn last_gc(&self) -> Option<&str> {
        let report = self.report.as_ref()?;
        (!report.gc.is_empty()).then_some(report.gc.as_str())
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct GcJob {
    pub uid: String,
    pub resource_version: String,
    pub created: Timestamp,
    pub deleting: bool,
    pub state: JobState,
    pub pod: Option<PodFact>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Situation {
    pub job: Option<GcJob>,
    pub record: Option<Record>,
    /// Since when this process leads.
    pub leading: Timestamp,
    /// The first and the last deletion since the last list was made.
    pub deletions: Option<(Timestamp, Timestamp)>,
    /// When a pull last failed because the volume is full.
    pub no_space: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Wait,
    /// The Job ended: read what it left, and remember that.
    Collect,
    /// The pod never started: remember why, then remove the Job.
    GiveUp(String),
    /// Remembered: it makes room for the next one.
    Remove,
    Start,
}

pub fn next(situation: &Situation, pace: &Pace, now: Timestamp) -> Step {
    let Some(job) = &situation.job else {
        return if due(situation, pace) <= now { Step::Start } else { Step::Wait };
    };
    let remembered = situation.record.as_ref().is_some_and(|record| record.job == job.uid);
    match &job.state {
        _ if job.deleting => Step::Wait,
        // Given up before: the removal did not succeed.
        JobState::Active if remembered => Step::Remove,
        JobState::Active => match &job.pod {
            Some(pod) if pod.started.is_some() => Step::Wait,
            _ if now < after(job.created, pace.pending) => Step::Wait,
            pod => Step::GiveUp(held_up(pod.as_ref())),
        },
        _ if !remembered => Step::Collect,
        // Until then people may look at its log.
        _ if due(situation, pace) <= now => Step::Remove,
        _ => Step::Wait,
    }
}

fn held_up(pod: Option<&PodFact>) -> String {
    let Some(pod) = pod else { return "its pod was not made".to_owned() };
    let waiting = pod.waiting.as_ref().map(|(reason, message)| format!("{reason} {message}"));
    let why =
        waiting.or_else(|| pod.unschedulable.clone()).unwrap_or_else(|| "no reason is known".to_owned());
    format!("its pod did not start: {}", why.trim())
}

/// When the next one is due.
fn due(situation: &Situation, pace: &Pace) -> Timestamp {
    let record = situation.record.as_ref();
    let started = record.map(|record| record.started);
    let unanswered = |time: &Timestamp| started.is_none_or(|started| *time >= started);
    // Seen by another clock than the one that dates Jobs. What a list answered is forgotten by who made it; this is
    // for the others.
    let deletion = situation.deletions.filter(|(_, last)| unanswered(&after(*last, MINUTE)));
    let deletion = deletion.map(|(first, last)| after(last, pace.quiet).min(after(first, pace.patience)));
    let schedule = pace.interval.map(|interval| match started {
        Some(started) => after(started, interval),
        None => after(situation.leading, interval.min(pace.first)),
    });
    let calls =
        [deletion, situation.no_space.filter(unanswered), schedule, record.and_then(|r| follow_up(r, pace))];
    let called = calls.into_iter().flatten().min().unwrap_or(Timestamp::MAX);
    called.max(record.map_or(Timestamp::MIN, |record| not_before(record, pace)))
}

/// After trouble later and later; after a run that changed nothing not at once, except for what was deleted since.
fn not_before(record: &Record, pace: &Pace) -> Timestamp {
    if record.troubles == 0 {
        return record.ended;
    }
    let most = pace.interval.unwrap_or(MINUTE * 60).min(MINUTE * 60);
    let delay = pace.spacing.div_f64(10.0).saturating_mul(1 << record.troubles.min(10));
    after(record.ended, delay.min(most))
}

/// A collection takes several runs: a mark has to age, then what was taken out. Ages are counted by the clock of the
/// volume, so that only their length is taken over.
fn follow_up(record: &Record, pace: &Pace) -> Option<Timestamp> {
    if record.troubles > 0 {
        return Some(record.ended);
    }
    let report = record.report.as_ref()?;
    // It said which store this is, so that the next one gets a list.
    if !report.listed && !report.store.is_empty() {
        return Some(after(record.ended, pace.spacing / 10));
    }
    let ends = [report.condemned_until, report.waiting_until, report.young_until];
    let first = ends.into_iter().flatten().min()?;
    let left = Duration::try_from(first.duration_since(report.at)).unwrap_or_default();
    let least = if report.is_idle() { pace.spacing } else { pace.spacing / 10 };
    Some(after(record.ended, left.max(least)))
}

/// The list, from all objects that there are. The store is the one that the newest credit is in; without any, the one
/// that is known otherwise. None: no store is known, and nothing can be said about living caches.
pub fn live_list<'a>(
    objects: impl IntoIterator<Item = (CacheKey, Option<&'a ImageCacheStatus>)>,
    record: Option<&Record>,
    mirror: Option<String>,
) -> Option<LiveList> {
    let mut caches = BTreeMap::new();
    let mut newest: Option<(Timestamp, String)> = None;
    for (cache, status) in objects {
        let ledger = status.and_then(|status| status.ledger.as_ref());
        // Kept without content: its bytes go like those of one that is deleted.
        if status.is_some_and(|status| status.phase.as_deref() == Some("Expired"))
            && ledger.is_some_and(|ledger| ledger.root.is_none() && !ledger.open)
        {
            continue;
        }
        let root = ledger.and_then(|ledger| ledger.root.as_ref());
        if let Some((root, store)) = root.zip(ledger.and_then(|ledger| ledger.store_id.clone()))
            && newest.as_ref().is_none_or(|(at, _)| root.at.0 > *at)
        {
            newest = Some((root.at.0, store));
        }
        // One whose digest was bent by hand lives, and so do all of its runs.
        let credited = root.and_then(|root| {
            Some(Credited { run: u64::try_from(root.run).ok()?, root: root.digest.parse().ok()? })
        });
        caches.insert(cache, credited);
    }
    let reported = record.and_then(|record| record.report.as_ref()).map(|report| report.store.clone());
    let known = [newest.map(|(_, store)| store), reported, mirror];
    let store = known.into_iter().flatten().find(|store| !store.is_empty())?;
    let last_gc = record.and_then(|record| record.last_gc().map(str::to_owned));
    Some(LiveList { store, last_gc, caches })
}

#[cfg(test)]
mod tests;
