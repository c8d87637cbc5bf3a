//! One node with the operator installed, for all tests of this binary. Tests share it: each has image caches,
//! registries and repositories of its own. Those that end the controller take [`World::alone`].

use std::{
    env,
    path::PathBuf,
    sync::{LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use serde_json::{Value, json};

use crate::kit::{
    cluster::{Cluster, eventually, root},
    kstatus::Status,
};

pub mod feed;
pub mod gate;
pub mod image;
pub mod registry;

use feed::{Caches, Jobs};
use registry::Storage;

pub const SYSTEM: &str = "imagecache-system";
const CONTROLLER: &str = "app.kubernetes.io/component=controller";

pub struct World {
    pub cluster: Cluster,
    /// Where all registries keep their content.
    pub storage: Storage,
    pub jobs: Jobs,
    caches: Caches,
    controller: RwLock<()>,
}

pub fn world() -> &'static World {
    // Lazy: a start that failed is not tried again by each test.
    static WORLD: LazyLock<World> = LazyLock::new(start);
    &WORLD
}

fn start() -> World {
    let cluster = Cluster::start("node", "IMAGECACHE_TEST_NODE");
    let storage = Storage::new(&cluster.dir);
    crate::prepare(&cluster);
    install(&cluster);
    let (caches, jobs) = (Caches::follow(&cluster), Jobs::follow(&cluster));
    World { cluster, storage, jobs, caches, controller: RwLock::new(()) }
}

fn install(cluster: &Cluster) {
    let built = root().join("target/image/imagecache.tar");
    let archive = env::var_os("IMAGECACHE_IMAGE_TAR").map_or(built, PathBuf::from);
    assert!(archive.exists(), "{} is missing: run `make image`", archive.display());
    cluster.cluster("load", &[archive.to_str().unwrap()]).succeeded("load of the operator's image");
    let overlay = root().join(crate::INSTALL);
    // Of an earlier run on the same cluster, if any.
    cluster.kubectl(&["delete", "imagecaches", "--all"]);
    cluster.run(&["apply", "-k", overlay.to_str().unwrap()]);
    cluster.run(&["-n", SYSTEM, "rollout", "status", "deployment", "--timeout=180s"]);
}

impl World {
    /// For as long as the guard lives nobody ends the controller.
    pub fn shared(&self) -> RwLockReadGuard<'_, ()> {
        self.controller.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For as long as the guard lives no other test depends on the controller.
    pub fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.controller.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The controller is killed like by a power cut, both replicas at once, and comes back.
    pub fn kill_controllers(&self) {
        for pod in self.cluster.list(&["pods", "-n", SYSTEM, "-l", CONTROLLER]) {
            let container = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
            if let Some(id) = container.strip_prefix("containerd://") {
                self.cluster.cluster("exec", &["ctr", "-n", "k8s.io", "task", "kill", "-s", "SIGKILL", id]);
            }
        }
        // New pods start at once; restarted containers would wait longer each time.
        let gone = ["--force", "--grace-period=0", "--wait=false"];
        let delete = ["delete", "pods", "-n", SYSTEM, "-l", CONTROLLER];
        self.cluster.run(&[&delete[..], &gone[..]].concat());
    }

    pub fn stop_controllers(&self) {
        self.scale(0);
        eventually("the end of the controllers", || {
            self.cluster.list(&["pods", "-n", SYSTEM, "-l", CONTROLLER]).is_empty().then_some(())
        });
    }

    pub fn start_controllers(&self) {
        self.scale(2);
    }

    fn scale(&self, replicas: u8) {
        let replicas = format!("--replicas={replicas}");
        self.cluster.run(&["-n", SYSTEM, "scale", "deployment/imagecache-controller", &replicas]);
    }

    pub fn apply(&self, object: &Value) {
        self.cluster.send(object, &["apply"]).succeeded("apply");
    }

    /// The newest status that satisfies the test, of an object that is there.
    pub fn wait_for(&self, name: &str, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
        self.caches.wait_for(name, what, holds)
    }

    pub fn wait_ready(&self, name: &str) -> Status {
        self.wait_for(name, "Ready", |status| status.is_current() && status.phase() == "Ready")
    }

    /// Everything of this cache that is in the operator's namespace.
    pub fn children(&self, uid: &str) -> Vec<Value> {
        let label = format!("imagecaches.eci.alibabacloud.com/cache-uid={uid}");
        self.cluster.list(&["jobs,secrets,pods", "-n", SYSTEM, "-l", &label])
    }

    pub fn wait_childless(&self, uid: &str) {
        eventually("the end of Job, Secrets and pod", || self.children(uid).is_empty().then_some(()));
    }

    /// The store, seen from the machine.
    pub fn store(&self) -> PathBuf {
        let volumes = std::fs::read_dir(self.cluster.dir.join("volumes")).unwrap();
        let mut folders = volumes.map(|entry| entry.unwrap().path());
        folders.find(|folder| folder.join("oci-layout").exists()).expect("a volume with a store")
    }

    /// Verified and durable: under its final name.
    pub fn is_durable(&self, digest: &str) -> bool {
        let name = digest.replace(':', "/");
        let volumes = std::fs::read_dir(self.cluster.dir.join("volumes")).unwrap();
        volumes.flatten().any(|volume| volume.path().join("blobs").join(&name).exists())
    }
}

pub fn image_cache(name: &str, images: &[String]) -> Value {
    json!({
        "apiVersion": "eci.alibabacloud.com/v1",
        "kind": "ImageCache",
        "metadata": {"name": name, "annotations": {}},
        "spec": {"images": images},
    })
}

/// The same, with registries listed as plain HTTP.
pub fn plain_cache(name: &str, images: &[String]) -> Value {
    let mut object = image_cache(name, images);
    let hosts: std::collections::BTreeSet<&str> =
        images.iter().filter_map(|image| image.split('/').next()).collect();
    let hosts: Vec<&str> = hosts.into_iter().collect();
    object["metadata"]["annotations"]["k8s.aliyun.com/plain-http-registry"] = json!(hosts.join(","));
    object
}

/// A pull secret as `kubectl create secret docker-registry` makes it.
pub fn pull_secret(namespace: &str, name: &str, server: &str, user: &str, password: &str) -> Value {
    let config = json!({"auths": {server: {"username": user, "password": password}}});
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": namespace, "name": name},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": config.to_string()},
    })
}
