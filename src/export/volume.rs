//! Out of the store into a volume of the cache's own, which becomes a snapshot: a store of one cache. So it is read by
//! `imagecache serve` and `verify`, and as the OCI layout that every store is by others. What an attempt that was killed
//! left is gone on from; its bytes are hashed before they count.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Seek as _},
    path::Path,
};

use super::{PIECE, failed};
use crate::{
    model::{class::Class, digest::Digest, failure::Failure, request::CacheKey, root::Root},
    store::{Space, Store, StoreError, is_right},
};

/// Content that vanishes while it is copied is looked for again this often.
const LAST_LOOKS: usize = 3;

/// What one cache holds, as it was credited.
#[derive(Clone, Debug)]
pub struct Credited<'a> {
    pub cache: &'a CacheKey,
    pub root: &'a Digest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// The id of the store in the volume.
    pub store: String,
    pub root: Digest,
    pub bytes: u64,
}

/// Durable when this returns. `progress` gets done and total bytes.
pub fn fill(
    store: &Store,
    credited: &Credited<'_>,
    to: &Path,
    progress: &dyn Fn(u64, u64),
) -> Result<Filled, Failure> {
    let Credited { cache, root: digest } = credited;
    let Some(root) = store.root_by_digest(cache, digest)?.map(|there| there.root) else {
        let message = format!("the credited root {digest} of cache {cache} is not in the store");
        return Err(Failure::new(Class::NotFound, message));
    };
    let closure: Vec<(Digest, u64)> =
        root.closure().into_iter().map(|(digest, size)| (digest.clone(), size)).collect();
    // Durable before anything is looked up. It ends when the copy is durable.
    let lease = store.hold(&format!("export of {} run {}", root.name, root.run), &closure)?;
    let mut files = BTreeMap::new();
    for (digest, size) in &closure {
        let file = store
            .look(digest, *size)?
            .ok_or_else(|| Failure::new(Class::NotFound, format!("{digest} is missing in the store")))?;
        files.insert(digest, (file, *size));
    }
    let filled = copy_all(root, &closure, &files, to, &|| lease.touch().map(drop), progress);
    let filled = filled.map_err(|failure| match failure.class {
        // Volumes are limited by quotas, too.
        Class::Quota => Failure::new(Class::NoSpace, failure.message),
        _ => failure,
    })?;
    lease.release()?;
    Ok(filled)
}

fn copy_all(
    root: Root,
    closure: &[(Digest, u64)],
    files: &BTreeMap<&Digest, (File, u64)>,
    to: &Path,
    touch: &dyn Fn() -> Result<(), StoreError>,
    progress: &dyn Fn(u64, u64),
) -> Result<Filled, Failure> {
    check_space(to, closure)?;
    let volume = Store::create_or_open(to)?;
    clear_attempts(to)?;
    let (total, done) = (root.size(), Cell::new(0));
    let moved = |bytes: u64| {
        done.set(done.get() + bytes);
        progress(done.get().min(total), total);
    };
    for (digest, (file, size)) in files {
        copy(&volume, digest, *size, file, &moved)?;
        touch()?;
    }
    volume.sync_blobs()?;
    let ours = Root { store: volume.id().to_owned(), ..root };
    let linked = volume.link_root(&ours)?;
    let whole = |(digest, size): &(Digest, u64)| Ok::<_, StoreError>(volume.look(digest, *size)?.is_some());
    for (digest, size) in closure {
        let mut looks = 0;
        while !whole(&(digest.clone(), *size))? {
            looks += 1;
            if looks > LAST_LOOKS {
                return Err(Failure::new(
                    Class::Unknown,
                    "content goes missing from the volume while it is filled",
                ));
            }
            copy(&volume, digest, *size, &files[digest].0, &|_| ())?;
        }
    }
    volume.sync_blobs()?;
    volume.rewrite_index()?;
    clear_attempts(to)?;
    sync(to)?;
    Ok(Filled { store: volume.id().to_owned(), root: linked, bytes: total })
}

/// Before a byte is written: what is there already of this size is not counted.
fn check_space(to: &Path, closure: &[(Digest, u64)]) -> Result<(), Failure> {
    let missing = |(digest, size): &&(Digest, u64)| {
        let path = to.join(super::blob_name(digest));
        fs::metadata(path).map_or(true, |meta| meta.len() != *size)
    };
    let needed: u64 = closure.iter().filter(missing).map(|(_, size)| size).sum();
    let free = Space::of(to)?.free;
    if free >= needed {
        return Ok(());
    }
    let message = format!("the volume is too small: {needed} bytes are needed, {free} are free");
    Err(Failure::new(Class::NoSpace, message))
}

/// Nobody else writes here: what attempts that were killed left would only be in the snapshot.
fn clear_attempts(to: &Path) -> Result<(), Failure> {
    let folder = to.join("ingest");
    let list = fs::read_dir(&folder).map_err(|e| failed("list", &folder, &e))?;
    for entry in list {
        let path = entry.map_err(|e| failed("list", &folder, &e))?.path();
        fs::remove_file(&path).map_err(|e| failed("remove", &path, &e))?;
    }
    Ok(())
}

fn copy(volume: &Store, digest: &Digest, size: u64, file: &File, moved: &dyn Fn(u64)) -> Result<(), Failure> {
    if let Some(earlier) = volume.look(digest, size)? {
        let hashed = Cell::new(0);
        let count = |bytes: u64| {
            hashed.set(hashed.get() + bytes);
            moved(bytes);
        };
        if is_right(&earlier, digest, &count).unwrap_or(false) {
            return Ok(());
        }
    }
    let unreadable = |e: std::io::Error| failed("read", Path::new(&super::blob_name(digest)), &e);
    let mut ingest = volume.ingest(digest, size)?;
    let mut piece = vec![0; PIECE];
    // It may have been read before.
    (&*file).rewind().map_err(unreadable)?;
    let mut from = file.take(size);
    loop {
        let read = from.read(&mut piece).map_err(unreadable)?;
        if read == 0 {
            break;
        }
        ingest.write(&piece[..read])?;
        moved(read as u64);
    }
    ingest.finish().map_err(|e| match e {
        StoreError::Content { .. } => Failure::from(e).of("the store"),
        e => e.into(),
    })
}

/// The whole file system, so that a snapshot of the volume has everything.
fn sync(to: &Path) -> Result<(), Failure> {
    let folder = File::open(to).map_err(|e| failed("open", to, &e))?;
    rustix::fs::syncfs(&folder).map_err(|e| failed("sync", to, &e.into()))
}
