//! From a reference to everything it needs: the index, the manifests of the wanted platforms, their configs and
//! layers. Small documents go into the store as they come; layers only get a line in the closure.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use tokio::task::block_in_place;

use super::{
    Pull,
    permission::Holdings,
    referrers,
    renew::{known_proof, proof},
};
use crate::{
    model::{
        class::Class,
        digest::Digest,
        failure::Failure,
        platform::Platform,
        reference::Reference,
        request::PullRequest,
        root::{Entry, EntryKind, Root, RootImage},
    },
    registry::{
        Client, RawManifest, choose,
        manifest::{Child, Descriptor, Document},
    },
    store::Store,
};

/// An index inside an index is legal; deeper nesting is nobody's image (design, caps).
const MAX_DEPTH: usize = 2;
/// Documents of one image that are read at one time.
const AT_ONCE: usize = 8;

/// A child of an index, and what came of reading it.
type ReadChild = (Child, Result<(RawManifest, bool), Failure>);

/// One image, resolved, with the documents that were fetched on the way.
#[derive(Debug)]
pub(super) struct Resolved {
    pub image: RootImage,
    /// Index and manifests: exact bytes, in the order they were read.
    pub documents: Vec<(Digest, Bytes)>,
}

/// What all images of a run are resolved with.
pub(super) struct Resolver<'a> {
    pub client: &'a Client,
    pub request: &'a PullRequest,
    pub store: &'a Store,
    pub holdings: &'a Holdings,
    pub pull: &'a Pull,
    /// What the store had before.
    pub roots: &'a [Root],
    /// What needs no answer.
    pub pinned: &'a BTreeMap<Reference, RootImage>,
    pub now: Timestamp,
}

pub(super) async fn resolve(resolver: &Resolver<'_>, reference: &Reference) -> Result<Resolved, Failure> {
    let Resolver { client, request, now, .. } = *resolver;
    if let Some(image) = resolver.pinned.get(reference) {
        let public = match image.public {
            Some(known) => proof(client, reference, &image.digest, now).await.unwrap_or(Some(known)),
            None => None,
        };
        return Ok(Resolved { image: RootImage { public, ..image.clone() }, documents: Vec::new() });
    }
    let top = client.resolve(reference).await?;
    let mut walk = Walk {
        resolver,
        reference,
        closure: Vec::new(),
        documents: Vec::new(),
        seen: BTreeSet::new(),
        subjects: vec![top.digest.clone()],
    };
    let mut platforms = Vec::new();
    let body = top.body.map(|bytes| RawManifest {
        digest: top.digest.clone(),
        media_type: top.media_type.clone(),
        bytes,
    });
    let first = walk.document(&top.digest, top.size, &top.media_type, body).await?;
    match &first {
        Document::Image { config, layers, .. } => {
            walk.image(config, layers);
            platforms.clone_from(&request.platforms);
        }
        Document::Index { children, .. } => {
            for platform in &request.platforms {
                if walk.platform(&first, platform).await? {
                    platforms.push(platform.clone());
                }
            }
            if !platforms.is_empty() {
                walk.small_parts(children).await?;
            }
        }
    }
    if platforms.is_empty() {
        let wanted: Vec<String> = request.platforms.iter().map(ToString::to_string).collect();
        return Err(Failure::new(
            Class::NotFound,
            format!("the image has no content for the platform {}", wanted.join(", ")),
        ));
    }
    let referrers = if request.referrers { Some(referrers::keep(&mut walk).await?) } else { None };
    let media_type = walk.closure.first().map(|entry| entry.media_type.clone()).unwrap_or_default();
    // An anonymous answer that proves nothing does not prove more the second time, unless another host is asked.
    let asked = top.anonymous && !request.access(reference.host()).overridden;
    let public = if top.public {
        Some(now)
    } else if asked {
        None
    } else {
        // A failure of that question is no failure of the pull, and takes no proof back.
        let known = || known_proof(resolver.roots, resolver.pull, reference, &top.digest);
        proof(client, reference, &top.digest, now).await.unwrap_or_else(|_| known())
    };
    let image = RootImage {
        reference: reference.clone(),
        digest: top.digest,
        media_type,
        platforms,
        resolved: now,
        overridden: request.overridden(reference.host()),
        led: request.lookup.overrides(reference.host()),
        public,
        closure: walk.closure,
        referrers,
    };
    Ok(Resolved { image, documents: walk.documents })
}

impl Resolver<'_> {
    /// From the store, if this cache held it from there and its bytes are right; else from the registry, which the
    /// second value says.
    async fn read(
        &self,
        reference: &Reference,
        digest: &Digest,
        size: u64,
        media_type: &str,
    ) -> Result<(RawManifest, bool), Failure> {
        if self.request.reuse
            && self.holdings.held_from(reference, digest)
            && let Some(bytes) = block_in_place(|| self.store.read_small(digest, size))
        {
            let media_type = media_type.to_owned();
            return Ok((RawManifest { digest: digest.clone(), media_type, bytes: bytes.into() }, false));
        }
        let (host, repository) = (reference.host(), reference.repository());
        Ok((self.client.manifest(host, repository, digest, Some(size)).await?, true))
    }
}

pub(super) struct Walk<'a> {
    pub resolver: &'a Resolver<'a>,
    pub reference: &'a Reference,
    closure: Vec<Entry>,
    documents: Vec<(Digest, Bytes)>,
    seen: BTreeSet<Digest>,
    /// The image, and the manifests of its platforms: what signatures are made of.
    pub subjects: Vec<Digest>,
}

impl Walk<'_> {
    /// Reads and parses one document, and puts it into the closure.
    pub(super) async fn document(
        &mut self,
        digest: &Digest,
        size: u64,
        media_type: &str,
        body: Option<RawManifest>,
    ) -> Result<Document, Failure> {
        let (raw, fetched) = match body {
            Some(raw) => (raw, true),
            None => self.resolver.read(self.reference, digest, size, media_type).await?,
        };
        self.put(raw, fetched)
    }

    pub(super) fn put(&mut self, raw: RawManifest, fetched: bool) -> Result<Document, Failure> {
        let document = raw.parse()?;
        let kind = match document {
            Document::Index { .. } => EntryKind::Index,
            Document::Image { .. } => EntryKind::Manifest,
        };
        let size = raw.bytes.len() as u64;
        let entry = Entry { digest: raw.digest.clone(), size, kind, media_type: raw.media_type };
        if self.add(entry) && fetched {
            self.documents.push((raw.digest, raw.bytes));
        }
        Ok(document)
    }

    /// Manifests and configs of the other platforms, a few KiB each: some clients read all of them before they choose.
    /// Attestations are kept whole, if they are wanted. What the registry does not have, or what is no image, is left out.
    async fn small_parts(&mut self, children: &[Child]) -> Result<(), Failure> {
        let wanted = |child: &&Child| {
            let known = self.seen.contains(&child.digest) || child.is_index();
            !known && (!child.attestation || self.resolver.request.attestations)
        };
        let (resolver, reference) = (self.resolver, self.reference);
        let reading = children.iter().filter(wanted).cloned().map(|child| async move {
            let read = resolver.read(reference, &child.digest, child.size, &child.media_type).await;
            (child, read)
        });
        let read: Vec<ReadChild> =
            stream::iter(reading.collect::<Vec<_>>()).buffered(AT_ONCE).collect().await;
        for (child, read) in read {
            let put = read.and_then(|(raw, fetched)| self.put(raw, fetched));
            match put {
                Ok(Document::Image { config, layers, .. }) => {
                    self.image(&config, if child.attestation { &layers } else { &[] });
                }
                Ok(Document::Index { .. }) => {}
                Err(failure)
                    if matches!(failure.class, Class::NotFound | Class::Unsupported | Class::BadContent) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    fn add(&mut self, entry: Entry) -> bool {
        let new = self.seen.insert(entry.digest.clone());
        if new {
            self.closure.push(entry);
        }
        new
    }

    pub(super) fn image(&mut self, config: &Descriptor, layers: &[Descriptor]) {
        let entry = |d: &Descriptor, kind| Entry {
            digest: d.digest.clone(),
            size: d.size,
            kind,
            media_type: d.media_type.clone(),
        };
        self.add(entry(config, EntryKind::Config));
        for layer in layers {
            self.add(entry(layer, EntryKind::Layer));
        }
    }

    /// Follows an index to the manifest of one platform. False when it has none.
    async fn platform(&mut self, index: &Document, platform: &Platform) -> Result<bool, Failure> {
        let mut at = index.clone();
        for _ in 0..MAX_DEPTH {
            let Document::Index { children, .. } = &at else { break };
            let Some(child) = choose(children, platform).cloned() else { return Ok(false) };
            at = self.document(&child.digest, child.size, &child.media_type, None).await?;
            if !self.subjects.contains(&child.digest) {
                self.subjects.push(child.digest.clone());
            }
            if let Document::Image { config, layers, .. } = &at {
                self.image(config, layers);
                return Ok(true);
            }
        }
        Err(Failure::new(Class::Unsupported, format!("its index is nested deeper than {MAX_DEPTH} levels")))
    }
}
