//! A cache as an OCI layout, in a folder or in a tar archive, and back. What is written is read by skopeo, crane,
//! containerd, Docker and Podman; what they write is read here. Digests are the same on both sides.
//! Sources: OCI image-spec, image-layout.md and annotations.md; containerd, `images/archive`; Docker's image
//! specification v1.2 (`manifest.json`, for readers of `docker save`).
//!
//! | file | answers for |
//! |---|---|
//! | [`mod@write`] | out of the store |
//! | `target` | the folder or the archive that is written |
//! | `index` | `index.json` and `manifest.json`, written and read. Pure |
//! | [`read`] | into the store |
//! | `source` | the folder or the archive that is read |
//! | [`volume`] | out of the store into a volume that becomes a snapshot |
//! | `walk` | what an image of an archive needs, and what of it is there. Pure |

mod index;
pub mod read;
mod source;
mod target;
pub mod volume;
mod walk;
pub mod write;

pub use read::{Import, Imported, import};
pub use write::{Exported, export};

use crate::model::{class::Class, digest::Digest, failure::Failure};

const LAYOUT: &str = "oci-layout";
const INDEX: &str = "index.json";
/// As for the documents of a registry (design, caps).
const MAX_DOCUMENT: u64 = 4 << 20;
const PIECE: usize = 1 << 20;

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

fn failed(action: &str, path: &std::path::Path, error: &std::io::Error) -> Failure {
    let class = match error.kind() {
        std::io::ErrorKind::StorageFull => Class::NoSpace,
        std::io::ErrorKind::QuotaExceeded => Class::Quota,
        std::io::ErrorKind::NotFound => Class::NotFound,
        _ => Class::Unknown,
    };
    Failure::new(class, format!("{}: cannot {action}: {error}", path.display()))
}

fn bad(message: impl Into<String>) -> Failure {
    Failure::new(Class::BadContent, message)
}
