//! The whole wanted status, from where the cache stands. Reported facts are carried over from the old status; all of
//! it stays under 64 KiB by construction, and is unchanged when nothing happened.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{
    conditions::{self, FRESH, READY, SNAPSHOT},
    facts::Facts,
    images::{MAX_NAME, Seen, to_i64},
    judge::Judged,
    names,
    plan::{Event, Outlook, Told},
    refresh::has_tags,
    report::{ImageOutcome, Outcome},
    snapshot::Said,
    stage::{Stage, Standing},
    text::{bytes, cut, images},
};
use crate::api::{
    ImageCacheStatus,
    image_cache::{CacheEvent, Ledger},
};

/// With room for what the API server adds.
const MAX_STATUS: usize = 60 * 1024;
const MAX_EVENTS: usize = 50;
const MAX_NOTICES: usize = 20;
const MAX_NOTICE: usize = 300;
const MAX_EVENT: usize = 320;
const MAX_CONDITION: usize = 1000;
/// The worker's notices carry this, so that they are known again and kept until the next success.
const WORKER: &str = "pull: ";

/// What `plan` decided, to be told.
pub(super) struct Telling<'a> {
    pub judged: &'a Judged,
    pub facts: &'a Facts,
    pub ledger: Ledger,
    pub standing: Standing,
    /// The report that was collected in this pass.
    pub outcome: Option<&'a Outcome>,
    pub expires: Option<Timestamp>,
    pub now: Timestamp,
    pub snapshot: Outlook,
}

impl Telling<'_> {
    pub(super) fn status(mut self) -> (ImageCacheStatus, Vec<Event>) {
        if self.standing.stage == Stage::Preparing(None)
            && let Some(percent) = self.moved()
        {
            self.standing.stage = Stage::Pulling { percent };
        }
        let old = &self.facts.status;
        let object = &self.judged.object;
        let size = self.outcome.filter(|outcome| outcome.root.is_some()).map(|outcome| to_i64(outcome.size));
        let (images, changes) = {
            let seen = self.seen();
            let images = seen.images();
            let changes = seen.changes(&images);
            (images, changes)
        };
        let fresh = self.fresh();
        let size = size.or(old.size).filter(|_| self.ledger.root.is_some());
        let message = cut(&self.message(images.len(), size), MAX_CONDITION);
        let reason = self.standing.reason();
        let notices = self.notices();
        let mut events = self.events(&message, &notices);
        events.extend(changes);
        events.extend(self.freshness(fresh.as_ref()));
        let more: Vec<conditions::Row<'_>> = fresh
            .iter()
            .map(|(holds, reason, message)| (FRESH, *holds, reason.as_str(), message.as_str()))
            .collect();
        let mut conditions = conditions::conditions(
            &self.standing,
            &message,
            &more,
            object.generation,
            &old.conditions,
            self.now,
        );
        conditions.extend(self.snapshot_condition());
        let mut status = ImageCacheStatus {
            phase: Some(self.standing.phase().to_owned()),
            reason: (!self.standing.is_ready()).then(|| reason.to_owned()),
            progress: Some(format!("{}%", self.percent())),
            image_cache_id: Some(names::image_cache_id(&object.uid)),
            start_time: old.start_time.clone().or(Some(Time(self.now))),
            last_updated_time: old.last_updated_time.clone(),
            expire_date_time: self.expires.map(Time),
            observed_generation: Some(object.generation),
            conditions,
            images,
            size,
            notices,
            events: self.history(&events),
            snapshot: self.snapshot.shown.clone(),
            ledger: Some(self.ledger),
        };
        fit(&mut status);
        if status != *old {
            status.last_updated_time = Some(Time(self.now));
        }
        (status, events)
    }

    /// How far this run has come by the old status.
    fn before(&self) -> Option<u8> {
        let old = &self.facts.status;
        let same_run = old.ledger.as_ref().is_some_and(|ledger| ledger.run == self.ledger.run);
        old.progress.as_deref().filter(|_| same_run)?.strip_suffix('%')?.parse().ok()
    }

    /// What moved has moved: a controller that was just started, or a worker in the place of an evicted one, has
    /// not reported yet.
    fn moved(&self) -> Option<u8> {
        let ready = conditions::find(&self.facts.status.conditions, READY)?;
        self.before().filter(|_| ready.reason == "Pulling")
    }

    /// Of bytes; within one run it never goes back. With snapshots a pull is four fifths of it, and a cache that is
    /// ready before its snapshot is below 100 %, as ECI says of its flash snapshots.
    fn percent(&self) -> u8 {
        let before = self.before().unwrap_or_default();
        let said = match &self.snapshot.told {
            Told::Said(said) => said.percent,
            Told::Nothing | Told::AsBefore => None,
        };
        match self.standing.stage {
            Stage::Ready => said.map_or(100, |percent| percent.max(before)),
            Stage::Snapshotting { .. } => said.unwrap_or_default().max(before).min(99),
            Stage::Pulling { percent } if said.is_some() => {
                u8::try_from(u16::from(percent) * 4 / 5).unwrap_or(80).max(before).min(99)
            }
            Stage::Pulling { percent } => percent.max(before).min(99),
            _ => before.min(99),
        }
    }

    fn snapshot_condition(&self) -> Option<Condition> {
        let (old, generation) = (&self.facts.status.conditions, self.judged.object.generation);
        match &self.snapshot.told {
            Told::Nothing => None,
            Told::AsBefore => conditions::find(old, SNAPSHOT)
                .map(|before| Condition { observed_generation: Some(generation), ..before.clone() }),
            Told::Said(said) => {
                let message = cut(&said.message, MAX_CONDITION);
                let one =
                    conditions::one(SNAPSHOT, said.taken, said.reason, &message, generation, old, self.now);
                Some(one)
            }
        }
    }

    fn message(&self, n: usize, size: Option<i64>) -> String {
        let failure = self.ledger.failure.as_ref().map(|failure| failure.message.clone());
        let before =
            || conditions::find(&self.facts.status.conditions, READY).map(|ready| ready.message.clone());
        match &self.standing.stage {
            Stage::Ready => {
                format!(
                    "{}, {}",
                    images(n),
                    bytes(size.and_then(|n| u64::try_from(n).ok()).unwrap_or_default())
                )
            }
            Stage::Expired => {
                "past its retention and kept without content: edit or refresh it to pull it again".to_owned()
            }
            Stage::Snapshotting { .. } => match &self.snapshot.told {
                Told::Said(said) => format!("complete; Ready when its snapshot is: {}", said.message),
                Told::Nothing | Told::AsBefore => before().unwrap_or_default(),
            },
            Stage::Invalid(why) | Stage::SecretMissing(Some(why)) => why.clone(),
            Stage::SecretMissing(None) => before().unwrap_or_default(),
            stage => match (failure, stage) {
                (Some(failure), _) => failure,
                (None, Stage::Preparing(Some(detail))) => format!("the pull pod waits: {detail}"),
                (None, _) if self.standing.content => {
                    "what was edited is pulled; until then the old content is served".to_owned()
                }
                (None, _) if self.standing.lost => {
                    "the store does not have the content any more; it is pulled again".to_owned()
                }
                (None, Stage::Queued(Some(why))) => why.clone(),
                (None, Stage::Queued(None)) => "waits until other pulls are done".to_owned(),
                (None, Stage::Preparing(None)) => "the pull starts".to_owned(),
                (None, _) => format!("{} being pulled", images(n)),
            },
        }
    }

    fn seen(&self) -> Seen<'_> {
        Seen {
            before: &self.facts.status.images,
            had: self.facts.status.ledger.as_ref().is_some_and(|ledger| ledger.root.is_some()),
            ledger: &self.ledger,
            request: self.judged.request.as_ref().ok(),
            outcome: self.outcome,
            now: self.now,
        }
    }

    /// Whether the registries said last what the tags mean. Nothing is said without content.
    fn fresh(&self) -> Option<(bool, String, String)> {
        self.ledger.root.as_ref()?;
        let failure = self.ledger.refresh.as_ref().and_then(|refresh| refresh.failure.as_ref());
        if let Some(failure) = failure {
            let kept = "not refreshed, the last good content stays";
            return Some((
                false,
                failure.class.clone(),
                cut(&format!("{kept}: {}", failure.message), MAX_CONDITION),
            ));
        }
        let (reason, message) = match &self.judged.request {
            Ok(request) if !has_tags(&request.images) => ("Pinned", "every image is named by its digest"),
            _ => ("Resolved", "the tags mean what the registries last said"),
        };
        Some((true, reason.to_owned(), message.to_owned()))
    }

    fn notices(&self) -> Vec<String> {
        let mut notices: Vec<String> =
            self.judged.notices.iter().map(|notice| cut(notice, MAX_NOTICE)).collect();
        if self.facts.mirror.as_ref().is_some_and(|mirror| self.ledger.differs(mirror)) {
            notices
                .push("the mirror serves another store than the one this cache was pulled into".to_owned());
        }
        if let Told::Said(said) = &self.snapshot.told
            && matches!(said.reason, "NoSnapshotApi" | "Forbidden")
        {
            notices.push(cut(&format!("snapshots: {}", said.message), MAX_NOTICE));
        }
        let told = |outcome: &&&Outcome| outcome.root.is_some() || self.ledger.root.is_none();
        if let Some(outcome) = self.outcome.as_ref().filter(told) {
            notices
                .extend(outcome.notices.iter().map(|notice| cut(&format!("{WORKER}{notice}"), MAX_NOTICE)));
        } else {
            let workers = self.facts.status.notices.iter().filter(|notice| notice.starts_with(WORKER));
            notices.extend(workers.cloned());
        }
        notices.dedup();
        if notices.len() > MAX_NOTICES {
            let more = notices.len() - (MAX_NOTICES - 1);
            notices.truncate(MAX_NOTICES - 1);
            notices.push(format!("and {more} more"));
        }
        notices
    }

    /// What is new since the old status, so that a restart repeats nothing.
    fn events(&self, message: &str, notices: &[String]) -> Vec<Event> {
        let old = &self.facts.status;
        let ready = conditions::find(&old.conditions, READY);
        let reason = self.standing.reason();
        let warning = !self.standing.is_ready()
            && (self.standing.is_stalled() || self.standing.failure.is_some() || self.standing.lost);
        let mut events = Vec::new();
        let said =
            ready.is_some_and(|ready| ready.reason == reason && (!warning || ready.message == message));
        if !said {
            let message = match self.outcome.filter(|_| self.standing.is_ready()) {
                Some(outcome) => format!("{message}; {}", shares(outcome)),
                None => message.to_owned(),
            };
            events.push(Event { warning, reason: reason.to_owned(), message: cut(&message, MAX_CONDITION) });
        }
        if let Told::Said(said) = &self.snapshot.told
            && (said.taken || said.warning)
            && conditions::find(&old.conditions, SNAPSHOT).is_none_or(|before| before.reason != said.reason)
        {
            let message = cut(&said.message, MAX_CONDITION);
            events.push(Event { warning: said.warning, reason: event_reason(said), message });
        }
        let new: Vec<&str> =
            notices.iter().filter(|notice| !old.notices.contains(notice)).map(String::as_str).collect();
        if !new.is_empty() {
            let message = cut(&new.join("; "), MAX_CONDITION);
            events.push(Event { warning: true, reason: "Notice".to_owned(), message });
        }
        events
    }

    /// That the registries could not be asked any more, why, and that they can be again.
    fn freshness(&self, fresh: Option<&(bool, String, String)>) -> Option<Event> {
        let (holds, reason, message) = fresh?;
        let old = conditions::find(&self.facts.status.conditions, FRESH);
        let was = old.is_none_or(|old| old.status == "True");
        match (was, holds) {
            (false, true) => {
                Some(Event { warning: false, reason: "Refreshed".to_owned(), message: message.clone() })
            }
            (_, false) if was || old.is_some_and(|old| old.reason != *reason) => {
                Some(Event { warning: true, reason: "RefreshFailed".to_owned(), message: message.clone() })
            }
            _ => None,
        }
    }

    fn history(&self, events: &[Event]) -> Vec<CacheEvent> {
        let event = |name: &str, warning: bool, reason: &str, message: &str| CacheEvent {
            name: cut(name, MAX_NAME),
            type_: if warning { "Warning" } else { "Normal" }.to_owned(),
            reason: reason.to_owned(),
            message: cut(message, MAX_EVENT),
            timestamp: Some(Time(self.now)),
        };
        let name = cut(&self.judged.object.name, 64);
        let mut history = self.facts.status.events.clone();
        let done = self.outcome.filter(|outcome| outcome.root.is_some());
        let seen = self.seen();
        for image in done.iter().flat_map(|outcome| &outcome.images).filter(|image| seen.is_news(image)) {
            let message = format!("Success pull image {}, {}", image.reference, bytes(image.size));
            history.push(event(&cut(&image.reference.to_string(), 64), false, "Pulled", &message));
        }
        history.extend(events.iter().map(|e| event(&name, e.warning, &e.reason, &e.message)));
        history.split_off(history.len().saturating_sub(MAX_EVENTS))
    }
}

fn event_reason(said: &Said) -> String {
    if said.taken { "SnapshotReady".to_owned() } else { said.reason.to_owned() }
}

fn shares(outcome: &Outcome) -> String {
    let sum = |part: fn(&ImageOutcome) -> u64| outcome.images.iter().map(part).fold(0, u64::saturating_add);
    format!("{} pulled, {} reused", bytes(sum(|image| image.pulled)), bytes(sum(|image| image.reused)))
}

/// The oldest events go first.
fn fit(status: &mut ImageCacheStatus) {
    let size = |status: &ImageCacheStatus| serde_json::to_vec(status).map_or(0, |json| json.len());
    while size(status) > MAX_STATUS && !status.events.is_empty() {
        let oldest = status.events.len().div_ceil(4);
        status.events.drain(..oldest);
    }
}
