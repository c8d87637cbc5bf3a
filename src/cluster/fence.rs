//! Whether this process may write now: as long as its Lease is surely its own. A Lease is no fence by itself (a
//! process can freeze between this check and its request), so writes carry preconditions as well.

use std::sync::Arc;

use tokio::{sync::watch, time::Instant};

use super::{Error, Why};

/// Open until an instant that the leader election moves on. Clones share it.
#[derive(Clone, Debug)]
pub struct Fence {
    until: Arc<watch::Sender<Option<Instant>>>,
}

impl Default for Fence {
    /// Closed.
    fn default() -> Self {
        Self { until: Arc::new(watch::Sender::new(None)) }
    }
}

impl Fence {
    pub fn open_until(&self, instant: Instant) {
        self.until.send_replace(Some(instant));
    }

    pub fn close(&self) {
        self.until.send_replace(None);
    }

    /// The monotonic clock goes on while a process is stopped, so a thawed leader finds out here.
    pub fn is_open(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() < until)
    }

    pub fn check(&self, what: &str) -> Result<(), Error> {
        if self.is_open() { Ok(()) } else { Err(Error::new(what, Why::NotLeader)) }
    }

    /// Returns when it is open.
    pub async fn opened(&self) {
        let mut until = self.until.subscribe();
        while !self.is_open() {
            if until.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns when it is closed, or ran out.
    pub async fn closed(&self) {
        let mut until = self.until.subscribe();
        loop {
            let Some(end) = *until.borrow_and_update() else { return };
            if Instant::now() >= end {
                return;
            }
            tokio::select! {
                _ = until.changed() => {}
                () = tokio::time::sleep_until(end) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_closes_by_itself_unless_it_is_moved_on() {
        let fence = Fence::default();
        assert!(!fence.is_open());
        fence.open_until(Instant::now() + Duration::from_secs(10));
        fence.opened().await;
        tokio::time::advance(Duration::from_secs(9)).await;
        fence.open_until(Instant::now() + Duration::from_secs(10));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(fence.check("write").is_ok());
        fence.closed().await;
        assert_eq!(fence.check("write").unwrap_err().why, Why::NotLeader);
    }
}
