//! What the API server's clock says. Ends of retention are checked against it, so that no clock of ours that jumped
//! deletes anything. An answer is good for a minute of the monotonic clock: thousands that expire together ask once.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

const GOOD: Duration = Duration::from_mins(1);

#[derive(Debug, Default)]
pub struct ServerClock(Mutex<Option<(Instant, Timestamp)>>);

impl ServerClock {
    pub fn set(&self, clock: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), clock));
    }

    /// If it was read lately.
    pub fn now(&self) -> Option<Timestamp> {
        let (read, clock) = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let since = read.elapsed();
        if since > GOOD {
            return None;
        }
        clock.checked_add(SignedDuration::try_from(since).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_for_a_minute_and_is_asked_again_then() {
        let clock = ServerClock::default();
        assert_eq!(clock.now(), None);
        clock.set(Timestamp::UNIX_EPOCH);
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(clock.now().map(Timestamp::as_second), Some(59));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(clock.now(), None);
    }
}
