//! Parts of one blob over several connections, through the whole worker: what is fetched, how often, and that the bytes
//! are right whatever the registry makes of ranges.
#![allow(clippy::unwrap_used)]

#[path = "support/registry/mod.rs"]
mod upstream;

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use imagecache::{
    model::{
        credentials::Credentials,
        digest::Digest,
        reference::Reference,
        request::{Access, PullRequest, Transport},
    },
    ops::clock,
    pull::{self, Pull, meter::Meter},
    registry::{Client, Config, CredentialSource, Limits},
    store::Store,
};
use upstream::{Fault, Registry};

const MIB: u64 = 1 << 20;
/// Of a stream that ends early, what was on its way.
const SMALL: u64 = 8 * MIB;

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

/// Pulls the images and holds every byte against its digest.
async fn pulled(registries: &[&Registry], images: Vec<Reference>, limits: Limits) {
    let access = Access { transport: Transport::PlainHttp, overridden: true };
    let access: BTreeMap<_, _> = registries.iter().map(|registry| (registry.host(), access)).collect();
    let platforms = vec!["linux/amd64".parse().unwrap()];
    let request =
        PullRequest { platforms, access, ..PullRequest::new("cache".parse().unwrap(), images) }.with_inputs();
    let source = CredentialSource::Fixed(Credentials::default());
    let config = Config { limits, ..pull::client_config(&request, source, vec![]) };
    let folder = tempfile::tempdir().unwrap();
    let pull = Pull {
        meter: Arc::new(Meter::new(request.images.len())),
        request,
        store: Store::create_or_open(folder.path()).unwrap(),
        client: Client::new(config).unwrap(),
        credentials: String::new(),
        resolve_again: false,
        now: clock::now(),
    };
    assert_eq!(pull.run().await.failure, None);
    let store = Store::open(folder.path()).unwrap();
    let root = store.latest_root(&"cache".parse().unwrap()).unwrap().unwrap().root;
    for (digest, size) in root.closure() {
        let bytes = fs::read(folder.path().join("blobs/sha256").join(digest.hex())).unwrap();
        assert!(Digest::sha256(&bytes) == *digest && bytes.len() as u64 == size);
    }
}

/// A registry where each connection is slow, with one large layer.
async fn slow(size: u64) -> (Registry, Digest) {
    let registry = Registry::start().await;
    let image = registry.image("app", "1", "linux/amd64", &[&noise(1, size)]);
    registry.slow(Duration::from_millis(4));
    (registry, image.layers[0].clone())
}

fn ranges(registry: &Registry) -> usize {
    registry.seen().iter().filter(|seen| seen.header("range").is_some()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_connection_is_the_limit_others_help_and_nothing_is_fetched_twice() {
    let (registry, _) = slow(48 * MIB).await;
    pulled(&[&registry], vec![registry.reference("app:1")], Limits::default()).await;
    assert!(ranges(&registry) >= 2 && registry.most_bodies() >= 2, "{} ranges", ranges(&registry));
    assert!(registry.served() <= 48 * MIB + SMALL, "{}", registry.served());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_ignores_ranges_or_answers_wrong_ones_is_read_by_one_connection() {
    for fault in [Fault::IgnoreRange, Fault::WrongContentRange] {
        let (registry, layer) = slow(24 * MIB).await;
        registry.always(&format!("GET /v2/app/blobs/{layer}"), fault.clone());
        pulled(&[&registry], vec![registry.reference("app:1")], Limits::default()).await;
        assert!(registry.served() <= 24 * MIB + SMALL, "{fault:?}: {}", registry.served());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_behind_two_registries_sees_no_more_connections_than_one_host_may_have() {
    let (one, two, store) = (Registry::start().await, Registry::start().await, Registry::start().await);
    store.slow(Duration::from_millis(4));
    let mut images = Vec::new();
    for (n, registry) in [(0, &one), (10, &two)] {
        let layers: Vec<Vec<u8>> = (n..n + 4).map(|seed| noise(seed + 1, MIB)).collect();
        let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
        let image = registry.image("app", "1", "linux/amd64", &layers);
        store.image("app", "", "linux/amd64", &layers);
        for layer in &image.layers {
            let there = Fault::Redirect(store.url(&format!("/store/app/blobs/{layer}")));
            registry.always(&format!("GET /v2/app/blobs/{layer}"), there);
        }
        images.push(registry.reference("app:1"));
    }
    let limits = Limits { connections_per_host: 2, ..Limits::default() };
    pulled(&[&one, &two], images, limits).await;
    assert_eq!(store.most_bodies(), 2);
}
