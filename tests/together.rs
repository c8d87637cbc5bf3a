//! Several processes on one store at once, with images that share layers: each byte comes from upstream once.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "support/registry/mod.rs"]
mod upstream;

use std::{
    fs,
    process::{Command, Stdio},
};

use imagecache::{
    model::digest::Digest,
    store::{Store, is_right},
};
use upstream::Registry;

const MIB: usize = 1 << 20;
const PROCESSES: usize = 4;

/// The first is large enough to be continued by others, and to get connections of its own. A stream that is cut short
/// for those has sent up to a megabyte in vain.
fn layer(n: usize) -> Vec<u8> {
    let size = if n == 0 { 96 * MIB } else { MIB + 8 * n };
    let mut state = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(n as u64 + 1);
    let mut bytes = Vec::with_capacity(size);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_that_begin_at_once_fetch_each_blob_once() {
    let (registry, volume) = (Registry::start().await, tempfile::tempdir().unwrap());
    registry.throttle(64 * MIB as u64);
    // Every process wants all layers, in images of its own.
    let layers: Vec<Vec<u8>> = (0..8).map(layer).collect();
    for (process, image) in (0..PROCESSES).flat_map(|process| (0..4).map(move |image| (process, image))) {
        let wanted: Vec<&[u8]> =
            [0, 1 + image, 1 + (image + process) % 7, 4 + image].map(|n| &*layers[n]).to_vec();
        registry.image(&format!("team-{process}/app-{image}"), "1", "linux/amd64", &wanted);
    }
    let host = registry.host().to_string();
    let children: Vec<_> = (0..PROCESSES)
        .map(|process| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_imagecache"));
            command.args(["--log", "off", "pull", "--platform", "linux/amd64", "--plain-http", &host]);
            command.arg("--volume").arg(volume.path()).args(["--name", &format!("c{process}")]);
            for image in 0..4 {
                let reference = registry.reference(&format!("team-{process}/app-{image}:1"));
                command.args(["--image", &reference.to_string()]);
            }
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let ended = tokio::task::spawn_blocking(|| {
        children.into_iter().map(|child| child.wait_with_output().unwrap()).collect::<Vec<_>>()
    });
    for output in ended.await.unwrap() {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let unique: u64 = layers.iter().map(|layer| layer.len() as u64).sum();
    println!("{} bytes for {unique} unique ones, {PROCESSES} processes", registry.served());
    assert!(registry.served() <= unique + unique / 100, "{} for {unique}", registry.served());
    for layer in &layers[1..] {
        assert_eq!(registry.served_of(&Digest::sha256(layer)), layer.len() as u64);
    }
    let store = Store::open(volume.path()).unwrap();
    assert_eq!(store.list_roots().unwrap().len(), PROCESSES);
    for listed in store.roots().unwrap() {
        for (digest, size) in listed.root.unwrap().root.closure() {
            let file = store.find(digest, size).unwrap().unwrap();
            assert!(is_right(&file, digest, &|_| {}).unwrap(), "{digest}");
        }
    }
    assert_eq!(fs::read_dir(volume.path().join("ingest")).unwrap().count(), 0);
}
