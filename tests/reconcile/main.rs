//! Real passes of the controller against a scripted API server. The stores are filled by hand, so that a test
//! decides what the watches have shown.

#![allow(clippy::unwrap_used)]

mod acr;
#[path = "../support/acr/mod.rs"]
mod cloud;
mod expiry;
mod gc;
mod leader;
mod place;
mod quota;
mod secrets;
mod server;
mod starts;
mod startup;

use std::{sync::Arc, time::Duration};

use imagecache::{
    cluster::{Cluster, Error, Guarded, Stores, Why, fence::Fence, pace::Pacer},
    controller::reconcile::{Context, reconcile},
    model::{
        names,
        report::{Bytes, Pace, Progress, progress_line},
        settings::Settings,
    },
    ops::metrics::{Census, Metrics},
    render::{Worker, default_resources},
};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::runtime::{reflector::store::Writer, watcher::Event};
use serde_json::{Value, json};
use server::Server;
use tokio::time::Instant;

const CACHES: &str = "/apis/eci.alibabacloud.com/v1/imagecaches";
const JOBS: &str = "/apis/batch/v1/namespaces/system/jobs";
const SECRETS: &str = "/api/v1/namespaces/system/secrets";
const UID: &str = "8f14e45f-ceea-467f-a0e6-1c2b3d4e5f60";

struct World {
    server: Server,
    context: Arc<Context>,
    caches: Writer<Guarded>,
    jobs: Writer<Job>,
    pods: Writer<Pod>,
}

impl World {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let (server, client) = Server::start();
        let (mut caches, mut jobs, mut pods) =
            (Writer::<Guarded>::default(), Writer::<Job>::default(), Writer::<Pod>::default());
        let mut nodes = Writer::default();
        caches.apply_watcher_event(&Event::InitDone);
        jobs.apply_watcher_event(&Event::InitDone);
        pods.apply_watcher_event(&Event::InitDone);
        let node = json!({"metadata": {"name": "n", "labels": {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}}});
        nodes.apply_watcher_event(&Event::Apply(serde_json::from_value(node).unwrap()));
        let fence = Fence::default();
        fence.open_until(Instant::now() + Duration::from_hours(1));
        let worker = Worker {
            namespace: "system".into(),
            image: "imagecache:1".into(),
            pull_policy: None,
            pull_secrets: vec![],
            store_claim: "store".into(),
            one_node: false,
            resources: default_resources(),
            auth_realms: vec![],
        };
        let cluster = Cluster {
            client,
            stores: Stores {
                caches: caches.as_reader(),
                jobs: jobs.as_reader(),
                pods: pods.as_reader(),
                nodes: nodes.as_reader(),
            },
            worker: Arc::new(worker),
            fence,
            slots: Arc::default(),
            logs: Arc::default(),
            secret_reads: Arc::default(),
            logins: Arc::default(),
            mirror: Arc::default(),
            server_clock: Arc::default(),
            deletions: Arc::new(Pacer::per_second(5)),
            gc: Arc::default(),
            profiles: Arc::default(),
            snapshots: None,
            identity: "test".into(),
        };
        let context = Arc::new(Context::new(cluster, settings, Arc::<Metrics>::default()));
        Self { server, context, caches, jobs, pods }
    }

    /// An object as a user made it.
    fn apply(&mut self, name: &str, uid: &str, spec: &Value) {
        let object = json!({"apiVersion": "eci.alibabacloud.com/v1", "kind": "ImageCache",
            "metadata": {"name": name, "uid": uid, "generation": 1}, "spec": spec,
            "status": {"observedGeneration": -1}});
        self.server.put(&format!("{CACHES}/{name}"), object);
        self.see_cache(name);
    }

    /// The watches show what is in the server now.
    fn see_cache(&mut self, name: &str) {
        let object = self.server.get(&format!("{CACHES}/{name}")).unwrap();
        self.caches.apply_watcher_event(&Event::Apply(serde_json::from_value(object).unwrap()));
    }

    fn see_job(&mut self, name: &str) {
        let object = self.server.get(&format!("{JOBS}/{name}")).unwrap();
        self.jobs.apply_watcher_event(&Event::Apply(serde_json::from_value(object).unwrap()));
    }

    async fn pass(&self, name: &str) -> Result<(), Error> {
        let caches = self.context.cluster.stores.caches.state();
        let cache = caches.into_iter().find(|cache| kube::ResourceExt::name_any(&**cache) == name).unwrap();
        reconcile(cache, Arc::clone(&self.context)).await.map(drop)
    }

    fn status(&self, name: &str) -> Value {
        self.server.get(&format!("{CACHES}/{name}")).unwrap()["status"].clone()
    }

    /// A cache whose pull Job is made and seen.
    async fn pulling(spec: &Value) -> (Self, String) {
        let mut world = Self::new();
        world.apply("shop", UID, spec);
        world.pass("shop").await.unwrap();
        world.see_cache("shop");
        world.pass("shop").await.unwrap();
        let job = job(1);
        world.see_job(&job);
        world.server.requests();
        (world, job)
    }
}

fn spec() -> Value {
    json!({"images": ["reg.example.com/team/app:1"]})
}

fn job(run: u64) -> String {
    names::job(&UID.parse().unwrap(), run)
}

fn pull_secret(name: &str, auths: &Value) -> Value {
    let text = serde_json::to_vec(&json!({ "auths": auths })).unwrap();
    json!({"metadata": {"name": name}, "type": "kubernetes.io/dockerconfigjson",
           "data": {".dockerconfigjson": k8s_openapi::ByteString(text)}})
}

/// Writes of children, in order.
fn writes(requests: &[String]) -> Vec<&str> {
    let reads = |line: &&str| line.starts_with("GET") || line.contains("events/");
    requests.iter().map(String::as_str).filter(|line| !reads(line)).collect()
}

#[tokio::test]
async fn the_run_is_written_down_before_its_secrets_and_then_its_job_are_made() {
    let mut world = World::new();
    world.apply("shop", UID, &spec());
    world.pass("shop").await.unwrap();
    assert_eq!(writes(&world.server.requests()), ["PATCH shop/status"]);
    assert_eq!(world.status("shop")["ledger"]["run"], 1);

    world.see_cache("shop");
    world.pass("shop").await.unwrap();
    let name = job(1);
    assert_eq!(
        writes(&world.server.requests()),
        [
            format!("POST secrets/{name}-request"),
            format!("POST secrets/{name}-credentials"),
            format!("POST jobs/{name}")
        ]
    );
    let made = world.server.get(&format!("{JOBS}/{name}")).unwrap();
    assert_eq!(made["metadata"]["ownerReferences"][0]["uid"], UID);
}

#[tokio::test]
async fn a_settled_cache_causes_no_request() {
    let (mut world, name) = World::pulling(&spec()).await;
    for _ in 0..3 {
        world.pass("shop").await.unwrap();
        world.see_cache("shop");
    }
    // The pod is not there yet: events of the Job may say why.
    let requests = world.server.requests();
    assert_eq!(writes(&requests), Vec::<&str>::new(), "{name}");
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let mut object = world.server.get(&format!("{CACHES}/shop")).unwrap();
    let ledger = &mut object["status"]["ledger"];
    ledger["open"] = json!(false);
    ledger["root"] = json!({"run": 1, "digest": digest, "at": "2026-01-01T00:00:00Z"});
    ledger["storeId"] = json!("s");
    world.server.put(&format!("{CACHES}/shop"), object);
    world.see_cache("shop");
    for _ in 0..3 {
        let gone = world.server.with(|state| state.objects.remove(&format!("{JOBS}/{name}")));
        if let Some(gone) = gone {
            world.jobs.apply_watcher_event(&Event::Delete(serde_json::from_value(gone).unwrap()));
        }
        world.pass("shop").await.unwrap();
        world.see_cache("shop");
    }
    world.server.requests();
    world.pass("shop").await.unwrap();
    assert_eq!(world.server.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_done_on_an_object_that_changed_meanwhile() {
    let mut world = World::new();
    world.apply("shop", UID, &spec());
    let object = world.server.get(&format!("{CACHES}/shop")).unwrap();
    world.server.put(&format!("{CACHES}/shop"), object);
    let error = world.pass("shop").await.unwrap_err();
    assert_eq!(error.why, Why::Conflict);
    assert_eq!(world.server.requests(), ["PATCH shop/status"]);
}

#[tokio::test]
async fn already_exists_is_success_for_our_own_and_an_error_for_anybody_elses() {
    for ours in [true, false] {
        let mut world = World::new();
        world.apply("shop", UID, &spec());
        world.pass("shop").await.unwrap();
        world.see_cache("shop");
        let owner = json!([{"apiVersion": "eci.alibabacloud.com/v1", "kind": "ImageCache", "name": "shop",
            "uid": if ours { UID } else { "somebody-else" }, "controller": true}]);
        let name = format!("{}-request", job(1));
        let meta = json!({"name": name, "ownerReferences": owner});
        world.server.put(&format!("{SECRETS}/{name}"), json!({"metadata": meta, "data": {"old": "eA=="}}));
        let result = world.pass("shop").await;
        let there = world.server.get(&format!("{SECRETS}/{name}")).unwrap();
        if ours {
            result.unwrap();
            assert!(there["data"]["request.json"].is_string(), "what a broken start left is replaced");
            assert!(world.server.get(&format!("{JOBS}/{}", job(1))).is_some());
        } else {
            assert_eq!(result.unwrap_err().why, Why::Foreign);
            assert_eq!(there["data"]["old"], "eA==");
            assert!(world.server.get(&format!("{JOBS}/{}", job(1))).is_none());
        }
    }
}

#[tokio::test]
async fn an_older_runs_job_goes_after_its_secrets_and_by_exactly_what_was_seen() {
    let (mut world, name) = World::pulling(&spec()).await;
    let mut late = world.server.get(&format!("{JOBS}/{name}")).unwrap();
    let old = job(7);
    late["metadata"]["name"] = json!(old);
    late["metadata"]["uid"] = json!("late");
    late["metadata"]["labels"]["imagecaches.eci.alibabacloud.com/run"] = json!("7");
    world.server.put(&format!("{JOBS}/{old}"), late);
    world.see_job(&old);
    let mut object = world.server.get(&format!("{CACHES}/shop")).unwrap();
    object["status"]["ledger"]["run"] = json!(9);
    world.server.put(&format!("{CACHES}/shop"), object);
    for secret in ["request", "credentials"] {
        let labels = json!({"imagecaches.eci.alibabacloud.com/cache-uid": UID});
        let secret = format!("{old}-{secret}");
        world
            .server
            .put(&format!("{SECRETS}/{secret}"), json!({"metadata": {"name": secret, "labels": labels}}));
    }
    world.see_cache("shop");
    world.pass("shop").await.unwrap();
    let sent = world.server.with(|state| std::mem::take(&mut state.log));
    let deletes: Vec<&(String, Value)> = sent.iter().filter(|(line, _)| line.contains(&old)).collect();
    let order: Vec<&str> =
        deletes.iter().map(|(line, _)| line.as_str()).filter(|line| line.starts_with("DELETE")).collect();
    assert_eq!(
        order,
        [
            format!("DELETE secrets/{old}-request"),
            format!("DELETE secrets/{old}-credentials"),
            format!("DELETE jobs/{old}")
        ]
    );
    let (_, body) = deletes.last().unwrap();
    assert_eq!(body["preconditions"]["uid"], "late");
    assert!(body["preconditions"]["resourceVersion"].is_string());
}

#[tokio::test]
async fn who_is_not_the_leader_writes_nothing() {
    let mut world = World::new();
    world.apply("shop", UID, &spec());
    world.context.cluster.fence.close();
    assert_eq!(world.pass("shop").await.unwrap_err().why, Why::NotLeader);
    assert_eq!(world.server.requests(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_holds_nobody_for_ever() {
    let mut world = World::new();
    world.server.with(|state| state.hang = Some("PATCH".to_owned()));
    world.apply("shop", UID, &spec());
    assert_eq!(world.pass("shop").await.unwrap_err().why, Why::Timeout);
}

#[tokio::test]
async fn a_renewal_that_fails_is_tried_again() {
    let mut world = World::new();
    let auths = |auth: &str| json!({"reg.example.com": {"auth": auth}});
    world.server.put("/api/v1/namespaces/team/secrets/a", pull_secret("a", &auths("dTpw")));
    let spec = json!({"images": ["reg.example.com/team/app:1"], "imagePullSecrets": ["team:a"]});
    world.apply("shop", UID, &spec);
    for _ in 0..2 {
        world.pass("shop").await.unwrap();
        world.see_cache("shop");
    }
    world.see_job(&job(1));
    world.server.put("/api/v1/namespaces/team/secrets/a", pull_secret("a", &auths("dTpuZXc=")));
    let refusal = ("PUT secrets".to_owned(), http::StatusCode::INTERNAL_SERVER_ERROR);
    world.server.with(|state| state.refuse = Some(refusal));
    for _ in 0..2 {
        world.context.cluster.secret_reads.forget(&UID.parse().unwrap());
        world.pass("shop").await.unwrap_err();
        world.see_cache("shop");
    }
    world.server.with(|state| state.refuse = None);
    world.context.cluster.secret_reads.forget(&UID.parse().unwrap());
    world.pass("shop").await.unwrap();
    let secret = world.server.get(&format!("{SECRETS}/{}-credentials", job(1))).unwrap();
    let file: k8s_openapi::ByteString = serde_json::from_value(secret["data"]["00.json"].clone()).unwrap();
    assert!(String::from_utf8(file.0).unwrap().contains("dTpuZXc="));
}

#[tokio::test]
async fn a_report_of_a_finished_worker_makes_the_cache_ready_and_is_counted_once() {
    let (mut world, name) = World::pulling(&spec()).await;
    let made = world.server.get(&format!("{JOBS}/{name}")).unwrap();
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let message = json!({"v": 1, "run": 1, "store": "s", "root": digest, "size": 9, "class": null, "sum": digest,
        "images": [[digest, 9, 9, 0, false, null]]});
    let pod = json!({"metadata": {"name": "p", "namespace": "system", "uid": "pod-1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": name, "controller": true,
                "uid": made["metadata"]["uid"]}]},
        "status": {"containerStatuses": [{"name": "worker", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"terminated": {"exitCode": 0, "finishedAt": "2026-01-01T00:01:00Z",
                "message": message.to_string()}}}]}});
    world.pods.apply_watcher_event(&Event::Apply(serde_json::from_value(pod).unwrap()));
    world.pass("shop").await.unwrap();
    assert_eq!(world.status("shop")["phase"], "Ready");
    assert!(world.server.get(&format!("{JOBS}/{name}")).is_none(), "the Job is removed when it was credited");
    world.see_cache("shop");
    world.pass("shop").await.unwrap();
    let text = world.context.metrics.encode(&Census::default());
    assert!(text.contains("imagecache_pulled_bytes_total 9\n"), "{text}");
}

#[tokio::test]
async fn a_new_leader_tells_how_far_a_long_pull_is_and_does_not_end_it() {
    let (mut world, name) = World::pulling(&spec()).await;
    let made = world.server.get(&format!("{JOBS}/{name}")).unwrap();
    let pod = json!({"metadata": {"name": "p", "namespace": "system", "uid": "pod-1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": name, "controller": true,
                "uid": made["metadata"]["uid"]}]},
        "status": {"containerStatuses": [{"name": "worker", "image": "", "imageID": "", "ready": true,
            "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:01:00Z"}}}]}});
    let progress = Progress { all: Bytes { done: 30, total: 100, reused: 0 }, images: vec![] };
    let line = progress_line(&progress, &Pace::default());
    world
        .server
        .with(|state| state.objects.insert("/api/v1/namespaces/system/pods/p/log".into(), json!(line)));
    world.pods.apply_watcher_event(&Event::Apply(serde_json::from_value(pod).unwrap()));
    world.pass("shop").await.unwrap();
    let status = world.status("shop");
    assert_eq!((status["phase"].as_str(), status["progress"].as_str()), (Some("Creating"), Some("30%")));
    assert!(world.server.get(&format!("{JOBS}/{name}")).is_some(), "it started long ago and moves");
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_said_once_and_harms_nobody() {
    let mut world = World::new();
    let broken = json!({"apiVersion": "eci.alibabacloud.com/v1", "kind": "ImageCache",
        "metadata": {"name": "odd", "uid": "odd"}, "spec": {"images": 7}});
    world.server.put(&format!("{CACHES}/odd"), broken);
    world.see_cache("odd");
    world.apply("shop", UID, &spec());
    for _ in 0..2 {
        world.pass("odd").await.unwrap();
    }
    world.pass("shop").await.unwrap();
    let requests = world.server.requests();
    assert_eq!(requests.iter().filter(|line| line.starts_with("POST events/")).count(), 2, "{requests:?}");
    assert_eq!(world.status("shop")["ledger"]["run"], 1);
}
