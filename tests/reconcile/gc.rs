//! The gc Job from its list to its report, by a leader that may be killed or come second.

use imagecache::{
    controller::collect::Collector,
    model::{
        collect::Pace,
        collected::{Amount, Broken, Report},
        digest::Digest,
        live::{LiveList, LivePart},
        settings::Settings,
    },
    ops::clock,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{CACHES, JOBS, UID, World, spec};

const MAPS: &str = "/api/v1/namespaces/system/configmaps";
const PODS: &str = "/api/v1/namespaces/system/pods";
const JOB: &str = "/apis/batch/v1/namespaces/system/jobs/imagecache-gc";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/system/events";

/// A world whose caches are credited, and a leader that has looked once.
async fn world(caches: usize) -> (World, Collector) {
    let mut world = World::with(Settings { gc: Pace::default(), ..Settings::default() });
    for i in 0..caches {
        let name = format!("cache-{i:05}");
        let uid = if i == 0 { UID.to_owned() } else { format!("8f14e45f-ceea-467f-a0e6-{i:012}") };
        world.apply(&name, &uid, &spec());
        let mut object = world.server.get(&format!("{CACHES}/{name}")).unwrap();
        object["status"]["ledger"] = json!({"run": 1, "storeId": "s1", "answered": true,
            "readyAt": "2026-01-01T00:00:00Z",
            "root": {"run": 1, "digest": Digest::sha256(uid.as_bytes()).to_string(), "at": "2026-01-01T00:00:00Z"}});
        world.server.put(&format!("{CACHES}/{name}"), object);
    }
    world.see_cache("cache-00000");
    let mut collector = Collector::new(clock::now());
    collector.step(&world.context, clock::now()).await.unwrap();
    world.server.requests();
    (world, collector)
}

fn later(seconds: i64) -> Timestamp {
    clock::now() + SignedDuration::from_secs(seconds)
}

/// A cache was deleted, and nothing more for half a minute.
async fn deleted(world: &World, collector: &mut Collector) {
    world.context.cluster.gc.deleted(clock::now());
    collector.step(&world.context, later(29)).await.unwrap();
    assert_eq!(world.server.get(JOB), None, "others may follow");
    collector.step(&world.context, later(30)).await.unwrap();
}

/// The parts of the list, as the Job mounts them.
fn list(world: &World) -> (Vec<LivePart>, LiveList) {
    let job = world.server.get(JOB).unwrap();
    let sources = &job["spec"]["template"]["spec"]["volumes"][1]["projected"]["sources"];
    let part = |source: &Value| -> LivePart {
        let name = source["configMap"]["name"].as_str().unwrap();
        let map = world.server.get(&format!("{MAPS}/{name}")).unwrap();
        assert_eq!(map["metadata"]["ownerReferences"][0]["uid"], job["metadata"]["uid"]);
        serde_json::from_str(map["data"]["part.json"].as_str().unwrap()).unwrap()
    };
    let parts: Vec<LivePart> = sources.as_array().unwrap().iter().map(part).collect();
    let list = LiveList::assemble(&parts).unwrap();
    (parts, list)
}

/// The Job ends with this message and log of its pod.
fn ends(world: &World, condition: &str, exit: i32, message: &str, log: &str) {
    let mut job = world.server.get(JOB).unwrap();
    let uid = job["metadata"]["uid"].clone();
    job["status"] = json!({"conditions": [{"type": condition, "status": "True", "reason": "X"}]});
    world.server.put(JOB, job);
    world.server.put(&format!("{PODS}/gc-pod"), json!({
        "metadata": {"name": "gc-pod", "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "imagecache-gc", "uid": uid, "controller": true}]},
        "status": {"containerStatuses": [{"name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": exit, "message": message}}}]}}));
    world.server.with(|state| state.objects.insert(format!("{PODS}/gc-pod/log"), json!(log)));
}

fn reports(world: &World, report: &Report) {
    let (lines, message) = report.encode();
    ends(world, "Complete", 0, &message, &format!("a table\n{}", lines.join("\n")));
}

fn events(world: &World) -> Vec<Value> {
    let inside = |state: &mut super::server::State| {
        let all = state.objects.iter().filter(|(path, _)| path.starts_with(EVENTS));
        all.map(|(_, event)| event.clone()).collect()
    };
    world.server.with(inside)
}

fn report(gc: &str) -> Report {
    Report {
        gc: gc.into(),
        store: "s1".into(),
        listed: true,
        at: Timestamp::UNIX_EPOCH,
        freed: Amount { blobs: 1, bytes: 2048 },
        ..Report::default()
    }
}

#[tokio::test]
async fn a_deletion_is_collected_its_report_kept_and_told_and_the_next_list_names_it() {
    let (world, mut collector) = world(3).await;
    deleted(&world, &mut collector).await;
    let (parts, first) = list(&world);
    assert_eq!((parts.len(), first.caches.len(), first.store.as_str()), (1, 3, "s1"));
    assert_eq!(first.last_gc, None);
    let credited = first.caches[&UID.parse().unwrap()].clone().unwrap();
    assert_eq!((credited.run, credited.root), (1, Digest::sha256(UID.as_bytes())));
    let lists = world.server.with(|state| state.lists.clone());
    assert!(lists.iter().all(|query| !query.contains("resourceVersion")), "{lists:?}");

    let wanted = Report { waiting_until: Some("1970-01-01T00:15:00Z".parse().unwrap()), ..report("ab") };
    reports(&world, &wanted);
    let read = collector.step(&world.context, later(31)).await.unwrap();
    let read = match read {
        None => collector.step(&world.context, later(33)).await.unwrap(),
        read => read,
    };
    assert_eq!(read.unwrap(), wanted);
    let kept = world.server.get(&format!("{MAPS}/imagecache-gc")).unwrap();
    assert!(kept["data"]["record.json"].as_str().unwrap().contains("\"gc\": \"ab\""), "{kept}");
    let told = events(&world);
    assert_eq!(
        (told.len(), &told[0]["reason"], &told[0]["type"]),
        (1, &json!("Collected"), &json!("Normal"))
    );
    assert_eq!(
        (&told[0]["regarding"]["kind"], &told[0]["regarding"]["name"]),
        (&json!("Job"), &json!("imagecache-gc"))
    );
    assert!(told[0]["note"].as_str().unwrap().starts_with("2.0 KiB freed"), "{told:?}");

    // What it took out is freed by the next one: another Job, whose list names the first.
    collector.step(&world.context, later(900)).await.unwrap();
    assert!(world.server.get(JOB).is_some(), "people may look at its log until then");
    for second in [934, 936] {
        collector.step(&world.context, later(second)).await.unwrap();
    }
    assert_eq!(list(&world).1.last_gc.as_deref(), Some("ab"));
}

#[tokio::test]
async fn a_long_list_goes_in_several_config_maps_from_pages_of_one_version() {
    let (world, mut collector) = world(3001).await;
    deleted(&world, &mut collector).await;
    let (parts, whole) = list(&world);
    assert_eq!((parts.len(), whole.caches.len()), (2, 3001));
    assert_eq!(world.server.with(|state| state.lists.len()), 7);
}

#[tokio::test]
async fn a_second_leader_makes_no_second_job_and_reads_what_the_first_one_left() {
    let (world, mut first) = world(1).await;
    deleted(&world, &mut first).await;
    let job = world.server.get(JOB).unwrap();
    let maps = || {
        let count = |state: &mut super::server::State| {
            state.objects.keys().filter(|path| path.starts_with(MAPS)).count()
        };
        world.server.with(count)
    };
    assert_eq!(maps(), 1);
    // It saw the same deletion, and its watch of nothing else.
    world.context.cluster.gc.deleted(clock::now());
    let mut second = Collector::new(clock::now());
    for second_of in [0, 60, 120] {
        second.step(&world.context, later(second_of)).await.unwrap();
    }
    assert_eq!((world.server.get(JOB), maps()), (Some(job), 1));
    reports(&world, &report("ab"));
    for second_of in [122, 124] {
        second.step(&world.context, later(second_of)).await.unwrap();
        first.step(&world.context, later(second_of)).await.unwrap();
    }
    assert_eq!(events(&world).len(), 1, "the same is told once");
}

#[tokio::test]
async fn a_job_whose_list_could_not_be_made_is_removed_and_the_deletion_is_not_forgotten() {
    let (world, mut collector) = world(1).await;
    world.server.with(|state| {
        state.refuse = Some(("POST configmaps".to_owned(), http::StatusCode::SERVICE_UNAVAILABLE));
    });
    world.context.cluster.gc.deleted(clock::now());
    collector.step(&world.context, later(30)).await.unwrap_err();
    assert_eq!(world.server.get(JOB), None);
    world.server.with(|state| state.refuse = None);
    collector.step(&world.context, later(32)).await.unwrap();
    assert_eq!(list(&world).1.caches.len(), 1);
}

#[tokio::test]
async fn without_a_complete_list_there_is_no_job() {
    let (world, mut collector) = world(1).await;
    world.server.with(|state| state.refuse = Some(("GET v1/imagecaches".to_owned(), http::StatusCode::GONE)));
    world.context.cluster.gc.deleted(clock::now());
    collector.step(&world.context, later(30)).await.unwrap_err();
    assert!(!world.server.requests().iter().any(|line| line.starts_with("POST")));
}

#[tokio::test]
async fn a_pod_that_was_killed_or_a_report_that_was_lost_is_told_and_tried_again_later() {
    for (condition, exit, message, told) in [
        ("Failed", 137, "", "exit code 137"),
        ("Failed", 21, "another gc is at work on /store", "another gc is at work"),
        ("Complete", 0, "", "cannot be read"),
    ] {
        let (world, mut collector) = world(1).await;
        deleted(&world, &mut collector).await;
        ends(&world, condition, exit, message, "");
        for second in [32, 34] {
            collector.step(&world.context, later(second)).await.unwrap();
        }
        let events = events(&world);
        assert_eq!(events[0]["reason"], "CollectionFailed");
        assert!(events[0]["note"].as_str().unwrap().contains(told), "{events:?}");
        let uid = world.server.get(JOB).unwrap()["metadata"]["uid"].clone();
        for second in [60, 36 + 120, 38 + 120, 40 + 120] {
            collector.step(&world.context, later(second)).await.unwrap();
        }
        assert_ne!(world.server.get(JOB).unwrap()["metadata"]["uid"], uid, "a new Job with a new list");
        assert_eq!(list(&world).1.last_gc, None, "no report was read");
    }
}

#[tokio::test]
async fn a_lost_record_only_makes_the_next_list_name_no_earlier_run() {
    let (world, mut collector) = world(1).await;
    deleted(&world, &mut collector).await;
    reports(&world, &report("ab"));
    for second in [32, 34] {
        collector.step(&world.context, later(second)).await.unwrap();
    }
    world.server.with(|state| state.objects.remove(&format!("{MAPS}/imagecache-gc")));
    world.context.cluster.gc.deleted(later(40));
    for second in [75, 77, 79] {
        collector.step(&world.context, later(second)).await.unwrap();
    }
    assert_eq!(list(&world).1.last_gc, None);
}

#[tokio::test]
async fn credited_content_that_gc_does_not_find_is_pulled_again() {
    let (mut world, mut collector) = world(1).await;
    deleted(&world, &mut collector).await;
    let broken = Broken { cache: UID.parse().unwrap(), run: 1, reason: "is missing".into() };
    reports(&world, &Report { refused: vec!["why".into()], broken: vec![broken], ..report("ab") });
    for second in [32, 34] {
        collector.step(&world.context, later(second)).await.unwrap();
    }
    assert_eq!(events(&world)[0]["reason"], "CollectionRefused");
    for _ in 0..3 {
        world.pass("cache-00000").await.unwrap();
        world.see_cache("cache-00000");
    }
    let status = world.status("cache-00000");
    assert_eq!(
        (&status["ledger"]["lost"]["times"], &status["ledger"]["run"]),
        (&json!(1), &json!(2)),
        "{status}"
    );
    assert!(world.server.get(&format!("{JOBS}/{}", super::job(2))).is_some());
}
