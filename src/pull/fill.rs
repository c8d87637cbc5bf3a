//! Fills the store with what a run needs: small documents, and beside them the blobs, the largest first, by as many
//! tasks as there are connections and disk work for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    AT_ONCE,
    fetch::{self, Fetcher, Job},
    meter::Meter,
    plan::{self, Blob},
    queue::{Next, Queue, Then},
};
use crate::model::{class::Class, failure::Failure, reference::RegistryHost};

/// How long a blob that another pull is fetching is put aside.
const ASIDE: Duration = Duration::from_millis(100);

struct Filling {
    fetcher: Arc<Fetcher>,
    queue: Arc<Queue>,
    jobs: Vec<Job>,
    on_failure: Then,
    failures: Mutex<Vec<(Blob, Failure)>>,
}

/// Everything that the images of a run need. After a failure nothing new is started; what runs finishes, so that the
/// next try has less to do. The first failure of each image, by its index.
pub(super) async fn all(fetcher: &Arc<Fetcher>, meter: &Meter) -> Result<(), BTreeMap<usize, Failure>> {
    let blobs = blobs(fetcher, meter, plan::blobs(&fetcher.images), Then::Stop);
    let (mut failures, of_blobs) = tokio::join!(documents(fetcher, meter), blobs);
    for (blob, failure) in of_blobs {
        failures.entry(blob.images.first().copied().unwrap_or_default()).or_insert(failure);
    }
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}

/// These blobs, and those that could not be had.
pub(super) async fn blobs(
    fetcher: &Arc<Fetcher>,
    meter: &Meter,
    blobs: Vec<Blob>,
    on_failure: Then,
) -> Vec<(Blob, Failure)> {
    let limits = fetcher.client.limits();
    let host = |blob: &Blob| {
        blob.images.first().and_then(|index| fetcher.images.get(*index)).map(|i| i.reference.host().clone())
    };
    let hosts: Vec<RegistryHost> = blobs.iter().filter_map(host).collect();
    let queue = Arc::new(Queue::new(hosts.clone(), limits.connections_per_host, limits.connections));
    let jobs = blobs.into_iter().zip(hosts).enumerate().map(|(index, (blob, host))| {
        let gauge = meter.gauge(&blob.digest, blob.size);
        Job { index, blob, host, gauge, queue: queue.clone(), watch: Mutex::default() }
    });
    let filling = Arc::new(Filling {
        fetcher: fetcher.clone(),
        jobs: jobs.collect(),
        queue: queue.clone(),
        on_failure,
        failures: Mutex::default(),
    });
    // Twice as many as connections: what is received is written and synced while others receive. Tasks of their own,
    // because every one of them keeps a core busy with hashing.
    let mut movers = JoinSet::new();
    for _ in 0..limits.connections.max(1) * 2 {
        movers.spawn(mover(filling.clone()));
    }
    while let Some(ended) = movers.join_next().await {
        // One that broke down never says that its blob is done, and the others would wait for that for ever.
        if let Err(error) = ended {
            movers.abort_all();
            let failure = Failure::new(Class::Unknown, format!("a part of the pull broke down: {error}"));
            let mut failures = filling.failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.extend(filling.jobs.first().map(|job| (job.blob.clone(), failure)));
        }
    }
    std::mem::take(&mut *filling.failures.lock().unwrap_or_else(PoisonError::into_inner))
}

async fn documents(fetcher: &Fetcher, meter: &Meter) -> BTreeMap<usize, Failure> {
    let images = fetcher.images.iter().enumerate();
    let entries = images.flat_map(|(index, image)| image.closure.iter().map(move |e| (index, image, e)));
    let mut seen = BTreeSet::new();
    let documents = entries.filter(|(_, _, e)| fetch::is_document(e.kind) && seen.insert(&e.digest));
    let fetching = documents.map(|(index, image, entry)| async move {
        let gauge = meter.gauge(&entry.digest, entry.size);
        fetcher.document(image, entry, &gauge).await.err().map(|failure| (index, failure))
    });
    let failures: Vec<_> = stream::iter(fetching).buffered(AT_ONCE).collect().await;
    // Of several of one image the first stays.
    failures.into_iter().flatten().rev().collect()
}

/// Moves what is next, until nothing is left. The queue says whether there is a connection for it.
async fn mover(filling: Arc<Filling>) {
    let (fetcher, queue) = (&filling.fetcher, &filling.queue);
    loop {
        let changed = queue.changed.notified();
        match queue.next(Instant::now()) {
            Next::Begin(index) => match fetcher.obtain(&filling.jobs[index]).await {
                Ok(fetch::Ended::Aside) => queue.put_aside(index, Instant::now() + ASIDE),
                Ok(fetch::Ended::Done) => {
                    queue.free(index);
                    queue.done(index, Then::GoOn);
                }
                Err(failure) => {
                    let failed = (filling.jobs[index].blob.clone(), failure);
                    filling.failures.lock().unwrap_or_else(PoisonError::into_inner).push(failed);
                    queue.free(index);
                    queue.done(index, filling.on_failure);
                }
            },
            Next::Help(index, download) => {
                fetcher.help(&filling.jobs[index], &download).await;
                queue.free(index);
            }
            Next::Wait(pause) => drop(timeout(pause, changed).await),
            Next::End => return,
        }
    }
}
