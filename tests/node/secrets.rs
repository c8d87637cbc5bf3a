//! Where the password of a pull secret is, and where it is not: in no other object than the Job's own Secret, in no
//! log, event, status, argument, environment or file of the store.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{
    kit::cluster::Cluster,
    world::{
        image::{Blob, Image},
        plain_cache, pull_secret,
        registry::{Kind, PASSWORD, Registry, USER},
        world,
    },
};

/// The forms a password takes on its way.
fn forms() -> Vec<String> {
    let basic = format!("{USER}:{PASSWORD}");
    vec![PASSWORD.to_owned(), BASE64_STANDARD.encode(PASSWORD), BASE64_STANDARD.encode(basic)]
}

fn tells(bytes: &[u8]) -> bool {
    forms().iter().any(|form| bytes.windows(form.len()).any(|window| window == form.as_bytes()))
}

/// Every object of every kind that can be listed and tells the password, as kind/namespace/name.
fn objects_that_tell(cluster: &Cluster) -> Vec<String> {
    let kinds = cluster.run(&["api-resources", "--verbs=list", "-o", "name"]);
    let kinds: Vec<&str> = kinds.split_whitespace().filter(|kind| !kind.contains("metrics")).collect();
    let objects = cluster.list(&[&kinds.join(","), "-A"]);
    let mut tell: Vec<String> =
        objects.iter().filter(|object| tells_somewhere(object)).map(identity).collect();
    tell.sort();
    tell.dedup();
    tell
}

fn identity(object: &Value) -> String {
    let part = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    format!("{}/{}/{}", part("/kind"), part("/metadata/namespace"), part("/metadata/name"))
}

/// Also inside of base64, as Secrets hold it.
fn tells_somewhere(value: &Value) -> bool {
    match value {
        Value::String(text) => {
            tells(text.as_bytes()) || BASE64_STANDARD.decode(text).is_ok_and(|inner| tells(&inner))
        }
        Value::Array(items) => items.iter().any(tells_somewhere),
        Value::Object(fields) => {
            fields.iter().any(|(key, value)| tells(key.as_bytes()) || tells_somewhere(value))
        }
        _ => false,
    }
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path(), found),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
}

fn files_that_tell(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    files(folder, &mut all);
    assert!(!all.is_empty(), "nothing in {}", folder.display());
    all.retain(|file| fs::read(file).is_ok_and(|bytes| tells(&bytes)));
    all
}

/// Arguments and environment of every process of ours, wherever it runs.
fn processes_that_tell() -> Vec<String> {
    let mut tell = Vec::new();
    let mut seen = 0;
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let at = entry.path();
        let arguments = fs::read(at.join("cmdline")).unwrap_or_default();
        if !arguments.starts_with(b"/imagecache\0") && !arguments.starts_with(b"imagecache\0") {
            continue;
        }
        seen += 1;
        let environment = fs::read(at.join("environ")).unwrap_or_default();
        if tells(&arguments) || tells(&environment) {
            tell.push(String::from_utf8_lossy(&arguments).replace('\0', " "));
        }
    }
    assert!(seen >= 2, "only {seen} processes of ours were found");
    tell
}

#[test]
fn a_password_is_in_the_jobs_secret_while_it_runs_and_nowhere_else() {
    let world = world();
    let _shared = world.shared();
    let cluster = &world.cluster;
    let registry = Registry::start_as("secrets.test", Kind { password: true, ..Kind::default() });
    world.storage.put("secrets/app", "1", &Image::of(vec![Blob::named("secrets", 4 << 20)]));
    let apply = pull_secret("default", "secrets-login", &registry.name, USER, PASSWORD);
    // By create: apply would keep a copy in an annotation.
    cluster.send(&apply, &["create"]).succeeded("the user's secret");
    let mut object = plain_cache("secrets", &[registry.image("secrets/app", "1")]);
    object["spec"]["imagePullSecrets"] = json!(["default:secrets-login"]);
    registry.gate.hold_after(1 << 20);
    world.apply(&object);
    registry.gate.wait_until_held();
    let uid = world.wait_for("secrets", "an object", |_| true).uid().to_owned();

    let ours = |tell: Vec<String>| -> Vec<String> {
        // Other tests have logins of their own at the same time.
        let logins = cluster.list(&["secrets", "-n", "default"]);
        let logins: Vec<String> = logins.iter().map(identity).collect();
        tell.into_iter().filter(|object| !logins.contains(object)).collect()
    };
    let children = world.children(&uid);
    let credentials = children.iter().map(identity).find(|name| name.ends_with("-credentials")).unwrap();
    let during = ours(objects_that_tell(cluster));
    assert!(during.contains(&credentials), "{during:?}");
    let allowed =
        |name: &String| name.starts_with("Secret/imagecache-system/imc-") && name.ends_with("-credentials");
    assert!(during.iter().all(allowed), "{during:?}");
    assert_eq!(processes_that_tell(), Vec::<String>::new());

    registry.gate.release();
    world.wait_ready("secrets");
    world.wait_childless(&uid);
    let after = ours(objects_that_tell(cluster));
    assert!(!after.contains(&credentials), "{after:?}");
    assert!(after.iter().all(allowed), "{after:?}");
    assert_eq!(files_that_tell(&cluster.dir.join("log")), Vec::<PathBuf>::new());
    assert_eq!(files_that_tell(&world.store()), Vec::<PathBuf>::new());
}
