//! Signatures and the like come along when that is asked for, by the API, its fallback tag and cosign's tags, and the
//! mirror gives them back when their registry is gone.
#![allow(clippy::unwrap_used)]

mod mirrors;
#[path = "support/registry/mod.rs"]
mod upstream;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use imagecache::model::digest::Digest;
use mirrors::{Answer, Running, until};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use upstream::{Fault, INDEX, MANIFEST, Registry};

const SIGNATURE: &str = "application/vnd.example.signature";
const SBOM: &str = "application/spdx+json";

/// One repository: blobs, and manifests with their tags.
#[derive(Default)]
struct Content {
    blobs: Vec<Vec<u8>>,
    manifests: Vec<(Option<String>, &'static str, String)>,
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::sha256(bytes).to_string(), "size": bytes.len()})
}

impl Content {
    fn manifest(&mut self, tag: Option<String>, payload: &str, more: &Value) -> Value {
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
            "layers": [descriptor("application/octet-stream", payload.as_bytes())],
        });
        manifest.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let text = manifest.to_string();
        let mut described = descriptor(MANIFEST, text.as_bytes());
        if let Some(kind) = more.get("artifactType") {
            described["artifactType"] = kind.clone();
            described["annotations"] = json!({"made.by": payload});
        }
        self.blobs.extend([b"{}".to_vec(), payload.as_bytes().to_vec()]);
        self.manifests.push((tag, MANIFEST, text));
        described
    }

    /// An image, so many artifacts that refer to it, and a signature of cosign's.
    fn signed(artifacts: usize) -> (Self, Digest, Vec<Value>) {
        let mut content = Self::default();
        let image = content.manifest(Some("1".into()), "layer", &json!({}));
        let subject: Digest = image["digest"].as_str().unwrap().parse().unwrap();
        let artifact = |i| {
            let kind = if i == 0 { SBOM } else { SIGNATURE };
            let more = json!({"artifactType": kind, "subject": image});
            content.manifest(None, &format!("artifact {i}"), &more)
        };
        let list = (0..artifacts).map(artifact).collect();
        content.manifest(Some(format!("sha256-{}.sig", subject.hex())), "cosign", &json!({}));
        (content, subject, list)
    }

    fn put(&self, registry: &Registry) {
        for blob in &self.blobs {
            registry.put_blob("team/app", blob.clone());
        }
        for (tag, media_type, text) in &self.manifests {
            registry.put_manifest("team/app", tag.as_deref(), media_type, text.clone());
        }
    }

    /// As the file system driver of CNCF distribution keeps it.
    fn write(&self, root: &Path) {
        let base = root.join("docker/registry/v2");
        let put = |path: String, bytes: &[u8]| {
            fs::create_dir_all(base.join(&path).parent().unwrap()).unwrap();
            fs::write(base.join(path), bytes).unwrap();
        };
        let repository = "repositories/team/app";
        let texts = self.manifests.iter().map(|(_, _, text)| text.as_bytes());
        for bytes in self.blobs.iter().map(Vec::as_slice).chain(texts) {
            let digest = Digest::sha256(bytes);
            let hex = digest.hex();
            put(format!("blobs/sha256/{}/{hex}/data", &hex[..2]), bytes);
            put(format!("{repository}/_layers/sha256/{hex}/link"), digest.to_string().as_bytes());
        }
        for (tag, _, text) in &self.manifests {
            let digest = Digest::sha256(text.as_bytes());
            let (hex, text) = (digest.hex(), digest.to_string());
            put(format!("{repository}/_manifests/revisions/sha256/{hex}/link"), text.as_bytes());
            if let Some(tag) = tag {
                put(format!("{repository}/_manifests/tags/{tag}/current/link"), text.as_bytes());
            }
        }
    }
}

struct Scripted {
    runtime: Runtime,
    registry: Registry,
}

fn scripted(content: &Content) -> Scripted {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let registry = runtime.block_on(Registry::start());
    content.put(&registry);
    Scripted { runtime, registry }
}

/// Pulls `team/app:1` of this host into a volume.
fn pull(volume: &Path, host: &str, more: &[&str]) -> String {
    let image = format!("{host}/team/app:1");
    let done = Command::new(env!("CARGO_BIN_EXE_imagecache"))
        .args(["pull", "--name", "app", "--platform", "linux/amd64", "--plain-http", host, "--image", &image])
        .arg("--volume")
        .arg(volume)
        .args(more)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

struct Served {
    mirror: Running,
    host: String,
}

impl Served {
    fn new(volume: &Path, host: &str, private: bool) -> Self {
        Self { mirror: Running::new(volume, |config| config.serve_private = private), host: host.to_owned() }
    }

    fn get(&self, what: &str, query: &str) -> Answer {
        self.mirror.get(&format!("/v2/team/app/{what}?ns={}{query}", self.host))
    }

    fn list(&self, subject: &Digest, query: &str) -> Vec<Value> {
        let answer = self.get(&format!("referrers/{subject}"), query);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(INDEX)));
        let index: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&json!(2), &json!(INDEX)));
        index["manifests"].as_array().unwrap().clone()
    }

    /// Every listed manifest, and all that it names, comes whole.
    fn comes_whole(&self, listed: &[Value]) {
        for entry in listed {
            let digest = entry["digest"].as_str().unwrap();
            let answer = self.get(&format!("manifests/{digest}"), "");
            assert_eq!(Digest::sha256(&answer.body).to_string(), digest);
            let manifest: Value = serde_json::from_slice(&answer.body).unwrap();
            for blob in [&manifest["config"], &manifest["layers"][0]] {
                let digest = blob["digest"].as_str().unwrap();
                let answer = self.get(&format!("blobs/{digest}"), "");
                assert_eq!(Digest::sha256(&answer.body).to_string(), digest);
            }
        }
    }
}

#[test]
fn all_pages_of_the_api_and_cosigns_tags_are_kept_and_served_when_upstream_is_gone() {
    let (content, subject, list) = Content::signed(5);
    let up = scripted(&content);
    up.registry.put_referrers("team/app", &subject, list.clone());
    let (folder, host) = (tempfile::tempdir().unwrap(), up.registry.host().to_string());
    pull(folder.path(), &host, &["--referrers"]);
    up.registry.always("", Fault::status(503));
    drop(up.runtime);

    let served = Served::new(folder.path(), &host, true);
    assert_eq!(served.list(&subject, ""), list, "as upstream said it, annotations too");
    served.comes_whole(&list);
    let sbom = served.get(&format!("referrers/{subject}"), "&artifactType=application%2Fspdx%2Bjson");
    assert_eq!(sbom.header("oci-filters-applied"), Some("artifactType"));
    assert_eq!(served.list(&subject, "&artifactType=application%2Fspdx%2Bjson"), list[..1]);
    assert!(served.list(&subject, "&artifactType=other").is_empty());
    let signature = served.get(&format!("manifests/sha256-{}.sig", subject.hex()), "");
    assert_eq!(signature.status, 200);
    assert!(String::from_utf8_lossy(&signature.body).contains(Digest::sha256(b"cosign").hex()));
    let other = Digest::sha256(b"other");
    assert_eq!(served.get(&format!("referrers/{other}"), "").status, 404, "nobody asked upstream");
    // Private is private.
    let closed = Served::new(folder.path(), &host, false);
    for what in [format!("referrers/{subject}"), format!("manifests/sha256-{}.sig", subject.hex())] {
        assert_eq!(closed.get(&what, "").status, 404, "{what}");
    }
}

#[test]
fn an_image_without_any_is_no_failure_and_one_that_was_not_asked_for_is_not_answered() {
    let (mut content, subject, _) = Content::signed(0);
    content.manifests.truncate(1);
    let up = scripted(&content);
    let (folder, host) = (tempfile::tempdir().unwrap(), up.registry.host().to_string());
    pull(folder.path(), &host, &[]);
    assert!(!up.registry.lines().iter().any(|line| line.contains("referrers") || line.contains("sha256-")));
    let served = Served::new(folder.path(), &host, true);
    assert_eq!(served.get(&format!("referrers/{subject}"), "").status, 404);
    pull(folder.path(), &host, &["--referrers"]);
    until("upstream's answer is known", || served.get(&format!("referrers/{subject}"), "").status == 200);
    assert!(served.list(&subject, "").is_empty());
}

#[test]
fn a_flood_is_cut_with_a_notice() {
    let (content, subject, list) = Content::signed(40);
    let up = scripted(&content);
    up.registry.put_referrers("team/app", &subject, list.clone());
    let (folder, host) = (tempfile::tempdir().unwrap(), up.registry.host().to_string());
    let said = pull(folder.path(), &host, &["--referrers", "-o", "json"]);
    assert!(said.contains("only the first"), "{said}");
    let served = Served::new(folder.path(), &host, true);
    assert_eq!(served.list(&subject, ""), list[..32], "sixteen pages of two");
}

fn which(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|d| d.join(name)).find(|p| p.is_file())
}

struct Distribution {
    child: Child,
    host: String,
    _folder: tempfile::TempDir,
}

impl Drop for Distribution {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A real registry that has no referrers API, where it is installed.
fn distribution(content: &Content) -> Option<Distribution> {
    let binary = which("docker-registry")?;
    let folder = tempfile::tempdir().unwrap();
    content.write(folder.path());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let host = format!("127.0.0.1:{port}");
    let root = folder.path().display();
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root}}}}}\nhttp:\n  addr: {host}\n"
    );
    let config = folder.path().join("config.yml");
    fs::write(&config, text).unwrap();
    let mut command = Command::new(binary);
    let child = command.arg("serve").arg(config).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Distribution { child, host, _folder: folder };
    until("the registry listens", || std::net::TcpStream::connect(&started.host).is_ok());
    Some(started)
}

#[test]
fn a_real_registry_without_the_api_is_asked_by_the_referrers_tag() {
    let (mut content, subject, list) = Content::signed(3);
    let tag = format!("sha256-{}", subject.hex());
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": list});
    content.manifests.push((Some(tag.clone()), INDEX, index.to_string()));
    let Some(registry) = distribution(&content) else { return };
    let (folder, host) = (tempfile::tempdir().unwrap(), registry.host.clone());
    pull(folder.path(), &host, &["--referrers"]);
    drop(registry);
    let served = Served::new(folder.path(), &host, true);
    assert_eq!(served.list(&subject, ""), list);
    served.comes_whole(&list);
    assert_eq!(served.get(&format!("manifests/{tag}"), "").body, index.to_string().into_bytes());
    // Another program reads the signature: the upstream is in the path.
    let Some(skopeo) = which("skopeo") else { return };
    let copy = folder.path().join("signature");
    let from = format!("docker://{}/{}/team/app:{tag}.sig", served.mirror.address, host.replace(':', "_"));
    let done = Command::new(skopeo)
        .args(["copy", "--src-tls-verify=false", &from])
        .arg(format!("dir:{}", copy.display()))
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(fs::read(copy.join(Digest::sha256(b"cosign").hex())).unwrap(), b"cosign");
}
