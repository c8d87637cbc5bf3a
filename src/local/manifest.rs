//! What to pull, from where a person wrote it: manifests, flags, lists of references.

use std::{collections::BTreeMap, io::Read as _, path::Path};

use super::upstream;
use crate::{
    api::ImageCache,
    cli::PullArgs,
    model::{
        acr::{Allowed, Logins},
        digest::Digest,
        judge::{self, Invalid},
        platform::Platform,
        reference::{Reference, RegistryHost},
        request::{Access, CacheKey, Dialect, PullRequest},
        settings::Settings,
    },
};

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("{path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path}: {reason}")]
    Form { path: String, reason: String },
    #[error("{path}: ImageCache {name} is not valid:\n  {}", .invalid.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  "))]
    Invalid { path: String, name: String, invalid: Vec<Invalid> },
    #[error("{path}:{line}: {source}")]
    Line { path: String, line: usize, source: crate::model::reference::ReferenceError },
    #[error("nothing to pull: give -f FILE, --image REF or --images-from FILE")]
    Nothing,
    #[error("the name {0:?} cannot be a cache's: use lower-case letters, digits, - and .")]
    Name(String),
}

/// One cache to pull.
pub struct Wanted {
    /// With run 0: the run is known once the store is open.
    pub request: PullRequest,
    /// Password-free logins.
    pub logins: Logins,
    pub notices: Vec<String>,
}

pub fn requests(args: &PullArgs) -> Result<Vec<Wanted>, ManifestError> {
    if let Some(path) = &args.filename {
        return from_manifest(path, args);
    }
    Ok(vec![Wanted { request: from_flags(args)?, logins: Logins::default(), notices: Vec::new() }])
}

fn from_flags(args: &PullArgs) -> Result<PullRequest, ManifestError> {
    let mut images = args.image.clone();
    if let Some(path) = &args.images_from {
        images.extend(list(path)?);
    }
    let mut seen = std::collections::BTreeSet::new();
    images.retain(|image| seen.insert(image.clone()));
    if images.is_empty() {
        return Err(ManifestError::Nothing);
    }
    let name = args.name.clone().unwrap_or_else(|| {
        let words: Vec<String> = images.iter().map(ToString::to_string).collect();
        Digest::sha256(words.join("\n").as_bytes()).hex()[..12].to_owned()
    });
    request(&name, images, BTreeMap::new(), Vec::new(), None, (true, false), args)
}

/// The caches of a manifest, each with a name.
pub fn caches(path: &Path) -> Result<Vec<ImageCache>, ManifestError> {
    let text = read(path)?;
    let form = |reason: String| ManifestError::Form { path: path.display().to_string(), reason };
    let caches: Vec<ImageCache> = serde_saphyr::from_multiple(&text).map_err(|e| form(e.to_string()))?;
    if caches.is_empty() {
        return Err(form("no ImageCache in it".to_owned()));
    }
    if caches.iter().any(|cache| cache.metadata.name.as_deref().unwrap_or_default().is_empty()) {
        return Err(form("an ImageCache without metadata.name".to_owned()));
    }
    Ok(caches)
}

fn from_manifest(path: &Path, args: &PullArgs) -> Result<Vec<Wanted>, ManifestError> {
    let shown = path.display().to_string();
    let caches = caches(path)?;
    let own = |_| Allowed { region: args.acr.acr_region.clone(), everything: true, ..Allowed::default() };
    let settings = Settings {
        platforms: vec![Platform::host()],
        acr: args.acr.own_identity().map(own),
        ..Settings::default()
    };
    let mut requests = Vec::new();
    for cache in caches {
        let name = cache.metadata.name.clone().unwrap_or_default();
        let judged = judge::judge(&cache, &settings);
        let wanted = judged.request.map_err(|invalid| ManifestError::Invalid {
            path: shown.clone(),
            name: name.clone(),
            invalid,
        })?;
        let mut notices = judged.notices;
        if !wanted.secrets.is_empty() && args.upstream.authfile.is_none() {
            notices.push("spec.imagePullSecrets: there is no cluster to read secrets from: give --authfile for registries that need a login".to_owned());
        }
        let request = request(
            &name,
            wanted.images,
            wanted.access,
            wanted.platforms,
            Some(wanted.size_limit),
            (wanted.reuse, wanted.referrers),
            args,
        )?;
        let (dialect, lookup) = (wanted.dialect, wanted.lookup);
        let acr_domains = wanted.logins.domains();
        let request = PullRequest { dialect, lookup, acr_domains, ..request }.with_inputs();
        requests.push(Wanted { request, logins: wanted.logins, notices });
    }
    Ok(requests)
}

fn request(
    name: &str,
    images: Vec<Reference>,
    mut access: BTreeMap<RegistryHost, Access>,
    platforms: Vec<Platform>,
    size_limit: Option<u64>,
    (reuse, referrers): (bool, bool),
    args: &PullArgs,
) -> Result<PullRequest, ManifestError> {
    // Flags are the operator's own word: no overrides, and they win over the manifest.
    access.extend(upstream::access(&args.upstream));
    let platforms = [args.platform.clone(), platforms, vec![Platform::host()]]
        .into_iter()
        .find(|p| !p.is_empty())
        .unwrap_or_default();
    let (reuse, referrers) = (reuse && !args.no_reuse, referrers || args.referrers);
    let cache = CacheKey::local(name).map_err(|_| ManifestError::Name(name.to_owned()))?;
    Ok(PullRequest {
        name: name.to_owned(),
        run: 0,
        platforms,
        size_limit,
        access,
        reuse,
        public_registries: args.public_registry.clone(),
        attestations: args.attestations,
        referrers,
        dialect: Dialect::ByHand,
        ..PullRequest::new(cache, images)
    }
    .with_inputs())
}

fn list(path: &Path) -> Result<Vec<Reference>, ManifestError> {
    let text = read(path)?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).enumerate();
    let parse = |(index, line): (usize, &str)| {
        line.parse().map_err(|source| ManifestError::Line {
            path: path.display().to_string(),
            line: index + 1,
            source,
        })
    };
    lines.filter(|(_, line)| !line.is_empty()).map(parse).collect()
}

fn read(path: &Path) -> Result<String, ManifestError> {
    let text = if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    text.map_err(|source| ManifestError::Read { path: path.display().to_string(), source })
}
