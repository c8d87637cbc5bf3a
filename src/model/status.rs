//! The whole wanted status, from where the cache stands. Reported facts are carried over from the old status; all of
//! it stays under 64 KiB by construction, and is unchanged when nothing happened.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    conditions::{self, READY},
    facts::Facts,
    judge::{CacheRequest, Judged},
    names,
    plan::Event,
    report::{ImageOutcome, Outcome, ReusedBy},
    stage::{Stage, Standing},
    text::{bytes, cut, images},
};
use crate::api::{
    ImageCacheStatus,
    image_cache::{CacheEvent, ImageStatus, Ledger, ReusedBytes},
};

const MAX_EVENTS: usize = 50;
const MAX_NOTICES: usize = 20;
const MAX_NOTICE: usize = 300;
const MAX_EVENT: usize = 320;
const MAX_NAME: usize = 420;
const MAX_ERROR: usize = 300;
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
        let request = self.judged.request.as_ref().ok();
        let size = self.outcome.filter(|outcome| outcome.root.is_some()).map(|outcome| to_i64(outcome.size));
        let images = self.images(request);
        let size = size.or(old.size).filter(|_| self.ledger.root.is_some());
        let message = cut(&self.message(images.len(), size), MAX_CONDITION);
        let reason = self.standing.reason();
        let notices = self.notices();
        let events = self.events(&message, &notices);
        let mut status = ImageCacheStatus {
            phase: Some(self.standing.phase().to_owned()),
            reason: (!self.standing.is_ready()).then(|| reason.to_owned()),
            progress: Some(format!("{}%", self.percent())),
            image_cache_id: Some(names::image_cache_id(&object.uid)),
            start_time: old.start_time.clone().or(Some(Time(self.now))),
            last_updated_time: old.last_updated_time.clone(),
            expire_date_time: self.expires.map(Time),
            observed_generation: Some(object.generation),
            conditions: conditions::conditions(
                &self.standing,
                &message,
                object.generation,
                &old.conditions,
                self.now,
            ),
            images,
            size,
            notices,
            events: self.history(&events),
            ledger: Some(self.ledger),
        };
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

    /// Of bytes; within one run it never goes back.
    fn percent(&self) -> u8 {
        let before = self.before().unwrap_or_default();
        match self.standing.stage {
            Stage::Ready => 100,
            Stage::Pulling { percent } => percent.max(before).min(99),
            _ => before.min(99),
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
                "past its retention and kept without content: edit it to pull it again".to_owned()
            }
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

    fn images(&self, request: Option<&CacheRequest>) -> Vec<ImageStatus> {
        let old = &self.facts.status.images;
        let before = |name: &str| old.iter().find(|image| image.name == name).cloned();
        if let Some(outcome) = self.outcome.filter(|outcome| !outcome.images.is_empty()) {
            return outcome.images.iter().map(|image| told(image, before)).collect();
        }
        let Some(request) = request else { return old.clone() };
        let named =
            |name: String| before(&name).unwrap_or_else(|| ImageStatus { name, ..ImageStatus::default() });
        request.images.iter().map(|image| named(cut(&image.to_string(), MAX_NAME))).collect()
    }

    fn notices(&self) -> Vec<String> {
        let mut notices: Vec<String> =
            self.judged.notices.iter().map(|notice| cut(notice, MAX_NOTICE)).collect();
        if self.facts.mirror.as_ref().is_some_and(|mirror| self.ledger.differs(mirror)) {
            notices
                .push("the mirror serves another store than the one this cache was pulled into".to_owned());
        }
        if let Some(outcome) = self.outcome {
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
        let new: Vec<&str> =
            notices.iter().filter(|notice| !old.notices.contains(notice)).map(String::as_str).collect();
        if !new.is_empty() {
            let message = cut(&new.join("; "), MAX_CONDITION);
            events.push(Event { warning: true, reason: "Notice".to_owned(), message });
        }
        events
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
        for image in done.iter().flat_map(|outcome| &outcome.images) {
            let message = format!("Success pull image {}, {}", image.reference, bytes(image.size));
            history.push(event(&cut(&image.reference.to_string(), 64), false, "Pulled", &message));
        }
        history.extend(events.iter().map(|e| event(&name, e.warning, &e.reason, &e.message)));
        history.split_off(history.len().saturating_sub(MAX_EVENTS))
    }
}

fn shares(outcome: &Outcome) -> String {
    let sum = |part: fn(&ImageOutcome) -> u64| outcome.images.iter().map(part).fold(0, u64::saturating_add);
    format!("{} pulled, {} reused", bytes(sum(|image| image.pulled)), bytes(sum(|image| image.reused)))
}

/// A failed image keeps the digest and size it had: that content is still served.
fn told(image: &ImageOutcome, before: impl Fn(&str) -> Option<ImageStatus>) -> ImageStatus {
    let name = cut(&image.reference.to_string(), MAX_NAME);
    let old = before(&name).unwrap_or_default();
    if let Some(failure) = &image.failure {
        let error = cut(&format!("{}: {}", failure.class, failure.message), MAX_ERROR);
        return ImageStatus { name, error: Some(error), ..old };
    }
    ImageStatus {
        name,
        digest: image.digest.as_ref().map(ToString::to_string).or(old.digest),
        size: Some(to_i64(image.size)),
        pulled: Some(to_i64(image.pulled)),
        reused: Some(to_i64(image.reused)),
        reused_by: reused_by(image.reused_by),
        error: None,
    }
}

fn reused_by(parts: ReusedBy) -> Option<ReusedBytes> {
    let part = |n: u64| (n > 0).then(|| to_i64(n));
    let told = ReusedBytes {
        held: part(parts.held),
        public: part(parts.public),
        asked: part(parts.asked),
        same_pull: part(parts.same_run),
    };
    (told != ReusedBytes::default()).then_some(told)
}

fn to_i64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
