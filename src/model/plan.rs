//! What to do next: a pure function of the judged object, the facts, the settings and the time. The order of the
//! checks in `Course::walk` is the documentation of a cache's life.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub use super::action::{Action, Again, DeleteObject, Event, JobId, Plan, SnapshotStep, StartRun};
use super::{
    class::Class,
    facts::{Facts, JobFact, JobState},
    failure::Failure,
    judge::{CacheRequest, Judged},
    report::Outcome,
    retry::{self, after},
    run::{self, RunState},
    secrets::Secrets,
    settings::Settings,
    stage::{Stage, Standing},
    status::Telling,
    text,
};
use crate::api::image_cache::{Ledger, LedgerFailure};

mod credentials;
mod expiry;
mod export;
mod refresh;
mod snapshot;
mod start;

pub use snapshot::{Needs, snapshot_needs};
pub(super) use snapshot::{Outlook, Told};

/// A running worker's log is read this often. Everything else about it comes from watches.
const PROGRESS: Duration = Duration::from_secs(2);

/// Whether the pull secrets must be read before `plan` is asked. Everything else in `facts` is there already.
pub fn needs_secrets(judged: &Judged, facts: &Facts, settings: &Settings, now: Timestamp) -> bool {
    let Ok(request) = &judged.request else { return false };
    if request.secrets.is_empty() || judged.object.deleting {
        return false;
    }
    let mut course = Course::new(judged, facts, settings, now);
    course.walk();
    course.asked_for_secrets
}

/// Whether the API server's clock must be asked before `plan` is: something ends now, by ours.
pub fn needs_clock(judged: &Judged, facts: &Facts, settings: &Settings, now: Timestamp) -> bool {
    let mut course = Course::new(judged, facts, settings, now);
    if !judged.object.deleting {
        course.walk();
    }
    course.asked_for_clock
}

pub fn plan(judged: &Judged, facts: &Facts, settings: &Settings, now: Timestamp) -> Plan {
    let unchanged =
        || Plan { actions: vec![], status: facts.status.clone(), events: vec![], again: Again::OnChange };
    if judged.object.deleting {
        return unchanged();
    }
    let mut course = Course::new(judged, facts, settings, now);
    let stage = match course.walk() {
        Walked::At(stage) => course.snapshots(stage),
        Walked::Delete(delete, event) => {
            // Asked again if the API server does not agree yet.
            let again = Again::After(Duration::from_mins(1));
            return Plan {
                actions: vec![Action::DeleteObject(delete)],
                events: vec![event],
                again,
                ..unchanged()
            };
        }
    };
    course.finish(stage)
}

enum Walked {
    At(Stage),
    Delete(DeleteObject, Event),
}

/// One pass over the facts.
struct Course<'a> {
    judged: &'a Judged,
    facts: &'a Facts,
    settings: &'a Settings,
    now: Timestamp,
    /// As it was read, and as it is to be written.
    seen: Ledger,
    ledger: Ledger,
    actions: Vec<Action>,
    outcome: Option<&'a Outcome>,
    /// The pull secrets decide about this pass.
    asked_for_secrets: bool,
    /// The API server's clock decides about this pass.
    asked_for_clock: bool,
    soonest: Option<Timestamp>,
    snapshot: snapshot::Outlook,
}

impl<'a> Course<'a> {
    fn new(judged: &'a Judged, facts: &'a Facts, settings: &'a Settings, now: Timestamp) -> Self {
        let seen = facts.status.ledger.clone().unwrap_or_default();
        let ledger = seen.clone();
        let (actions, outcome) = (Vec::new(), None);
        Self {
            judged,
            facts,
            settings,
            now,
            seen,
            ledger,
            actions,
            outcome,
            asked_for_secrets: false,
            asked_for_clock: false,
            soonest: None,
            snapshot: snapshot::Outlook::default(),
        }
    }

    /// Come back then, or earlier.
    fn at(&mut self, then: Timestamp) {
        self.soonest = Some(self.soonest.map_or(then, |soonest| soonest.min(then)));
    }

    fn within(&mut self, delay: Duration) {
        self.at(after(self.now, delay));
    }

    fn walk(&mut self) -> Walked {
        let jobs = self.facts.jobs.iter().map(|job| job.run);
        self.ledger.recover(jobs.chain(self.facts.snapshot.runs()).max().unwrap_or_default());
        let lost = self.facts.mirror.as_ref().is_some_and(|mirror| self.ledger.is_lost(mirror));
        if lost || self.ledger.is_gone(&self.facts.gc_broken) {
            self.ledger.lose(self.now);
        }
        let judged = self.judged;
        let request = match &judged.request {
            Ok(request) => request,
            Err(invalid) => {
                let all: Vec<String> = invalid.iter().map(ToString::to_string).collect();
                self.remove_jobs(None);
                self.ledger.abandon();
                return Walked::At(Stage::Invalid(all.join("; ")));
            }
        };
        self.ledger.take_back(request, self.now);
        let stale = self.ledger.is_stale(request);
        let mut at_work = None;
        if self.ledger.open && !stale {
            at_work = self.collect(request);
        }
        if let Some(ended) = self.end_of_life(request) {
            self.remove_jobs(None);
            return ended;
        }
        let live = at_work.is_some().then_some(self.ledger.run);
        self.remove_jobs(live);
        let reached = if let Some(stage) = at_work {
            self.keep_credentials(request);
            self.ledger.secrets_missing = None;
            stage
        } else {
            // What ended may have been wanted again.
            let stale = self.ledger.is_stale(request);
            self.go_on(request, stale)
        };
        // Whatever becomes of a refresh, the content is there.
        Walked::At(if self.ledger.is_refreshing() { Stage::Ready } else { reached })
    }

    fn job(&self) -> Option<&'a JobFact> {
        let run = u64::try_from(self.ledger.run).ok()?;
        self.facts.jobs.iter().find(|job| job.run == run)
    }

    /// Looks after the Job of the open run; a stage if it is still at work.
    fn collect(&mut self, request: &CacheRequest) -> Option<Stage> {
        let Some(job) = self.job() else {
            self.collect_login(request);
            return None;
        };
        match run::look(job, self.settings, self.now) {
            RunState::Going => {
                self.within(Duration::from_secs(10));
                Some(Stage::Preparing(None))
            }
            RunState::Preparing { detail, until } => {
                self.at(until);
                if job.pod.as_ref().is_some_and(|pod| pod.started.is_some()) {
                    self.within(PROGRESS);
                }
                Some(Stage::Preparing(detail))
            }
            RunState::Pulling { percent, until } => {
                self.at(until);
                self.within(PROGRESS);
                Some(Stage::Pulling { percent })
            }
            RunState::Refused(higher) => {
                self.ledger.skip_to_after(higher);
                None
            }
            RunState::Succeeded(root, outcome) => {
                self.await_snapshot(request, outcome);
                self.ledger.credit(root, outcome, self.facts.mirror.as_ref(), self.ended(job));
                self.outcome = Some(outcome);
                None
            }
            RunState::Failed(failure, outcome) => {
                let message = text::failed(&failure, outcome, request.dialect);
                self.ledger.fail(&failure, &message, request, self.ended(job));
                self.outcome = outcome;
                None
            }
        }
    }

    /// Now, and when the Job ended if its clocks are ahead of ours: retention never counts from a clock that is behind.
    fn ended(&self, job: &JobFact) -> (Timestamp, Timestamp) {
        let at = match job.state {
            JobState::Active => job.created,
            JobState::Succeeded { at } | JobState::Failed { at, .. } => at,
        };
        (self.now, self.now.max(job.created).max(at))
    }

    /// All Jobs but the live one: of older runs, of runs that are written down, and those nobody remembers.
    fn remove_jobs(&mut self, live: Option<i64>) {
        let live = live.and_then(|run| u64::try_from(run).ok());
        let gone = self.facts.jobs.iter().filter(|job| !job.deleting && Some(job.run) != live);
        self.actions.extend(gone.map(|job| Action::RemoveRun {
            run: job.run,
            job: JobId {
                name: job.name.clone(),
                uid: job.uid.clone(),
                resource_version: job.resource_version.clone(),
            },
        }));
    }

    /// Whether it is too early for another try. If not, or if new secrets may help, these are asked for.
    fn waits(&mut self, request: &CacheRequest, failure: &LedgerFailure) -> bool {
        let due = |full| retry::due(failure, self.judged.object.uid.as_str(), full, self.settings);
        let (early, due) = (due(false), due(self.facts.queue.is_full(self.settings)));
        let by_secrets =
            matches!(retry::class(failure), Class::Auth | Class::NotFound | Class::SecretMissing);
        self.asked_for_secrets = by_secrets || due <= self.now;
        let renewed = by_secrets
            && matches!(self.secrets(request), Secrets::Found(versions) if versions != self.ledger.secrets);
        // A failure of the future was seen by a clock that was ahead, and is no reason to wait for it.
        let waits = due > self.now && failure.last.0 <= self.now && !renewed;
        if waits {
            // By then the queue may have room.
            self.at(if early > self.now { early } else { due });
            if by_secrets && !request.secrets.is_empty() {
                self.within(Duration::from_mins(5));
            }
        }
        waits
    }

    /// No Job is at work for what is asked: rest, wait, open a run, or start it.
    fn go_on(&mut self, request: &CacheRequest, stale: bool) -> Stage {
        let idle = !self.ledger.open && !stale;
        let resized = idle && self.ledger.is_resized(request);
        if resized {
            // An edit that no other input shows.
        } else if idle && let Some(failure) = self.ledger.failure.clone() {
            if self.waits(request, &failure) {
                return Stage::Waiting;
            }
        } else if idle && self.ledger.root.is_some() {
            self.ledger.secrets_missing = None;
            return self.refresh(request);
        } else if idle && let Some(loss) = &self.ledger.lost {
            let due = retry::due_after_loss(loss, self.judged.object.uid.as_str(), self.settings);
            if due > self.now {
                self.at(due);
                return Stage::Waiting;
            }
        }
        self.asked_for_secrets = true;
        let versions = match self.secrets(request) {
            Secrets::Found(versions) => versions,
            Secrets::Unread => {
                self.within(Duration::from_secs(5));
                let waits = self.ledger.secrets_missing.is_some();
                return if waits { Stage::SecretMissing(None) } else { Stage::Preparing(None) };
            }
            Secrets::Missing(why) if self.ledger.is_refreshing() => {
                let failure = Failure::new(Class::SecretMissing, why.clone());
                self.ledger.fail(&failure, &why, request, (self.now, self.now));
                return self.refresh(request);
            }
            Secrets::Missing(why) => {
                let since = self.ledger.secrets_missing.get_or_insert(Time(self.now)).0;
                self.within(retry::secrets_again(since, self.now));
                return Stage::SecretMissing(Some(why));
            }
        };
        self.ledger.secrets_missing = None;
        if !self.ledger.open || stale {
            self.ledger.open(request, versions);
            if resized {
                self.ledger.failure = None;
            }
        } else {
            self.ledger.secrets = versions;
        }
        self.start(request)
    }

    fn finish(mut self, stage: Stage) -> Plan {
        self.remove_secrets();
        let failure = self.ledger.failure.clone();
        let stalls_at = failure.as_ref().map(|failure| retry::stalls_at(failure, self.settings));
        if let Some(at) = stalls_at.filter(|at| *at > self.now) {
            self.at(at);
        }
        let standing = Standing {
            content: self.has_content(),
            lost: self.ledger.root.is_none() && self.ledger.answered,
            failure: failure.as_ref().map(retry::class),
            stalled: stalls_at.is_some_and(|at| at <= self.now),
            stage,
        };
        let request = self.judged.request.as_ref().ok();
        let expires = request.and_then(|r| self.ledger.expires(r).or_else(|| self.gives_up(r)));
        let (judged, facts, now, outcome) = (self.judged, self.facts, self.now, self.outcome);
        let snapshot = self.snapshot;
        let telling =
            Telling { judged, facts, ledger: self.ledger, standing, outcome, expires, now, snapshot };
        let (status, events) = telling.status();
        let wait = |then: Timestamp| Duration::try_from(then.duration_since(now)).unwrap_or_default();
        let again = self.soonest.map_or(Again::OnChange, |then| Again::After(wait(then)));
        Plan { actions: self.actions, status, events, again }
    }
}
