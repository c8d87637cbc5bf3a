//! Probes and metrics: `/livez`, `/readyz` and `/metrics`. What they say is the caller's.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
    routing::get,
};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::server::{self, Limits};

/// Kubelets ask, and a few that collect metrics: a client beyond these, or one that does not say what it wants, must
/// not cost the process its memory or the kubelet its answer.
const LIMITS: Limits =
    Limits { connections: 64, progress: Duration::from_secs(30), drain: Duration::from_secs(2) };

/// What a role says of itself. An error is the reason, for people who call by hand.
pub trait Probes: Send + Sync + 'static {
    /// Whether a restart would help: not.
    fn live(&self) -> Result<(), String>;
    fn ready(&self) -> Result<(), String>;
    /// In the text format of `OpenMetrics`.
    fn metrics(&self) -> String;
}

/// Serves until told to stop. Answers hold no secret and change nothing, so there is no authentication.
pub async fn serve(listener: TcpListener, probes: Arc<dyn Probes>, stop: CancellationToken) {
    serve_within(LIMITS, listener, probes, stop).await;
}

async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    probes: Arc<dyn Probes>,
    stop: CancellationToken,
) {
    let routes = Router::new()
        .route("/livez", get(|State(probes): State<Arc<dyn Probes>>| async move { verdict(probes.live()) }))
        .route("/readyz", get(|State(probes): State<Arc<dyn Probes>>| async move { verdict(probes.ready()) }))
        .route("/metrics", get(metrics))
        .with_state(probes);
    server::serve(listener, TowerToHyperService::new(routes), limits, stop).await;
}

fn verdict(state: Result<(), String>) -> Response {
    match state {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics(State(probes): State<Arc<dyn Probes>>) -> Response {
    const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, FORMAT)], probes.metrics()).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    struct Sick;

    impl Probes for Sick {
        fn live(&self) -> Result<(), String> {
            Ok(())
        }

        fn ready(&self) -> Result<(), String> {
            Err("the watch of Jobs has not listed yet".into())
        }

        fn metrics(&self) -> String {
            "# EOF\n".into()
        }
    }

    #[tokio::test]
    async fn probes_answer_with_their_reason_and_stop_when_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, Arc::new(Sick), stop.clone()));
        for (path, status, text) in [
            ("/livez", "200", "ok"),
            ("/readyz", "503", "has not listed"),
            ("/metrics", "200", "# EOF"),
            ("/x", "404", ""),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(text), "{answer}");
        }
        stop.cancel();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_is_cut_and_one_too_many_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits =
            Limits { connections: 1, progress: Duration::from_millis(500), drain: Duration::from_secs(2) };
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve_within(limits, listener, Arc::new(Sick), stop.clone()));
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /livez HTTP/1.1\r\nHost").await.unwrap();
        // Taken in the order of the connections, so the slow one has the only place.
        let mut other = TcpStream::connect(address).await.unwrap();
        let mut answer = String::new();
        other.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        let mut rest = Vec::new();
        let cut = tokio::time::timeout(Duration::from_secs(20), slow.read_to_end(&mut rest)).await;
        assert!(cut.is_ok(), "the place is free again");
        stop.cancel();
        server.await.unwrap();
    }
}
