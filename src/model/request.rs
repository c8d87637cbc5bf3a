//! What a worker is asked to do: written by the controller into the Job's request Secret, or made by hand from
//! flags and a manifest. Nothing secret is in it.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    digest::Digest,
    lookup::Lookup,
    platform::Platform,
    reference::{Reference, RegistryHost},
};

/// The name of a cache in the store: the object's UID, or `local-<name>` by hand. It becomes a folder name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CacheKey(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cache key {0:?}: up to 128 lower-case letters, digits, - and . are allowed, and it does not begin with a dot"
)]
pub struct CacheKeyError(String);

impl CacheKey {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of a cache that was made by hand.
    pub fn local(name: &str) -> Result<Self, CacheKeyError> {
        format!("local-{name}").parse()
    }

    /// The key of an object of the cluster. The API server's UIDs are keys as they are; anything else would be
    /// hashed rather than trusted as a folder name.
    pub fn of_uid(uid: &str) -> Self {
        uid.parse().unwrap_or_else(|_| Self(Digest::sha256(uid.as_bytes()).hex().to_owned()))
    }

    pub fn is_local(&self) -> bool {
        self.0.starts_with("local-")
    }
}

impl FromStr for CacheKey {
    type Err = CacheKeyError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
        if (1..=128).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(fine) {
            Ok(Self(text.to_owned()))
        } else {
            Err(CacheKeyError(text.chars().take(160).collect()))
        }
    }
}

impl TryFrom<String> for CacheKey {
    type Error = CacheKeyError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<CacheKey> for String {
    fn from(key: CacheKey) -> Self {
        key.0
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a registry is reached. Absent from the map means HTTPS, verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Access {
    pub transport: Transport,
    /// The setting came from an ImageCache, so it proves nothing to other caches.
    /// Flags given by hand or by the operator are no overrides.
    pub overridden: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Transport {
    Https,
    /// HTTPS whose certificate is not verified.
    HttpsUnverified,
    PlainHttp,
}

impl Default for Access {
    fn default() -> Self {
        Self { transport: Transport::Https, overridden: false }
    }
}

/// The vocabulary the user writes in; advice is given in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    #[default]
    Eci,
    Kci,
    Tke,
    /// Flags of the command line.
    ByHand,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools)] // each is a yes or no that somebody else decided
pub struct PullRequest {
    pub cache: CacheKey,
    /// `metadata.name`, or the name given by hand; for people.
    pub name: String,
    pub run: u64,
    /// Hash of everything asked that decides what the content is (images, platforms, how hosts are reached).
    pub inputs: String,
    pub images: Vec<Reference>,
    pub platforms: Vec<Platform>,
    /// Bytes this cache may hold; absent by hand.
    pub size_limit: Option<u64>,
    #[serde(default)]
    pub access: BTreeMap<RegistryHost, Access>,
    /// Whether blobs that the store has may be reused by the rules of permission; `false` always fetches.
    pub reuse: bool,
    /// Registries whose anonymous answers prove that an image is public, also at private addresses or over HTTP.
    #[serde(default)]
    pub public_registries: Vec<RegistryHost>,
    /// Whether a credential may be sent to a registry that is listed as plain HTTP.
    pub credentials_over_http: bool,
    /// Content was lost: bytes that the store has are hashed before they are trusted, and fetched if they are wrong.
    #[serde(default)]
    pub recheck: bool,
    #[serde(default)]
    pub resolve: Resolve,
    /// Whether the mirror may serve the private images to everybody in the cluster.
    #[serde(default)]
    pub serve_private: bool,
    /// Whether attestations that an index names are kept, with everything they consist of.
    #[serde(default)]
    pub attestations: bool,
    /// Whether what refers to the images is kept too: signatures, attestations, SBOMs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub referrers: bool,
    #[serde(default)]
    pub dialect: Dialect,
    /// How names are looked up, where it is not as the machine does.
    #[serde(default)]
    pub lookup: Lookup,
    /// Custom domains of ACR instances that get a lent login, with the regions whose token services may see it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub acr_domains: BTreeMap<RegistryHost, Vec<String>>,
}

/// How much of what earlier runs of this cache were told still answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Resolve {
    /// What this run and those after it were told; anything older is asked of the registries again.
    Since(u64),
    /// All that this run was told. Only the proofs that images are public are renewed.
    Proofs(u64),
}

impl Default for Resolve {
    fn default() -> Self {
        Self::Since(0)
    }
}

impl PullRequest {
    /// The first run of a cache of these images, with nothing said besides: verified HTTPS, reuse by the rules of
    /// permission, no limit, the images alone.
    pub fn new(cache: CacheKey, images: Vec<Reference>) -> Self {
        Self {
            name: cache.to_string(),
            cache,
            run: 1,
            inputs: String::new(),
            images,
            platforms: Vec::new(),
            size_limit: None,
            access: BTreeMap::new(),
            reuse: true,
            public_registries: Vec::new(),
            credentials_over_http: true,
            recheck: false,
            resolve: Resolve::default(),
            serve_private: false,
            attestations: false,
            referrers: false,
            dialect: Dialect::default(),
            lookup: Lookup::default(),
            acr_domains: BTreeMap::new(),
        }
    }

    pub fn access(&self, host: &RegistryHost) -> Access {
        self.access.get(host).copied().unwrap_or_default()
    }

    /// Whether the user, and not the operator, says how this host is reached. Registries that the operator lists
    /// as public are the operator's word for them, whatever their transport, but not wherever their name leads.
    pub fn overridden(&self, host: &RegistryHost) -> bool {
        let listed = self.public_registries.contains(host);
        (self.access(host).overridden && !listed) || self.lookup.overrides(host)
    }

    /// ACR's token services of both editions, public and in a VPC, for hosts whose name does not tell.
    pub fn acr_realms(&self) -> Vec<(RegistryHost, String)> {
        let mut realms = Vec::new();
        for (host, regions) in &self.acr_domains {
            for region in regions {
                let names = ["dockerauth", "dockerauth-vpc", "dockerauth-ee", "dockerauth-ee-vpc"];
                realms.extend(names.map(|name| (host.clone(), format!("{name}.{region}.aliyuncs.com"))));
            }
        }
        realms
    }

    /// With a stable hash of what decides the content. The run, names and limits are not part of it.
    #[must_use]
    pub fn with_inputs(self) -> Self {
        let words = (&self.images, &self.platforms, &self.access, self.reuse);
        // What is not asked for changes no hash: nothing is pulled again for a setting that did not exist.
        let words = if self.referrers {
            serde_json::to_vec(&(words, "referrers"))
        } else {
            serde_json::to_vec(&words)
        };
        let mut words = words.unwrap_or_default();
        if !self.lookup.is_default() {
            words.extend(serde_json::to_vec(&self.lookup).unwrap_or_default());
        }
        let inputs = Digest::sha256(&words).hex()[..32].to_owned();
        Self { inputs, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{lookup::HostAlias, samples};

    #[test]
    fn a_cache_key_is_safe_as_a_folder_name() {
        for bad in ["", ".", "..", "../x", "a/b", "A", ".hidden", &"a".repeat(129)] {
            assert!(bad.parse::<CacheKey>().is_err(), "{bad}");
        }
        assert!(CacheKey::local("quickstart").unwrap().is_local());
        assert!("8f14e45f-ceea-467f-a0e6-1c2b3d4e5f60".parse::<CacheKey>().is_ok());
    }

    #[test]
    fn a_custom_domain_trusts_the_token_services_of_its_region_only() {
        let mut request = samples::request("shop", vec![]);
        assert_eq!(request.acr_realms(), vec![]);
        let host: RegistryHost = "images.example.com".parse().unwrap();
        request.acr_domains.insert(host.clone(), vec!["cn-beijing".to_owned()]);
        let realms = request.acr_realms();
        assert!(realms.contains(&(host, "dockerauth-ee.cn-beijing.aliyuncs.com".to_owned())), "{realms:?}");
        assert!(realms.iter().all(|(_, realm)| realm.ends_with(".cn-beijing.aliyuncs.com")));
    }

    #[test]
    fn the_inputs_hash_changes_with_what_decides_the_content() {
        let asked = || samples::request("shop", vec!["nginx:1".parse().unwrap()]);
        let one = asked().with_inputs().inputs;
        let hosts = vec![HostAlias { ip: "10.0.0.5".parse().unwrap(), hostnames: vec!["r.io".into()] }];
        assert_eq!(one, PullRequest { run: 7, size_limit: Some(1), ..asked() }.with_inputs().inputs);
        for other in [
            PullRequest { platforms: vec!["linux/amd64".parse().unwrap()], ..asked() },
            PullRequest { reuse: false, ..asked() },
            PullRequest { referrers: true, ..asked() },
            PullRequest { lookup: Lookup { hosts, ..Lookup::default() }, ..asked() },
        ] {
            assert_ne!(one, other.with_inputs().inputs);
        }
    }

    #[test]
    fn a_list_of_the_operator_vouches_for_a_transport_and_not_for_where_a_name_leads() {
        let host: RegistryHost = "r.io".parse().unwrap();
        let mut request: PullRequest = serde_json::from_value(serde_json::json!({
            "cache": "c", "name": "c", "run": 1, "inputs": "", "images": ["r.io/a"], "platforms": [],
            "access": {"r.io": {"transport": "plainHttp", "overridden": true}}, "reuse": true,
            "publicRegistries": ["r.io"], "credentialsOverHttp": true,
        }))
        .unwrap();
        assert!(!request.overridden(&host));
        let hosts = vec![HostAlias { ip: "10.6.6.6".parse().unwrap(), hostnames: vec!["R.io".into()] }];
        request.lookup = Lookup { hosts, hosts_overridden: true, ..Lookup::default() };
        assert!(request.overridden(&host));
        request.lookup.hosts_overridden = false;
        assert!(!request.overridden(&host), "the operator's own alias");
    }
}
