//! The mirror on a real port, byte by byte, with the requests that containerd and skopeo really send.
#![allow(clippy::unwrap_used)]

mod mirrors;
mod stores;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    process::Command,
    time::Duration,
};

use imagecache::{
    mirror::guard::Heart,
    model::{
        digest::Digest,
        root::{Entry, EntryKind, Root},
    },
    store::Store,
};
use jiff::Timestamp;
use mirrors::{Answer, Running, until};
use stores::{MANIFEST, blob_path, new_store, put, root};

/// An image that everybody may have.
fn public(mut root: Root) -> Root {
    root.images[0].public = Some(Timestamp::from_second(1_700_000_000).unwrap());
    root
}

fn with_layer(store: &Store, mut root: Root, bytes: &[u8]) -> (Root, Digest) {
    let digest = put(store, bytes);
    let layer = Entry {
        digest: digest.clone(),
        size: bytes.len() as u64,
        kind: EntryKind::Layer,
        media_type: stores::LAYER.into(),
    };
    root.images[0].closure.push(layer);
    (root, digest)
}

/// Changes one byte and keeps size and mode.
fn rot(store: &Store, digest: &Digest, at: usize) {
    let path = blob_path(store, digest);
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= 1;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, bytes).unwrap();
}

fn noise(len: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_u32;
    let byte = |_| {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        u8::try_from(x >> 24).unwrap()
    };
    (0..len).map(byte).collect()
}

#[test]
fn the_requests_of_containerd_are_answered() {
    let (_dir, store) = new_store();
    let root = public(root(&store, "local-a", 1, "nginx:1", "one"));
    store.link_root(&root).unwrap();
    let mirror = Running::new(store.path(), |_| ());
    let (manifest, layer) = (&root.images[0].closure[0], &root.images[0].closure[2]);

    // As containerd 2.1 sends them.
    let accept = "Accept: application/vnd.docker.distribution.manifest.v2+json, \
                  application/vnd.docker.distribution.manifest.list.v2+json, \
                  application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*";
    let by_tag = "/v2/library/nginx/manifests/1?ns=docker.io";
    let head = mirror.ask("HEAD", by_tag, &["User-Agent: containerd/2.1.9", accept]);
    assert_eq!((head.status, head.body.len()), (200, 0));
    let get = mirror.ask("GET", by_tag, &[accept, "Accept-Encoding: zstd,gzip,deflate"]);
    assert_eq!(Digest::sha256(&get.body), manifest.digest);
    let but_date = |answer: &Answer| -> Vec<_> {
        answer.headers.iter().filter(|(name, _)| name != "date").cloned().collect()
    };
    assert_eq!(but_date(&head), but_date(&get), "HEAD says what GET says");
    for (name, value) in [
        ("docker-content-digest", manifest.digest.to_string()),
        ("content-type", MANIFEST.to_owned()),
        ("content-length", manifest.size.to_string()),
        ("etag", format!("\"{}\"", manifest.digest)),
        ("oci-namespace", "docker.io".to_owned()),
        ("cache-control", "no-cache".to_owned()),
    ] {
        assert_eq!(get.header(name), Some(&*value), "{name}");
    }
    assert!(get.header("content-encoding").is_none());

    let by_digest = format!("/v2/library/nginx/manifests/{}?ns=docker.io", manifest.digest);
    let one_type = format!("Accept: {MANIFEST}, */*");
    let ranged = mirror.ask("GET", &by_digest, &[&one_type, "Range: bytes=0-"]);
    assert_eq!((ranged.status, Digest::sha256(&ranged.body)), (200, manifest.digest.clone()));
    assert!(ranged.header("cache-control").unwrap().contains("immutable"));

    let blob = format!("/v2/library/nginx/blobs/{}?ns=docker.io", layer.digest);
    let whole = mirror.ask("GET", &blob, &[&one_type, "Range: bytes=0-"]);
    assert_eq!((whole.status, whole.header("content-range")), (206, Some("bytes 0-1023/1024")));
    assert_eq!(Digest::sha256(&whole.body), layer.digest);
    let head = mirror.ask("HEAD", &blob, &[]);
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("1024"), 0));
    assert_eq!(head.header("content-type"), Some("application/octet-stream"));
    assert_eq!(head.header("accept-ranges"), Some("bytes"));
    let known = mirror.ask("GET", &blob, &[&format!("If-None-Match: \"{}\"", layer.digest)]);
    assert_eq!((known.status, known.body.len()), (304, 0));
}

#[test]
fn the_requests_of_skopeo_are_answered() {
    let (_dir, store) = new_store();
    let root = public(root(&store, "local-a", 1, "nginx:1", "one"));
    store.link_root(&root).unwrap();
    let mirror = Running::new(store.path(), |_| ());
    let version = mirror.get("/v2/");
    assert_eq!(version.status, 200);
    assert!(version.header("www-authenticate").is_none());
    // Six Accept lines, the type that is stored in the middle.
    let accept = [
        "Accept: application/vnd.oci.image.index.v1+json",
        "Accept: application/vnd.docker.distribution.manifest.v2+json",
        "Accept: application/vnd.oci.image.manifest.v1+json",
        "Accept: application/vnd.docker.distribution.manifest.v1+prettyjws",
        "Accept: application/vnd.docker.distribution.manifest.v1+json",
        "Accept: application/vnd.docker.distribution.manifest.list.v2+json",
    ];
    let uri = "/v2/docker.io/library/nginx/manifests/1";
    assert_eq!(mirror.ask("GET", uri, &accept).status, 200);
    let answer = mirror.ask("GET", uri, &accept[..2]);
    assert_eq!((answer.status, answer.code()), (404, "MANIFEST_UNKNOWN".into()), "the type is not accepted");
}

#[test]
fn skopeo_copies_an_image_from_the_mirror() {
    if Command::new("skopeo").arg("--version").output().is_err() {
        return;
    }
    let (dir, store) = new_store();
    store.link_root(&public(root(&store, "local-a", 1, "nginx:1", "one"))).unwrap();
    let mirror = Running::new(store.path(), |_| ());
    // As CRI-O and podman are told of a mirror; nothing listens at the upstream.
    let registries = dir.path().join("registries.conf");
    let text = format!(
        "[[registry]]\nprefix = \"docker.io\"\nlocation = \"127.0.0.1:1\"\n[[registry.mirror]]\nlocation = \"{}/docker.io\"\ninsecure = true\n",
        mirror.address
    );
    fs::write(&registries, text).unwrap();
    let target = format!("dir:{}", dir.path().join("copy").display());
    let output = Command::new("skopeo")
        .args(["--insecure-policy", "--registries-conf"])
        .arg(&registries)
        .args(["copy", "docker://docker.io/library/nginx:1", &target])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn nothing_is_answered_that_was_not_asked_rightly_and_never_with_a_challenge() {
    let (_dir, store) = new_store();
    let private = root(&store, "local-p", 1, "example.com/team/secret:1", "private");
    let shown = public(root(&store, "local-a", 1, "nginx:1", "one"));
    store.link_root(&shown).unwrap();
    store.link_root(&private).unwrap();
    let mirror = Running::new(store.path(), |_| ());
    let (layer, secret) = (&shown.images[0].closure[2].digest, &private.images[0].closure[0].digest);
    for (method, uri, status, code) in [
        ("GET", "/v2/library/nginx/manifests/1".to_owned(), 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/library/nginx/manifests/2?ns=docker.io".into(), 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/library/nginx/manifests/1?ns=quay.io".into(), 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/team/secret/manifests/1?ns=example.com".into(), 404, "MANIFEST_UNKNOWN"),
        ("GET", format!("/v2/team/secret/manifests/{secret}?ns=example.com"), 404, "MANIFEST_UNKNOWN"),
        ("GET", format!("/v2/team/secret/blobs/{layer}?ns=example.com"), 404, "BLOB_UNKNOWN"),
        ("GET", format!("/v2/other/repo/blobs/{layer}?ns=docker.io"), 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/library/nginx/blobs/sha256:12?ns=docker.io".into(), 400, "DIGEST_INVALID"),
        ("GET", "/v2/team/secret/tags/list?ns=example.com".into(), 404, "NAME_UNKNOWN"),
        ("GET", "/v2/%2e%2e/%2e%2e/manifests/1".into(), 404, "NAME_INVALID"),
        ("POST", "/v2/library/nginx/blobs/uploads/".into(), 405, "UNSUPPORTED"),
        ("DELETE", format!("/v2/library/nginx/blobs/{layer}"), 405, "UNSUPPORTED"),
        ("GET", format!("/v2/library/nginx/referrers/{layer}"), 404, "MANIFEST_UNKNOWN"),
        ("GET", "/etc/passwd".into(), 404, "UNSUPPORTED"),
    ] {
        let answer = mirror.ask(method, &uri, &["Authorization: Basic eDp5"]);
        assert_eq!((answer.status, &*answer.code()), (status, code), "{method} {uri}");
        assert!(answer.header("www-authenticate").is_none());
    }
    assert_eq!(mirror.ask("PUT", "/v2/a/manifests/1", &[]).header("allow"), Some("GET, HEAD"));
    let tags = mirror.get("/v2/library/nginx/tags/list?ns=docker.io");
    assert_eq!(tags.body, br#"{"name":"library/nginx","tags":["1"]}"#);

    let open = Running::new(store.path(), |config| config.serve_private = true);
    assert_eq!(open.get(&format!("/v2/team/secret/manifests/{secret}?ns=example.com")).status, 200);
}

#[test]
fn ranges_of_a_blob_are_exact() {
    let (_dir, store) = new_store();
    let bytes = noise(700_000);
    let (root, digest) = with_layer(&store, public(root(&store, "local-a", 1, "nginx:1", "one")), &bytes);
    store.link_root(&root).unwrap();
    let mirror = Running::new(store.path(), |_| ());
    let uri = format!("/v2/library/nginx/blobs/{digest}?ns=docker.io");
    for (range, part) in [
        ("bytes=300000-599999", 300_000..600_000),
        ("bytes=600000-", 600_000..700_000),
        ("bytes=-1", 699_999..700_000),
        ("bytes=0-0", 0..1),
        ("bytes=699000-900000", 699_000..700_000),
    ] {
        let answer = mirror.ask("GET", &uri, &[&format!("Range: {range}")]);
        let says = format!("bytes {}-{}/700000", part.start, part.end - 1);
        assert_eq!((answer.status, answer.header("content-range")), (206, Some(&*says)));
        assert_eq!(answer.header("content-length"), Some(&*part.len().to_string()));
        assert!(answer.body == bytes[part], "{range}");
    }
    let beyond = mirror.ask("GET", &uri, &["Range: bytes=700000-"]);
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */700000")));
    for header in ["Range: bytes=0-1,5-6", "Range: lines=1-2"] {
        let whole = mirror.ask("GET", &uri, &[header]);
        assert!(whole.status == 200 && whole.body == bytes);
    }
    let stale = mirror.ask("GET", &uri, &["Range: bytes=0-9", "If-Range: \"sha256:other\""]);
    assert_eq!((stale.status, stale.body.len()), (200, 700_000));
}

#[test]
fn a_blob_that_rotted_is_cut_before_its_last_byte_and_then_not_served() {
    let (_dir, store) = new_store();
    let bytes = noise(3_000_000);
    let (root, digest) = with_layer(&store, public(root(&store, "local-a", 1, "nginx:1", "one")), &bytes);
    store.link_root(&root).unwrap();
    rot(&store, &digest, 5);
    let mirror = Running::new(store.path(), |config| config.prove_first = 1_000_000);
    let manifest = "/v2/library/nginx/manifests/1?ns=docker.io";
    assert_eq!(mirror.get(manifest).status, 200);
    let uri = format!("/v2/library/nginx/blobs/{digest}?ns=docker.io");
    let cut = mirror.get(&uri);
    assert_eq!((cut.status, cut.header("content-length")), (200, Some("3000000")));
    assert!(cut.body.len() < 3_000_000, "{}", cut.body.len());

    assert_eq!(mirror.get(&uri).status, 404);
    assert_eq!(mirror.get(manifest).status, 404, "some clients choose a mirror by the manifest");
    let report = mirror.report();
    assert_eq!(report.broken[0].reason, format!("blob {digest} has wrong bytes"));

    put(&store, &bytes);
    until("the repaired blob is served", || mirror.get(&uri).body == bytes);
    assert_eq!(mirror.get(manifest).status, 200);
    assert!(mirror.report().broken.is_empty());
}

#[test]
fn a_layer_of_usual_size_that_rotted_costs_no_client_a_try() {
    let (_dir, store) = new_store();
    let (root, digest) =
        with_layer(&store, public(root(&store, "local-a", 1, "nginx:1", "one")), &noise(3_000_000));
    store.link_root(&root).unwrap();
    rot(&store, &digest, 5);
    let mirror = Running::new(store.path(), |_| ());
    let uri = format!("/v2/library/nginx/blobs/{digest}?ns=docker.io");
    // A client that got a part of it would complete that from upstream, and have wrong bytes.
    assert_eq!(mirror.get(&uri).status, 404);
    assert_eq!(mirror.report().broken.len(), 1);
}

#[test]
fn a_part_or_a_small_blob_that_rotted_is_not_served_at_all() {
    let (_dir, store) = new_store();
    let (first, large) =
        with_layer(&store, public(root(&store, "local-a", 1, "nginx:1", "one")), &noise(3_000_000));
    store.link_root(&first).unwrap();
    let (second, small) = with_layer(&store, public(root(&store, "local-b", 1, "redis:1", "two")), b"small");
    store.link_root(&second).unwrap();
    let third = public(root(&store, "local-c", 1, "mysql:1", "three"));
    store.link_root(&third).unwrap();
    for digest in [&large, &small, &third.images[0].digest] {
        rot(&store, digest, 1);
    }
    let mirror = Running::new(store.path(), |_| ());
    // Of the large one a part whose own bytes are right.
    let part = mirror.ask("GET", &format!("/v2/library/nginx/blobs/{large}"), &["Range: bytes=2000000-"]);
    assert_eq!(part.status, 404);
    assert_eq!(mirror.get(&format!("/v2/library/redis/blobs/{small}")).status, 404);
    assert_eq!(mirror.get("/v2/library/mysql/manifests/1?ns=docker.io").status, 404);
    assert_eq!(mirror.report().broken.len(), 3);
}

#[test]
fn a_manifest_whose_blobs_are_gone_is_not_answered() {
    let (_dir, store) = new_store();
    let (root, layer) = with_layer(&store, public(root(&store, "local-a", 1, "nginx:1", "one")), b"gone");
    store.link_root(&root).unwrap();
    fs::remove_file(blob_path(&store, &layer)).unwrap();
    let mirror = Running::new(store.path(), |_| ());
    assert_eq!(mirror.get("/v2/library/nginx/manifests/1?ns=docker.io").status, 404);
    assert_eq!(mirror.report().broken[0].reason, format!("blob {layer} is missing"));
}

#[test]
fn the_mirror_follows_the_store_from_before_its_first_pull() {
    let dir = tempfile::tempdir().unwrap();
    let mirror = Running::new(dir.path(), |_| ());
    let uri = "/v2/library/nginx/manifests/1?ns=docker.io";
    assert_eq!(mirror.get(uri).status, 404);
    assert_eq!(mirror.report().store, None);
    assert!(mirror.report().capacity > 0);

    let store = Store::create_or_open(dir.path()).unwrap();
    let old = public(root(&store, "local-a", 1, "nginx:1", "old"));
    let credited = store.link_root(&old).unwrap();
    until("the new root is served", || mirror.get(uri).status == 200);
    let report = mirror.report();
    assert_eq!(report.store.as_deref(), Some(store.id()));
    assert_eq!((report.roots[0].run, &report.roots[0].digest), (1, &credited));
    assert_eq!(report.used, old.size());

    let new = public(root(&store, "local-a", 2, "nginx:1", "new"));
    store.link_root(&new).unwrap();
    let digest = new.images[0].digest.to_string();
    until("the newer one wins", || mirror.get(uri).header("docker-content-digest") == Some(&digest));
    fs::write(dir.path().join("roots/local-a/3.json"), "{").unwrap();
    until("the unreadable root is reported", || !mirror.report().broken.is_empty());
    assert_eq!(mirror.get(uri).status, 200, "and the others are served");

    fs::remove_dir_all(dir.path().join("roots/local-a")).unwrap();
    until("what is gone is not served", || mirror.get(uri).status == 404);
}

#[test]
fn a_volume_that_was_replaced_is_seen_as_another_store() {
    let (_dir, store) = new_store();
    store.link_root(&public(root(&store, "local-a", 1, "nginx:1", "one"))).unwrap();
    let mirror = Running::new(store.path(), |_| ());
    let path = store.path().to_owned();
    fs::remove_dir_all(&path).unwrap();
    let other = Store::create_or_open(&path).unwrap();
    until("the new id is reported", || mirror.report().store.as_deref() == Some(other.id()));
    assert!(mirror.report().roots.is_empty());
}

#[test]
fn probes_and_metrics_have_a_port_of_their_own_if_asked() {
    let (_dir, store) = new_store();
    store.link_root(&public(root(&store, "local-a", 1, "nginx:1", "one"))).unwrap();
    let mirror = Running::new(store.path(), |config| config.admin = Some("127.0.0.1:0".parse().unwrap()));
    for uri in ["/livez", "/readyz", "/report", "/metrics"] {
        assert_eq!((mirror.get_admin(uri).status, mirror.get(uri).status), (200, 404), "{uri}");
    }
    assert_eq!(mirror.get_admin("/v2/").status, 404);
    let text = String::from_utf8(mirror.get_admin("/metrics").body).unwrap();
    for line in ["imagecache_mirror_requests_total{code=\"404\"}", "imagecache_mirror_roots 1", "# EOF"] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[test]
fn a_client_that_takes_no_bytes_is_cut() {
    let (_dir, store) = new_store();
    let (root, digest) =
        with_layer(&store, public(root(&store, "local-a", 1, "nginx:1", "one")), &vec![7; 32 << 20]);
    store.link_root(&root).unwrap();
    let mirror = Running::new(store.path(), |config| {
        config.progress_limit = Duration::from_millis(300);
        config.max_connections = 1;
        config.admin = Some("127.0.0.1:0".parse().unwrap());
    });
    let mut stalled = TcpStream::connect(mirror.address).unwrap();
    write!(stalled, "GET /v2/library/nginx/blobs/{digest} HTTP/1.1\r\nHost: m\r\n\r\n").unwrap();
    // Its only connection is free again.
    until("the stalled client is cut", || mirror.get("/v2/").status == 200);
    let mut rest = Vec::new();
    drop(stalled.read_to_end(&mut rest));
    assert!(rest.len() < 32 << 20, "{}", rest.len());
}

#[test]
fn a_client_that_asks_nothing_is_cut_and_one_too_many_is_refused_at_once() {
    let (_dir, store) = new_store();
    let mirror = Running::new(store.path(), |config| {
        config.progress_limit = Duration::from_secs(3);
        config.max_connections = 2;
        config.admin = Some("127.0.0.1:0".parse().unwrap());
    });
    let silent: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(mirror.address).unwrap()).collect();
    let mut extra = TcpStream::connect(mirror.address).unwrap();
    let mut answer = Vec::new();
    drop(extra.read_to_end(&mut answer));
    assert!(answer.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&answer));
    drop(extra);
    for mut stream in silent {
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest)); // returns when the mirror closes
    }
    until("others are served again", || mirror.get("/v2/").status == 200);
}

#[test]
fn a_tls_hello_on_the_plain_port_is_closed_at_once() {
    let (_dir, store) = new_store();
    let mirror = Running::new(store.path(), |_| ());
    let mut stream = TcpStream::connect(mirror.address).unwrap();
    stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").unwrap();
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    assert!(!answer.starts_with(b"HTTP/1.1 2"));
}

#[test]
fn many_readers_of_one_blob_get_all_of_it() {
    let (_dir, store) = new_store();
    let bytes = noise(2_000_000);
    let (root, digest) = with_layer(&store, public(root(&store, "local-a", 1, "nginx:1", "one")), &bytes);
    store.link_root(&root).unwrap();
    let mirror = Running::new(store.path(), |_| ());
    let uri = format!("/v2/library/nginx/blobs/{digest}");
    std::thread::scope(|scope| {
        for i in 0..32 {
            let (mirror, uri, bytes) = (&mirror, &uri, &bytes);
            scope.spawn(move || {
                let first = i * 1000;
                let answer = mirror.ask("GET", uri, &[&format!("Range: bytes={first}-")]);
                assert!(answer.body == bytes[first..]);
            });
        }
    });
}

#[test]
fn the_watchdog_barks_when_the_heart_stops_and_not_before() {
    let heart = Heart::default();
    let (send, barked) = std::sync::mpsc::channel();
    heart.watch(Duration::from_secs(2), move || send.send(()).unwrap()).unwrap();
    for _ in 0..20 {
        heart.beat();
        assert!(barked.recv_timeout(Duration::from_millis(10)).is_err());
    }
    barked.recv_timeout(Duration::from_mins(1)).unwrap();
}
