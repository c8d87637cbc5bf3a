//! From a typed request to a response: status and headers as the distribution-spec and its clients want them.
//! HEAD gets the headers of GET. Nothing here ever answers 401: containerd would hand over the pod's credential.

use std::{fs::File, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{Either, Full};
use serde_json::json;

use super::{
    body::{BlobBody, Check, PIECE},
    proof::{Identity, Proofs},
    range::{self, Span},
    route::{Refusal, Repository},
};
use crate::model::{
    digest::{Digest, Hasher},
    root::{Entry, Referrer},
};

pub(super) type Reply = Response<Either<Full<Bytes>, BlobBody>>;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const IMMUTABLE: &str = "max-age=31536000, immutable";

pub(super) fn refusal(refusal: &Refusal) -> Reply {
    let body = json!({"errors": [{"code": refusal.code, "message": refusal.message}]}).to_string();
    let mut reply = text(refusal.status, "application/json", body);
    if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
        reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    reply
}

/// A small body, whole.
pub(super) fn text(status: StatusCode, media_type: &str, body: impl Into<Bytes>) -> Reply {
    let body: Bytes = body.into();
    let mut reply = Response::new(Either::Left(Full::new(body.clone())));
    *reply.status_mut() = status;
    put(reply.headers_mut(), header::CONTENT_TYPE, media_type);
    put(reply.headers_mut(), header::CONTENT_LENGTH, &body.len().to_string());
    reply
}

/// A list of referrers. A filter that was applied is named, so that clients do not filter again.
pub(super) fn referrers(list: &[Referrer], artifact_type: Option<&str>) -> Reply {
    let wanted = |referrer: &&Referrer| match artifact_type {
        Some(wanted) => referrer.artifact_type.as_deref() == Some(wanted),
        None => true,
    };
    let manifests: Vec<&Referrer> = list.iter().filter(wanted).collect();
    let body = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string();
    let mut reply = text(StatusCode::OK, INDEX, body);
    if artifact_type.is_some() {
        put(reply.headers_mut(), header::HeaderName::from_static("oci-filters-applied"), "artifactType");
    }
    put(reply.headers_mut(), header::CACHE_CONTROL, "no-cache");
    reply
}

/// Headers of a manifest or blob.
pub(super) fn describe(reply: &mut Reply, entry: &Entry, repository: &Repository, by_digest: bool) {
    let headers = reply.headers_mut();
    put(headers, header::HeaderName::from_static("docker-content-digest"), &entry.digest.to_string());
    put(headers, header::ETAG, &etag(&entry.digest));
    put(headers, header::CACHE_CONTROL, if by_digest { IMMUTABLE } else { "no-cache" });
    if let (Some(host), true) = (&repository.host, repository.by_query) {
        put(headers, header::HeaderName::from_static("oci-namespace"), host.as_str());
    }
}

pub(super) fn not_modified() -> Reply {
    let mut reply = Response::new(Either::Left(Full::default()));
    *reply.status_mut() = StatusCode::NOT_MODIFIED;
    reply
}

/// The headers stay, the body goes.
pub(super) fn head(reply: Reply) -> Reply {
    reply.map(|_| Either::Left(Full::default()))
}

/// A blob, whole or in part. `None` if its bytes are known to be wrong.
pub(super) async fn blob(
    method: &Method,
    headers: &HeaderMap,
    entry: &Entry,
    file: File,
    proofs: &Arc<Proofs>,
    (prove_first, limit): (u64, Duration),
) -> io::Result<Option<Reply>> {
    let (file, size) = (Arc::new(file), entry.size);
    let identity = Identity::of(&file)?;
    let span = match headers.get(header::RANGE).and_then(|value| value.to_str().ok()) {
        Some(range) if may_use_range(headers, &entry.digest) => range::parse(range, size),
        _ => Span::Whole,
    };
    let mut known = proofs.known(&entry.digest, identity);
    let in_part = matches!(span, Span::Part(first, last) if (first, last) != (0, size - 1));
    // Bytes in the middle say nothing about the digest, and a small blob would be gone before it is known.
    if known.is_none() && *method == Method::GET && (in_part || size <= prove_first.max(PIECE as u64)) {
        // The hashing goes on without this client, who does better elsewhere meanwhile.
        let proof = tokio::time::timeout(limit, proofs.prove(&entry.digest, Arc::clone(&file)));
        let slow =
            |_| io::Error::new(io::ErrorKind::TimedOut, "hashing a blob before it is served takes long");
        known = Some(proof.await.map_err(slow)??);
    }
    if known == Some(false) {
        return Ok(None);
    }
    let (first, end, status) = match span {
        Span::Whole => (0, size, StatusCode::OK),
        Span::Part(first, last) => (first, last + 1, StatusCode::PARTIAL_CONTENT),
        Span::Unsatisfiable => {
            let mut reply = refusal(&Refusal {
                status: StatusCode::RANGE_NOT_SATISFIABLE,
                code: "SIZE_INVALID",
                message: "the range is outside the blob".into(),
            });
            put(reply.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{size}"));
            return Ok(Some(reply));
        }
    };
    let check = known.is_none().then(|| Check {
        digest: entry.digest.clone(),
        identity,
        proofs: Arc::clone(proofs),
        hasher: Hasher::new(entry.digest.algorithm()),
    });
    let mut reply = Response::new(Either::Right(BlobBody::new(file, first, end, check, limit)));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    put(headers, header::CONTENT_TYPE, "application/octet-stream");
    put(headers, header::CONTENT_LENGTH, &(end - first).to_string());
    put(headers, header::ACCEPT_RANGES, "bytes");
    if status == StatusCode::PARTIAL_CONTENT {
        put(headers, header::CONTENT_RANGE, &format!("bytes {first}-{}/{size}", end - 1));
    }
    Ok(Some(reply))
}

/// Whether the client takes this type. Several Accept lines are one list; parameters do not matter.
pub(super) fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let mut lines = headers.get_all(header::ACCEPT).iter().peekable();
    lines.peek().is_none()
        || lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).any(|item| {
            let wanted = item.split(';').next().unwrap_or_default().trim();
            wanted == "*/*" || wanted == "application/*" || wanted.eq_ignore_ascii_case(media_type)
        })
}

/// Whether the client has these bytes already.
pub(super) fn has_already(headers: &HeaderMap, digest: &Digest) -> bool {
    let tags = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    tags.flat_map(|line| line.split(',')).any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag(digest)
    })
}

fn may_use_range(headers: &HeaderMap, digest: &Digest) -> bool {
    headers.get(header::IF_RANGE).is_none_or(|tag| tag.as_bytes() == etag(digest).as_bytes())
}

fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// A value that no header can hold is left out: media types come from upstream.
fn put(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_accept_lines_are_one_list() {
        let mut headers = HeaderMap::new();
        assert!(accepts(&headers, "application/x"), "no Accept takes everything");
        for line in ["application/a", "application/b;q=0.5, application/C"] {
            headers.append(header::ACCEPT, line.parse().unwrap());
        }
        for (media_type, taken) in [
            ("application/a", true),
            ("application/b", true),
            ("application/c", true),
            ("application/d", false),
        ] {
            assert_eq!(accepts(&headers, media_type), taken, "{media_type}");
        }
        headers.append(header::ACCEPT, "*/*".parse().unwrap());
        assert!(accepts(&headers, "application/d"));
    }

    #[test]
    fn a_digest_is_its_own_etag() {
        let digest = Digest::sha256(b"");
        let mut headers = HeaderMap::new();
        assert!(!has_already(&headers, &digest));
        headers.insert(header::IF_NONE_MATCH, format!("\"x\", W/\"{digest}\"").parse().unwrap());
        assert!(has_already(&headers, &digest));
    }
}
