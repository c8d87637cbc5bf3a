//! Content for the scripted registry.

use bytes::Bytes;
use imagecache::model::digest::Digest;
use serde_json::{Value, json};

use super::Registry;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image that was put into the registry.
#[derive(Clone, Debug)]
pub struct Image {
    pub digest: Digest,
    pub bytes: Bytes,
    pub config: Digest,
    pub layers: Vec<Digest>,
}

impl Registry {
    pub fn put_blob(&self, repository: &str, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::sha256(&bytes);
        self.lock().blobs.insert((repository.to_owned(), digest.clone()), bytes);
        digest
    }

    /// Stores it by digest and, if given, by tag.
    pub fn put_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::sha256(&bytes);
        for name in tag.map(str::to_owned).into_iter().chain([digest.to_string()]) {
            let stored = (media_type.to_owned(), digest.clone(), bytes.clone());
            self.lock().manifests.insert((repository.to_owned(), name), stored);
        }
        digest
    }

    /// What the referrers API answers for a digest; from the first time on there is one.
    pub fn put_referrers(&self, repository: &str, subject: &Digest, descriptors: Vec<Value>) {
        self.lock().referrers.insert((repository.to_owned(), subject.clone()), descriptors);
    }

    /// An image whose layers are these bytes.
    pub fn image(&self, repository: &str, tag: &str, platform: &str, layers: &[&[u8]]) -> Image {
        let (os, architecture) = platform.split_once('/').unwrap();
        let config =
            json!({"os": os, "architecture": architecture, "rootfs": {"type": "layers"}}).to_string();
        let descriptor = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": Digest::sha256(bytes).to_string(), "size": bytes.len()});
        let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
            "layers": layers.iter().map(|l| descriptor(layer, l)).collect::<Vec<Value>>(),
        });
        let bytes = Bytes::from(manifest.to_string());
        let config = self.put_blob(repository, config);
        let layers = layers.iter().map(|l| self.put_blob(repository, l.to_vec())).collect();
        let digest =
            self.put_manifest(repository, Some(tag).filter(|t| !t.is_empty()), MANIFEST, bytes.clone());
        Image { digest, bytes, config, layers }
    }

    /// An index of images, with an attestation at its end if wanted.
    pub fn index(&self, repository: &str, tag: &str, images: &[(&str, &Image)], attestation: bool) -> Digest {
        let mut entries: Vec<Value> = images
            .iter()
            .map(|(platform, image)| {
                let (os, architecture) = platform.split_once('/').unwrap();
                json!({
                    "mediaType": MANIFEST,
                    "digest": image.digest.to_string(),
                    "size": image.bytes.len(),
                    "platform": {"os": os, "architecture": architecture},
                })
            })
            .collect();
        if attestation {
            let made = self.image(repository, "", "unknown/unknown", &[b"attestation"]);
            entries.push(json!({
                "mediaType": MANIFEST,
                "digest": made.digest.to_string(),
                "size": made.bytes.len(),
                "platform": {"os": "unknown", "architecture": "unknown"},
                "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
            }));
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        self.put_manifest(repository, Some(tag), INDEX, index.to_string())
    }
}
