//! The CRD as it is installed: what is printed is what is checked in, its rules accept and refuse with words that
//! help, and every manifest that the clouds publish and we show is read and judged.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeMap, fs, path::Path};

use imagecache::{
    api::{
        ImageCache, ImageCacheStatus,
        image_cache::{crd, crd_yaml},
        keys,
    },
    model::{
        annotations::{self, Annotations},
        judge::{CacheRequest, Judged, judge},
        request::{Access, Dialect, Transport},
        settings::Settings,
    },
};
use kube::core::cel::Validator;
use serde_json::{Value, json};

fn schema() -> Value {
    let version = crd().spec.versions.remove(0);
    serde_json::to_value(version.schema.unwrap().open_api_v3_schema.unwrap()).unwrap()
}

/// The messages of the rules that refuse a spec.
fn refused(spec: &Value) -> Vec<String> {
    let errors = Validator::new().validate(&schema(), &json!({ "spec": spec }), None).err();
    errors.map(|errors| errors.as_slice().iter().map(ToString::to_string).collect()).unwrap_or_default()
}

fn manifests(folder: &str) -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.is_file())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into(), fs::read_to_string(path).unwrap()))
        .collect()
}

fn read(text: &str) -> ImageCache {
    let raw: Value = serde_saphyr::from_str(text).unwrap();
    assert_eq!(refused(&raw["spec"]), Vec::<String>::new());
    serde_json::from_value(raw).unwrap()
}

#[test]
fn the_file_that_is_installed_is_the_one_that_is_printed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/imagecaches.yaml");
    let printed = crd_yaml().unwrap();
    if std::env::var_os("UPDATE_CRD").is_some() {
        fs::write(&path, &printed).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == printed, "crds/imagecaches.yaml is behind: UPDATE_CRD=1 cargo test --test crd writes it");
}

#[test]
fn it_is_the_object_that_eci_users_know() {
    let crd = crd();
    assert_eq!(crd.metadata.name.as_deref(), Some(keys::CRD_NAME));
    assert_eq!(crd.metadata.labels.unwrap()[keys::CRD_OWNER_LABEL], keys::CRD_OWNER);
    assert_eq!((crd.spec.group.as_str(), crd.spec.scope.as_str()), (keys::GROUP, "Cluster"));
    assert_eq!(crd.spec.names.short_names.unwrap(), ["ic", "imc"]);
    assert_eq!(crd.spec.names.categories.unwrap(), ["all"]);
    let version = &crd.spec.versions[0];
    let columns = version.additional_printer_columns.as_ref().unwrap();
    let shown: Vec<&str> = columns.iter().filter(|c| c.priority.is_none()).map(|c| c.name.as_str()).collect();
    assert_eq!(shown, ["Age", "CacheId", "Phase", "Progress", "Ready"]);
    assert!(version.subresources.as_ref().unwrap().status.is_some());
    assert_eq!(schema()["properties"]["status"]["default"], json!({ "observedGeneration": -1 }));
    let spec = &schema()["properties"]["spec"];
    assert_eq!(spec["required"], json!(["images"]));
    let text = spec.to_string();
    assert!(!text.contains("\"default\"") && !text.contains("uint"), "unset stays visible");
}

#[test]
fn a_time_to_come_is_no_date_column() {
    // kubectl prints dates as ages, and those of the future as <invalid>.
    let columns = crd().spec.versions.remove(0).additional_printer_columns.unwrap();
    let dates: Vec<&str> =
        columns.iter().filter(|column| column.type_ == "date").map(|column| column.name.as_str()).collect();
    assert_eq!(dates, ["Age"]);
}

#[test]
fn every_field_is_explained() {
    fn walk(path: &str, schema: &Value, silent: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if field["description"].as_str().unwrap_or_default().is_empty() {
                silent.push(path.clone());
            }
            walk(&path, field, silent);
            walk(&path, &field["items"], silent);
        }
    }
    let mut silent = vec![];
    walk("", &schema()["properties"]["spec"], &mut silent);
    walk("", &schema()["properties"]["status"], &mut silent);
    assert_eq!(silent, Vec::<String>::new());
}

#[test]
fn the_rules_accept_what_is_right_and_say_what_to_write_instead_of_the_rest() {
    let images = |n: usize| json!(vec!["nginx"; n]);
    for (spec, says) in [
        (json!({ "images": images(1) }), None),
        (json!({ "images": images(20) }), None),
        (json!({ "images": images(0) }), Some("at least one image")),
        (json!({ "images": images(21) }), Some("at most 20")),
        (json!({ "images": ["harbor***.pre.com/test/nginx:latest"] }), None),
        (json!({ "images": images(1), "imagePullSecrets": ["default:a", "team/b.c-d"] }), None),
        (json!({ "images": images(1), "imagePullSecrets": ["bare"] }), Some("namespace:name")),
        (json!({ "images": images(1), "imagePullSecrets": [":s0"] }), Some("namespace:name")),
        (json!({ "images": images(1), "imagePullSecrets": ["team:"] }), Some("namespace:name")),
        (json!({ "images": images(1), "imagePullSecrets": ["a:b:c"] }), Some("namespace:name")),
        (json!({ "images": images(1), "imageCacheSize": 20 }), None),
        (json!({ "images": images(1), "imageCacheSize": 32768 }), None),
        (json!({ "images": images(1), "imageCacheSize": 19 }), Some("from 20 to 32768")),
        (json!({ "images": images(1), "retentionDays": 65536 }), None),
        (json!({ "images": images(1), "retentionDays": 0 }), Some("from 1 to 65536")),
        (json!({ "images": images(1), "retentionDays": 65537 }), Some("from 1 to 65536")),
        (json!({ "images": images(1), "refreshInterval": "5m" }), None),
        (json!({ "images": images(1), "refreshInterval": "999d" }), None),
        (json!({ "images": images(1), "refreshInterval": "4m" }), Some("for example 12h or 7d")),
        (json!({ "images": images(1), "refreshInterval": "1h30m" }), Some("for example 12h or 7d")),
        (json!({ "images": images(1), "refreshInterval": "" }), Some("for example 12h or 7d")),
        (json!({ "images": images(1), "platforms": ["linux/arm/v7"] }), None),
        (json!({ "images": images(1), "platforms": ["arm64"] }), Some("os/architecture")),
    ] {
        let messages = refused(&spec);
        match says {
            None => assert_eq!(messages, Vec::<String>::new(), "{spec}"),
            Some(says) => assert!(messages.iter().any(|m| m.contains(says)), "{spec}: {messages:?}"),
        }
    }
}

#[test]
fn a_secret_that_the_rule_accepts_is_one_that_the_controller_reads() {
    for text in ["default:a", "team/b.c-d", "bare", ":s0", "team:", "a:b:c", "A:b", "a.b:c", "a:b/c", "a:b-"]
    {
        let mut cache = read("{apiVersion: x, kind: ImageCache, metadata: {}, spec: {images: [nginx]}}");
        cache.spec.image_pull_secrets = vec![text.into()];
        let accepted = refused(&serde_json::to_value(&cache.spec).unwrap()).is_empty();
        assert_eq!(judge(&cache, &Settings::default()).request.is_ok(), accepted, "{text}");
    }
}

#[test]
fn an_interval_that_the_rule_accepts_is_one_that_the_controller_reads() {
    for text in [
        "5m", "4m", "0m", "60m", "9999m", "10000m", "1h", "9999h", "7d", "999d", "1000d", "07d", "d", "1w",
        " 1h",
    ] {
        let mut cache = read("{apiVersion: x, kind: ImageCache, metadata: {}, spec: {images: [nginx]}}");
        cache.spec.refresh_interval = Some(text.into());
        let accepted = refused(&serde_json::to_value(&cache.spec).unwrap()).is_empty();
        assert_eq!(judge(&cache, &Settings::default()).request.is_ok(), accepted, "{text}");
    }
}

#[test]
fn examples_are_valid_and_nothing_in_them_is_ignored() {
    let examples = manifests("examples");
    assert!(examples.len() >= 5);
    for (file, text) in examples {
        let Judged { request, notices, .. } = judge(&read(&text), &Settings::default());
        assert!(request.is_ok(), "{file}: {request:?}");
        let ignored = notices.iter().find(|notice| notice.contains("not honoured"));
        assert_eq!(ignored, None, "{file}");
    }
}

struct Expected {
    file: &'static str,
    /// The fields that are wrong; empty means that a pull is asked for.
    invalid: &'static [&'static str],
    /// The start of each notice.
    notices: &'static [&'static str],
    says: fn(&CacheRequest) -> bool,
}

const SAMPLES: &[Expected] = &[
    Expected {
        file: "eci-http.yaml",
        invalid: &[],
        notices: &["192.168.XX.XX:5000 is reached over plain HTTP"],
        says: |r| transport(r, "192.168.XX.XX:5000") == Transport::PlainHttp,
    },
    Expected {
        file: "eci-self-signed.yaml",
        invalid: &["spec.images[0]", "k8s.aliyun.com/insecure-registry"],
        notices: &[],
        says: |_| false,
    },
    Expected {
        file: "eci-multi-zone.yaml",
        invalid: &[],
        notices: &[
            "k8s.aliyun.com/vswitch-ids: vsw-bp1dktddjsg5nktv****, vsw-bp1xpiowfm5vo8o3c**** means nothing",
            "k8s.aliyun.com/vswitch-ids: vsw-bp1dktddjsg5nktv**** is masked",
        ],
        says: common,
    },
    Expected {
        file: "eci-groups.yaml",
        invalid: &[],
        notices: &[
            "k8s.aliyun.com/security-group-id: sg-bp1dktddjsg5nktv**** means nothing",
            "k8s.aliyun.com/resource-group-id: rg-aek2z3elfs4**** means nothing",
            "k8s.aliyun.com/security-group-id: sg-bp1dktddjsg5nktv**** is masked",
            "k8s.aliyun.com/resource-group-id: rg-aek2z3elfs4**** is masked",
        ],
        says: common,
    },
    Expected { file: "eci-reuse.yaml", invalid: &[], notices: &[], says: |r| r.reuse && common(r) },
    Expected {
        file: "eci-flash.yaml",
        invalid: &[],
        notices: &["k8s.aliyun.com/imc-enable-flash"],
        says: common,
    },
    Expected { file: "eci-size-and-retention.yaml", invalid: &[], notices: &[], says: common },
    Expected {
        file: "eci-eip-existing.yaml",
        invalid: &[],
        notices: &[
            "k8s.aliyun.com/eip-instance-id: eip-bp1q5n8cq4p7f6dzu**** means nothing",
            "k8s.aliyun.com/eip-instance-id: eip-bp1q5n8cq4p7f6dzu**** is masked",
        ],
        says: common,
    },
    Expected {
        file: "eci-eip-new.yaml",
        invalid: &[],
        notices: &[
            "k8s.aliyun.com/auto-create-eip",
            "k8s.aliyun.com/eip-bandwidth",
            "k8s.aliyun.com/eip-internet-charge-type",
            "k8s.aliyun.com/eip-common-bandwidth-package-id: it asks for",
            "k8s.aliyun.com/eip-common-bandwidth-package-id: cbwp-2zeukbj916scmj51m**** is masked",
        ],
        says: common,
    },
];

fn transport(request: &CacheRequest, host: &str) -> Transport {
    let access = request.access.get(&host.parse().unwrap()).copied().unwrap_or_default();
    assert!(access == Access::default() || access.overridden);
    access.transport
}

/// 25 GiB for 7 days, two images of Docker Hub, three secrets: written in spec or in annotations.
fn common(request: &CacheRequest) -> bool {
    request.size_limit == 25 << 30
        && request.retention_days == Some(7)
        && request.secrets.len() == 3
        && request.secrets[2].to_string() == "kube-system:secret3"
        && request.images.iter().map(ToString::to_string).collect::<Vec<_>>()
            == ["docker.io/library/centos:latest", "docker.io/library/busybox:latest"]
}

#[test]
fn every_published_manifest_is_judged_as_expected() {
    let mut files = manifests("tests/fixtures/seeds");
    files.retain(|file, _| !file.starts_with("pod-"));
    assert_eq!(files.len(), SAMPLES.len());
    for sample in SAMPLES {
        let judged = judge(&read(&files[sample.file]), &Settings::default());
        match &judged.request {
            Ok(request) => assert!(sample.invalid.is_empty() && (sample.says)(request), "{}", sample.file),
            Err(invalid) => {
                let fields: Vec<&str> = invalid.iter().map(|i| i.field.as_str()).collect();
                assert_eq!(fields, sample.invalid, "{}", sample.file);
                assert!(invalid.iter().all(|i| i.message.contains("harbor***.pre.com")), "{invalid:?}");
            }
        }
        let notices = &judged.notices;
        assert_eq!(notices.len(), sample.notices.len(), "{}: {notices:?}", sample.file);
        assert!(notices.iter().zip(sample.notices).all(|(n, start)| n.starts_with(start)), "{notices:?}");
    }
}

#[test]
fn annotations_of_published_pods_are_read_in_their_dialect() {
    let read = |text: &str| -> Annotations {
        let pod: Value = serde_saphyr::from_str(text).unwrap();
        let map = pod["spec"]["template"]["metadata"]["annotations"].clone();
        annotations::read(&serde_json::from_value(map).unwrap())
    };
    let files = manifests("tests/fixtures/seeds");
    let read = |file: &str| read(&files[file]);
    assert!(read("pod-eci-http.yaml").plain_http.covers(&"192.168.XX.XX:5000".parse().unwrap()));
    assert_eq!(read("pod-eci-self-signed.yaml").invalid.len(), 1, "stars are no host");
    let kci = read("pod-kci-http.yaml");
    assert!(kci.plain_http.covers(&"192.168.xx.xx:5000".parse().unwrap()));
    assert_eq!(kci.dialect, Some(Dialect::Kci));
    assert!(read("pod-kci-self-signed.yaml").skip_verify.covers(&"kevin.harbor.com".parse().unwrap()));
    let names = read("pod-kci-names.yaml");
    assert!(names.notices.is_empty() && names.hosts.is_some() && names.dns.is_some());
}

#[test]
fn a_status_that_another_controller_left_can_be_read() {
    let left = json!({
        "phase": "Ready", "progress": "100%", "imageCacheId": "imc-2zehy0t83pbjqdpn3pcc",
        "startTime": "2019-10-10T01:43:49Z", "lastUpdatedTime": null, "reason": "",
        "events": [
            { "count": 1, "message": "Success pull image busybox:latest", "type": "Normal",
              "metadata": { "name": "busybox:latest" }, "source": { "component": "kubelet", "host": "eci" } },
            { "name": "x", "message": "m", "type": "Normal", "timestamp": null }
        ]
    });
    let status: ImageCacheStatus = serde_json::from_value(left).unwrap();
    assert_eq!((status.events.len(), status.ledger), (2, None));
}

/// The same, where the page has no stars.
fn is_filled_in(printed: &Value, filled: &Value) -> bool {
    match (printed, filled) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| is_filled_in(a, b)))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_filled_in(a, b))
        }
        (Value::String(a), Value::String(b)) => {
            let masked = ["***", "XX", "xx"].iter().find_map(|mask| a.split_once(mask));
            masked.map_or(a == b, |(before, _)| b.starts_with(before) && !b.contains("***"))
        }
        (a, b) => a == b,
    }
}

#[test]
fn the_manifests_with_ids_are_the_published_ones() {
    let filled = manifests("tests/seeds");
    for (file, printed) in manifests("tests/fixtures/seeds") {
        let printed: Value = serde_saphyr::from_str(&printed).unwrap();
        let filled: Value = serde_saphyr::from_str(&filled[&file]).unwrap();
        assert!(is_filled_in(&printed, &filled), "{file}");
    }
}
