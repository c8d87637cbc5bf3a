//! Password-free logins against a scripted STS and ACR: every case of the vendor's page, and what is refused.
#![allow(clippy::unwrap_used)]

#[path = "support/acr/mod.rs"]
mod cloud;
#[path = "support/registry/mod.rs"]
mod upstream;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use cloud::Cloud;
use imagecache::{
    acr::{Acr, Taken, endpoints::Endpoints, identity::Identity},
    model::{
        acr::{self, Allowed, Asked, INSTANCE_IDS, Logins, SERVICE_ARNS, USER_ARNS, decide},
        class::Class,
        credentials::{Credentials, Secret},
        failure::Failure,
        reference::RegistryHost,
        request::{Access, Transport},
    },
    registry::{Client, Config, CredentialSource},
};
use serde_json::json;
use upstream::{Bearer, Login, Registry};

const ACCOUNT: &str = "system:serviceaccount:imagecache-system:imagecache-controller";
const RRSA: &str = "acs:ram::160998252:role/imagecache-rrsa";
const ROLE_A: &str = "acs:ram::160998252:role/role-assume";
const ROLE_B: &str = "acs:ram::129845258:role/role-acr";
const SHOP: &str = "shop-registry.cn-hangzhou.cr.aliyuncs.com";

struct World {
    cloud: Cloud,
    folder: tempfile::TempDir,
}

impl World {
    /// A service account whose role may pull from one instance and assume role A, which may assume role B.
    async fn start() -> Self {
        let (cloud, folder) = (Cloud::start().await, tempfile::tempdir().unwrap());
        cloud.service_account("header.payload.s3cret", ACCOUNT);
        cloud.user("operator", "LTAI5t", "us3r-s3cret");
        cloud.role(RRSA, &[ACCOUNT], &["cri-own01"]);
        cloud.role(ROLE_A, &[RRSA, "operator"], &["cri-own01", "personal"]);
        cloud.role(ROLE_B, &[ROLE_A], &["cri-theirs1", "cri-theirs2"]);
        cloud.instance("cri-own01", "cn-hangzhou", "shop", &[SHOP, "images.example.com"]);
        cloud.instance(
            "cri-theirs1",
            "cn-beijing",
            "theirs",
            &["theirs-registry.cn-beijing.cr.aliyuncs.com"],
        );
        cloud.instance("cri-theirs2", "cn-beijing", "more", &["more-registry.cn-beijing.cr.aliyuncs.com"]);
        for (name, text) in [
            ("token", "header.payload.s3cret\n"),
            ("access-key-id", "LTAI5t\n"),
            ("access-key-secret", "us3r-s3cret\n"),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        Self { cloud, folder }
    }

    fn endpoints(&self) -> Endpoints {
        let here = |url: String| Some(url.parse().unwrap());
        let region = Some("cn-hangzhou".parse().unwrap());
        Endpoints { acr: here(self.cloud.url()), sts: here(self.cloud.url()), region, vpc: false }
    }

    fn rrsa(&self) -> Acr {
        let identity = Identity::Rrsa {
            role: RRSA.parse().unwrap(),
            provider: "acs:ram::160998252:oidc-provider/ack-rrsa-c1".into(),
            token_file: self.folder.path().join("token"),
        };
        Acr::new(identity, self.endpoints()).unwrap()
    }

    fn keys(&self) -> Acr {
        Acr::new(Identity::KeyFolder(self.folder.path().to_owned()), self.endpoints()).unwrap()
    }
}

fn wanted(instances: &str, service: &str, user: &str, hosts: &[&str]) -> Logins {
    let mut asked = Asked::default();
    let set = |text: &str| !text.is_empty();
    if set(instances) {
        asked.set_instances(INSTANCE_IDS, acr::instances(instances).unwrap());
    }
    if set(service) {
        asked.set_service(SERVICE_ARNS, acr::one_role(service).unwrap());
    }
    if set(user) {
        asked.set_user(USER_ARNS, acr::one_role(user).unwrap());
    }
    let hosts: Vec<RegistryHost> = hosts.iter().map(|host| host.parse().unwrap()).collect();
    let allowed =
        Allowed { everything: true, region: Some("cn-hangzhou".parse().unwrap()), ..Allowed::default() };
    let decision = decide(&asked, &hosts, |_| false, Some(&allowed));
    assert_eq!(decision.invalid, vec![]);
    decision.logins
}

/// User and password for the host.
fn login(taken: &Taken, host: &str) -> Option<(String, String)> {
    let credentials = Credentials::parse(taken.docker_config.iter());
    let found = credentials.candidates(&host.parse().unwrap(), "team/app");
    found.first().map(|credential| match credential.secret() {
        Secret::Basic { username, password } => (username.clone(), password.clone()),
        Secret::Identity { .. } => unreachable!(),
    })
}

#[tokio::test]
async fn each_case_of_the_vendors_page_ends_in_a_login_of_the_right_instance() {
    let world = World::start().await;
    let theirs = "theirs-registry.cn-beijing.cr.aliyuncs.com";
    let more = "more-registry.cn-beijing.cr.aliyuncs.com";
    let personal = "registry.cn-hangzhou.aliyuncs.com";
    let oidc = "AssumeRoleWithOIDC";
    for (acr, wanted, host, user, calls) in [
        (
            world.rrsa(),
            wanted("cri-own01", "", "", &[SHOP]),
            SHOP,
            "cri-own01",
            vec![oidc, "GetAuthorizationToken"],
        ),
        (
            world.rrsa(),
            wanted("cri-own01", "", "", &["images.example.com", "quay.io", "docker.io"]),
            "images.example.com",
            "cri-own01",
            vec![oidc, "ListInstanceEndpoint", "GetAuthorizationToken"],
        ),
        (
            world.rrsa(),
            wanted("", ROLE_A, "", &[SHOP]),
            SHOP,
            "cri-own01",
            vec![oidc, "AssumeRole", "ListInstance", "GetAuthorizationToken"],
        ),
        (
            world.rrsa(),
            wanted("", ROLE_A, "", &[personal]),
            personal,
            "personal",
            vec![oidc, "AssumeRole", "tokens"],
        ),
        (
            world.rrsa(),
            wanted("cn-beijing:cri-theirs1", ROLE_A, ROLE_B, &[theirs]),
            theirs,
            "cri-theirs1",
            vec![oidc, "AssumeRole", "AssumeRole", "GetAuthorizationToken"],
        ),
        (
            world.keys(),
            wanted("cn-beijing:cri-theirs1,cn-beijing:cri-theirs2", ROLE_A, ROLE_B, &[more]),
            more,
            "cri-theirs2",
            vec![
                "AssumeRole",
                "AssumeRole",
                "ListInstanceEndpoint",
                "ListInstanceEndpoint",
                "GetAuthorizationToken",
            ],
        ),
        (
            world.keys(),
            wanted("cri-own01", "", "", &[SHOP]),
            SHOP,
            "cri-own01",
            vec!["GetAuthorizationToken"],
        ),
        // The role that the service account has already is not assumed from itself.
        (
            world.rrsa(),
            wanted("cri-own01", RRSA, "", &[SHOP]),
            SHOP,
            "cri-own01",
            vec![oidc, "GetAuthorizationToken"],
        ),
    ] {
        let taken = acr.logins(&wanted).await.unwrap();
        let (name, password) = login(&taken, host).unwrap();
        assert_eq!(name, format!("cr_temp_user-{user}"));
        assert_eq!(world.cloud.issued().last().unwrap().1, password);
        assert_eq!(world.cloud.asked(), calls, "{host}");
        assert_eq!(login(&taken, "quay.io"), None, "a host that ACR does not vouch for gets nothing");
        assert!(taken.expires.unwrap() > imagecache::ops::clock::now());
        assert!(!format!("{taken:?}").contains("p4ss"));
    }
}

#[tokio::test]
async fn every_session_may_do_the_next_step_and_nothing_else() {
    let world = World::start().await;
    let theirs = "theirs-registry.cn-beijing.cr.aliyuncs.com";
    let wanted = wanted("cn-beijing:cri-theirs1", ROLE_A, ROLE_B, &[theirs]);
    world.rrsa().logins(&wanted).await.unwrap();
    let policies: BTreeMap<String, _> = world.cloud.policies().into_iter().collect();
    for (who, action, resource) in [
        (RRSA, json!("sts:AssumeRole"), "acs:ram:*:160998252:role/role-assume"),
        (ROLE_A, json!("sts:AssumeRole"), "acs:ram:*:129845258:role/role-acr"),
        (ROLE_B, json!(["cr:Get*", "cr:List*", "cr:Pull*"]), "*"),
    ] {
        let policy = policies[who].clone().unwrap();
        assert_eq!(policy["Statement"].as_array().unwrap().len(), 1);
        assert_eq!(
            policy["Statement"][0],
            json!({"Effect": "Allow", "Action": action, "Resource": resource})
        );
    }
}

#[tokio::test]
async fn one_instance_behind_two_names_is_asked_once() {
    let world = World::start().await;
    let vpc = "shop-registry-vpc.cn-hangzhou.cr.aliyuncs.com";
    let taken = world.keys().logins(&wanted("cri-own01", "", "", &[SHOP, vpc])).await.unwrap();
    assert_eq!(login(&taken, SHOP), login(&taken, vpc));
    assert_eq!(world.cloud.asked(), ["GetAuthorizationToken"]);
}

async fn refused(acr: &Acr, wanted: &Logins) -> Failure {
    acr.logins(wanted).await.unwrap_err()
}

#[tokio::test]
async fn what_the_vendor_refuses_has_a_class_the_vendors_phrase_and_no_secret() {
    let world = World::start().await;
    let own = wanted("cri-own01", "", "", &[SHOP]);
    let stranger = "acs:ram::129845258:role/stranger";
    world.cloud.role(stranger, &[], &[]);
    let theirs = "theirs-registry.cn-beijing.cr.aliyuncs.com";
    let by_stranger = wanted("cri-own01", stranger, "", &[SHOP]);
    let no_role = wanted("cri-own01", "acs:ram::1:role/none", "", &[SHOP]);
    let not_his = wanted("cri-theirs1", ROLE_A, "", &[theirs]);
    let unnamed = wanted("", ROLE_A, "", &["other-registry.cn-hangzhou.cr.aliyuncs.com"]);
    let personal = wanted("", ROLE_A, ROLE_B, &["registry.cn-hangzhou.aliyuncs.com"]);
    for (acr, wanted, class, says) in [
        (world.rrsa(), &by_stranger, Class::Auth, "You should be authorized by RAM"),
        (world.rrsa(), &no_role, Class::InvalidSpec, "The role not exists"),
        (world.rrsa(), &not_his, Class::Auth, "HTTP 403 NoPrivilege"),
        (world.rrsa(), &unnamed, Class::InvalidSpec, "no ACR instance other"),
        (world.rrsa(), &personal, Class::Auth, "HTTP 401 UNAUTHORIZED"),
    ] {
        let failure = refused(&acr, wanted).await;
        assert!(failure.class == class && failure.message.contains(says), "{failure}");
        assert!(!failure.message.contains("s3cret"), "{failure}");
    }
    let rrsa = Path::join(world.folder.path(), "token");
    fs::write(&rrsa, "header.payload.old").unwrap();
    let failure = refused(&world.rrsa(), &own).await;
    assert!(failure.class == Class::Auth && failure.message.contains("JsonWebToken is expired"), "{failure}");
    fs::remove_file(&rrsa).unwrap();
    let failure = refused(&world.rrsa(), &own).await;
    assert!(failure.class == Class::Auth && failure.message.contains("token: No such file"), "{failure}");
    fs::write(world.folder.path().join("access-key-secret"), "wr0ng").unwrap();
    let failure = refused(&world.keys(), &own).await;
    assert!(
        failure.class == Class::Auth && failure.message.contains("does not match our calculation"),
        "{failure}"
    );
}

#[tokio::test]
async fn a_clock_that_is_wrong_by_a_quarter_of_an_hour_is_named() {
    let world = World::start().await;
    let own = wanted("cri-own01", "", "", &[SHOP]);
    for (ahead, fine) in [(14 * 60, true), (16 * 60, false), (-16 * 60, false)] {
        world.cloud.set_ahead(ahead);
        for acr in [world.rrsa(), world.keys()] {
            match acr.logins(&own).await {
                Ok(_) => assert!(fine, "{ahead}"),
                Err(failure) => {
                    assert!(
                        !fine && failure.class == Class::Auth && failure.message.contains("clock"),
                        "{failure}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn outages_are_transient() {
    let world = World::start().await;
    let own = wanted("cri-own01", "", "", &[SHOP]);
    for (answer, class) in [
        ((500, r#"{"Code":"SystemError"}"#), Class::ServerError),
        ((503, "<html>busy</html>"), Class::ServerError),
        ((400, r#"{"Code":"Throttling.User"}"#), Class::RateLimited),
        ((200, "<html>a proxy</html>"), Class::ServerError),
    ] {
        world.cloud.break_with(Some(answer));
        for acr in [world.rrsa(), world.keys()] {
            assert_eq!(refused(&acr, &own).await.class, class, "{answer:?}");
        }
    }
    let huge: &'static str = Box::leak(" ".repeat(100_000).into_boxed_str());
    world.cloud.break_with(Some((200, huge)));
    assert_eq!(refused(&world.keys(), &own).await.class, Class::BadContent);

    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let endpoints = Endpoints { acr: Some(gone.parse().unwrap()), ..world.endpoints() };
    let acr = Acr::new(Identity::KeyFolder(world.folder.path().to_owned()), endpoints).unwrap();
    let failure = refused(&acr, &own).await;
    assert!(failure.class == Class::Network && failure.message.contains("connection refused"), "{failure}");
}

#[tokio::test]
async fn a_login_that_ran_out_during_a_pull_is_renewed_where_the_puller_reads_it() {
    let (world, registry) = (World::start().await, Registry::start().await);
    let host = registry.host();
    world.cloud.instance("cri-own01", "cn-hangzhou", "shop", &[host.as_str()]);
    for repository in ["team/app", "other/app"] {
        registry.image(repository, "1", "linux/amd64", &[b"layer"]);
    }
    let wanted = wanted("cri-own01", "", "", &[host.as_str()]);
    let acr = world.rrsa();
    // The registry knows the newest login and nothing else.
    let take = async || {
        let taken = acr.logins(&wanted).await.unwrap();
        let (user, password) = login(&taken, host.as_str()).unwrap();
        let users = vec![(&*user.leak(), &*password.leak())];
        registry.login(Login::Bearer(Bearer { users, ..Bearer::default() }));
        taken.docker_config.unwrap()
    };
    // The worker's mounted Secret, and what a pull by hand holds in memory.
    let mounted = tempfile::tempdir().unwrap();
    let held = Arc::new(Mutex::new(Credentials::default()));
    let write = |config: Vec<u8>| {
        *held.lock().unwrap() = Credentials::parse([&config]);
        fs::write(mounted.path().join("login.json"), config).unwrap();
    };
    for source in [
        CredentialSource::Files(vec![mounted.path().to_owned()]),
        CredentialSource::Shared(Arc::clone(&held)),
    ] {
        write(take().await);
        let access = Access { transport: Transport::PlainHttp, overridden: false };
        let access = BTreeMap::from([(host.clone(), access)]);
        let client = Client::new(Config { access, credentials: source, ..Config::default() }).unwrap();
        client.resolve(&registry.reference("team/app:1")).await.unwrap();
        let renewed = take().await;
        let other = registry.reference("other/app:1");
        assert_eq!(
            client.resolve(&other).await.unwrap_err().class,
            Class::Auth,
            "the old one is worth nothing"
        );
        write(renewed);
        client.resolve(&other).await.unwrap();
    }
}
