//! Out of the store: one cache, hashed while it is copied, under a lease until the copy is durable.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Seek as _},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    INDEX, LAYOUT, MAX_DOCUMENT, bad, blob_name, failed, index,
    target::{Hashing, Target},
};
use crate::{
    model::{
        class::Class,
        digest::{Digest, Hasher},
        failure::Failure,
        request::CacheKey,
        root::{EntryKind, Root, RootImage},
    },
    registry::manifest::{self, Document},
    store::{Space, Store, is_right},
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Exported {
    pub cache: CacheKey,
    pub run: u64,
    pub images: usize,
    pub blobs: usize,
    pub bytes: u64,
    pub to: PathBuf,
}

/// Copies the best run of a cache. `progress` gets done and total bytes.
pub fn export(
    store: &Store,
    cache: &CacheKey,
    to: &Path,
    progress: &dyn Fn(u64, u64),
) -> Result<Exported, Failure> {
    let gone = || Failure::new(Class::NotFound, format!("cache {cache} has no complete run in this store"));
    let root = store.latest_root(cache)?.ok_or_else(gone)?.root;
    let closure: Vec<(Digest, u64)> =
        root.closure().into_iter().map(|(digest, size)| (digest.clone(), size)).collect();
    // Durable before anything is looked up. It ends when the copy is durable.
    let lease = store.hold(&format!("export of {} run {}", root.name, root.run), &closure)?;
    let mut files = BTreeMap::new();
    for (digest, size) in &closure {
        files.insert(digest.clone(), (open(store, digest, *size)?, *size));
    }
    let mut target = Target::open(to)?;
    check_space(&target, root.size())?;

    let small =
        |target: &mut Target, name: &str, bytes: &[u8]| target.add(name, bytes.len() as u64, &mut &*bytes);
    small(&mut target, LAYOUT, index::LAYOUT_TEXT)?;
    let archive = matches!(target, Target::Tar { .. });
    if archive {
        // Early, for those who read it as a stream; what is not complete has no name yet.
        small(&mut target, INDEX, &index::write(&root))?;
        small(&mut target, "manifest.json", &index::docker_manifest(&documents(&root, &files)?))?;
    }
    let mut done = 0;
    for (digest, (file, size)) in &files {
        let moved = Cell::new(done);
        copy(&mut target, digest, *size, file, &|bytes| {
            moved.set(moved.get() + bytes);
            progress(moved.get().min(done + size), root.size());
        })?;
        lease.touch()?;
        done += size;
    }
    if !archive {
        small(&mut target, INDEX, &index::write(&root))?;
    }
    target.finish()?;
    lease.release()?;
    Ok(Exported {
        cache: cache.clone(),
        run: root.run,
        images: root.images.len(),
        blobs: files.len(),
        bytes: done,
        to: to.to_owned(),
    })
}

fn open(store: &Store, digest: &Digest, size: u64) -> Result<File, Failure> {
    store.look(digest, size)?.ok_or_else(|| {
        Failure::new(
            Class::NotFound,
            format!("{digest} is missing in the store: pull the cache again, then export it"),
        )
    })
}

fn check_space(target: &Target, needed: u64) -> Result<(), Failure> {
    let free = Space::of(target.volume())?.free;
    if free >= needed {
        return Ok(());
    }
    let message = format!("{}: {needed} bytes are needed, {free} are free", target.path().display());
    Err(Failure::new(Class::NoSpace, message))
}

fn copy(
    target: &mut Target,
    digest: &Digest,
    size: u64,
    file: &File,
    read: &dyn Fn(u64),
) -> Result<(), Failure> {
    let name = blob_name(digest);
    if let Some(earlier) = target.earlier(&name)
        && is_right(&earlier, digest, read).unwrap_or(false)
    {
        return Ok(());
    }
    let mut from = Hashing { from: file.take(size), hasher: Hasher::new(digest.algorithm()), read };
    target.add(&name, size, &mut from)?;
    if from.hasher.finish() == *digest {
        return Ok(());
    }
    Err(bad(format!("{digest} has wrong bytes in the store: run imagecache verify --repair, then export")))
}

/// Of each image the manifest of the first platform that is there.
fn documents<'a>(
    root: &'a Root,
    files: &BTreeMap<Digest, (File, u64)>,
) -> Result<Vec<(&'a RootImage, Document)>, Failure> {
    let mut documents = Vec::new();
    for image in &root.images {
        let Some(entry) = image.closure.iter().find(|entry| entry.kind == EntryKind::Manifest) else {
            continue;
        };
        let Some((mut file, size)) = files.get(&entry.digest).map(|(file, size)| (file, *size)) else {
            continue;
        };
        let read = |e: std::io::Error| failed("read", Path::new(&blob_name(&entry.digest)), &e);
        let mut bytes = Vec::new();
        file.take(size.min(MAX_DOCUMENT)).read_to_end(&mut bytes).map_err(read)?;
        file.rewind().map_err(read)?;
        documents.push((image, manifest::parse(Some(&entry.media_type), &bytes)?));
    }
    Ok(documents)
}
