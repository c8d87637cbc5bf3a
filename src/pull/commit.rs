//! Verified blobs get their names in batches: what waits while one batch is written is the next one. First the lease
//! says durably that this cache fetched them, then they appear, so that a kill between never makes it fetch them twice.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::{
    model::{class::Class, failure::Failure, reference::RegistryHost},
    store::{Ingest, Lease, StoreError},
};

type Waiting = (Arc<Ingest>, Option<RegistryHost>, oneshot::Sender<Result<(), StoreError>>);

#[derive(Default)]
pub(super) struct Commits {
    waiting: Mutex<Vec<Waiting>>,
    turn: tokio::sync::Mutex<()>,
}

impl Commits {
    /// `host`: the registry that gave it, if no override led there.
    pub(super) async fn commit(
        &self,
        ingest: Arc<Ingest>,
        host: Option<RegistryHost>,
        lease: &Arc<Lease>,
    ) -> Result<(), Failure> {
        let (told, result) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((ingest, host, told));
        let turn = self.turn.lock().await;
        let batch = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if !batch.is_empty() {
            let lease = lease.clone();
            blocking(move || publish(batch, &lease)).await?;
        }
        drop(turn);
        result.await.map_err(|_| Failure::new(Class::Unknown, "the pull was ended"))?.map_err(Failure::from)
    }
}

fn publish(batch: Vec<Waiting>, lease: &Lease) -> Result<(), StoreError> {
    lease.fetched_all(batch.iter().map(|(ingest, host, _)| (ingest.digest(), host.as_ref())))?;
    for (ingest, _, told) in batch {
        let _ = told.send(ingest.publish());
    }
    Ok(())
}

/// Work with files, on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Failure::from),
        Err(_) => Err(Failure::new(Class::Unknown, "the pull was ended")),
    }
}
