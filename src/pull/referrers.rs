//! What refers to an image comes along, if that was asked for: signatures, attestations, SBOMs, whole, one level deep
//! (what refers to a signature stays behind). An image without any is no failure; a registry that does not answer is.

use std::collections::BTreeMap;

use super::resolve::Walk;
use crate::{
    model::{
        class::Class,
        failure::Failure,
        root::{Referrer, Referrers},
    },
    registry::{
        limits::MAX_REFERRERS,
        manifest::Document,
        referrers::{COSIGN, tag_of},
    },
};

pub(super) async fn keep(walk: &mut Walk<'_>) -> Result<Referrers, Failure> {
    let client = walk.resolver.client;
    let (host, repository) = (walk.reference.host(), walk.reference.repository());
    let mut kept = Referrers::default();
    for subject in std::mem::take(&mut walk.subjects) {
        let listed = client.referrers(host, repository, &subject).await?;
        if listed.more {
            client.notice(format!(
                "{host}/{repository}@{subject}: only the first {MAX_REFERRERS} of what refers to it are kept"
            ));
        }
        let mut list = Vec::new();
        for referrer in listed.referrers {
            if artifact(walk, &referrer).await? {
                list.push(referrer);
            }
        }
        let tag = tag_of(&subject);
        if let Some(raw) = listed.by_tag {
            kept.tags.insert(tag.clone(), raw.digest.clone());
            walk.put(raw, true)?;
        }
        for tag in COSIGN.map(|ending| format!("{tag}{ending}")) {
            let Some(found) = client.tag(host, repository, &tag).await? else { continue };
            let (digest, size, media_type) = (found.digest.clone(), found.size, found.media_type);
            let found =
                Referrer { media_type, digest, size, artifact_type: None, annotations: BTreeMap::new() };
            if artifact(walk, &found).await? {
                kept.tags.insert(tag, found.digest);
            }
        }
        kept.of.insert(subject, list);
    }
    Ok(kept)
}

/// Takes a manifest and all that it names into the closure. `false` for what is no manifest that is known, or gone.
async fn artifact(walk: &mut Walk<'_>, found: &Referrer) -> Result<bool, Failure> {
    let read = walk.document(&found.digest, found.size, &found.media_type, None).await;
    let document = match read {
        Ok(document) => document,
        Err(failure) if matches!(failure.class, Class::NotFound | Class::Unsupported) => return Ok(false),
        Err(failure) => return Err(failure),
    };
    match document {
        Document::Image { config, layers, .. } => walk.image(&config, &layers),
        Document::Index { children, .. } => {
            for child in children.iter().take(MAX_REFERRERS) {
                let read = walk.document(&child.digest, child.size, &child.media_type, None).await?;
                if let Document::Image { config, layers, .. } = read {
                    walk.image(&config, &layers);
                }
            }
        }
    }
    Ok(true)
}
