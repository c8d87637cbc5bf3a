//! A cache is deleted and its bytes go: the gc Job on a real node, with ages that are not waited for. What other caches
//! hold stays, events and metrics say what happened, and the mirror answers 404.

use serde_json::{Value, json};

use crate::{
    kit::cluster::eventually,
    world::{
        SYSTEM, World,
        image::{Blob, Image},
        plain_cache,
        registry::Registry,
        world,
    },
};

/// The controllers collect at once, for as long as this lives.
struct Quick<'a>(&'a World);

impl<'a> Quick<'a> {
    fn start(world: &'a World) -> Self {
        let arguments = ["--gc-unsafe-no-waiting", "--gc-grace=0s", "--gc-interval=0s"];
        let add = |argument| json!({"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": argument});
        let patch = Value::Array(arguments.map(add).to_vec()).to_string();
        world.cluster.run(&[
            "-n",
            SYSTEM,
            "patch",
            "deployment/imagecache-controller",
            "--type=json",
            "-p",
            &patch,
        ]);
        rolled_out(world);
        Self(world)
    }
}

impl Drop for Quick<'_> {
    fn drop(&mut self) {
        self.0.cluster.kubectl(&["-n", SYSTEM, "rollout", "undo", "deployment/imagecache-controller"]);
        rolled_out(self.0);
    }
}

fn rolled_out(world: &World) {
    let answer = world.cluster.kubectl(&[
        "-n",
        SYSTEM,
        "rollout",
        "status",
        "deployment/imagecache-controller",
        "--timeout=180s",
    ]);
    assert!(answer.ok || std::thread::panicking(), "{answer:?}");
}

/// What the mirror says to a blob of this repository.
fn served(world: &World, registry: &Registry, repository: &str, digest: &str) -> Result<(), String> {
    let path = format!(
        "/api/v1/namespaces/{SYSTEM}/services/imagecache-mirror:registry/proxy/v2/{}/{repository}/manifests/{digest}",
        registry.name
    );
    let answer = world.cluster.kubectl(&["get", "--raw", &path]);
    if answer.ok { Ok(()) } else { Err(answer.err) }
}

fn events(world: &World) -> Vec<Value> {
    let all = world.cluster.list(&["events", "-n", SYSTEM]);
    all.into_iter().filter(|event| event["involvedObject"]["name"] == "imagecache-gc").collect()
}

/// The metrics of all controllers: only the leader speaks of the store.
fn metrics(world: &World) -> String {
    let label = "app.kubernetes.io/component=controller";
    let pods = world.cluster.list(&["pods", "-n", SYSTEM, "-l", label]);
    let one = |pod: &Value| {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let path = format!("/api/v1/namespaces/{SYSTEM}/pods/{name}:8080/proxy/metrics");
        world.cluster.kubectl(&["get", "--raw", &path]).out
    };
    pods.iter().map(one).collect()
}

#[test]
fn the_bytes_of_a_deleted_cache_go_and_those_of_others_stay() {
    let world = world();
    let _alone = world.alone();
    let registry = Registry::start("gc.test");
    let base = Blob::named("gc-base", 2 << 20);
    let (gone, kept) = (Blob::named("gc-gone", 3 << 20), Blob::named("gc-kept", 1 << 20));
    let mut images = Vec::new();
    for (repository, own) in [("gc/gone", &gone), ("gc/kept", &kept)] {
        let image = Image::of(vec![base.clone(), own.clone()]);
        world.storage.put(repository, "1", &image);
        images.push(image);
    }
    for (name, repository) in [("gc-gone", "gc/gone"), ("gc-kept", "gc/kept")] {
        let mut cache = plain_cache(name, &[registry.image(repository, "1")]);
        cache["spec"]["serve"] = json!("cluster");
        world.apply(&cache);
        world.wait_ready(name);
    }
    let manifest = |i: usize| images[i].manifest.digest.clone();
    eventually("the mirror", || served(world, &registry, "gc/gone", &manifest(0)).ok());

    let quick = Quick::start(world);
    let before = events(world).len();
    world.cluster.run(&["delete", "imagecache", "gc-gone"]);
    eventually("the end of the bytes", || (!world.is_durable(&gone.digest)).then_some(()));
    for blob in [&base, &kept] {
        assert!(world.is_durable(&blob.digest), "another cache needs it");
    }
    let refusal = eventually("a 404", || served(world, &registry, "gc/gone", &manifest(0)).err());
    assert!(
        refusal.contains("NotFound") || refusal.contains("404") || refusal.contains("could not find"),
        "{refusal}"
    );
    served(world, &registry, "gc/kept", &manifest(1)).unwrap();
    eventually("an empty trash", || {
        let trash = world.store().join("trash");
        let left: Vec<_> = walk(&trash);
        left.is_empty().then_some(())
    });

    let told = eventually("an event of what was freed", || {
        let events = events(world);
        let freed = |event: &&Value| {
            let message = event["message"].as_str().unwrap_or_default();
            event["reason"] == "Collected" && message.contains("MiB freed")
        };
        (events.len() > before).then(|| events.iter().find(freed).cloned()).flatten()
    });
    assert_eq!(told["involvedObject"]["kind"], "Job", "{told}");
    let metrics = eventually("metrics of the store", || {
        let text = metrics(world);
        text.contains("imagecache_cache_bytes{cache=\"gc-kept\",share=\"unique\"}").then_some(text)
    });
    assert!(metrics.contains("imagecache_gc_runs_total{outcome=\"done\"}"), "{metrics}");
    assert!(!metrics.contains("cache=\"gc-gone\""), "{metrics}");
    let record = world.cluster.get(&["configmap", "imagecache-gc", "-n", SYSTEM]).unwrap();
    let record = record["data"]["record.json"].as_str().unwrap();
    assert!(record.contains("\"name\": \"gc-kept\"") && !record.contains("gc-gone"), "{record}");
    // Lists go with their Job.
    let lists = || {
        let maps = world.cluster.list(&["configmaps", "-n", SYSTEM, "-l", "app.kubernetes.io/component=gc"]);
        maps.len()
    };
    eventually("the end of old lists", || (lists() <= 2).then_some(()));
    drop(quick);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files.retain(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("sha")));
    files
}
