//! A root: one complete pull of one cache, with everything gc and the mirror need, so that nobody parses
//! manifests later.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{digest::Digest, platform::Platform, reference::Reference, request::CacheKey};

pub const ROOT_FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Root {
    pub format: u32,
    pub cache: CacheKey,
    pub name: String,
    pub run: u64,
    /// Hash of what was asked (`PullRequest::inputs`).
    pub inputs: String,
    /// Hash of the credentials that were used; empty without any. Never a credential.
    pub credentials: String,
    /// The id of the store this root belongs to.
    pub store: String,
    /// Whether the mirror may serve the private images to everybody in the cluster (`PullRequest::serve_private`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub serve_private: bool,
    pub images: Vec<RootImage>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RootImage {
    pub reference: Reference,
    /// Of the manifest or index the reference meant, and its media type.
    pub digest: Digest,
    pub media_type: String,
    pub platforms: Vec<Platform>,
    /// When upstream last said that the reference means this digest.
    pub resolved: Timestamp,
    /// Resolved through a setting of an ImageCache: proves nothing to others, so served by digest only.
    pub overridden: bool,
    /// Overridden by where the registry's name leads: then no list of the operator makes its tag count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub led: bool,
    /// Trust class: when it was last proved that everybody may have it. Absent means private.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<Timestamp>,
    /// Every digest the image needs here, itself included, each once.
    pub closure: Vec<Entry>,
    /// What refers to the image, if that was asked for. Its content is part of the closure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referrers: Option<Referrers>,
}

/// Signatures, attestations and the like, as upstream listed them when the image was resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referrers {
    /// By what they refer to: the image, and the manifests of its platforms. An empty list is upstream's answer too.
    pub of: BTreeMap<Digest, Vec<Referrer>>,
    /// Tags by which they are found where the API is not used: those of cosign, and the referrers tag.
    pub tags: BTreeMap<String, Digest>,
}

/// A descriptor in a list of referrers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub digest: Digest,
    pub size: u64,
    pub kind: EntryKind,
    pub media_type: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EntryKind {
    Index,
    Manifest,
    Config,
    Layer,
}

impl Root {
    /// Every digest of the cache once, with its size.
    pub fn closure(&self) -> BTreeMap<&Digest, u64> {
        self.images.iter().flat_map(|image| &image.closure).map(|entry| (&entry.digest, entry.size)).collect()
    }

    /// Logical bytes: every digest once.
    pub fn size(&self) -> u64 {
        self.closure().values().sum()
    }
}
