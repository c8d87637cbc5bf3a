//! Who may use which pull secret: the admission policy, asked by users with different rights.

use serde_json::{Value, json};

use crate::{
    kit::cluster::eventually,
    world::{ALICE, BOB, image_cache, world},
};

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

#[test]
fn a_password_free_login_is_for_those_who_may_use_it() {
    let world = world();
    let (role, instance) = ("acs:ram::1609982529:role/shop", "cn-hangzhou:cri-12345");
    let rule = json!({"apiGroups": ["eci.alibabacloud.com"], "resources": ["acrlogins"], "verbs": ["use"],
        "resourceNames": [role, instance]});
    let subjects = json!([{"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}]);
    let reference =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "shop-acr"});
    for object in [
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "shop-acr"}, "rules": [rule]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "shop-acr"}, "roleRef": reference, "subjects": subjects}),
    ] {
        world.cluster.send(&object, &["apply"]).succeeded("the grant");
    }
    let send = |annotations: Value, user: &str| {
        let mut object = image_cache("lent", &json!({"images": ["nginx:1"]}));
        object["metadata"]["annotations"] = annotations;
        world.cluster.send(&object, &["create", "--dry-run=server", user])
    };
    let service = json!({"k8s.aliyun.com/acr-service-arns": role});
    let alone = json!({"k8s.aliyun.com/acr-instance-ids": instance});
    let with_role =
        json!({"k8s.aliyun.com/acr-service-arns": role, "k8s.aliyun.com/acr-instance-ids": "cri-any12"});
    eventually("the grant", || send(service.clone(), ALICE).ok.then_some(()));
    for annotations in [&service, &alone, &with_role] {
        send(annotations.clone(), ALICE).succeeded("what alice may use");
        let refusal = send(annotations.clone(), BOB).refused();
        assert!(refusal.contains("bob may not use") && refusal.contains("acrlogins"), "{refusal}");
    }
    for (key, value) in [
        ("k8s.aliyun.com/acr-service-arns", "acs:ram::1609982529:role/other"),
        ("k8s.aliyun.com/acr-instance-ids", "cn-hangzhou:cri-12345,cri-other1"),
        ("k8s.aliyun.com/acr-instance-id", "cri-other1"),
        ("k8s.aliyun.com/acr-user-arns", "acs:ram::2:role/theirs"),
    ] {
        let refusal = send(json!({ key: value }), ALICE).refused();
        assert!(refusal.contains(&format!("{key}: alice may not use {value}")), "{refusal}");
    }
}
