//! The start of the controller while the API server does not answer.

use std::{net::SocketAddr, time::Duration};

use http::StatusCode;
use imagecache::controller::{Config, Error, run_with};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::server::Server;

const DEFINITION: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/imagecaches.eci.alibabacloud.com";

struct Started {
    server: Server,
    address: SocketAddr,
    stop: CancellationToken,
    run: JoinHandle<Result<(), Error>>,
}

/// A controller whose API server refuses to show the definition.
async fn start() -> Started {
    let (server, client) = Server::start();
    server.with(|state| {
        state.refuse = Some(("GET customresourcedefinitions".to_owned(), StatusCode::SERVICE_UNAVAILABLE));
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = Config { worker_image: Some("imagecache:1".into()), ..Config::new("system", address) };
    let stop = CancellationToken::new();
    let run = tokio::spawn(Box::pin(run_with(config, client, listener, stop.clone())));
    Started { server, address, stop, run }
}

async fn ask(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn until_ready_says(address: SocketAddr, words: &str) {
    let asked = async {
        while !ask(address, "/readyz").await.contains(words) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_mins(1), asked).await.is_ok(), "{words}");
}

#[tokio::test]
async fn an_api_server_that_does_not_answer_is_waited_for_and_ready_says_so() {
    let Started { server, address, stop, run } = start().await;
    until_ready_says(address, "waiting for the API server: get customresourcedefinition").await;
    assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 503"));
    assert!(ask(address, "/livez").await.starts_with("HTTP/1.1 200"), "a restart would not help");
    let labels = json!({"imagecaches.eci.alibabacloud.com/provided-by": "imagecache"});
    let names = json!({"kind": "ImageCache", "plural": "imagecaches"});
    server.put(
        DEFINITION,
        json!({"metadata": {"name": "imagecaches.eci.alibabacloud.com", "labels": labels},
            "spec": {"group": "eci.alibabacloud.com", "names": names, "scope": "Cluster", "versions": []}}),
    );
    server.with(|state| state.refuse = None);
    until_ready_says(address, "the watch of ImageCaches has not listed yet").await;
    stop.cancel();
    run.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_no_waiting_can_change_ends_the_start_with_what_to_do() {
    let Started { server, address, run, .. } = start().await;
    until_ready_says(address, "waiting for the API server").await;
    server.with(|state| state.refuse = None);
    let error = run.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::NoDefinition), "{error}");
}

#[tokio::test]
async fn a_start_that_waits_ends_when_it_is_told_to_stop() {
    let Started { address, stop, run, .. } = start().await;
    until_ready_says(address, "waiting for the API server").await;
    stop.cancel();
    run.await.unwrap().unwrap();
}
