//! The worker against a scripted registry and a real store: what is fetched, how often, and by which right.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::large_stack_arrays)]

#[path = "support/registry/mod.rs"]
mod upstream;

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use imagecache::{
    model::{
        class::Class,
        credentials::Credentials,
        digest::Digest,
        report::Outcome,
        request::{Access, PullRequest, Transport},
    },
    ops::clock,
    pull::{self, Pull, meter::Meter, worker},
    registry::{Client, Config, CredentialSource, Limits},
    store::Store,
};
use tokio_util::sync::CancellationToken;
use upstream::{Fault, Registry};

/// A request for these images of the registry, over plain HTTP as the cache itself says.
fn request(registry: &Registry, cache: &str, run: u64, images: &[&str]) -> PullRequest {
    let images: Vec<_> = images.iter().map(|image| registry.reference(image)).collect();
    let platforms = vec!["linux/amd64".parse().unwrap()];
    let access =
        BTreeMap::from([(registry.host(), Access { transport: Transport::PlainHttp, overridden: true })]);
    PullRequest { run, platforms, access, ..PullRequest::new(cache.parse().unwrap(), images) }.with_inputs()
}

fn pull(store: &Path, request: PullRequest) -> Pull {
    let source = CredentialSource::Fixed(Credentials::default());
    let client = Client::new(pull::client_config(&request, source, vec![])).unwrap();
    let meter = Arc::new(Meter::new(request.images.len()));
    let store = Store::create_or_open(store).unwrap();
    Pull {
        request,
        store,
        client,
        credentials: String::new(),
        resolve_again: false,
        meter,
        now: clock::now(),
    }
}

/// With limits of its own.
fn pull_within(store: &Path, request: PullRequest, limits: Limits) -> Pull {
    let source = CredentialSource::Fixed(Credentials::default());
    let config = Config { limits, ..pull::client_config(&request, source, vec![]) };
    Pull { client: Client::new(config).unwrap(), ..pull(store, request) }
}

async fn run(store: &Path, request: PullRequest) -> Outcome {
    pull(store, request).run().await
}

/// How often each blob was asked for by GET.
fn gets(registry: &Registry) -> BTreeMap<String, usize> {
    let mut gets = BTreeMap::new();
    for line in registry.lines() {
        if let Some(digest) = line
            .strip_prefix("GET /v2/")
            .and_then(|path| path.split_once("/blobs/"))
            .map(|(_, digest)| digest)
        {
            *gets.entry(digest.to_owned()).or_default() += 1;
        }
    }
    gets
}

fn files(folder: &Path, ending: &str) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.ends_with(ending)).collect()
}

/// Every blob that the outcome's cache needs is there, and is what its name says.
fn verified(store: &Path, cache: &str) {
    let open = Store::open(store).unwrap();
    let root = open.latest_root(&cache.parse().unwrap()).unwrap().expect("a root").root;
    for (digest, size) in root.closure() {
        let bytes = fs::read(store.join("blobs/sha256").join(digest.hex())).unwrap();
        assert_eq!((&Digest::sha256(&bytes), bytes.len() as u64), (digest, size));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_images_that_share_layers_cost_each_blob_once() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    let names: Vec<String> = (0..20).map(|i| format!("team/app-{i}:1")).collect();
    for (i, name) in names.iter().enumerate() {
        let own = vec![u8::try_from(i).unwrap(); 1000];
        registry.image(
            name.strip_suffix(":1").unwrap(),
            "1",
            "linux/amd64",
            &[&[b'b'; 50_000], &[b'c'; 20_000], &own],
        );
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let outcome = run(store.path(), request(&registry, "cache", 1, &names)).await;
    assert_eq!(outcome.failure, None);
    let gets = gets(&registry);
    assert_eq!(gets.len(), 2 + 20 + 1, "two shared layers, twenty own ones, one config");
    assert!(gets.values().all(|times| *times == 1), "{gets:?}");
    let pulled: u64 = outcome.images.iter().map(|image| image.pulled).sum();
    assert_eq!(pulled, outcome.size, "what was pulled for all images is what the cache holds");
    assert!(outcome.images[1..].iter().all(|image| image.reused >= 70_000), "{:?}", outcome.images[1]);
    verified(store.path(), "cache");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_again_sends_nothing_and_makes_its_own_root() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    registry.image("app", "1", "linux/amd64", &[b"layer"]);
    let first = run(store.path(), request(&registry, "cache", 1, &["app:1"])).await;
    registry.forget();
    let second = run(store.path(), request(&registry, "cache", 2, &["app:1"])).await;
    assert_eq!(registry.lines(), Vec::<String>::new());
    assert!(first.root.is_some() && second.root.is_some() && first.root != second.root);
    assert_eq!((second.images[0].pulled, second.images[0].reused), (0, second.size));
    assert_eq!(files(&store.path().join("leases"), ""), Vec::<String>::new(), "no lease is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_below_a_complete_one_is_refused_and_told_which() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    registry.image("app", "1", "linux/amd64", &[b"layer"]);
    run(store.path(), request(&registry, "cache", 7, &["app:1"])).await;
    let late = run(store.path(), request(&registry, "cache", 3, &["app:1"])).await;
    assert_eq!((late.root, late.higher_run), (None, Some(7)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_run_fetched_is_not_fetched_again() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    let image = registry.image("app", "1", "linux/amd64", &[&[b'l'; 90_000], &[b'm'; 80_000], b"small"]);
    let small = image.layers[2].to_string();
    registry.script(&small, 1, Fault::status(404));
    let failed = run(store.path(), request(&registry, "cache", 1, &["app:1"])).await;
    let failure = failed.failure.unwrap();
    assert_eq!(failure.class, Class::NotFound);
    assert!(failure.message.contains("app:1"), "the image is named: {failure}");
    assert_eq!(failed.root, None);
    let fetched = gets(&registry);
    registry.forget();
    let retried = run(store.path(), request(&registry, "cache", 2, &["app:1"])).await;
    assert_eq!(retried.failure, None);
    let again = gets(&registry);
    assert!(again.contains_key(&small));
    for layer in &image.layers[..2] {
        assert!(
            fetched.contains_key(&layer.to_string()) && !again.contains_key(&layer.to_string()),
            "{again:?}"
        );
    }
    verified(store.path(), "cache");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_own_registry_cannot_claim_a_layer_it_does_not_have() {
    let (victim, attacker, store) =
        (Registry::start().await, Registry::start().await, tempfile::tempdir().unwrap());
    let secret = victim.image("secret", "1", "linux/amd64", &[b"the victim's layer"]);
    assert_eq!(run(store.path(), request(&victim, "victim", 1, &["secret:1"])).await.failure, None);

    // The attacker knows the digest: his manifest names it, and his registry answers HEAD for it.
    attacker.image("mine", "1", "linux/amd64", &[b"the victim's layer"]);
    let get = format!("GET /v2/mine/blobs/{}", secret.layers[0]);
    attacker.always(&get, Fault::WrongBytes);
    let outcome = run(store.path(), request(&attacker, "attacker", 1, &["mine:1"])).await;
    assert_eq!(outcome.failure.unwrap().class, Class::BadContent);
    assert!(attacker.lines().iter().any(|line| line.starts_with(&get)), "he had to show the bytes");
    assert_eq!(outcome.root, None);
    verified(store.path(), "victim");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_small_a_cache_fails_before_a_byte_of_a_layer_moves() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    registry.image("app", "1", "linux/amd64", &[&[b'l'; 90_000]]);
    let request = PullRequest { size_limit: Some(50_000), ..request(&registry, "cache", 1, &["app:1"]) };
    let failure = run(store.path(), request).await.failure.unwrap();
    assert_eq!(failure.class, Class::SizeExceeded);
    assert!(failure.message.contains("50000") && failure.message.contains("90"), "{failure}");
    assert!(gets(&registry).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_images_that_fail_are_named_at_once() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    registry.image("good", "1", "linux/amd64", &[b"layer"]);
    registry.image("other", "1", "linux/arm64", &[b"layer"]);
    let arm = registry.image("arm", "", "linux/arm64", &[b"layer"]);
    registry.index("arm", "1", &[("linux/arm64", &arm)], false);
    let outcome = run(store.path(), request(&registry, "cache", 1, &["good:1", "gone:1", "arm:1"])).await;
    let failures: Vec<_> =
        outcome.images.iter().map(|image| image.failure.as_ref().map(|f| f.message.clone())).collect();
    assert_eq!(failures[0], None);
    assert!(failures[1].as_ref().unwrap().contains("gone:1"), "{failures:?}");
    assert!(failures[2].as_ref().unwrap().contains("linux/amd64"), "{failures:?}");
    assert_eq!(outcome.failure.unwrap().message, failures[1].clone().unwrap(), "the first decides");
    assert!(gets(&registry).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_index_only_the_wanted_platform_is_pulled() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    let amd = registry.image("app", "", "linux/amd64", &[b"amd64 layer"]);
    let arm = registry.image("app", "", "linux/arm64", &[b"arm64 layer"]);
    let index = registry.index("app", "1", &[("linux/amd64", &amd), ("linux/arm64", &arm)], true);
    let outcome = run(store.path(), request(&registry, "cache", 1, &["app:1"])).await;
    assert_eq!((outcome.failure, outcome.images[0].digest.as_ref()), (None, Some(&index)));
    let gets = gets(&registry);
    assert!(gets.contains_key(&amd.layers[0].to_string()) && !gets.contains_key(&arm.layers[0].to_string()));
    verified(store.path(), "cache");
    // Manifest and config of the other platform are there: some clients read all of them before they choose.
    for digest in [&arm.digest, &arm.config] {
        assert!(store.path().join("blobs/sha256").join(digest.hex()).exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attestations_are_kept_whole_where_they_are_wanted() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    let amd = registry.image("app", "", "linux/amd64", &[b"amd64 layer"]);
    registry.index("app", "1", &[("linux/amd64", &amd)], true);
    let attestation = store.path().join("blobs/sha256").join(Digest::sha256(b"attestation").hex());
    assert_eq!(run(store.path(), request(&registry, "cache", 1, &["app:1"])).await.failure, None);
    assert!(!attestation.exists());
    let wanted = Pull {
        resolve_again: true,
        ..pull(store.path(), PullRequest { attestations: true, ..request(&registry, "cache", 2, &["app:1"]) })
    };
    assert_eq!(wanted.run().await.failure, None);
    assert!(attestation.exists());
    verified(store.path(), "cache");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_the_registry_does_not_have_any_more_is_nobodys_failure() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    let amd = registry.image("app", "", "linux/amd64", &[b"amd64 layer"]);
    let arm = registry.image("app", "", "linux/arm64", &[b"arm64 layer"]);
    registry.index("app", "1", &[("linux/amd64", &amd), ("linux/arm64", &arm)], false);
    registry.always(&format!("manifests/{}", arm.digest), Fault::status(404));
    assert_eq!(run(store.path(), request(&registry, "cache", 1, &["app:1"])).await.failure, None);
    verified(store.path(), "cache");
}

#[tokio::test(flavor = "multi_thread")]
async fn unchanged_tags_cost_one_question_each() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    let amd = registry.image("app", "", "linux/amd64", &[b"amd64 layer"]);
    registry.index("app", "1", &[("linux/amd64", &amd)], false);
    registry.image("other", "1", "linux/amd64", &[b"amd64 layer", b"another"]);
    // As by hand: the flag for plain HTTP is no override.
    let by_hand = |run| {
        let mut request = request(&registry, "local-cache", run, &["app:1", "other:1"]);
        request.access.values_mut().for_each(|access| access.overridden = false);
        Pull { resolve_again: true, ..pull(store.path(), request) }
    };
    assert_eq!(by_hand(1).run().await.failure, None);
    registry.forget();
    let again = by_hand(2).run().await;
    let mut lines = registry.lines();
    lines.sort();
    assert_eq!(lines, ["HEAD /v2/app/manifests/1", "HEAD /v2/other/manifests/1"]);
    assert!(again.failure.is_none() && again.images.iter().all(|image| image.pulled == 0), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_one_repository_denies_is_fetched_from_another() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    let image = registry.image("first", "1", "linux/amd64", &[b"shared layer"]);
    registry.image("second", "1", "linux/amd64", &[b"shared layer"]);
    registry.always(&format!("/v2/first/blobs/{}", image.layers[0]), Fault::status(403));
    let outcome = run(store.path(), request(&registry, "cache", 1, &["first:1", "second:1"])).await;
    assert_eq!(outcome.failure, None);
    verified(store.path(), "cache");
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_not_its_digest_is_never_kept() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    let image = registry.image("app", "1", "linux/amd64", &[b"layer"]);
    registry.always(&format!("GET /v2/app/blobs/{}", image.layers[0]), Fault::WrongBytes);
    let outcome = run(store.path(), request(&registry, "cache", 1, &["app:1"])).await;
    assert_eq!(outcome.failure.unwrap().class, Class::BadContent);
    assert!(!store.path().join("blobs/sha256").join(image.layers[0].hex()).exists());
    assert_eq!(files(&store.path().join("ingest"), ".lock"), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_after_lost_content_fetches_what_rotted() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    let image = registry.image("app", "1", "linux/amd64", &[b"layer", b"other layer"]);
    run(store.path(), request(&registry, "cache", 1, &["app:1"])).await;
    let rotten = store.path().join("blobs/sha256").join(image.layers[0].hex());
    fs::remove_file(&rotten).unwrap();
    fs::write(&rotten, b"LAYER").unwrap();
    registry.forget();
    let recheck = PullRequest { recheck: true, ..request(&registry, "cache", 2, &["app:1"]) };
    assert_eq!(run(store.path(), recheck).await.failure, None);
    assert_eq!(gets(&registry).into_keys().collect::<Vec<_>>(), [image.layers[0].to_string()]);
    verified(store.path(), "cache");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_reports_by_exit_status_and_termination_message() {
    let (registry, folder) = (Registry::start().await, tempfile::tempdir().unwrap());
    registry.image("app", "1", "linux/amd64", &[b"layer"]);
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("credentials")).unwrap();
    for (image, status) in [("app:1", 0), ("gone:1", Class::NotFound.exit_code())] {
        let request = request(&registry, image.split(':').next().unwrap(), 1, &[image]);
        fs::write(path("request.json"), serde_json::to_vec(&request).unwrap()).unwrap();
        let config = worker::WorkerConfig {
            request: &path("request.json"),
            credentials: &path("credentials"),
            volume: &path("store"),
            termination_log: &path("termination"),
            auth_realms: vec![],
        };
        assert_eq!(worker::run(config, CancellationToken::new()).await, status);
        let told =
            Outcome::decode(&fs::read_to_string(path("termination")).unwrap(), "", &request.images).unwrap();
        assert_eq!(told.failure.map(|f| f.class.exit_code()).unwrap_or_default(), status);
        assert_eq!(told.root.is_some(), status == 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_stop_leaves_no_half_blob() {
    let (registry, folder) = (Registry::start().await, tempfile::tempdir().unwrap());
    let image = registry.image("app", "1", "linux/amd64", &[&[b'l'; 90_000]]);
    registry.always(&format!("GET /v2/app/blobs/{}", image.layers[0]), Fault::Stall(1000));
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("credentials")).unwrap();
    fs::write(path("request.json"), serde_json::to_vec(&request(&registry, "cache", 1, &["app:1"])).unwrap())
        .unwrap();
    let (request, credentials, volume, termination_log) =
        (path("request.json"), path("credentials"), path("store"), path("termination"));
    let config = worker::WorkerConfig {
        request: &request,
        credentials: &credentials,
        volume: &volume,
        termination_log: &termination_log,
        auth_realms: vec![],
    };
    let stop = CancellationToken::new();
    let when_it_stalls = async {
        while !gets(&registry).contains_key(&image.layers[0].to_string()) {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let (status, ()) = tokio::join!(worker::run(config, stop.clone()), when_it_stalls);
    assert_eq!(status, 50);
    // Its tasks end soon after, each with its file.
    while !files(&volume.join("ingest"), ".lock").is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A pull on a thread of its own, until it is stopped.
struct Beside {
    stop: CancellationToken,
    thread: std::thread::JoinHandle<Option<Outcome>>,
}

impl Beside {
    fn start(pull: Pull) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async { stopped.run_until_cancelled(pull.run()).await })
        });
        Self { stop, thread }
    }

    fn stop(self) {
        self.stop.cancel();
        self.thread.join().unwrap();
    }
}

/// A pull that holds the lock on the shared layer, from a registry that says nothing more after some bytes.
async fn stalled(store: &Path, layer: &[u8]) -> (Registry, Digest, Beside) {
    let registry = Registry::start().await;
    let shared = registry.image("slow", "1", "linux/amd64", &[layer]).layers[0].clone();
    let get = format!("GET /v2/slow/blobs/{shared}");
    registry.always(&get, Fault::Stall(1000));
    let stalled = pull(store, request(&registry, "slow", 1, &["slow:1"]));
    let stalled = Beside::start(stalled);
    while !registry.lines().contains(&get) {
        tokio::task::yield_now().await;
    }
    (registry, shared, stalled)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_stalls_on_a_shared_layer_does_not_hold_others_back() {
    let (good, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    let (_slow, _, stalled) = stalled(store.path(), &[b's'; 90_000]).await;
    good.image("app", "1", "linux/amd64", &[&[b's'; 90_000]]);
    let limits = Limits { patience: Duration::from_millis(200), ..Limits::default() };
    let outcome = pull_within(store.path(), request(&good, "good", 1, &["app:1"]), limits).run().await;
    assert_eq!(outcome.failure, None);
    assert!(!stalled.thread.is_finished(), "it was not waited for");
    verified(store.path(), "good");
    stalled.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_another_pull_is_fetching_is_waited_for_without_a_connection() {
    let (good, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    let (_slow, shared, stalled) = stalled(store.path(), &[b's'; 90_000]).await;
    let image = good.image("app", "1", "linux/amd64", &[&[b's'; 90_000], b"another layer"]);
    let limits = Limits { connections: 1, connections_per_host: 1, ..Limits::default() };
    let waiting = Beside::start(pull_within(store.path(), request(&good, "good", 1, &["app:1"]), limits));
    let stored = |digest: &Digest| store.path().join("blobs/sha256").join(digest.hex()).exists();
    while !stored(&image.layers[1]) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!gets(&good).contains_key(&shared.to_string()), "the other pull has the lock");
    // It ends, and with it its lock.
    stalled.stop();
    assert_eq!(waiting.thread.join().unwrap().unwrap().failure, None);
    assert_eq!(gets(&good)[&shared.to_string()], 1);
    verified(store.path(), "good");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_asked_for_once_more_from_the_start() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    let image = registry.image("app", "1", "linux/amd64", &[b"layer"]);
    let get = format!("GET /v2/app/blobs/{}", image.layers[0]);
    registry.script(&get, 1, Fault::WrongBytes);
    assert_eq!(run(store.path(), request(&registry, "cache", 1, &["app:1"])).await.failure, None);
    verified(store.path(), "cache");
    registry.image("other", "1", "linux/amd64", &[b"other layer"]);
    registry.always("GET /v2/other/blobs", Fault::WrongBytes);
    registry.forget();
    let failure = run(store.path(), request(&registry, "other", 1, &["other:1"])).await.failure.unwrap();
    assert_eq!(failure.class, Class::BadContent);
    assert!(gets(&registry).values().all(|times| *times <= 2), "{:?}", gets(&registry));
}
