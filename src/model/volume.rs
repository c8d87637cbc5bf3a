//! What the mirror tells the controller about the store: the only way the controller learns whether bytes that it
//! counts on are still there.

use serde::{Deserialize, Serialize};

use super::{digest::Digest, request::CacheKey};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeReport {
    /// Absent while the volume holds no store: nothing was pulled yet.
    pub store: Option<String>,
    /// Every root that can be read.
    pub roots: Vec<SeenRoot>,
    /// Roots that cannot be read, or that name a blob that is missing or whose bytes are wrong.
    pub broken: Vec<BrokenRoot>,
    /// Of the volume, in bytes.
    pub capacity: u64,
    pub free: u64,
    /// Bytes that roots name, each digest once.
    pub used: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenRoot {
    pub cache: CacheKey,
    pub run: u64,
    /// SHA-256 of the root's file: what a run was credited with.
    pub digest: Digest,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokenRoot {
    pub cache: CacheKey,
    pub run: u64,
    pub reason: String,
}
