//! Attempts that do not end: killed at random, resumed, and everything is verified at the end.
//! `IMAGECACHE_KILLS=100` for more of them (`make test-kills`), `IMAGECACHE_SEED` for the same ones again.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "support/registry/mod.rs"]
mod upstream;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use imagecache::{model::digest::Digest, store::Store};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use upstream::Registry;

const MIB: u64 = 1 << 20;
const CONNECTIONS: u64 = 2;
/// What a kill may cost each connection: what came since the last checkpoint began, which is made every 8 MiB.
const CHUNK: u64 = 8 * MIB;
/// The largest of the small blobs: up to 16 MiB they start over.
const SMALL: u64 = 12 * MIB;
/// What may be on its way in the sockets of a connection, sent and never read.
const SOCKET: u64 = MIB;
/// Bytes a second: fast, but slower than the disk, so that a kill meets bytes on their way and not a queue of them.
const RATE: u64 = 64 * MIB;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Xorshift: fast enough without optimisation.
fn noise(seed: u64, size: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap());
    while (bytes.len() as u64) < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

fn pull(registry: &Registry, store: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_imagecache"))
        .args(["pull", "--platform", "linux/amd64", "--connections", &CONNECTIONS.to_string()])
        .args([
            "--image",
            &registry.reference("app:1").to_string(),
            "--plain-http",
            &registry.host().to_string(),
        ])
        .arg("--volume")
        .arg(store)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lets it run until so many more bytes have left the registry, then kills it. Whether it ended before.
async fn run_for(registry: &Registry, mut child: Child, bytes: u64) -> bool {
    let until = registry.served() + bytes;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return true;
        }
        if registry.served() >= until {
            child.kill().unwrap();
            child.wait().unwrap();
            return false;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Everything but the probes of attempts that were killed while they began, which gc removes by age.
fn ingest(store: &Path) -> Vec<String> {
    let names = fs::read_dir(store.join("ingest")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with('.') || name.contains("sha256")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_killed_again_and_again_loses_a_chunk_each_time_and_no_more() {
    let (kills, again) = killed_again_and_again(&[64, 48, 20, 4]).await;
    assert!(again <= kills * CONNECTIONS * (CHUNK + SOCKET), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_small_blobs_those_on_their_way_start_over() {
    let (kills, again) = killed_again_and_again(&[12, 3, 1]).await;
    // As many again may have come and not have their names yet.
    assert!(again <= kills * 2 * CONNECTIONS * SMALL, "{again}");
}

/// A pull of layers of such sizes in MiB, in turn: how often it was killed, and how many bytes were sent twice.
async fn killed_again_and_again(sizes: &[u64]) -> (u64, u64) {
    let kills = from_environment("IMAGECACHE_KILLS", 8);
    let seed = from_environment("IMAGECACHE_SEED", rand::random());
    println!("IMAGECACHE_SEED={seed} IMAGECACHE_KILLS={kills}");
    let mut random = StdRng::seed_from_u64(seed);
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    registry.throttle(RATE);
    // A kill comes after 16 MiB on average, at most: all of them come before the end.
    let rounds = usize::try_from((kills * 16).div_ceil(sizes.iter().sum())).unwrap() + 1;
    let sizes = sizes.iter().cycle().take(rounds * sizes.len());
    let layers: Vec<Vec<u8>> = sizes.zip(1..).map(|(size, n)| noise(n, size * MIB)).collect();
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let image = registry.image("app", "1", "linux/amd64", &layers);
    let unique: u64 = layers.iter().map(|layer| layer.len() as u64).sum();
    for kill in 0..kills {
        // Sometimes in the middle of the first bytes, sometimes after several checkpoints.
        let more = random.random_range(0..if kill % 2 == 0 { 24 * MIB } else { 8 * MIB });
        let ended = run_for(&registry, pull(&registry, store.path()), more).await;
        assert!(!ended, "complete after {kill} kills");
    }
    assert!(run_for(&registry, pull(&registry, store.path()), u64::MAX / 2).await);
    let opened = Store::open(store.path()).unwrap();
    let caches = opened.list_roots().unwrap();
    let root = opened.root(&caches[0].0, caches[0].1).unwrap().unwrap().root;
    for (digest, size) in root.closure() {
        let bytes = fs::read(store.path().join("blobs/sha256").join(digest.hex())).unwrap();
        assert_eq!((&Digest::sha256(&bytes), bytes.len() as u64), (digest, size));
    }
    assert_eq!(ingest(store.path()), Vec::<String>::new());
    assert_eq!(opened.leases().unwrap().len(), 0);
    let mut again = 0;
    for (digest, layer) in image.layers.iter().zip(&layers) {
        assert!(root.closure().contains_key(digest));
        again += registry.served_of(digest).checked_sub(layer.len() as u64).unwrap();
    }
    println!("{unique} bytes, no blob is missing or bad; {kills} kills cost {again} bytes more");
    let documents = registry.served() - unique - again;
    assert!(documents < (kills + 1) * MIB, "{documents}");
    (kills, again)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_durable_is_not_asked_for_again() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    let image = registry.image("app", "1", "linux/amd64", &[&noise(1, 200 * MIB)]);
    assert!(!run_for(&registry, pull(&registry, store.path()), 120 * MIB).await);
    registry.forget();
    assert!(run_for(&registry, pull(&registry, store.path()), u64::MAX / 2).await);
    let of_layer = |seen: &upstream::Seen| seen.path.contains(&image.layers[0].to_string());
    let first = registry.seen().iter().filter(|seen| of_layer(seen)).find_map(|seen| {
        seen.header("range")?.strip_prefix("bytes=")?.split('-').next()?.parse::<u64>().ok()
    });
    // Of 120 MiB that left, the sockets and one chunk may not have become durable.
    assert!(first.unwrap_or_default() >= 80 * MIB, "resumed at {first:?}");
    assert_eq!(ingest(store.path()), Vec::<String>::new());
}
