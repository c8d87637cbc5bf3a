//! The end of a cache's life: its retention, and what never worked.

use jiff::Timestamp;

use super::{Course, DeleteObject, Event, Walked};
use crate::model::{judge::CacheRequest, retry::after, settings::OnExpiry, stage::Stage};

impl Course<'_> {
    /// Expiry, and the end of what never worked.
    pub(super) fn end_of_life(&mut self, request: &CacheRequest) -> Option<Walked> {
        let object = &self.judged.object;
        if let Some(expires) = self.ledger.expires(request) {
            if self.now < expires {
                self.at(expires);
                return None;
            }
            let by_default = if object.tracked { OnExpiry::Keep } else { OnExpiry::Delete };
            return Some(match self.settings.on_expiry.unwrap_or(by_default) {
                OnExpiry::Delete => {
                    self.delete(expires, "Expired", format!("its retention ended at {expires}"))
                }
                OnExpiry::Keep => {
                    self.ledger.root = None;
                    self.ledger.open = false;
                    self.ledger.failure = None;
                    Walked::At(Stage::Expired)
                }
            });
        }
        let gone_at = self.gives_up(request)?;
        if self.now < gone_at {
            self.at(gone_at);
            return None;
        }
        let hours = self.settings.delete_failed_after.unwrap_or_default().as_secs() / 3600;
        Some(self.delete(gone_at, "Failed", format!("it failed for {hours} hours and never was ready")))
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
