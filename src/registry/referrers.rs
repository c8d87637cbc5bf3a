//! What refers to an image: the referrers API with its pages, the referrers tag where a registry has no such API, and
//! the tags that cosign makes. Sources: OCI distribution-spec 1.1, "Listing Referrers" and "Referrers Tag Schema";
//! cosign, `specs/SIGNATURE_SPEC.md`, "Tag-based Discovery".

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;
use url::Url;

use super::{
    Client, RawManifest, Resolved,
    answer::refusal,
    client::media_type,
    exchange::Call,
    limits::{MAX_ANNOTATIONS, MAX_BLOB, MAX_REFERRER_PAGES, MAX_REFERRERS},
    manifest::OCI_INDEX,
    retry::Retry,
};
use crate::model::{
    class::Class,
    digest::Digest,
    failure::Failure,
    reference::{Reference, RegistryHost},
    root::Referrer,
};

/// What cosign appends to the tag of a digest: signature, attestation, SBOM.
pub const COSIGN: [&str; 3] = [".sig", ".att", ".sbom"];

/// The answer of a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    pub referrers: Vec<Referrer>,
    /// The index of the referrers tag, where the registry has no API.
    pub by_tag: Option<RawManifest>,
    /// There are more than are kept.
    pub more: bool,
}

/// The tag that stands for a digest: algorithm and value, cut to 32 and 64 characters.
pub fn tag_of(digest: &Digest) -> String {
    let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
    format!("{}-{}", cut(digest.algorithm().as_str(), 32), cut(digest.hex(), 64))
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    manifests: Vec<Wire>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
    artifact_type: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

impl From<Wire> for Referrer {
    fn from(wire: Wire) -> Self {
        let mut annotations = wire.annotations.unwrap_or_default();
        if annotations.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_ANNOTATIONS {
            annotations.clear();
        }
        let artifact_type = wire.artifact_type.filter(|text| !text.is_empty() && text.len() <= 255);
        let Wire { media_type, digest, size, .. } = wire;
        Self { media_type, digest, size, artifact_type, annotations }
    }
}

impl Client {
    /// Everything in this repository that names the digest as its subject.
    pub async fn referrers(
        &self,
        host: &RegistryHost,
        repository: &str,
        digest: &Digest,
    ) -> Result<Listed, Failure> {
        let mut listed = Listed::default();
        let mut query = Some(String::new());
        for _ in 0..MAX_REFERRER_PAGES {
            let Some(asked) = query.take() else { return Ok(listed) };
            let Some((page, next)) = self.page(host, repository, digest, &asked).await? else {
                return self.by_tag(host, repository, digest).await;
            };
            listed.take(page);
            query = next.filter(|_| !listed.more);
        }
        listed.more |= query.is_some();
        Ok(listed)
    }

    /// One page, and what to ask for the next one. Nothing if the registry has no such API.
    async fn page(
        &self,
        host: &RegistryHost,
        repository: &str,
        digest: &Digest,
        query: &str,
    ) -> Result<Option<(Page, Option<String>)>, Failure> {
        let path = format!("referrers/{digest}{query}");
        let subject = format!("the referrers of {host}/{repository}@{digest}");
        let mut retry = Retry::default();
        loop {
            match self.page_once(host, repository, &path).await {
                Err(failure) if retry.again(&failure, self.limits()).await => {}
                other => return other.map_err(|failure| failure.of(&subject)),
            }
        }
    }

    async fn page_once(
        &self,
        host: &RegistryHost,
        repository: &str,
        path: &str,
    ) -> Result<Option<(Page, Option<String>)>, Failure> {
        let path = path.to_owned();
        let call = Call { host, repository, method: Method::GET, path, accept: Some(OCI_INDEX), range: None };
        let answer = self.exchange().send(&call).await?.answer;
        let status = answer.status;
        if status != StatusCode::OK {
            let failure = refusal(answer).await;
            // Registries without the API answer whatever they answer to unknown paths.
            let absent =
                status.is_client_error() && !matches!(failure.class, Class::RateLimited | Class::Timeout);
            return if absent || status == StatusCode::NOT_IMPLEMENTED { Ok(None) } else { Err(failure) };
        }
        if media_type(&answer.headers).as_deref() != Some(OCI_INDEX) {
            return Ok(None);
        }
        let next = next_query(&answer.headers);
        let bytes = answer.body.whole(self.limits().manifest_bytes).await?;
        Ok(Some((parse(&bytes)?, next)))
    }

    /// The referrers tag: an index that clients keep themselves.
    async fn by_tag(
        &self,
        host: &RegistryHost,
        repository: &str,
        digest: &Digest,
    ) -> Result<Listed, Failure> {
        let mut listed = Listed::default();
        let Some(found) = self.tag(host, repository, &tag_of(digest)).await? else { return Ok(listed) };
        if found.media_type != OCI_INDEX {
            return Ok(listed);
        }
        let raw = self.manifest(host, repository, &found.digest, Some(found.size)).await?;
        listed.take(parse(&raw.bytes)?);
        listed.by_tag = Some(raw);
        Ok(listed)
    }

    /// What a tag means, if there is such a tag.
    pub async fn tag(
        &self,
        host: &RegistryHost,
        repository: &str,
        tag: &str,
    ) -> Result<Option<Resolved>, Failure> {
        let reference: Reference = format!("{host}/{repository}:{tag}")
            .parse()
            .map_err(|e| Failure::new(Class::InvalidSpec, format!("{host}/{repository}:{tag}: {e}")))?;
        match self.resolve(&reference).await {
            Ok(found) => Ok(Some(found)),
            // Some registries deny what is not there. The image itself they gave.
            Err(failure) if matches!(failure.class, Class::NotFound | Class::Auth | Class::Unsupported) => {
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }
}

impl Listed {
    fn take(&mut self, page: Page) {
        for wire in page.manifests {
            if self.referrers.iter().any(|known| known.digest == wire.digest) || wire.size > MAX_BLOB {
                continue;
            }
            if self.referrers.len() == MAX_REFERRERS {
                self.more = true;
                return;
            }
            self.referrers.push(wire.into());
        }
    }
}

fn parse(bytes: &Bytes) -> Result<Page, Failure> {
    serde_json::from_slice(bytes).map_err(|e| {
        let message =
            format!("a list of referrers that cannot be read: line {}, column {}", e.line(), e.column());
        Failure::new(Class::BadContent, message)
    })
}

/// RFC 8288: `</v2/name/referrers/digest?last=x>; rel="next"`. Only the query is taken: the next page is asked where
/// this one was.
fn next_query(headers: &HeaderMap) -> Option<String> {
    let links = headers.get_all(header::LINK).iter().filter_map(|link| link.to_str().ok());
    let mut links = links.flat_map(|link| link.split(", <").map(|link| link.trim().trim_start_matches('<')));
    links.find_map(|link| {
        let (target, rest) = link.split_once('>')?;
        let rest = rest.to_ascii_lowercase();
        if !rest.contains("rel=\"next\"") && !rest.contains("rel=next") {
            return None;
        }
        let base = Url::parse("http://registry/").ok()?;
        Some(format!("?{}", base.join(target).ok()?.query()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_asked_where_the_first_was() {
        let next = |link: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LINK, header::HeaderValue::from_static(link));
            next_query(&headers)
        };
        for (link, query) in [
            ("</v2/a/referrers/d?last=x&n=2>; rel=\"next\"", Some("?last=x&n=2")),
            ("<https://elsewhere/v2/b?last=x>; rel=next", Some("?last=x")),
            ("</a?p=0>; rel=\"prev\", </a?p=2>; rel=\"next\"", Some("?p=2")),
            ("</a>; rel=\"next\"", None),
            ("</a?x=1>; rel=\"last\"", None),
            ("nonsense", None),
        ] {
            assert_eq!(next(link).as_deref(), query, "{link}");
        }
    }

    #[test]
    fn the_tag_of_a_digest_is_cut_as_the_specification_says() {
        let digest: Digest = format!("sha512:{}", "a".repeat(128)).parse().unwrap();
        assert_eq!(tag_of(&digest), format!("sha512-{}", "a".repeat(64)));
    }
}
