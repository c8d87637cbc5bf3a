//! The content-addressed folder that all caches share: an OCI image layout that many writers and readers use at
//! once, each of which may be killed at any instruction, on a file system that may be NFS. The protocol and its
//! reasons are in `docs/store.md`; its order of steps is load-bearing.
//!
//! | file | answers for |
//! |---|---|
//! | [`layout`] | making, opening and probing a store |
//! | `folder` | one folder: names without links, small files that appear whole |
//! | `look` | whether a blob is present |
//! | `check` | whether its bytes are right |
//! | [`ingest`] | a blob's way in |
//! | [`partial`] | what an attempt that did not end leaves to the next |
//! | `block`, `ranges` | its buffers and its gaps |
//! | [`lease`] | what running pulls need |
//! | [`lock`] | one download per digest |
//! | [`roots`] | complete pulls |
//! | `remove` | taking a root away: by gc, or by hand |
//! | [`condemned`] | marks on roots that were missing from a list |
//! | [`trash`] | a blob's way out, and back |
//! | `remains` | what the dead leave behind |
//! | `fail` | dying at a chosen change, in test builds |
//! | `index` | `index.json`, for other tools |
//!
//! Everything here blocks: asynchronous callers use `spawn_blocking` or `block_in_place`.
//! All writers of a store run as one user. New folders are 0755, or take the group's rights and the set-group-id
//! bit of the folder they are made in, as the kubelet gives them to an `fsGroup` volume; blobs are 0444, small files 0644.

use std::{path::Path, sync::Arc};

use crate::model::digest::{Algorithm, Digest};

mod block;
mod check;
pub mod condemned;
mod error;
mod fail;
mod folder;
mod index;
pub mod ingest;
pub mod layout;
pub mod lease;
pub mod lock;
mod look;
pub mod partial;
mod ranges;
pub mod remains;
mod remove;
pub mod roots;
pub mod trash;

pub use block::Block;
pub use check::{is_right, is_right_on_disk};
pub use condemned::Mark;
pub use error::StoreError;
pub use ingest::Ingest;
pub use layout::Space;
pub use lease::{Lease, LeaseFile, ListedLease};
pub use lock::Lock;
pub use ranges::Ranges;
pub use roots::{ListedRoot, StoredRoot};
pub use trash::{StoredBlob, Trashed};

use folder::Folder;

/// An open store. Cheap to clone: clones share the open folders.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: String,
    base: Folder,
    blobs: Folder,
    sha256: Folder,
    sha512: Folder,
    roots: Folder,
    leases: Folder,
    ingest: Folder,
    condemned: Folder,
    trash: Folder,
}

impl Store {
    /// The random id that was given to this store when it was made: 32 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    pub fn path(&self) -> &Path {
        self.inner.base.path()
    }

    /// Makes every blob that is there now durable, whoever wrote it.
    pub fn sync_blobs(&self) -> Result<(), StoreError> {
        self.inner.sha256.sync()?;
        self.inner.sha512.sync()?;
        self.inner.blobs.sync()
    }

    fn blobs(&self, algorithm: Algorithm) -> &Folder {
        match algorithm {
            Algorithm::Sha256 => &self.inner.sha256,
            Algorithm::Sha512 => &self.inner.sha512,
        }
    }
}

/// A digest as one file name, outside `blobs/`: a colon is not portable.
fn flat_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().as_str(), digest.hex())
}

fn random_name() -> String {
    format!("{:032x}", rand::random::<u128>())
}
