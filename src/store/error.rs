//! What can go wrong in the store, in sentences that name the file, the reason and what to do.

use std::{io, path::PathBuf};

use rustix::io::Errno;

use crate::model::{class::Class, digest::Digest, failure::Failure, request::CacheKey};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path}: cannot {action}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{digest}: {reason}")]
    Content { digest: Digest, reason: String },
    #[error(
        "{0}: not an imagecache store (no store.json): name the folder that `imagecache pull --volume` filled"
    )]
    Absent(PathBuf),
    #[error(
        "{0}: an OCI layout without store.json: it belongs to another tool, or store.json was lost: use an empty folder"
    )]
    Foreign(PathBuf),
    #[error("{path}: written in format {found}, this version reads up to {known}: use a newer imagecache")]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error("{path}: {reason}")]
    Damaged { path: PathBuf, reason: String },
    /// The write probe: who owns the folder, who we are, and what to do.
    #[error("{0}")]
    NotWritable(String),
    #[error(
        "run {run} of cache {cache} is refused: run {higher} of this cache is already complete in the store"
    )]
    HigherRun { cache: CacheKey, run: u64, higher: u64 },
    #[error("run {run} of cache {cache} is already in the store with other content: use a new run number")]
    RunTaken { cache: CacheKey, run: u64 },
    #[error(
        "cache {cache} was removed by hand while run {run} was pulled: pull it again if it is still wanted"
    )]
    Removed { cache: CacheKey, run: u64 },
    #[error(
        "the pull was made for store {theirs}, but this is store {ours}: the volume was replaced, pull again"
    )]
    OtherStore { theirs: String, ours: String },
}

impl StoreError {
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: path.into(), source: source.into() }
    }

    pub(super) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Io { source, .. } => Errno::from_io_error(source),
            _ => None,
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        self.errno() == Some(Errno::NOENT)
    }

    pub fn class(&self) -> Class {
        match self {
            Self::Content { .. } => Class::BadContent,
            Self::Io { .. } => match self.errno() {
                Some(Errno::NOSPC) => Class::NoSpace,
                Some(Errno::DQUOT) => Class::Quota,
                _ => Class::Unknown,
            },
            _ => Class::Unknown,
        }
    }

    /// What to do where the class alone does not say it.
    fn cure(&self) -> &'static str {
        match self.errno() {
            Some(Errno::IO) => {
                ": the disk or the network volume failed: the kernel's log says how; when it works again, \
                 `imagecache verify` tells whether something was lost"
            }
            Some(Errno::ROFS) => {
                ": the volume is mounted read-only, or was made so after an error: the kernel's log says why; mount it \
                 read-write"
            }
            _ => "",
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(error.class(), format!("{error}{}", error.cure()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_quota_have_classes_of_their_own() {
        for (errno, class) in [
            (Errno::NOSPC, Class::NoSpace),
            (Errno::DQUOT, Class::Quota),
            (Errno::IO, Class::Unknown),
            (Errno::ROFS, Class::Unknown),
        ] {
            let error = StoreError::io("write", "/store/ingest/x", errno);
            assert_eq!(error.class(), class);
            assert!(error.to_string().starts_with("/store/ingest/x: cannot write: "), "{error}");
        }
    }

    #[test]
    fn a_disk_that_fails_is_told_with_what_to_do() {
        for (errno, words) in [(Errno::IO, "imagecache verify"), (Errno::ROFS, "mount it read-write")] {
            let failure = Failure::from(StoreError::io("write", "/store/ingest/x", errno));
            assert!(failure.message.contains(words), "{failure}");
        }
    }
}
