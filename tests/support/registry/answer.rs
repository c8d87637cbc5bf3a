//! What the scripted registry answers, before and after something goes wrong.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use imagecache::model::digest::Digest;

use super::{Content, Fault, Seen, login};

pub(super) struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub end: End,
}

/// How the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    /// Without a length.
    Chunked,
    Cut(usize),
    Stall(usize),
    Drip(usize, Duration),
    Silence,
}

impl Reply {
    pub(super) fn new(status: StatusCode, body: &str) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            end: End::Whole,
        }
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        if value.is_empty() {
            self.headers.remove(name);
        } else {
            self.headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
    }
}

fn missing(code: &str) -> Reply {
    Reply::new(
        StatusCode::NOT_FOUND,
        &format!(r#"{{"errors":[{{"code":"{code}","message":"s3cret body text"}}]}}"#),
    )
}

/// `own` is the registry's own address, `http://127.0.0.1:1234`.
pub(super) fn answer(content: &mut Content, seen: &Seen, own: &str) -> Reply {
    let path = seen.path.split('?').next().unwrap_or_default().to_owned();
    let fault = content.faults(&format!("{} {}", seen.method, seen.path));
    match fault {
        Some(Fault::Status(status, headers, body)) => {
            let mut reply = Reply::new(StatusCode::from_u16(status).unwrap(), body);
            for (name, value) in headers {
                reply.set(name, &value);
            }
            return reply;
        }
        Some(Fault::Redirect(to)) => {
            let mut reply = Reply::new(StatusCode::TEMPORARY_REDIRECT, "");
            reply.set("location", &to);
            return reply;
        }
        Some(Fault::NoHead) if seen.method == "HEAD" => {
            return Reply::new(StatusCode::METHOD_NOT_ALLOWED, "");
        }
        Some(Fault::Silence) => {
            let mut reply = Reply::new(StatusCode::OK, "");
            reply.end = End::Silence;
            return reply;
        }
        _ => {}
    }
    if path == "/token" {
        return bent(login::token(content, seen), fault);
    }
    // A blob behind a redirect, without any login: `/store/<repository>/blobs/<digest>`.
    let (rest, stored) = match (path.strip_prefix("/v2/"), path.strip_prefix("/store/")) {
        (Some(rest), _) => (rest.to_owned(), false),
        (_, Some(rest)) => (rest.to_owned(), true),
        _ => return missing("NAME_UNKNOWN"),
    };
    let (repository, kind, name) = match rest.rsplit_once("/blobs/") {
        Some((repository, name)) => (repository, "blob", name),
        None => match rest.rsplit_once("/manifests/") {
            Some((repository, name)) => (repository, "manifest", name),
            None => match rest.rsplit_once("/referrers/") {
                Some((repository, name)) => (repository, "referrers", name),
                None => return missing("NAME_UNKNOWN"),
            },
        },
    };
    if !stored && let Some(refusal) = login::refuse(content, seen, repository, own) {
        return refusal;
    }
    let reply = match kind {
        "blob" => blob(content, seen, repository, name, fault.as_ref()),
        "referrers" => referrers(content, seen, repository, name),
        _ => manifest(content, repository, name),
    };
    bent(reply, fault)
}

fn manifest(content: &Content, repository: &str, name: &str) -> Reply {
    if !content.manifests.keys().any(|(r, _)| r == repository) {
        return missing("NAME_UNKNOWN");
    }
    let Some((media_type, digest, bytes)) = content.manifests.get(&(repository.to_owned(), name.to_owned()))
    else {
        return missing("MANIFEST_UNKNOWN");
    };
    let mut reply = Reply::new(StatusCode::OK, "");
    reply.body = bytes.clone();
    reply.set("content-type", media_type);
    reply.set("docker-content-digest", &digest.to_string());
    reply
}

/// Two a page. Source: OCI distribution-spec, "Listing Referrers".
fn referrers(content: &Content, seen: &Seen, repository: &str, name: &str) -> Reply {
    if content.referrers.is_empty() {
        return missing("NAME_UNKNOWN");
    }
    let subject = (repository.to_owned(), name.parse::<Digest>().unwrap());
    let all = content.referrers.get(&subject).map_or(&[][..], Vec::as_slice);
    let from = seen.path.split_once("?from=").map_or(0, |(_, from)| from.parse::<usize>().unwrap());
    let page = &all[from..all.len().min(from + 2)];
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": super::INDEX, "manifests": page});
    let mut reply = Reply::new(StatusCode::OK, &index.to_string());
    reply.set("content-type", super::INDEX);
    if from + 2 < all.len() {
        let next = from + 2;
        reply.set("link", &format!("</v2/{repository}/referrers/{name}?from={next}>; rel=\"next\""));
    }
    reply
}

fn blob(content: &Content, seen: &Seen, repository: &str, name: &str, fault: Option<&Fault>) -> Reply {
    let bytes = name.parse::<Digest>().ok();
    let bytes = bytes.and_then(|digest| content.blobs.get(&(repository.to_owned(), digest)));
    let Some(bytes) = bytes else { return missing("BLOB_UNKNOWN") };
    let mut reply = Reply::new(StatusCode::OK, "");
    reply.set("content-type", "application/octet-stream");
    reply.set("docker-content-digest", name);
    let range = seen.header("range").and_then(|r| r.strip_prefix("bytes=")?.split_once('-'));
    let (Some((first, last)), false) = (range, matches!(fault, Some(Fault::IgnoreRange))) else {
        reply.body = bytes.clone();
        return reply;
    };
    let first: usize = first.parse().unwrap();
    let last = last.parse::<usize>().unwrap().min(bytes.len().saturating_sub(1));
    if first > last {
        return Reply::new(StatusCode::RANGE_NOT_SATISFIABLE, "");
    }
    reply.status = StatusCode::PARTIAL_CONTENT;
    reply.body = bytes.slice(first..=last);
    reply.set("content-range", &format!("bytes {first}-{last}/{}", bytes.len()));
    if matches!(fault, Some(Fault::WrongContentRange)) {
        reply.set("content-range", &format!("bytes {}-{last}/{}", first + 1, bytes.len()));
    }
    reply
}

fn bent(mut reply: Reply, fault: Option<Fault>) -> Reply {
    match fault {
        Some(Fault::WrongBytes) => reply.body = reply.body.iter().map(|b| b ^ 1).collect(),
        Some(Fault::Longer(more)) => {
            reply.body = [&reply.body[..], &vec![0; more]].concat().into();
            reply.end = End::Chunked;
        }
        Some(Fault::Shorter(less)) => reply.body.truncate(reply.body.len().saturating_sub(less)),
        Some(Fault::Cut(after)) => reply.end = End::Cut(after),
        Some(Fault::Stall(after)) => reply.end = End::Stall(after),
        Some(Fault::Dribble) => reply.end = End::Drip(1, Duration::from_secs(1)),
        Some(Fault::Drip(bytes, every)) => reply.end = End::Drip(bytes, every),
        Some(Fault::Header(name, value)) => reply.set(name, &value),
        _ => {}
    }
    reply
}
