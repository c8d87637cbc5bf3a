//! The report of a run, from what it found: times of the volume become timestamps of whole seconds.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::judge::Why;
use crate::{
    model::{
        account::Accounts,
        collected::{Amount, CacheBytes, RootReport},
        request::CacheKey,
        root::Root,
    },
    store::{StoredBlob, Trashed},
};

pub(super) fn there(blobs: &[StoredBlob]) -> Amount {
    Amount::of(blobs.iter().map(|blob| &blob.size))
}

pub(super) fn trashed(blobs: &[Trashed]) -> Amount {
    Amount::of(blobs.iter().map(|blob| &blob.size))
}

pub(super) fn root(
    root: &(CacheKey, u64),
    why: &Why,
    removed: bool,
    until: Option<SystemTime>,
) -> RootReport {
    let until = until.filter(|_| !removed).and_then(timestamp);
    RootReport { cache: root.0.clone(), run: root.1, why: why.to_string(), removed, until }
}

pub(super) fn caches<'a>(roots: impl IntoIterator<Item = &'a Root>) -> Vec<CacheBytes> {
    let accounts = Accounts::of(roots);
    let cache = |account: crate::model::account::Account<'_>| CacheBytes {
        cache: account.newest.cache.clone(),
        name: account.newest.name.clone(),
        size: account.size,
        shared: account.shared,
        freed_if_deleted: account.freed_if_deleted,
    };
    accounts.caches.into_iter().map(cache).collect()
}

/// When the first of these ages ends.
pub(super) fn first(times: impl IntoIterator<Item = SystemTime>, age: Duration) -> Option<Timestamp> {
    times.into_iter().min().and_then(|time| timestamp(time + age))
}

pub(super) fn timestamp(time: SystemTime) -> Option<Timestamp> {
    let time = Timestamp::try_from(time).ok()?;
    Timestamp::from_second(time.as_second()).ok()
}
