//! What tests look at: caches with snapshots, what is left of them, and the driver's faults.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::{
    kit::{cluster::eventually, kstatus::Status},
    world::{
        SYSTEM, World,
        image::{Blob, Image},
        plain_cache,
        registry::Registry,
    },
};

pub const FLASH: &str = "k8s.aliyun.com/imc-enable-flash";

/// A cache of one image in a registry of its own.
pub struct Cache {
    pub name: String,
    pub registry: Registry,
    pub image: Image,
    pub object: Value,
}

impl Cache {
    pub fn new(world: &World, name: &str) -> Self {
        let registry = Registry::start(&format!("{name}.test"));
        let image = Image::of(vec![Blob::named(name, 3 << 20), Blob::named("shared by all", 1 << 20)]);
        world.storage.put(&format!("{name}/app"), "1", &image);
        let object = plain_cache(name, &[registry.image(&format!("{name}/app"), "1")]);
        Self { name: name.to_owned(), registry, image, object }
    }

    pub fn with_flash(mut self) -> Self {
        self.object["metadata"]["annotations"][FLASH] = json!("true");
        self
    }

    /// Another image under another tag.
    pub fn edit(&mut self, world: &World, tag: &str) {
        self.image = Image::of(vec![Blob::named(&format!("{} {tag}", self.name), 2 << 20)]);
        world.storage.put(&format!("{}/app", self.name), tag, &self.image);
        self.object["spec"]["images"] = json!([self.registry.image(&format!("{}/app", self.name), tag)]);
        world.apply(&self.object);
    }

    pub fn wait(&self, world: &World, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
        world.wait_for(&self.name, what, |status| status.is_current() && holds(status))
    }

    /// Ready, with a snapshot of this content.
    pub fn wait_ready(&self, world: &World) -> Status {
        self.wait(world, "Ready with a snapshot", |s| s.phase() == "Ready" && s.holds("Snapshot"))
    }
}

pub fn snapshot_of(world: &World, status: &Status) -> Value {
    let name = status.text("/snapshot/name");
    world.cluster.get(&["volumesnapshot", "-n", SYSTEM, name]).expect(name)
}

/// Everything of a cache besides its snapshots.
fn work(world: &World, uid: &str) -> Vec<String> {
    let label = format!("imagecaches.eci.alibabacloud.com/cache-uid={uid}");
    let kinds = "jobs,pods,secrets,persistentvolumeclaims";
    names(&world.cluster.list(&[kinds, "-n", SYSTEM, "-l", &label]))
}

pub fn snapshots(world: &World, uid: &str) -> Vec<String> {
    let label = format!("imagecaches.eci.alibabacloud.com/cache-uid={uid}");
    names(&world.cluster.list(&["volumesnapshots", "-n", SYSTEM, "-l", &label]))
}

fn names(objects: &[Value]) -> Vec<String> {
    let name = |object: &Value| format!("{} {}", object["kind"], object["metadata"]["name"]);
    objects.iter().map(name).collect()
}

/// Contents of any snapshot of this cache.
pub fn contents(world: &World, id: &str) -> Vec<String> {
    let all = world.cluster.list(&["volumesnapshotcontents"]);
    let of = |content: &&Value| {
        let name = content["spec"]["volumeSnapshotRef"]["name"].as_str().unwrap_or_default();
        name.starts_with(&format!("{id}-"))
    };
    all.iter().filter(of).map(|content| content["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// Claim, Jobs, pods and Secrets are gone, and one snapshot is left.
pub fn wait_settled(world: &World, status: &Status) {
    let uid = status.uid();
    eventually("the end of the work", || work(world, uid).is_empty().then_some(()));
    eventually("one snapshot", || (snapshots(world, uid).len() == 1).then_some(()));
    let id = status.text("/imageCacheId");
    eventually("one content", || (contents(world, id).len() == 1).then_some(()));
}

pub fn delete(world: &World, status: &Status) {
    let (name, uid) = (status.object["metadata"]["name"].as_str().unwrap(), status.uid());
    world.cluster.run(&["delete", "imagecache", name, "--timeout=60s"]);
    eventually("the end of all children", || {
        (work(world, uid).is_empty() && snapshots(world, uid).is_empty()).then_some(())
    });
}

/// A fault of the driver for as long as this lives.
pub struct Fault(PathBuf);

impl Fault {
    pub fn new(world: &World, name: &str, text: &str) -> Self {
        let folder = world.cluster.dir.join("csi/faults");
        fs::create_dir_all(&folder).unwrap();
        let (path, temp) = (folder.join(name), world.cluster.dir.join("csi/fault.new"));
        fs::write(&temp, text).unwrap();
        fs::rename(temp, &path).unwrap();
        Self(path)
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
