//! Roots and requests for unit tests, the least of each. What a test is about it says itself, with `..`.

use jiff::Timestamp;

use super::{
    digest::Digest,
    reference::Reference,
    request::PullRequest,
    root::{Entry, EntryKind, ROOT_FORMAT, Root, RootImage},
};

/// Its digest is that of its name.
pub(crate) fn entry(name: &str, size: u64, kind: EntryKind) -> Entry {
    Entry { digest: Digest::sha256(name.as_bytes()), size, kind, media_type: String::new() }
}

/// Private, resolved at the beginning of time. Its digest is that of its reference.
pub(crate) fn image(reference: &str, closure: Vec<Entry>) -> RootImage {
    RootImage {
        reference: reference.parse().unwrap(),
        digest: Digest::sha256(reference.as_bytes()),
        media_type: String::new(),
        platforms: vec![],
        resolved: Timestamp::UNIX_EPOCH,
        overridden: false,
        led: false,
        public: None,
        closure,
        referrers: None,
    }
}

pub(crate) fn root(cache: &str, run: u64, images: Vec<RootImage>) -> Root {
    Root {
        format: ROOT_FORMAT,
        cache: cache.parse().unwrap(),
        name: cache.into(),
        run,
        inputs: String::new(),
        credentials: String::new(),
        store: String::new(),
        serve_private: false,
        images,
    }
}

pub(crate) fn request(cache: &str, images: Vec<Reference>) -> PullRequest {
    PullRequest::new(cache.parse().unwrap(), images)
}
