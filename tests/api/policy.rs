//! Who may use which pull secret: the admission policy, asked by users with different rights.

use serde_json::{Value, json};

use crate::world::{ALICE, BOB, image_cache, world};

fn with_secrets(name: &str, secrets: &[&str]) -> Value {
    image_cache(name, &json!({"images": ["nginx:1"], "imagePullSecrets": secrets}))
}

#[test]
fn a_secret_that_the_user_may_not_read_is_refused_with_what_to_do() {
    let object = with_secrets("denied", &["denied:login"]);
    let refusal = world().cluster.send(&object, &["create", BOB]).refused();
    let says = "spec.imagePullSecrets[0]: bob may not get secret denied:login: ask its owner for the right to get it";
    assert!(refusal.contains(says), "{refusal}");
    assert!(refusal.contains("Forbidden") || refusal.contains("forbidden"), "{refusal}");
}

#[test]
fn a_grant_of_that_one_secret_is_enough_and_its_neighbour_stays_closed() {
    let world = world();
    world.grant("granted", "alice", &["login"]);
    for separator in [':', '/'] {
        let name = format!("granted-{}", u32::from(separator));
        let send = |secret: &str| {
            world.cluster.send(&with_secrets(&name, &[secret]), &["create", "--dry-run=server", ALICE])
        };
        send(&format!("granted{separator}login")).succeeded("a granted secret");
        let refusal = send(&format!("granted{separator}other")).refused();
        assert!(refusal.contains("alice may not get secret granted"), "{refusal}");
        let elsewhere = send(&format!("default{separator}login")).refused();
        assert!(elsewhere.contains("alice may not get secret default"), "{elsewhere}");
    }
}

#[test]
fn ten_secrets_are_within_the_cost_limit_and_each_is_checked() {
    let world = world();
    let names: Vec<String> = (0..10).map(|i| format!("s{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    world.grant("ten", "alice", &names);
    let secrets: Vec<String> = names.iter().map(|name| format!("ten:{name}")).collect();
    let send = |secrets: &[String]| {
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        world.cluster.send(&with_secrets("ten", &secrets), &["create", "--dry-run=server", ALICE])
    };
    send(&secrets).succeeded("ten granted secrets");
    for i in 0..10 {
        let mut one_is_not = secrets.clone();
        one_is_not[i] = "ten:closed".to_owned();
        let refusal = send(&one_is_not).refused();
        assert!(refusal.contains(&format!("imagePullSecrets[{i}]: alice may not get")), "{refusal}");
        assert!(!refusal.contains("cost limit"), "{refusal}");
    }
}

#[test]
fn a_second_user_cannot_redirect_the_secret_of_the_first() {
    let world = world();
    let cluster = &world.cluster;
    world.grant("shared", "alice", &["login"]);
    cluster.send(&with_secrets("shared", &["shared:login"]), &["create", ALICE]).succeeded("create by alice");

    let annotation = "k8s.aliyun.com/insecure-registry=registry.evil.example";
    let refusal = cluster.kubectl(&["annotate", "ic", "shared", annotation, BOB]).refused();
    assert!(refusal.contains("bob may not get secret shared:login"), "{refusal}");
    let images = r#"{"spec":{"images":["registry.evil.example/x:1"]}}"#;
    let refusal = cluster.kubectl(&["patch", "ic", "shared", "--type=merge", "-p", images, BOB]).refused();
    assert!(refusal.contains("bob may not get secret shared:login"), "{refusal}");

    cluster.run(&["annotate", "ic", "shared", annotation, ALICE]);
    cluster.run(&["label", "ic", "shared", "team=b", BOB]);
    let none = r#"{"spec":{"imagePullSecrets":[]}}"#;
    cluster.run(&["patch", "ic", "shared", "--type=merge", "-p", none, BOB]);
}

#[test]
fn status_and_deletion_are_none_of_the_policys_business() {
    let world = world();
    let cluster = &world.cluster;
    world.grant("status", "alice", &["login"]);
    cluster.send(&with_secrets("status", &["status:login"]), &["create", ALICE]).succeeded("create by alice");
    let status = r#"{"status":{"phase":"Pending"}}"#;
    cluster.run(&["patch", "ic", "status", "--subresource=status", "--type=merge", "-p", status, BOB]);
    cluster.run(&["delete", "ic", "status", BOB]);
    assert_eq!(cluster.get(&["imagecache", "status"]), None);
}

#[test]
fn without_secrets_nobody_is_asked_for_rights_and_an_administrator_passes() {
    let cluster = &world().cluster;
    let open = image_cache("open", &json!({"images": ["nginx:1"]}));
    cluster.send(&open, &["create", "--dry-run=server", BOB]).succeeded("no secrets");
    let any = with_secrets("any", &["kube-system:anything", "default/else"]);
    cluster.send(&any, &["create", "--dry-run=server"]).succeeded("an administrator");
}
