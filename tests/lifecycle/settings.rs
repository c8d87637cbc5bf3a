//! Annotations over a cache's life: hostile ones, and edits of where the pull runs.

use std::{collections::BTreeMap, time::Duration};

use imagecache::{
    api::ImageCache,
    model::{annotations::table::TABLE, class::Class, facts::JobState},
};

use super::{
    pulling_pod, ready,
    world::{World, cache},
};

fn annotate(object: &mut ImageCache, key: &str, value: &str) {
    object.metadata.annotations.get_or_insert_default().insert(key.to_owned(), value.to_owned());
}

#[test]
fn hostile_annotations_end_in_a_clear_error_and_a_small_status() {
    let bomb = format!("{}{}", "[".repeat(1 << 19), "]".repeat(1 << 19));
    let many: BTreeMap<String, String> = (0..5000)
        .map(|i| (format!("k8s.aliyun.com/imc-siz{}", i % 70), "\u{0}\u{1b}[2J".repeat(99)))
        .collect();
    let control = "\u{0}\u{7}\u{1b}]0;x\u{9c}\n".repeat(1000);
    for value in ["x".repeat(1 << 20), bomb, "r.io,".repeat(3000), control] {
        let mut object = cache(&["nginx:1"]);
        object.metadata.annotations = Some(many.clone());
        for row in TABLE {
            annotate(&mut object, row.key, &value);
        }
        let mut world = World::new(object);
        world.reconcile();
        let (ready, reason, message) = world.condition("Ready");
        assert_eq!((ready, reason.as_str(), world.phase().as_str()), (false, "InvalidSpec", "Failed"));
        assert!(message.contains("k8s.aliyun.com/plain-http-registry"), "{message}");
        let status = serde_json::to_string(&world.status()).unwrap();
        let control = ["\\u0000", "\\u001b", "\\u0007"].iter().any(|code| status.contains(code));
        assert!(status.len() < 64 << 10 && !control, "{} bytes", status.len());
    }
}

#[test]
fn another_place_is_a_new_try_of_what_fails_and_no_new_pull_of_what_is_there() {
    const KEY: &str = "k8s.aliyun.com/vswitch-ids";
    let mut world = ready();
    world.edit(|object| annotate(object, KEY, "vsw-1"));
    world.reconcile();
    assert_eq!((world.phase().as_str(), world.run()), ("Ready", 1));

    let mut world = World::new(cache(&["nginx:1"]));
    world.upstream = Some(Class::Auth);
    super::one_try(&mut world);
    let (phase, run) = (world.phase(), world.run());
    assert_eq!(phase, "Failed");
    world.pass(Duration::from_secs(1));
    world.reconcile();
    assert_eq!(world.run(), run, "it is not due yet");
    world.edit(|object| annotate(object, KEY, "vsw-1"));
    world.reconcile();
    assert_eq!(world.run(), run + 1, "an edit is tried at once");
    world.upstream = None;
    world.settle();
    assert_eq!(world.phase(), "Ready");
}

#[test]
fn what_a_virtual_node_says_of_a_pod_is_told_with_what_helps() {
    for (says, class, helps) in [
        ("NoStock: no instance in the zone", "Scheduling", "k8s.aliyun.com/vswitch-ids"),
        ("QuotaExceeded: instances", "Quota", "quota"),
    ] {
        let mut world = pulling_pod(|pod| pod.unschedulable = Some(says.to_owned()));
        world.reconcile();
        let (_, reason, message) = world.condition("Ready");
        assert_eq!(reason, "Preparing");
        assert!(message.contains(says), "{message}");
        // With fail-fast the virtual node ends it.
        world.jobs[0].fact.state = JobState::Failed {
            at: world.now,
            reason: "BackoffLimitExceeded".into(),
            message: "Job has reached the specified backoff limit".into(),
        };
        world.reconcile();
        let (_, reason, message) = world.condition("Ready");
        assert_eq!(reason, class, "{message}");
        assert!(message.contains(says) && message.contains(helps), "{message}");
    }
}
