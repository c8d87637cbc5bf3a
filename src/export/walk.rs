//! What an image of an archive needs, and what of it is there. Pure: the archive is two questions.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::bad;
use crate::{
    model::{
        class::Class,
        digest::Digest,
        failure::Failure,
        platform::Platform,
        root::{Entry, EntryKind},
    },
    registry::manifest::{self, Child, Descriptor, Document},
};

/// As for registries (design, caps).
const MAX_DEPTH: usize = 2;

pub(super) trait Archive {
    fn has(&self, digest: &Digest, size: u64) -> bool;
    /// The bytes of a document, verified.
    fn document(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, Failure>;
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// The image itself first.
    pub closure: Vec<Entry>,
    pub platforms: Vec<Platform>,
}

/// An image is what is complete: of an index those children that are whole, and at least one of them. An archive of
/// one platform of many is common.
pub(super) fn needs(archive: &dyn Archive, top: &Descriptor) -> Result<Needs, Failure> {
    let mut walk = Walk { archive, seen: BTreeSet::new() };
    let mut needs = Needs::default();
    if !walk.document(top, None, 0, &mut needs)? || needs.platforms.is_empty() {
        return Err(bad(format!("{}: the archive has not all of any of its platforms", top.digest)));
    }
    needs.closure.retain(|entry| walk.seen.insert(entry.digest.clone()));
    Ok(needs)
}

struct Walk<'a> {
    archive: &'a dyn Archive,
    seen: BTreeSet<Digest>,
}

impl Walk<'_> {
    /// Adds a document and everything under it; adds nothing and says so if it is not all there.
    fn document(
        &self,
        at: &Descriptor,
        child: Option<&Child>,
        depth: usize,
        needs: &mut Needs,
    ) -> Result<bool, Failure> {
        if !self.archive.has(&at.digest, at.size) {
            return Ok(false);
        }
        if depth > MAX_DEPTH {
            return Err(Failure::new(
                Class::Unsupported,
                format!("its index is nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        let bytes = self.archive.document(&at.digest, at.size)?;
        match manifest::parse(Some(&at.media_type), &bytes)? {
            Document::Image { config, layers, .. } => {
                if ![&config].into_iter().chain(&layers).all(|need| self.archive.has(&need.digest, need.size))
                {
                    return Ok(false);
                }
                let platform = match child {
                    Some(child) if child.attestation => None,
                    Some(child) if child.platform.is_some() => child.platform.clone(),
                    _ => self.platform(&config),
                };
                needs.closure.push(entry(at, EntryKind::Manifest));
                needs.closure.push(entry(&config, EntryKind::Config));
                needs.closure.extend(layers.iter().map(|layer| entry(layer, EntryKind::Layer)));
                needs.platforms.extend(platform.filter(|platform| !needs.platforms.contains(platform)));
                Ok(true)
            }
            Document::Index { children, .. } => {
                let mut under = Needs { closure: vec![entry(at, EntryKind::Index)], ..Needs::default() };
                let mut any = false;
                for child in children.iter().filter(|child| is_image_or_index(&child.media_type)) {
                    let at = Descriptor {
                        digest: child.digest.clone(),
                        size: child.size,
                        media_type: child.media_type.clone(),
                    };
                    any |= self.document(&at, Some(child), depth + 1, &mut under)?;
                }
                if any {
                    needs.closure.append(&mut under.closure);
                    needs.platforms.append(&mut under.platforms);
                }
                Ok(any)
            }
        }
    }

    /// What the config of an image says that it runs on.
    fn platform(&self, config: &Descriptor) -> Option<Platform> {
        #[derive(Deserialize)]
        struct Runs {
            os: String,
            architecture: String,
            #[serde(default)]
            variant: String,
        }
        let bytes = self.archive.document(&config.digest, config.size).ok()?;
        let runs: Runs = serde_json::from_slice(&bytes).ok()?;
        let slash = if runs.variant.is_empty() { "" } else { "/" };
        format!("{}/{}{slash}{}", runs.os, runs.architecture, runs.variant).parse().ok()
    }
}

fn is_image_or_index(media_type: &str) -> bool {
    [manifest::OCI_INDEX, manifest::OCI_MANIFEST, manifest::DOCKER_LIST, manifest::DOCKER_MANIFEST]
        .contains(&media_type)
}

fn entry(at: &Descriptor, kind: EntryKind) -> Entry {
    Entry { digest: at.digest.clone(), size: at.size, kind, media_type: at.media_type.clone() }
}
