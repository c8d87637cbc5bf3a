//! The image that the scripted registry has.

use std::{collections::BTreeMap, sync::LazyLock};

use bytes::Bytes;
use imagecache::model::digest::Digest;
use serde_json::{Value, json};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

pub const LAYER_SIZE: usize = 100_000;

/// By tag or digest: media type and bytes.
#[derive(Clone, Debug)]
pub struct Content(BTreeMap<String, (String, Bytes)>);

impl Content {
    /// An image `1` of one config and one layer.
    pub fn honest() -> Self {
        let mut content = Self(BTreeMap::new());
        content.put("application/octet-stream", config());
        content.put("application/octet-stream", layer());
        content.tag(MANIFEST, manifest().to_string());
        content
    }

    pub fn put(&mut self, media_type: &str, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::sha256(&bytes);
        self.0.insert(digest.to_string(), (media_type.to_owned(), bytes));
        digest
    }

    /// The tag `1` means this document.
    pub fn tag(&mut self, media_type: &str, bytes: impl Into<Bytes>) {
        let digest = self.put(media_type, bytes);
        let stored = self.0[&digest.to_string()].clone();
        self.0.insert("1".to_owned(), stored);
    }

    pub fn get(&self, name: &str) -> Option<&(String, Bytes)> {
        self.0.get(name)
    }
}

pub fn config() -> Bytes {
    Bytes::from_static(br#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers"}}"#)
}

/// Bytes that are not all alike.
pub fn layer() -> Bytes {
    NOISE.clone()
}

static NOISE: LazyLock<Bytes> = LazyLock::new(|| {
    (0..LAYER_SIZE as u64).map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect()
});

pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::sha256(bytes).to_string(), "size": bytes.len()})
}

pub fn layer_descriptor() -> Value {
    descriptor(LAYER, &layer())
}

pub fn manifest() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config()),
        "layers": [layer_descriptor()],
    })
}

pub fn index(children: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children})
}

pub fn with(mut base: Value, key: &str, value: Value) -> Value {
    base[key] = value;
    base
}
