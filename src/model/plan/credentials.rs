//! The credentials of a run: what its pull secrets say, when a running worker's are written again, and what a login
//! that could not be had or a run that was given up means for them.

use std::{collections::BTreeSet, time::Duration};

use super::{Action, Course, PROGRESS};
use crate::model::{
    judge::CacheRequest,
    reference::{Reference, RegistryHost},
    retry::after,
    secrets::{self, Secrets},
};

/// While a Job is at work its pull secrets are read again this often.
const RENEWAL: Duration = Duration::from_mins(1);

impl Course<'_> {
    pub(super) fn secrets(&self, request: &CacheRequest) -> Secrets {
        secrets::look(request, &self.facts.secrets)
    }

    /// Tokens may live shorter than a pull: the worker reads its credentials again when it is denied.
    pub(super) fn keep_credentials(&mut self, request: &CacheRequest) {
        let read_again = self.facts.secrets_read.map_or(self.now, |read| after(read, RENEWAL));
        let login_again = self.facts.login_due(&request.logins, self.ledger.run, self.now);
        let login_due = login_again.is_some_and(|due| due <= self.now);
        self.asked_for_secrets = read_again <= self.now || login_due;
        if !request.secrets.is_empty() {
            self.at(read_again.max(after(self.now, PROGRESS)));
        }
        if let Some(due) = login_again {
            self.at(due.max(after(self.now, PROGRESS)));
        }
        self.renew_credentials(request, login_due);
    }

    fn renew_credentials(&mut self, request: &CacheRequest, login_due: bool) {
        let Secrets::Found(versions) = self.secrets(request) else { return };
        if versions != self.ledger.secrets || login_due {
            self.ledger.secrets = versions;
            let hosts: BTreeSet<RegistryHost> = request.images.iter().map(Reference::host).cloned().collect();
            self.actions.push(Action::RenewCredentials {
                run: u64::try_from(self.ledger.run).unwrap_or_default(),
                secrets: request.secrets.clone(),
                hosts: hosts.difference(&request.anonymous).cloned().collect(),
                logins: request.logins.clone(),
            });
        }
    }

    /// A run whose login could not be had ends like one whose Job failed: it is retried by the same rules.
    pub(super) fn collect_login(&mut self, request: &CacheRequest) {
        let login = self.facts.login_of(self.ledger.run);
        if let Some(failure) = login.and_then(|login| login.failure.as_ref()) {
            self.ledger.fail(failure, &failure.message, request, (self.now, self.now));
        }
    }

    /// The run that was open is not any more, and its Job was never seen: it may have got its Secrets.
    pub(super) fn remove_secrets(&mut self) {
        let given_up = self.seen.open && !(self.ledger.open && self.ledger.run == self.seen.run);
        let run = u64::try_from(self.seen.run).unwrap_or_default();
        if given_up && self.facts.jobs.iter().all(|job| job.run != run) {
            self.actions.push(Action::RemoveSecrets { run });
        }
    }
}
