//! The gc Job at a real API server: the controller runs as its ServiceAccount, with no rights but the shipped ones.
//! There is no node, so the pod's end is written by hand.

use std::{fs, path::Path, process::Stdio};

use imagecache::model::{
    collected::{Amount, Report},
    live::{LiveList, LivePart},
};
use serde_json::{Value, json};

use crate::{
    kit::{
        cluster::{Cluster, eventually, root},
        guard::Guard,
    },
    world::image_cache,
};

const SYSTEM: &str = "imagecache-system";

/// As the ServiceAccount.
fn controller(dir: &Path) -> Guard {
    let text = fs::read_to_string(dir.join("kubeconfig")).unwrap();
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    for user in config["users"].as_array_mut().unwrap() {
        user["user"]["as"] = json!(format!("system:serviceaccount:{SYSTEM}:imagecache-controller"));
    }
    let file = dir.join("kubeconfig-controller");
    fs::write(&file, config.to_string()).unwrap();
    let log = fs::File::create(dir.join("gc-controller.log")).unwrap();
    let namespace = format!("--namespace={SYSTEM}");
    let arguments = [
        "controller",
        "--listen=127.0.0.1:0",
        "--worker-image=imagecache:test",
        "--gc-unsafe-no-waiting",
        "--gc-interval=0s",
        &namespace,
    ];
    let program = Path::new(env!("CARGO_BIN_EXE_imagecache"));
    Guard::process_with(program, &arguments, Stdio::from(log.try_clone().unwrap()), |command| {
        command.env("KUBECONFIG", file).stderr(log);
    })
}

struct Collecting {
    cluster: Cluster,
    _controller: Guard,
}

impl Collecting {
    fn start() -> Self {
        let cluster = Cluster::start("api", "IMAGECACHE_TEST_API_GC");
        cluster.run(&["apply", "-k", root().join("config").to_str().unwrap()]);
        cluster.run(&["delete", "imagecaches", "--all"]);
        cluster.run(&["delete", "jobs,configmaps", "-n", SYSTEM, "-l", "app.kubernetes.io/component=gc"]);
        let controller = controller(&cluster.dir);
        Self { cluster, _controller: controller }
    }

    /// A Job with another UID than this, and its pod.
    fn job_after(&self, before: &str) -> (Value, Value) {
        eventually("the gc Job and its pod", || {
            let job = self.cluster.get(&["job", "imagecache-gc", "-n", SYSTEM])?;
            let uid = job["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            let label = format!("batch.kubernetes.io/controller-uid={uid}");
            let pod = self.cluster.list(&["pods", "-n", SYSTEM, "-l", &label]).into_iter().next()?;
            (uid != before).then_some((job, pod))
        })
    }

    /// What the pod would have left.
    fn ends(&self, pod: &Value, report: &Report) {
        let (_, message) = report.encode();
        let status = json!({"status": {"phase": "Succeeded", "containerStatuses": [{"name": "worker", "image": "i",
            "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 0, "message": message}}}]}});
        let name = pod["metadata"]["name"].as_str().unwrap();
        let patch = ["-n", SYSTEM, "patch", "pod", name, "--subresource=status", "--type=merge", "-p"];
        self.cluster.run(&[&patch[..], &[&status.to_string()]].concat());
    }

    fn list(&self, job: &Value) -> Option<LiveList> {
        let volumes = job["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
        let lists = volumes.iter().find(|volume| volume["name"] == "live")?;
        let part = |source: &Value| -> LivePart {
            let name = source["configMap"]["name"].as_str().unwrap();
            let map = eventually("a list", || self.cluster.get(&["configmap", name, "-n", SYSTEM]));
            serde_json::from_str(map["data"]["part.json"].as_str().unwrap()).unwrap()
        };
        let sources = lists["projected"]["sources"].as_array().unwrap();
        Some(LiveList::assemble(&sources.iter().map(part).collect::<Vec<_>>()).unwrap())
    }
}

#[test]
fn from_a_deletion_to_the_event_with_the_shipped_rights() {
    let world = Collecting::start();
    let cluster = &world.cluster;
    for name in ["gc-kept", "gc-gone"] {
        let object = image_cache(name, &json!({"images": ["not an image"]}));
        cluster.send(&object, &["apply"]).succeeded("an object");
        eventually("the controller", || {
            cluster.get(&["imagecache", name])?["status"]["phase"].as_str().map(drop)
        });
    }
    let kept =
        cluster.get(&["imagecache", "gc-kept"]).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    cluster.run(&["delete", "imagecache", "gc-gone"]);

    // Nobody knows a store yet: the first one has no list, and says which store there is.
    let (first, pod) = world.job_after("");
    assert_eq!(world.list(&first), None);
    let report = |gc: &str, listed| Report { gc: gc.into(), store: "s1".into(), listed, ..Report::default() };
    world.ends(&pod, &report("aa", false));

    let uid = |job: &Value| job["metadata"]["uid"].as_str().unwrap().to_owned();
    let (second, pod) = world.job_after(&uid(&first));
    let list = world.list(&second).unwrap();
    assert_eq!((list.store.as_str(), list.last_gc.as_deref()), ("s1", Some("aa")));
    let living: Vec<&str> = list.caches.keys().map(imagecache::model::request::CacheKey::as_str).collect();
    assert_eq!(living, [kept.as_str()]);
    world.ends(&pod, &Report { freed: Amount { blobs: 1, bytes: 3 << 20 }, ..report("bb", true) });

    let told = eventually("the event", || {
        let events = cluster.list(&["events", "-n", SYSTEM]);
        events
            .into_iter()
            .find(|event| event["message"].as_str().is_some_and(|text| text.starts_with("3.0 MiB freed")))
    });
    assert_eq!((&told["involvedObject"]["kind"], &told["reason"]), (&json!("Job"), &json!("Collected")));
    let record = cluster.get(&["configmap", "imagecache-gc", "-n", SYSTEM]).unwrap();
    assert!(record["data"]["record.json"].as_str().unwrap().contains("\"gc\": \"bb\""), "{record}");
    // The lists of the first Jobs went with them.
    cluster.run(&["delete", "job", "imagecache-gc", "-n", SYSTEM]);
    eventually("the end of the lists", || {
        let maps = cluster.list(&["configmaps", "-n", SYSTEM, "-l", "app.kubernetes.io/component=gc"]);
        (maps.len() == 1).then_some(())
    });
}
