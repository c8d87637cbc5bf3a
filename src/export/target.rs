//! Where an export goes: a folder or a tar archive. Both appear whole: a folder is complete when its `index.json`
//! is there, which comes last; an archive gets its name last.

use std::{
    fs::{self, File},
    io::{self, Read, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::{INDEX, failed};
use crate::model::{class::Class, digest::Hasher, failure::Failure};

pub(super) enum Target {
    Tar { builder: Box<tar::Builder<File>>, temp: PathBuf, path: PathBuf, folders: Vec<String>, named: bool },
    Layout(PathBuf),
}

impl Target {
    /// A name that ends with `.tar` is an archive, if no folder has it.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let is_tar = path.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("tar"));
        if is_tar && !path.is_dir() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let temp = path.with_file_name(format!(".{name}.{:016x}", rand::random::<u64>()));
            let file = File::create_new(&temp).map_err(|e| failed("create", &temp, &e))?;
            let builder = Box::new(tar::Builder::new(file));
            return Ok(Self::Tar { builder, temp, path: path.to_owned(), folders: Vec::new(), named: false });
        }
        fs::create_dir_all(path).map_err(|e| failed("make the folder", path, &e))?;
        if path.join(INDEX).exists() {
            let reason = "holds an OCI layout already: name an empty folder, or a file that ends with .tar";
            return Err(Failure::new(Class::InvalidSpec, format!("{}: {reason}", path.display())));
        }
        Ok(Self::Layout(path.to_owned()))
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Tar { path, .. } | Self::Layout(path) => path,
        }
    }

    /// Free bytes of the volume that it lies on are asked for here.
    pub(super) fn volume(&self) -> &Path {
        match self {
            Self::Tar { temp, .. } => temp,
            Self::Layout(path) => path,
        }
    }

    /// Adds a file of this size. The reader ends there, or the export is given up.
    pub(super) fn add(&mut self, name: &str, size: u64, from: &mut dyn Read) -> Result<(), Failure> {
        let shown = self.path().join(name);
        match self {
            Self::Tar { builder, folders, .. } => add_to_tar(builder, folders, name, size, from),
            Self::Layout(base) => add_to_folder(base, name, from),
        }
        .map_err(|e| failed("write", &shown, &e))
    }

    /// Whether a file of this name lies there already, from an export that did not end. The bytes are the caller's
    /// to judge.
    pub(super) fn earlier(&self, name: &str) -> Option<File> {
        match self {
            Self::Tar { .. } => None,
            Self::Layout(base) => {
                File::open(base.join(name)).ok().filter(|f| f.metadata().is_ok_and(|m| m.is_file()))
            }
        }
    }

    /// Durable when this returns, and only then under its name.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        let shown = self.path().to_owned();
        match self {
            Self::Tar { builder, temp, path, named, .. } => {
                finish_tar(builder, temp, path).inspect(|()| *named = true)
            }
            Self::Layout(base) => sync(base),
        }
        .map_err(|e| failed("finish", &shown, &e))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Self::Tar { temp, named: false, .. } = self {
            let _ = fs::remove_file(temp);
        }
    }
}

fn finish_tar(builder: &mut tar::Builder<File>, temp: &Path, path: &Path) -> io::Result<()> {
    builder.finish()?;
    builder.get_ref().sync_all()?;
    fs::rename(temp, path)?;
    sync(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// Nothing of this machine is in an archive, neither users nor times: the same cache is the same file.
fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn add_to_tar(
    builder: &mut tar::Builder<File>,
    folders: &mut Vec<String>,
    name: &str,
    size: u64,
    from: &mut dyn Read,
) -> io::Result<()> {
    for (at, _) in name.match_indices('/') {
        let folder = name[..=at].to_owned();
        if !folders.contains(&folder) {
            let mut header = header(tar::EntryType::Directory, 0o755, 0);
            builder.append_data(&mut header, &folder, io::empty())?;
            folders.push(folder);
        }
    }
    let mut counted = Counted { from, bytes: 0 };
    builder.append_data(&mut header(tar::EntryType::Regular, 0o644, size), name, &mut counted)?;
    if counted.bytes == size { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

struct Counted<'a> {
    from: &'a mut dyn Read,
    bytes: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

fn add_to_folder(base: &Path, name: &str, from: &mut dyn Read) -> io::Result<()> {
    let path = base.join(name);
    let folder = path.parent().unwrap_or(base);
    if !folder.is_dir() {
        fs::create_dir_all(folder)?;
        // Every folder on the way may be new.
        folder.ancestors().take_while(|at| at.starts_with(base)).try_for_each(sync)?;
    }
    let temp = path.with_file_name(format!(".{:016x}", rand::random::<u64>()));
    let written = (|| {
        let mut file = File::create_new(&temp)?;
        let mut piece = vec![0; super::PIECE];
        loop {
            match from.read(&mut piece)? {
                0 => break,
                read => file.write_all(&piece[..read])?,
            }
        }
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.sync_all()?;
        fs::rename(&temp, &path)?;
        sync(folder)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temp);
    }
    written
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Hashes and counts what is read through it.
pub(super) struct Hashing<'a, R> {
    pub from: R,
    pub hasher: Hasher,
    pub read: &'a dyn Fn(u64),
}

impl<R: Read> Read for Hashing<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        (self.read)(read as u64);
        Ok(read)
    }
}
