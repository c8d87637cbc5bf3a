//! Whether a blob is present: opened, and `fstat` shows the right size. A gc may be moving the file to its trash
//! or back at this moment, so one look is not enough.

use std::{fs::File, io::Read as _};

use super::{Folder, Store, StoreError, flat_name, folder::seen};
use crate::model::digest::Digest;

/// Looks in `blobs/` and in every trash folder, this often, before a blob is missing.
const LOOKS: usize = 5;
/// Manifests and indexes are smaller (design, "Caps").
const MAX_DOCUMENT: u64 = 4 << 20;

impl Store {
    /// For writers: the blob, if it is present. One that is found in the trash is moved back.
    pub fn look(&self, digest: &Digest, size: u64) -> Result<Option<File>, StoreError> {
        self.look_with(digest, size, |trash| self.restore(trash, digest, size))
    }

    /// For readers: the same, but nothing is moved.
    pub fn find(&self, digest: &Digest, size: u64) -> Result<Option<File>, StoreError> {
        self.look_with(digest, size, |_| Ok(true))
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

    /// The size of what lies under the blob's name, whatever it is: of one that was cut short, for people.
    pub fn size_in_place(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        Ok(self.blobs(digest.algorithm()).stat(digest.hex())?.map(|stat| stat.size))
    }

    /// Gives a blob in the trash its name again; whether it has it now. Never in place of one that is whole: that may
    /// have been fetched and verified meanwhile, and this one may be what was found to be wrong. So by link, which
    /// fails where a rename would replace. Killed in between, the blob lies under both names, and a collector takes
    /// the one in the trash.
    pub(super) fn restore(&self, trash: &Folder, digest: &Digest, size: u64) -> Result<bool, StoreError> {
        let (name, blobs) = (flat_name(digest), self.blobs(digest.algorithm()));
        match seen(trash.link(&name, blobs, digest.hex()))? {
            None => Ok(false),
            // What is there has another size: no reader takes it for the blob.
            Some(false) if present(blobs, digest.hex(), size)?.is_none() => {
                Ok(seen(trash.rename(&name, blobs, digest.hex()))?.is_some())
            }
            Some(linked) => {
                blobs.sync()?;
                seen(trash.remove(&name))?;
                Ok(linked)
            }
        }
    }

    fn look_with(
        &self,
        digest: &Digest,
        size: u64,
        found_in_trash: impl Fn(&Folder) -> Result<bool, StoreError>,
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
                    && found_in_trash(&trash)?
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
