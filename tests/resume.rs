//! Attempts that do not end: killed at random, resumed, and everything is verified at the end.
#![allow(clippy::case_sensitive_file_extension_comparisons)]
#![allow(clippy::unwrap_used)]

#[path = "support/registry/mod.rs"]
mod upstream;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use imagecache::{model::digest::Digest, store::Store};
use rand::Rng as _;
use upstream::Registry;

const MIB: u64 = 1 << 20;
const CONNECTIONS: u64 = 2;
/// Of each connection a kill may cost a chunk of 16 MiB, and what was on its way in the sockets.
const LOSS: u64 = CONNECTIONS * (16 + 8) * MIB;

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

fn ingest(store: &Path) -> Vec<String> {
    let names = fs::read_dir(store.join("ingest")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.ends_with(".lock")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_killed_again_and_again_loses_a_chunk_each_time_and_no_more() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    let layers: Vec<Vec<u8>> =
        [64, 48, 20, 3, 1].iter().zip(1..).map(|(size, n)| noise(n, size * MIB)).collect();
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let image = registry.image("app", "1", "linux/amd64", &layers);
    let unique: u64 = layers.iter().map(|layer| layer.len() as u64).sum();
    let mut random = rand::rng();
    let mut kills = 0;
    loop {
        // Sometimes in the middle of the first bytes, sometimes after several checkpoints.
        let more = random.random_range(0..if kills % 2 == 0 { 60 } else { 20 }) * MIB;
        let more = if kills < 8 { more } else { u64::MAX / 2 };
        if run_for(&registry, pull(&registry, store.path()), more).await {
            break;
        }
        kills += 1;
    }
    let opened = Store::open(store.path()).unwrap();
    let caches = opened.list_roots().unwrap();
    let root = opened.root(&caches[0].0, caches[0].1).unwrap().unwrap().root;
    for (digest, size) in root.closure() {
        let bytes = fs::read(store.path().join("blobs/sha256").join(digest.hex())).unwrap();
        assert_eq!((&Digest::sha256(&bytes), bytes.len() as u64), (digest, size));
    }
    assert!(image.layers.iter().all(|layer| root.closure().contains_key(layer)));
    let allowed = unique + kills * LOSS;
    assert!(registry.served() <= allowed + MIB, "{} of {allowed} after {kills} kills", registry.served());
    assert_eq!(ingest(store.path()), Vec::<String>::new());
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
