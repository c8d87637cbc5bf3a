//! When a failed cache is tried again, and when a streak of failures counts as permanent.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{
    class::{Class, Kind},
    digest::Digest,
    settings::Settings,
};
use crate::api::image_cache::{LedgerFailure, LedgerLoss};

const FIRST_TRANSIENT: Duration = Duration::from_secs(30);
const FIRST_PERMANENT: Duration = Duration::from_mins(5);

pub fn after(t: Timestamp, d: Duration) -> Timestamp {
    SignedDuration::try_from(d).ok().and_then(|d| t.checked_add(d).ok()).unwrap_or(Timestamp::MAX)
}

pub fn class(failure: &LedgerFailure) -> Class {
    Class::from_name(&failure.class).unwrap_or(Class::Unknown)
}

/// When a streak counts as permanent: at once, or when it has lasted long enough. It stays so until a success or
/// an edit ends the streak.
pub fn stalls_at(failure: &LedgerFailure, settings: &Settings) -> Timestamp {
    if failure.permanent { failure.first.0 } else { after(failure.first.0, settings.stalled_after) }
}

/// Exponential, capped, and spread by a hash of cache and run: caches that failed together do not return together.
pub fn due(failure: &LedgerFailure, uid: &str, queue_full: bool, settings: &Settings) -> Timestamp {
    let (first, most) = match class(failure).kind() {
        Kind::Transient => (FIRST_TRANSIENT, settings.retry_transient),
        Kind::Permanent | Kind::Waits => (FIRST_PERMANENT, settings.retry_permanent),
    };
    let mut delay = grown(first, failure.attempts).min(most);
    let lasted = Duration::try_from(failure.last.0.duration_since(failure.first.0)).unwrap_or_default();
    if lasted >= settings.stalled_after {
        delay = delay.max(lasted / 2).min(settings.retry_permanent);
    }
    if queue_full {
        delay = delay.saturating_mul(2);
    }
    after(failure.last.0, delay.mul_f64(jitter(uid, failure.run)))
}

/// Lost content is pulled at once; where that does not last, like after transient failures.
pub fn due_after_loss(loss: &LedgerLoss, uid: &str, settings: &Settings) -> Timestamp {
    if loss.times <= 1 {
        return loss.last.0;
    }
    let delay = grown(FIRST_TRANSIENT, loss.times - 1).min(settings.retry_transient);
    after(loss.last.0, delay.mul_f64(jitter(uid, loss.times.into())))
}

fn grown(first: Duration, attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(0).min(16);
    first.saturating_mul(1 << doublings)
}

/// From 0.8 to 1.
pub fn jitter(uid: &str, run: i64) -> f64 {
    let digest = Digest::sha256(format!("{uid}/{run}").as_bytes());
    let part = u32::from_str_radix(&digest.hex()[..8], 16).unwrap_or_default();
    0.8 + 0.2 * f64::from(part) / f64::from(u32::MAX)
}

/// A missing secret is looked for again soon at first, later seldom.
pub fn secrets_again(since: Timestamp, now: Timestamp) -> Duration {
    let waited = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    waited.clamp(Duration::from_secs(5), Duration::from_mins(5))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn failure(class: Class, attempts: i32, lasted: i64) -> LedgerFailure {
        LedgerFailure {
            run: 1,
            first: Time(Timestamp::UNIX_EPOCH),
            last: Time(Timestamp::from_second(lasted).unwrap()),
            attempts,
            class: class.as_str().into(),
            message: String::new(),
            permanent: class.kind() != Kind::Transient,
            size_limit: None,
        }
    }

    fn seconds(failure: &LedgerFailure, full: bool) -> i64 {
        due(failure, "uid", full, &Settings::default()).duration_since(failure.last.0).as_secs()
    }

    #[test]
    fn delays_grow_to_their_limits_and_not_beyond() {
        for (class, attempts, least, most) in [
            (Class::Network, 1, 24, 30),
            (Class::Network, 3, 96, 120),
            (Class::Network, 50, 480, 600),
            (Class::Auth, 1, 240, 300),
            (Class::Auth, 50, 2880, 3600),
        ] {
            let delay = seconds(&failure(class, attempts, 0), false);
            assert!((least..=most).contains(&delay), "{class} {attempts}: {delay}");
        }
        let long = seconds(&failure(Class::Network, 50, 86_400), false);
        assert!((2880..=3600).contains(&long), "{long}");
        assert!(seconds(&failure(Class::Network, 1, 0), true) > 40);
    }

    #[test]
    fn caches_that_failed_together_return_apart() {
        let failure = failure(Class::Network, 50, 0);
        let at = |uid: &str| due(&failure, uid, false, &Settings::default());
        assert_ne!(at("a"), at("b"));
        assert_eq!(at("a"), at("a"));
    }

    #[test]
    fn a_missing_secret_is_looked_for_less_and_less() {
        let at = |s| Timestamp::from_second(s).unwrap();
        assert_eq!(secrets_again(at(0), at(0)).as_secs(), 5);
        assert_eq!(secrets_again(at(0), at(60)).as_secs(), 60);
        assert_eq!(secrets_again(at(0), at(6000)).as_secs(), 300);
    }
}
