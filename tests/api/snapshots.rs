//! Snapshots against a real API server with the real definitions, where the kubelet, the provisioner and the snapshotter
//! are played: definitions that come late, objects that the schema accepts, rights that are enough and not more, and a
//! settled cache that asks for nothing. An API server of its own.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use imagecache::model::{
    digest::Digest,
    report::{ImageOutcome, Outcome, ReusedBy},
};
use serde_json::{Value, json};

use crate::{
    kit::{
        cluster::{Cluster, command, eventually, root},
        guard::Guard,
        kstatus::Status,
    },
    world::image_cache,
};

const SYSTEM: &str = "imagecache-system";
const DRIVER: &str = "csi.example.com";

struct World {
    cluster: Cluster,
    _controller: Guard,
}

/// One test at a time: the definitions are for all.
fn world() -> MutexGuard<'static, World> {
    static WORLD: LazyLock<Mutex<World>> = LazyLock::new(|| Mutex::new(start()));
    WORLD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start() -> World {
    let cluster = Cluster::start("api", "IMAGECACHE_TEST_API_SNAPSHOTS");
    let overlay = cluster.dir.join("overlay");
    fs::create_dir_all(&overlay).unwrap();
    let config = root().join("config");
    let relative = pathdiff(&overlay, &config);
    let kustomization = json!({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": [relative], "components": [format!("{relative}/snapshots")]});
    fs::write(overlay.join("kustomization.yaml"), kustomization.to_string()).unwrap();
    cluster.run(&["apply", "-k", overlay.to_str().unwrap()]);
    cluster.run(&["delete", "imagecaches", "--all"]);
    let controller = controller(&cluster.dir);
    World { cluster, _controller: controller }
}

/// Kustomize takes relative folders only.
fn pathdiff(from: &Path, to: &Path) -> String {
    let up = from.components().count() - 1;
    format!("{}{}", "../".repeat(up), to.strip_prefix("/").unwrap().display())
}

/// With the rights that are shipped, and no others.
fn controller(dir: &Path) -> Guard {
    let text = fs::read_to_string(dir.join("kubeconfig")).unwrap();
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    config["users"][0]["user"]["as"] = json!(format!("system:serviceaccount:{SYSTEM}:imagecache-controller"));
    fs::write(dir.join("as-controller"), config.to_string()).unwrap();
    let log = File::create(dir.join("controller.log")).unwrap();
    let namespace = format!("--namespace={SYSTEM}");
    let arguments = [
        "controller",
        "--listen=127.0.0.1:0",
        "--worker-image=imagecache:test",
        &namespace,
        "--snapshot-class=",
        "--snapshot-class=snaps",
        "--snapshot-storage-class=disks",
    ];
    let errors = log.try_clone().unwrap();
    Guard::process_with(
        Path::new(env!("CARGO_BIN_EXE_imagecache")),
        &arguments,
        Stdio::from(log),
        |command| {
            command.env("KUBECONFIG", dir.join("as-controller")).stderr(errors);
        },
    )
}

/// The definitions as external-snapshotter ships them.
fn definitions() -> Vec<String> {
    let module = "github.com/kubernetes-csi/external-snapshotter/client/v8";
    let download = ["mod", "download", "-json", module];
    let folder = root().join("tests/cluster/csi/snapshotter");
    let said = command(Command::new("go").args(download).current_dir(folder)).succeeded("go mod download");
    let said: Value = serde_json::from_str(&said).unwrap();
    let folder = Path::new(said["Dir"].as_str().unwrap()).join("config/crd");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let wanted = |path: &std::path::PathBuf| {
        path.file_name().unwrap().to_str().unwrap().starts_with("snapshot.storage.k8s.io_")
    };
    files.filter(wanted).map(|path| path.to_str().unwrap().to_owned()).collect()
}

impl World {
    fn status(&self, name: &str, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
        eventually(what, || {
            let status = Status::of(&self.cluster.get(&["imagecache", name])?).unwrap();
            (status.is_current() && holds(&status)).then_some(status)
        })
    }

    fn child(&self, kind: &str, uid: &str, more: &str) -> Option<Value> {
        let label = format!("imagecaches.eci.alibabacloud.com/cache-uid={uid}{more}");
        self.cluster.list(&[kind, "-n", SYSTEM, "-l", &label]).into_iter().next()
    }

    /// Plays the kubelet: the worker of this Job ended well, and its log is lost.
    fn pod_ends(&self, uid: &str, more: &str, outcome: &Outcome) {
        let pod = eventually("the pod", || self.child("pods", uid, more));
        let name = pod["metadata"]["name"].as_str().unwrap();
        let ended = json!({"exitCode": 0, "reason": "Completed", "message": outcome.encode().1,
            "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z"});
        let status = json!({"status": {"phase": "Succeeded", "containerStatuses": [{"name": "worker", "image": "x",
            "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": ended}}]}});
        let patch = ["patch", "pod", name, "-n", SYSTEM, "--subresource=status", "--type=merge", "-p"];
        self.cluster.run(&[&patch[..], &[status.to_string().as_str()]].concat());
    }

    fn pulls(&self, name: &str) -> String {
        let object = image_cache(name, &json!({"images": ["registry.invalid/app:1"]}));
        self.cluster.send(&object, &["apply"]).succeeded("an image cache");
        let uid = self.status(name, "a UID", |_| true).uid().to_owned();
        self.pod_ends(&uid, ",!imagecaches.eci.alibabacloud.com/role", &outcome(1, true));
        uid
    }

    fn set_status(&self, kind: &str, name: &str, status: &Value) {
        let patch = json!({"status": status}).to_string();
        let namespace = ["-n", SYSTEM];
        let what = ["patch", kind, name, "--subresource=status", "--type=merge", "-p", &patch];
        self.cluster.run(&[&what[..], &namespace[..]].concat());
    }

    /// Plays the snapshotter: a content that points back at the snapshot.
    fn content(&self, snapshot: &Value, policy: &str, uid: &Value) -> String {
        let name = format!("snapcontent-{}", snapshot["metadata"]["name"].as_str().unwrap());
        let content = json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
            "metadata": {"name": name},
            "spec": {"driver": DRIVER, "deletionPolicy": policy, "source": {"volumeHandle": "v"},
                "volumeSnapshotRef": {"name": snapshot["metadata"]["name"], "namespace": SYSTEM, "uid": uid}}});
        self.cluster.send(&content, &["apply"]).succeeded("a content");
        name
    }
}

fn outcome(run: u64, pull: bool) -> Outcome {
    let digest = Digest::sha256(b"content");
    let image = ImageOutcome {
        reference: "registry.invalid/app:1".parse().unwrap(),
        digest: Some(digest.clone()),
        size: 10,
        pulled: 10,
        reused: 0,
        reused_by: ReusedBy::default(),
        resolved: None,
        public: true,
        failure: None,
    };
    Outcome {
        resolved: None,
        proved: None,
        run,
        store: "0123456789abcdef0123456789abcdef".into(),
        root: Some(digest),
        size: 10,
        images: if pull { vec![image] } else { vec![] },
        failure: None,
        higher_run: None,
        notices: vec![],
    }
}

const EXPORT: &str = ",imagecaches.eci.alibabacloud.com/role=export";

#[test]
fn from_a_cluster_without_definitions_to_a_snapshot_that_is_bound_both_ways() {
    let world = world();
    let cluster = &world.cluster;
    let said = |reason: &'static str| {
        move |status: &Status| {
            status.condition("Snapshot").is_some_and(|snapshot| snapshot["reason"] == reason)
        }
    };
    let uid = world.pulls("late-definitions");
    let absent = said("NoSnapshotApi");
    let ready = |status: &Status| absent(status) && status.phase() == "Ready";
    let status = world.status("late-definitions", "readiness without definitions", ready);
    assert_eq!(status.text("/progress"), "100%");

    for file in definitions() {
        cluster.run(&["apply", "--server-side", "-f", &file]);
    }
    let status = world.status("late-definitions", "the definitions", said("NoStorageClass"));
    assert_eq!(status.phase(), "Ready", "what was ready stays so");
    let storage = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "disks"},
        "provisioner": DRIVER, "volumeBindingMode": "WaitForFirstConsumer"});
    cluster.send(&storage, &["apply"]).succeeded("a storage class");
    world.status("late-definitions", "no snapshot class", said("NoSnapshotClass"));
    let class = |driver: &str| {
        json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
            "metadata": {"name": "snaps"}, "driver": driver, "deletionPolicy": "Retain"})
    };
    eventually("the class's definition", || cluster.send(&class("other"), &["apply"]).ok.then_some(()));
    world.status("late-definitions", "another driver", said("WrongDriver"));
    cluster.run(&["delete", "volumesnapshotclass", "snaps"]);
    cluster.send(&class(DRIVER), &["apply"]).succeeded("a class");

    let claim = eventually("the claim", || world.child("persistentvolumeclaims", &uid, ""));
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"].as_str(), Some("23Gi"));
    assert_eq!(
        (&claim["spec"]["storageClassName"], &claim["spec"]["accessModes"]),
        (&json!("disks"), &json!(["ReadWriteOnce"]))
    );
    world.pod_ends(&uid, EXPORT, &outcome(1, false));
    let snapshot = eventually("the snapshot", || world.child("volumesnapshots", &uid, ""));
    let name = snapshot["metadata"]["name"].as_str().unwrap();
    assert_eq!(snapshot["spec"]["source"]["persistentVolumeClaimName"], claim["metadata"]["name"]);
    assert_eq!(snapshot["spec"]["volumeSnapshotClassName"], "snaps");
    eventually("the end of the export", || world.child("jobs", &uid, "").is_none().then_some(()));

    // An error that clears, then a binding that is not mutual, then one that is.
    world.set_status(
        "volumesnapshot",
        name,
        &json!({"readyToUse": false, "error": {"message": "the array is busy"}}),
    );
    let status = world.status("late-definitions", "the driver's error", |status| {
        status
            .condition("Snapshot")
            .is_some_and(|s| s["message"].as_str().unwrap().contains("the array is busy"))
    });
    assert_eq!(status.phase(), "Ready");
    let content = world.content(&snapshot, "Retain", &json!("somebody-else"));
    let bound = json!({"readyToUse": true, "restoreSize": "23Gi", "error": null, "boundVolumeSnapshotContentName": content});
    world.set_status("volumesnapshot", name, &bound);
    world.status("late-definitions", "a binding of one side", said("NotBound"));
    assert!(world.child("persistentvolumeclaims", &uid, "").is_some(), "nothing is released");
    cluster.run(&["delete", "volumesnapshotcontent", &content]);
    world.content(&snapshot, "Retain", &snapshot["metadata"]["uid"]);
    let status = world.status("late-definitions", "the snapshot", |status| status.holds("Snapshot"));
    assert_eq!(
        (status.text("/snapshot/deletionPolicy"), status.number("/snapshot/size")),
        ("Retain", 23 << 30)
    );
    eventually("the release of the claim", || {
        // Its finalizer is the kubelet's business, which is not here.
        let claim = world.child("persistentvolumeclaims", &uid, "");
        claim.is_none_or(|claim| claim["metadata"]["deletionTimestamp"].is_string()).then_some(())
    });
    cluster.run(&["delete", "imagecache", "late-definitions"]);
    eventually("the end of the snapshot", || {
        world.child("volumesnapshots", &uid, "").is_none().then_some(())
    });
    assert!(cluster.get(&["volumesnapshotcontent", &content]).is_some(), "it is retained");
}

#[test]
fn the_shipped_rights_are_those_of_snapshots_and_no_more() {
    let world = world();
    for (verb, what, namespace, may) in [
        ("create", "persistentvolumeclaims", SYSTEM, true),
        ("delete", "persistentvolumeclaims", SYSTEM, true),
        ("update", "persistentvolumeclaims", SYSTEM, false),
        ("create", "persistentvolumeclaims", "default", false),
        ("watch", "volumesnapshots.snapshot.storage.k8s.io", SYSTEM, true),
        ("list", "volumesnapshots.snapshot.storage.k8s.io", "default", false),
        ("get", "volumesnapshotcontents.snapshot.storage.k8s.io", SYSTEM, true),
        ("list", "volumesnapshotcontents.snapshot.storage.k8s.io", SYSTEM, false),
        ("delete", "volumesnapshotcontents.snapshot.storage.k8s.io", SYSTEM, false),
        ("list", "storageclasses.storage.k8s.io", SYSTEM, true),
        ("create", "storageclasses.storage.k8s.io", SYSTEM, false),
    ] {
        let (resource, group) = what.split_once('.').unwrap_or((what, ""));
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
            "user": format!("system:serviceaccount:{SYSTEM}:imagecache-controller"),
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "resourceAttributes": {"verb": verb, "resource": resource, "group": group, "namespace": namespace}}});
        let said = world.cluster.send(&review, &["create", "-o", "json"]).succeeded("a review");
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["status"]["allowed"] == true, may, "{verb} {what} in {namespace}");
    }
}
