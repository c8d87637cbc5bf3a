//! The clouds' documented manifests as a user has them, with ids where the pages have stars: each is accepted
//! unchanged, the controller says exactly what it cannot honour, and its Job is made. An API server of their own,
//! since other tests look at objects that no controller has seen.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use imagecache::{
    api::{ImageCache, keys},
    model::{
        annotations::table::TABLE,
        judge::{Judged, judge},
        settings::Settings,
    },
};
use serde_json::{Value, json};

use crate::{
    kit::{
        cluster::{Cluster, eventually, root},
        guard::Guard,
        kstatus::Status,
    },
    world::image_cache,
};

pub const SYSTEM: &str = "imagecache-system";

pub struct World {
    pub cluster: Cluster,
    controller: Option<Guard>,
}

/// One test at a time: the documented objects all have the same name.
pub fn world() -> MutexGuard<'static, World> {
    static WORLD: LazyLock<Mutex<World>> = LazyLock::new(|| Mutex::new(start()));
    WORLD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start() -> World {
    let cluster = Cluster::start("api", "IMAGECACHE_TEST_API_SETTINGS");
    cluster.run(&["apply", "-k", root().join("config").to_str().unwrap()]);
    cluster.run(&["delete", "imagecaches", "--all"]);
    for (namespace, name) in [("default", "secret1"), ("default", "secret2"), ("kube-system", "secret3")] {
        let login = r#"{"auths":{"192.168.0.10:5000":{"username":"u","password":"p"}}}"#;
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"name": name, "namespace": namespace}, "stringData": {".dockerconfigjson": login}});
        cluster.send(&secret, &["apply"]).succeeded("a pull secret");
    }
    let mut world = World { cluster, controller: None };
    world.start_controller();
    world
}

/// The controller as it runs outside a cluster. What it says is in the cluster's folder.
fn controller(dir: &Path, binary: &Path, more: impl FnOnce(&mut Command)) -> Guard {
    let log = File::create(dir.join("controller.log")).unwrap();
    let namespace = format!("--namespace={SYSTEM}");
    let arguments = [
        "controller",
        "--listen=127.0.0.1:0",
        "--worker-image=imagecache:test",
        "--max-jobs=100",
        "--max-jobs-per-registry=100",
        &namespace,
    ];
    let errors = log.try_clone().unwrap();
    Guard::process_with(binary, &arguments, Stdio::from(log), |command| {
        command.env("KUBECONFIG", dir.join("kubeconfig")).stderr(errors);
        more(command);
    })
}

/// The manifests of tests/seeds by file name, with their text.
fn seeds() -> BTreeMap<String, (String, Value)> {
    let files = fs::read_dir(root().join("tests/seeds")).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let object = serde_saphyr::from_str(&text).unwrap();
            (path.file_name().unwrap().to_string_lossy().into_owned(), (text, object))
        })
        .collect()
}

impl World {
    pub fn stop_controller(&mut self) {
        self.controller = None;
    }

    pub fn start_controller(&mut self) {
        self.start_controller_with(Path::new(env!("CARGO_BIN_EXE_imagecache")), |_| {});
    }

    pub fn start_controller_with(&mut self, binary: &Path, more: impl FnOnce(&mut Command)) {
        let dir = &self.cluster.dir;
        self.controller.get_or_insert_with(|| controller(dir, binary, more));
    }

    /// Applies the object, compares what the controller says with what the table makes of it, and removes it.
    fn try_out(&self, file: &str, text: &str, object: &Value) {
        let cluster = &self.cluster;
        let name = object["metadata"]["name"].as_str().unwrap();
        let applied = cluster.send_text(text, &["apply", "--validate=strict"]);
        assert!(applied.ok && applied.err.is_empty(), "{file}: {}", applied.err);
        let status = eventually(file, || {
            let status = Status::of(&cluster.get(&["imagecache", name])?).unwrap();
            (status.is_current() && !status.phase().is_empty()).then_some(status)
        });
        let cache: ImageCache = serde_json::from_value(object.clone()).unwrap();
        let Judged { request, notices, .. } = judge(&cache, &Settings::default());
        assert!(request.is_ok(), "{file}: {request:?}");
        let said: Vec<&str> = status.list("notices").iter().filter_map(Value::as_str).collect();
        assert_eq!(said, notices, "{file}");
        nothing_is_silent(file, &cache);
        self.sees_a_pod(file, status.uid());
        cluster.run(&["delete", "imagecache", name, "--cascade=foreground"]);
    }

    /// The pull pod is admitted: its namespace enforces Pod Security `restricted`.
    fn sees_a_pod(&self, file: &str, uid: &str) {
        let label = format!("{}={uid}", keys::CACHE_UID_LABEL);
        eventually(&format!("the pull pod of {file}"), || {
            let pods = self.cluster.list(&["pods", "-n", SYSTEM, "-l", &label]);
            (!pods.is_empty()).then_some(())
        });
    }
}

/// Every annotation is a row of the table, and it changes what is pulled, or a notice names it.
fn nothing_is_silent(file: &str, cache: &ImageCache) {
    // So that asking for what is the default anyway can be seen.
    let settings = Settings { reuse_default: false, ..Settings::default() };
    let asked = |cache: &ImageCache| {
        let Judged { request, notices, .. } = judge(cache, &settings);
        (request.unwrap(), notices)
    };
    let (request, notices) = asked(cache);
    for key in cache.metadata.annotations.iter().flat_map(BTreeMap::keys) {
        assert!(TABLE.iter().any(|row| row.key == key), "{file}: {key} is no row of the table");
        let mut without = cache.clone();
        without.metadata.annotations.as_mut().unwrap().remove(key);
        let acts = asked(&without).0 != request;
        assert!(acts || notices.iter().any(|notice| notice.contains(key)), "{file}: {key} is silent");
    }
}

#[test]
fn documented_image_caches_are_accepted_and_what_is_not_honoured_is_said() {
    let world = world();
    let mut seen = 0;
    for (file, (text, object)) in seeds().iter().filter(|(_, (_, object))| object["kind"] == "ImageCache") {
        world.try_out(file, text, object);
        seen += 1;
    }
    assert!(seen >= 12, "{seen} manifests");
}

#[test]
fn what_is_documented_for_pods_is_accepted_there_and_means_the_same_on_an_image_cache() {
    let world = world();
    let mut seen = 0;
    for (file, (text, object)) in seeds().iter().filter(|(_, (_, object))| object["kind"] == "Deployment") {
        let answer = world.cluster.send_text(text, &["create", "--dry-run=server", "--validate=strict"]);
        assert!(answer.ok, "{file}: {}", answer.err);
        let template = &object["spec"]["template"];
        let mut cache =
            image_cache("of-a-pod", &json!({"images": [template["spec"]["containers"][0]["image"]]}));
        cache["metadata"]["annotations"] = template["metadata"]["annotations"].clone();
        world.try_out(file, &cache.to_string(), &cache);
        seen += 1;
    }
    assert_eq!(seen, 5);
}
