//! What a request asks for: method, path and query become a typed request, without a look at the store.
//! Source: OCI distribution-spec, "Endpoints"; containerd names the upstream in `?ns=`, registries.conf of CRI-O
//! and podman can only write it into the path.

use http::{Method, StatusCode};
use url::form_urlencoded;

use crate::model::{
    digest::Digest,
    reference::{RegistryHost, is_repository, is_tag},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `GET /v2/`: answered without a challenge.
    Version,
    Manifest(Repository, Wanted),
    Blob(Repository, Digest),
    Tags(Repository, Page),
    /// What refers to a digest; perhaps only of one artifact type.
    Referrers(Repository, Digest, Option<String>),
    Admin(Admin),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin {
    Live,
    Ready,
    Report,
    Metrics,
}

/// A repository of an upstream. Without a host it is meant by path alone, which is enough for content by digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    pub host: Option<RegistryHost>,
    pub path: String,
    /// Named by `?ns=`, so the answer names it too.
    pub by_query: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Tag(String),
    Digest(Digest),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub last: Option<String>,
    pub n: Option<usize>,
}

/// An answer that is an error, in the words of the distribution-spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
}

impl Refusal {
    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, code, message: message.into() }
    }
}

pub fn route(method: &Method, path: &str, query: Option<&str>) -> Result<Route, Refusal> {
    if *method != Method::GET && *method != Method::HEAD {
        return Err(Refusal {
            status: StatusCode::METHOD_NOT_ALLOWED,
            code: "UNSUPPORTED",
            message: "this registry is read-only".into(),
        });
    }
    let admin = match path {
        "/livez" => Some(Admin::Live),
        "/readyz" => Some(Admin::Ready),
        "/report" => Some(Admin::Report),
        "/metrics" => Some(Admin::Metrics),
        _ => None,
    };
    if let Some(admin) = admin {
        return Ok(Route::Admin(admin));
    }
    let unknown = || Refusal::not_found("UNSUPPORTED", "no such end point");
    if path == "/v2" || path == "/v2/" {
        return Ok(Route::Version);
    }
    // Some clients escape the colon of a digest; nothing else in a path of this API needs escaping.
    let path = path.strip_prefix("/v2/").ok_or_else(unknown)?.replace("%3A", ":").replace("%3a", ":");
    let mut parts = path.rsplitn(3, '/');
    let (Some(last), Some(kind), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(unknown());
    };
    let query = Query::parse(query.unwrap_or_default());
    match kind {
        "manifests" => Ok(Route::Manifest(repository(name, &query)?, wanted(last)?)),
        "blobs" => Ok(Route::Blob(repository(name, &query)?, digest(last)?)),
        "tags" if last == "list" => Ok(Route::Tags(repository(name, &query)?, query.page)),
        "referrers" => Ok(Route::Referrers(repository(name, &query)?, digest(last)?, query.artifact_type)),
        _ => Err(unknown()),
    }
}

#[derive(Default)]
struct Query {
    namespace: Option<String>,
    page: Page,
    artifact_type: Option<String>,
}

impl Query {
    fn parse(text: &str) -> Self {
        let mut query = Self::default();
        for (key, value) in form_urlencoded::parse(text.as_bytes()) {
            match &*key {
                "ns" => query.namespace = Some(value.into_owned()),
                "last" => query.page.last = Some(value.into_owned()),
                "artifactType" => query.artifact_type = Some(value.into_owned()),
                "n" => query.page.n = value.parse().ok(),
                _ => {}
            }
        }
        query
    }
}

fn repository(name: &str, query: &Query) -> Result<Repository, Refusal> {
    let invalid = || Refusal::not_found("NAME_INVALID", "not a repository name");
    let named = match &query.namespace {
        Some(namespace) => {
            let host: RegistryHost = namespace.parse().map_err(|_| invalid())?;
            // With `override_path` containerd is given a path that names the upstream as well.
            let path =
                name.strip_prefix(host.as_str()).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name);
            Repository { path: path.to_owned(), host: Some(host), by_query: true }
        }
        None => match name.split_once('/').and_then(|(first, rest)| Some((host_in_path(first)?, rest))) {
            Some((host, path)) => Repository { host: Some(host), path: path.to_owned(), by_query: false },
            None => Repository { host: None, path: name.to_owned(), by_query: false },
        },
    };
    if !is_repository(&named.path) {
        return Err(invalid());
    }
    let hub = named.host.as_ref().is_some_and(|host| host.as_str() == "docker.io");
    let path = if hub && !named.path.contains('/') { format!("library/{}", named.path) } else { named.path };
    Ok(Repository { path, ..named })
}

/// The first component of a path, if it is a host. An image name cannot hold a colon there, so `host_5000` is
/// `host:5000` too.
fn host_in_path(text: &str) -> Option<RegistryHost> {
    let written = match text.rsplit_once('_') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            format!("{host}:{port}")
        }
        _ => text.to_owned(),
    };
    (written.contains(['.', ':']) || written == "localhost").then(|| written.parse().ok()).flatten()
}

fn wanted(text: &str) -> Result<Wanted, Refusal> {
    match text {
        text if text.contains(':') => digest(text).map(Wanted::Digest),
        text if is_tag(text) => Ok(Wanted::Tag(text.to_owned())),
        _ => Err(Refusal::not_found("MANIFEST_UNKNOWN", "not a tag")),
    }
}

fn digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|_| Refusal {
        status: StatusCode::BAD_REQUEST,
        code: "DIGEST_INVALID",
        message: "expected sha256: and 64, or sha512: and 128 lower-case hexadecimal digits".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn get(uri: &str) -> Result<Route, Refusal> {
        let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
        route(&Method::GET, path, query)
    }

    #[test]
    fn the_upstream_is_named_by_query_or_by_path() {
        for (uri, host, path) in [
            ("/v2/library/nginx/manifests/1?ns=docker.io", Some("docker.io"), "library/nginx"),
            ("/v2/nginx/manifests/1?ns=docker.io", Some("docker.io"), "library/nginx"),
            ("/v2/docker.io/library/nginx/manifests/1?ns=docker.io", Some("docker.io"), "library/nginx"),
            ("/v2/team/app/manifests/1?ns=10.0.0.5%3A5000", Some("10.0.0.5:5000"), "team/app"),
            ("/v2/docker.io/library/nginx/manifests/1", Some("docker.io"), "library/nginx"),
            ("/v2/10.0.0.5:5000/team/app/manifests/1", Some("10.0.0.5:5000"), "team/app"),
            ("/v2/10.0.0.5_5000/team/app/manifests/1", Some("10.0.0.5:5000"), "team/app"),
            ("/v2/localhost/app/manifests/1", Some("localhost"), "app"),
            ("/v2/team/app/manifests/1", None, "team/app"),
            ("/v2/a_5/app/manifests/1", Some("a:5"), "app"),
            ("/v2/manifests/blobs/manifests/1", None, "manifests/blobs"),
        ] {
            let Ok(Route::Manifest(repository, Wanted::Tag(tag))) = get(uri) else { panic!("{uri}") };
            assert_eq!(
                (repository.host.as_ref().map(RegistryHost::as_str), &*repository.path),
                (host, path),
                "{uri}"
            );
            assert_eq!(tag, "1");
        }
    }

    #[test]
    fn other_end_points_are_told_apart() {
        assert_eq!(get("/v2/"), Ok(Route::Version));
        assert_eq!(get("/v2"), Ok(Route::Version));
        assert_eq!(get("/readyz"), Ok(Route::Admin(Admin::Ready)));
        for uri in [format!("/v2/a/blobs/{D}"), format!("/v2/a/blobs/{}", D.replace(':', "%3A"))] {
            assert!(matches!(get(&uri), Ok(Route::Blob(_, digest)) if digest.to_string() == D));
        }
        assert!(matches!(get(&format!("/v2/a/manifests/{D}")), Ok(Route::Manifest(_, Wanted::Digest(_)))));
        let Ok(Route::Referrers(_, of, kind)) = get(&format!("/v2/a/referrers/{D}?artifactType=a%2Fb"))
        else {
            panic!()
        };
        assert_eq!((of.to_string(), kind.as_deref()), (D.to_owned(), Some("a/b")));
        let Ok(Route::Tags(_, page)) = get("/v2/a/tags/list?n=2&last=b%2B") else { panic!() };
        assert_eq!(page, Page { last: Some("b+".into()), n: Some(2) });
    }

    #[test]
    fn what_is_wrong_has_the_code_of_the_specification() {
        let long = format!("/v2/a/blobs/{}", D.to_uppercase());
        for (uri, status, code) in [
            ("/v2/a/blobs/sha256:12", 400, "DIGEST_INVALID"),
            ("/v2/a/manifests/md5:12", 400, "DIGEST_INVALID"),
            (&*long, 400, "DIGEST_INVALID"),
            ("/v2/A/manifests/1", 404, "NAME_INVALID"),
            ("/v2/../manifests/1", 404, "NAME_INVALID"),
            ("/v2/a/manifests/1?ns=http://x", 404, "NAME_INVALID"),
            ("/v2/a/manifests/.x", 404, "MANIFEST_UNKNOWN"),
            ("/v2/a/blobs/uploads/", 404, "UNSUPPORTED"),
            ("/v2/_catalog", 404, "UNSUPPORTED"),
            ("/", 404, "UNSUPPORTED"),
        ] {
            let refusal = get(uri).unwrap_err();
            assert_eq!((refusal.status.as_u16(), refusal.code), (status, code), "{uri}");
        }
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert_eq!(route(&method, "/v2/a/blobs/uploads/", None).unwrap_err().status, 405);
        }
    }

    proptest! {
        #[test]
        fn no_path_panics_and_no_name_leaves_the_grammar(path in "/v2/[a-zA-Z0-9.:/_%@-]{0,90}", query in "(ns=[a-z.:%]{0,20})?") {
            if let Ok(Route::Manifest(repository, _) | Route::Blob(repository, _)) = route(&Method::GET, &path, Some(&query)) {
                prop_assert!(is_repository(&repository.path));
            }
        }
    }
}
