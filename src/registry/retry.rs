//! When to try again: after a transient failure, a few times, with growing and jittered pauses; and how long a
//! whole host is left alone after it said that there are too many requests.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use http::HeaderMap;
use tokio::time::{Instant, sleep, sleep_until};

use super::{answer::retry_after, limits::Limits};
use crate::model::{class::Kind, failure::Failure, reference::RegistryHost};

/// Counts tries without progress.
#[derive(Default)]
pub(super) struct Retry {
    failed: u32,
}

impl Retry {
    pub(super) fn progress(&mut self) {
        self.failed = 0;
    }

    /// Whether to try again after this failure; waits before it says yes.
    pub(super) async fn again(&mut self, failure: &Failure, limits: &Limits) -> bool {
        self.failed += 1;
        if failure.class.kind() != Kind::Transient || self.failed >= limits.tries {
            return false;
        }
        let pause = limits.backoff.saturating_mul(1 << (self.failed - 1).min(16)).min(limits.backoff_max);
        sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
        true
    }
}

/// Hosts that asked for a pause.
#[derive(Default)]
pub(super) struct Pauses(Mutex<HashMap<RegistryHost, Instant>>);

impl Pauses {
    pub(super) fn set(&self, host: &RegistryHost, headers: &HeaderMap, limits: &Limits) {
        if let Some(pause) = retry_after(headers) {
            let until = Instant::now() + pause.min(limits.retry_after_max);
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let known = all.entry(host.clone()).or_insert(until);
            *known = until.max(*known);
        }
    }

    pub(super) async fn wait(&self, host: &RegistryHost) {
        let until = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(host).copied();
        if let Some(until) = until {
            sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::class::Class;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_host_that_asks_for_a_pause_gets_it_and_others_go_on() {
        let (pauses, limits) = (Pauses::default(), Limits::default());
        let (host, other): (RegistryHost, RegistryHost) = ("a.io".parse().unwrap(), "b.io".parse().unwrap());
        let mut headers = HeaderMap::new();
        for (asked, obeyed) in [("7", 7), ("3600", 60)] {
            headers.insert("retry-after", asked.parse().unwrap());
            let start = Instant::now();
            pauses.set(&host, &headers, &limits);
            pauses.wait(&other).await;
            assert_eq!(start.elapsed(), Duration::ZERO);
            pauses.wait(&host).await;
            assert_eq!(start.elapsed().as_secs(), obeyed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn transient_failures_are_tried_five_times_with_growing_pauses_and_progress_starts_anew() {
        let (mut retry, limits, start) = (Retry::default(), Limits::default(), Instant::now());
        let transient = Failure::new(Class::Network, "reset");
        let mut again = 0;
        while retry.again(&transient, &limits).await {
            again += 1;
        }
        assert_eq!(again, 4);
        let waited = start.elapsed();
        assert!((Duration::from_millis(3700)..=Duration::from_millis(7600)).contains(&waited), "{waited:?}");
        retry.progress();
        assert!(retry.again(&transient, &limits).await);
        assert!(!retry.again(&Failure::new(Class::Auth, "no"), &limits).await);
    }
}
