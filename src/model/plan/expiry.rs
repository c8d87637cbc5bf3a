//! The end of a cache's life: its retention, and what never worked.

use std::time::Duration;

use jiff::Timestamp;

use super::{Course, DeleteObject, Event, Walked};
use crate::model::{judge::CacheRequest, retry::after, settings::OnExpiry, stage::Stage};

/// The API server's clock is asked again after this.
const UNSURE: Duration = Duration::from_mins(1);

impl Course<'_> {
    /// Expiry, and the end of what never worked.
    pub(super) fn end_of_life(&mut self, request: &CacheRequest) -> Option<Walked> {
        let object = &self.judged.object;
        if let Some(expires) = self.ledger.expires(request) {
            let over = self.ledger.expired.as_ref().is_some_and(|end| expires <= end.0);
            if !over && !self.is_past(expires) {
                return None;
            }
            let by_default = if object.tracked { OnExpiry::Keep } else { OnExpiry::Delete };
            return Some(match self.settings.on_expiry.unwrap_or(by_default) {
                OnExpiry::Delete => {
                    self.delete(expires, "Expired", format!("its retention ended at {expires}"))
                }
                OnExpiry::Keep if self.ledger.root.is_none() && self.ledger.is_asked_anew(request) => {
                    self.ledger.revive();
                    return None;
                }
                OnExpiry::Keep => {
                    self.ledger.expire(request, expires);
                    Walked::At(Stage::Expired)
                }
            });
        }
        let gone_at = self.gives_up(request)?;
        if !self.is_past(gone_at) {
            return None;
        }
        let hours = self.settings.delete_failed_after.unwrap_or_default().as_secs() / 3600;
        Some(self.delete(gone_at, "Failed", format!("it failed for {hours} hours and never was ready")))
    }

    /// By both clocks: nothing ends because one of them jumped.
    fn is_past(&mut self, end: Timestamp) -> bool {
        if self.now < end {
            self.at(end);
            return false;
        }
        self.asked_for_clock = true;
        match self.facts.server_clock {
            Some(clock) if clock < end => {
                let left = Duration::try_from(end.duration_since(clock)).unwrap_or_default();
                self.within(left.max(UNSURE));
                false
            }
            Some(_) => true,
            None => {
                self.within(UNSURE);
                false
            }
        }
    }

    /// When an object that never was ready and fails for good is deleted.
    pub(super) fn gives_up(&self, request: &CacheRequest) -> Option<Timestamp> {
        let failure = self.ledger.failure.as_ref().filter(|failure| failure.permanent)?;
        let kept = self.judged.object.tracked || self.ledger.is_stale(request);
        let limit = self.settings.delete_failed_after.filter(|_| !kept && self.ledger.was_never_ready())?;
        Some(after(failure.first.0, limit))
    }

    fn delete(&self, not_before: Timestamp, reason: &str, why: String) -> Walked {
        let object = &self.judged.object;
        let delete = DeleteObject {
            uid: object.uid.to_string(),
            resource_version: object.resource_version.clone(),
            not_before,
            reason: why.clone(),
        };
        Walked::Delete(delete, Event { warning: false, reason: reason.to_owned(), message: why })
    }
}
