//! Where credentials come from. Files are read again when a registry says 401: short-lived tokens are renewed
//! there while a pull runs.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::model::{class::Class, credentials::Credentials, failure::Failure};

#[derive(Clone, Debug)]
pub enum CredentialSource {
    Fixed(Credentials),
    /// Docker config files, in order. A folder means its files by name, as a mounted Secret has them.
    Files(Vec<PathBuf>),
    /// Somebody renews them in memory.
    Shared(Arc<Mutex<Credentials>>),
}

pub(super) struct Keyring {
    source: CredentialSource,
    current: Mutex<Arc<Credentials>>,
}

impl Keyring {
    pub(super) fn open(source: CredentialSource) -> Result<Self, Failure> {
        let credentials = read(&source)?;
        Ok(Self { source, current: Mutex::new(Arc::new(credentials)) })
    }

    pub(super) fn none() -> Self {
        Self {
            source: CredentialSource::Fixed(Credentials::default()),
            current: Mutex::new(Arc::new(Credentials::default())),
        }
    }

    pub(super) fn current(&self) -> Arc<Credentials> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads files, or what is shared, again. What cannot be read now leaves the last good credentials in place.
    pub(super) fn reload(&self) -> Arc<Credentials> {
        if let Ok(fresh) = read(&self.source) {
            *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        }
        self.current()
    }
}

fn read(source: &CredentialSource) -> Result<Credentials, Failure> {
    let paths = match source {
        CredentialSource::Fixed(credentials) => return Ok(credentials.clone()),
        CredentialSource::Shared(shared) => {
            return Ok(shared.lock().unwrap_or_else(PoisonError::into_inner).clone());
        }
        CredentialSource::Files(paths) => paths,
    };
    let mut texts = Vec::new();
    for path in paths {
        let unreadable = |error: std::io::Error| {
            Failure::new(Class::SecretMissing, format!("credentials {}: {error}", path.display()))
        };
        for file in files(path).map_err(unreadable)? {
            texts.push(std::fs::read(&file).map_err(unreadable)?);
        }
    }
    Ok(Credentials::parse(texts))
}

fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        // The kubelet keeps the versions of a mounted Secret in folders that begin with two dots.
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        // Docker's own name begins with a dot too: `.dockerconfigjson`, `.dockercfg`.
        let docker = entry.file_name().to_string_lossy().starts_with(".docker");
        if (!hidden || docker) && entry.path().is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
