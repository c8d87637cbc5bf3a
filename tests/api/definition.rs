//! The definition on a real API server: it is installed without complaint, is explained, has its names and columns,
//! and refuses what can be refused early with words that say what to do.

use serde_json::json;

use crate::{
    kit::{
        cluster::root,
        kstatus::{Kstatus, Status},
    },
    world::{image_cache, world},
};

#[test]
fn the_install_is_accepted_without_a_warning() {
    assert_eq!(world().install_warnings, "");
}

#[test]
fn the_definition_is_structural_and_its_names_are_taken() {
    let crd = world().cluster.get(&["crd", "imagecaches.eci.alibabacloud.com"]).unwrap();
    let condition = |kind: &str| {
        let all = crd["status"]["conditions"].as_array().unwrap();
        all.iter().find(|condition| condition["type"] == kind).map(|condition| condition["status"].clone())
    };
    assert_eq!(condition("NamesAccepted"), Some(json!("True")));
    assert_eq!(condition("Established"), Some(json!("True")));
    assert_eq!(condition("NonStructuralSchema"), None);
    assert_eq!(crd["spec"]["scope"], "Cluster");
}

#[test]
fn a_strict_apply_of_the_definition_finds_no_unknown_field() {
    let file = root().join("crds/imagecaches.yaml");
    let answer = world().cluster.kubectl(&[
        "create",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        file.to_str().unwrap(),
    ]);
    assert!(!answer.err.contains("unknown field"), "{}", answer.err);
    assert!(answer.ok || answer.err.contains("already exists"), "{}", answer.err);
}

#[test]
fn explain_says_what_may_be_written() {
    let cluster = &world().cluster;
    let spec = cluster.run(&["explain", "imagecache.spec"]);
    for word in ["images", "imagePullSecrets", "imageCacheSize", "retentionDays", "-required-"] {
        assert!(spec.contains(word), "{word} in {spec}");
    }
    assert!(!spec.contains("<no description>"), "{spec}");
    let secrets = cluster.run(&["explain", "imagecache.spec.imagePullSecrets"]);
    assert!(secrets.contains("namespace:name"), "{secrets}");
    let status = cluster.run(&["explain", "imagecache.status"]);
    assert!(!status.contains("<no description>"), "{status}");
}

#[test]
fn it_is_found_by_its_short_names_and_among_all() {
    let cluster = &world().cluster;
    let object = image_cache("found", &json!({"images": ["nginx:1"]}));
    cluster.send(&object, &["apply"]).succeeded("apply");
    for name in ["ic", "imc", "imagecache", "imagecaches.eci.alibabacloud.com"] {
        assert!(cluster.run(&["get", name, "found"]).contains("found"));
    }
    let both = cluster.run(&["get", "ic,imc"]);
    let header: Vec<&str> = both.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["NAME", "AGE", "CACHEID", "PHASE", "PROGRESS", "READY"]);
    let wide = cluster.run(&["get", "ic", "-o", "wide"]);
    for column in ["REASON", "SIZE", "EXPIRES", "IMAGES", "MESSAGE"] {
        assert!(wide.lines().next().unwrap().contains(column), "{wide}");
    }
    let status = r#"{"status":{"expireDateTime":"2100-01-01T00:00:00Z"}}"#;
    cluster.run(&["patch", "ic", "found", "--subresource=status", "--type=merge", "-p", status]);
    let wide = cluster.run(&["get", "ic", "found", "-o", "wide"]);
    assert!(wide.contains("2100-01-01T00:00:00Z") && !wide.contains("<invalid>"), "{wide}");
    assert!(cluster.run(&["get", "all"]).contains("imagecache.eci.alibabacloud.com/found"));
}

#[test]
fn a_fresh_object_is_in_progress_until_somebody_looked_at_it() {
    let cluster = &world().cluster;
    let mut object = image_cache("fresh", &json!({"images": ["nginx:1"]}));
    // A status that is sent along is no status.
    object["status"] = json!({"phase": "Ready", "observedGeneration": 1});
    cluster.send(&object, &["create"]).succeeded("create");
    let read = || Status::of(&cluster.get(&["imagecache", "fresh"]).unwrap()).unwrap();
    assert_eq!((read().observed(), read().kstatus), (-1, Kstatus::InProgress));
    assert_eq!(read().phase(), "");
    let emptied =
        ["patch", "ic", "fresh", "--subresource=status", "--type=merge", "-p", r#"{"status":null}"#];
    cluster.run(&emptied);
    assert_eq!((read().observed(), read().kstatus), (-1, Kstatus::InProgress));
}

#[test]
fn what_is_out_of_bounds_is_refused_with_what_to_write() {
    let images = |n: usize| -> Vec<String> { (0..n).map(|i| format!("nginx:{i}")).collect() };
    let cases = [
        ("21 images", json!({"images": images(21)}), "must have at most 20 items"),
        ("no image", json!({"images": []}), "list at least one image"),
        ("no list of images", json!({}), "spec.images: Required value"),
        ("an empty name", json!({"images": [""]}), "spec.images[0]"),
        (
            "a bare secret name",
            json!({"images": ["nginx"], "imagePullSecrets": ["registry-login"]}),
            "write each secret as namespace:name, for example default:my-registry",
        ),
        ("no namespace", json!({"images": ["nginx"], "imagePullSecrets": [":x"]}), "write each secret as"),
        ("no name", json!({"images": ["nginx"], "imagePullSecrets": ["team:"]}), "write each secret as"),
        ("neither", json!({"images": ["nginx"], "imagePullSecrets": [":"]}), "write each secret as"),
        ("two colons", json!({"images": ["nginx"], "imagePullSecrets": ["a:b:c"]}), "write each secret as"),
        (
            "eleven secrets",
            json!({"images": ["nginx"], "imagePullSecrets": (0..11).map(|i| format!("a:s{i}")).collect::<Vec<_>>()}),
            "must have at most 10 items",
        ),
        ("a small size", json!({"images": ["nginx"], "imageCacheSize": 19}), "from 20 to 32768"),
        ("a large size", json!({"images": ["nginx"], "imageCacheSize": 32769}), "from 20 to 32768"),
        ("a size as text", json!({"images": ["nginx"], "imageCacheSize": "25"}), "must be of type integer"),
        ("no retention", json!({"images": ["nginx"], "retentionDays": 0}), "from 1 to 65536"),
        ("a long retention", json!({"images": ["nginx"], "retentionDays": 65537}), "from 1 to 65536"),
    ];
    for (name, spec, says) in cases {
        let refusal = world().judge(&spec).expect_err(name);
        assert!(refusal.contains(says), "{name}: {refusal}");
    }
}

#[test]
fn the_bounds_themselves_are_accepted() {
    let images: Vec<String> = (0..20).map(|i| format!("registry.example.com:5000/team/app-{i}:1")).collect();
    let secrets: Vec<String> = (0..10).map(|i| format!("default:s{i}")).collect();
    for spec in [
        json!({"images": images, "imagePullSecrets": secrets, "imageCacheSize": 20, "retentionDays": 1}),
        json!({"images": ["nginx"], "imageCacheSize": 32768, "retentionDays": 65536}),
        json!({"images": ["nginx"], "imagePullSecrets": ["default/registry-login", "kube-system:a.b"]}),
    ] {
        assert_eq!(world().judge(&spec), Ok(()));
    }
}
