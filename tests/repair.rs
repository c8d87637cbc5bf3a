//! `verify --repair`: what rotted comes again from where it came, and what does not come stays as it was.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod mirrors;
#[path = "support/registry/mod.rs"]
mod upstream;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use imagecache::{
    local::{repair, verify},
    model::{
        class::Class,
        digest::Digest,
        request::{Access, Transport},
    },
    registry::{Client, Config, Limits},
    store::Store,
};
use indicatif::ProgressBar;
use mirrors::{Running, until};
use serde_json::Value;
use tokio::runtime::Runtime;
use upstream::{Fault, Image, Registry};

/// A registry with two images that share a layer, pulled into a volume as two caches.
struct World {
    runtime: Runtime,
    registry: Registry,
    folder: tempfile::TempDir,
    web: Image,
}

const BIG: usize = 3 << 20;

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let registry = runtime.block_on(Registry::start());
        let web = registry.image("team/web", "1", "linux/amd64", &[&vec![b'w'; BIG], b"shared", b"own"]);
        registry.image("team/api", "1", "linux/amd64", &[b"api", b"shared"]);
        let world = Self { runtime, registry, folder: tempfile::tempdir().unwrap(), web };
        for name in ["web", "api"] {
            let image = world.registry.reference(&format!("team/{name}:1")).to_string();
            let args = ["pull", "--image", &image, "--name", name, "--platform", "linux/amd64", "--volume"];
            let (status, _) = world.command(&[&args[..], &[world.volume().to_str().unwrap()]].concat());
            assert_eq!(status, 0);
        }
        world
    }

    fn volume(&self) -> PathBuf {
        self.folder.path().join("vol")
    }

    fn command(&self, args: &[&str]) -> (i32, String) {
        let host = self.registry.host().to_string();
        let done = Command::new(env!("CARGO_BIN_EXE_imagecache"))
            .args(args)
            .args(["--plain-http", &host])
            .output()
            .unwrap();
        (done.status.code().unwrap(), String::from_utf8(done.stdout).unwrap())
    }

    fn verify(&self, more: &[&str]) -> (i32, Value) {
        let volume = self.volume();
        let args = [&["verify", volume.to_str().unwrap(), "-o", "json"], more].concat();
        let (status, out) = self.command(&args);
        (status, serde_json::from_str(&out).unwrap())
    }

    /// In this process, with a client that does not try for long.
    fn repair(&self) -> verify::Verified {
        let access = Access { transport: Transport::PlainHttp, overridden: false };
        let limits = Limits { tries: 2, backoff: Duration::from_millis(1), ..Limits::default() };
        let access = BTreeMap::from([(self.registry.host(), access)]);
        let client = Client::new(Config { access, limits, ..Config::default() }).unwrap();
        let found = verify::verify(&self.volume(), &|_| ()).unwrap();
        let (volume, bar) = (self.volume(), ProgressBar::hidden());
        self.runtime.block_on(repair::repair(&volume, found, client, &bar)).unwrap()
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.volume().join("blobs/sha256").join(digest.hex())
    }

    fn flip(&self, digest: &Digest) {
        let path = self.blob(digest);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        self.write(digest, &bytes);
    }

    fn write(&self, digest: &Digest, bytes: &[u8]) {
        fs::set_permissions(self.blob(digest), fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(self.blob(digest), bytes).unwrap();
    }
}

/// Everything below a folder: its bytes, and which file holds them.
fn tree(folder: &Path) -> BTreeMap<PathBuf, (u64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(tree(&path));
        } else {
            all.insert(path.clone(), (fs::metadata(&path).unwrap().ino(), fs::read(&path).unwrap()));
        }
    }
    all
}

#[test]
fn a_flipped_byte_a_cut_a_lost_blob_and_a_lost_manifest_are_fetched_again_and_nothing_else_changes() {
    let world = World::new();
    let good = tree(&world.volume().join("blobs"));
    let [big, shared, own] = &world.web.layers[..] else { panic!() };
    world.flip(big);
    world.write(shared, b"sha");
    fs::remove_file(world.blob(own)).unwrap();
    fs::remove_file(world.blob(&world.web.digest)).unwrap();
    let broken = tree(&world.volume());

    let (status, found) = world.verify(&[]);
    assert_eq!(status, i32::from(Class::BadContent.exit_code()));
    let problems: BTreeMap<&str, &str> = found["bad"]
        .as_array()
        .unwrap()
        .iter()
        .map(|bad| (bad["digest"].as_str().unwrap(), bad["problem"].as_str().unwrap()))
        .collect();
    for (digest, problem) in
        [(big, "wrongBytes"), (shared, "wrongSize"), (own, "missing"), (&world.web.digest, "missing")]
    {
        assert_eq!(problems[&*digest.to_string()], problem);
    }
    assert_eq!(problems.len(), 4);
    assert_eq!(tree(&world.volume()), broken, "looking changes nothing");

    world.registry.forget();
    let (status, repaired) = world.verify(&["--repair"]);
    assert_eq!(status, 0, "{repaired:#}");
    assert!(repaired["bad"].as_array().unwrap().iter().all(|bad| bad["repaired"] == true));
    let asked = world.registry.lines();
    assert_eq!(asked.len(), 4, "each of the four once: {asked:?}");
    let after = tree(&world.volume().join("blobs"));
    let bytes = |tree: &BTreeMap<PathBuf, (u64, Vec<u8>)>| -> Vec<_> {
        tree.iter().map(|(path, (_, bytes))| (path.clone(), bytes.clone())).collect()
    };
    assert_eq!(bytes(&after), bytes(&good));
    let same = good.iter().filter(|(path, (inode, _))| after[*path].0 == *inode).count();
    assert_eq!(same, good.len() - 4, "what was good is the same file as before");
    assert_eq!(world.verify(&[]).0, 0);
    assert_eq!(fs::read_dir(world.volume().join("leases")).unwrap().count(), 0);
}

#[test]
fn a_registry_that_is_down_is_named_for_each_blob_and_the_store_is_as_it_was() {
    let world = World::new();
    let [big, shared, own] = &world.web.layers[..] else { panic!() };
    world.flip(big);
    world.write(shared, b"sha");
    fs::remove_file(world.blob(own)).unwrap();
    let before = tree(&world.volume().join("blobs"));
    world.registry.always("", Fault::status(503));
    let left = world.repair();
    assert_eq!(left.class(), Some(Class::ServerError));
    assert_eq!(left.bad.len(), 3);
    for bad in &left.bad {
        let failure = bad.failure.as_ref().expect("a reason");
        assert!(!bad.repaired && failure.message.contains(&bad.digest.to_string()), "{failure}");
    }
    let text = left.to_text();
    assert!(text.contains("ServerError") && text.contains("is as it was"), "{text}");
    assert_eq!(tree(&world.volume().join("blobs")), before);
    assert!(tree(&world.volume().join("roots")).len() == 2);
    // When it is back, so is the content.
    world.registry.use_up("");
    assert_eq!(world.repair().class(), None);
    assert_eq!(world.verify(&[]).0, 0);
}

#[test]
fn what_upstream_does_not_have_any_more_is_a_named_failure_and_the_rest_is_repaired() {
    let world = World::new();
    let [big, _, own] = &world.web.layers[..] else { panic!() };
    world.flip(big);
    world.flip(own);
    world.registry.always(&format!("blobs/{own}"), Fault::status(404));
    let (status, left) = world.verify(&["--repair"]);
    assert_eq!(status, i32::from(Class::NotFound.exit_code()), "{left:#}");
    for bad in left["bad"].as_array().unwrap() {
        let gone = bad["digest"] == own.to_string();
        assert_eq!(bad["repaired"], !gone);
        assert_eq!(bad["failure"]["class"] == "NotFound", gone, "{bad}");
    }
}

#[test]
fn a_blob_that_one_repository_denies_comes_from_another_that_a_root_names() {
    let world = World::new();
    let shared = &world.web.layers[1];
    for repository in ["team/web", "team/api"] {
        world.flip(shared);
        world.registry.always(&format!("{repository}/blobs/"), Fault::status(403));
        assert_eq!(world.repair().class(), None, "{repository}");
        world.registry.use_up(&format!("{repository}/blobs/"));
    }
}

#[test]
fn wrong_bytes_from_upstream_never_take_the_place_of_anything() {
    let world = World::new();
    let own = &world.web.layers[2];
    world.flip(own);
    let before = tree(&world.volume().join("blobs"));
    world.registry.always(&format!("blobs/{own}"), Fault::WrongBytes);
    assert_eq!(world.repair().class(), Some(Class::BadContent));
    assert_eq!(tree(&world.volume().join("blobs")), before);
}

#[test]
fn a_mirror_serves_the_store_meanwhile_and_has_the_repaired_image_without_a_restart() {
    let world = World::new();
    let mirror = Running::new(&world.volume(), |config| config.serve_private = true);
    let (host, big) = (world.registry.host(), &world.web.layers[0]);
    let uri = |repository: &str, what: &str| format!("/v2/team/{repository}/{what}?ns={host}");
    world.flip(big);
    let blob = uri("web", &format!("blobs/{big}"));
    assert_ne!(mirror.get(&blob).body.len(), BIG, "wrong bytes are never served whole");
    until("the image is not answered", || mirror.get(&uri("web", "manifests/1")).status == 404);
    std::thread::scope(|scope| {
        let repairing = scope.spawn(|| world.verify(&["--repair"]).0);
        while !repairing.is_finished() {
            let answer = mirror.get(&blob);
            assert!(answer.body.len() != BIG || answer.body.iter().all(|byte| *byte == b'w'));
            assert_eq!(mirror.get(&uri("api", "manifests/1")).status, 200, "the other cache is unharmed");
        }
        assert_eq!(repairing.join().unwrap(), 0);
    });
    until("the image is answered again", || mirror.get(&uri("web", "manifests/1")).status == 200);
    assert_eq!(mirror.get(&blob).body, vec![b'w'; BIG]);
}

/// Bad bytes in the trash of a collector, and good ones that are on their way: whoever is first, the good ones stay.
#[test]
fn a_collector_that_puts_a_bad_blob_back_never_replaces_the_good_one_that_came_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create_or_open(folder.path().join("vol")).unwrap();
    let digest = Digest::sha256(b"good");
    let path = store.path().join("blobs/sha256").join(digest.hex());
    for round in 0..60 {
        fs::remove_file(&path).unwrap_or_default();
        fs::write(&path, b"evil").unwrap();
        let there = store.blobs_there().unwrap();
        let moved = store.move_to_trash(&format!("{round:032x}"), &there).unwrap();
        let mut good = store.ingest(&digest, 4).unwrap();
        good.write(b"good").unwrap();
        good.verify().unwrap();
        let start = std::sync::Barrier::new(3);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                good.publish().unwrap();
            });
            scope.spawn(|| {
                start.wait();
                store.put_back(&moved[0]).unwrap();
            });
            scope.spawn(|| {
                start.wait();
                assert!(store.look(&digest, 4).unwrap().is_some(), "it is in one place or the other");
            });
        });
        assert_eq!(fs::read(&path).unwrap(), b"good", "round {round}");
        assert_eq!(store.list_trash().unwrap(), vec![], "round {round}");
    }
}
