//! One folder of the store. Names are single components that this program made or checked, opened without
//! following links, so nothing in the store leads out of it. Small files appear whole: temporary name, fsync,
//! then rename or link, then fsync of the folder. Names that begin with a dot are temporary and never listed.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::{
    fs::{AtFlags, Dir, Mode, OFlags},
    io::Errno,
};

use super::{
    StoreError,
    fail::{self, Change},
    random_name,
};

/// Bounds a small file: a root of 20 images is far below.
const MAX_SMALL: u64 = 64 << 20;

/// `NONBLOCK`: a pipe under a blob's name must not hang the reader.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

#[derive(Clone, Copy, Debug)]
pub(super) struct Stat {
    pub size: u64,
    /// By the clock of the file system.
    pub modified: SystemTime,
}

impl Stat {
    fn of(stat: &rustix::fs::Stat) -> Option<Self> {
        rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file().then(|| Self {
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            modified: time(stat.st_mtime, stat.st_mtime_nsec),
        })
    }
}

/// Times before 1970 are as good as 1970: old.
fn time(seconds: impl TryInto<u64>, nanos: impl TryInto<u32>) -> SystemTime {
    let nanos = nanos.try_into().unwrap_or_default().min(999_999_999);
    SystemTime::UNIX_EPOCH + Duration::new(seconds.try_into().unwrap_or_default(), nanos)
}

#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// The store's own folder may be reached through links: that is the caller's choice.
    pub(super) fn base(path: &Path) -> Result<Self, StoreError> {
        let fd = rustix::fs::open(path, FOLDER, Mode::empty())
            .map_err(|e| StoreError::io("open the folder", path, e))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(super) fn folder(&self, name: &str) -> Result<Self, StoreError> {
        let fd = rustix::fs::openat(&self.fd, name, FOLDER.union(OFlags::NOFOLLOW), Mode::empty())
            .map_err(self.failed("open the folder", name))?;
        Ok(Self { fd, path: self.path.join(name) })
    }

    /// Opens the folder, makes it durably if it is absent. A folder that the group may write gives its group
    /// rights to new ones, whatever the umask is.
    pub(super) fn make_folder(&self, name: &str) -> Result<Self, StoreError> {
        match self.folder(name) {
            Err(e) if e.is_absent() => {}
            other => return other,
        }
        match self.new_folder(name) {
            Err(e) if e.errno() == Some(Errno::EXIST) => self.folder(name),
            other => other,
        }
    }

    /// A folder of our own, durably; fails if the name exists.
    pub(super) fn new_folder(&self, name: &str) -> Result<Self, StoreError> {
        fail::before(Change::Take).map_err(self.failed("make the folder", name))?;
        rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o755))
            .map_err(self.failed("make the folder", name))?;
        let folder = self.folder(name)?;
        let parent = rustix::fs::fstat(&self.fd).map_err(self.failed("read the mode of", "."))?.st_mode;
        let mode = if parent & 0o020 == 0 { 0o755 } else { 0o775 | (parent & 0o2000) };
        rustix::fs::fchmod(&folder.fd, Mode::from_raw_mode(mode))
            .map_err(self.failed("set the mode of", name))?;
        self.sync()?;
        Ok(folder)
    }

    /// All names that are not temporary, sorted.
    pub(super) fn names(&self) -> Result<Vec<String>, StoreError> {
        self.list(|name| !name.starts_with('.'))
    }

    /// Names of files that are being made, or that their makers left behind.
    pub(super) fn temporary(&self) -> Result<Vec<String>, StoreError> {
        self.list(|name| name.starts_with('.'))
    }

    pub(super) fn all_names(&self) -> Result<Vec<String>, StoreError> {
        self.list(|_| true)
    }

    fn list(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, StoreError> {
        let failed = |e| StoreError::io("list", &self.path, e);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            if let Ok(name) = entry.map_err(failed)?.file_name().to_str()
                && !matches!(name, "." | "..")
                && wanted(name)
            {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    pub(super) fn open(&self, name: &str) -> Result<File, StoreError> {
        rustix::fs::openat(&self.fd, name, READ, Mode::empty())
            .map(File::from)
            .map_err(self.failed("open", name))
    }

    /// A new file of our own; fails if the name exists, link or not.
    pub(super) fn create(&self, name: &str) -> Result<File, StoreError> {
        fail::before(Change::Take).map_err(self.failed("create", name))?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o644))
            .map(File::from)
            .map_err(self.failed("create", name))
    }

    /// The same file once more, past the page cache. `None` where the file system has no such thing.
    pub(super) fn open_direct(&self, name: &str) -> Option<File> {
        let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map(File::from).ok()
    }

    /// Opens a file that stays, makes it if it is absent.
    pub(super) fn open_or_create(&self, name: &str) -> Result<File, StoreError> {
        fail::before(Change::Take).map_err(self.failed("open", name))?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o644))
            .map(File::from)
            .map_err(self.failed("open", name))
    }

    /// The whole of a small file.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let file = self.open(name)?;
        let mut bytes = Vec::new();
        file.take(MAX_SMALL + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| StoreError::io("read", self.path.join(name), e))?;
        self.check_small(name, bytes.len())?;
        Ok(bytes)
    }

    /// Replaces a small file: durable when this returns.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let temp = self.write_temp(name, bytes)?;
        self.rename(&temp, self, name).inspect_err(|_| self.forget(&temp))?;
        self.sync()
    }

    /// Replaces a small file whose loss is harmless: it appears whole, but nothing says when it is durable.
    pub(super) fn replace_unsynced(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let temp = format!(".{name}.{}", random_name());
        let written = self.create(&temp).and_then(|mut file| self.write(&mut file, name, bytes));
        written.and_then(|()| self.rename(&temp, self, name)).inspect_err(|_| self.forget(&temp))
    }

    /// Adds a small file under a name that must be new; `false` if somebody was first. Durable when this returns.
    /// By link, never by rename: a rename would replace what is there.
    pub(super) fn add(&self, name: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        let temp = self.write_temp(name, bytes)?;
        let linked = fail::before(Change::Take)
            .and_then(|()| rustix::fs::linkat(&self.fd, &*temp, &self.fd, name, AtFlags::empty()));
        self.forget(&temp);
        let added = match linked {
            Err(Errno::EXIST) => false,
            other => other.map(|()| true).map_err(self.failed("link", name))?,
        };
        self.sync()?;
        Ok(added)
    }

    fn write_temp(&self, name: &str, bytes: &[u8]) -> Result<String, StoreError> {
        self.check_small(name, bytes.len())?;
        let temp = format!(".{name}.{}", random_name());
        let mut file = self.create(&temp)?;
        let written = self.write(&mut file, name, bytes).and_then(|()| {
            fail::sync(&file, rustix::fs::fsync).map_err(self.failed("make durable", name))?;
            // Not left to the umask: other programs read these files.
            rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))
                .map_err(self.failed("set the mode of", name))
        });
        written.inspect_err(|_| self.forget(&temp))?;
        Ok(temp)
    }

    pub(super) fn write(&self, file: &mut File, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        fail::before(Change::Take).map_err(self.failed("write", name))?;
        file.write_all(bytes).map_err(|e| StoreError::io("write", self.path.join(name), e))
    }

    pub(super) fn rename(&self, from: &str, to: &Self, name: &str) -> Result<(), StoreError> {
        fail::before(Change::Take).map_err(to.failed("rename to", name))?;
        rustix::fs::renameat(&self.fd, from, &to.fd, name).map_err(to.failed("rename to", name))
    }

    /// One more name for a file, in another folder; `false` if that name exists.
    pub(super) fn link(&self, from: &str, to: &Self, name: &str) -> Result<bool, StoreError> {
        fail::before(Change::Take).map_err(to.failed("link", name))?;
        match rustix::fs::linkat(&self.fd, from, &to.fd, name, AtFlags::empty()) {
            Err(Errno::EXIST) => Ok(false),
            other => other.map(|()| true).map_err(to.failed("link", name)),
        }
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), StoreError> {
        fail::before(Change::Keep).map_err(self.failed("remove", name))?;
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()).map_err(self.failed("remove", name))
    }

    /// Removes a file that nobody needs; gc finds it if this fails.
    pub(super) fn forget(&self, name: &str) {
        let _ =
            fail::before(Change::Keep).and_then(|()| rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()));
    }

    /// Removes a folder if nothing is in it; whether it is gone.
    pub(super) fn remove_folder(&self, name: &str) -> Result<bool, StoreError> {
        fail::before(Change::Keep).map_err(self.failed("remove the folder", name))?;
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(Errno::NOENT) => Ok(true),
            other => other.map(|()| true).map_err(self.failed("remove the folder", name)),
        }
    }

    /// Size and time of a file; nothing for what is no file, or gone.
    pub(super) fn stat(&self, name: &str) -> Result<Option<Stat>, StoreError> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT | Errno::STALE) => Ok(None),
            Err(e) => Err(self.failed("read the time of", name)(e)),
            Ok(stat) => Ok(Stat::of(&stat)),
        }
    }

    /// When an entry of this folder last came or went.
    pub(super) fn changed(&self) -> Result<SystemTime, StoreError> {
        let stat = rustix::fs::fstat(&self.fd).map_err(self.failed("read the time of", "."))?;
        Ok(time(stat.st_mtime, stat.st_mtime_nsec))
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        fail::before(Change::Sync)
            .and_then(|()| rustix::fs::fsync(&self.fd))
            .map_err(|e| StoreError::io("make durable", &self.path, e))
    }

    fn check_small(&self, name: &str, len: usize) -> Result<(), StoreError> {
        if u64::try_from(len).is_ok_and(|len| len <= MAX_SMALL) {
            return Ok(());
        }
        let reason = format!("larger than {} MiB: not a file of the store", MAX_SMALL >> 20);
        Err(StoreError::Damaged { path: self.path.join(name), reason })
    }

    fn failed(&self, action: &'static str, name: &str) -> impl FnOnce(Errno) -> StoreError {
        let path = self.path.join(name);
        move |errno| StoreError::io(action, path, errno)
    }
}

/// What was moved, what NFS forgot, and links (nobody here makes them) are not there.
pub(super) fn seen<T>(opened: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match opened {
        Ok(it) => Ok(Some(it)),
        Err(e) if matches!(e.errno(), Some(Errno::NOENT | Errno::STALE | Errno::LOOP | Errno::NOTDIR)) => {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}
