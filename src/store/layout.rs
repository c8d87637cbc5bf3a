//! Making, opening and probing a store.

use std::path::Path;

use rustix::{fs::AtFlags, io::Errno};
use serde::{Deserialize, Serialize};

use super::{Folder, Inner, Store, StoreError, random_name, roots::Format};

const STORE_FORMAT: u32 = 1;
const STORE: &str = "store.json";
const LAYOUT: &str = "oci-layout";
const LAYOUT_TEXT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

#[derive(Serialize, Deserialize)]
struct StoreFile {
    format: u32,
    id: String,
}

/// Bytes of the volume. `free` is what this process may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    pub capacity: u64,
    pub free: u64,
}

impl Space {
    /// Of the volume that holds the folder, whether a store is in it or not.
    pub fn of(path: &Path) -> Result<Self, StoreError> {
        let stat =
            rustix::fs::statvfs(path).map_err(|e| StoreError::io("read the free space of", path, e))?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Self { capacity: bytes(stat.f_blocks), free: bytes(stat.f_bavail) })
    }
}

impl Store {
    /// Opens a store that exists. Needs no right to write.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let base = Folder::base(path.as_ref())?;
        match read_id(&base)? {
            Some(id) => Ok(Self { inner: Inner { id, ..Inner::open(base, Folder::folder)? }.into() }),
            None => Err(StoreError::Absent(path.as_ref().to_owned())),
        }
    }

    /// Opens a store to write, makes it if there is none. Creators that race agree on one id.
    pub fn create_or_open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        std::fs::create_dir_all(path).map_err(|e| StoreError::io("make the folder", path, e))?;
        let base = Folder::base(path)?;
        // Listed before store.json is read, which a creator writes before the layout's own files.
        let layout = base.names()?.iter().any(|name| name == LAYOUT || name == "index.json");
        let known = read_id(&base)?;
        if known.is_none() && layout {
            return Err(StoreError::Foreign(path.to_owned()));
        }
        // The folders first: where store.json is, everything is.
        let mut inner = Inner::open(base, Folder::make_folder).map_err(|e| explain(path, e))?;
        inner.probe()?;
        inner.id = match known {
            Some(id) => id,
            None => make_id(&inner.base)?,
        };
        let store = Self { inner: inner.into() };
        if store.inner.base.open(LAYOUT).is_err_and(|e| e.is_absent()) {
            store.inner.base.add(LAYOUT, LAYOUT_TEXT)?;
        }
        if store.inner.base.open("index.json").is_err_and(|e| e.is_absent()) {
            store.rewrite_index()?;
        }
        Ok(store)
    }

    pub fn space(&self) -> Result<Space, StoreError> {
        Space::of(self.path())
    }
}

impl Inner {
    fn open(base: Folder, get: fn(&Folder, &str) -> Result<Folder, StoreError>) -> Result<Self, StoreError> {
        let blobs = get(&base, "blobs")?;
        Ok(Self {
            id: String::new(),
            sha256: get(&blobs, "sha256")?,
            sha512: get(&blobs, "sha512")?,
            roots: get(&base, "roots")?,
            leases: get(&base, "leases")?,
            ingest: get(&base, "ingest")?,
            condemned: get(&base, "condemned")?,
            trash: get(&base, "trash")?,
            blobs,
            base,
        })
    }

    /// Everything a pull does with files, tried in every folder it writes to, so that a wrong owner, a read-only
    /// volume or a file system without links shows now and not after an hour of downloading.
    fn probe(&self) -> Result<(), StoreError> {
        for folder in [&self.ingest, &self.leases, &self.roots, &self.sha256, &self.sha512, &self.base] {
            let (name, second) = (format!(".probe.{}", random_name()), format!(".probe.{}", random_name()));
            let tried = folder.create(&name).and_then(|mut file| {
                folder.write(&mut file, &name, b"probe")?;
                probe_link(folder, &name, &second)
            });
            folder.forget(&name);
            folder.forget(&second);
            tried.map_err(|e| explain(folder.path(), e))?;
        }
        Ok(())
    }
}

fn probe_link(folder: &Folder, name: &str, second: &str) -> Result<(), StoreError> {
    match rustix::fs::linkat(folder.fd(), name, folder.fd(), second, AtFlags::empty()) {
        Err(e @ (Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK)) => {
            let reason = "its file system has no hard links, which the store needs: use another volume";
            Err(StoreError::NotWritable(format!("{}: {reason} ({e})", folder.path().display())))
        }
        other => other.map_err(|e| StoreError::io("link in", folder.path(), e)),
    }
}

fn read_id(base: &Folder) -> Result<Option<String>, StoreError> {
    let bytes = match base.read(STORE) {
        Err(e) if e.is_absent() => return Ok(None),
        other => other?,
    };
    let path = base.path().join(STORE);
    let damaged = || StoreError::Damaged {
        path: path.clone(),
        reason: "cannot be read as {\"format\", \"id\"}: restore it, or use an empty folder".into(),
    };
    let Format { format } = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
    if format > STORE_FORMAT {
        return Err(StoreError::Newer { path, found: format, known: STORE_FORMAT });
    }
    let file: StoreFile = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if file.id.len() != 32 || !file.id.bytes().all(hex) {
        return Err(damaged());
    }
    Ok(Some(file.id))
}

fn make_id(base: &Folder) -> Result<String, StoreError> {
    let file = StoreFile { format: STORE_FORMAT, id: random_name() };
    base.add(STORE, &serde_json::to_vec(&file).unwrap_or_default())?;
    read_id(base)?.ok_or_else(|| StoreError::Absent(base.path().to_owned()))
}

/// Says why a folder cannot be written: by whom, whose it is, what to do.
fn explain(path: &Path, error: StoreError) -> StoreError {
    if !matches!(error.errno(), Some(Errno::ACCESS | Errno::PERM | Errno::ROFS)) {
        return error;
    }
    // The folder that refused, or the nearest one above it.
    let at = match &error {
        StoreError::Io { path, .. } => path.as_path(),
        _ => path,
    };
    let Some((at, stat)) = at.ancestors().find_map(|p| Some((p, rustix::fs::stat(p).ok()?))) else {
        return error;
    };
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let groups: Vec<String> = rustix::process::getgroups()
        .unwrap_or_default()
        .iter()
        .map(|group| group.as_raw().to_string())
        .collect();
    let advice = if error.errno() == Some(Errno::ROFS) {
        "mount it read-write".to_owned()
    } else {
        format!(
            "set fsGroup in the pod's securityContext to a group that may write (hostPath volumes ignore it), run \
             as uid {}, or chown -R {uid}:{gid} the volume; all writers of a store must use one uid",
            stat.st_uid
        )
    };
    StoreError::NotWritable(format!(
        "{error}; {} belongs to uid {}, gid {}, mode {:04o}, this process has uid {uid}, gid {gid}, groups [{}]: {advice}",
        at.display(),
        stat.st_uid,
        stat.st_gid,
        stat.st_mode & 0o7777,
        groups.join(" "),
    ))
}
