use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn entry(content: &str, media_type: &str) -> Value {
    json!({"digest": Digest::sha256(content.as_bytes()).to_string(), "size": content.len(), "mediaType": media_type})
}

fn image() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": entry("config", "application/vnd.oci.image.config.v1+json"),
        "layers": [entry("layer", "application/vnd.oci.image.layer.v1.tar+zstd")],
    })
}

fn index() -> Value {
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry("child", OCI_MANIFEST)]})
}

fn with(mut base: Value, key: &str, value: Value) -> Value {
    base[key] = value;
    base
}

fn read_as(content_type: &str, value: &Value) -> Result<Document, Failure> {
    parse(Some(content_type), value.to_string().as_bytes())
}

#[test]
fn both_families_are_read_and_layers_are_opaque() {
    let docker = with(image(), "mediaType", json!(DOCKER_MANIFEST));
    let artifact = with(image(), "config", entry("{}", "application/vnd.oci.empty.v1+json"));
    let linked = with(artifact.clone(), "subject", entry("subject", OCI_MANIFEST));
    for (content_type, value) in [
        (OCI_MANIFEST, image()),
        ("application/vnd.OCI.image.manifest.v1+json; charset=utf-8", image()),
        (DOCKER_MANIFEST, docker),
        (OCI_MANIFEST, artifact),
        (OCI_MANIFEST, linked),
        ("application/json", image()),
    ] {
        let Document::Image { layers, .. } = read_as(content_type, &value).unwrap() else { panic!() };
        assert_eq!(layers[0].size, 5, "{content_type}");
    }
    assert!(matches!(read_as(OCI_INDEX, &index()), Ok(Document::Index { .. })));
    let nameless = json!({"schemaVersion": 2, "manifests": []});
    assert!(matches!(parse(None, nameless.to_string().as_bytes()), Ok(Document::Index { .. })));
}

#[test]
fn what_must_be_refused_is_refused_with_its_class() {
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let many = |count: usize, kind: &str| Value::from(vec![entry("x", kind); count]);
    let sized = |size: Value| with(entry("config", "c"), "size", size);
    for (content_type, value, class, words) in [
        (OCI_MANIFEST, with(image(), "manifests", json!([])), Class::BadContent, "carries manifests"),
        (OCI_INDEX, with(index(), "layers", json!([])), Class::BadContent, "carries config or layers"),
        (OCI_INDEX, with(index(), "config", entry("c", "c")), Class::BadContent, "carries config or layers"),
        (OCI_INDEX, image(), Class::BadContent, "calls itself"),
        (DOCKER_MANIFEST, image(), Class::BadContent, "calls itself"),
        (OCI_MANIFEST, json!({"schemaVersion": 2}), Class::BadContent, "without config"),
        (OCI_INDEX, json!({"schemaVersion": 2}), Class::BadContent, "without manifests"),
        (OCI_MANIFEST, json!([]), Class::BadContent, "cannot be read"),
        (OCI_MANIFEST, with(image(), "config", sized(json!(-1))), Class::BadContent, "cannot be read"),
        (OCI_MANIFEST, with(image(), "config", sized(json!(1u64 << 60))), Class::Unsupported, "claims"),
        (
            OCI_MANIFEST,
            with(image(), "layers", json!([entry("a", "l"), with(entry("a", "l"), "size", json!(9))])),
            Class::BadContent,
            "two sizes",
        ),
        ("text/plain", image(), Class::Unsupported, "schema 1"),
        (OCI_MANIFEST, json!({"schemaVersion": 1, "fsLayers": []}), Class::Unsupported, "schema 1"),
        ("application/vnd.docker.distribution.manifest.v1+json", json!({}), Class::Unsupported, "schema 1"),
        ("text/html", json!({"schemaVersion": 2}), Class::Unsupported, "text/html"),
        (OCI_MANIFEST, with(image(), "mediaType", json!("a/b")), Class::Unsupported, "a/b"),
        (OCI_MANIFEST, with(image(), "schemaVersion", json!(3)), Class::Unsupported, "schema version"),
        (OCI_MANIFEST, with(image(), "layers", json!([entry("f", foreign)])), Class::Unsupported, "foreign"),
        (
            OCI_MANIFEST,
            with(
                image(),
                "layers",
                json!([entry("f", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip")]),
            ),
            Class::Unsupported,
            "foreign",
        ),
        (OCI_MANIFEST, with(image(), "layers", many(513, "l")), Class::Unsupported, "512 layers"),
        (OCI_INDEX, with(index(), "manifests", many(257, OCI_MANIFEST)), Class::Unsupported, "256 entries"),
    ] {
        let failure = read_as(content_type, &value).expect_err(words);
        assert_eq!(failure.class, class, "{failure}");
        assert!(failure.message.contains(words), "{words}: {failure}");
    }
    assert!(read_as(OCI_MANIFEST, &with(image(), "layers", many(512, "l"))).is_ok());
    assert!(read_as(OCI_INDEX, &with(index(), "manifests", many(256, OCI_MANIFEST))).is_ok());
}

#[test]
fn children_say_their_platform_and_whether_they_are_attestations() {
    let child = |platform: Value, annotations: Value| {
        let mut value = entry("child", OCI_MANIFEST);
        value["platform"] = platform;
        value["annotations"] = annotations;
        value
    };
    let marked = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let value = with(
        index(),
        "manifests",
        json!([
            child(json!({"os": "linux", "architecture": "arm", "variant": "v7"}), json!(null)),
            child(json!({"os": "unknown", "architecture": "unknown"}), json!(null)),
            child(json!({"os": "linux", "architecture": "amd64"}), marked),
            child(json!({"os": "li nux", "architecture": "amd64"}), json!(null)),
            child(json!({"os": "", "architecture": ""}), json!(null)),
            child(json!(null), json!(null)),
        ]),
    );
    let Document::Index { children, .. } = read_as(OCI_INDEX, &value).unwrap() else { panic!() };
    let said: Vec<(Option<String>, bool)> =
        children.iter().map(|c| (c.platform.as_ref().map(ToString::to_string), c.attestation)).collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        said,
        [
            (some("linux/arm/v7"), false),
            (some("unknown/unknown"), true),
            (some("linux/amd64"), true),
            (some("unknown/unknown"), true),
            (None, false),
            (None, false),
        ]
    );
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(Some(OCI_MANIFEST), &bytes);
    }
}
