//! Password-free pulls: from the annotations to the credentials Secret of a run, over a scripted STS and ACR.

use std::sync::Arc;

use imagecache::{
    acr::{Acr, endpoints::Endpoints, identity::Identity},
    cluster::logins::Logins,
    model::acr::Allowed,
};

use super::*;
use crate::cloud::Cloud;

const HOST: &str = "shop-registry.cn-hangzhou.cr.aliyuncs.com";
const ROLE: &str = "acs:ram::160998252:role/role-assume";

struct Lent {
    world: World,
    cloud: Cloud,
    keys: tempfile::TempDir,
}

impl Lent {
    /// The operator has an access key; its user may assume one role, and one instance is lent without a role.
    async fn start() -> Self {
        let allowed = Allowed {
            roles: vec!["acs:ram::160998252:role/role-*".parse().unwrap()],
            instances: vec!["cri-own01".parse().unwrap()],
            ..Allowed::default()
        };
        let world = World::with(Settings { acr: Some(allowed), ..Settings::default() });
        let (cloud, keys) = (Cloud::start().await, tempfile::tempdir().unwrap());
        std::fs::write(keys.path().join("access-key-id"), "LTAI5t").unwrap();
        std::fs::write(keys.path().join("access-key-secret"), "us3r-s3cret").unwrap();
        cloud.user("operator", "LTAI5t", "us3r-s3cret");
        cloud.role(ROLE, &["operator"], &["cri-own01"]);
        cloud.instance("cri-own01", "cn-hangzhou", "shop", &[HOST]);
        let mut lent = Self { world, cloud, keys };
        lent.change_leader();
        lent
    }

    /// Another process knows nothing of what this one took.
    fn change_leader(&mut self) {
        let here = Some(self.cloud.url().parse().unwrap());
        let endpoints = Endpoints { acr: here.clone(), sts: here, ..Endpoints::default() };
        let acr = Acr::new(Identity::KeyFolder(self.keys.path().to_owned()), endpoints).unwrap();
        let context = Arc::get_mut(&mut self.world.context).unwrap();
        context.cluster.logins = Arc::new(Logins::new(Some(acr)));
    }

    fn annotate(&mut self, annotations: &Value, image: &str) {
        self.world.apply("shop", UID, &json!({"images": [image]}));
        let path = format!("{CACHES}/shop");
        let mut object = self.world.server.get(&path).unwrap();
        object["metadata"]["annotations"] = annotations.clone();
        self.world.server.put(&path, object);
        self.world.see_cache("shop");
    }

    /// The run is written down, then started.
    async fn twice(&mut self) -> Result<(), Error> {
        self.world.pass("shop").await?;
        self.world.see_cache("shop");
        let started = self.world.pass("shop").await;
        self.world.see_cache("shop");
        started
    }

    fn login(&self) -> Option<String> {
        let secret = self.world.server.get(&format!("{SECRETS}/{}-credentials", job(1)))?;
        let file = secret["data"].get("login.json")?.clone();
        let file: k8s_openapi::ByteString = serde_json::from_value(file).ok()?;
        String::from_utf8(file.0).ok()
    }

    fn conditions(&self) -> String {
        self.world.status("shop").to_string()
    }

    /// Nothing secret is anywhere but in the credentials Secret, and there no key of the operator's.
    fn assert_no_secret_leaked(&self) {
        let logins = self.cloud.issued().into_iter().map(|(_, password)| password);
        self.world.server.with(|state| {
            for secret in logins.chain(self.cloud.secrets()) {
                let encoded = serde_json::to_string(&k8s_openapi::ByteString(secret.clone().into())).unwrap();
                for (path, object) in &state.objects {
                    let text = object.to_string();
                    assert!(!text.contains(&secret) && !text.contains(encoded.trim_matches('"')), "{path}");
                }
            }
        });
        let login = self.login().unwrap_or_default();
        assert!(self.cloud.secrets().iter().all(|secret| !login.contains(secret)));
    }
}

#[tokio::test]
async fn a_run_gets_its_login_just_before_its_job_and_a_settled_object_asks_nobody() {
    let mut lent = Lent::start().await;
    lent.annotate(
        &json!({"k8s.aliyun.com/acr-instance-ids": "cri-own01", "k8s.aliyun.com/acr-service-arns": ROLE}),
        &format!("{HOST}/team/app:1"),
    );
    lent.world.pass("shop").await.unwrap();
    lent.world.see_cache("shop");
    assert_eq!(lent.cloud.asked(), Vec::<String>::new(), "the run is written down first");
    lent.world.pass("shop").await.unwrap();
    assert_eq!(lent.cloud.asked(), ["AssumeRole", "GetAuthorizationToken"]);
    let (user, password) = lent.cloud.issued().remove(0);
    let login = lent.login().unwrap();
    assert!(login.contains(HOST) && login.contains(&user) && login.contains(&password), "{login}");
    lent.world.see_cache("shop");
    lent.world.see_job(&job(1));
    for _ in 0..3 {
        lent.world.pass("shop").await.unwrap();
        lent.world.see_cache("shop");
    }
    assert_eq!(lent.cloud.asked(), Vec::<String>::new(), "it lives for an hour");
    lent.assert_no_secret_leaked();
}

#[tokio::test]
async fn a_login_is_renewed_under_a_running_worker_and_one_that_cannot_be_stays() {
    let mut lent = Lent::start().await;
    lent.annotate(&json!({"k8s.aliyun.com/acr-instance-ids": "cri-own01"}), &format!("{HOST}/team/app:1"));
    lent.twice().await.unwrap();
    lent.world.see_job(&job(1));
    let first = lent.login().unwrap();
    lent.change_leader();
    lent.world.pass("shop").await.unwrap();
    let second = lent.login().unwrap();
    assert_ne!(first, second);
    lent.world.pass("shop").await.unwrap();
    assert_eq!(lent.login().unwrap(), second, "once is enough");

    lent.cloud.break_with(Some((500, r#"{"Code":"SystemError"}"#)));
    lent.world.context.cluster.logins.forget(&UID.parse().unwrap());
    lent.world.pass("shop").await.unwrap();
    assert_eq!(lent.login().unwrap(), second, "it may still work");
    assert!(lent.world.server.get(&format!("{JOBS}/{}", job(1))).is_some(), "and the pull goes on");
    lent.cloud.break_with(None);
    lent.world.context.cluster.logins.forget(&UID.parse().unwrap());
    lent.world.pass("shop").await.unwrap();
    assert_ne!(lent.login().unwrap(), second);
    lent.assert_no_secret_leaked();
}

#[tokio::test]
async fn a_role_that_is_denied_fails_the_run_with_the_vendors_phrase_and_makes_no_job() {
    let mut lent = Lent::start().await;
    lent.cloud.role(ROLE, &["somebody-else"], &["cri-own01"]);
    let annotations = json!({"k8s.aliyun.com/acr-service-arns": ROLE});
    lent.annotate(&annotations, &format!("{HOST}/team/app:1"));
    let error = lent.twice().await.unwrap_err();
    assert!(matches!(error.why, Why::Login(_)) && error.is_race(), "{error}");
    lent.world.pass("shop").await.unwrap();
    let status = lent.world.status("shop");
    assert_eq!((status["phase"].as_str(), status["reason"].as_str()), (Some("Failed"), Some("Auth")));
    let said = lent.conditions();
    assert!(said.contains("You should be authorized by RAM") && said.contains(ROLE), "{said}");
    assert!(lent.world.server.get(&format!("{JOBS}/{}", job(1))).is_none());
    assert!(lent.login().is_none());
    let asked = lent.cloud.asked();
    lent.world.see_cache("shop");
    lent.world.pass("shop").await.unwrap();
    assert_eq!((asked.len(), lent.cloud.asked().len()), (1, 0), "and it is not asked again at once");
    lent.assert_no_secret_leaked();
}

#[tokio::test]
async fn an_outage_of_the_vendor_is_a_transient_failure() {
    let mut lent = Lent::start().await;
    lent.cloud.break_with(Some((503, "busy")));
    lent.annotate(&json!({"k8s.aliyun.com/acr-instance-ids": "cri-own01"}), &format!("{HOST}/team/app:1"));
    lent.twice().await.unwrap_err();
    lent.world.pass("shop").await.unwrap();
    let status = lent.world.status("shop");
    assert_eq!(
        (status["phase"].as_str(), status["reason"].as_str()),
        (Some("Creating"), Some("ServerError"))
    );
}

#[tokio::test]
async fn what_the_operator_does_not_lend_is_invalid_and_nobody_is_asked() {
    for (key, value, says) in [
        (
            "k8s.aliyun.com/acr-service-arns",
            "acs:ram::1:role/role-assume",
            "--allow-acr-roles=acs:ram::1:role",
        ),
        ("k8s.aliyun.com/acr-instance-ids", "cri-other1", "--allow-acr-instances=cri-other1"),
        ("k8s.aliyun.com/acr-instance-ids", "acr-1234", "write cri-..."),
    ] {
        let mut lent = Lent::start().await;
        lent.annotate(&json!({ key: value }), &format!("{HOST}/team/app:1"));
        lent.twice().await.unwrap();
        assert_eq!(lent.world.status("shop")["reason"], "InvalidSpec", "{value}");
        assert!(lent.conditions().contains(says), "{}", lent.conditions());
        assert_eq!(lent.cloud.asked(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn an_objects_own_word_about_a_host_costs_it_the_login() {
    let mut lent = Lent::start().await;
    let annotations =
        json!({"k8s.aliyun.com/acr-instance-ids": "cri-own01", "k8s.aliyun.com/insecure-registry": HOST});
    lent.annotate(&annotations, &format!("{HOST}/team/app:1"));
    lent.twice().await.unwrap();
    assert_eq!((lent.cloud.asked(), lent.login()), (vec![], None));
    assert!(lent.conditions().contains("no password-free login"), "{}", lent.conditions());
}
