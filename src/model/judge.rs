//! The object, judged: what it asks for as checked types, or everything that is wrong with it at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    acr,
    annotations::{self, Annotations},
    digest::Digest,
    platform::Platform,
    reference::{Reference, RegistryHost},
    request::{Access, CacheKey, Dialect, Transport},
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
    /// Empty: those of the nodes.
    pub platforms: Vec<Platform>,
    pub access: BTreeMap<RegistryHost, Access>,
    /// Hosts that get no credentials: their transport was set by a blanket `all`, which names no one.
    pub anonymous: BTreeSet<RegistryHost>,
    /// Password-free logins, allowed by the operator.
    pub logins: acr::Logins,
    pub reuse: bool,
    pub serve: Serve,
    /// Whether signatures and the like are kept too.
    pub referrers: bool,
    pub dialect: Dialect,
    /// Hash of everything above that calls for another pull when it changes.
    pub inputs: String,
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
    let mut seen = annotations::read(annotations);
    let mut invalid = Vec::new();
    let mut notices = Vec::new();
    count(&mut invalid, "spec.images", spec.images.len(), 1, MAX_IMAGES);
    count(&mut invalid, "spec.imagePullSecrets", spec.image_pull_secrets.len(), 0, MAX_SECRETS);
    count(&mut invalid, "spec.platforms", spec.platforms.len(), 0, MAX_PLATFORMS);
    let images: Vec<Reference> = parsed("spec.images", &spec.images, &mut invalid, &mut notices);
    let secrets = parsed("spec.imagePullSecrets", &spec.image_pull_secrets, &mut invalid, &mut notices);
    let asked = parsed("spec.platforms", &spec.platforms, &mut invalid, &mut notices);
    let size = number("spec.imageCacheSize", spec.image_cache_size, 20, 32768, &mut invalid);
    let days = number("spec.retentionDays", spec.retention_days, 1, 65536, &mut invalid);
    let size = stronger("spec.imageCacheSize", size, seen.size_gib.take(), &mut notices);
    let retention_days = stronger("spec.retentionDays", days, seen.retention_days.take(), &mut notices);
    let platforms = platforms(asked, &seen, &mut notices);
    let sent = settings.credentials_over_http && !secrets.is_empty();
    let (access, anonymous) = access(&images, &seen, sent, &mut notices);
    // A host with any setting of the object's own is reached less safely than a lent login needs.
    let weakened = |host: &RegistryHost| access.contains_key(host) || anonymous.contains(host);
    let hosts: BTreeSet<&RegistryHost> = images.iter().map(Reference::host).collect();
    let logins = acr::decide(&seen.acr, hosts, weakened, settings.acr.as_ref());
    if spec.serve == Some(Serve::Cluster) {
        notices.extend(served::by_digest_only(&images, &access, settings));
    }
    if let Some(flash) = seen.flash.as_ref().filter(|flash| flash.value) {
        notices.push(format!("{}: no snapshots are made here, so it has no effect", flash.key));
    }
    notices.append(&mut seen.notices);
    notices.extend(logins.notices);
    invalid.append(&mut seen.invalid);
    invalid.extend(logins.invalid);
    if !invalid.is_empty() {
        return (Err(invalid), notices);
    }
    let mut request = CacheRequest {
        images,
        secrets,
        size_limit: u64::from(size.unwrap_or(settings.default_size_gib)) * GIB,
        retention_days,
        platforms,
        access,
        anonymous,
        logins: logins.logins,
        reuse: seen.reuse.map_or(settings.reuse_default, |reuse| reuse.value),
        serve: spec.serve.unwrap_or(Serve::Public),
        referrers: spec.referrers.unwrap_or(false),
        dialect: seen.dialect.unwrap_or_default(),
        inputs: String::new(),
    };
    request.inputs = inputs(&request);
    (Ok(request), notices)
}

/// Size and retention are no part of it: a changed limit pulls nothing that is complete.
fn inputs(request: &CacheRequest) -> String {
    let CacheRequest { images, secrets, platforms, access, anonymous, logins, reuse, serve, .. } = request;
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

/// How the hosts of the images are reached, and which of them get no credentials. `credentials`: whether there are
/// some that may travel over plain HTTP.
fn access(
    images: &[Reference],
    seen: &Annotations,
    credentials: bool,
    notices: &mut Vec<String>,
) -> (BTreeMap<RegistryHost, Access>, BTreeSet<RegistryHost>) {
    let (plain, unverified) = (&seen.plain_http, &seen.skip_verify);
    let used: BTreeSet<&RegistryHost> = images.iter().map(Reference::host).collect();
    let named = plain.named.keys().chain(unverified.named.keys());
    let hosts: BTreeSet<&RegistryHost> = named.chain(used.iter().copied()).collect();
    let mut access = BTreeMap::new();
    let mut anonymous = BTreeSet::new();
    for host in hosts {
        let (transport, by_name, key) = if plain.named.contains_key(host) {
            (Transport::PlainHttp, true, plain.named.get(host))
        } else if unverified.named.contains_key(host) {
            (Transport::HttpsUnverified, true, unverified.named.get(host))
        } else if let Some(key) = &plain.all {
            (Transport::PlainHttp, false, Some(key))
        } else if let Some(key) = &unverified.all {
            (Transport::HttpsUnverified, false, Some(key))
        } else {
            continue;
        };
        let key = key.copied().unwrap_or_default();
        access.insert(host.clone(), Access { transport, overridden: true });
        if plain.covers(host) && unverified.covers(host) && transport == Transport::PlainHttp {
            notices.push(format!(
                "{host} is listed as plain HTTP and as HTTPS without check: plain HTTP counts"
            ));
        }
        if used.is_empty() {
            // No image could be read: that is said, and more would only distract.
        } else if !used.contains(host) {
            let images = used.iter().map(|h| h.as_str()).collect::<Vec<_>>().join(", ");
            notices
                .push(format!("{key} names {host}, but the images come from {images}: write it as they do"));
        } else if !by_name {
            anonymous.insert(host.clone());
            notices.push(format!("{key} says all: {host} gets no credentials unless it is named"));
        } else if transport == Transport::PlainHttp && credentials {
            notices.push(format!("{host} is reached over plain HTTP: credentials for it are not protected"));
        }
    }
    (access, anonymous)
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
mod tests {
    use super::*;

    fn judged(
        images: &[&str],
        annotations: &[(&str, &str)],
    ) -> (Result<CacheRequest, Vec<Invalid>>, Vec<String>) {
        judged_spec(annotations, |spec| spec.images = images.iter().map(|&image| image.to_owned()).collect())
    }

    fn judged_spec(
        annotations: &[(&str, &str)],
        change: impl FnOnce(&mut ImageCacheSpec),
    ) -> (Result<CacheRequest, Vec<Invalid>>, Vec<String>) {
        let annotations = annotations.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        let mut spec = ImageCacheSpec { images: vec!["nginx".into()], ..ImageCacheSpec::default() };
        change(&mut spec);
        judge_spec(&annotations, &spec, &Settings::default())
    }

    const HTTP: &str = "k8s.aliyun.com/plain-http-registry";
    const SKIP: &str = "k8s.aliyun.com/insecure-registry";
    const TKE_HTTP: &str = "eks.tke.cloud.tencent.com/registry-http-endpoint";

    #[test]
    fn unset_means_the_operators_defaults() {
        let (request, notices) = judged(&["nginx:1"], &[]);
        let request = request.unwrap();
        assert_eq!((request.size_limit, request.retention_days), (20 << 30, None));
        assert!(request.reuse && request.access.is_empty() && notices.is_empty());
        assert_eq!(request.dialect, Dialect::Eci);
    }

    #[test]
    fn all_mistakes_are_told_at_once_with_their_place() {
        let (request, _) = judged_spec(&[("k8s.aliyun.com/imc-size", "5"), (HTTP, "http://x")], |spec| {
            spec.images = vec!["ok".into(), "Bad".into(), "also:bad:".into()];
            spec.image_pull_secrets = vec!["bare".into()];
            spec.retention_days = Some(0);
            spec.platforms = vec!["arm64".into()];
        });
        let fields: Vec<String> = request.unwrap_err().into_iter().map(|invalid| invalid.field).collect();
        assert_eq!(
            fields,
            [
                "spec.images[1]",
                "spec.images[2]",
                "spec.imagePullSecrets[0]",
                "spec.platforms[0]",
                "spec.retentionDays",
                HTTP,
                "k8s.aliyun.com/imc-size"
            ]
        );
    }

    #[test]
    fn a_bare_secret_name_is_answered_with_what_to_write() {
        let error = "my-key".parse::<SecretName>().unwrap_err().to_string();
        assert!(error.contains("default:my-key"), "{error}");
        assert_eq!("a/b.c".parse::<SecretName>().unwrap(), "a:b.c".parse().unwrap());
    }

    #[test]
    fn an_annotation_that_differs_from_spec_wins_and_the_user_is_told() {
        let keys = [("k8s.aliyun.com/imc-size", "30"), ("k8s.aliyun.com/imc-retention-days", "7")];
        let (request, notices) = judged_spec(&keys, |spec| {
            spec.image_cache_size = Some(25);
            spec.retention_days = Some(7);
        });
        let request = request.unwrap();
        assert_eq!((request.size_limit, request.retention_days), (30 << 30, Some(7)));
        assert_eq!(notices.len(), 1, "equal values are no news: {notices:?}");
        let (request, notices) = judged_spec(&[("k8s.aliyun.com/imc-cpu-arch", "arm64")], |spec| {
            spec.platforms = vec!["linux/amd64".into()];
        });
        assert_eq!((request.unwrap().platforms[0].to_string().as_str(), notices.len()), ("linux/arm64", 1));
    }

    #[test]
    fn a_host_in_both_lists_is_plain_http() {
        let (request, notices) = judged(&["r.io:5000/a"], &[(HTTP, "r.io:5000"), (SKIP, "r.io:5000")]);
        let access = request.unwrap().access[&"r.io:5000".parse().unwrap()];
        assert_eq!(access, Access { transport: Transport::PlainHttp, overridden: true });
        assert!(notices.iter().any(|notice| notice.contains("plain HTTP counts")), "{notices:?}");
    }

    #[test]
    fn credentials_over_plain_http_are_spoken_of_only_if_there_are_some() {
        let warned = |secrets: &[&str]| {
            let (_, notices) = judged_spec(&[(HTTP, "r.io:5000")], |spec| {
                spec.images = vec!["r.io:5000/a".into()];
                spec.image_pull_secrets = secrets.iter().map(|&name| name.to_owned()).collect();
            });
            notices.iter().any(|notice| notice.contains("credentials"))
        };
        assert!(warned(&["team:login"]) && !warned(&[]));
    }

    #[test]
    fn all_reaches_the_hosts_of_the_images_and_carries_no_credentials() {
        let (request, _) = judged(&["r.io:5000/a", "named.io/b"], &[(TKE_HTTP, "named.io,all")]);
        let request = request.unwrap();
        let anonymous: Vec<&str> = request.anonymous.iter().map(RegistryHost::as_str).collect();
        assert_eq!(anonymous, ["r.io:5000"]);
        assert!(request.access.values().all(|access| access.transport == Transport::PlainHttp));
        assert_eq!((request.access.len(), request.dialect), (2, Dialect::Tke));
    }

    #[test]
    fn a_listed_host_that_no_image_uses_is_pointed_out() {
        let (_, notices) = judged(&["10.0.0.5:5000/a"], &[(HTTP, "10.0.0.5")]);
        assert!(notices[0].contains("10.0.0.5:5000"), "{notices:?}");
    }

    #[test]
    fn images_and_secrets_that_are_listed_twice_count_once() {
        let (request, notices) = judged(&["nginx", "docker.io/library/nginx:latest"], &[]);
        assert_eq!((request.unwrap().images.len(), notices.len()), (1, 1));
    }

    #[test]
    fn what_calls_for_another_pull_changes_the_hash_and_nothing_else_does() {
        let hash = |(request, _): (Result<CacheRequest, Vec<Invalid>>, Vec<String>)| request.unwrap().inputs;
        let base = hash(judged(&["a", "b"], &[]));
        assert_eq!(base, hash(judged(&["b", "a"], &[])), "order");
        let limits = [("k8s.aliyun.com/imc-size", "99"), ("k8s.aliyun.com/imc-retention-days", "9")];
        assert_eq!(base, hash(judged(&["a", "b"], &limits)), "limits");
        assert_eq!(base, hash(judged(&["a", "b"], &[("k8s.aliyun.com/vswitch-ids", "x")])), "not honoured");
        for (key, value) in [
            (SKIP, "docker.io"),
            ("k8s.aliyun.com/imc-cpu-arch", "arm64"),
            ("k8s.aliyun.com/imc-enable-reuse", "false"),
        ] {
            assert_ne!(base, hash(judged(&["a", "b"], &[(key, value)])), "{key}");
        }
        for (referrers, same) in [(Some(false), true), (Some(true), false)] {
            let asked = judged_spec(&[], |spec| {
                spec.images = vec!["a".into(), "b".into()];
                spec.referrers = referrers;
            });
            assert_eq!(base == hash(asked), same, "{referrers:?}");
        }
        let more = judged_spec(&[], |spec| {
            spec.images = vec!["a".into(), "b".into()];
            spec.image_pull_secrets = vec!["x:y".into()];
        });
        assert_ne!(base, hash(more), "secrets");
    }
}
