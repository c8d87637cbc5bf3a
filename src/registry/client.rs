//! What can be asked of a registry.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, header};

use super::{
    answer::refusal,
    blob::Blob,
    exchange::{Call, Exchange, Sent},
    keyring::{CredentialSource, Keyring},
    limits::Limits,
    lookup::{DNS_PORT, Names},
    manifest::{self, Document},
    retry::Retry,
    tls::Tls,
    transport::Transport,
};
use crate::model::{
    class::Class,
    credentials::Credentials,
    digest::{Algorithm, Digest},
    failure::Failure,
    lookup::Lookup,
    reference::{Reference, RegistryHost, Wanted, is_repository},
    request::{Access, Transport as Scheme},
};

#[derive(Clone, Debug)]
pub struct Config {
    /// How hosts are reached; absent means HTTPS, verified.
    pub access: BTreeMap<RegistryHost, Access>,
    pub credentials: CredentialSource,
    /// Whether a host listed as plain HTTP may be sent credentials.
    pub credentials_over_http: bool,
    /// Token services on other hosts that may see credentials: (registry, `host` or `host:port`).
    pub auth_realms: Vec<(RegistryHost, String)>,
    /// Registries whose anonymous answers prove that an image is public, also inside or over HTTP.
    pub public_registries: Vec<RegistryHost>,
    /// PEM texts of CAs that add to the system's.
    pub extra_roots: Vec<Vec<u8>>,
    pub user_agent: String,
    /// How names are looked up, where it is not as the machine does.
    pub lookup: Lookup,
    pub dns_port: u16,
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            access: BTreeMap::new(),
            credentials: CredentialSource::Fixed(Credentials::default()),
            credentials_over_http: true,
            auth_realms: Vec::new(),
            public_registries: Vec::new(),
            extra_roots: Vec::new(),
            user_agent: concat!("imagecache/", env!("CARGO_PKG_VERSION")).to_owned(),
            lookup: Lookup::default(),
            dns_port: DNS_PORT,
            limits: Limits::default(),
        }
    }
}

/// What a reference means now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub digest: Digest,
    pub media_type: String,
    pub size: u64,
    /// The bytes, if the registry had to be asked for them to know the digest.
    pub body: Option<Bytes>,
    /// Whether this answer proves that everybody may have the image.
    pub public: bool,
    /// Whether it was asked for without a credential: then asking so again would prove no more.
    pub anonymous: bool,
}

/// A manifest or index as it was received: its bytes are its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawManifest {
    pub digest: Digest,
    pub media_type: String,
    pub bytes: Bytes,
}

impl RawManifest {
    pub fn parse(&self) -> Result<Document, Failure> {
        manifest::parse(Some(&self.media_type), &self.bytes)
    }
}

/// Whether everybody may have an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publicity {
    /// Answered without credentials by the real host.
    Proved,
    /// 401 or 403 without credentials.
    Denied,
    /// The answer proves nothing: the host is inside or not verified, and the operator does not list it.
    Unproved,
    /// It has no such content.
    Absent,
}

/// Cheap to clone; clones share connections, tokens and pauses.
#[derive(Clone)]
pub struct Client {
    exchange: Arc<Exchange>,
    anonymous: bool,
}

impl Client {
    pub fn new(config: Config) -> Result<Self, Failure> {
        let tls = Tls::new(&config.extra_roots)?;
        let names = Names::new(&config.lookup, config.dns_port)?;
        let keyring = Keyring::open(config.credentials.clone())?;
        let transport = Arc::new(Transport::new(tls, names, config.limits.clone()));
        Ok(Self {
            exchange: Arc::new(Exchange::new(transport, config, keyring, Arc::default())),
            anonymous: false,
        })
    }

    /// The same limits, connections and pauses, but no credentials and no overrides of an ImageCache. Tokens are
    /// not shared.
    #[must_use]
    pub fn anonymous(&self) -> Self {
        let mut config = self.exchange.config.clone();
        config.access.retain(|_, access| !access.overridden);
        config.credentials = CredentialSource::Fixed(Credentials::default());
        let (transport, pauses) = (self.exchange.transport.clone(), self.exchange.pauses.clone());
        let exchange = Exchange::new(transport, config, Keyring::none(), pauses);
        Self { exchange: Arc::new(exchange), anonymous: true }
    }

    /// What people should know: credentials that could not be read, warnings of registries.
    pub fn notices(&self) -> Vec<String> {
        let credentials = self.exchange.keyring.current();
        let warnings = self.exchange.warnings.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        credentials.notices().iter().chain(warnings.iter()).cloned().collect()
    }

    /// The credentials in use now.
    pub fn credentials(&self) -> Arc<Credentials> {
        self.exchange.keyring.current()
    }

    /// Asks what a reference means: HEAD, which registries do not count as a pull, then GET if HEAD does not say.
    pub async fn resolve(&self, reference: &Reference) -> Result<Resolved, Failure> {
        let (host, repository) = (reference.host(), reference.repository());
        let mut retry = Retry::default();
        loop {
            let result = match reference.wanted() {
                Wanted::Tag(tag) => self.resolve_once(host, repository, tag, None).await,
                Wanted::Digest(digest) => {
                    self.resolve_once(host, repository, &digest.to_string(), Some(digest)).await
                }
            };
            match result {
                Err(failure) if retry.again(&failure, self.limits()).await => {}
                other => return other.map_err(|f| f.of(reference)),
            }
        }
    }

    async fn resolve_once(
        &self,
        host: &RegistryHost,
        repository: &str,
        wanted: &str,
        digest: Option<&Digest>,
    ) -> Result<Resolved, Failure> {
        let call = |method| Call {
            host,
            repository,
            method,
            path: format!("manifests/{wanted}"),
            accept: Some(manifest::ACCEPT),
            range: None,
        };
        let sent = self.exchange.send(&call(Method::HEAD)).await?;
        let status = sent.answer.status;
        let other_algorithm = |named: &Digest| digest.is_some_and(|d| d.algorithm() != named.algorithm());
        if status.is_success()
            && let Some((named, media_type, size)) = described(&sent.answer.headers)
            && !other_algorithm(&named)
        {
            same(digest, &named)?;
            return Ok(Resolved {
                digest: named,
                media_type,
                size,
                body: None,
                public: self.proves(host, &sent),
                anonymous: sent.anonymous,
            });
        }
        if status.as_u16() == 429 || status.is_server_error() {
            return Err(refusal(sent.answer).await);
        }
        // Not said, or denied without a reason: HEAD has no body that could tell.
        let sent = self.exchange.send(&call(Method::GET)).await?;
        let (public, anonymous) = (self.proves(host, &sent), sent.anonymous);
        let raw = self.read_manifest(sent, digest).await?;
        let size = raw.bytes.len() as u64;
        let body = Some(raw.bytes);
        Ok(Resolved { digest: raw.digest, media_type: raw.media_type, size, body, public, anonymous })
    }

    /// The exact bytes of a manifest or index. `size` is what a descriptor promised.
    pub async fn manifest(
        &self,
        host: &RegistryHost,
        repository: &str,
        digest: &Digest,
        size: Option<u64>,
    ) -> Result<RawManifest, Failure> {
        let mut retry = Retry::default();
        loop {
            match self.manifest_once(host, repository, digest, size).await {
                Err(failure) if retry.again(&failure, self.limits()).await => {}
                other => return other.map_err(|f| f.of(format!("{host}/{repository}@{digest}"))),
            }
        }
    }

    async fn manifest_once(
        &self,
        host: &RegistryHost,
        repository: &str,
        digest: &Digest,
        size: Option<u64>,
    ) -> Result<RawManifest, Failure> {
        checked(repository)?;
        let path = format!("manifests/{digest}");
        let call =
            Call { host, repository, method: Method::GET, path, accept: Some(manifest::ACCEPT), range: None };
        let sent = self.exchange.send(&call).await?;
        let raw = self.read_manifest(sent, Some(digest)).await?;
        match size {
            Some(size) if size != raw.bytes.len() as u64 => {
                let got = raw.bytes.len();
                Err(Failure::new(
                    Class::BadContent,
                    format!("the manifest has {got} bytes, {size} were promised"),
                ))
            }
            _ => Ok(raw),
        }
    }

    async fn read_manifest(&self, sent: Sent, digest: Option<&Digest>) -> Result<RawManifest, Failure> {
        let answer = sent.answer;
        if answer.status.as_u16() != 200 {
            return Err(refusal(answer).await);
        }
        if let Some(encoding) = encoding(&answer.headers) {
            let message =
                format!("the registry sent a manifest with Content-Encoding {encoding}, not asked for");
            return Err(Failure::new(Class::BadContent, message));
        }
        let media_type = media_type(&answer.headers);
        let claimed = claimed(&answer.headers)?;
        let bytes = answer.body.whole(self.limits().manifest_bytes).await?;
        let wanted = digest.or(claimed.as_ref());
        let algorithm = wanted.map_or(Algorithm::Sha256, Digest::algorithm);
        let found = Digest::of(algorithm, &bytes);
        if let Some(claimed) = &claimed {
            same(Some(claimed), &Digest::of(claimed.algorithm(), &bytes))?;
        }
        same(digest, &found)?;
        let media_type = manifest::media_type_of(media_type.as_deref(), &bytes)?;
        Ok(RawManifest { digest: found, media_type, bytes })
    }

    /// Streams a blob from `offset` to its end. The caller checks the digest; never more than `size` bytes come.
    pub async fn blob(
        &self,
        host: &RegistryHost,
        repository: &str,
        digest: &Digest,
        size: u64,
        offset: u64,
    ) -> Result<Blob, Failure> {
        // An offset beyond the size is no range, and refused as such.
        self.blob_range(host, repository, digest, size, offset..size.max(offset)).await
    }

    /// Streams a part of a blob.
    pub async fn blob_range(
        &self,
        host: &RegistryHost,
        repository: &str,
        digest: &Digest,
        size: u64,
        range: Range<u64>,
    ) -> Result<Blob, Failure> {
        checked(repository)?;
        let mut blob =
            Blob::new(self.clone(), host.clone(), repository.to_owned(), digest.clone(), size, range)?;
        blob.open().await?;
        Ok(blob)
    }

    /// Whether this repository shows the blob to these credentials. A denial is a no.
    pub async fn has_blob(
        &self,
        host: &RegistryHost,
        repository: &str,
        digest: &Digest,
    ) -> Result<bool, Failure> {
        let subject = format!("{host}/{repository}@{digest}");
        let mut retry = Retry::default();
        loop {
            match self.has_once(host, repository, &format!("blobs/{digest}")).await {
                Ok(has) => return Ok(has.is_some()),
                Err(f) if matches!(f.class, Class::Auth | Class::NotFound | Class::Unsupported) => {
                    return Ok(false);
                }
                Err(f) if retry.again(&f, self.limits()).await => {}
                Err(f) => return Err(f.of(subject)),
            }
        }
    }

    /// Asks for a manifest without credentials. Keep the client of [`Client::anonymous`] for several images, so that
    /// tokens are shared; any other client makes an anonymous copy per call.
    pub async fn is_public(
        &self,
        host: &RegistryHost,
        repository: &str,
        digest: &Digest,
    ) -> Result<Publicity, Failure> {
        if self.is_led(host) {
            return Ok(Publicity::Unproved);
        }
        let anonymous = if self.anonymous { self.clone() } else { self.anonymous() };
        let mut retry = Retry::default();
        loop {
            match anonymous.has_once(host, repository, &format!("manifests/{digest}")).await {
                Ok(Some(true)) => return Ok(Publicity::Proved),
                Ok(_) => return Ok(Publicity::Unproved),
                Err(f) if f.class == Class::Auth => return Ok(Publicity::Denied),
                Err(f) if f.class == Class::NotFound => return Ok(Publicity::Absent),
                // The pull waits for the answer and can do without it: silence is not waited out again and again.
                Err(f) if f.class != Class::Timeout && retry.again(&f, self.limits()).await => {}
                Err(f) => return Err(f.of(format!("{host}/{repository}@{digest}"))),
            }
        }
    }

    /// HEAD: whether it is there, and if so whether the answer proves that it is public.
    async fn has_once(
        &self,
        host: &RegistryHost,
        repository: &str,
        path: &str,
    ) -> Result<Option<bool>, Failure> {
        checked(repository)?;
        let accept = path.starts_with("manifests/").then_some(manifest::ACCEPT);
        let call =
            Call { host, repository, method: Method::HEAD, path: path.to_owned(), accept, range: None };
        let sent = self.exchange.send(&call).await?;
        if sent.answer.status.as_u16() == 200 {
            return Ok(Some(self.proves(host, &sent)));
        }
        Err(refusal(sent.answer).await)
    }

    /// Design, "Permission and trust": without credentials, verified TLS, no override, the real host, not inside;
    /// for a registry that the operator lists an anonymous answer suffices.
    fn proves(&self, host: &RegistryHost, sent: &Sent) -> bool {
        let access = self.exchange.config.access.get(host).copied().unwrap_or_default();
        let listed = self.exchange.config.public_registries.contains(host);
        let real = access.transport == Scheme::Https && !sent.answer.inside;
        sent.anonymous && !access.overridden && !self.is_led(host) && (listed || real)
    }

    /// A setting of the cache decides where the name leads. That stays so without credentials.
    fn is_led(&self, host: &RegistryHost) -> bool {
        self.exchange.config.lookup.overrides(host)
    }

    /// Says something to people, once.
    pub fn notice(&self, text: String) {
        let mut warnings = self.exchange.warnings.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        warnings.insert(text);
    }

    pub fn limits(&self) -> &Limits {
        &self.exchange.transport.limits
    }

    pub(super) fn exchange(&self) -> &Exchange {
        &self.exchange
    }
}

fn checked(repository: &str) -> Result<(), Failure> {
    if is_repository(repository) {
        return Ok(());
    }
    Err(Failure::new(Class::InvalidSpec, "a repository name that no registry has"))
}

fn same(wanted: Option<&Digest>, found: &Digest) -> Result<(), Failure> {
    match wanted {
        Some(wanted) if wanted != found => Err(Failure::new(
            Class::BadContent,
            format!("the registry sent a manifest with digest {found}, not {wanted}"),
        )),
        _ => Ok(()),
    }
}

/// Digest, type and size, if a HEAD says them all in a usable way.
fn described(headers: &HeaderMap) -> Option<(Digest, String, u64)> {
    let digest = claimed(headers).ok()??;
    let media_type = media_type(headers).filter(|t| manifest::is_known(t))?;
    let size = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    Some((digest, media_type, size)).filter(|(_, _, size)| *size > 0 && encoding(headers).is_none())
}

fn claimed(headers: &HeaderMap) -> Result<Option<Digest>, Failure> {
    let Some(value) = headers.get("docker-content-digest") else { return Ok(None) };
    let digest = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    let bad = || Failure::new(Class::BadContent, "the registry names a digest that is none");
    digest.map(Some).ok_or_else(bad)
}

pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// A `Content-Encoding` other than the one that was asked for.
pub(super) fn encoding(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_ENCODING)?.to_str().ok()?.trim().to_ascii_lowercase();
    let fine = text.len() <= 20 && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let text = if fine { text } else { "unknown".into() };
    (text != "identity" && !text.is_empty()).then_some(text)
}
