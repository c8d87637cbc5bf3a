//! Which blobs go, which stay, and why. Pure: `docs/store.md`, gc 5 and 7.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use crate::{
    model::digest::Digest,
    store::{StoredBlob, Trashed},
};

/// What leases and roots name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    pub leased: BTreeSet<Digest>,
    pub rooted: BTreeSet<Digest>,
}

impl Needed {
    pub fn names(&self, digest: &Digest) -> bool {
        self.rooted.contains(digest) || self.leased.contains(digest)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sorted {
    pub rooted: Vec<StoredBlob>,
    pub leased: Vec<StoredBlob>,
    /// Nobody needs them, but they came so lately that somebody may be about to say so.
    pub young: Vec<StoredBlob>,
    pub candidates: Vec<StoredBlob>,
}

pub fn candidates(blobs: Vec<StoredBlob>, needed: &Needed, now: SystemTime, grace: Duration) -> Sorted {
    let mut sorted = Sorted::default();
    for blob in blobs {
        let place = if needed.rooted.contains(&blob.digest) {
            &mut sorted.rooted
        } else if needed.leased.contains(&blob.digest) {
            &mut sorted.leased
        } else if blob.modified + grace > now {
            &mut sorted.young
        } else {
            &mut sorted.candidates
        };
        place.push(blob);
    }
    sorted
}

/// What was in the trash, sorted by what happens to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SortedTrash {
    /// Somebody needs it again.
    pub put_back: Vec<Trashed>,
    pub waiting: Vec<Trashed>,
    pub unlink: Vec<Trashed>,
}

/// `listed` is the trash as it was before the leases were read, `moved` what came to it since: that waits.
pub fn sort_trash(
    listed: Vec<Trashed>,
    moved: Vec<Trashed>,
    fresh: &Needed,
    now: SystemTime,
    age: Duration,
) -> SortedTrash {
    let mut sorted = SortedTrash::default();
    for blob in moved {
        if fresh.names(&blob.digest) { sorted.put_back.push(blob) } else { sorted.waiting.push(blob) }
    }
    for blob in listed {
        if fresh.names(&blob.digest) {
            sorted.put_back.push(blob);
        } else if blob.moved.is_some_and(|moved| moved + age <= now) {
            sorted.unlink.push(blob);
        } else {
            sorted.waiting.push(blob);
        }
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn digest(name: &str) -> Digest {
        Digest::sha256(name.as_bytes())
    }

    fn needed() -> Needed {
        Needed {
            leased: [digest("leased"), digest("both")].into(),
            rooted: [digest("rooted"), digest("both")].into(),
        }
    }

    #[test]
    fn only_what_nobody_names_and_is_old_is_a_candidate() {
        let blob =
            |name: &str, modified| StoredBlob { digest: digest(name), size: 1, modified: at(modified) };
        let blobs = ["rooted", "leased", "both", "old"].map(|name| blob(name, 0));
        let blobs =
            [blobs.to_vec(), vec![blob("new", 6401), blob("just", 6400), blob("future", 99_999)]].concat();
        let sorted = candidates(blobs, &needed(), at(10_000), Duration::from_hours(1));
        let names = |blobs: &[StoredBlob]| blobs.iter().map(|b| b.digest.clone()).collect::<Vec<_>>();
        assert_eq!(names(&sorted.rooted), [digest("rooted"), digest("both")]);
        assert_eq!(names(&sorted.leased), [digest("leased")]);
        assert_eq!(names(&sorted.young), [digest("new"), digest("future")]);
        assert_eq!(names(&sorted.candidates), [digest("old"), digest("just")]);
    }

    #[test]
    fn only_what_was_listed_long_after_its_move_and_nobody_names_is_unlinked() {
        let blob = |name: &str, moved: Option<u64>| Trashed {
            gc: "1".into(),
            digest: digest(name),
            size: 1,
            moved: moved.map(at),
        };
        let listed = vec![
            blob("old", Some(100)),
            blob("late", Some(101)),
            blob("unknown", None),
            blob("rooted", Some(0)),
            blob("leased", Some(0)),
        ];
        let moved = vec![blob("now", Some(0)), blob("both", Some(0))];
        let sorted = sort_trash(listed, moved, &needed(), at(1000), Duration::from_mins(15));
        let names = |blobs: &[Trashed]| blobs.iter().map(|b| b.digest.clone()).collect::<Vec<_>>();
        assert_eq!(names(&sorted.unlink), [digest("old")]);
        assert_eq!(names(&sorted.put_back), [digest("both"), digest("rooted"), digest("leased")]);
        assert_eq!(names(&sorted.waiting), [digest("now"), digest("late"), digest("unknown")]);
    }
}
