//! How many bodies come from one host at one time, where registries send us by redirects: several of them may keep
//! their blobs in one place, which then has a limit of its own, whatever each registry's share is.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Seats by host and port.
#[derive(Default)]
pub(super) struct Crowd(Mutex<HashMap<(String, u16), Arc<Semaphore>>>);

/// Held while a body comes; dropped with it.
pub(super) type Seat = Option<OwnedSemaphorePermit>;

impl Crowd {
    /// Waits for a seat. Whoever holds one waits for nothing but that host, within its limits.
    pub(super) async fn enter(&self, host: &str, port: u16, seats: usize) -> Seat {
        let place = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Semaphore::new(seats.max(1)));
            all.entry((host.to_owned(), port)).or_insert_with(new).clone()
        };
        // It is never closed.
        place.acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn a_full_host_lets_nobody_in_until_somebody_leaves_and_others_are_not_concerned() {
        let crowd = Crowd::default();
        let first = crowd.enter("store.io", 443, 2).await;
        let _second = crowd.enter("store.io", 443, 2).await;
        assert!(crowd.enter("store.io", 443, 2).now_or_never().is_none());
        assert!(crowd.enter("other.io", 443, 2).now_or_never().is_some());
        drop(first);
        assert!(crowd.enter("store.io", 443, 2).now_or_never().is_some());
    }
}
