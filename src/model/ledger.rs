//! The transitions of the ledger, the controller's only memory. Each is a fact that was observed, written down before
//! anything is done because of it.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    class::{Class, Kind},
    digest::Digest,
    facts::{MirrorFact, SecretState},
    failure::Failure,
    judge::{CacheRequest, SecretName},
    report::Outcome,
    text::cut,
};
use crate::api::image_cache::{Ledger, LedgerFailure, LedgerLoss, LedgerRefresh, LedgerRoot};

/// Failure messages are kept in the ledger and repeated in conditions.
pub const MAX_MESSAGE: usize = 1000;
/// Content that was lost sooner than this after it came belongs to a streak of losses.
const LASTS: SignedDuration = SignedDuration::from_hours(1);

impl Ledger {
    /// Status was lost: the highest run whose Job is seen is taken over as one that nobody remembers.
    pub(super) fn recover(&mut self, highest: u64) {
        if self.run < number(highest) {
            *self = Self { run: number(highest), ..Self::default() };
        }
    }

    /// Asked for something else than the newest run was opened for.
    ///
    /// The pull pod's place is part of it only where a pull is at work or failed: what is there stays.
    pub fn is_stale(&self, request: &CacheRequest) -> bool {
        let placement = self.inputs_hash.split_once('.').map_or("", |(_, placement)| placement);
        let pulls = self.open && !self.is_refreshing();
        let moved = placement != request.placement && (pulls || self.failure.is_some());
        self.inputs() != request.inputs || moved
    }

    fn inputs(&self) -> &str {
        self.inputs_hash.split_once('.').map_or(&self.inputs_hash, |(inputs, _)| inputs)
    }

    /// The open run asks again for what is credited, which stays until it succeeds.
    pub fn is_refreshing(&self) -> bool {
        let refresh = self.refresh.as_ref().filter(|_| self.open && self.root.is_some());
        refresh.is_some_and(|refresh| refresh.run == self.run)
    }

    /// The user wants the registries to be asked anew, and no run was opened for that yet.
    pub(super) fn is_asked_anew(&self, request: &CacheRequest) -> bool {
        let asked = self.refresh.as_ref().is_some_and(|refresh| refresh.value == request.refresh);
        request.refresh.is_some() && request.refresh != self.handled_refresh && !asked
    }

    pub(super) fn open(&mut self, request: &CacheRequest, secrets: String) {
        if self.is_stale(request) {
            self.failure = None;
            self.answered = false;
            // Before the first run there is nothing, unless the ledger was lost: then what is there may answer, but for a
            // refresh that may never have been.
            let first = self.run == 0 && request.refresh.is_none();
            self.asked = if first { 0 } else { self.run.saturating_add(1) };
            self.asked_refresh.clone_from(&request.refresh);
        }
        self.next(request, secrets);
    }

    /// A run that asks again for what is credited. `anew`: nothing that was answered before counts.
    pub(super) fn open_refresh(&mut self, request: &CacheRequest, secrets: String, proofs: bool, anew: bool) {
        self.next(request, secrets);
        if anew {
            self.asked = self.run;
        }
        let before = self.refresh.take();
        self.refresh = Some(LedgerRefresh {
            run: self.run,
            proofs,
            value: request.refresh.clone().filter(|_| !proofs),
            failure: before.and_then(|refresh| refresh.failure),
        });
    }

    fn next(&mut self, request: &CacheRequest, secrets: String) {
        self.run = self.run.saturating_add(1);
        self.open = true;
        self.expired = None;
        self.follow(request);
        self.secrets = secrets;
    }

    fn follow(&mut self, request: &CacheRequest) {
        self.inputs_hash.clone_from(&request.inputs);
        if !request.placement.is_empty() {
            self.inputs_hash = format!("{}.{}", request.inputs, request.placement);
        }
    }

    /// An edit that was not answered yet is taken back: what is credited was pulled for exactly this.
    pub(super) fn take_back(&mut self, request: &CacheRequest, now: Timestamp) {
        let newer = self.inputs() != request.inputs;
        let Some(root) = self.root.as_mut().filter(|root| newer && root.inputs == request.inputs) else {
            return;
        };
        if root.run < self.run {
            root.taken_back.get_or_insert(Time(now));
        }
        self.open = false;
        self.failure = None;
        self.secrets_missing = None;
        self.asked_refresh = None;
        self.answered = true;
        self.follow(request);
    }

    /// An expired cache is wanted again, as if it were new.
    pub(super) fn revive(&mut self) {
        self.answered = false;
        self.inputs_hash.clear();
    }

    /// Its time is over; the object is kept.
    pub(super) fn expire(&mut self, request: &CacheRequest, end: Timestamp) {
        self.expired = Some(Time(end));
        self.root = None;
        self.open = false;
        self.failure = None;
        self.refresh = None;
        // What was asked of the content that is gone is no wish to have it again.
        self.handled_refresh.clone_from(&request.refresh);
    }

    /// What the open run was for is no longer asked: it takes no place in the queue, and whatever is asked next is
    /// asked anew, so that content of before never passes for its answer.
    pub(super) fn abandon(&mut self) {
        if self.open {
            self.open = false;
            self.inputs_hash.clear();
        }
    }

    /// The store knows a higher run: the next one, still open.
    pub(super) fn skip_to_after(&mut self, higher: u64) {
        let (refreshing, first) = (self.is_refreshing(), self.asked == self.run);
        self.run = self.run.max(number(higher)).saturating_add(1);
        if first {
            self.asked = self.run;
        }
        if let Some(refresh) = self.refresh.as_mut().filter(|_| refreshing) {
            refresh.run = self.run;
        }
    }

    /// `at` is when it ended, by whichever clock is ahead.
    pub(super) fn credit(
        &mut self,
        root: &Digest,
        outcome: &Outcome,
        mirror: Option<&MirrorFact>,
        (now, at): (Timestamp, Timestamp),
    ) {
        let value = self.refresh.take().filter(|refresh| refresh.run == self.run).and_then(|r| r.value);
        if let Some(value) = value.or(self.asked_refresh.take()) {
            self.handled_refresh = Some(value);
        }
        let other = mirror.map(|mirror| &mirror.store).filter(|store| **store != outcome.store);
        self.root = Some(LedgerRoot {
            run: self.run,
            digest: root.to_string(),
            at: Time(now),
            mirror_store_id: other.map(|store| cut(store, 64)),
            inputs: self.inputs().to_owned(),
            resolved: Some(Time(outcome.resolved.unwrap_or(now))),
            proved: outcome.proved.map(Time),
            taken_back: None,
        });
        self.store_id = Some(cut(&outcome.store, 64));
        self.open = false;
        self.failure = None;
        if !self.answered {
            self.answered = true;
            self.ready_at = Some(Time(at));
        }
    }

    /// The images were too large for the cache, and by now it may hold another number of bytes.
    pub(super) fn is_resized(&self, request: &CacheRequest) -> bool {
        let limit = self.failure.as_ref().and_then(|failure| failure.size_limit);
        limit.is_some_and(|limit| limit != number(request.size_limit))
    }

    /// `at` as of a success.
    pub(super) fn fail(
        &mut self,
        failure: &Failure,
        message: &str,
        request: &CacheRequest,
        (now, at): (Timestamp, Timestamp),
    ) {
        let refreshing = self.is_refreshing();
        self.open = false;
        let slot = match self.refresh.as_mut().filter(|_| refreshing) {
            Some(refresh) => &mut refresh.failure,
            None => &mut self.failure,
        };
        let size_limit = (failure.class == Class::SizeExceeded).then(|| number(request.size_limit));
        *slot = Some(LedgerFailure {
            size_limit,
            ..LedgerFailure::after(slot.take(), self.run, failure, message, (now, at))
        });
    }

    /// Whether the mirror's report says that the credited content is gone: the store is another one, or a digest
    /// of the root is not there.
    pub(super) fn is_lost(&self, mirror: &MirrorFact) -> bool {
        let Some(root) = &self.root else { return false };
        let run = u64::try_from(root.run).unwrap_or_default();
        mirror.broken.contains(&run)
            || self.differs(mirror) && root.mirror_store_id.as_ref() != Some(&mirror.store)
    }

    /// Whether gc, which looks at the same volume as pulls do, did not find the credited content.
    pub(super) fn is_gone(&self, broken: &BTreeSet<u64>) -> bool {
        self.root.as_ref().is_some_and(|root| u64::try_from(root.run).is_ok_and(|run| broken.contains(&run)))
    }

    pub(super) fn lose(&mut self, now: Timestamp) {
        let Some(root) = self.root.take() else { return };
        self.refresh = None;
        let soon = now.duration_since(root.at.0) < LASTS;
        let before = self.lost.take().filter(|_| soon).map_or(0, |lost| lost.times);
        self.lost = Some(LedgerLoss { times: before.saturating_add(1), last: Time(now) });
    }

    /// The mirror serves another store than the one the content went to.
    pub(super) fn differs(&self, mirror: &MirrorFact) -> bool {
        self.root.is_some() && self.store_id.as_ref() != Some(&mirror.store)
    }

    /// When the content expires: so many days after the success that answered the last edit.
    pub fn expires(&self, request: &CacheRequest) -> Option<Timestamp> {
        let ready = self.ready_at.as_ref().filter(|_| self.answered && !self.is_stale(request))?;
        let hours = i64::from(request.retention_days?).saturating_mul(24);
        Some(ready.0.checked_add(SignedDuration::from_hours(hours)).unwrap_or(Timestamp::MAX))
    }

    /// It never had content, for whatever inputs.
    pub fn was_never_ready(&self) -> bool {
        self.ready_at.is_none() && self.root.is_none()
    }
}

impl LedgerFailure {
    /// One more of a streak, or the first: now, and `at` by whichever clock is ahead.
    pub(super) fn after(
        before: Option<Self>,
        run: i64,
        failure: &Failure,
        message: &str,
        (now, at): (Timestamp, Timestamp),
    ) -> Self {
        Self {
            run,
            first: before.as_ref().map_or(Time(at), |before| before.first.clone()),
            last: Time(now),
            attempts: before.as_ref().map_or(0, |before| before.attempts).saturating_add(1),
            class: failure.class.as_str().to_owned(),
            message: cut(message, MAX_MESSAGE),
            permanent: before.is_some_and(|before| before.permanent)
                || failure.class.kind() != Kind::Transient,
            size_limit: None,
        }
    }
}

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The versions of secrets, as a short hash: tells that something changed and nothing else.
pub fn versions<'a>(secrets: impl IntoIterator<Item = (&'a SecretName, &'a SecretState)>) -> String {
    let words: Vec<String> = secrets.into_iter().map(|(name, state)| format!("{name} {state:?}")).collect();
    if words.is_empty() {
        String::new()
    } else {
        Digest::sha256(words.join("\n").as_bytes()).hex()[..16].to_owned()
    }
}
