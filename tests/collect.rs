//! gc as the controller runs it, against pulls as the controller runs them: the real binary, a real store, lists of
//! living caches as they are handed over. Either is killed at each of its changes, old layers are wanted again while
//! they go, and hands damage what they can reach. Nothing that is credited loses a byte.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod stores;
#[path = "support/registry/mod.rs"]
mod upstream;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use imagecache::{
    model::{
        collected::Report,
        digest::Digest,
        live::{Credited, LiveList},
        report::Outcome,
        request::CacheKey,
    },
    store::{Store, is_right},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use stores::{age, key};
use upstream::Registry;

const KILLED: Option<i32> = Some(137);
const OLD: &str = "8f14e45f-ceea-467f-a0e6-000000000001";
const NEW: &str = "8f14e45f-ceea-467f-a0e6-000000000002";
const KEPT: &str = "8f14e45f-ceea-467f-a0e6-000000000003";

/// The cluster's side: objects, what they are credited with, and the last report that was read.
struct Cluster<'a> {
    registry: &'a Registry,
    dir: tempfile::TempDir,
    objects: BTreeMap<CacheKey, Option<Credited>>,
    runs: BTreeMap<CacheKey, u64>,
    last_gc: Option<String>,
}

/// How a process ended.
#[derive(Debug, PartialEq)]
enum Ended {
    Well,
    Killed,
}

impl<'a> Cluster<'a> {
    fn new(registry: &'a Registry) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("credentials")).unwrap();
        let (objects, runs) = (BTreeMap::new(), BTreeMap::new());
        Self { registry, dir, objects, runs, last_gc: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn store(&self) -> Store {
        Store::open(self.path("store")).unwrap()
    }

    fn create(&mut self, uid: &str) {
        self.objects.entry(key(uid)).or_insert(None);
    }

    fn delete(&mut self, uid: &str) {
        self.objects.remove(&key(uid));
    }

    fn command(die_at: Option<u64>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imagecache"));
        command.args(["--log", "off"]).stdin(Stdio::null()).env_remove("IMAGECACHE_DIE_AT");
        if let Some(point) = die_at {
            command.env("IMAGECACHE_DIE_AT", point.to_string());
        }
        command
    }

    /// The next run of a cache, as its Job does it; credited when it is complete.
    fn pull(&mut self, uid: &str, images: &[&str], die_at: Option<u64>) -> Ended {
        let (prepared, run) = self.prepare_pull(uid, images, die_at);
        let output = { prepared }.output().unwrap();
        self.pulled(uid, run, images, output.status.code(), &output.stderr)
    }

    fn prepare_pull(&mut self, uid: &str, images: &[&str], die_at: Option<u64>) -> (Command, u64) {
        self.create(uid);
        let run = self.runs.entry(key(uid)).or_default();
        *run += 1;
        let run = *run;
        let host = self.registry.host().to_string();
        let request = json!({
            "cache": uid, "name": uid, "run": run, "inputs": images.join(" "), "platforms": ["linux/amd64"],
            "images": images.iter().map(|image| self.registry.reference(image)).collect::<Vec<_>>(),
            "access": {host: {"transport": "plainHttp", "overridden": false}},
            "reuse": true, "credentialsOverHttp": true, "recheck": self.objects[&key(uid)].is_none(),
        });
        let file = self.path(&format!("request-{uid}.json"));
        fs::write(&file, request.to_string()).unwrap();
        let mut command = Self::command(die_at);
        command.arg("worker").arg("--request").arg(file).arg("--credentials").arg(self.path("credentials"));
        command.arg("--volume").arg(self.path("store"));
        command.arg("--termination-log").arg(self.path(&format!("pulled-{uid}")));
        (command, run)
    }

    fn pulled(&mut self, uid: &str, run: u64, images: &[&str], code: Option<i32>, error: &[u8]) -> Ended {
        if code == KILLED {
            return Ended::Killed;
        }
        let message = fs::read_to_string(self.path(&format!("pulled-{uid}"))).unwrap();
        let images: Vec<_> = images.iter().map(|image| self.registry.reference(image)).collect();
        let outcome = Outcome::decode(&message, "", &images).unwrap();
        assert_eq!(code, Some(0), "{outcome:?} {}", String::from_utf8_lossy(error));
        self.objects.insert(key(uid), Some(Credited { run, root: outcome.root.unwrap() }));
        Ended::Well
    }

    /// As the controller makes it now.
    fn list(&self) -> LiveList {
        let store = self.store().id().to_owned();
        LiveList { store, last_gc: self.last_gc.clone(), caches: self.objects.clone() }
    }

    fn gc(&mut self, die_at: Option<u64>) -> (Ended, Option<Report>) {
        let list = self.list();
        self.gc_with(&list, die_at)
    }

    /// With a list of now or of then; its report is read if it has one.
    fn gc_with(&mut self, list: &LiveList, die_at: Option<u64>) -> (Ended, Option<Report>) {
        let output = self.prepare_gc(list, die_at).output().unwrap();
        self.collected(output.status.code(), &output.stdout, &output.stderr)
    }

    fn prepare_gc(&self, list: &LiveList, die_at: Option<u64>) -> Command {
        let mut command = Self::command(die_at);
        command.arg("gc").arg(self.path("store")).args(["--grace", "0", "--unsafe-no-waiting"]);
        for (n, part) in list.parts(2).iter().enumerate() {
            let file = self.path(&format!("live-{n}.json"));
            fs::write(&file, serde_json::to_vec(part).unwrap()).unwrap();
            command.arg("--live").arg(file);
        }
        command.arg("--termination-log").arg(self.path("collected"));
        command
    }

    fn collected(&mut self, code: Option<i32>, out: &[u8], error: &[u8]) -> (Ended, Option<Report>) {
        if code == KILLED {
            return (Ended::Killed, None);
        }
        assert_eq!(code, Some(0), "{}", String::from_utf8_lossy(error));
        let message = fs::read_to_string(self.path("collected")).unwrap();
        let report = Report::decode(&message, &String::from_utf8_lossy(out)).unwrap();
        self.last_gc = Some(report.gc.clone());
        (Ended::Well, Some(report))
    }

    /// Runs of gc until nothing is left to do.
    fn settle(&mut self) -> Report {
        for _ in 0..6 {
            let (_, report) = self.gc(None);
            let report = report.unwrap();
            if report.is_idle() && report.condemned_roots == 0 && report.waiting.blobs == 0 {
                return report;
            }
        }
        panic!("gc does not come to an end");
    }

    /// Everything that is credited is there, and right; so is every blob under its name.
    fn verify(&self) {
        let store = self.store();
        for (cache, credited) in &self.objects {
            let Some(credited) = credited else { continue };
            let stored = store.root(cache, credited.run).unwrap();
            let stored = stored.unwrap_or_else(|| panic!("the root of {cache}, run {}", credited.run));
            assert_eq!(stored.digest, credited.root);
            for (digest, size) in stored.root.closure() {
                let file = store.find(digest, size).unwrap();
                let file = file.unwrap_or_else(|| panic!("{cache}, run {}: {digest} is gone", credited.run));
                assert!(is_right(&file, digest, &|_| {}).unwrap(), "{digest} has wrong bytes");
            }
        }
    }

    fn has(&self, layer: &[u8]) -> bool {
        self.store().find(&Digest::sha256(layer), layer.len() as u64).unwrap().is_some()
    }
}

/// What is done by hand to a store, or to one of its roots.
type Hand = fn(&Path, &Path);

const BASE: &[u8] = &[b'b'; 9000];
const OLDS: &[u8] = &[b'o'; 5000];
const NEWS: &[u8] = &[b'n'; 4000];
const KEPTS: &[u8] = &[b'k'; 3000];

async fn registry() -> Registry {
    let registry = Registry::start().await;
    registry.image("old", "1", "linux/amd64", &[BASE, OLDS]);
    registry.image("new", "1", "linux/amd64", &[BASE, NEWS]);
    registry.image("kept", "1", "linux/amd64", &[KEPTS]);
    registry
}

/// Blocking work beside the registry.
async fn beside(work: impl FnOnce() + Send + 'static) {
    tokio::task::spawn_blocking(work).await.unwrap();
}

/// The old cache is deleted, and so many runs of gc have seen that.
fn going(registry: &Registry, collections: usize) -> Cluster<'_> {
    let mut cluster = Cluster::new(registry);
    assert_eq!(cluster.pull(KEPT, &["kept:1"], None), Ended::Well);
    assert_eq!(cluster.pull(OLD, &["old:1"], None), Ended::Well);
    cluster.delete(OLD);
    (0..collections).for_each(|_| drop(cluster.gc(None)));
    cluster
}

/// Every n-th point in a plain run, each in a long one (`IMAGECACHE_STORM_SECONDS`).
fn step() -> usize {
    if std::env::var_os("IMAGECACHE_STORM_SECONDS").is_some() { 1 } else { 4 }
}

#[tokio::test(flavor = "multi_thread")]
async fn gc_may_die_anywhere_and_a_pull_that_wants_what_goes_gets_it() {
    let registry = registry().await;
    beside(move || {
        // Condemned, about to be taken out, and in the trash.
        for collections in 0..3 {
            for point in (1_u64..).step_by(step()) {
                let mut cluster = going(&registry, collections);
                let (ended, _) = cluster.gc(Some(point));
                cluster.verify();
                assert_eq!(cluster.pull(NEW, &["new:1"], None), Ended::Well);
                cluster.verify();
                cluster.settle();
                cluster.verify();
                assert_eq!((cluster.has(BASE), cluster.has(OLDS)), (true, false), "point {point}");
                if ended == Ended::Well {
                    println!("{collections} before: gc was killed at points up to {point}");
                    break;
                }
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_of_old_layers_may_die_anywhere_with_gc_after_it() {
    let registry = registry().await;
    beside(move || {
        for collections in [1, 2] {
            for point in (1_u64..).step_by(step() * 2) {
                let mut cluster = going(&registry, collections);
                let ended = cluster.pull(NEW, &["new:1"], Some(point));
                // It is listed by now, without a credit; what it leased is spared.
                cluster.gc(None);
                cluster.gc(None);
                cluster.verify();
                assert_eq!(cluster.pull(NEW, &["new:1"], None), Ended::Well);
                cluster.settle();
                cluster.verify();
                assert_eq!((cluster.has(BASE), cluster.has(OLDS)), (true, false), "point {point}");
                if ended == Ended::Well {
                    println!("{collections} before: a pull was killed at points up to {point}");
                    break;
                }
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_at_once_killed_anywhere_with_lists_of_now_and_of_then() {
    let registry = registry().await;
    let seed: u64 =
        std::env::var("IMAGECACHE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("IMAGECACHE_SEED={seed}");
    let seconds = std::env::var("IMAGECACHE_STORM_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = std::time::Instant::now() + Duration::from_secs(seconds.unwrap_or(6));
    beside(move || {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut rounds = 0;
        let mut cluster = going(&registry, 0);
        let mut lists = vec![cluster.list()];
        while std::time::Instant::now() < end {
            rounds += 1;
            let uid = [OLD, NEW, KEPT][rng.random_range(0..3)];
            if rng.random_bool(0.4) {
                cluster.delete(uid);
            }
            // A late one acts on a list of long ago.
            let list = if rng.random_bool(0.3) {
                lists[rng.random_range(0..lists.len())].clone()
            } else {
                cluster.list()
            };
            lists.push(cluster.list());
            let point = |rng: &mut StdRng| rng.random_bool(0.5).then(|| rng.random_range(1..60));
            let images = [&["old:1"][..], &["new:1"], &["old:1", "new:1"]][rng.random_range(0..3)];
            let uid = [OLD, NEW][rng.random_range(0..2)];
            let (gc_point, pull_point) = (point(&mut rng), point(&mut rng));
            let mut gc = cluster.prepare_gc(&list, gc_point);
            let (mut pull, run) = cluster.prepare_pull(uid, images, pull_point);
            let collecting = gc.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let pulling = pull.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            let (collected, pulled) =
                (collecting.wait_with_output().unwrap(), pulling.wait_with_output().unwrap());
            cluster.collected(collected.status.code(), &collected.stdout, &collected.stderr);
            cluster.pulled(uid, run, images, pulled.status.code(), &pulled.stderr);
            cluster.verify();
        }
        cluster.settle();
        cluster.verify();
        println!("{rounds} rounds");
        assert!(rounds > 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hands_may_delete_or_damage_what_they_can_reach() {
    let registry = registry().await;
    beside(move || {
        let root =
            |cluster: &Cluster<'_>, uid: &str| cluster.path("store").join(format!("roots/{uid}/1.json"));
        // What was done, to which file, and whether the credited content is lost by it.
        let hands: [(&str, Hand, bool); 6] = [
            ("index.json deleted", |store, _| fs::remove_file(store.join("index.json")).unwrap(), false),
            ("index.json damaged", |store, _| fs::write(store.join("index.json"), "{").unwrap(), false),
            (
                "index.json emptied",
                |store, _| {
                    fs::write(store.join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
                },
                false,
            ),
            ("a credited root deleted", |_, root| fs::remove_file(root).unwrap(), true),
            ("a credited root damaged", |_, root| overwrite(root, "{"), true),
            (
                "a credited root of other content",
                |_, root| {
                    let text = fs::read_to_string(root).unwrap().replace("linux", "plan9");
                    overwrite(root, &text);
                },
                true,
            ),
        ];
        for (what, hand, lost) in hands {
            let mut cluster = going(&registry, 0);
            hand(&cluster.path("store"), &root(&cluster, KEPT));
            let blobs = cluster.store().blobs_there().unwrap().len();
            let (_, report) = cluster.gc(None);
            let report = report.unwrap();
            assert_eq!(report.refused.is_empty(), !lost, "{what}: {report:?}");
            assert_eq!(report.broken.len(), usize::from(lost), "{what}");
            for _ in 0..3 {
                cluster.gc(None);
            }
            if lost {
                assert_eq!(
                    cluster.store().blobs_there().unwrap().len(),
                    blobs,
                    "{what}: it knows too little to sweep"
                );
                // What the controller does when it is told.
                assert_eq!(cluster.pull(KEPT, &["kept:1"], None), Ended::Well);
            }
            let report = cluster.settle();
            assert!(report.refused.is_empty(), "{what}: {report:?}");
            cluster.verify();
            assert_eq!((cluster.has(OLDS), cluster.has(KEPTS)), (false, true), "{what}");
            assert_eq!(report.caches.len(), 1, "{what}");
        }
    })
    .await;
}

fn overwrite(file: &Path, text: &str) {
    fs::remove_file(file).unwrap();
    fs::write(file, text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_the_only_cache_go() {
    let registry = registry().await;
    beside(move || {
        let mut cluster = Cluster::new(&registry);
        assert_eq!(cluster.pull(OLD, &["old:1"], None), Ended::Well);
        cluster.delete(OLD);
        let report = cluster.settle();
        assert_eq!((report.store.as_str(), report.caches.len()), (cluster.store().id(), 0));
        assert_eq!(cluster.store().blobs_there().unwrap(), vec![]);
        assert!(!cluster.has(BASE));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_is_made_while_a_late_gc_waits_is_not_touched() {
    let registry = registry().await;
    beside(move || {
        let mut cluster = going(&registry, 1);
        // Frozen for a day with this list in hand: nothing of the new cache is on it.
        let late = cluster.list();
        assert_eq!(cluster.pull(NEW, &["new:1"], None), Ended::Well);
        let read = cluster.last_gc.clone();
        for _ in 0..3 {
            cluster.gc_with(&late, None);
            cluster.verify();
            for folder in ["blobs", "trash", "condemned", "leases", "roots"] {
                age(&cluster.store(), folder, Duration::from_hours(24));
            }
        }
        // Its reports were lost, too.
        cluster.last_gc = read;
        cluster.settle();
        cluster.verify();
        assert!(cluster.has(NEWS) && !cluster.has(OLDS));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_volume_than_the_lists_is_left_alone_and_all_that_is_credited_is_said_to_be_lost() {
    let registry = registry().await;
    beside(move || {
        let mut cluster = going(&registry, 0);
        let list = cluster.list();
        let mut other = Cluster::new(&registry);
        fs::create_dir(other.path("store")).unwrap();
        let (_, report) = other.gc_with(&list, None);
        let report = report.unwrap();
        assert_eq!(
            (report.store.as_str(), report.broken.len(), report.refused.len()),
            ("", 1, 1),
            "an empty volume"
        );
        assert_eq!(other.pull(OLD, &["old:1"], None), Ended::Well);
        let (_, report) = other.gc_with(&list, None);
        let report = report.unwrap();
        assert_eq!((report.store.as_str(), report.broken.len()), (other.store().id(), 1));
        assert!(report.refused[0].contains("nothing was touched"), "{report:?}");
        other.verify();
        cluster.settle();
        cluster.verify();
    })
    .await;
}
