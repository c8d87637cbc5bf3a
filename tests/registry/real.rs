//! The same against a real registry (CNCF distribution), where its binary is installed.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use imagecache::registry::manifest::Document;

use super::*;

struct Distribution {
    child: Child,
    host: String,
    folder: tempfile::TempDir,
}

impl Drop for Distribution {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn which(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|d| d.join(name)).find(|p| p.is_file())
}

/// Lays out one repository as the file system driver keeps it, so that nothing has to be pushed.
fn fill(root: &Path, repository: &str, tag: &str, layer: &[u8]) -> Digest {
    let base = root.join("docker/registry/v2");
    let put = |path: PathBuf, bytes: &[u8]| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create(path).unwrap().write_all(bytes).unwrap();
    };
    let blob = |bytes: &[u8]| -> Digest {
        let digest = Digest::sha256(bytes);
        let hex = digest.hex();
        put(base.join(format!("blobs/sha256/{}/{hex}/data", &hex[..2])), bytes);
        let link = format!("repositories/{repository}/_layers/sha256/{hex}/link");
        put(base.join(link), digest.to_string().as_bytes());
        digest
    };
    let (config, layer_digest) = (blob(b"{}"), blob(layer));
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": upstream::MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.to_string(), "size": 2},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": layer_digest.to_string(), "size": layer.len()}],
    });
    let digest = blob(manifest.to_string().as_bytes());
    let manifests = format!("repositories/{repository}/_manifests");
    for link in [
        format!("{manifests}/revisions/sha256/{}/link", digest.hex()),
        format!("{manifests}/tags/{tag}/current/link"),
        format!("{manifests}/tags/{tag}/index/sha256/{}/link", digest.hex()),
    ] {
        put(base.join(link), digest.to_string().as_bytes());
    }
    digest
}

/// `extra` ends its configuration, for example with how people log in.
async fn start(extra: impl Fn(&Path) -> String) -> Option<Distribution> {
    let binary = which("docker-registry")?;
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let host = format!("127.0.0.1:{port}");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: {host}\n{}",
        folder.path().display(),
        extra(folder.path())
    );
    let file = folder.path().join("config.yml");
    std::fs::write(&file, text).unwrap();
    let child = Command::new(binary)
        .arg("serve")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Distribution { child, host, folder };
    let up = async {
        while tokio::net::TcpStream::connect(&started.host).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), up).await.unwrap();
    Some(started)
}

async fn pull(client: &Client, host: &str, wanted: &Digest, layer: &[u8]) {
    let reference = format!("{host}/team/app:1").parse().unwrap();
    let resolved = client.resolve(&reference).await.unwrap();
    assert_eq!(&resolved.digest, wanted);
    let host = reference.host();
    let raw = client.manifest(host, "team/app", wanted, Some(resolved.size)).await.unwrap();
    let Document::Image { layers, .. } = raw.parse().unwrap() else { panic!() };
    assert!(client.has_blob(host, "team/app", &layers[0].digest).await.unwrap());
    for offset in [0, layer.len() as u64 / 2] {
        let blob = client.blob(host, "team/app", &layers[0].digest, layers[0].size, offset).await.unwrap();
        let all = whole(blob).await.unwrap();
        assert!(all == layer[usize::try_from(offset).unwrap()..], "from {offset}");
    }
    let missing = client.resolve(&format!("{host}/team/app:nope").parse().unwrap()).await.unwrap_err();
    is(&missing, Class::NotFound, &["no such tag"]);
    let missing = client.resolve(&format!("{host}/team/nope:1").parse().unwrap()).await.unwrap_err();
    is(&missing, Class::NotFound, &["404"]);
}

fn plain(host: &str, credentials: CredentialSource) -> Config {
    let access = Access { transport: Transport::PlainHttp, overridden: false };
    Config {
        access: [(host.parse().unwrap(), access)].into(),
        credentials,
        limits: limits(),
        ..Config::default()
    }
}

fn none() -> CredentialSource {
    CredentialSource::Fixed(Credentials::default())
}

#[tokio::test]
async fn a_real_registry_over_http_and_what_a_tls_hello_to_it_means() {
    let Some(registry) = start(|_| String::new()).await else { return };
    let layer = noise(3_000_000);
    let digest = fill(registry.folder.path(), "team/app", "1", &layer);
    pull(&Client::new(plain(&registry.host, none())).unwrap(), &registry.host, &digest, &layer).await;
    let https = Client::new(Config { limits: limits(), ..Config::default() }).unwrap();
    let failure = https.resolve(&format!("{}/team/app:1", registry.host).parse().unwrap()).await.unwrap_err();
    is(&failure, Class::PlainHttp, &["http: server gave HTTP response to HTTPS client"]);
}

#[tokio::test]
async fn a_real_registry_over_tls() {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let tls = |folder: &Path| {
        let (certificate, file) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&certificate, &pem).unwrap();
        std::fs::write(&file, &key).unwrap();
        format!("  tls: {{certificate: {}, key: {}}}\n", certificate.display(), file.display())
    };
    let Some(registry) = start(tls).await else { return };
    let layer = noise(3_000_000);
    let digest = fill(registry.folder.path(), "team/app", "1", &layer);
    let trusting = Config { extra_roots: vec![pem.into_bytes()], limits: limits(), ..Config::default() };
    pull(&Client::new(trusting).unwrap(), &registry.host, &digest, &layer).await;
}

#[tokio::test]
async fn a_real_registry_with_basic_login() {
    let Some(htpasswd) = which("htpasswd") else { return };
    let login = |folder: &Path| {
        let file = folder.join("users");
        let made = Command::new(&htpasswd).args(["-Bbn", "me", "s3cret"]).output().unwrap();
        std::fs::write(&file, made.stdout).unwrap();
        format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display())
    };
    let Some(registry) = start(login).await else { return };
    let layer = noise(100_000);
    let digest = fill(registry.folder.path(), "team/app", "1", &layer);
    let known = keys(&[(&registry.host, "me", "s3cret")]);
    pull(&Client::new(plain(&registry.host, known)).unwrap(), &registry.host, &digest, &layer).await;
    for wrong in [none(), keys(&[(&registry.host, "me", "s3cret-wrong")])] {
        let client = Client::new(plain(&registry.host, wrong)).unwrap();
        let failure = client.resolve(&format!("{}/team/app:1", registry.host).parse().unwrap()).await;
        is(&failure.unwrap_err(), Class::Auth, &["team/app:1"]);
    }
}
