//! `index.json`, so that other tools read the store as an OCI layout. Derived from the roots: its loss is harmless.
//! Source: OCI image-spec, image-layout.md; the reference name annotation is what skopeo and crane look up.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Store, StoreError};
use crate::model::{
    digest::Digest,
    root::{Root, RootImage},
};

const NAME: &str = "index.json";
const MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Somebody who adds roots all the time rewrites the index as well.
const ROUNDS: usize = 10;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: Vec<Descriptor<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    digest: &'a Digest,
    size: u64,
    annotations: BTreeMap<&'a str, &'a str>,
}

impl Store {
    /// Writes `index.json` from the roots, again while roots come or go meanwhile.
    pub fn rewrite_index(&self) -> Result<(), StoreError> {
        for _ in 0..ROUNDS {
            let listed = self.list_roots()?;
            let roots: Vec<Root> =
                self.roots()?.into_iter().filter_map(|listed| Some(listed.root.ok()?.root)).collect();
            self.inner.base.replace(NAME, &render(&roots))?;
            if self.list_roots()? == listed {
                break;
            }
        }
        Ok(())
    }
}

/// One entry per name: the newest resolution, and before that one that no setting of a cache has bent.
fn render(roots: &[Root]) -> Vec<u8> {
    let mut newest: BTreeMap<String, &RootImage> = BTreeMap::new();
    let rank = |image: &RootImage| (!image.overridden, image.resolved);
    for image in roots.iter().flat_map(|root| &root.images) {
        let kept = newest.entry(image.reference.to_string()).or_insert(image);
        if rank(image) > rank(kept) {
            *kept = image;
        }
    }
    let size =
        |image: &RootImage| image.closure.iter().find(|entry| entry.digest == image.digest).map(|e| e.size);
    let manifests = newest.iter().filter_map(|(name, image)| {
        Some(Descriptor {
            media_type: &image.media_type,
            digest: &image.digest,
            size: size(image)?,
            annotations: BTreeMap::from([(REF_NAME, name.as_str())]),
        })
    });
    let index = Index { schema_version: 2, media_type: MEDIA_TYPE, manifests: manifests.collect() };
    serde_json::to_vec_pretty(&index).unwrap_or_default()
}
