//! Who leads: two electors and one Lease, on tokio's paused clock.

use std::{sync::Arc, time::Duration};

use imagecache::{
    cluster::fence::Fence,
    controller::{health::Health, leader::Elector},
};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::server::Server;

struct Replica {
    fence: Fence,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Elector>,
}

fn replica(client: &kube::Client, name: &str) -> Replica {
    let (fence, stop) = (Fence::default(), CancellationToken::new());
    let mut elector = Elector::new(client.clone(), "system", Arc::from(name), fence.clone());
    let told = stop.clone();
    let task = tokio::spawn(async move {
        elector.run(&Health::default(), &told).await;
        elector
    });
    Replica { fence, stop, task }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_leaves_is_followed_within_seconds() {
    let (_server, client) = Server::start();
    let first = replica(&client, "first");
    first.fence.opened().await;
    let second = replica(&client, "second");
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(first.fence.is_open() && !second.fence.is_open());

    first.stop.cancel();
    let mut elector = first.task.await.unwrap();
    assert!(first.fence.is_open(), "it may write until it gives the lease back");
    elector.resign().await;
    assert!(!first.fence.is_open());
    timeout(Duration::from_secs(3), second.fence.opened()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_dies_is_followed_but_never_overlapped() {
    let (_server, client) = Server::start();
    let first = replica(&client, "first");
    first.fence.opened().await;
    let second = replica(&client, "second");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let died = Instant::now();
    first.task.abort();
    first.fence.closed().await;
    assert!(!second.fence.is_open(), "the first one's right to act ends before the second one's begins");
    timeout(Duration::from_secs(15), second.fence.opened()).await.unwrap();
    assert!(died.elapsed() <= Duration::from_secs(15));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_by_itself_and_goes_on_when_it_can() {
    let (server, client) = Server::start();
    let only = replica(&client, "only");
    only.fence.opened().await;
    server.with(|state| state.hang = Some("PUT".to_owned()));
    timeout(Duration::from_secs(10), only.fence.closed()).await.unwrap();
    server.with(|state| state.hang = None);
    timeout(Duration::from_secs(10), only.fence.opened()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_else_took_is_not_taken_back() {
    let (server, client) = Server::start();
    let only = replica(&client, "only");
    only.fence.opened().await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/system/leases/imagecache-controller";
    let mut lease = server.get(path).unwrap();
    lease["spec"]["holderIdentity"] = "somebody".into();
    server.put(path, lease);
    timeout(Duration::from_secs(5), only.fence.closed()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(!only.fence.is_open());
    assert_eq!(server.get(path).unwrap()["spec"]["holderIdentity"], "somebody");
}
