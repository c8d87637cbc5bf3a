//! Dedup is not permission: two accounts that share a layer, a registry of an attacker that names a victim's, and
//! overrides that pretend to be another host. Who has no right must fetch, and the registry counts the bytes.
#![allow(clippy::unwrap_used)]

#[path = "support/registry/mod.rs"]
mod upstream;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use imagecache::{
    model::{
        class::Class,
        credentials::Credentials,
        digest::Digest,
        lookup::{HostAlias, Lookup},
        report::{Outcome, ReusedBy},
        request::{Access, PullRequest, Transport},
    },
    ops::clock,
    pull::{self, Pull, meter::Meter},
    registry::{Client, CredentialSource},
    store::Store,
};
use upstream::{Bearer, Fault, Login, Registry};

static SECRET: [u8; 50_000] = [7; 50_000];

/// Reached as the operator says: no override.
fn request(registry: &Registry, cache: &str, run: u64, images: &[&str]) -> PullRequest {
    let transport =
        if registry.certificate.is_some() { Transport::HttpsUnverified } else { Transport::PlainHttp };
    let images = images.iter().map(|image| registry.reference(image)).collect();
    PullRequest {
        run,
        platforms: vec!["linux/amd64".parse().unwrap()],
        access: BTreeMap::from([(registry.host(), Access { transport, overridden: false })]),
        ..PullRequest::new(cache.parse().unwrap(), images)
    }
}

async fn run(store: &Path, request: PullRequest, user: &str) -> Outcome {
    let request = request.with_inputs();
    let host = request.images[0].host().to_string();
    let file = match user {
        "" => serde_json::json!({}),
        user => serde_json::json!({"auths": {host: {"username": user, "password": "password"}}}),
    };
    let credentials = Credentials::parse([serde_json::to_vec(&file).unwrap()]);
    let client =
        Client::new(pull::client_config(&request, CredentialSource::Fixed(credentials), vec![])).unwrap();
    let credentials = client.credentials().hash();
    let meter = Arc::new(Meter::new(request.images.len()));
    let store = Store::create_or_open(store).unwrap();
    Pull { request, store, client, credentials, resolve_again: false, meter, now: clock::now() }.run().await
}

fn accounts(registry: &Registry) {
    let users = vec![("alice", "password"), ("bob", "password")];
    registry.login(Login::Bearer(Bearer { users, ..Bearer::default() }));
}

fn secret() -> Digest {
    Digest::sha256(&SECRET)
}

/// By which right the stored layer was used, and whether its bytes left the registry again.
fn used(outcome: &Outcome, registry: &Registry, before: u64) -> (&'static str, bool) {
    assert_eq!(outcome.failure, None);
    let ReusedBy { held, public, asked, same_run } = outcome.images[0].reused_by;
    // All else is smaller by far.
    let rights = [("held", held), ("public", public), ("asked", asked), ("same run", same_run)];
    let right = rights.iter().find(|(_, bytes)| *bytes >= SECRET.len() as u64);
    (right.map_or("fetched", |(right, _)| right), registry.served_of(&secret()) > before)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_accounts_share_a_layer_where_the_registry_says_that_both_may_have_it() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    accounts(&registry);
    registry.image("alices", "1", "linux/amd64", &[&SECRET, b"hers"]);
    registry.image("bobs", "1", "linux/amd64", &[&SECRET, b"his"]);
    let size = SECRET.len() as u64;
    let first = run(store.path(), request(&registry, "a", 1, &["alices:1"]), "alice").await;
    assert_eq!(used(&first, &registry, 0), ("fetched", true));
    let second = run(store.path(), request(&registry, "b", 1, &["bobs:1"]), "bob").await;
    assert_eq!(used(&second, &registry, size), ("asked", false));
    let asked = format!("HEAD /v2/bobs/blobs/{}", secret());
    assert_eq!(registry.lines().iter().filter(|line| **line == asked).count(), 1);

    // The same account again, with one image more: what it held it need not ask for.
    registry.image("alices", "2", "linux/amd64", &[&SECRET, b"more"]);
    let third = run(store.path(), request(&registry, "a", 2, &["alices:2"]), "alice").await;
    assert_eq!(used(&third, &registry, size), ("held", false));
    // With reuse switched off everything is fetched.
    let off = PullRequest { reuse: false, ..request(&registry, "a", 3, &["alices:2"]) };
    assert_eq!(used(&run(store.path(), off, "alice").await, &registry, size), ("fetched", true));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_the_registry_denies_a_shared_layer_gets_nothing() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    accounts(&registry);
    registry.image("alices", "1", "linux/amd64", &[&SECRET]);
    run(store.path(), request(&registry, "a", 1, &["alices:1"]), "alice").await;
    // He can push a manifest that names it, but not the layer.
    registry.image("bobs", "1", "linux/amd64", &[&SECRET]);
    registry.always(&format!("/v2/bobs/blobs/{}", secret()), Fault::status(404));
    let outcome = run(store.path(), request(&registry, "b", 1, &["bobs:1"]), "bob").await;
    assert_eq!(outcome.failure.unwrap().class, Class::NotFound);
    assert_eq!(outcome.root, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_of_an_attacker_has_to_show_the_bytes_that_its_manifest_names() {
    for public in [false, true] {
        let (victims, attackers, store) =
            (Registry::start().await, Registry::start().await, tempfile::tempdir().unwrap());
        accounts(&victims);
        victims.image("private", "1", "linux/amd64", &[&SECRET]);
        run(store.path(), request(&victims, "victim", 1, &["private:1"]), "alice").await;

        // No override of any kind: a real host of his, which says yes to every HEAD, and to everybody.
        attackers.image("mine", "1", "linux/amd64", &[&SECRET]);
        let get = format!("GET /v2/mine/blobs/{}", secret());
        attackers.always(&get, Fault::WrongBytes);
        let mut wanted = request(&attackers, "attacker", 1, &["mine:1"]);
        if public {
            wanted.public_registries = vec![attackers.host()];
        }
        let outcome = run(store.path(), wanted, "").await;
        assert_eq!(outcome.failure.unwrap().class, Class::BadContent, "public: {public}");
        assert_eq!(outcome.root, None);
        assert!(attackers.lines().iter().any(|line| line.starts_with(&get)));
        let asked = format!("HEAD /v2/mine/blobs/{}", secret());
        assert!(!attackers.lines().contains(&asked), "what he says is worth nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_image_that_names_a_private_layer_of_the_same_cache_does_not_make_it_public() {
    let (victims, attackers, store) =
        (Registry::start().await, Registry::start().await, tempfile::tempdir().unwrap());
    accounts(&victims);
    victims.image("private", "1", "linux/amd64", &[&SECRET]);
    attackers.image("tool", "1", "linux/amd64", &[&SECRET, b"tool"]);
    attackers.always(&format!("GET /v2/tool/blobs/{}", secret()), Fault::status(404));
    let mut wanted = request(&victims, "victim", 1, &["private:1"]);
    wanted.images.push(attackers.reference("tool:1"));
    let access = Access { transport: Transport::PlainHttp, overridden: false };
    wanted.access.insert(attackers.host(), access);
    wanted.public_registries = vec![attackers.host()];
    let outcome = run(store.path(), wanted, "alice").await;
    assert_eq!(outcome.failure, None);
    assert_eq!(outcome.images.iter().map(|image| image.public).collect::<Vec<_>>(), [false, false]);
    assert!(outcome.notices.iter().any(|notice| notice.contains("kept as a private image")), "{outcome:?}");
    // Where the registry gives it, it is public, and stays so.
    attackers.use_up(&format!("GET /v2/tool/blobs/{}", secret()));
    let mut honest = request(&attackers, "other", 1, &["tool:1"]);
    honest.public_registries = vec![attackers.host()];
    let outcome = run(store.path(), honest, "").await;
    assert!(outcome.images[0].public, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_override_that_pretends_to_be_the_host_proves_nothing() {
    let size = SECRET.len() as u64;
    for tls in [false, true] {
        let registry = if tls { Registry::start_tls(&["127.0.0.1"]).await } else { Registry::start().await };
        let store = tempfile::tempdir().unwrap();
        registry.image("app", "1", "linux/amd64", &[&SECRET]);
        run(store.path(), request(&registry, "victim", 1, &["app:1"]), "").await;
        // The transport by an annotation: plain HTTP, or a certificate that is not verified.
        let mut wanted = request(&registry, "attacker", 1, &["app:1"]);
        wanted.access.values_mut().for_each(|access| access.overridden = true);
        let outcome = run(store.path(), wanted, "").await;
        assert_eq!(used(&outcome, &registry, size), ("fetched", true), "tls: {tls}");
        // Its own bytes it need not fetch twice.
        let mut again = request(&registry, "attacker", 2, &["app:1"]);
        again.access.values_mut().for_each(|access| access.overridden = true);
        again.images = vec![registry.reference("copy:1")];
        registry.image("copy", "1", "linux/amd64", &[&SECRET]);
        let outcome = run(store.path(), again, "").await;
        assert_eq!(used(&outcome, &registry, 2 * size), ("asked", false));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_a_cache_leads_somewhere_proves_nothing() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    registry.image("app", "1", "linux/amd64", &[&SECRET]);
    let size = SECRET.len() as u64;
    let named = |cache: &str, hosts_overridden| {
        let host = format!("registry.test:{}", registry.address.port());
        let aliases = vec![HostAlias { ip: registry.address.ip(), hostnames: vec!["registry.test".into()] }];
        let access = Access { transport: Transport::PlainHttp, overridden: false };
        PullRequest {
            images: vec![format!("{host}/app:1").parse().unwrap()],
            access: BTreeMap::from([(host.parse().unwrap(), access)]),
            lookup: Lookup { hosts: aliases, hosts_overridden, ..Lookup::default() },
            ..request(&registry, cache, 1, &[])
        }
    };
    // The operator's own word for where the name leads counts.
    run(store.path(), named("victim", false), "").await;
    let other = run(store.path(), named("other", false), "").await;
    assert!(!used(&other, &registry, size).1);
    let attacker = run(store.path(), named("attacker", true), "").await;
    assert_eq!(used(&attacker, &registry, size), ("fetched", true));
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_an_image_that_a_complete_pull_proved_public_are_used_without_a_question() {
    let (registry, store) = (Registry::start().await, tempfile::tempdir().unwrap());
    let size = SECRET.len() as u64;
    for (cache, image, right) in [("a", "one", ("fetched", true)), ("b", "two", ("public", false))] {
        registry.image(image, "1", "linux/amd64", &[&SECRET, image.as_bytes()]);
        let name = format!("{image}:1");
        let wanted = PullRequest {
            public_registries: vec![registry.host()],
            ..request(&registry, cache, 1, &[&name])
        };
        let before = registry.served_of(&secret());
        let outcome = run(store.path(), wanted, "").await;
        assert_eq!(used(&outcome, &registry, before), right);
    }
    assert_eq!(registry.served_of(&secret()), size);
    assert!(!registry.lines().iter().any(|line| line.starts_with("HEAD /v2/two/blobs")));
}
