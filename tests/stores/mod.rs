//! Stores with real images in them, for the tests of what reads and writes stores.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::path::PathBuf;

use imagecache::{
    model::{
        digest::Digest,
        request::CacheKey,
        root::{Entry, EntryKind, ROOT_FORMAT, Root, RootImage},
    },
    store::Store,
};
use jiff::Timestamp;

pub fn new_store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create_or_open(dir.path().join("store")).unwrap();
    (dir, store)
}

pub fn put(store: &Store, bytes: &[u8]) -> Digest {
    let digest = Digest::sha256(bytes);
    let mut ingest = store.ingest(&digest, bytes.len() as u64).unwrap();
    bytes.chunks(7).for_each(|chunk| ingest.write(chunk).unwrap());
    ingest.finish().unwrap();
    digest
}

pub fn blob_path(store: &Store, digest: &Digest) -> PathBuf {
    store.path().join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
}

pub fn key(text: &str) -> CacheKey {
    text.parse().unwrap()
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A root of one image whose blobs are in the store: an empty layer, so that other tools can copy it.
pub fn root(store: &Store, cache: &str, run: u64, reference: &str, text: &str) -> Root {
    let layer = vec![0_u8; 1024];
    let diff = Digest::sha256(&layer);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","author":"{text}","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{diff}"]}},"history":[]}}"#
    );
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"{CONFIG}","digest":"{}","size":{}}},"layers":[{{"mediaType":"{LAYER}","digest":"{diff}","size":1024}}]}}"#,
        Digest::sha256(config.as_bytes()),
        config.len()
    );
    let entry = |bytes: &[u8], kind, media_type: &str| Entry {
        digest: put(store, bytes),
        size: bytes.len() as u64,
        kind,
        media_type: media_type.into(),
    };
    let closure = vec![
        entry(manifest.as_bytes(), EntryKind::Manifest, MANIFEST),
        entry(config.as_bytes(), EntryKind::Config, CONFIG),
        entry(&layer, EntryKind::Layer, LAYER),
    ];
    Root {
        format: ROOT_FORMAT,
        cache: key(cache),
        name: cache.into(),
        run,
        inputs: "asked".into(),
        credentials: String::new(),
        store: store.id().into(),
        serve_private: false,
        images: vec![RootImage {
            reference: reference.parse().unwrap(),
            digest: closure[0].digest.clone(),
            media_type: MANIFEST.into(),
            platforms: vec!["linux/amd64".parse().unwrap()],
            resolved: Timestamp::from_second(1_700_000_000 + i64::try_from(run).unwrap()).unwrap(),
            overridden: false,
            led: false,
            public: None,
            referrers: None,
            closure,
        }],
    }
}

/// Every file of a folder of the store becomes older by this, folders too: as if that time had passed.
pub fn age(store: &Store, folder: &str, by: std::time::Duration) {
    fn walk(path: &std::path::Path, by: std::time::Duration) {
        for entry in std::fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                walk(&path, by);
            }
            let file = std::fs::File::open(&path).unwrap();
            file.set_modified(meta.modified().unwrap() - by).unwrap();
        }
    }
    walk(&store.path().join(folder), by);
}
