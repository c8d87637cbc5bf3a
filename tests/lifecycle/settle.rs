//! Until nothing is left to do.

use std::time::Duration;

use imagecache::model::{facts::SecretState, plan::Again};

use crate::world::World;

impl World {
    fn is_settled(&self) -> bool {
        self.phase() == "Ready" && self.status().ledger.is_none_or(|ledger| ledger.refresh.is_none())
    }

    /// Everything answers from now on; returns once nothing is left to do.
    pub(crate) fn settle(&mut self) {
        self.upstream = None;
        self.busy = 0;
        self.storage.works();
        if let Some(wanted) = &mut self.settings.snapshots {
            wanted.class = Some("snaps".into());
        }
        self.broken.clear();
        self.secret = SecretState::Found { uid: "s".into(), resource_version: "9".into() };
        for _ in 0..60 {
            let again = self.reconcile();
            let Some(plan) = self.plan() else { return };
            let quiet = self.own_jobs().next().is_none() && self.storage.is_quiet();
            if plan.actions.is_empty() && plan.status == self.status() && quiet {
                match again {
                    Again::After(wait) if !self.is_settled() || self.wants_snapshot() => self.pass(wait),
                    _ => return,
                }
            }
            self.jobs.retain(|job| !job.fact.deleting);
            self.pulls(50);
            self.job_ends(false);
            self.storage.export_ends(self.now);
            self.storage.snapshotter_acts();
            if !self.storage.is_quiet() && plan.actions.is_empty() && plan.status == self.status() {
                self.pass(Duration::from_mins(1));
            }
        }
    }

    fn wants_snapshot(&self) -> bool {
        self.settings.snapshots.is_some() && !self.condition("Snapshot").0
    }
}
