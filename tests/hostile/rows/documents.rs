//! Manifests and indexes.

use imagecache::model::{
    class::Class::{BadContent, NotFound, Timeout, Unsupported},
    digest::Digest,
};
use serde_json::{Value, json};

use crate::{
    content::{INDEX, MANIFEST, descriptor, index, layer_descriptor, manifest, with},
    row::{Row, endless, fails, fine, raw, says},
    server::Step,
};

const GET: &str = "GET /v2/app/manifests/";
const HEAD: &str = "HEAD /v2/app/manifests/";
const UNREADABLE: &str = "cannot be read";

fn tagged(row: Row, media_type: &str, document: &Value) -> Row {
    row.document(media_type, document.to_string())
}

/// An image whose only layer is described so.
fn layer(row: Row, key: &str, value: Value) -> Row {
    tagged(row, MANIFEST, &with(manifest(), "layers", json!([with(layer_descriptor(), key, value)])))
}

/// So many indexes around an image.
fn nested(mut row: Row, levels: usize) -> Row {
    let mut inner = (MANIFEST, manifest().to_string());
    for _ in 0..levels {
        row.content.put(inner.0, inner.1.clone());
        inner = (INDEX, index(&[descriptor(inner.0, inner.1.as_bytes())]).to_string());
    }
    row.document(INDEX, inner.1)
}

pub fn rows() -> Vec<Row> {
    [bodies(), kinds(), descriptors(), indexes()].into_iter().flatten().collect()
}

fn bodies() -> Vec<Row> {
    let lie = Digest::sha256(b"a lie");
    let lying = format!("Docker-Content-Digest: {lie}");
    let typed = format!("Content-Type: {MANIFEST}");
    let text = manifest().to_string();
    let spaces = format!("{text}{}", " ".repeat(4 << 20));
    vec![
        fails(
            "a manifest with another digest than the tag's",
            BadContent,
            "the registry sent a manifest with digest",
        )
        .on(GET, says("200 OK", &[&typed], format!("{text} "))),
        fails("a digest of the tag that nothing has", NotFound, "no such tag or manifest")
            .on(HEAD, raw("200 OK", &[&lying, &typed, "Content-Length: 5"], "")),
        fails("a manifest whose digest header lies", BadContent, "the registry sent a manifest with digest")
            .on(GET, says("200 OK", &[&lying, &typed], text.clone())),
        fails("a digest header that leads out of its folder", BadContent, "names a digest that is none").on(
            "manifests/",
            says("200 OK", &["Docker-Content-Digest: sha256:../../../etc/passwd"], text.clone()),
        ),
        fails("a manifest without end", BadContent, "longer than 4194304 bytes")
            .on(GET, endless("200 OK", &[&typed])),
        fails("a manifest of more than 4 MiB", BadContent, "longer than 4194304 bytes")
            .document(MANIFEST, spaces),
        fails("a manifest that is encoded unasked", BadContent, "Content-Encoding gzip")
            .on(GET, says("200 OK", &["Content-Encoding: gzip"], "\u{1f}")),
        fails("a manifest that stops", Timeout, "i/o timeout")
            .on(GET, vec![Step::Head("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{".into()), Step::Wait])
            .slow(),
        fails("a manifest byte by byte", Timeout, "i/o timeout")
            .on(GET, vec![Step::Head("HTTP/1.1 200 OK\r\n\r\n".into()), Step::Dribble(b' ')])
            .slow(),
        fails("HTML instead of a manifest", BadContent, UNREADABLE)
            .document("text/html", "<html>Log in</html>"),
        fails("lists within lists within a manifest", BadContent, UNREADABLE)
            .document(MANIFEST, format!(r#"{{"schemaVersion":2,"x":{}}}"#, "[".repeat(100_000))),
        fails("a manifest with NUL bytes", BadContent, UNREADABLE).document(MANIFEST, "{\u{0}}"),
        fails("a manifest that names its layers twice", BadContent, UNREADABLE)
            .document(MANIFEST, r#"{"schemaVersion":2,"layers":[],"layers":[]}"#),
        fine("a manifest that HEAD does not describe").on(HEAD, says("405 No", &[], "")),
    ]
}

fn kinds() -> Vec<Row> {
    let schema1 = json!({"schemaVersion": 1, "fsLayers": []});
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    vec![
        tagged(
            fails("a manifest whose type is not what it calls itself", BadContent, "it calls itself"),
            docker,
            &manifest(),
        ),
        tagged(
            fails("an image that calls itself an index", BadContent, "it calls itself"),
            INDEX,
            &manifest(),
        ),
        tagged(
            fails("an image that carries manifests (CVE-2021-41190)", BadContent, "carries manifests"),
            MANIFEST,
            &with(manifest(), "manifests", json!([])),
        ),
        tagged(
            fails("an index that carries layers (CVE-2021-41190)", BadContent, "carries config or layers"),
            INDEX,
            &with(index(&[]), "layers", json!([])),
        ),
        tagged(fails("a Docker schema 1 manifest", Unsupported, "schema 1"), MANIFEST, &schema1),
        tagged(
            fails("a manifest of an unknown version", Unsupported, "unknown schema version"),
            MANIFEST,
            &with(manifest(), "schemaVersion", json!(3)),
        ),
        tagged(
            fails("a manifest of a type nobody knows", Unsupported, "a manifest of type"),
            MANIFEST,
            &with(manifest(), "mediaType", json!("application/x\u{1b}[31m")),
        ),
    ]
}

fn descriptors() -> Vec<Row> {
    let hex = "A".repeat(64);
    let twice = json!([layer_descriptor(), with(layer_descriptor(), "size", json!(5))]);
    let many = Value::from(vec![layer_descriptor(); 513]);
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let nondistributable = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    vec![
        layer(fails("a layer of negative size", BadContent, UNREADABLE), "size", json!(-1)),
        layer(fails("a layer of a size that is text", BadContent, UNREADABLE), "size", json!("100000")),
        layer(fails("a layer of half a byte", BadContent, UNREADABLE), "size", json!(0.5)),
        layer(fails("a layer of 2^60 bytes", Unsupported, "claims to have"), "size", json!(1u64 << 60)),
        fails("a layer of more bytes than 64 bits count", BadContent, UNREADABLE).document(
            MANIFEST,
            manifest().to_string().replace("\"size\":100000", "\"size\":99999999999999999999999"),
        ),
        layer(
            fails("a layer with an unknown digest algorithm", BadContent, UNREADABLE),
            "digest",
            json!("md5:d41d8cd98f00b204e9800998ecf8427e"),
        ),
        layer(
            fails("a layer with an upper-case digest", BadContent, UNREADABLE),
            "digest",
            json!(format!("sha256:{hex}")),
        ),
        layer(
            fails("a layer whose digest is a path", BadContent, UNREADABLE),
            "digest",
            json!("sha256:../../../../etc/passwd"),
        ),
        layer(fails("a layer without a digest", BadContent, UNREADABLE), "digest", json!(null)),
        tagged(
            fails("one layer with two sizes", BadContent, "named with two sizes"),
            MANIFEST,
            &with(manifest(), "layers", twice),
        ),
        tagged(
            fails("513 layers", Unsupported, "more than 512 layers"),
            MANIFEST,
            &with(manifest(), "layers", many),
        ),
        layer(fails("a foreign layer", Unsupported, "is foreign"), "mediaType", json!(foreign)),
        layer(
            fails("a nondistributable layer", Unsupported, "is foreign"),
            "mediaType",
            json!(nondistributable),
        ),
        layer(
            fine("a layer with addresses of its own, which are not followed"),
            "urls",
            json!(["http://169.254.169.254/layer", "http://127.0.0.1:9/layer"]),
        ),
    ]
}

fn indexes() -> Vec<Row> {
    let many = vec![descriptor(MANIFEST, b"child"); 257];
    let text = manifest().to_string();
    let child = descriptor(MANIFEST, text.as_bytes());
    let own = descriptor(INDEX, b"the index itself, if that were possible");
    let mixed = with(child.clone(), "mediaType", json!(INDEX));
    vec![
        tagged(fails("an index of 257 entries", Unsupported, "more than 256 entries"), INDEX, &index(&many)),
        nested(fine("an index within an index"), 2),
        nested(fails("indexes within indexes within indexes", Unsupported, "nested deeper"), 3).worker(),
        tagged(fails("an index that claims to hold itself", BadContent, "digest"), INDEX, &index(&[own]))
            .times(1, GET, says("200 OK", &["Content-Type: application/vnd.oci.image.index.v1+json"], "{}"))
            .worker(),
        tagged(
            fails("a child with another size than the index says", BadContent, "were promised"),
            INDEX,
            &index(&[with(child.clone(), "size", json!(5))]),
        )
        .worker(),
        tagged(
            fine("a child of another kind than the index says: the document decides"),
            INDEX,
            &index(&[mixed]),
        )
        .worker(),
        tagged(
            fails("an index without the wanted platform", NotFound, "no content for the platform"),
            INDEX,
            &index(&[with(child, "platform", json!({"os": "../..", "architecture": "\u{0}"}))]),
        )
        .worker(),
    ]
}
