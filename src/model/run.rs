//! What became of a run, read from its Job and pod: the worker's own report first, then what Kubernetes says of the
//! container, then of the Job. A Job ends without any condition when its image cannot be pulled or its pod is
//! refused, so time limits are judged here as well.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    class::{Class, EXIT_STOPPED},
    digest::Digest,
    facts::{Exit, JobFact, JobState, PodFact},
    failure::Failure,
    report::Outcome,
    retry::after,
    settings::Settings,
};

#[derive(Clone, Debug, PartialEq)]
pub enum RunState<'a> {
    /// It is being deleted.
    Going,
    /// No bytes yet; why, if something holds it up.
    Preparing {
        detail: Option<String>,
        until: Timestamp,
    },
    Pulling {
        percent: u8,
        until: Timestamp,
    },
    /// Complete, durable and verified, under this root.
    Succeeded(&'a Digest, &'a Outcome),
    /// The report, where there is one, says more about each image.
    Failed(Failure, Option<&'a Outcome>),
    /// The store knows a higher run.
    Refused(u64),
}

pub fn look<'a>(job: &'a JobFact, settings: &Settings, now: Timestamp) -> RunState<'a> {
    look_at("pull", job, settings, now)
}

/// The same of a Job that is no pull: `what` it is, in one word.
pub fn look_at<'a>(what: &str, job: &'a JobFact, settings: &Settings, now: Timestamp) -> RunState<'a> {
    if job.deleting {
        return RunState::Going;
    }
    let exit = job.pod.as_ref().and_then(|pod| pod.exit.as_ref());
    if let Some(outcome) = exit.and_then(|exit| report(exit, job.run)) {
        if let Some(higher) = outcome.higher_run {
            return RunState::Refused(higher);
        }
        if let (Some(root), None) = (&outcome.root, &outcome.failure) {
            return RunState::Succeeded(root, outcome);
        }
    }
    match &job.state {
        JobState::Active => active(what, job, settings, now),
        JobState::Succeeded { .. } => {
            let lost = "the worker's report was lost; the next run finds what is complete";
            RunState::Failed(Failure::new(Class::Unknown, lost), None)
        }
        JobState::Failed { reason, message, .. } => {
            let outcome = exit.and_then(|exit| report(exit, job.run));
            let failure = failed(what, job.pod.as_ref(), outcome, reason, message);
            RunState::Failed(failure, outcome)
        }
    }
}

fn report(exit: &Exit, run: u64) -> Option<&Outcome> {
    exit.outcome.as_ref().filter(|outcome| outcome.run == run)
}

fn failed(
    what: &str,
    pod: Option<&PodFact>,
    outcome: Option<&Outcome>,
    reason: &str,
    message: &str,
) -> Failure {
    if let Some(failure) = outcome.and_then(|outcome| outcome.failure.clone()) {
        return failure;
    }
    if reason == "DeadlineExceeded" {
        return Failure::new(Class::Timeout, format!("the {what} took longer than its Job may"));
    }
    let Some(pod) = pod else {
        return Failure::new(Class::Evicted, format!("the {what} pod was deleted"));
    };
    if let Some(exit) = &pod.exit {
        if exit.oom || exit.code == 137 {
            return Failure::new(
                Class::OutOfMemory,
                format!("the {what} pod ran out of memory (exit code 137)"),
            );
        }
        if exit.code == i32::from(EXIT_STOPPED) {
            return Failure::new(Class::Evicted, format!("the {what} pod was told to stop"));
        }
        if let Some(class) = Class::from_exit_code(exit.code) {
            return Failure::new(class, format!("{}; its report was lost", class.phrase()));
        }
    }
    if let (Some(why), None, None) = (&pod.unschedulable, &pod.disrupted, &pod.exit) {
        return Failure::new(no_place(why), format!("the {what} pod got no place to run: {why}"));
    }
    if let Some(why) = &pod.disrupted {
        return Failure::new(Class::Evicted, format!("the {what} pod was evicted: {why}"));
    }
    if let Some(exit) = &pod.exit {
        return Failure::new(Class::Unknown, format!("the worker ended with exit code {}", exit.code));
    }
    Failure::new(Class::Unknown, format!("the {what} Job failed: {reason}: {message}"))
}

fn active(what: &str, job: &JobFact, settings: &Settings, now: Timestamp) -> RunState<'static> {
    let Some(pod) = &job.pod else {
        let detail = job.no_pod.clone();
        let until = after(job.created, settings.pending);
        if now < until {
            return RunState::Preparing { detail, until };
        }
        let class = match &detail {
            Some(text) if text.contains("exceeded quota") => Class::Quota,
            _ => Class::Scheduling,
        };
        let why = detail.as_deref().unwrap_or("no reason is known");
        return ended(class, &format!("no {what} pod was made for {}: {why}", minutes(settings.pending)));
    };
    if pod.exit.is_some() {
        // The Job's condition, or a replacement after an eviction, follows at once.
        return RunState::Preparing { detail: None, until: after(now, Duration::from_secs(10)) };
    }
    let Some(started) = pod.started else { return waiting(what, pod, settings, now) };
    let moved = job.progress.as_ref().map_or(started, |progress| progress.changed.max(started));
    let until = after(moved, settings.no_progress);
    if now >= until {
        let done = job.progress.as_ref().map_or(0, |progress| progress.report.all.done);
        return ended(
            Class::Timeout,
            &format!("no byte came for {}, after {done} bytes", minutes(settings.no_progress)),
        );
    }
    match job.progress.as_ref().map(|progress| progress.report.all) {
        Some(all) if all.done > 0 => {
            let percent = u128::from(all.done) * 100 / u128::from(all.total.max(1));
            RunState::Pulling { percent: u8::try_from(percent.min(99)).unwrap_or(99), until }
        }
        _ => RunState::Preparing { detail: None, until },
    }
}

fn waiting(what: &str, pod: &PodFact, settings: &Settings, now: Timestamp) -> RunState<'static> {
    let until = after(pod.created, settings.pending);
    // These two are on the way of every pod and hold up none.
    let usual = |reason: &str| matches!(reason, "" | "ContainerCreating" | "PodInitializing");
    let waits =
        pod.waiting.as_ref().and_then(|(reason, message)| match (usual(reason), message.is_empty()) {
            (true, true) => None,
            (false, true) => Some(reason.clone()),
            (_, false) => Some(format!("{reason}: {message}")),
        });
    let detail = waits.or_else(|| pod.unschedulable.clone());
    if now < until {
        return RunState::Preparing { detail, until };
    }
    let image = ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"];
    let class = match &pod.waiting {
        Some((reason, _)) if image.contains(&reason.as_str()) => Class::WorkerImage,
        _ => detail.as_deref().map_or(Class::Scheduling, no_place),
    };
    let why = detail.as_deref().unwrap_or("no reason is known");
    ended(class, &format!("the {what} pod did not start for {}: {why}", minutes(settings.pending)))
}

/// What the account may not have, or what the cloud does not have. Source: ECI, "custom events".
fn no_place(why: &str) -> Class {
    let quota = ["QuotaExceeded", "DiskCapacityQuotaFull", "InsufficientBalance", "exceeded quota"];
    if quota.iter().any(|reason| why.contains(reason)) { Class::Quota } else { Class::Scheduling }
}

fn ended(class: Class, message: &str) -> RunState<'static> {
    RunState::Failed(Failure::new(class, message), None)
}

fn minutes(d: Duration) -> String {
    format!("{} minutes", d.as_secs() / 60)
}
