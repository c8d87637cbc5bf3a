//! A ready cache at rest, and when its registries are asked anew. It stays ready all the time: what the refresh finds
//! is credited when it is complete, and when it fails the last good content stays.

use std::time::Duration;

use super::{Course, Secrets};
use crate::model::{
    class::Class,
    failure::Failure,
    judge::CacheRequest,
    refresh::{self, has_tags},
    stage::Stage,
};

/// A refresh whose time has come.
#[derive(Clone, Copy)]
struct Wanted {
    /// Only the proofs that images are public.
    proofs: bool,
    /// Not the next try of one that failed.
    anew: bool,
}

impl Course<'_> {
    /// Nothing is left to do for what is asked: rest, or ask again.
    pub(super) fn refresh(&mut self, request: &CacheRequest) -> Stage {
        let Some(wanted) = self.wanted(request) else { return Stage::Ready };
        self.asked_for_secrets = true;
        match self.secrets(request) {
            Secrets::Found(versions) => {
                self.ledger.open_refresh(request, versions, wanted.proofs, wanted.anew);
                self.start(request)
            }
            Secrets::Unread => {
                self.within(Duration::from_secs(5));
                Stage::Ready
            }
            Secrets::Missing(why) => {
                // No run is needed to know how this one would end.
                self.ledger.open_refresh(request, String::new(), wanted.proofs, wanted.anew);
                let failure = Failure::new(Class::SecretMissing, why.clone());
                self.ledger.fail(&failure, &why, request, (self.now, self.now));
                self.wanted(request);
                Stage::Ready
            }
        }
    }

    fn wanted(&mut self, request: &CacheRequest) -> Option<Wanted> {
        if request.refresh.is_none() || !has_tags(&request.images) {
            self.ledger.handled_refresh.clone_from(&request.refresh);
        }
        if self.ledger.is_asked_anew(request) {
            return Some(Wanted { proofs: false, anew: true });
        }
        let root = self.ledger.root.clone()?;
        if let Some(failed) = self.ledger.refresh.clone() {
            let asked = request.refresh.is_some() && request.refresh != self.ledger.handled_refresh;
            let tags = has_tags(&request.images) && (asked || request.refresh_interval.is_some());
            // What a tag meant may be gone for ever, and its proof with it: that keeps no tag from being looked up.
            let ends = refresh::tags_due(&root, request, self.judged.object.uid.as_str());
            if failed.proofs && ends.is_some_and(|at| at <= self.now) {
                return Some(Wanted { proofs: false, anew: true });
            }
            if tags || failed.proofs {
                if let Some(at) = ends.filter(|at| *at > self.now) {
                    self.at(at);
                }
                let waits = failed.failure.is_some_and(|failure| self.waits(request, &failure));
                return (!waits).then_some(Wanted { proofs: failed.proofs, anew: false });
            }
            // Nobody wants it any more.
            self.ledger.refresh = None;
        }
        let due = refresh::due(&root, request, self.judged.object.uid.as_str())?;
        if due.at > self.now {
            self.at(due.at);
            return None;
        }
        Some(Wanted { proofs: due.proofs, anew: true })
    }
}
