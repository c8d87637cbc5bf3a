//! `index.json`, and for readers of `docker save` `manifest.json`. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{bad, blob_name};
use crate::{
    model::{
        digest::Digest,
        failure::Failure,
        reference::Reference,
        root::{Root, RootImage},
    },
    registry::manifest::{Document, OCI_INDEX},
};

pub(super) const LAYOUT_TEXT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// What skopeo and crane look up.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What containerd looks up.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
const RESOLVED: &str = "imagecaches.eci.alibabacloud.com/resolved";
const OVERRIDDEN: &str = "imagecaches.eci.alibabacloud.com/overridden";
const CACHE: &str = "imagecaches.eci.alibabacloud.com/cache";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    media_type: String,
    manifests: Vec<Wire>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// One image of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Absent if the archive gives none, or only a tag.
    pub reference: Option<Reference>,
    pub digest: Digest,
    pub size: u64,
    pub media_type: String,
    pub resolved: Option<Timestamp>,
    pub overridden: bool,
}

pub(super) fn write(root: &Root) -> Vec<u8> {
    let image = |image: &RootImage| {
        let name = image.reference.to_string();
        let mut annotations = BTreeMap::from([
            (REF_NAME.to_owned(), name.clone()),
            (CONTAINERD_NAME.to_owned(), name),
            (RESOLVED.to_owned(), image.resolved.to_string()),
        ]);
        if image.overridden {
            annotations.insert(OVERRIDDEN.to_owned(), "true".to_owned());
        }
        let top = image.closure.iter().find(|entry| entry.digest == image.digest)?;
        Some(Wire {
            media_type: image.media_type.clone(),
            digest: image.digest.clone(),
            size: top.size,
            annotations,
        })
    };
    let index = Index {
        schema_version: 2,
        media_type: OCI_INDEX.to_owned(),
        manifests: root.images.iter().filter_map(image).collect(),
        annotations: BTreeMap::from([(CACHE.to_owned(), root.name.clone())]),
    };
    serde_json::to_vec_pretty(&index).unwrap_or_default()
}

/// The images of an archive, and the name of the cache that it was, if it says so.
pub(super) fn read(bytes: &[u8]) -> Result<(Vec<Named>, Option<String>), Failure> {
    let index: Index =
        serde_json::from_slice(bytes).map_err(|e| bad(format!("index.json is not one: {e}")))?;
    let images = index.manifests.into_iter().map(|wire| {
        let said = |key: &str| wire.annotations.get(key);
        let name = [CONTAINERD_NAME, REF_NAME].into_iter().filter_map(said).find(|name| is_full(name));
        Named {
            reference: name.and_then(|name| name.parse().ok()),
            resolved: said(RESOLVED).and_then(|time| time.parse().ok()),
            overridden: said(OVERRIDDEN).is_some_and(|text| text == "true"),
            digest: wire.digest,
            size: wire.size,
            media_type: wire.media_type,
        }
    });
    Ok((images.collect(), index.annotations.get(CACHE).cloned()))
}

/// A name, and not only the tag that image-spec has in mind for it.
fn is_full(name: &str) -> bool {
    name.contains(['/', ':', '@'])
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// What `docker save` would say. Its readers know one platform an image: the first one that is there.
pub(super) fn docker_manifest(images: &[(&RootImage, Document)]) -> Vec<u8> {
    let saved = images.iter().filter_map(|(image, document)| {
        let Document::Image { config, layers, .. } = document else { return None };
        Some(Saved {
            config: blob_name(&config.digest),
            repo_tags: image.reference.tag().map(|_| untagged(&image.reference)).into_iter().collect(),
            layers: layers.iter().map(|layer| blob_name(&layer.digest)).collect(),
        })
    });
    serde_json::to_vec(&saved.collect::<Vec<_>>()).unwrap_or_default()
}

/// Host, path and tag: a digest is no part of a tag's name.
fn untagged(reference: &Reference) -> String {
    let name = reference.to_string();
    name.split_once('@').map_or(name.clone(), |(name, _)| name.to_owned())
}
