//! The built binary, as scripts use it: forms, exit status, what is on standard output.
#![allow(clippy::unwrap_used)]

#[path = "support/acr/mod.rs"]
mod cloud;
#[path = "support/registry/mod.rs"]
mod upstream;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;
use upstream::{Login, Registry};

fn imagecache(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_imagecache")).args(args).current_dir(folder).output().unwrap()
}

async fn run(folder: &Path, args: &[&str]) -> (i32, String, String) {
    let (folder, args) = (folder.to_owned(), args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
    let output = tokio::task::spawn_blocking(move || {
        imagecache(&folder, &args.iter().map(String::as_str).collect::<Vec<_>>())
    });
    let output = output.await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn images_from_flags_a_list_and_a_manifest_are_pulled_listed_and_verified() {
    let (registry, folder) = (Registry::start().await, tempfile::tempdir().unwrap());
    let (dir, host) = (folder.path(), registry.host().to_string());
    for name in ["web", "api"] {
        registry.image(name, "1", "linux/amd64", &[b"base", name.as_bytes()]);
    }
    let (web, api) = (format!("{host}/web:1"), format!("{host}/api:1"));
    fs::write(dir.join("list.txt"), format!("# two images\n{web}\n\n{api} # and a comment\n")).unwrap();
    let manifest = format!(
        "apiVersion: eci.alibabacloud.com/v1\nkind: ImageCache\nmetadata:\n  name: shop\n  annotations:\n    \
         k8s.aliyun.com/plain-http-registry: \"{host}\"\nspec:\n  images: [\"{web}\"]\n  retentionDays:\n   7\n"
    );
    fs::write(dir.join("cache.yaml"), manifest).unwrap();
    let linux = ["--platform", "linux/amd64", "--volume", "vol"];
    for form in [
        vec!["pull", "--image", &web, "--image", &api, "--plain-http", &host, "--name", "flags"],
        vec!["pull", "--images-from", "list.txt", "--plain-http", &host],
        vec!["pull", "-f", "cache.yaml"],
    ] {
        let (status, out, err) = run(dir, &[form.as_slice(), &linux].concat()).await;
        assert_eq!(status, 0, "{form:?}: {err}");
        assert!(out.starts_with("IMAGE") && out.contains(&web), "{out}");
    }
    let (status, out, _) = run(dir, &["ls", "vol", "-o", "json"]).await;
    let listed: Value = serde_json::from_str(&out).unwrap();
    let names: Vec<&str> =
        listed["caches"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(status, 0);
    assert!(names.contains(&"flags") && names.contains(&"shop") && names.len() == 3, "{names:?}");
    let (status, out, _) = run(dir, &["verify", "vol"]).await;
    assert_eq!(status, 0, "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_output_is_one_object_a_line_with_the_outcome_last() {
    let (registry, folder) = (Registry::start().await, tempfile::tempdir().unwrap());
    registry.image("web", "1", "linux/amd64", &[b"layer"]);
    let (host, image) = (registry.host().to_string(), registry.reference("web:1").to_string());
    let args = [
        "pull",
        "--image",
        &image,
        "--plain-http",
        &host,
        "--volume",
        "vol",
        "--platform",
        "linux/amd64",
        "-o",
        "json",
    ];
    let (status, out, _) = run(folder.path(), &args).await;
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(status, 0);
    assert_eq!(lines[0]["report"], "progress");
    assert!(lines.last().unwrap()["root"].as_str().unwrap().starts_with("sha256:"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_status_is_the_class_and_the_advice_is_in_the_words_of_flags() {
    let (registry, folder) = (Registry::start().await, tempfile::tempdir().unwrap());
    let (dir, host) = (folder.path(), registry.host().to_string());
    registry.image("web", "1", "linux/amd64", &[b"layer"]);
    let web = registry.reference("web:1").to_string();
    let pull = |image: &str, more: &[&str]| {
        [&["pull", "--platform", "linux/amd64", "--volume", "vol", "--image", image], more]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for (args, expected, advice) in [
        (pull(&web, &[]), 24, format!("--plain-http {host}")),
        (
            pull(&registry.reference("gone:1").to_string(), &["--plain-http", &host]),
            23,
            "check the repository".into(),
        ),
        (pull("Not A Reference", &[]), 2, "is empty or has spaces".into()),
        (vec!["pull".to_owned(), "--volume".to_owned(), "vol".to_owned()], 2, "--image REF".into()),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (status, _, err) = run(dir, &args).await;
        assert_eq!(status, expected, "{args:?}: {err}");
        assert!(err.contains(&advice), "{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authfile_is_used_and_its_secret_is_printed_nowhere() {
    let (registry, folder) = (Registry::start().await, tempfile::tempdir().unwrap());
    let (dir, host) = (folder.path(), registry.host().to_string());
    registry.image("web", "1", "linux/amd64", &[b"layer"]);
    registry.login(Login::Basic(vec![("demo", "hunter2-secret")]));
    let config = serde_json::json!({"auths": {&host: {"username": "demo", "password": "hunter2-secret"}}});
    fs::write(dir.join("auth.json"), config.to_string()).unwrap();
    let web = registry.reference("web:1").to_string();
    let args =
        ["pull", "--platform", "linux/amd64", "--volume", "vol", "--image", &web, "--plain-http", &host];
    let (status, _, err) = run(dir, &args).await;
    assert_eq!(status, 22, "{err}");
    let more = ["--authfile", "auth.json", "--log", "trace", "-o", "json"];
    let (status, out, err) = run(dir, &[args.as_slice(), &more].concat()).await;
    assert_eq!(status, 0, "{err}");
    for text in [&out, &err] {
        assert!(!text.contains("hunter2") && !text.contains("ZGVtbzpodW50"), "{text}");
    }
    let files = Command::new("grep").args(["-r", "hunter2", "vol"]).current_dir(dir).output().unwrap();
    assert!(files.stdout.is_empty(), "nothing secret is in the store");
}

#[test]
fn a_manifest_that_cannot_be_pulled_says_everything_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = "apiVersion: eci.alibabacloud.com/v1\nkind: ImageCache\nmetadata: {name: bad}\nspec:\n  \
                    images: [\"Upper/Case\", \"ok:1\", \"bad tag:x\"]\n  imagePullSecrets: [bare]\n";
    fs::write(folder.path().join("bad.yaml"), manifest).unwrap();
    let output = imagecache(folder.path(), &["pull", "-f", "bad.yaml", "--volume", "vol"]);
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{err}");
    for part in ["spec.images[0]", "spec.images[2]", "spec.imagePullSecrets[0]", "default:bare"] {
        assert!(err.contains(part), "{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_by_hand_takes_its_login_with_the_environments_access_key() {
    let (registry, folder) = (Registry::start().await, tempfile::tempdir().unwrap());
    let (cloud, host) = (cloud::Cloud::start().await, registry.host().to_string());
    registry.image("team/app", "1", "linux/amd64", &[b"private"]);
    // The first login that the cloud gives.
    registry.login(Login::Basic(vec![("cr_temp_user-cri-own01", "p4ss-1")]));
    cloud.user("me", "LTAI5t", "us3r-s3cret");
    cloud.instance("cri-own01", "cn-hangzhou", "shop", &[&host]);
    let manifest = format!(
        "apiVersion: eci.alibabacloud.com/v1\nkind: ImageCache\nmetadata:\n  name: shop\n  annotations:\n    \
         k8s.aliyun.com/acr-instance-ids: cn-hangzhou:cri-own01\nspec:\n  images: [\"{host}/team/app:1\"]\n"
    );
    fs::write(folder.path().join("cache.yaml"), manifest).unwrap();
    let (dir, url) = (folder.path().to_owned(), cloud.url());
    let pull = async |secret: Option<&'static str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imagecache"));
        command.args(["pull", "-f", "cache.yaml", "--volume", "vol", "--platform", "linux/amd64"]);
        command
            .args(["--plain-http", &host, "--acr-endpoint", &url, "--sts-endpoint", &url])
            .current_dir(&dir);
        if let Some(secret) = secret {
            command
                .env("ALIBABA_CLOUD_ACCESS_KEY_ID", "LTAI5t")
                .env("ALIBABA_CLOUD_ACCESS_KEY_SECRET", secret);
        }
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, err) = pull(None).await;
    assert!(status == 22 && err.contains("ALIBABA_CLOUD_ACCESS_KEY_ID"), "{err}");
    let (status, err) = pull(Some("wr0ng")).await;
    assert!(
        status == 22 && err.contains("does not match our calculation") && !err.contains("wr0ng"),
        "{err}"
    );
    let (status, err) = pull(Some("us3r-s3cret")).await;
    assert_eq!(status, 0, "{err}");
    assert!(!err.contains("p4ss"), "{err}");
}
