//! An OCI layout that somebody gives us: a folder or a tar archive. Nothing of it is trusted, and no name in it
//! becomes a path of ours.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::{LAYOUT, bad, failed};
use crate::model::failure::Failure;

/// Files of an archive: more than any cache has.
const MAX_FILES: usize = 100_000;

pub(super) struct Source {
    path: PathBuf,
    kind: Kind,
}

enum Kind {
    /// Offset and size of each file.
    Tar(File, BTreeMap<String, (u64, u64)>),
    Layout,
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let kind = if path.is_dir() {
            Kind::Layout
        } else {
            let file = File::open(path).map_err(|e| failed("open", path, &e))?;
            let files = list(&file, path)?;
            Kind::Tar(file, files)
        };
        let source = Self { path: path.to_owned(), kind };
        if source.size(LAYOUT).is_none() {
            return Err(bad(format!(
                "{}: no OCI archive or layout (no oci-layout in it): convert it, for example with skopeo copy \
                 docker-archive:IN oci-archive:OUT:NAME",
                path.display()
            )));
        }
        Ok(source)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn size(&self, name: &str) -> Option<u64> {
        match &self.kind {
            Kind::Tar(_, files) => files.get(name).map(|(_, size)| *size),
            Kind::Layout => {
                let meta = std::fs::metadata(self.path.join(name)).ok()?;
                meta.is_file().then_some(meta.len())
            }
        }
    }

    pub(super) fn reader(&self, name: &str) -> Result<Box<dyn Read + '_>, Failure> {
        match &self.kind {
            Kind::Tar(file, files) => match files.get(name) {
                Some((at, size)) => Ok(Box::new(Piece { file, at: *at, end: at.saturating_add(*size) })),
                None => Err(bad(format!("{}: {name} is not in it", self.path.display()))),
            },
            Kind::Layout => {
                let path = self.path.join(name);
                File::open(&path)
                    .map(|file| Box::new(file) as Box<dyn Read>)
                    .map_err(|e| failed("open", &path, &e))
            }
        }
    }

    /// The whole of a small file.
    pub(super) fn small(&self, name: &str, max: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let read = self.reader(name)?.take(max + 1).read_to_end(&mut bytes);
        read.map_err(|e| failed("read", &self.path.join(name), &e))?;
        if bytes.len() as u64 > max {
            return Err(bad(format!("{}: {name} is larger than {max} bytes", self.path.display())));
        }
        Ok(bytes)
    }
}

fn list(file: &File, path: &Path) -> Result<BTreeMap<String, (u64, u64)>, Failure> {
    let mut magic = [0; 2];
    if file.read_exact_at(&mut magic, 0).is_ok() && magic == [0x1f, 0x8b] {
        return Err(bad(format!("{}: it is compressed: gunzip it first", path.display())));
    }
    let unreadable = |e: &io::Error| bad(format!("{}: not a tar archive: {e}", path.display()));
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek().map_err(|e| unreadable(&e))? {
        let entry = entry.map_err(|e| unreadable(&e))?;
        if entry.header().entry_type() != tar::EntryType::Regular {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = name.trim_start_matches("./").to_owned();
        files.insert(name, (entry.raw_file_position(), entry.size()));
        if files.len() > MAX_FILES {
            return Err(bad(format!("{}: more than {MAX_FILES} files", path.display())));
        }
    }
    Ok(files)
}

/// A part of a file.
struct Piece<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Piece<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..left], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
