//! What a run of gc did, or would do: for people, and for the controller, which names it in its next list.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::Serialize;

use super::judge::Why;
use crate::{
    model::request::CacheKey,
    store::{StoredBlob, Trashed, remains::Remains},
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    pub blobs: usize,
    pub bytes: u64,
}

impl Amount {
    pub(super) fn of<'a>(sizes: impl IntoIterator<Item = &'a u64>) -> Self {
        let mut amount = Self::default();
        for size in sizes {
            amount.blobs += 1;
            amount.bytes = amount.bytes.saturating_add(*size);
        }
        amount
    }

    pub(super) fn there(blobs: &[StoredBlob]) -> Self {
        Self::of(blobs.iter().map(|blob| &blob.size))
    }

    pub(super) fn trashed(blobs: &[Trashed]) -> Self {
        Self::of(blobs.iter().map(|blob| &blob.size))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The name of this run.
    pub gc: String,
    pub store: String,
    /// Nothing was changed: the rest says what would be.
    pub dry_run: bool,
    /// Unlinked: space that the volume has again.
    pub freed: Amount,
    /// Unfinished downloads that nobody continues, removed.
    pub unfinished: Remains,
    /// Taken out by this run. A later run unlinks them, if nobody asks for them until then.
    pub taken_out: Amount,
    /// Given back, because somebody needs them again.
    pub put_back: Amount,
    /// In the trash now, what this run took out included.
    pub waiting: Amount,
    /// When the first of them may be unlinked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_until: Option<Timestamp>,
    /// Kept because roots name them.
    pub rooted: Amount,
    /// Kept because running or failed pulls name them.
    pub leased: Amount,
    /// Kept although nobody names them, because they came lately.
    pub young: Amount,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub young_until: Option<Timestamp>,
    pub live_roots: usize,
    pub roots: Vec<RootReport>,
    /// Leases whose owners are gone, removed.
    pub stale_leases: usize,
    /// Why no blob was swept. Nothing else is harmed by it.
    pub refused: Vec<String>,
}

/// A root that does not live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RootReport {
    pub cache: CacheKey,
    pub run: u64,
    pub why: String,
    pub removed: bool,
    /// When its file may be removed at the earliest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl RootReport {
    pub(super) fn new(root: &(CacheKey, u64), why: &Why, removed: bool, until: Option<SystemTime>) -> Self {
        let until = until.filter(|_| !removed).and_then(timestamp);
        Self { cache: root.0.clone(), run: root.1, why: why.to_string(), removed, until }
    }
}

/// When the first of these ages ends.
pub(super) fn first(times: impl IntoIterator<Item = SystemTime>, age: Duration) -> Option<Timestamp> {
    times.into_iter().min().and_then(|time| timestamp(time + age))
}

fn timestamp(time: SystemTime) -> Option<Timestamp> {
    let time = Timestamp::try_from(time).ok()?;
    Timestamp::from_second(time.as_second()).ok()
}
