//! What each documented manifest of the clouds becomes on each platform: compared with the files in `tests/golden`,
//! which `UPDATE_GOLDEN=1 cargo test --test explain` writes again. And `imagecache explain` as scripts use it.
#![allow(clippy::unwrap_used, clippy::format_push_string)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use imagecache::{
    api::{ImageCache, keys::REFRESH},
    local::explain::{Explained, explain},
    model::{
        cloud::Cloud,
        profile::{Data, Profile},
        settings::Settings,
    },
};
use serde_json::{Value, json};

const MAP: &str = "
subnets:
  vsw-bp1dktddjsg5nktvaaaa: {topology.kubernetes.io/zone: eu-1a}
  vsw-bp1xpiowfm5vo8o3caaaa: {topology.kubernetes.io/zone: eu-1b}
securityGroups:
  sg-bp1dktddjsg5nktvaaaa: {network: registries-only}
eips:
  eip-bp1q5n8cq4p7f6dzuaaaa: {labels: {egress: fixed}, annotations: {egress.example.com/address: fixed}}
newEip: {labels: {egress: any}}
";

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/seeds");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The clouds' pages mask ids and addresses; these stand for them.
fn unmasked(text: &str) -> String {
    [("****", "aaaa"), ("***", "-x"), ("XX.XX", "0.5"), ("xx.xx", "0.5")]
        .iter()
        .fold(text.to_owned(), |text, (mask, value)| text.replace(mask, value))
}

/// Manifests of pods mean a cache of their images, with the pod's annotations.
fn cache(file: &Path) -> ImageCache {
    let text = unmasked(&fs::read_to_string(file).unwrap());
    let object: Value = serde_saphyr::from_str(&text).unwrap();
    if object["kind"] == "ImageCache" {
        return serde_json::from_value(object).unwrap();
    }
    let template = &object["spec"]["template"];
    let images: Vec<&Value> =
        template["spec"]["containers"].as_array().unwrap().iter().map(|c| &c["image"]).collect();
    serde_json::from_value(json!({
        "apiVersion": "eci.alibabacloud.com/v1", "kind": "ImageCache",
        "metadata": {"name": object["metadata"]["name"], "annotations": template["metadata"]["annotations"]},
        "spec": {"images": images},
    }))
    .unwrap()
}

fn settings(cloud: Cloud) -> Settings {
    let map = Data::from([("placement.yaml".to_owned(), MAP.to_owned())]);
    let profile = Arc::new(Profile::read(None, None, Some(&map)));
    Settings {
        cloud,
        namespace: "imagecache-system".into(),
        worker_host: Some("registry.example.com".parse().unwrap()),
        profile,
        ..Settings::default()
    }
}

/// What differs from cache to cache and from platform to platform.
fn told(explained: &Explained) -> Value {
    let pod = explained.pod.clone().unwrap_or_default();
    let mut shape = json!({"metadata": pod["metadata"]});
    for field in ["nodeSelector", "affinity", "tolerations", "hostAliases", "dnsPolicy", "dnsConfig"] {
        if !pod["spec"][field].is_null() {
            shape["spec"][field] = pod["spec"][field].clone();
        }
    }
    let settings: Vec<String> =
        explained.settings.iter().map(|s| format!("{}: {}; {}", s.setting, s.value, s.from)).collect();
    json!({"platform": explained.platform, "settings": settings, "notices": explained.notices, "pod": shape})
}

#[test]
fn documented_manifests_become_what_the_golden_files_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut differ = Vec::new();
    for file in fixtures() {
        let cache = cache(&file);
        let mut text = String::new();
        for cloud in Cloud::ALL {
            let explained = explain(&cache, &settings(cloud));
            assert_eq!(explained.invalid, [], "{}", file.display());
            text += &format!("---\n{}", serde_saphyr::to_string(&told(&explained)).unwrap());
        }
        let golden = folder.join(file.file_name().unwrap());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &text).unwrap();
        }
        if fs::read_to_string(&golden).unwrap_or_default() != text {
            differ.push(golden);
        }
    }
    assert!(differ.is_empty(), "{differ:?} differ: look, then UPDATE_GOLDEN=1 cargo test --test explain");
}

/// Platform, key and value of the cache, then key and value on its pod.
const WAYS: &[(Cloud, &str, &str, &str, &str)] = &[
    (Cloud::Eci, "k8s.aliyun.com/vswitch-ids", "vsw-1, vsw-2", "k8s.aliyun.com/eci-vswitch", "vsw-1,vsw-2"),
    (
        Cloud::Eci,
        "k8s.aliyun.com/vswitch-ids",
        "vsw-1,vsw-2",
        "k8s.aliyun.com/eci-schedule-strategy",
        "VSwitchOrdered",
    ),
    (Cloud::Eci, "k8s.aliyun.com/eip-instance-id", "eip-1", "k8s.aliyun.com/eci-eip-instanceid", "eip-1"),
    (Cloud::Eci, "k8s.aliyun.com/auto-create-eip", "true", "k8s.aliyun.com/eci-with-eip", "true"),
    (
        Cloud::Eci,
        "k8s.aliyun.com/eci-extra-ephemeral-storage",
        "50Gi",
        "k8s.aliyun.com/eci-extra-ephemeral-storage",
        "50Gi",
    ),
    (
        Cloud::Eci,
        "k8s.aliyun.com/eci-max-pending-minute",
        "30",
        "k8s.aliyun.com/eci-max-pending-minute",
        "30",
    ),
    (Cloud::Eci, "k8s.aliyun.com/imc-size", "25", "k8s.aliyun.com/eci-max-pending-minute", "10"),
    (Cloud::Eci, "k8s.aliyun.com/imc-size", "25", "k8s.aliyun.com/eci-fail-strategy", "fail-fast"),
    (
        Cloud::Eci,
        "k8s.ksyun.com/kci-host-aliases",
        r#"[{"ip":"1.2.3.4","hostnames":["a.b","registry.example.com"]}]"#,
        "k8s.aliyun.com/eci-custom-hosts",
        r#"[{"host":"a.b","ip":"1.2.3.4"}]"#,
    ),
    (
        Cloud::Eci,
        "k8s.aliyun.com/insecure-registry",
        "r.example.com,registry.example.com",
        "k8s.aliyun.com/insecure-registry",
        "r.example.com",
    ),
    (Cloud::Kci, "k8s.ksyun.com/kci-subnet-id", "0af1-22", "k8s.ksyun.com/kci-subnet-id", "0af1-22"),
    (
        Cloud::Kci,
        "k8s.aliyun.com/plain-http-registry",
        "r.example.com",
        "k8s.ksyun.com/kci-http-registry",
        "r.example.com",
    ),
    (
        Cloud::Tke,
        "eks.tke.cloud.tencent.com/registry-insecure-skip-verify",
        "all",
        "eks.tke.cloud.tencent.com/registry-insecure-skip-verify",
        "r.example.com",
    ),
    (
        Cloud::Tke,
        "eks.tke.cloud.tencent.com/eip-attributes",
        "",
        "eks.tke.cloud.tencent.com/eip-attributes",
        "",
    ),
    (
        Cloud::Tke,
        "eks.tke.cloud.tencent.com/root-cbs-size",
        "50",
        "eks.tke.cloud.tencent.com/root-cbs-size",
        "50",
    ),
    (
        Cloud::Tke,
        "eks.tke.cloud.tencent.com/security-group-id",
        "sg-1,sg-2",
        "eks.tke.cloud.tencent.com/security-group-id",
        "sg-1,sg-2",
    ),
    (
        Cloud::Tke,
        "k8s.ksyun.com/kci-dns-config",
        r#"{"nameservers":["1.1.1.1"]}"#,
        "eks.tke.cloud.tencent.com/resolv-conf",
        "nameserver 1.1.1.1",
    ),
];

#[test]
fn each_way_to_say_something_reaches_the_pod_of_its_cloud_and_no_other() {
    for (cloud, key, value, on_pod, becomes) in WAYS {
        let explained = shaped(&settings(*cloud), &json!({ *key: value }));
        assert_eq!(explained.invalid, []);
        let pod = explained.pod.unwrap();
        assert_eq!(
            &pod["metadata"]["annotations"][on_pod], becomes,
            "{key} on {cloud}: {:?}",
            explained.notices
        );
        let elsewhere = if *cloud == Cloud::Tke { Cloud::Eci } else { Cloud::Tke };
        let pod = shaped(&settings(elsewhere), &json!({ *key: value })).pod.unwrap();
        assert!(pod["metadata"]["annotations"][on_pod].is_null(), "{key} on {elsewhere}");
    }
    let explained = shaped(&settings(Cloud::Eci), &json!({"k8s.aliyun.com/eci-ram-role-name": "admin"}));
    assert!(!explained.pod.unwrap().to_string().contains("admin"));
    assert!(explained.notices[0].contains("gives them no rights"), "{:?}", explained.notices);
}

fn shaped(settings: &Settings, annotations: &Value) -> Explained {
    let cache = json!({"apiVersion": "eci.alibabacloud.com/v1", "kind": "ImageCache",
        "metadata": {"name": "x", "annotations": annotations}, "spec": {"images": ["r.example.com/a:1"]}});
    explain(&serde_json::from_value(cache).unwrap(), settings)
}

#[test]
fn selectors_of_the_profile_add_to_pods_they_match_and_replace_nothing() {
    let selectors = json!([
        {"name": "ours", "objectSelector": {"matchLabels": {"app.kubernetes.io/component": "worker"}},
         "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "imagecache-system"}},
         "effect": {"annotations": {"k8s.aliyun.com/eci-use-specs": "2-4Gi", "k8s.aliyun.com/eci-vswitch": "vsw-theirs"},
                    "labels": {"team": "images", "app.kubernetes.io/name": "other"}}},
        {"name": "later", "effect": {"annotations": {"k8s.aliyun.com/eci-use-specs": "8-16Gi"}}},
        {"name": "others", "objectSelector": {"matchLabels": {"app": "web"}}, "effect": {"labels": {"no": "no"}}},
    ]);
    let eci = Data::from([("selectors".to_owned(), selectors.to_string())]);
    let profile = Profile::read(Some(&eci), None, None);
    assert_eq!(profile.problems, Vec::<String>::new());
    let settings = Settings { profile: Arc::new(profile), ..settings(Cloud::Eci) };
    let pod = shaped(&settings, &json!({"k8s.aliyun.com/vswitch-ids": "vsw-own"})).pod.unwrap();
    let (annotations, labels) = (&pod["metadata"]["annotations"], &pod["metadata"]["labels"]);
    assert_eq!(annotations["k8s.aliyun.com/eci-vswitch"], "vsw-own");
    assert_eq!(annotations["k8s.aliyun.com/eci-use-specs"], "2-4Gi", "the earlier entry wins");
    assert_eq!(
        (&labels["team"], &labels["app.kubernetes.io/name"]),
        (&json!("images"), &json!("imagecache"))
    );
    assert!(labels["no"].is_null());
    let elsewhere = Settings { cloud: Cloud::Kci, ..settings };
    assert!(shaped(&elsewhere, &json!({})).pod.unwrap()["metadata"]["labels"]["team"].is_null());
}

#[test]
fn the_store_of_one_node_keeps_the_pull_there_with_a_notice() {
    let settings = Settings { one_node: true, ..settings(Cloud::Kubernetes) };
    let keys = json!({"k8s.aliyun.com/vswitch-ids": "vsw-bp1dktddjsg5nktvaaaa",
        "k8s.aliyun.com/security-group-id": "sg-bp1dktddjsg5nktvaaaa"});
    let explained = shaped(&settings, &keys);
    let pod = explained.pod.unwrap();
    assert!(
        pod["spec"]["affinity"]["nodeAffinity"].is_null()
            && pod["spec"]["affinity"]["podAffinity"].is_object()
    );
    assert_eq!(pod["metadata"]["labels"]["network"], "registries-only", "a label binds to no node");
    assert!(explained.notices[0].contains("the store's volume is on one node"), "{:?}", explained.notices);
}

#[test]
fn two_ids_that_the_map_gives_different_labels_are_told() {
    let map = "securityGroups: {sg-1: {network: a}, sg-2: {network: b, team: x}}";
    let map = Data::from([("placement.yaml".to_owned(), map.to_owned())]);
    let profile = Arc::new(Profile::read(None, None, Some(&map)));
    let settings = Settings { profile, ..settings(Cloud::Kubernetes) };
    let explained = shaped(&settings, &json!({"k8s.aliyun.com/eci-security-group": "sg-1,sg-2"}));
    let labels = explained.pod.unwrap()["metadata"]["labels"].clone();
    assert_eq!((&labels["network"], &labels["team"]), (&json!("a"), &json!("x")));
    assert!(explained.notices[0].contains("network=b"), "{:?}", explained.notices);
}

#[test]
fn the_registry_of_the_operators_image_is_in_no_list_that_a_cache_gives_its_pod() {
    let keys = json!({
        "k8s.aliyun.com/insecure-registry": "registry.example.com",
        "k8s.aliyun.com/plain-http-registry": "registry.example.com",
        "k8s.aliyun.com/eci-custom-hosts": r#"[{"host":"Registry.example.com","ip":"10.6.6.6"}]"#,
    });
    for cloud in [Cloud::Eci, Cloud::Kci, Cloud::Tke] {
        let pod = shaped(&settings(cloud), &keys).pod.unwrap();
        let annotations = pod["metadata"]["annotations"].to_string().to_lowercase();
        assert!(!annotations.contains("registry.example.com"), "{annotations}");
    }
}

fn run(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_imagecache")).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn written(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

const MANIFEST: &str =
    "apiVersion: eci.alibabacloud.com/v1\nkind: ImageCache\nmetadata:\n  name: shop\n  annotations:\n";

#[test]
fn explain_says_where_defaults_come_from_and_shows_the_pod() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = written(
        folder.path(),
        "cache.yaml",
        &format!(
            "{MANIFEST}    k8s.aliyun.com/imc-size: \"30\"\n    k8s.aliyun.com/imc-sizes: \"1\"\n    {REFRESH}: \"2\"\nspec:\n  images: [nginx:1]\n  refreshInterval: 12h\n"
        ),
    );
    let profile = written(
        folder.path(),
        "profile.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: eci-profile, namespace: kube-system}\ndata:\n  vSwitchIds: vsw-7\n",
    );
    let args = ["explain", "-f", &manifest, "--platform", "eci", "--defaults", &profile];
    let (status, out, err) = run(&args);
    assert_eq!(status, 0, "{err}");
    for says in [
        "eci-profile",
        "vsw-7",
        "30.0 GiB",
        "at least every 12h",
        "once for 2",
        "did you mean k8s.aliyun.com/imc-size?",
        "PULL POD",
        "eci-vswitch",
    ] {
        assert!(out.contains(says), "{says}: {out}");
    }
    let (status, out, _) = run(&[&args[..], &["-o", "json"]].concat());
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (status, &json["pod"]["metadata"]["annotations"]["k8s.aliyun.com/eci-vswitch"]),
        (0, &json!("vsw-7"))
    );
}

#[test]
fn explain_ends_with_the_status_of_an_invalid_object_and_names_every_key() {
    let folder = tempfile::tempdir().unwrap();
    let bad = format!(
        "{MANIFEST}    k8s.aliyun.com/vswitch-ids: subnet-1\n    k8s.aliyun.com/eip-bandwidth: fast\nspec:\n  images: [nginx:1]\n"
    );
    let manifest = written(folder.path(), "cache.yaml", &bad);
    let (status, _, err) = run(&["explain", "-f", &manifest]);
    assert_eq!(status, 30);
    assert!(
        err.contains("k8s.aliyun.com/vswitch-ids") && err.contains("k8s.aliyun.com/eip-bandwidth"),
        "{err}"
    );
    let (status, _, err) = run(&["explain", "-f", "/nowhere.yaml"]);
    assert_eq!(status, 2, "{err}");
    let unmapped =
        bad.replace("subnet-1", "vsw-1").replace("fast", "5").replace("eip-bandwidth", "imc-size-x");
    let manifest = written(folder.path(), "unmapped.yaml", &unmapped);
    assert_eq!(run(&["explain", "-f", &manifest]).0, 0);
    let (status, _, err) = run(&["explain", "-f", &manifest, "--strict-placement"]);
    assert!(status == 30 && err.contains("vsw-1 means nothing on the platform kubernetes"), "{err}");
}

#[test]
fn explain_says_what_flash_means_where_snapshots_are_taken_and_where_not() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        format!("{MANIFEST}    k8s.aliyun.com/imc-enable-flash: \"true\"\nspec:\n  images: [nginx:1]\n");
    let manifest = written(folder.path(), "cache.yaml", &text);
    let args = ["explain", "-f", &manifest, "-o", "json"];
    let (status, out, _) = run(&args);
    assert!(status == 0 && out.contains("no snapshots are made here"), "{out}");
    let (status, out, _) = run(&[&args[..], &["--snapshot-class", "fast"]].concat());
    let told: Value = serde_json::from_str(&out).unwrap();
    let row = json!({"setting": "snapshot", "value": "class fast; ready before it is",
        "from": "k8s.aliyun.com/imc-enable-flash"});
    assert!(status == 0 && told["settings"].as_array().unwrap().contains(&row), "{out}");
    assert!(!out.contains("no snapshots are made here"), "{out}");
}

#[test]
fn explain_says_which_registries_get_a_lent_login() {
    const SHOP: &str = "shop-registry.cn-hangzhou.cr.aliyuncs.com";
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "{MANIFEST}    k8s.aliyun.com/acr-instance-ids: cri-12345\nspec:\n  images: [{SHOP}/team/app:1]\n"
    );
    let manifest = written(folder.path(), "cache.yaml", &text);
    let (status, out, _) = run(&["explain", "-f", &manifest, "-o", "json"]);
    let nobody: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(status, 0, "{out}");
    assert!(nobody["notices"][0].as_str().unwrap().contains("--allow-acr-instances"), "{out}");
    let args = ["explain", "-f", &manifest, "-o", "json", "--allow-acr-instances"];
    let (status, out, _) = run(&[&args[..], &["cri-12345"]].concat());
    let lent: Value = serde_json::from_str(&out).unwrap();
    let row = json!({"setting": "lent logins", "value": SHOP, "from": "k8s.aliyun.com/acr-instance-ids"});
    assert!(status == 0 && lent["settings"].as_array().unwrap().contains(&row), "{out}");
    assert_eq!(run(&[&args[..], &["cri-other1"]].concat()).0, 30);
}

#[test]
fn the_operators_environment_counts_for_caches_that_do_not_say() {
    let folder = tempfile::tempdir().unwrap();
    let manifest =
        written(folder.path(), "cache.yaml", &format!("{MANIFEST}    a: b\nspec:\n  images: [nginx:1]\n"));
    let explain = |aliases: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imagecache"));
        command.args(["explain", "-f", &manifest, "--platform", "kci"]).env("KCI_HOST_ALIASES", aliases);
        command.env("KCI_DNS_CONFIG", r#"{"nameservers":["1.1.1.1"]}"#).output().unwrap()
    };
    let output = explain(r#"[{"ip":"1.2.3.4","hostnames":["www.privaterepo1.com"]}]"#);
    let text = String::from_utf8(output.stdout).unwrap();
    for says in [
        "the operator, KCI_HOST_ALIASES",
        "www.privaterepo1.com = 1.2.3.4",
        "nameserver 1.1.1.1",
        "kci-dns-config",
    ] {
        assert!(text.contains(says), "{says}: {text}");
    }
    let refused = explain("1.2.3.4 www.privaterepo1.com");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("write for example"));
}
