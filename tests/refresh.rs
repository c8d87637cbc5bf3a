//! A refresh as the worker does it, against a scripted registry and a real store: what is asked, what is fetched, what
//! stays when the registry does not answer, and how proofs that an image is public are renewed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/registry/mod.rs"]
mod upstream;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use imagecache::{
    model::{
        class::Class,
        credentials::Credentials,
        digest::Digest,
        lookup::Lookup,
        report::Outcome,
        request::{Access, Dialect, PullRequest, Resolve, Transport},
        root::Root,
    },
    ops::clock,
    pull::{self, Pull, meter::Meter},
    registry::{Client, Config, CredentialSource, Limits},
    store::Store,
};
use jiff::{SignedDuration, Timestamp};
use upstream::{Bearer, Fault, Login, Registry};

/// Of an operator who lists the registry as public.
fn request(registry: &Registry, run: u64, images: &[&str], resolve: Resolve) -> PullRequest {
    PullRequest {
        cache: "cache".parse().unwrap(),
        name: "cache".to_owned(),
        run,
        inputs: String::new(),
        images: images.iter().map(|image| registry.reference(image)).collect(),
        platforms: vec!["linux/amd64".parse().unwrap()],
        size_limit: None,
        access: BTreeMap::from([(
            registry.host(),
            Access { transport: Transport::PlainHttp, overridden: false },
        )]),
        reuse: true,
        public_registries: vec![registry.host()],
        credentials_over_http: true,
        serve_private: false,
        attestations: false,
        referrers: false,
        recheck: false,
        resolve,
        dialect: Dialect::Eci,
        lookup: Lookup::default(),
        acr_domains: BTreeMap::new(),
    }
    .with_inputs()
}

async fn run_at(store: &Path, request: PullRequest, now: Timestamp) -> Outcome {
    run_with(store, request, now, Credentials::default()).await
}

async fn run_with(store: &Path, request: PullRequest, now: Timestamp, keys: Credentials) -> Outcome {
    let source = CredentialSource::Fixed(keys);
    let limits = Limits { tries: 1, ..Limits::default() };
    let config = Config { limits, ..pull::client_config(&request, source, vec![]) };
    Pull {
        client: Client::new(config).unwrap(),
        meter: Arc::new(Meter::new(request.images.len())),
        store: Store::create_or_open(store).unwrap(),
        request,
        credentials: String::new(),
        resolve_again: false,
        now,
    }
    .run()
    .await
}

async fn run(store: &Path, request: PullRequest) -> Outcome {
    run_at(store, request, clock::now()).await
}

fn root(store: &Path) -> Root {
    Store::open(store).unwrap().latest_root(&"cache".parse().unwrap()).unwrap().unwrap().root
}

fn days(n: i64) -> Timestamp {
    clock::now().checked_add(SignedDuration::from_hours(24 * n)).unwrap()
}

fn lines(registry: &Registry) -> Vec<String> {
    let mut lines = registry.lines();
    lines.sort();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_change_costs_one_question() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    registry.image("app", "1", "linux/amd64", &[b"layer"]);
    let first = run(store.path(), request(&registry, 1, &["app:1"], Resolve::default())).await;
    registry.forget();
    let later = days(1);
    let again = run_at(store.path(), request(&registry, 2, &["app:1"], Resolve::Since(2)), later).await;
    assert_eq!(again.failure, None);
    assert_eq!(lines(&registry), ["HEAD /v2/app/manifests/1"]);
    assert_eq!((&again.images[0].digest, again.images[0].pulled), (&first.images[0].digest, 0));
    assert_eq!((again.resolved, again.proved, root(store.path()).run), (Some(later), Some(later), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_tag_that_moved_only_what_changed_is_fetched() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    let old = registry.image("app", "1", "linux/amd64", &[b"base layer", b"old layer"]);
    run(store.path(), request(&registry, 1, &["app:1"], Resolve::default())).await;
    let new = registry.image("app", "1", "linux/amd64", &[b"base layer", b"new layer!"]);
    registry.forget();
    let again = run(store.path(), request(&registry, 2, &["app:1"], Resolve::Since(2))).await;
    assert_eq!((again.failure, &again.images[0].digest), (None, &Some(new.digest.clone())));
    let asked = lines(&registry);
    let gets =
        |digest: &Digest| asked.iter().filter(|line| **line == format!("GET /v2/app/blobs/{digest}")).count();
    assert_eq!((gets(&old.layers[0]), gets(&new.layers[0]), gets(&new.layers[1])), (0, 0, 1), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_registry_is_down_or_the_tag_is_gone_what_was_there_stays() {
    for (status, class) in [(503, Class::ServerError), (404, Class::NotFound)] {
        let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
        registry.image("app", "1", "linux/amd64", &[b"layer"]);
        run(store.path(), request(&registry, 1, &["app:1"], Resolve::default())).await;
        registry.always("/v2/", Fault::status(status));
        let again = run(store.path(), request(&registry, 2, &["app:1"], Resolve::Since(2))).await;
        assert_eq!((again.failure.map(|f| f.class), again.root), (Some(class), None));
        let kept = root(store.path());
        assert_eq!(kept.run, 1);
        for (digest, size) in kept.closure() {
            assert!(Store::open(store.path()).unwrap().look(digest, size).unwrap().is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_whose_report_was_lost_is_found_complete_and_an_older_answer_is_none() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    registry.image("app", "1", "linux/amd64", &[b"layer"]);
    for number in [1, 2] {
        run(store.path(), request(&registry, number, &["app:1"], Resolve::Since(number))).await;
    }
    let new = registry.image("app", "1", "linux/amd64", &[b"another layer"]);
    registry.forget();
    let again = run(store.path(), request(&registry, 3, &["app:1"], Resolve::Since(2))).await;
    assert!(again.root.is_some() && registry.lines().is_empty(), "{:?}", registry.lines());
    let edit = run(store.path(), request(&registry, 4, &["app:1"], Resolve::Since(4))).await;
    assert_eq!(edit.images[0].digest, Some(new.digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_named_by_digest_is_not_asked_for_again() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    let pinned = registry.image("pinned", "1", "linux/amd64", &[b"pinned layer"]);
    registry.image("app", "1", "linux/amd64", &[b"layer"]);
    let by_digest = format!("pinned@{}", pinned.digest);
    let images = ["app:1", by_digest.as_str()];
    run(store.path(), request(&registry, 1, &images, Resolve::default())).await;
    let known = root(store.path()).images[1].public;
    assert!(known.is_some());
    // It was deleted upstream: no reason to fail, and no proof that it is private.
    registry.always("/v2/pinned/", Fault::status(404));
    let new = registry.image("app", "1", "linux/amd64", &[b"new layer"]);
    registry.forget();
    let again = run_at(store.path(), request(&registry, 2, &images, Resolve::Since(2)), days(5)).await;
    assert_eq!((again.failure, &again.images[0].digest), (None, &Some(new.digest)));
    assert_eq!(again.images[1].digest, Some(pinned.digest.clone()));
    let asked: Vec<String> = registry.lines().into_iter().filter(|line| line.contains("pinned")).collect();
    let proof = format!("HEAD /v2/pinned/manifests/{}", pinned.digest);
    assert!(asked.iter().all(|line| *line == proof), "only whether it is public: {asked:?}");
    assert_eq!((root(store.path()).images[1].public, again.proved), (known, known));
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_are_renewed_without_looking_tags_up() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    let old = registry.image("app", "1", "linux/amd64", &[b"layer"]);
    run(store.path(), request(&registry, 1, &["app:1"], Resolve::default())).await;
    registry.image("app", "1", "linux/amd64", &[b"new layer"]);
    let proofs = |run| request(&registry, run, &["app:1"], Resolve::Proofs(run - 1));
    registry.forget();
    let young = run_at(store.path(), proofs(2), days(3)).await;
    assert!(young.root.is_some() && registry.lines().is_empty(), "a young proof is worth no request");
    let renewed = run_at(store.path(), proofs(3), days(5)).await;
    assert_eq!(renewed.images[0].digest, Some(old.digest.clone()), "the tag keeps what it means");
    assert_eq!(lines(&registry), [format!("HEAD /v2/app/manifests/{}", old.digest)]);
    assert_eq!((renewed.images[0].pulled, renewed.proved.is_some_and(|at| at > days(4))), (0, true));

    for status in [503, 404] {
        registry.always("HEAD", Fault::status(status));
        let failed = run_at(store.path(), proofs(4), days(10)).await;
        assert!(
            failed.root.is_none() && failed.failure.is_some(),
            "an outage is tried again, and demotes nothing"
        );
        assert_eq!(root(store.path()).run, 3);
        registry.use_up("HEAD");
    }
    registry.always("HEAD", Fault::status(401));
    let denied = run_at(store.path(), proofs(4), days(10)).await;
    assert_eq!((denied.failure, denied.images[0].public, denied.proved), (None, false, None));
    assert_eq!(root(store.path()).images[0].public, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_question_whether_it_is_public_takes_nothing_back() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    let image = registry.image("app", "1", "linux/amd64", &[b"layer"]);
    // Answered to a credential, so the tag's answer proves nothing by itself.
    let users = vec![("m", "p")];
    registry.login(Login::Bearer(Bearer { users, anonymous: true, ..Bearer::default() }));
    let keys = || {
        Credentials::parse([format!(r#"{{"auths":{{"{}":{{"auth":"bTpw"}}}}}}"#, registry.host()).as_bytes()])
    };
    let asked = |run| request(&registry, run, &["app:1"], Resolve::Since(run));
    let first = run_with(store.path(), asked(1), clock::now(), keys()).await;
    let before = root(store.path()).images[0].public;
    assert_eq!((first.failure, first.proved, before.is_some()), (None, before, true));
    registry.always(&format!("HEAD /v2/app/manifests/{}", image.digest), Fault::status(503));
    let again = run_with(store.path(), asked(2), days(1), keys()).await;
    assert_eq!((again.failure, root(store.path()).run), (None, 2));
    assert_eq!(root(store.path()).images[0].public, before);
}
