//! A blob's way into the store: pieces in any order, attempts that end early, and what the next one may take over.
#![allow(clippy::case_sensitive_file_extension_comparisons, clippy::single_range_in_vec_init)]
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use imagecache::{
    model::{digest::Digest, request::CacheKey},
    store::{Block, Ingest, Store},
};

const MIB: usize = 1 << 20;

fn noise(size: usize) -> Vec<u8> {
    (0..size as u64).map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect()
}

fn new_store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create_or_open(dir.path()).unwrap();
    (dir, store)
}

fn put(ingest: &Ingest, at: usize, bytes: &[u8]) {
    let mut block = Block::new(bytes.len().max(1));
    block.fill(bytes, usize::MAX);
    ingest.write_at(at as u64, &mut block).unwrap();
}

fn left(store: &Store) -> Vec<String> {
    let names = fs::read_dir(store.path().join("ingest")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.ends_with(".lock")).collect()
}

fn blob(path: &Path, digest: &Digest) -> Vec<u8> {
    fs::read(path.join("blobs/sha256").join(digest.hex())).unwrap()
}

fn key(text: &str) -> CacheKey {
    text.parse().unwrap()
}

/// An attempt at 20 MiB that ended after the first 10 and with a piece at 12.
fn ended(store: &Store, bytes: &[u8], cache: &str) -> Digest {
    let digest = Digest::sha256(bytes);
    let ingest = store.ingest(&digest, bytes.len() as u64).unwrap();
    put(&ingest, 0, &bytes[..10 * MIB]);
    put(&ingest, 12 * MIB, &bytes[12 * MIB..13 * MIB]);
    ingest.checkpoint(&key(cache)).unwrap();
    // Not durable when it ended: nobody may take it over.
    put(&ingest, 15 * MIB, &bytes[15 * MIB..16 * MIB]);
    digest
}

#[test]
fn pieces_may_come_in_any_order_and_of_any_length() {
    let (_dir, store) = new_store();
    let bytes = noise(3 * MIB + 77);
    let digest = Digest::sha256(&bytes);
    let ingest = store.ingest(&digest, bytes.len() as u64).unwrap();
    let cuts = [0, 5, 4096, MIB, 2 * MIB, 2 * MIB + 4096, bytes.len()];
    for n in [3, 0, 5, 1, 4, 2] {
        assert!(!ingest.is_complete());
        put(&ingest, cuts[n], &bytes[cuts[n]..cuts[n + 1]]);
    }
    ingest.finish().unwrap();
    assert!(blob(store.path(), &digest) == bytes);
    assert_eq!(left(&store), Vec::<String>::new());
}

#[test]
fn a_byte_beyond_the_size_or_a_hole_is_refused() {
    let (_dir, store) = new_store();
    let bytes = noise(2 * MIB);
    let digest = Digest::sha256(&bytes);
    let size = bytes.len() as u64;
    let ingest = store.ingest(&digest, size).unwrap();
    let mut block = Block::new(4096);
    block.fill(&[1; 2], 2);
    assert!(ingest.write_at(size - 1, &mut block).is_err());
    drop(ingest);
    let ingest = store.ingest(&digest, size).unwrap();
    put(&ingest, 0, &bytes[..MIB]);
    put(&ingest, MIB + 4096, &bytes[MIB + 4096..]);
    assert_eq!(ingest.gaps(), [MIB as u64..(MIB + 4096) as u64]);
    assert!(ingest.finish().is_err());
    assert_eq!(left(&store), Vec::<String>::new());
}

#[test]
fn an_attempt_takes_over_what_an_earlier_one_made_durable_and_nothing_else() {
    let (_dir, store) = new_store();
    let bytes = noise(20 * MIB);
    let digest = ended(&store, &bytes, "cache");
    assert_eq!(store.durable(&digest, bytes.len() as u64).unwrap(), 11 * MIB as u64);
    let ingest = store.ingest(&digest, bytes.len() as u64).unwrap();
    assert_eq!(ingest.adopt(&key("cache")).unwrap(), 11 * MIB as u64);
    assert_eq!(left(&store).len(), 2, "the old file is gone, ours has a sidecar: {:?}", left(&store));
    for gap in ingest.gaps() {
        let (start, end) = (usize::try_from(gap.start).unwrap(), usize::try_from(gap.end).unwrap());
        put(&ingest, start, &bytes[start..end]);
    }
    ingest.finish().unwrap();
    assert!(blob(store.path(), &digest) == bytes);
    assert_eq!(left(&store), Vec::<String>::new());
}

#[test]
fn what_another_cache_fetched_gives_no_right_to_its_bytes() {
    let (_dir, store) = new_store();
    let bytes = noise(20 * MIB);
    let digest = ended(&store, &bytes, "victim");
    let ingest = store.ingest(&digest, bytes.len() as u64).unwrap();
    assert_eq!(ingest.adopt(&key("attacker")).unwrap(), 0);
    drop(ingest);
    assert_eq!(left(&store).len(), 2, "the victim's attempt is kept for the victim");
}

#[test]
fn durable_ranges_with_wrong_bytes_are_found_when_they_are_hashed_again() {
    let (_dir, store) = new_store();
    let bytes = noise(20 * MIB);
    let digest = ended(&store, &bytes, "cache");
    let data = left(&store).into_iter().find(|name| !name.ends_with(".ranges")).unwrap();
    let file = fs::OpenOptions::new().write(true).open(store.path().join("ingest").join(data)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"rot", 5 * MIB as u64).unwrap();
    let ingest = store.ingest(&digest, bytes.len() as u64).unwrap();
    ingest.adopt(&key("cache")).unwrap();
    for gap in ingest.gaps() {
        let (start, end) = (usize::try_from(gap.start).unwrap(), usize::try_from(gap.end).unwrap());
        put(&ingest, start, &bytes[start..end]);
    }
    assert!(ingest.finish().is_err());
    assert_eq!(left(&store), Vec::<String>::new(), "nobody may take it over again");
}

#[test]
fn a_sidecar_that_is_torn_or_claims_too_much_is_none() {
    let (_dir, store) = new_store();
    let bytes = noise(20 * MIB);
    let digest = ended(&store, &bytes, "cache");
    let name = left(&store).into_iter().find(|name| name.ends_with(".ranges")).unwrap();
    let path = store.path().join("ingest").join(name);
    let good = fs::read_to_string(&path).unwrap();
    let size = bytes.len() as u64;
    for bad in [
        "",
        &good[..good.len() / 2],
        &good.replace("10485760", "99999999"),
        &good.replace("format\":1", "format\":2"),
    ] {
        fs::write(&path, bad).unwrap();
        assert_eq!(store.durable(&digest, size).unwrap(), 0, "{bad}");
        assert_eq!(store.ingest(&digest, size).unwrap().adopt(&key("cache")).unwrap(), 0, "{bad}");
    }
}

#[test]
fn after_a_pull_what_killed_attempts_left_is_removed_but_not_from_under_somebody_at_work() {
    let (_dir, store) = new_store();
    let bytes = noise(20 * MIB);
    let digest = ended(&store, &bytes, "cache");
    fs::write(store.path().join(format!("ingest/.sha256-{}.0.ranges.1", digest.hex())), "torn").unwrap();
    let lock = store.try_lock(&digest).unwrap();
    store.tidy([&digest]).unwrap();
    assert_eq!(left(&store).len(), 3);
    drop(lock);
    store.tidy([&Digest::sha256(b"another")]).unwrap();
    assert_eq!(left(&store).len(), 3);
    store.tidy([&digest]).unwrap();
    assert_eq!(left(&store), Vec::<String>::new());
}
