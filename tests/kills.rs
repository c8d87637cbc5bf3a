//! Whatever is killed, wherever: nothing that was reported loses a byte, and what comes next finds its way. With
//! the real binary, which in test builds can be told to die at any of its changes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod stores;
#[path = "support/registry/mod.rs"]
mod upstream;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use imagecache::{
    model::{digest::Digest, request::CacheKey},
    store::{Store, is_right},
};
use rand::Rng as _;
use stores::{age, key, put, root};
use upstream::Registry;

const KILLED: i32 = 137;

fn imagecache(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagecache"));
    command.args(["--log", "off"]).args(args).env_remove("IMAGECACHE_DIE_AT");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn gc(volume: &Path) -> Command {
    imagecache(&["gc", volume.to_str().unwrap(), "--grace", "0", "--unsafe-no-waiting"])
}

fn pull(volume: &Path, registry: &Registry, name: &str, images: &[String]) -> Command {
    let host = registry.host().to_string();
    let mut args = vec!["pull", "--volume", volume.to_str().unwrap(), "--plain-http", &host, "--name", name];
    let images: Vec<String> = images.iter().map(|image| registry.reference(image).to_string()).collect();
    args.extend(images.iter().flat_map(|image| ["--image", image.as_str()]));
    imagecache(&args)
}

fn succeeds(mut command: Command) {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The best root of a cache has every blob, and each is right.
fn whole(store: &Store, cache: &CacheKey) {
    let root = store.latest_root(cache).unwrap().unwrap_or_else(|| panic!("no root of {cache}")).root;
    for (digest, size) in root.closure() {
        let file = store.find(digest, size).unwrap();
        let file = file.unwrap_or_else(|| panic!("{cache}, run {}: {digest} is missing", root.run));
        assert!(is_right(&file, digest, &|_| {}).unwrap(), "{digest} has wrong bytes");
    }
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.contains(".lock")).collect()
}

/// Something of everything that gc acts on.
fn scene(dir: &Path) -> Store {
    let store = Store::create_or_open(dir).unwrap();
    store.link_root(&root(&store, "local-kept", 1, "nginx:1", "old")).unwrap();
    store.link_root(&root(&store, "local-kept", 2, "nginx:1", "new")).unwrap();
    store.link_root(&root(&store, "8f14e45f", 1, "redis:7", "cluster")).unwrap();
    store.link_root(&root(&store, "local-gone", 1, "debian:12", "gone")).unwrap();
    (0..3_u8).for_each(|n| drop(put(&store, &[n])));
    succeeds(gc(dir));
    // In the trash although it is needed: a collector was killed before it looked again.
    let needed = store.root(&key("local-kept"), 2).unwrap().unwrap().root.images[0].closure[2].digest.clone();
    let blob = store.blobs_there().unwrap().into_iter().find(|blob| blob.digest == needed).unwrap();
    store.move_to_trash("0123", &[blob]).unwrap();
    store.remove_cache(&key("local-gone")).unwrap();
    put(&store, b"nobody's");
    fs::write(dir.join(format!("ingest/{}.0a", "sha256-".to_owned() + needed.hex())), "half").unwrap();
    fs::write(dir.join("leases/dead.json"), "{").unwrap();
    fs::write(dir.join("leases/.dead.json.0"), "{").unwrap();
    for folder in ["leases", "ingest", "blobs", "trash", "condemned", "roots"] {
        age(&store, folder, Duration::from_hours(25));
    }
    store
}

#[test]
fn gc_may_die_at_any_of_its_changes() {
    for point in 1.. {
        let dir = tempfile::tempdir().unwrap();
        let store = scene(dir.path());
        let check = || ["local-kept", "8f14e45f"].iter().for_each(|cache| whole(&store, &key(cache)));
        let status = gc(dir.path()).env("IMAGECACHE_DIE_AT", point.to_string()).status().unwrap();
        check();
        (0..3).for_each(|_| succeeds(gc(dir.path())));
        check();
        assert_eq!(store.list_roots().unwrap().len(), 2, "the old run is gone");
        assert_eq!(store.blobs_there().unwrap().len(), 5, "what nobody needs is gone: point {point}");
        for folder in ["trash", "condemned", "leases", "ingest"] {
            let left = names(&dir.path().join(folder));
            assert!(
                left.iter().all(|name| name.starts_with("seen-") || name.starts_with('.')),
                "{folder}: {left:?}"
            );
        }
        if status.success() {
            println!("gc was killed at each of {} changes", point - 1);
            assert!(point > 30, "too few: the scene is not what it was");
            return;
        }
        assert_eq!(status.code(), Some(KILLED));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_may_die_at_any_of_its_changes() {
    let registry = Registry::start().await;
    let images: Vec<String> = (0..2).map(|n| format!("team/app-{n}:1")).collect();
    for (n, image) in images.iter().enumerate() {
        let own = vec![u8::try_from(n).unwrap(); 3000];
        registry.image(image.strip_suffix(":1").unwrap(), "1", "linux/amd64", &[&[b'b'; 5000], &own]);
    }
    let points = tokio::task::spawn_blocking(move || {
        for point in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let mut killed = pull(dir.path(), &registry, "shop", &images);
            let status = killed.args(PLATFORM).env("IMAGECACHE_DIE_AT", point.to_string()).status().unwrap();
            let mut again = pull(dir.path(), &registry, "shop", &images);
            again.args(PLATFORM);
            succeeds(again);
            let store = Store::open(dir.path()).unwrap();
            whole(&store, &key("local-shop"));
            assert_eq!(
                names(&dir.path().join("leases")).iter().filter(|name| !name.starts_with('.')).count(),
                0
            );
            if status.success() {
                return point - 1;
            }
            assert_eq!(status.code(), Some(KILLED));
        }
        0
    });
    let points = points.await.unwrap();
    println!("a pull was killed at each of {points} changes");
    assert!(points > 50);
}

const PLATFORM: [&str; 2] = ["--platform", "linux/amd64"];

/// Seconds for each storm; `IMAGECACHE_STORM_SECONDS=600` for a long one (`make test-soak`).
fn storm_time() -> Duration {
    let seconds = std::env::var("IMAGECACHE_STORM_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(10))
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_gc_rm_and_a_mirror_with_random_kills_lose_nothing() {
    storm(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_where_locks_do_not_work() {
    storm(true).await;
}

struct Storm {
    registry: Registry,
    volume: tempfile::TempDir,
    images: Vec<String>,
    no_locks: bool,
    end: Instant,
    over: AtomicBool,
    pulled: AtomicUsize,
    killed: AtomicUsize,
    collected: AtomicUsize,
    served: AtomicUsize,
}

/// Bytes a second that the registry gives to all workers together: kills meet downloads, and the machine stays usable.
const RATE: u64 = 16 << 20;
/// Kills come within this time, which most pulls need.
const PULL_TIME: u64 = 1500;

async fn storm(no_locks: bool) {
    let registry = Registry::start().await;
    registry.throttle(RATE);
    // Layers that images share, in all combinations of two of six. The last is one that is continued after a kill.
    let size = |n: u8| if n == 5 { 17 << 20 } else { 100_000 + usize::from(n) };
    let layers: Vec<Vec<u8>> = (0..6_u8).map(|n| vec![n; size(n)]).collect();
    let mut images = Vec::new();
    for (a, one) in layers.iter().enumerate() {
        for other in &layers[a + 1..] {
            let name = format!("team/app-{}", images.len());
            registry.image(&name, "1", "linux/amd64", &[one, other]);
            images.push(format!("{name}:1"));
        }
    }
    let storm = Storm {
        registry,
        volume: tempfile::tempdir().unwrap(),
        images,
        no_locks,
        end: Instant::now() + storm_time(),
        over: AtomicBool::new(false),
        pulled: AtomicUsize::new(0),
        killed: AtomicUsize::new(0),
        collected: AtomicUsize::new(0),
        served: AtomicUsize::new(0),
    };
    tokio::task::spawn_blocking(move || storm.run()).await.unwrap();
}

impl Storm {
    fn run(&self) {
        let volume = self.volume.path();
        let store = Store::create_or_open(volume).unwrap();
        println!("for {:?}, in {}", storm_time(), volume.display());
        thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|n| scope.spawn(move || self.pulls(n))).collect();
            let others = [scope.spawn(|| self.collects()), scope.spawn(|| self.serves())];
            // One that fails ends the others, and the test.
            let failed =
                workers.into_iter().map(thread::ScopedJoinHandle::join).filter(Result::is_err).count();
            self.over.store(true, Relaxed);
            let failed = failed
                + others.into_iter().map(thread::ScopedJoinHandle::join).filter(Result::is_err).count();
            assert_eq!(failed, 0, "see above");
        });
        let blobs = store.blobs_there().unwrap();
        for blob in &blobs {
            let file = store.find(&blob.digest, blob.size).unwrap().unwrap();
            assert!(is_right(&file, &blob.digest, &|_| {}).unwrap(), "{} is bad", blob.digest);
        }
        // When all is quiet every cache can be made whole, and nothing is left of the storm.
        for n in 0..4 {
            self.succeed(self.pull(n, &self.images));
        }
        (0..3).for_each(|_| succeeds(gc(volume)));
        succeeds(imagecache(&["verify", volume.to_str().unwrap()]));
        assert_eq!(store.list_roots().unwrap().len(), 4);
        assert_eq!((store.list_trash().unwrap().len(), store.leases().unwrap().len()), (0, 0));
        let left = fs::read_dir(volume.join("ingest")).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = left.filter(|name| !name.as_encoded_bytes().starts_with(b".")).collect();
        assert_eq!(left, ["gc.lock"]);
        println!(
            "no blob is missing or bad; {} pulls and {} gc runs ended well, {} were killed, {} blobs were served",
            self.pulled.load(Relaxed),
            self.collected.load(Relaxed),
            self.killed.load(Relaxed),
            self.served.load(Relaxed)
        );
        for count in [&self.pulled, &self.collected, &self.killed, &self.served] {
            assert!(count.load(Relaxed) > 0);
        }
    }

    fn pull(&self, n: usize, images: &[String]) -> Command {
        let mut command = pull(self.volume.path(), &self.registry, &format!("c{n}"), images);
        command.args(PLATFORM);
        command
    }

    fn succeed(&self, mut command: Command) {
        if self.no_locks {
            command.env("IMAGECACHE_NO_LOCKS", "1");
        }
        succeeds(command);
    }

    fn goes_on(&self) -> bool {
        Instant::now() < self.end && !self.over.load(Relaxed)
    }

    /// Its status and what it said, if it ended by itself.
    fn maybe_kill(&self, mut command: Command, within: u64) -> Option<(i32, String)> {
        if self.no_locks {
            command.env("IMAGECACHE_NO_LOCKS", "1");
        }
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        if rand::rng().random_bool(0.5) {
            thread::sleep(Duration::from_millis(rand::rng().random_range(0..within)));
            child.kill().unwrap();
        }
        let output = child.wait_with_output().unwrap();
        let code = output.status.code();
        if code.is_none() {
            self.killed.fetch_add(1, Relaxed);
        }
        // Not at once: others, and the machine, have their turn.
        thread::sleep(Duration::from_millis(rand::rng().random_range(0..150)));
        Some((code?, String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    /// The only one who pulls and removes this cache: what is reported stays until the next step.
    fn pulls(&self, n: usize) {
        let store = Store::open(self.volume.path()).unwrap();
        let (cache, name) = (key(&format!("local-c{n}")), format!("c{n}"));
        let mut promised = false;
        while self.goes_on() {
            let mut rng = rand::rng();
            let images: Vec<String> = self
                .images
                .iter()
                .filter(|_| rng.random_bool(0.3))
                .cloned()
                .chain([self.images[n].clone()])
                .collect();
            match self.maybe_kill(self.pull(n, &images), PULL_TIME) {
                Some((0, _)) => {
                    promised = true;
                    self.pulled.fetch_add(1, Relaxed);
                }
                Some((status, text)) => panic!("pull {n} ended with {status}: {text}"),
                None => {}
            }
            if promised {
                some_run_is_whole(&store, &cache);
            }
            if rng.random_bool(0.1) {
                let volume = self.volume.path();
                self.maybe_kill(imagecache(&["rm", volume.to_str().unwrap(), &name]), 50);
                promised = false;
            }
        }
    }

    fn collects(&self) {
        while !self.over.load(Relaxed) {
            match self.maybe_kill(gc(self.volume.path()), 100) {
                Some((0, _)) => drop(self.collected.fetch_add(1, Relaxed)),
                Some((status, text)) => panic!("gc ended with {status}: {text}"),
                None => {}
            }
        }
    }

    /// What the mirror serves is right, whatever happens around it.
    fn serves(&self) {
        let volume = self.volume.path().to_str().unwrap();
        let mut mirror = Serving::start(volume);
        while !self.over.load(Relaxed) {
            if rand::rng().random_bool(0.02) {
                mirror = Serving::start(volume);
            }
            thread::sleep(Duration::from_millis(20));
            let image = &self.images[rand::rng().random_range(0..self.images.len())];
            let (repository, tag) = image.split_once(':').unwrap();
            let base = format!("/v2/{}/{repository}", self.registry.host());
            let Some(manifest) = mirror.get(&format!("{base}/manifests/{tag}")) else { continue };
            let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
            for layer in manifest["layers"].as_array().unwrap() {
                let digest = layer["digest"].as_str().unwrap();
                // Removed meanwhile: 404.
                let Some(bytes) = mirror.get(&format!("{base}/blobs/{digest}")) else { continue };
                assert_eq!(Digest::sha256(&bytes).to_string(), digest);
                self.served.fetch_add(1, Relaxed);
            }
        }
    }
}

/// A pull that was killed at its last look may have left a root above the one that was reported.
fn some_run_is_whole(store: &Store, cache: &CacheKey) {
    let roots: Vec<_> = store.roots().unwrap().into_iter().filter(|root| root.cache == *cache).collect();
    let mut missing = Vec::new();
    for listed in roots.into_iter().rev() {
        let root = listed.root.unwrap().root;
        let lost =
            root.closure().into_iter().find(|(digest, size)| store.find(digest, *size).unwrap().is_none());
        match lost {
            None => return,
            Some((digest, _)) => missing.push(format!("run {}: {digest}", root.run)),
        }
    }
    panic!("{cache} was reported and is not whole: {missing:?}, {}", store.path().display());
}

struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn start(volume: &str) -> Self {
        // A free port of now: the mirror prints none.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let args = ["serve", "--volume", volume, "--listen", &free, "--serve-private"];
        Self { child: imagecache(&args).spawn().unwrap(), address: free }
    }

    /// The body of a 200.
    fn get(&self, path: &str) -> Option<Vec<u8>> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let split = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
        answer.starts_with(b"HTTP/1.1 200").then(|| answer[split + 4..].to_vec())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
