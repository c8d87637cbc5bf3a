//! The road of one request from route to reply. Its connection and the limits of that are `ops::server`'s.

use std::{convert::Infallible, fs::File, io, sync::Arc, time::Duration};

use http::{Method, Request, StatusCode};
use hyper::{body::Incoming, service::service_fn};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    State,
    proof::{Identity, Verdict},
    reply::{self, Reply},
    route::{self, Page, Refusal, Repository, Route, Wanted},
};
use crate::{
    model::{digest::Digest, root::Entry},
    ops::server::{self, Limits},
};

/// Answers on the way when the server is told to stop get this long.
const DRAIN: Duration = Duration::from_secs(20);

/// Which requests a listener answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Serves {
    pub registry: bool,
    pub admin: bool,
}

pub(super) async fn listen(
    listener: TcpListener,
    state: Arc<State>,
    serves: Serves,
    stop: CancellationToken,
) {
    let limits = Limits {
        connections: state.config.max_connections,
        progress: state.config.progress_limit,
        drain: DRAIN,
    };
    let service = service_fn(move |request: Request<Incoming>| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(answer(&state, serves, &request).await) }
    });
    server::serve(listener, service, limits, stop).await;
}

async fn answer(state: &Arc<State>, serves: Serves, request: &Request<Incoming>) -> Reply {
    let reply = match route::route(request.method(), request.uri().path(), request.uri().query()) {
        Err(refusal) => reply::refusal(&refusal),
        Ok(Route::Admin(admin)) if serves.admin => state.admin(admin),
        Ok(route) if serves.registry => match registry(state, request, route).await {
            Ok(reply) => reply,
            Err(refusal) => reply::refusal(&refusal),
        },
        Ok(_) => reply::refusal(&Refusal::not_found("UNSUPPORTED", "no such end point")),
    };
    state.metrics.answered(reply.status());
    log(request, &reply);
    if *request.method() == Method::HEAD { reply::head(reply) } else { reply }
}

/// What was served is worth a line each; what was not is every other image of every node.
fn log(request: &Request<Incoming>, reply: &Reply) {
    let (method, path, status) = (request.method(), request.uri().path(), reply.status().as_u16());
    if !path.starts_with("/v2/") || path == "/v2/" {
        return;
    }
    let upstream = request.uri().query().unwrap_or_default();
    let client = request
        .headers()
        .get(http::header::USER_AGENT)
        .and_then(|agent| agent.to_str().ok())
        .unwrap_or_default();
    if reply.status().is_success() {
        tracing::info!(%method, path, upstream, status, client, "served");
    } else {
        tracing::debug!(%method, path, upstream, status, client, "not served");
    }
}

async fn registry(state: &Arc<State>, request: &Request<Incoming>, route: Route) -> Result<Reply, Refusal> {
    match route {
        Route::Version => Ok(version()),
        Route::Manifest(repository, wanted) => manifest(state, request, &repository, &wanted).await,
        Route::Blob(repository, digest) => blob(state, request, &repository, &digest).await,
        Route::Tags(repository, page) => tags(state, &repository, &page),
        Route::Referrers(repository, subject, kind) => {
            referrers(state, &repository, &subject, kind.as_deref())
        }
        Route::Admin(_) => Err(Refusal::not_found("UNSUPPORTED", "no such end point")),
    }
}

fn version() -> Reply {
    let mut reply = reply::text(StatusCode::OK, "application/json", "{}");
    let name = http::HeaderName::from_static("docker-distribution-api-version");
    reply.headers_mut().insert(name, http::HeaderValue::from_static("registry/2.0"));
    reply
}

async fn manifest(
    state: &Arc<State>,
    request: &Request<Incoming>,
    repository: &Repository,
    wanted: &Wanted,
) -> Result<Reply, Refusal> {
    let unknown = || match (wanted, &repository.host) {
        (Wanted::Tag(_), None) => Refusal::not_found(
            "MANIFEST_UNKNOWN",
            "a tag needs the name of its registry: ?ns=docker.io, or docker.io/ before the repository",
        ),
        _ => Refusal::not_found("MANIFEST_UNKNOWN", "not in this cache"),
    };
    let view = state.view();
    let lost = |digest: &Digest| state.proofs.is_lost(digest);
    let entry = view.table.manifest(repository, wanted, lost).cloned().ok_or_else(unknown)?;
    if !reply::accepts(request.headers(), &entry.media_type) {
        let message =
            format!("the manifest is of type {}, which the request does not accept", entry.media_type);
        return Err(Refusal::not_found("MANIFEST_UNKNOWN", message));
    }
    let by_digest = matches!(wanted, Wanted::Digest(_));
    let mut reply = if reply::has_already(request.headers(), &entry.digest) {
        reply::not_modified()
    } else {
        let bytes = read_manifest(state, &entry).await.map_err(|e| failed(&e))?.ok_or_else(unknown)?;
        reply::text(StatusCode::OK, &entry.media_type, bytes)
    };
    reply::describe(&mut reply, &entry, repository, by_digest);
    Ok(reply)
}

/// The bytes of a manifest, if they are there and right.
async fn read_manifest(state: &Arc<State>, entry: &Entry) -> io::Result<Option<Vec<u8>>> {
    let Some(file) = open(state, entry).await? else { return Ok(None) };
    let limit = state.config.progress_limit;
    let (state, digest) = (Arc::clone(state), entry.digest.clone());
    let read = tokio::task::spawn_blocking(move || {
        let identity = Identity::of(&file)?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut &file, &mut bytes)?;
        let good = Digest::of(digest.algorithm(), &bytes) == digest;
        state.proofs.record(&digest, if good { Verdict::Good(identity) } else { Verdict::Wrong(identity) });
        Ok(good.then_some(bytes))
    });
    within(limit, read).await
}

async fn blob(
    state: &Arc<State>,
    request: &Request<Incoming>,
    repository: &Repository,
    digest: &Digest,
) -> Result<Reply, Refusal> {
    let unknown = || Refusal::not_found("BLOB_UNKNOWN", "not in this cache");
    let view = state.view();
    let lost = |digest: &Digest| state.proofs.is_lost(digest);
    let entry = view.table.blob(repository, digest, lost).cloned().ok_or_else(unknown)?;
    let file = open(state, &entry).await.map_err(|e| failed(&e))?.ok_or_else(unknown)?;
    let mut reply = if reply::has_already(request.headers(), digest) {
        reply::not_modified()
    } else {
        let limits = (state.config.prove_first, state.config.progress_limit);
        reply::blob(request.method(), request.headers(), &entry, file, &state.proofs, limits)
            .await
            .map_err(|e| failed(&e))?
            .ok_or_else(unknown)?
    };
    reply::describe(&mut reply, &entry, repository, true);
    Ok(reply)
}

fn tags(state: &State, repository: &Repository, page: &Page) -> Result<Reply, Refusal> {
    let view = state.view();
    let (tags, more) = view
        .table
        .tags(repository, page)
        .ok_or_else(|| Refusal::not_found("NAME_UNKNOWN", "not in this cache"))?;
    let body = json!({"name": repository.path, "tags": tags}).to_string();
    let mut reply = reply::text(StatusCode::OK, "application/json", body);
    if let (true, Some(last), Some(n)) = (more, tags.last(), page.n) {
        let host = repository.host.as_ref().map(ToString::to_string).unwrap_or_default();
        let link = format!("</v2/{}/tags/list?ns={host}&n={n}&last={last}>; rel=\"next\"", repository.path);
        if let Ok(link) = link.parse() {
            reply.headers_mut().insert(http::header::LINK, link);
        }
    }
    Ok(reply)
}

fn referrers(
    state: &State,
    repository: &Repository,
    subject: &Digest,
    artifact_type: Option<&str>,
) -> Result<Reply, Refusal> {
    let view = state.view();
    let listed = view
        .table
        .referrers(repository, subject, |digest| state.proofs.is_lost(digest))
        .ok_or_else(|| Refusal::not_found("MANIFEST_UNKNOWN", "what refers to this is not in this cache"))?;
    Ok(reply::referrers(listed, artifact_type))
}

async fn open(state: &Arc<State>, entry: &Entry) -> io::Result<Option<File>> {
    let Some(store) = state.view().store.clone() else { return Ok(None) };
    let (digest, size) = (entry.digest.clone(), entry.size);
    let looking = tokio::task::spawn_blocking(move || store.find(&digest, size).map_err(io::Error::other));
    let found = within(state.config.progress_limit, looking).await?;
    if found.is_none() {
        state.proofs.record(&entry.digest, Verdict::Missing);
    }
    Ok(found)
}

async fn within<T>(limit: Duration, work: JoinHandle<io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done.map_err(io::Error::other)?,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the volume does not answer")),
    }
}

/// The client goes on elsewhere.
fn failed(error: &io::Error) -> Refusal {
    tracing::error!(%error, "the store cannot be read");
    let message = "the store cannot be read".to_owned();
    Refusal { status: StatusCode::SERVICE_UNAVAILABLE, code: "UNKNOWN", message }
}
