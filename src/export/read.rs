//! Into the store: what an archive holds becomes a cache, by the same steps as a pull (`docs/store.md`, "Pull").
//! Every byte is verified, also of blobs that the store has. An archive proves nothing about who may have an
//! image, so all of it is private.

use std::{collections::BTreeMap, io::Read as _, path::Path};

use jiff::Timestamp;
use serde::Serialize;

use super::{
    INDEX, MAX_DOCUMENT, PIECE, bad, blob_name, failed,
    index::{self, Named},
    source::Source,
    walk::{self, Archive},
};
use crate::{
    model::{
        class::Class,
        digest::{Digest, Hasher},
        failure::Failure,
        reference::Reference,
        request::CacheKey,
        root::{ROOT_FORMAT, Root, RootImage},
    },
    registry::manifest::Descriptor,
    store::{Store, StoreError},
};

const LAST_LOOKS: usize = 5;

pub struct Import<'a> {
    pub store: &'a Store,
    pub from: &'a Path,
    /// The cache's name; else the one that the archive gives, else the file's.
    pub name: Option<String>,
    /// What the only image of the archive is called, if the archive does not say.
    pub image: Option<Reference>,
    pub now: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Imported {
    pub cache: CacheKey,
    pub run: u64,
    pub images: Vec<ImportedImage>,
    /// Every digest once; of these bytes, those that the store did not have.
    pub bytes: u64,
    pub added: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportedImage {
    pub reference: Reference,
    pub digest: Digest,
}

/// `progress` gets done and total bytes.
pub fn import(import: &Import<'_>, progress: &dyn Fn(u64, u64)) -> Result<Imported, Failure> {
    let source = Source::open(import.from)?;
    let index = source.small(INDEX, MAX_DOCUMENT)?;
    let (named, cache_name) = index::read(&index)?;
    let images = images(&source, import, named)?;
    let (name, cache) = cache(import, cache_name)?;
    let store = import.store;
    let run = store.highest_run(&cache)?.unwrap_or_default() + 1;
    let root = Root {
        format: ROOT_FORMAT,
        cache: cache.clone(),
        name,
        run,
        inputs: format!("import of {}", Digest::sha256(&index)),
        credentials: String::new(),
        store: store.id().to_owned(),
        serve_private: false,
        images,
    };
    let added = publish(store, &source, &root, progress)?;
    let image = |image: &RootImage| ImportedImage {
        reference: image.reference.clone(),
        digest: image.digest.clone(),
    };
    Ok(Imported { cache, run, images: root.images.iter().map(image).collect(), bytes: root.size(), added })
}

fn images(source: &Source, import: &Import<'_>, named: Vec<Named>) -> Result<Vec<RootImage>, Failure> {
    let shown = source.path().display();
    if named.is_empty() {
        return Err(bad(format!("{shown}: no image is in it")));
    }
    if import.image.is_some() && named.len() > 1 {
        let reason = format!("{shown}: {} images are in it, and --image names one", named.len());
        return Err(Failure::new(Class::InvalidSpec, reason));
    }
    let mut images: Vec<RootImage> = Vec::new();
    for named in named {
        let Some(reference) = import.image.clone().or(named.reference) else {
            let reason =
                format!("{shown}: the image {} has no name in it: give one with --image", named.digest);
            return Err(Failure::new(Class::InvalidSpec, reason));
        };
        let top = Descriptor { digest: named.digest, size: named.size, media_type: named.media_type };
        let needs = walk::needs(source, &top).map_err(|failure| failure.of(&reference))?;
        images.push(RootImage {
            reference,
            digest: top.digest,
            media_type: top.media_type,
            platforms: needs.platforms,
            // A time to come would win over every pull.
            resolved: named.resolved.unwrap_or(import.now).min(import.now),
            overridden: named.overridden,
            led: false,
            public: None,
            referrers: None,
            closure: needs.closure,
        });
    }
    let mut sizes = BTreeMap::new();
    for entry in images.iter().flat_map(|image| &image.closure) {
        if *sizes.entry(&entry.digest).or_insert(entry.size) != entry.size {
            return Err(bad(format!("{shown}: {} is named with two sizes", entry.digest)));
        }
    }
    Ok(images)
}

fn cache(import: &Import<'_>, said: Option<String>) -> Result<(String, CacheKey), Failure> {
    let stem = || import.from.file_stem().map(|stem| stem.to_string_lossy().to_lowercase());
    let name = import.name.clone().or(said).or_else(stem).unwrap_or_default();
    let key = CacheKey::local(&name)
        .map_err(|e| Failure::new(Class::InvalidSpec, format!("{e}: give one with --name")))?;
    Ok((name, key))
}

impl Archive for Source {
    fn has(&self, digest: &Digest, size: u64) -> bool {
        self.size(&blob_name(digest)) == Some(size)
    }

    fn document(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, Failure> {
        let bytes = self.small(&blob_name(digest), MAX_DOCUMENT)?;
        if bytes.len() as u64 == size && Digest::of(digest.algorithm(), &bytes) == *digest {
            return Ok(bytes);
        }
        Err(bad(format!("{}: the bytes of {digest} are not what it names", self.path().display())))
    }
}

/// Blobs, then the root, then the last look that makes the root true. Returns the bytes that were new.
fn publish(store: &Store, source: &Source, root: &Root, progress: &dyn Fn(u64, u64)) -> Result<u64, Failure> {
    let closure: Vec<(Digest, u64)> =
        root.closure().into_iter().map(|(digest, size)| (digest.clone(), size)).collect();
    let lease = store.lease(&root.cache, &format!("import of {} run {}", root.name, root.run))?;
    lease.add(&closure)?;
    let missing = missing(store, &closure)?;
    let added = missing.iter().map(|(_, size)| size).sum();
    lease.set_to_fetch(added)?;
    let free = store.space()?.free.saturating_sub(lease.reserved_by_others()?);
    if free < added {
        let message = format!("{added} bytes are needed, {free} are free and not spoken for");
        return Err(Failure::new(Class::NoSpace, message));
    }
    let mut done = 0;
    for (digest, size) in &closure {
        let stored = !missing.iter().any(|(needed, _)| needed == digest);
        copy(store, source, (digest, *size), stored, &mut |bytes| {
            done += bytes;
            progress(done, root.size());
        })?;
        lease.touch()?;
    }
    store.sync_blobs()?;
    store.link_root(root)?;
    for _ in 0..LAST_LOOKS {
        let lost = self::missing(store, &closure)?;
        if lost.is_empty() {
            store.sync_blobs()?;
            lease.release()?;
            store.rewrite_index()?;
            return Ok(added);
        }
        for (digest, size) in lost {
            copy(store, source, (&digest, size), false, &mut |_| ())?;
        }
    }
    Err(Failure::new(Class::Unknown, "content goes missing from the store while it is filled"))
}

fn missing(store: &Store, closure: &[(Digest, u64)]) -> Result<Vec<(Digest, u64)>, StoreError> {
    let mut missing = Vec::new();
    for (digest, size) in closure {
        if store.look(digest, *size)?.is_none() {
            missing.push((digest.clone(), *size));
        }
    }
    Ok(missing)
}

/// Verifies the bytes of the archive; brings them into the store where they are not stored.
fn copy(
    store: &Store,
    source: &Source,
    (digest, size): (&Digest, u64),
    stored: bool,
    moved: &mut dyn FnMut(u64),
) -> Result<(), Failure> {
    let name = blob_name(digest);
    let mut reader = source.reader(&name)?;
    let mut ingest = if stored { None } else { Some(store.ingest(digest, size)?) };
    let mut hasher = Hasher::new(digest.algorithm());
    let mut piece = vec![0; PIECE];
    let wrong = |failure: Failure| failure.of(source.path().display());
    loop {
        let read = reader.read(&mut piece).map_err(|e| failed("read", &source.path().join(&name), &e))?;
        if read == 0 {
            break;
        }
        match &mut ingest {
            Some(ingest) => ingest.write(&piece[..read]).map_err(|e| wrong(e.into()))?,
            None => hasher.update(&piece[..read]),
        }
        moved(read as u64);
    }
    match ingest {
        Some(ingest) => ingest.finish().map_err(|e| wrong(e.into())),
        None if hasher.finish() == *digest => Ok(()),
        None => Err(wrong(bad(format!("the bytes of {digest} are not what it names")))),
    }
}
