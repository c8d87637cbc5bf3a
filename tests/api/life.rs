//! A cache's life on a real API server, without nodes: the pull pods' ends are written by hand. Deletion at every
//! stage leaves nothing, with the controller and without it; a GitOps tool that applies again and again changes
//! nothing; and settled caches cause no write. `IMAGECACHE_STEADY_SECONDS` says how long these are watched.

use std::{
    collections::BTreeSet,
    env,
    fs::File,
    io::{BufRead as _, BufReader},
    thread,
    time::{Duration, Instant},
};

use imagecache::{
    api::keys,
    model::{
        class::Class,
        digest::Digest,
        failure::Failure,
        reference::Reference,
        report::{ImageOutcome, Outcome, ReusedBy},
    },
};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    kit::{
        cluster::{Cluster, eventually},
        kstatus::{Kstatus, Status},
    },
    settings::{SYSTEM, World, world},
    world::image_cache,
};

const FOREVER: &str = "2099-01-01T00:00:00Z";

/// The pull pods of a cache that have not ended.
fn pods(cluster: &Cluster, uid: &str) -> Vec<Value> {
    let label = format!("{}={uid}", keys::CACHE_UID_LABEL);
    let mut pods = cluster.list(&["pods", "-n", SYSTEM, "-l", &label]);
    pods.retain(|pod| pod["status"]["phase"] == "Pending" && pod["metadata"]["deletionTimestamp"].is_null());
    pods
}

/// Plays the kubelet: the newest pull pod of the cache ends so.
fn ends(cluster: &Cluster, uid: &str, images: &[&str], failure: Option<Class>) {
    let pod = eventually("a pull pod", || pods(cluster, uid).pop());
    let run: u64 = pod["metadata"]["labels"][keys::RUN_LABEL].as_str().unwrap().parse().unwrap();
    let failure = failure.map(|class| Failure::new(class, format!("GET https://r/v2/: {class}")));
    let digest = |text: &str| Some(Digest::sha256(text.as_bytes())).filter(|_| failure.is_none());
    let image = |name: &&str| ImageOutcome {
        reference: name.parse::<Reference>().unwrap(),
        digest: digest(name),
        size: 10,
        pulled: 10,
        reused: 0,
        reused_by: ReusedBy::default(),
        public: false,
        resolved: None,
        failure: failure.clone(),
    };
    let outcome = Outcome {
        run,
        store: "store-1".to_owned(),
        root: digest(&format!("{uid} {run}")),
        size: 10,
        resolved: Some(Timestamp::now()),
        proved: None,
        images: images.iter().map(image).collect(),
        failure: failure.clone(),
        higher_run: None,
        notices: vec![],
    };
    let (code, phase) = failure.as_ref().map_or((0, "Succeeded"), |f| (f.class.exit_code(), "Failed"));
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let container = &pod["spec"]["containers"][0];
    let status = json!({"status": {"phase": phase, "startTime": now, "containerStatuses": [{
        "name": container["name"], "image": container["image"], "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": code, "startedAt": now, "finishedAt": now, "message": outcome.encode().1}}}]}});
    let name = pod["metadata"]["name"].as_str().unwrap();
    let status = status.to_string();
    cluster.run(&["patch", "pod", "-n", SYSTEM, name, "--subresource=status", "--type=merge", "-p", &status]);
}

fn runs(cluster: &Cluster, uid: &str) {
    let pod = eventually("a pull pod", || pods(cluster, uid).pop());
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let container = &pod["spec"]["containers"][0];
    let status = json!({"status": {"phase": "Running", "startTime": now, "containerStatuses": [{
        "name": container["name"], "image": container["image"], "imageID": "", "ready": true, "restartCount": 0,
        "state": {"running": {"startedAt": now}}}]}});
    let (name, status) = (pod["metadata"]["name"].as_str().unwrap(), status.to_string());
    cluster.run(&["patch", "pod", "-n", SYSTEM, name, "--subresource=status", "--type=merge", "-p", &status]);
}

/// As soon as it is so.
pub fn wait(cluster: &Cluster, name: &str, what: &str, so: impl Fn(&Status) -> bool) -> Status {
    eventually(&format!("{name}: {what}"), || {
        let status = Status::of(&cluster.get(&["imagecache", name])?).unwrap();
        (status.is_current() && so(&status)).then_some(status)
    })
}

pub fn apply(cluster: &Cluster, name: &str, spec: &Value) -> String {
    cluster.send(&image_cache(name, spec), &["apply"]).succeeded("apply");
    let known = |status: &Status| !status.uid().is_empty();
    eventually(name, || Status::of(&cluster.get(&["imagecache", name])?).ok().filter(known)).uid().to_owned()
}

pub fn ready(cluster: &Cluster, name: &str, uid: &str, images: &[&str]) -> Status {
    ends(cluster, uid, images, None);
    wait(cluster, name, "ready", |status| status.phase() == "Ready")
}

/// Jobs, Secrets and pods of the cache.
fn children(cluster: &Cluster, uid: &str) -> BTreeSet<String> {
    let label = format!("{}={uid}", keys::CACHE_UID_LABEL);
    let all = cluster.list(&["jobs,secrets,pods", "-n", SYSTEM, "-l", &label]);
    let word =
        |child: &Value, pointer: &str| child.pointer(pointer).and_then(Value::as_str).unwrap().to_owned();
    all.iter().map(|child| format!("{} {}", word(child, "/kind"), word(child, "/metadata/name"))).collect()
}

/// One cache at each stage; their UIDs.
fn at_every_stage(cluster: &Cluster, prefix: &str) -> Vec<(String, String)> {
    let one = |stage: &str, spec: Value| {
        let name = format!("{prefix}-{stage}");
        let uid = apply(cluster, &name, &spec);
        (name, uid)
    };
    let nginx = || json!({"images": ["docker.io/library/nginx:1"]});
    const NGINX: &[&str] = &["docker.io/library/nginx:1"];
    let mut all = vec![
        one("invalid", json!({"images": ["Not:valid:"]})),
        one("no-secret", json!({"images": ["nginx:1"], "imagePullSecrets": ["default:nobody-has-it"]})),
    ];
    let preparing = one("preparing", nginx());
    eventually("a Job", || pods(cluster, &preparing.1).pop());
    let pulling = one("pulling", nginx());
    runs(cluster, &pulling.1);
    let failed = one("failed", nginx());
    ends(cluster, &failed.1, NGINX, Some(Class::NotFound));
    wait(cluster, &failed.0, "failed", |status| status.phase() == "Failed");
    let settled = one("ready", nginx());
    ready(cluster, &settled.0, &settled.1, NGINX);
    let refreshing = one("refreshing", nginx());
    ready(cluster, &refreshing.0, &refreshing.1, NGINX);
    cluster.run(&["annotate", "imagecache", &refreshing.0, &format!("{}=1", keys::REFRESH)]);
    eventually("the refresh", || pods(cluster, &refreshing.1).pop());
    let updating = one("updating", nginx());
    ready(cluster, &updating.0, &updating.1, NGINX);
    apply(cluster, &updating.0, &json!({"images": ["docker.io/library/nginx:2"]}));
    eventually("the edit", || pods(cluster, &updating.1).pop());
    all.extend([preparing, pulling, failed, settled, refreshing, updating]);
    all
}

#[test]
fn deletion_at_every_stage_leaves_nothing_with_the_controller_and_without_it() {
    let mut world = world();
    for with in [true, false] {
        let all = at_every_stage(&world.cluster, if with { "up" } else { "down" });
        if !with {
            world.stop_controller();
        }
        let cluster = &world.cluster;
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        cluster.run(&[&["delete", "imagecache", "--timeout=60s"], names.as_slice()].concat());
        for (name, uid) in &all {
            eventually(&format!("the end of what {name} had"), || {
                children(cluster, uid).is_empty().then_some(())
            });
        }
        world.start_controller();
        // The one that comes back makes nothing of them again.
        let cluster = &world.cluster;
        let uid = apply(cluster, "afterwards", &json!({"images": ["docker.io/library/nginx:1"]}));
        ready(cluster, "afterwards", &uid, &["docker.io/library/nginx:1"]);
        cluster.run(&["delete", "imagecache", "afterwards"]);
        for (name, uid) in &all {
            assert_eq!(children(cluster, uid), BTreeSet::new(), "{name}");
        }
    }
}

#[test]
fn made_again_under_the_same_name_it_is_another_cache() {
    let world = world();
    let cluster = &world.cluster;
    let spec = json!({"images": ["docker.io/library/nginx:1"]});
    let old = apply(cluster, "again", &spec);
    let first = ready(cluster, "again", &old, &["docker.io/library/nginx:1"]);
    cluster.run(&["delete", "imagecache", "again"]);
    let new = apply(cluster, "again", &spec);
    assert_ne!(old, new);
    eventually("its own Job", || pods(cluster, &new).pop());
    let status = wait(cluster, "again", "its own state", |status| !status.phase().is_empty());
    assert_ne!(status.phase(), "Ready", "nothing of the old one is credited to it");
    assert_ne!(status.text("/imageCacheId"), first.text("/imageCacheId"));
    cluster.run(&["delete", "imagecache", "again"]);
}

#[test]
fn a_refresh_keeps_the_cache_ready_and_tells_what_changed() {
    let world = world();
    let cluster = &world.cluster;
    let images = ["docker.io/library/nginx:1"];
    let uid = apply(cluster, "refreshed", &json!({"images": images}));
    let first = ready(cluster, "refreshed", &uid, &images);
    cluster.run(&["annotate", "imagecache", "refreshed", &format!("{}=1", keys::REFRESH)]);
    ends(cluster, &uid, &images, Some(Class::NotFound));
    let stale = wait(cluster, "refreshed", "Fresh=False", |status| {
        status.condition("Fresh").is_some_and(|fresh| fresh["status"] == "False")
    });
    assert_eq!((stale.phase(), stale.kstatus), ("Ready", Kstatus::Current));
    assert_eq!(stale.condition("Fresh").unwrap()["reason"], "NotFound");
    assert_eq!(stale.text("/images/0/digest"), first.text("/images/0/digest"));
    cluster.run(&["annotate", "imagecache", "refreshed", "--overwrite", &format!("{}=2", keys::REFRESH)]);
    ends(cluster, &uid, &images, None);
    let fresh = wait(cluster, "refreshed", "Fresh=True", |status| status.holds("Fresh"));
    assert_eq!((fresh.phase(), fresh.number("/ledger/root/run")), ("Ready", 3));
    cluster.run(&["delete", "imagecache", "refreshed"]);
}

/// Manifests of a repository, all of them applied every time.
fn repository(world: &World) -> Vec<(String, String)> {
    let cluster = &world.cluster;
    let object = |n: usize| {
        let mut object = image_cache(
            &format!("gitops-{n}"),
            &json!({"images": [format!("docker.io/library/app:{n}")], "retentionDays": 30, "refreshInterval": "7d"}),
        );
        object["metadata"]["annotations"] =
            json!({"argocd.argoproj.io/tracking-id": format!("app:{n}"), keys::REFRESH: FOREVER});
        object
    };
    let all: Vec<Value> = (0..3).map(object).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": all}).to_string();
    let sync = || {
        let actor = ["apply", "--server-side", "--field-manager=gitops"];
        cluster.send_text(&list, &actor).succeeded("sync");
        let diff = cluster.send_text(&list, &["diff", "--server-side", "--field-manager=gitops"]);
        assert!(diff.ok, "out of sync: {}{}", diff.out, diff.err);
    };
    sync();
    let mut uids = Vec::new();
    for n in 0..3 {
        let name = format!("gitops-{n}");
        let uid = Status::of(&cluster.get(&["imagecache", &name]).unwrap()).unwrap().uid().to_owned();
        sync();
        ends(cluster, &uid, &[&format!("docker.io/library/app:{n}")], None);
        sync();
        wait(cluster, &name, "ready", |status| status.phase() == "Ready");
        uids.push((name, uid));
    }
    let version = |name: &str| {
        let object = cluster.get(&["imagecache", name]).unwrap();
        object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
    };
    for (_, uid) in &uids {
        eventually("the end of its Job", || children(cluster, uid).is_empty().then_some(()));
    }
    let before: Vec<String> = uids.iter().map(|(name, _)| version(name)).collect();
    for _ in 0..10 {
        sync();
    }
    let after: Vec<String> = uids.iter().map(|(name, _)| version(name)).collect();
    assert_eq!(before, after, "nobody writes");
    uids
}

#[test]
fn a_gitops_tool_that_applies_again_and_again_changes_nothing() {
    let world = world();
    let cluster = &world.cluster;
    for (name, uid) in repository(&world) {
        let object = cluster.get(&["imagecache", &name]).unwrap();
        let status = Status::of(&object).unwrap();
        assert_eq!((status.kstatus, status.number("/ledger/run")), (Kstatus::Current, 1), "pulled once");
        assert_eq!(children(cluster, &uid), BTreeSet::new());
        let phases: Vec<&str> =
            status.list("events").iter().filter_map(|event| event["reason"].as_str()).collect();
        assert_eq!(phases.iter().filter(|reason| **reason == "Complete").count(), 1, "{phases:?}");
        let ours = |entry: &Value| entry["manager"] != "gitops" && entry["fieldsV1"].get("f:spec").is_some();
        let managed = cluster.get(&["imagecache", &name, "--show-managed-fields"]).unwrap();
        let managed = managed["metadata"]["managedFields"].as_array().unwrap().clone();
        assert!(!managed.iter().any(ours), "the spec is the tool's alone: {managed:?}");
        cluster.run(&["delete", "imagecache", &name]);
    }
}

/// What is asked of the API server by others than the control plane.
pub struct Audit(BufReader<File>);

impl Audit {
    pub fn from_now(cluster: &Cluster) -> Self {
        let mut log = BufReader::new(File::open(cluster.dir.join("log/audit.log")).unwrap());
        std::io::Seek::seek(&mut log, std::io::SeekFrom::End(0)).unwrap();
        Self(log)
    }

    /// Of each request since the last call: resource, verb, and whether it is kubectl's.
    pub fn entries(&mut self) -> Vec<(String, String, bool)> {
        let mut entries = Vec::new();
        let mut line = String::new();
        while self.0.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
            let entry: Value = serde_json::from_str(&line).unwrap_or_default();
            let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let (verb, agent) = (text("/verb"), text("/userAgent"));
            if entry["stage"] == "ResponseComplete"
                && (agent.starts_with("kubectl") || !agent.starts_with("kube"))
            {
                entries.push((
                    text("/objectRef/resource").to_owned(),
                    verb.to_owned(),
                    agent.starts_with("kubectl"),
                ));
            }
            line.clear();
        }
        if !line.is_empty() {
            // The rest of a line that was being written.
            self.0.seek_relative(-i64::try_from(line.len()).unwrap()).unwrap();
        }
        entries
    }

    /// Resource and verb of each write of the controller since the last call.
    fn writes(&mut self) -> Vec<(String, String)> {
        let write = |verb: &str| ["create", "update", "patch", "delete", "deletecollection"].contains(&verb);
        let entries = self.entries().into_iter();
        entries
            .filter(|(_, verb, kubectl)| write(verb) && !kubectl)
            .map(|(resource, verb, _)| (resource, verb))
            .collect()
    }
}

#[test]
fn settled_caches_cause_no_write_but_the_lease() {
    const CACHES: usize = 50;
    let world = world();
    let cluster = &world.cluster;
    let name = |n: usize| format!("steady-{n}");
    let image = |n: usize| format!("docker.io/library/steady:{n}");
    let spec = |n: usize| json!({"images": [image(n)], "retentionDays": 30, "refreshInterval": "7d"});
    let all: Vec<Value> = (0..CACHES).map(|n| image_cache(&name(n), &spec(n))).collect();
    let all = json!({"apiVersion": "v1", "kind": "List", "items": all});
    cluster.send(&all, &["apply"]).succeeded("apply");
    let there = || {
        cluster
            .list(&["imagecaches"])
            .into_iter()
            .filter(|object| object["metadata"]["name"].as_str().unwrap().starts_with("steady-"))
    };
    let made: Vec<Value> = there().collect();
    thread::scope(|scope| {
        for some in made.chunks(CACHES / 5) {
            scope.spawn(move || {
                for object in some {
                    let word = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap();
                    ends(cluster, word("/metadata/uid"), &[word("/spec/images/0")], None);
                }
            });
        }
    });
    eventually("all are ready and their Jobs gone", || {
        let ready = there().filter(|object| object["status"]["phase"] == "Ready").count();
        let jobs = cluster.list(&["jobs", "-n", SYSTEM]);
        (ready == CACHES && jobs.is_empty()).then_some(())
    });
    // Each writes its end after it was seen.
    let mut audit = Audit::from_now(cluster);
    eventually("the last events", || {
        let writes = audit.writes();
        (!writes.is_empty() && writes.iter().all(|(resource, _)| resource == "leases")).then_some(())
    });
    let long =
        env::var("IMAGECACHE_STEADY_SECONDS").ok().map(|text| Duration::from_secs(text.parse().unwrap()));
    let (start, mut renewals) = (Instant::now(), 0);
    eventually("the lease to be renewed for a while", || {
        for (resource, verb) in audit.writes() {
            assert_eq!(resource, "leases", "{verb}");
            renewals += 1;
        }
        (renewals >= 5 && long.is_none_or(|long| start.elapsed() >= long)).then_some(())
    });
    println!(
        "{CACHES} caches, {} s: {renewals} renewals of the lease and no other write",
        start.elapsed().as_secs()
    );
    let names: Vec<String> = (0..CACHES).map(name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    cluster.run(&[&["delete", "imagecache"], names.as_slice()].concat());
}
