//! Whether a blob is present: opened, and `fstat` shows the right size. A gc may be moving the file to its trash
//! or back at this moment, so one look is not enough.

use std::{fs::File, io::Read as _, os::unix::fs::MetadataExt};

use super::{Folder, Store, StoreError, flat_name, folder::seen, random_name};
use crate::model::digest::Digest;

/// Looks in `blobs/` and in every trash folder, this often, before a blob is missing.
const LOOKS: usize = 5;
/// Manifests and indexes are smaller (design, "Caps").
const MAX_DOCUMENT: u64 = 4 << 20;

impl Store {
    /// For writers: the blob, if it is present. One that is found in the trash is moved back.
    pub fn look(&self, digest: &Digest, size: u64) -> Result<Option<File>, StoreError> {
        self.look_with(digest, size, |trash, name| {
            match trash.rename(name, self.blobs(digest.algorithm()), digest.hex()) {
                Err(e) if e.is_absent() => Ok(false),
                Err(e) => Err(e),
                Ok(()) => trash.sync().map(|()| true),
            }
        })
    }

    /// For readers: the same, but nothing is moved.
    pub fn find(&self, digest: &Digest, size: u64) -> Result<Option<File>, StoreError> {
        self.look_with(digest, size, |_, _| Ok(true))
    }

    /// The bytes of a document, if it is present and they are right.
    pub fn read_small(&self, digest: &Digest, size: u64) -> Option<Vec<u8>> {
        if size > MAX_DOCUMENT {
            return None;
        }
        let mut bytes = Vec::new();
        self.find(digest, size).ok()??.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).ok()?;
        (Digest::of(digest.algorithm(), &bytes) == *digest).then_some(bytes)
    }

    /// Takes a blob out whose bytes are wrong, so that the next pull fetches it. `bad` is what was read: a file that
    /// took its place meanwhile goes back. For repair by hand, not beside gc: for a moment even that one is away.
    pub fn discard(&self, digest: &Digest, bad: &File) -> Result<bool, StoreError> {
        let blobs = self.blobs(digest.algorithm());
        // A name that is no blob's, in no trash folder: nobody takes it for one.
        let aside = format!("{}.{}", flat_name(digest), random_name());
        if seen(blobs.rename(digest.hex(), &self.inner.ingest, &aside))?.is_none() {
            return Ok(false);
        }
        let same = self.inner.ingest.open(&aside).and_then(|taken| same_file(&taken, bad, blobs));
        if !matches!(same, Ok(true)) {
            self.inner.ingest.rename(&aside, blobs, digest.hex())?;
            return same;
        }
        self.inner.ingest.remove(&aside)?;
        blobs.sync()?;
        Ok(true)
    }

    fn look_with(
        &self,
        digest: &Digest,
        size: u64,
        found_in_trash: impl Fn(&Folder, &str) -> Result<bool, StoreError>,
    ) -> Result<Option<File>, StoreError> {
        let blobs = self.blobs(digest.algorithm());
        let name = flat_name(digest);
        for _ in 0..LOOKS {
            if let Some(file) = present(blobs, digest.hex(), size)? {
                return Ok(Some(file));
            }
            for run in self.inner.trash.names()? {
                let Some(trash) = seen(self.inner.trash.folder(&run))? else { continue };
                if let Some(file) = present(&trash, &name, size)?
                    && found_in_trash(&trash, &name)?
                {
                    return Ok(Some(file));
                }
            }
        }
        present(blobs, digest.hex(), size)
    }
}

pub(super) fn present(folder: &Folder, name: &str, size: u64) -> Result<Option<File>, StoreError> {
    let Some(file) = seen(folder.open(name))? else { return Ok(None) };
    let meta =
        file.metadata().map_err(|e| StoreError::io("read the size of", folder.path().join(name), e))?;
    Ok((meta.is_file() && meta.len() == size).then_some(file))
}

fn same_file(one: &File, other: &File, folder: &Folder) -> Result<bool, StoreError> {
    let identity = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino()));
    let failed = |e| StoreError::io("read the identity of a blob in", folder.path(), e);
    Ok(identity(one).map_err(failed)? == identity(other).map_err(failed)?)
}
