//! Password-free logins of runs: taken when a run's credentials Secret is written, put there, and kept nowhere else.
//! What is remembered is when each ends, or why it could not be had: forgotten with the process, then it is taken
//! again at once.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use super::{Error, Why};
use crate::{
    acr::Acr,
    model::{
        acr::{self, Logins as Wanted},
        class::Class,
        facts::LoginFact,
        failure::Failure,
        request::CacheKey,
        retry::after,
    },
    ops::clock,
};

/// A renewal that failed is tried again this soon: the login in use still works for a while.
const AGAIN: Duration = Duration::from_mins(1);

/// Without an identity of the operator's nothing can be taken.
#[derive(Default)]
pub struct Logins {
    acr: Option<Acr>,
    known: Mutex<HashMap<CacheKey, LoginFact>>,
}

impl Logins {
    pub fn new(acr: Option<Acr>) -> Self {
        Self { acr, known: Mutex::default() }
    }

    pub fn fact(&self, cache: &CacheKey) -> Option<LoginFact> {
        self.locked().get(cache).cloned()
    }

    /// The cache's login is taken again with the next pass that needs it.
    pub fn forget(&self, cache: &CacheKey) {
        self.locked().remove(cache);
    }

    /// Forgets caches that are gone.
    pub fn tidy(&self, there: impl Fn(&str) -> bool) {
        self.locked().retain(|cache, _| there(cache.as_str()));
    }

    /// A docker configuration for the run's Secret, if the run has logins.
    pub(super) async fn take(
        &self,
        cache: &CacheKey,
        run: u64,
        wanted: &Wanted,
    ) -> Result<Option<Vec<u8>>, Error> {
        if wanted.is_empty() {
            return Ok(None);
        }
        let taken = match &self.acr {
            Some(acr) => acr.logins(wanted).await,
            None => Err(Failure::new(
                Class::Auth,
                "password-free login to ACR: this operator has no identity there",
            )),
        };
        let now = clock::now();
        match taken {
            Ok(taken) => {
                // Without a login nothing ends.
                let again = taken.expires.map_or(Timestamp::MAX, |expires| acr::renew_at(now, expires));
                self.note(cache, LoginFact { run, again, failure: None });
                Ok(taken.docker_config)
            }
            Err(failure) => {
                let why = Why::Login(failure.message.clone());
                self.note(cache, LoginFact { run, again: after(now, AGAIN), failure: Some(failure) });
                Err(Error::new(format!("log in for run {run}"), why))
            }
        }
    }

    fn note(&self, cache: &CacheKey, fact: LoginFact) {
        self.locked().insert(cache.clone(), fact);
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<CacheKey, LoginFact>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
