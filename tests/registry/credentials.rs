//! Who is told what.

use super::*;
use crate::upstream::{Bearer, Fault, Login};

const TEAM: (&str, &str) = ("me", "s3cret-password");

async fn registry(login: Login) -> Registry {
    let registry = Registry::start().await;
    registry.image("team/app", "1", "linux/amd64", &[b"layer"]);
    registry.login(login);
    registry
}

fn bearer() -> Bearer {
    Bearer { users: vec![TEAM], ..Bearer::default() }
}

fn keyed(registry: &Registry) -> Client {
    with_keys(registry, &[(registry.host().as_str(), TEAM.0, TEAM.1)])
}

async fn resolve(client: &Client, registry: &Registry) -> Result<(), Failure> {
    client.resolve(&registry.reference("team/app:1")).await.map(|_| ())
}

#[tokio::test]
async fn basic_credentials_are_sent_only_after_they_were_asked_for_and_then_at_once() {
    let registry = registry(Login::Basic(vec![TEAM])).await;
    let client = keyed(&registry);
    for _ in 0..3 {
        resolve(&client, &registry).await.unwrap();
    }
    let sent: Vec<bool> = registry.seen().iter().map(|s| s.header("authorization").is_some()).collect();
    assert_eq!(sent, [false, true, true, true]);
}

#[tokio::test]
async fn a_token_is_fetched_once_per_repository_and_used_for_all_that_follows() {
    let registry = registry(Login::Bearer(bearer())).await;
    let blob = registry.put_blob("team/app", noise(100));
    let client = keyed(&registry);
    resolve(&client, &registry).await.unwrap();
    read(&client, &registry, &blob, 100, 0).await.unwrap();
    let tokens: Vec<_> = registry.seen().into_iter().filter(|s| s.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1);
    assert!(tokens[0].path.contains("service=scripted"), "{}", tokens[0].path);
    assert!(tokens[0].path.contains("scope=repository%3Ateam%2Fapp%3Apull"), "{}", tokens[0].path);
    assert!(!tokens[0].path.contains("s3cret"));
}

#[tokio::test]
async fn many_at_once_share_one_token() {
    let registry = registry(Login::Bearer(bearer())).await;
    let client = keyed(&registry);
    let all = (0..8).map(|_| resolve(&client, &registry));
    for result in futures::future::join_all(all).await {
        result.unwrap();
    }
    assert_eq!(registry.lines().iter().filter(|l| l.contains("/token")).count(), 1);
}

#[tokio::test]
async fn an_identity_token_travels_in_a_form() {
    let registry = registry(Login::Bearer(Bearer { refresh: Some("s3cret-refresh"), ..bearer() })).await;
    let file = format!(r#"{{"auths":{{"{}":{{"identitytoken":"s3cret-refresh"}}}}}}"#, registry.host());
    let credentials = CredentialSource::Fixed(Credentials::parse([file]));
    let client = Client::new(Config { credentials, ..config(&[&registry]) }).unwrap();
    resolve(&client, &registry).await.unwrap();
    let token = registry.seen().into_iter().find(|s| s.path.starts_with("/token")).unwrap();
    assert_eq!((token.method.as_str(), token.path.as_str()), ("POST", "/token"));
    assert!(token.body.contains("grant_type=refresh_token"), "{}", token.body);
}

#[tokio::test]
async fn every_matching_credential_is_tried_and_the_one_that_worked_is_kept() {
    for login in [Login::Basic(vec![TEAM]), Login::Bearer(bearer())] {
        let registry = registry(login).await;
        let host = registry.host();
        let longer = format!("{host}/team/app");
        let client = with_keys(&registry, &[(&longer, "old", "s3cret"), (host.as_str(), TEAM.0, TEAM.1)]);
        resolve(&client, &registry).await.unwrap();
        registry.forget();
        resolve(&client, &registry).await.unwrap();
        assert_eq!(registry.lines(), ["HEAD /v2/team/app/manifests/1"]);
    }
}

#[tokio::test]
async fn a_registry_that_always_says_401_is_left_alone_soon() {
    for (login, most) in [(Login::Basic(vec![]), 4), (Login::Bearer(Bearer::default()), 4)] {
        let registry = registry(login).await;
        let failure = resolve(&keyed(&registry), &registry).await.unwrap_err();
        is(&failure, Class::Auth, &["team/app:1", "pull access denied", "401"]);
        assert!(registry.lines().len() <= most, "{:?}", registry.lines());
    }
    let registry = registry(Login::Open).await;
    let challenge = vec![("www-authenticate", format!(r#"Bearer realm="{}""#, registry.url("/token")))];
    registry.login(Login::Bearer(bearer()));
    registry.always("/v2/", Fault::Status(401, challenge, ""));
    is(&resolve(&keyed(&registry), &registry).await.unwrap_err(), Class::Auth, &["401"]);
    assert!(registry.lines().len() <= 6, "{:?}", registry.lines());
}

#[tokio::test]
async fn without_a_credential_the_failure_says_that_none_matches() {
    let registry = registry(Login::Basic(vec![TEAM])).await;
    let failure = resolve(&client(&registry), &registry).await.unwrap_err();
    is(&failure, Class::Auth, &["no pull secret is for it"]);
}

#[tokio::test]
async fn a_token_that_went_stale_is_replaced_once() {
    let registry = registry(Login::Bearer(bearer())).await;
    let client = keyed(&registry);
    resolve(&client, &registry).await.unwrap();
    registry.forget();
    let challenge = vec![("www-authenticate", format!(r#"Bearer realm="{}""#, registry.url("/token")))];
    registry.script("/v2/", 1, Fault::Status(401, challenge, ""));
    resolve(&client, &registry).await.unwrap();
    assert_eq!(registry.lines().iter().filter(|l| l.contains("/token")).count(), 1);
}

#[tokio::test]
async fn a_token_is_not_used_in_its_last_ten_seconds() {
    let registry = registry(Login::Bearer(Bearer { expires_in: Some(100), ..bearer() })).await;
    let client = keyed(&registry);
    for (later, fetched) in [(0, 1), (85, 1), (10, 2)] {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(later)).await;
        tokio::time::resume();
        resolve(&client, &registry).await.unwrap();
        assert_eq!(registry.lines().iter().filter(|l| l.contains("/token")).count(), fetched);
    }
}

#[tokio::test]
async fn a_scope_that_was_too_small_is_widened_once() {
    let registry = registry(Login::Bearer(Bearer { scope: Some("repository:other:pull"), ..bearer() })).await;
    resolve(&keyed(&registry), &registry).await.unwrap();
    let scopes: Vec<String> =
        registry.seen().iter().filter(|s| s.path.starts_with("/token")).map(|s| s.path.clone()).collect();
    assert_eq!(scopes.len(), 2);
    assert!(scopes[1].contains("other") && scopes[1].contains("team"), "{scopes:?}");
}

#[tokio::test]
async fn credentials_are_read_again_from_their_files_when_they_no_longer_do() {
    let registry = registry(Login::Basic(vec![("me", "new-s3cret")])).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let write = |password: &str| {
        let auths = serde_json::json!({registry.host().as_str(): {"username": "me", "password": password}});
        std::fs::write(&file, serde_json::json!({ "auths": auths }).to_string()).unwrap();
    };
    write("old-s3cret");
    let credentials = CredentialSource::Files(vec![folder.path().to_owned()]);
    let client = Client::new(Config { credentials, ..config(&[&registry]) }).unwrap();
    is(&resolve(&client, &registry).await.unwrap_err(), Class::Auth, &["401"]);
    write("new-s3cret");
    resolve(&client, &registry).await.unwrap();
}

#[tokio::test]
async fn a_missing_credentials_file_is_named() {
    let credentials = CredentialSource::Files(vec!["/nonexistent/config.json".into()]);
    let failure = Client::new(Config { credentials, ..Config::default() }).err().unwrap();
    is(&failure, Class::SecretMissing, &["/nonexistent/config.json"]);
}

#[tokio::test]
async fn credentials_go_to_no_realm_that_is_not_the_registrys_own_unless_it_is_allowed() {
    let other = registry(Login::Bearer(bearer())).await;
    // `localhost` and 127.0.0.1 are two names.
    let realm = format!("http://localhost:{}/token", other.address.port());
    let registry = registry(Login::Bearer(Bearer { realm: Some(realm), ..bearer() })).await;
    let failure = resolve(&keyed(&registry), &registry).await.unwrap_err();
    let allow = format!("--auth-realm {}=localhost", registry.host());
    is(&failure, Class::Auth, &[&allow]);
    assert_eq!(other.lines().len(), 0);

    let allowed = Config {
        credentials: keys(&[(registry.host().as_str(), TEAM.0, TEAM.1)]),
        auth_realms: vec![(registry.host(), "localhost".into())],
        ..config(&[&registry])
    };
    let _ = resolve(&Client::new(allowed).unwrap(), &registry).await;
    assert!(other.seen().iter().any(|s| s.header("authorization").is_some()));
}

#[tokio::test]
async fn a_realm_without_https_or_at_a_metadata_address_is_refused() {
    let registry = Registry::start_tls(&["127.0.0.1"]).await;
    registry.image("team/app", "1", "linux/amd64", &[b"layer"]);
    for (realm, class, words) in [
        (format!("http://{}/token", registry.address), Class::Auth, "not reached by HTTPS"),
        ("not a url".into(), Class::Auth, "no URL"),
        ("https://169.254.169.254/token".into(), Class::Unsupported, "never contacted"),
        ("https://user:s3cret@127.0.0.1/token".into(), Class::Auth, "user name"),
    ] {
        registry.login(Login::Bearer(Bearer { realm: Some(realm), ..bearer() }));
        is(&resolve(&client(&registry), &registry).await.unwrap_err(), class, &[words]);
    }
}

#[tokio::test]
async fn the_token_service_is_not_followed_elsewhere_and_its_failures_have_a_class() {
    let registry = registry(Login::Bearer(bearer())).await;
    let client = keyed(&registry);
    for (fault, class) in [
        (Fault::Redirect(registry.url("/elsewhere")), Class::BadContent),
        (Fault::Status(400, vec![], "s3cret"), Class::Auth),
        (Fault::status(503), Class::ServerError),
        (Fault::Longer(70_000), Class::BadContent),
        (Fault::status(200), Class::Auth),
    ] {
        registry.script("/token", 10, fault.clone());
        let failure = resolve(&client, &registry).await.unwrap_err();
        is(&failure, class, &["token service 127.0.0.1"]);
        registry.use_up("/token");
    }
}

#[tokio::test]
async fn credentials_are_not_sent_over_plain_http_where_the_operator_forbids_it() {
    for login in [Login::Basic(vec![TEAM]), Login::Bearer(bearer())] {
        let registry = registry(login).await;
        let credentials = keys(&[(registry.host().as_str(), TEAM.0, TEAM.1)]);
        let config = Config { credentials, credentials_over_http: false, ..config(&[&registry]) };
        let failure = resolve(&Client::new(config).unwrap(), &registry).await.unwrap_err();
        is(&failure, Class::Auth, &["plain HTTP"]);
        assert!(registry.seen().iter().all(|s| s.header("authorization").is_none()));
    }
}
