//! The object, judged: what it asks for as checked types, or everything that is wrong with it at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    access::access,
    acr,
    annotations::{self, Annotations, Origin, Set},
    digest::Digest,
    lookup::Lookup,
    platform::Platform,
    pod::{PodShape, shape},
    reference::{Reference, RegistryHost},
    refresh::{self, Interval},
    request::{Access, CacheKey, Dialect},
    served,
    settings::Settings,
};
use crate::api::{ImageCache, ImageCacheSpec, image_cache::Serve, keys};

const MAX_IMAGES: usize = 20;
const MAX_SECRETS: usize = 10;
const MAX_PLATFORMS: usize = 8;
const GIB: u64 = 1 << 30;

#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    pub object: Object,
    pub request: Result<CacheRequest, Vec<Invalid>>,
    /// Settings that are not honoured, and others worth knowing. One sentence each.
    pub notices: Vec<String>,
}

/// Which object it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub uid: CacheKey,
    pub name: String,
    pub generation: i64,
    pub resource_version: String,
    pub created: Timestamp,
    pub deleting: bool,
    /// It carries the tracking keys of a GitOps tool, which would make it again.
    pub tracked: bool,
}

/// What the object asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRequest {
    pub images: Vec<Reference>,
    pub secrets: Vec<SecretName>,
    pub size_limit: u64,
    pub retention_days: Option<u32>,
    /// How often the registries are asked anew, if that is asked for.
    pub refresh_interval: Option<Interval>,
    /// The value of the refresh annotation.
    pub refresh: Option<String>,
    /// Empty: those of the nodes.
    pub platforms: Vec<Platform>,
    pub access: BTreeMap<RegistryHost, Access>,
    /// Hosts that get no credentials: their transport was set by a blanket `all`, which names no one.
    pub anonymous: BTreeSet<RegistryHost>,
    /// Password-free logins, allowed by the operator.
    pub logins: acr::Logins,
    pub reuse: bool,
    /// Readiness does not wait for the snapshot.
    pub flash: bool,
    pub serve: Serve,
    /// Whether signatures and the like are kept too.
    pub referrers: bool,
    pub dialect: Dialect,
    /// How names are looked up.
    pub lookup: Lookup,
    /// What is special about its pull pod.
    pub pod: PodShape,
    /// Existing addresses that one pull at a time uses.
    pub eips: BTreeSet<String>,
    /// Hash of everything above that calls for another pull when it changes.
    pub inputs: String,
    /// Hash of what the object says of the pull pod's place, empty if nothing: a change of it alone is a new try of
    /// what fails, and no reason to pull again what is there.
    pub placement: String,
}

/// One thing that is wrong: where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// `spec.images[3]`, or an annotation's key.
    pub field: String,
    pub message: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// A pull secret, checked: both parts are names Kubernetes would accept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretName {
    pub namespace: String,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no pull secret: write namespace:name, for example {1}")]
pub struct SecretNameError(String, String);

impl FromStr for SecretName {
    type Err = SecretNameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = if is_dns_name(text, 253) { text } else { "my-registry" };
        let bad = || SecretNameError(text.chars().take(320).collect(), format!("default:{bare}"));
        let (namespace, name) = text.split_once([':', '/']).ok_or_else(bad)?;
        if !is_dns_name(namespace, 63) || namespace.contains('.') || !is_dns_name(name, 253) {
            return Err(bad());
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

/// RFC 1123, as Kubernetes checks names.
pub fn is_dns_name(text: &str, most: usize) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let label = |l: &str| {
        l.bytes().next().is_some_and(word)
            && l.bytes().last().is_some_and(word)
            && l.bytes().all(|b| word(b) || b == b'-')
    };
    text.len() <= most && text.split('.').all(label)
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.namespace, self.name)
    }
}

pub fn judge(cache: &ImageCache, settings: &Settings) -> Judged {
    let none = BTreeMap::new();
    let annotations = cache.metadata.annotations.as_ref().unwrap_or(&none);
    let (request, notices) = judge_spec(annotations, &cache.spec, settings);
    Judged { object: object(cache), request, notices }
}

/// The same without a cluster, for a manifest that is pulled by hand.
pub fn judge_spec(
    annotations: &BTreeMap<String, String>,
    spec: &ImageCacheSpec,
    settings: &Settings,
) -> (Result<CacheRequest, Vec<Invalid>>, Vec<String>) {
    let mut seen = read(annotations, settings);
    let mut invalid = Vec::new();
    let mut seen_invalid = Vec::new();
    let mut notices = Vec::new();
    count(&mut invalid, "spec.images", spec.images.len(), 1, MAX_IMAGES);
    count(&mut invalid, "spec.imagePullSecrets", spec.image_pull_secrets.len(), 0, MAX_SECRETS);
    count(&mut invalid, "spec.platforms", spec.platforms.len(), 0, MAX_PLATFORMS);
    let images: Vec<Reference> = parsed("spec.images", &spec.images, &mut invalid, &mut notices);
    let secrets = parsed("spec.imagePullSecrets", &spec.image_pull_secrets, &mut invalid, &mut notices);
    let asked = parsed("spec.platforms", &spec.platforms, &mut invalid, &mut notices);
    let size = number("spec.imageCacheSize", spec.image_cache_size, 20, 32768, &mut invalid);
    let days = number("spec.retentionDays", spec.retention_days, 1, 65536, &mut invalid);
    let refresh_interval = spec.refresh_interval.as_deref().map(str::parse::<Interval>);
    let refresh_interval = refresh_interval.transpose().unwrap_or_else(|error| {
        invalid.push(Invalid { field: "spec.refreshInterval".to_owned(), message: error.to_string() });
        None
    });
    if refresh_interval.is_some() && !images.is_empty() && !refresh::has_tags(&images) {
        let nothing = "every image is named by its digest, so there is nothing to refresh";
        notices.push(format!("spec.refreshInterval: {nothing}"));
    }
    let size = stronger("spec.imageCacheSize", size, seen.size_gib.take(), &mut notices);
    let retention_days = stronger("spec.retentionDays", days, seen.retention_days.take(), &mut notices);
    let platforms = platforms(asked, &seen, &mut notices);
    let sent = settings.credentials_over_http && !secrets.is_empty();
    let (access, anonymous) = access(&images, &seen, sent, &mut notices);
    let pod = shape(&seen, &access, settings, &mut notices, &mut seen_invalid);
    let lookup = lookup(&seen);
    // Plain HTTP or an unchecked certificate is too little for a lent login, whoever set it. An alias or a name server is
    // not: whoever answers at that address must show the name's certificate.
    let weakened = |host: &RegistryHost| access.contains_key(host) || anonymous.contains(host);
    let hosts: BTreeSet<&RegistryHost> = images.iter().map(Reference::host).collect();
    let logins = acr::decide(&seen.acr, hosts, weakened, settings.acr.as_ref());
    if spec.serve == Some(Serve::Cluster) {
        notices.extend(served::by_digest_only(&images, &access, &lookup, settings));
    }
    let flash = seen.flash.take().filter(|flash| flash.value);
    if let Some(flash) = flash.as_ref().filter(|_| settings.snapshots.is_none()) {
        notices.push(format!("{}: no snapshots are made here, so it has no effect", flash.key));
    }
    notices.append(&mut seen.notices);
    notices.extend(logins.notices);
    invalid.append(&mut seen.invalid);
    invalid.append(&mut seen_invalid);
    invalid.extend(logins.invalid);
    if !invalid.is_empty() {
        return (Err(invalid), notices);
    }
    let mut request = CacheRequest {
        images,
        secrets,
        size_limit: u64::from(size.unwrap_or(settings.default_size_gib)) * GIB,
        retention_days,
        refresh_interval,
        refresh: refresh::asked(annotations),
        platforms,
        access,
        anonymous,
        logins: logins.logins,
        flash: flash.is_some(),
        reuse: seen.reuse.as_ref().map_or(settings.reuse_default, |reuse| reuse.value),
        serve: spec.serve.unwrap_or(Serve::Public),
        referrers: spec.referrers.unwrap_or(false),
        dialect: seen.dialect.unwrap_or_default(),
        lookup,
        pod,
        eips: seen.existing_eips.iter().flat_map(|set| set.value.iter().cloned()).collect(),
        inputs: String::new(),
        placement: short_hash(annotations::placement(annotations).as_bytes()),
    };
    request.inputs = inputs(&request);
    (Ok(request), notices)
}

fn operators<T: Clone>(value: Option<&T>, key: &'static str) -> Option<Set<T>> {
    let value = value?.clone();
    Some(Set { value, key, dialect: Dialect::Kci, origin: Origin::Operator })
}

/// What the object says first, then the profile of its platform, then the operator.
pub fn read(annotations: &BTreeMap<String, String>, settings: &Settings) -> Annotations {
    let mut seen = annotations::read(annotations);
    seen.or(&settings.profile.defaults(settings.cloud));
    seen.or(&Annotations {
        hosts: operators(settings.host_aliases.as_ref(), "KCI_HOST_ALIASES"),
        dns: operators(settings.dns.as_ref(), "KCI_DNS_CONFIG"),
        ..Annotations::default()
    });
    seen
}

fn lookup(seen: &Annotations) -> Lookup {
    Lookup {
        hosts: seen.hosts.as_ref().map(|set| set.value.clone()).unwrap_or_default(),
        dns: seen.dns.as_ref().map(|set| set.value.clone()),
        hosts_overridden: seen.hosts.as_ref().is_some_and(|set| set.origin == Origin::Object),
        dns_overridden: seen.dns.as_ref().is_some_and(|set| set.origin == Origin::Object),
    }
}

fn short_hash(words: &[u8]) -> String {
    if words.is_empty() { String::new() } else { Digest::sha256(words).hex()[..16].to_owned() }
}

/// Size and retention are no part of it: a changed limit pulls nothing that is complete. Nor are the operator's
/// defaults: an edit of those is for the next pull.
fn inputs(request: &CacheRequest) -> String {
    let CacheRequest { images, secrets, platforms, access, anonymous, logins, reuse, serve, lookup, .. } =
        request;
    let access: BTreeMap<_, _> = access.iter().filter(|(_, access)| access.overridden).collect();
    let anonymous: BTreeSet<_> = anonymous.iter().filter(|host| access.contains_key(host)).collect();
    let images: BTreeSet<&Reference> = images.iter().collect();
    let secrets: BTreeSet<&SecretName> = secrets.iter().collect();
    let platforms: BTreeSet<&Platform> = platforms.iter().collect();
    let words = (images, secrets, platforms, access, anonymous, reuse, serve);
    // What is not asked for is as if it did not exist: no cache is pulled again for its sake.
    let words = if request.referrers {
        serde_json::to_vec(&(words, "referrers"))
    } else {
        serde_json::to_vec(&words)
    };
    let mut words = words.unwrap_or_default();
    let hosts = lookup.hosts_overridden.then_some(&lookup.hosts);
    let dns = lookup.dns.as_ref().filter(|_| lookup.dns_overridden);
    if hosts.is_some() || dns.is_some() {
        words.extend(serde_json::to_vec(&(hosts, dns)).unwrap_or_default());
    }
    if !logins.is_empty() {
        words.extend(serde_json::to_vec(logins).unwrap_or_default());
    }
    Digest::sha256(&words).hex()[..32].to_owned()
}

fn count(invalid: &mut Vec<Invalid>, field: &str, n: usize, least: usize, most: usize) {
    if !(least..=most).contains(&n) {
        let message = format!("{n} entries; write {least} to {most}");
        invalid.push(Invalid { field: field.to_owned(), message });
    }
}

/// Every bad item is named with its index; of equal ones the first counts.
fn parsed<T: FromStr<Err: fmt::Display> + PartialEq>(
    field: &str,
    texts: &[String],
    invalid: &mut Vec<Invalid>,
    notices: &mut Vec<String>,
) -> Vec<T> {
    let mut items: Vec<T> = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        match text.parse::<T>() {
            Ok(item) if items.contains(&item) => {
                notices.push(format!("{field}[{i}]: {text:?} is listed twice; once counts"));
            }
            Ok(item) => items.push(item),
            Err(e) => invalid.push(Invalid { field: format!("{field}[{i}]"), message: e.to_string() }),
        }
    }
    items
}

fn number(field: &str, value: Option<i32>, least: u32, most: u32, invalid: &mut Vec<Invalid>) -> Option<u32> {
    let n = value?;
    let fine = u32::try_from(n).ok().filter(|n| (least..=most).contains(n));
    if fine.is_none() {
        let message = format!("{n} is outside {least} to {most}");
        invalid.push(Invalid { field: field.to_owned(), message });
    }
    fine
}

/// An annotation that differs from spec wins, and the user is told.
fn stronger(
    field: &str,
    spec: Option<u32>,
    annotation: Option<annotations::Set<u32>>,
    notices: &mut Vec<String>,
) -> Option<u32> {
    let Some(annotation) = annotation else { return spec };
    if let Some(spec) = spec.filter(|spec| *spec != annotation.value) {
        notices.push(format!(
            "{field} says {spec}, {} says {}: the annotation counts",
            annotation.key, annotation.value
        ));
    }
    Some(annotation.value)
}

fn platforms(spec: Vec<Platform>, seen: &Annotations, notices: &mut Vec<String>) -> Vec<Platform> {
    let Some(key) = seen.architecture.as_ref().or(seen.os.as_ref()).map(|set| set.key) else { return spec };
    let word = |set: &Option<annotations::Set<String>>, default: &str| {
        set.as_ref().map_or(default.to_owned(), |set| set.value.clone())
    };
    let (os, architecture) = (word(&seen.os, "linux"), word(&seen.architecture, "amd64"));
    let annotated = vec![Platform { os, architecture, variant: None }];
    if !spec.is_empty() && spec != annotated {
        notices.push(format!("spec.platforms differs from {key}: the annotation counts, {}", annotated[0]));
    }
    annotated
}

fn object(cache: &ImageCache) -> Object {
    let meta = &cache.metadata;
    let uid = meta.uid.clone().unwrap_or_default();
    let has = |map: &Option<BTreeMap<String, String>>, keys: &[&str]| {
        map.as_ref().is_some_and(|map| keys.iter().any(|key| map.contains_key(*key)))
    };
    Object {
        uid: CacheKey::of_uid(&uid),
        name: meta.name.clone().unwrap_or_default(),
        generation: meta.generation.unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
        created: meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
        deleting: meta.deletion_timestamp.is_some(),
        tracked: has(&meta.annotations, keys::GITOPS_ANNOTATIONS) || has(&meta.labels, keys::GITOPS_LABELS),
    }
}

#[cfg(test)]
mod tests;
