//! `imagecache convert` on the documented samples of other clouds: what comes out, what is said, and that it is what
//! the definition accepts. `UPDATE_FIXTURES=1 cargo test --test convert` writes the expected files again.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use imagecache::{
    api::{ImageCache, image_cache::crd},
    convert::{Converted, Options, Text, Weight, convert},
    model::{judge::judge, settings::Settings},
};
use kube::core::cel::Validator;
use proptest::prelude::*;
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/convert")
}

fn imagecache(input: &str, args: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_imagecache"))
        .arg("convert")
        .args(args)
        .current_dir(folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read has closed it.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn read(text: &str) -> Converted {
    let texts = [Text { name: "input".into(), text: text.into() }];
    convert(&texts, &Options::default()).unwrap()
}

struct Schema(Value);

impl Schema {
    fn new() -> Self {
        let version = crd().spec.versions.remove(0);
        Self(serde_json::to_value(version.schema.unwrap().open_api_v3_schema.unwrap()).unwrap())
    }

    /// As the API server and the controller take it, and nothing in it that they do not know.
    fn accepts(&self, object: &Value) {
        let errors = Validator::new().validate(&self.0, object, None).err();
        let errors = errors.map(|e| e.as_slice().iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(errors, None, "{object:#}");
        for field in object["spec"].as_object().unwrap().keys() {
            assert!(self.0["properties"]["spec"]["properties"].get(field).is_some(), "{field}");
        }
        let cache: ImageCache = serde_json::from_value(object.clone()).unwrap();
        assert!(judge(&cache, &Settings::default()).request.is_ok(), "{object:#}");
    }
}

#[test]
fn documented_samples_become_what_is_expected_and_what_is_lost_is_said() {
    let mut inputs: Vec<PathBuf> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.to_string_lossy().ends_with(".out.yaml"))
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 6);
    let schema = Schema::new();
    for input in inputs {
        let name = input.file_name().unwrap().to_str().unwrap();
        let (status, out, err) = said(&imagecache("", &["-f", name]));
        assert_eq!(status, Some(0), "{name}: {err}");
        for (expected, text) in [("out.yaml", &out), ("err", &err)] {
            let path = input.with_extension(expected);
            if std::env::var_os("UPDATE_FIXTURES").is_some() {
                fs::write(&path, text).unwrap();
            }
            assert_eq!(&fs::read_to_string(&path).unwrap(), text, "{}", path.display());
        }
        let objects: Vec<Value> = serde_saphyr::from_multiple(&out).unwrap();
        for object in &objects {
            schema.accepts(object);
        }
        let (_, list, _) = said(&imagecache("", &["-f", name, "-o", "json"]));
        let list: Value = serde_json::from_str(&list).unwrap();
        let items = list.get("items").cloned().unwrap_or_else(|| json!([list]));
        assert_eq!(items, json!(objects), "{name}: both forms say the same");
    }
}

#[test]
fn strict_prints_nothing_and_fails_where_something_is_lost_and_only_there() {
    let (status, out, err) = said(&imagecache("", &["--strict", "-f", "cci-documented.yaml"]));
    assert_eq!((status, out.as_str()), (Some(1), ""));
    assert!(err.contains("spec.buildingConfig.eipID: no counterpart"), "{err}");
    let (status, out, err) = said(&imagecache("", &["--strict", "-f", "tke-documented.yaml"]));
    assert_eq!((status, err.as_str()), (Some(0), ""));
    assert!(out.contains("imc-operator-system:qcloudregistrykey"));
}

#[test]
fn what_is_ours_passes_unchanged_and_a_second_time_nothing_changes() {
    let sample = fs::read_to_string(folder().join("../seeds/eci-eip-new.yaml")).unwrap();
    let (status, out, err) = said(&imagecache(&sample, &["-f", "-"]));
    assert_eq!((status, err.as_str()), (Some(0), ""));
    let parse = |text: &str| -> Value { serde_saphyr::from_str(text).unwrap() };
    assert_eq!(parse(&out), parse(&sample));
    let (_, once, _) = said(&imagecache("", &["-f", "mixed.yaml"]));
    let (status, twice, err) = said(&imagecache(&once, &["-f", "-"]));
    assert_eq!((status, twice, err.as_str()), (Some(0), once, ""));
}

#[test]
fn an_object_that_cannot_be_read_is_named_with_its_field_and_the_others_still_come_out() {
    let good = "{apiVersion: eks.cloud.tencent.com/v1, kind: ImageCache, metadata: {name: good}, spec: {images: [a]}}";
    for (bad, says) in [
        ("spec: {images: [a], retentionDays: soon}", "spec.retentionDays: invalid type"),
        ("spec: {images: [\"harbor***.pre.com/a\"]}", "spec.images[0]: "),
        ("spec: {images: []}", "spec.images: 0 entries"),
        ("kind: ImageCache", "spec: missing field `spec`"),
    ] {
        let bad = format!(
            "{{apiVersion: eks.cloud.tencent.com/v1, kind: ImageCache, metadata: {{name: bad}}, {bad}}}"
        )
        .replace(
            "kind: ImageCache, metadata: {name: bad}, kind: ImageCache",
            "kind: ImageCache, metadata: {name: bad}",
        );
        let (status, out, err) = said(&imagecache(&format!("{bad}\n---\n{good}\n"), &["-f", "-"]));
        assert_eq!(status, Some(2), "{err}");
        assert!(out.contains("name: good") && !out.contains("bad"), "{out}");
        let place = "standard input, document 1: eks.cloud.tencent.com/v1 ImageCache bad: ";
        assert!(err.starts_with(&format!("{place}{says}")), "{err}");
    }
    for (text, says) in [
        ("just words", "no Kubernetes object"),
        ("kind: ImageCache\n", "no Kubernetes object"),
        ("a: [1", "standard input: "),
        ("", "no image cache"),
        ("{apiVersion: v1, kind: Pod, metadata: {name: p}}", "v1 Pod p: skipped"),
    ] {
        let (status, out, err) = said(&imagecache(text, &["-f", "-"]));
        assert_eq!((status, out.as_str()), (Some(2), ""), "{text}: {err}");
        assert!(err.contains(says), "{text}: {err}");
    }
    assert_eq!(imagecache("", &["-f", "absent.yaml"]).status.code(), Some(2));
}

#[test]
fn a_secret_without_a_namespace_is_taken_from_the_one_that_is_named() {
    let (_, out, err) = said(&imagecache("", &["-f", "tke-live.yaml", "--namespace", "ml"]));
    assert!(out.contains("ml:registry-login") && !err.contains("guessed"), "{out}{err}");
}

#[test]
fn more_images_than_a_cache_may_list_become_several_caches() {
    let images: Vec<String> = (0..45).map(|i| format!("app-{i}:1")).collect();
    let object = json!({"apiVersion": "eks.cloud.tencent.com/v1", "kind": "ImageCache",
        "metadata": {"name": "many"}, "spec": {"images": images}});
    let Converted { objects, remarks } = read(&object.to_string());
    let names: Vec<&str> = objects.iter().map(|o| o["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["many", "many-2", "many-3"]);
    let listed: Vec<&Value> = objects.iter().flat_map(|o| o["spec"]["images"].as_array().unwrap()).collect();
    assert_eq!(json!(listed), json!(images));
    assert_eq!((remarks.len(), remarks[0].weight), (1, Weight::Note));
}

fn foreign() -> impl Strategy<Value = Value> {
    let name = "[a-c](-[2a])?";
    let metadata = (name, proptest::option::of("[ab]"))
        .prop_map(|(name, namespace)| json!({"name": name, "namespace": namespace}));
    let images = proptest::collection::vec("([a-z]\\.io(:5000)?/)?[a-z]{1,3}(:[0-9])?", 1..45);
    let secrets = proptest::collection::vec("([a-z]{1,2}[:/])?[a-zA-Z.]{0,3}", 0..5);
    let numbers = (proptest::option::of(-5_i64..40000), proptest::option::of(-5_i64..70000));
    (metadata, images, secrets, numbers, 0..3).prop_map(|(metadata, images, secrets, (size, days), dialect)| {
        let (group, kind, spec) = match dialect {
            0 => (
                "eks.cloud.tencent.com/v1",
                "ImageCache",
                json!({"images": images, "imagePullSecrets": secrets, "imageCacheSize": size, "retentionDays": days}),
            ),
            1 => {
                let list: Vec<Value> = images.iter().map(|image| json!({"image": image})).collect();
                let registries: Vec<Value> = secrets
                    .iter()
                    .map(|s| json!({"server": s, "imagePullSecret": s, "plainHTTP": s.len() > 3}))
                    .collect();
                let spec = json!({"images": list, "registries": registries, "imageSnapshotSize": size,
                    "ttlDaysAfterCreated": days});
                ("cci/v2", "ImageSnapshot", spec)
            }
            _ => (
                "vci.volcengine.com/v1beta1",
                "ImageCache",
                json!({"images": images, "imagePullSecrets": secrets, "volume": {"imageCacheSize": size},
                    "retentionDays": days}),
            ),
        };
        json!({"apiVersion": group, "kind": kind, "metadata": metadata, "spec": spec})
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_comes_out_is_accepted_and_no_image_is_lost_in_silence(objects in proptest::collection::vec(foreign(), 1..5)) {
        let schema = Schema::new();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let Converted { objects: out, remarks } = read(&list.to_string());
        let mut names: Vec<&Value> = out.iter().map(|object| &object["metadata"]["name"]).collect();
        names.sort_by_key(ToString::to_string);
        names.dedup();
        prop_assert_eq!(names.len(), out.len());
        for object in &out {
            schema.accepts(object);
        }
        let refused = remarks.iter().filter(|remark| remark.weight == Weight::Refusal).count();
        prop_assert_eq!(refused, 0, "{:?}", remarks);
        let count = |objects: &[Value]| -> usize {
            objects.iter().map(|object| object["spec"]["images"].as_array().unwrap().len()).sum()
        };
        prop_assert_eq!(count(&out), count(&objects));
    }
}
