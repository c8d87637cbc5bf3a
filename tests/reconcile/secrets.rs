//! Pull secrets: which entries reach the worker, and when.

use super::*;

#[tokio::test]
async fn only_entries_for_the_images_hosts_reach_the_worker() {
    let mut world = World::new();
    let auths = json!({"reg.example.com": {"auth": "dTpw"}, "other.example.com": {"auth": "dTpvdGhlcg=="}});
    world.server.put("/api/v1/namespaces/team/secrets/a", pull_secret("a", &auths));
    let spec = json!({"images": ["reg.example.com/team/app:1", "nginx"], "imagePullSecrets": ["team:a"]});
    world.apply("shop", UID, &spec);
    for _ in 0..2 {
        world.pass("shop").await.unwrap();
        world.see_cache("shop");
    }
    let secret = world.server.get(&format!("{SECRETS}/{}-credentials", job(1))).unwrap();
    let file: k8s_openapi::ByteString = serde_json::from_value(secret["data"]["00.json"].clone()).unwrap();
    let file = String::from_utf8(file.0).unwrap();
    assert!(file.contains("reg.example.com") && !file.contains("other"), "{file}");
    let made = world.server.get(&format!("{JOBS}/{}", job(1))).unwrap().to_string();
    assert!(!made.contains("dTpw"), "no credential is in the Job");
}

#[tokio::test]
async fn a_pull_secret_that_is_renewed_reaches_the_worker_that_is_running() {
    let mut world = World::new();
    let auths = |auth: &str| json!({"reg.example.com": {"auth": auth}});
    world.server.put("/api/v1/namespaces/team/secrets/a", pull_secret("a", &auths("dTpw")));
    world.apply(
        "shop",
        UID,
        &json!({"images": ["reg.example.com/team/app:1"], "imagePullSecrets": ["team:a"]}),
    );
    for _ in 0..2 {
        world.pass("shop").await.unwrap();
        world.see_cache("shop");
    }
    world.see_job(&job(1));
    world.server.put("/api/v1/namespaces/team/secrets/a", pull_secret("a", &auths("dTpuZXc=")));
    world.context.cluster.secret_reads.forget(&UID.parse().unwrap());
    world.pass("shop").await.unwrap();
    let secret = world.server.get(&format!("{SECRETS}/{}-credentials", job(1))).unwrap();
    let file: k8s_openapi::ByteString = serde_json::from_value(secret["data"]["00.json"].clone()).unwrap();
    assert!(String::from_utf8(file.0).unwrap().contains("dTpuZXc="), "a minute later it is read again");
}

#[tokio::test]
async fn a_missing_or_forbidden_secret_makes_no_job_and_is_said() {
    for refused in [None, Some(("GET secrets/a".to_owned(), http::StatusCode::FORBIDDEN))] {
        let mut world = World::new();
        world.server.with(|state| state.refuse = refused);
        let spec = json!({"images": ["reg.example.com/team/app:1"], "imagePullSecrets": ["team:a"]});
        world.apply("shop", UID, &spec);
        for _ in 0..2 {
            world.pass("shop").await.unwrap();
            world.see_cache("shop");
        }
        assert_eq!(world.status("shop")["reason"], "SecretMissing");
        assert!(!world.server.requests().iter().any(|line| line.starts_with("POST jobs")));
    }
}
