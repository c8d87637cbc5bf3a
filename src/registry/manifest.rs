//! What a manifest or an index says, and what is refused. Pure.
//! Sources: OCI image-spec (manifest.md, image-index.md, descriptor.md); Docker image manifest v2 schema 2;
//! CVE-2021-41190 (one document read as two kinds).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::limits::{MAX_BLOB, MAX_CHILDREN, MAX_LAYERS};
use crate::model::{class::Class, digest::Digest, failure::Failure, platform::Platform};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Every type at once: without the index types some registries answer 404 for an index.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    Index { children: Vec<Child>, subject: Option<Descriptor> },
    Image { config: Descriptor, layers: Vec<Descriptor>, subject: Option<Descriptor> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub digest: Digest,
    pub size: u64,
    pub media_type: String,
}

/// One entry of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    pub digest: Digest,
    pub size: u64,
    pub media_type: String,
    /// Absent if the index does not say. One that cannot be read becomes `unknown/unknown`.
    pub platform: Option<Platform>,
    /// `unknown/unknown`, or marked as an attestation: never what runs.
    pub attestation: bool,
}

impl Child {
    pub fn is_index(&self) -> bool {
        is_index(&self.media_type)
    }

    pub(super) fn is_image_or_index(&self) -> bool {
        is_known(&self.media_type)
    }
}

pub(super) fn is_known(media_type: &str) -> bool {
    is_index(media_type) || matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_LIST)
}

fn is_foreign(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
        || media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<Vec<WireDescriptor>>,
    config: Option<WireDescriptor>,
    layers: Option<Vec<WireDescriptor>>,
    subject: Option<WireDescriptor>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDescriptor {
    digest: Digest,
    size: u64,
    #[serde(default)]
    media_type: String,
    platform: Option<WirePlatform>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct WirePlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

fn bad(message: impl Into<String>) -> Failure {
    Failure::new(Class::BadContent, message)
}

fn unsupported(message: impl Into<String>) -> Failure {
    Failure::new(Class::Unsupported, message)
}

fn read(bytes: &[u8]) -> Result<Wire, Failure> {
    serde_json::from_slice(bytes).map_err(|e| {
        bad(format!("the manifest is not one: line {}, column {} cannot be read", e.line(), e.column()))
    })
}

/// The media type of a document: what the registry says, held against what the document says of itself.
pub(super) fn media_type_of(content_type: Option<&str>, bytes: &[u8]) -> Result<String, Failure> {
    kind(content_type, &read(bytes)?)
}

fn kind(content_type: Option<&str>, wire: &Wire) -> Result<String, Failure> {
    let schema1 = || {
        unsupported(
            "a Docker schema 1 manifest: this format was retired, push the image again with a current tool",
        )
    };
    let said = content_type.map(|t| t.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let said = said.as_deref().unwrap_or_default();
    if wire.fs_layers.is_some()
        || wire.schema_version == Some(1)
        || said == "text/plain"
        || said.starts_with("application/vnd.docker.distribution.manifest.v1")
    {
        return Err(schema1());
    }
    let own = wire.media_type.as_deref().filter(|t| !t.is_empty());
    if let Some(own) = own.filter(|own| !is_known(own)) {
        return Err(unsupported(format!("a manifest of type {:?}", shorten(own))));
    }
    let media_type = match (is_known(said), own) {
        (true, Some(own)) if own != said => {
            return Err(bad(format!("the registry calls the manifest {said}, it calls itself {own}")));
        }
        (true, _) => said,
        (false, Some(own)) => own,
        // A registry that does not know types: the OCI types are the ones that may leave their name out.
        (false, None) if matches!(said, "" | "application/json" | "application/octet-stream") => {
            if wire.manifests.is_some() { OCI_INDEX } else { OCI_MANIFEST }
        }
        (false, None) => return Err(unsupported(format!("a manifest of type {:?}", shorten(said)))),
    };
    Ok(media_type.to_owned())
}

fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Reads a document. `content_type` is the registry's or a descriptor's word for it.
pub fn parse(content_type: Option<&str>, bytes: &[u8]) -> Result<Document, Failure> {
    let wire = read(bytes)?;
    let media_type = kind(content_type, &wire)?;
    if wire.schema_version.is_some_and(|version| version != 2) {
        return Err(unsupported("a manifest of an unknown schema version"));
    }
    let subject = wire.subject.map(descriptor).transpose()?;
    let document = match (is_index(&media_type), wire.manifests, wire.config, wire.layers) {
        (true, Some(manifests), None, None) => {
            if manifests.len() > MAX_CHILDREN {
                return Err(unsupported(format!("an index of more than {MAX_CHILDREN} entries")));
            }
            Document::Index { children: manifests.into_iter().map(child).collect::<Result<_, _>>()?, subject }
        }
        (false, None, Some(config), layers) => {
            let layers = layers.unwrap_or_default();
            if layers.len() > MAX_LAYERS {
                return Err(unsupported(format!("an image of more than {MAX_LAYERS} layers")));
            }
            let layers: Vec<Descriptor> = layers.into_iter().map(descriptor).collect::<Result<_, _>>()?;
            if let Some(layer) = layers.iter().find(|layer| is_foreign(&layer.media_type)) {
                return Err(unsupported(format!(
                    "layer {} is foreign: it is kept outside the registry and may not be copied",
                    layer.digest
                )));
            }
            Document::Image { config: descriptor(config)?, layers, subject }
        }
        (true, None, ..) => return Err(bad("an index without manifests")),
        (true, ..) => return Err(bad("an index that carries config or layers")),
        (false, Some(_), ..) => return Err(bad("an image manifest that carries manifests")),
        (false, None, None, _) => return Err(bad("an image manifest without config")),
    };
    one_size_each(&document)?;
    Ok(document)
}

fn descriptor(wire: WireDescriptor) -> Result<Descriptor, Failure> {
    if wire.size > MAX_BLOB {
        return Err(unsupported(format!("{} claims to have {} bytes", wire.digest, wire.size)));
    }
    Ok(Descriptor { digest: wire.digest, size: wire.size, media_type: wire.media_type })
}

fn child(wire: WireDescriptor) -> Result<Child, Failure> {
    let platform = wire.platform.as_ref().and_then(platform);
    let marked = wire.annotations.as_ref().is_some_and(|a| {
        a.get("vnd.docker.reference.type").is_some_and(|kind| kind == "attestation-manifest")
    });
    let unknown = platform.as_ref().is_some_and(|p| p.os == "unknown" || p.architecture == "unknown");
    let Descriptor { digest, size, media_type } = descriptor(wire)?;
    Ok(Child { digest, size, media_type, platform, attestation: marked || unknown })
}

fn platform(wire: &WirePlatform) -> Option<Platform> {
    if wire.os.is_empty() && wire.architecture.is_empty() {
        return None;
    }
    let slash = if wire.variant.is_empty() { "" } else { "/" };
    let text = format!("{}/{}{slash}{}", wire.os, wire.architecture, wire.variant);
    let unknown = || Platform { os: "unknown".into(), architecture: "unknown".into(), variant: None };
    Some(text.parse().unwrap_or_else(|_| unknown()))
}

/// One digest has one size. The same layer twice is legal, and common.
fn one_size_each(document: &Document) -> Result<(), Failure> {
    let all: Vec<(&Digest, u64)> = match document {
        Document::Index { children, .. } => children.iter().map(|c| (&c.digest, c.size)).collect(),
        Document::Image { config, layers, .. } => {
            layers.iter().chain([config]).map(|d| (&d.digest, d.size)).collect()
        }
    };
    let mut sizes = BTreeMap::new();
    match all.into_iter().find(|(digest, size)| *sizes.entry(*digest).or_insert(*size) != *size) {
        Some((digest, _)) => Err(bad(format!("{digest} is named with two sizes"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
