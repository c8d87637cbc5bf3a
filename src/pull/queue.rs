//! What a free connection does next: the largest blob that nobody has begun, else a part of one that is slow. Keeps the
//! limit per registry. A blob that another pull is fetching is put aside and looked at again: it holds no connection.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::download::Download;
use crate::model::reference::RegistryHost;

/// How often an idle connection looks whether it can help.
const IDLE: Duration = Duration::from_millis(50);

pub(super) enum Next {
    /// The blob of this index.
    Begin(usize),
    Help(usize, Arc<Download>),
    Wait(Duration),
    End,
}

/// What a blob that failed means for those that nobody has begun.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    GoOn,
    Stop,
}

enum State {
    Pending,
    /// Not before this.
    Aside(Instant),
    Running(Option<Arc<Download>>),
    Done,
}

pub(super) struct Queue {
    inner: Mutex<Inner>,
    per_host: usize,
    in_all: usize,
    /// Something ended: a slot of a registry is free, or all is done.
    pub changed: Notify,
}

struct Inner {
    jobs: Vec<(RegistryHost, State)>,
    busy: BTreeMap<RegistryHost, usize>,
    busy_in_all: usize,
    stopped: bool,
}

impl Queue {
    /// The registries of the blobs, in the order in which they shall begin.
    pub(super) fn new(hosts: Vec<RegistryHost>, per_host: usize, in_all: usize) -> Self {
        let jobs = hosts.into_iter().map(|host| (host, State::Pending)).collect();
        let inner = Inner { jobs, busy: BTreeMap::new(), busy_in_all: 0, stopped: false };
        let (per_host, in_all) = (per_host.max(1), in_all.max(1));
        Self { inner: Mutex::new(inner), per_host, in_all, changed: Notify::new() }
    }

    pub(super) fn next(&self, now: Instant) -> Next {
        let mut inner = self.inner();
        if inner.stopped || inner.jobs.iter().all(|(_, state)| matches!(state, State::Done)) {
            return Next::End;
        }
        if inner.busy_in_all >= self.in_all {
            return Next::Wait(IDLE);
        }
        let room = |host: &RegistryHost| inner.busy.get(host).copied().unwrap_or_default() < self.per_host;
        let ready = |state: &State| match state {
            State::Pending => true,
            State::Aside(until) => *until <= now,
            _ => false,
        };
        if let Some(index) = inner.jobs.iter().position(|(host, state)| ready(state) && room(host)) {
            inner.jobs[index].1 = State::Running(None);
            inner.take(index);
            return Next::Begin(index);
        }
        let slow = inner.jobs.iter().enumerate().filter_map(|(index, (host, state))| match state {
            State::Running(Some(download)) if room(host) => {
                Some((download.wants_help(now)?, index, download.clone()))
            }
            _ => None,
        });
        if let Some((_, index, download)) = slow.max_by(|a, b| a.0.total_cmp(&b.0)) {
            inner.take(index);
            return Next::Help(index, download);
        }
        Next::Wait(IDLE)
    }

    /// Others may help with this one from now on.
    pub(super) fn show(&self, index: usize, download: Option<Arc<Download>>) {
        self.inner().jobs[index].1 = State::Running(download);
    }

    /// A connection is free: it helped, or all bytes have come and what is left is work for the disk.
    pub(super) fn free(&self, index: usize) {
        self.inner().give(index);
        self.changed.notify_waiters();
    }

    /// The blob needs its connection again.
    pub(super) fn take_again(&self, index: usize) {
        self.inner().take(index);
    }

    /// Its connection is free until then.
    pub(super) fn put_aside(&self, index: usize, until: Instant) {
        self.inner().jobs[index].1 = State::Aside(until);
        self.free(index);
    }

    /// Its connection is free already.
    pub(super) fn done(&self, index: usize, then: Then) {
        let mut inner = self.inner();
        inner.jobs[index].1 = State::Done;
        inner.stopped |= then == Then::Stop;
        drop(inner);
        self.changed.notify_waiters();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn take(&mut self, index: usize) {
        *self.busy.entry(self.jobs[index].0.clone()).or_default() += 1;
        self.busy_in_all += 1;
    }

    fn give(&mut self, index: usize) {
        if let Some(busy) = self.busy.get_mut(&self.jobs[index].0) {
            *busy = busy.saturating_sub(1);
            self.busy_in_all = self.busy_in_all.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(queue: &Queue, now: Instant) -> Option<usize> {
        match queue.next(now) {
            Next::Begin(index) => Some(index),
            _ => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_at_its_limit_leaves_the_connections_to_others() {
        let (a, b): (RegistryHost, RegistryHost) = ("a.io".parse().unwrap(), "b.io".parse().unwrap());
        let queue = Queue::new(vec![a.clone(), a.clone(), a, b], 2, 3);
        let now = Instant::now();
        assert_eq!([begun(&queue, now), begun(&queue, now), begun(&queue, now)], [Some(0), Some(1), Some(3)]);
        assert_eq!(begun(&queue, now), None);
        queue.free(0);
        assert_eq!(begun(&queue, now), Some(2), "before it is done: the disk needs no connection");
        queue.done(0, Then::GoOn);
    }

    #[tokio::test(start_paused = true)]
    async fn a_blob_that_waits_for_another_pull_holds_no_connection() {
        let host: RegistryHost = "a.io".parse().unwrap();
        let queue = Queue::new(vec![host.clone(), host], 1, 1);
        let now = Instant::now();
        assert_eq!(begun(&queue, now), Some(0));
        queue.put_aside(0, now + IDLE);
        assert_eq!(begun(&queue, now), Some(1));
        queue.free(1);
        queue.done(1, Then::GoOn);
        assert_eq!(begun(&queue, now), None);
        assert_eq!(begun(&queue, now + IDLE), Some(0));
        queue.done(0, Then::GoOn);
        assert!(matches!(queue.next(now), Next::End));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_nothing_new_begins() {
        let queue = Queue::new(vec!["a.io".parse().unwrap(), "a.io".parse().unwrap()], 4, 4);
        assert_eq!(begun(&queue, Instant::now()), Some(0));
        queue.done(0, Then::Stop);
        assert!(matches!(queue.next(Instant::now()), Next::End));
    }
}
