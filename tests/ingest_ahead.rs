//! Bytes are hashed when they arrive, ahead of their write. Whatever becomes of those who bring them, what is
//! published is what its name says.
#![allow(clippy::unwrap_used)]

use std::fs;

use imagecache::{
    model::digest::Digest,
    store::{Block, Ingest, Store},
};
use proptest::prelude::*;

const PIECE: usize = 4096;

/// Who brings a run of pieces, and how it ends.
#[derive(Clone, Debug)]
struct Visit {
    from: usize,
    pieces: usize,
    /// Pieces of it that are hashed on arrival.
    ahead: usize,
    /// Lies: other bytes than the blob's.
    lies: bool,
    /// Cut off before the write.
    cut: bool,
}

fn visit() -> impl Strategy<Value = Visit> {
    (0_usize..8, 1_usize..4, 0_usize..4, any::<bool>(), any::<bool>())
        .prop_map(|(from, pieces, ahead, lies, cut)| Visit { from, pieces, ahead, lies, cut })
}

fn bring(ingest: &Ingest, at: usize, bytes: &[u8], ahead: usize, write: bool) {
    let mut block = Block::new(bytes.len());
    block.fill(bytes, usize::MAX);
    ingest.begin_at(at as u64);
    let mut pieces = bytes.chunks(PIECE).enumerate().take(ahead);
    pieces.all(|(n, piece)| {
        ingest.hash_ahead((at + n * PIECE) as u64, piece);
        true
    });
    if write {
        ingest.write_at(at as u64, &mut block).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_blob_is_published_only_with_the_bytes_that_its_digest_names(
        visits in prop::collection::vec(visit(), 0..12), tail in 0_usize..PIECE
    ) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create_or_open(folder.path()).unwrap();
        // Large enough to pass the page cache.
        let mut good = b"not the same in any two pieces".repeat((1 << 20) / 29 + 150);
        good.truncate((1 << 20) + tail);
        let digest = Digest::sha256(&good);
        let ingest = store.ingest(&digest, good.len() as u64).unwrap();
        for visit in visits {
            let at = visit.from * PIECE;
            // Only what nobody has written yet is ever claimed.
            let free = ingest.gaps().into_iter().find(|gap| gap.contains(&(at as u64)));
            let Some(free) = free else { continue };
            let end = (at + visit.pieces * PIECE).min(usize::try_from(free.end).unwrap());
            let mut bytes = good[at..end].to_vec();
            if visit.lies {
                bytes[0] ^= 1;
            }
            bring(&ingest, at, &bytes, visit.ahead, !visit.cut);
        }
        for gap in ingest.gaps() {
            let (start, end) = (usize::try_from(gap.start).unwrap(), usize::try_from(gap.end).unwrap());
            bring(&ingest, start, &good[start..end], usize::MAX, true);
        }
        let path = store.path().join("blobs/sha256").join(digest.hex());
        match ingest.finish() {
            Ok(()) => prop_assert!(fs::read(path).unwrap() == good),
            Err(_) => prop_assert!(!path.exists()),
        }
    }
}

#[test]
fn good_bytes_that_were_hashed_and_lost_do_not_vouch_for_bad_ones_that_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create_or_open(folder.path()).unwrap();
    let good = vec![7; 2 << 20];
    let ingest = store.ingest(&Digest::sha256(&good), good.len() as u64).unwrap();
    bring(&ingest, 0, &good[..1 << 20], usize::MAX, false);
    bring(&ingest, 0, &vec![8; 1 << 20], usize::MAX, true);
    bring(&ingest, 1 << 20, &good[1 << 20..], usize::MAX, true);
    assert!(ingest.finish().is_err());
}
