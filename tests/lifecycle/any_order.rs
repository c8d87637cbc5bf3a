//! Whatever happens, in any order: edits, crashes between two steps of a plan, views that are late, lost reports,
//! deleted Jobs, a replaced store, a lost status. What must hold at each step, and how it must end.

use std::time::Duration;

use imagecache::model::{
    class::Class,
    facts::SecretState,
    plan::{Action, plan},
    snapshot::Api,
};
use proptest::prelude::*;

use crate::world::{World, cache, tracked, with_snapshots};

#[derive(Clone, Debug)]
enum Step {
    Reconcile,
    /// The controller dies after so many steps of its plan.
    Crash(usize),
    /// A reconcile that sees the object, or the Jobs, as they were some steps ago.
    LateObject(usize),
    LateJobs(usize),
    Pass(u64),
    Pulls(u64),
    JobEnds {
        report_is_lost: bool,
    },
    JobDeleted {
        lingers: bool,
    },
    Out(u8),
    Upstream(Option<Class>),
    Images(u8),
    Refresh(u8),
    Pushed,
    Retention(Option<i32>),
    Secret(bool),
    StoreReplaced,
    Broken,
    Mirror(bool),
    Busy(u32),
    StatusLost,
    Export(Option<Class>),
    Driver(bool),
    SnapshotApi(bool),
    SnapshotDeleted,
    ContentDeleted,
    VolumeDeleted {
        lingers: bool,
    },
    Flash(bool),
    /// A reconcile that sees the storage as it was some steps ago.
    LateStorage(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let class = prop::sample::select(Class::ALL.to_vec());
    prop_oneof![
        12 => Just(Step::Reconcile),
        3 => (0..4_usize).prop_map(Step::Crash),
        2 => (1..6_usize).prop_map(Step::LateObject),
        2 => (1..6_usize).prop_map(Step::LateJobs),
        3 => prop::sample::select(vec![1, 30, 301, 601, 3601]).prop_map(Step::Pass),
        3 => (1..100_u64).prop_map(Step::Pulls),
        4 => any::<bool>().prop_map(|report_is_lost| Step::JobEnds { report_is_lost }),
        1 => any::<bool>().prop_map(|lingers| Step::JobDeleted { lingers }),
        1 => (0..3_u8).prop_map(Step::Out),
        3 => prop::option::of(class).prop_map(Step::Upstream),
        2 => (0..4_u8).prop_map(Step::Images),
        2 => (0..4_u8).prop_map(Step::Refresh),
        1 => Just(Step::Pushed),
        1 => prop::option::of(1..3_i32).prop_map(Step::Retention),
        1 => any::<bool>().prop_map(Step::Secret),
        1 => Just(Step::StoreReplaced),
        1 => Just(Step::Broken),
        1 => any::<bool>().prop_map(Step::Mirror),
        1 => (0..6_u32).prop_map(Step::Busy),
        1 => Just(Step::StatusLost),
        4 => prop::option::weighted(0.3, class_of_exports()).prop_map(Step::Export),
        4 => any::<bool>().prop_map(Step::Driver),
        1 => any::<bool>().prop_map(Step::SnapshotApi),
        1 => Just(Step::SnapshotDeleted),
        1 => Just(Step::ContentDeleted),
        1 => any::<bool>().prop_map(|lingers| Step::VolumeDeleted { lingers }),
        1 => any::<bool>().prop_map(Step::Flash),
        2 => (1..6_usize).prop_map(Step::LateStorage),
    ]
}

fn class_of_exports() -> impl Strategy<Value = Class> {
    prop::sample::select(vec![Class::NoSpace, Class::Unknown, Class::NotFound, Class::BadContent])
}

fn take(world: &mut World, past: &[World], step: &Step) {
    let then = |back: usize| past[past.len().saturating_sub(back)..].first().cloned();
    match step {
        Step::Reconcile => {
            world.reconcile();
        }
        Step::Crash(steps) => {
            if let Some((judged, facts)) = world.look() {
                let plan = world.plan().unwrap();
                world.apply(&judged, &facts, plan, *steps);
            }
        }
        Step::LateObject(back) => {
            let Some(mut seen) = then(*back) else { return };
            seen.jobs.clone_from(&world.jobs);
            seen.storage.clone_from(&world.storage);
            seen.now = world.now;
            late(world, &seen);
        }
        Step::LateJobs(back) => {
            let Some(before) = then(*back) else { return };
            let mut seen = world.clone();
            seen.jobs = before.jobs;
            late(world, &seen);
        }
        Step::Pass(seconds) => world.pass(Duration::from_secs(*seconds)),
        Step::Pulls(percent) => world.pulls(*percent),
        Step::JobEnds { report_is_lost } => world.job_ends(*report_is_lost),
        Step::JobDeleted { lingers: true } => world.jobs.iter_mut().for_each(|job| job.fact.deleting = true),
        Step::JobDeleted { lingers: false } => world.jobs.clear(),
        Step::Out(how) => {
            if let Some(job) = world.job() {
                job.fact.progress = None;
                if *how == 0 {
                    job.fact.no_pod = Some("exceeded quota".into());
                } else if let Some(pod) = &mut job.fact.pod {
                    pod.disrupted = (*how == 1).then(|| "Evicted".into());
                    pod.unschedulable = (*how == 2).then(|| "0/3 nodes".into());
                }
            }
        }
        Step::Upstream(class) => world.upstream = *class,
        Step::Images(0) => world.edit(|object| object.spec.images = vec!["no image".into()]),
        Step::Images(n) => world.edit(|object| object.spec.images = vec![format!("nginx:{n}")]),
        Step::Refresh(0) => world.edit(|object| {
            let every = object.spec.refresh_interval.is_none().then(|| "1h".to_owned());
            object.spec.refresh_interval = every;
        }),
        Step::Refresh(n) => world.ask_anew(&n.to_string()),
        Step::Pushed => world.push("docker.io/library/nginx:1"),
        Step::Retention(days) => world.edit(|object| object.spec.retention_days = *days),
        Step::Secret(there) => {
            let found = SecretState::Found { uid: "s".into(), resource_version: world.run().to_string() };
            world.secret = if *there { found } else { SecretState::Missing };
        }
        Step::StoreReplaced => world.store_is_replaced(),
        Step::Broken => world.broken.extend(world.roots.last().copied()),
        Step::Mirror(on) => world.mirror = *on,
        Step::Busy(n) => world.busy = *n,
        Step::StatusLost => world.edit(|object| object.status = None),
        Step::Export(class) => {
            world.storage.broken = *class;
            world.storage.export_ends(world.now);
        }
        Step::Driver(works) => {
            world.storage.error = (!works).then(|| "the array is busy".into());
            world.storage.snapshotter_acts();
        }
        Step::SnapshotApi(there) => world.storage.api = if *there { Api::Present } else { Api::Absent },
        Step::SnapshotDeleted => {
            let uids: Vec<String> = world.storage.snapshots.iter().map(|s| s.id.uid.clone()).collect();
            for uid in &uids {
                world.storage.remove_snapshot(uid);
            }
        }
        Step::ContentDeleted => world.storage.content_is_deleted(),
        Step::VolumeDeleted { lingers: true } => {
            world.storage.volumes.iter_mut().for_each(|volume| volume.deleting = true);
        }
        Step::VolumeDeleted { lingers: false } => world.storage.volumes.clear(),
        Step::Flash(on) => world.edit(|object| {
            let key = "k8s.aliyun.com/imc-enable-flash".to_owned();
            object.metadata.annotations.get_or_insert_default().insert(key, on.to_string());
        }),
        Step::LateStorage(back) => {
            let Some(before) = then(*back) else { return };
            let mut seen = world.clone();
            seen.storage = before.storage;
            late(world, &seen);
        }
    }
}

fn late(world: &mut World, seen: &World) {
    if let (Some((judged, facts)), Some(plan)) = (seen.look(), seen.plan()) {
        world.apply(&judged, &facts, plan, usize::MAX);
    }
}

fn holds(before: &World, world: &World, step: &Step) {
    let live = world.jobs.iter().filter(|job| !job.fact.deleting).count();
    assert!(live <= 1, "two live Jobs after {step:?}");
    let Some((judged, facts)) = world.look() else { return };
    let wanted = world.plan().unwrap();
    assert_eq!(wanted, plan(&judged, &facts, &world.settings, world.now));
    let size = serde_json::to_vec(&wanted.status).unwrap().len();
    assert!(size < 64 * 1024, "{size} bytes of status");

    let ledger = wanted.status.ledger.clone().unwrap_or_default();
    for action in &wanted.actions {
        if let Action::RemoveRun { run, .. } = action {
            let asked = judged.request.as_ref().is_ok_and(|request| !ledger.is_stale(request));
            let needed = asked && ledger.open && u64::try_from(ledger.run) == Ok(*run);
            assert!(!needed, "the Job of the open run is removed after {step:?}");
        }
    }
    let (had, has) = (before.storage.runs(), world.storage.runs());
    let by_hand = matches!(step, Step::SnapshotDeleted | Step::ContentDeleted);
    if let (Some(had), false) = (had.last(), by_hand || world.phase() == "Expired") {
        let kept = has.last().is_some_and(|has| has >= had);
        assert!(
            kept,
            "the last snapshot that can be restored is removed after {step:?}: {:?}",
            world.storage.done
        );
    }
    if matches!(step, Step::Reconcile) && before.object.is_some() {
        let expected = match world.phase().as_str() {
            "Ready" => "Current",
            "Failed" | "UpdateFailed" | "Expired" => "Failed",
            _ => "InProgress",
        };
        assert_eq!(world.kstatus(), expected, "{}", world.phase());
        let (was, is) =
            (before.status().ledger.unwrap_or_default(), world.status().ledger.unwrap_or_default());
        assert!(is.run >= was.run, "runs are numbered upward");
        if let (Some(old), Some(new)) = (&was.root, &is.root) {
            // A refresh that is asked for meanwhile is opened in the same pass.
            let newest = new.run == is.run || was.open && new.run == was.run;
            assert!(newest || old.digest == new.digest, "only the newest run is credited");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_it_ends_ready_once_everything_answers(
        steps in prop::collection::vec(step(), 1..60),
        with_secret in any::<bool>(),
        snapshots in any::<bool>(),
    ) {
        let mut object = cache(&["nginx:1"]);
        tracked(&mut object);
        if with_secret {
            object.spec.image_pull_secrets = vec!["default:key".into()];
        }
        let mut world = World::new(object);
        if snapshots {
            world = with_snapshots(world);
        }
        let mut past = vec![];
        for step in &steps {
            past.push(world.clone());
            take(&mut world, &past, step);
            holds(past.last().unwrap(), &world, step);
        }
        world.edit(|object| {
            object.spec.images = vec!["nginx:9".into()];
            object.spec.retention_days = None;
        });
        world.settle();
        prop_assert_eq!(world.phase(), "Ready");
        let plan = world.plan().unwrap();
        prop_assert!(plan.actions.is_empty() && plan.events.is_empty(), "{:?}", plan.actions);
        prop_assert_eq!(plan.status, world.status());
        prop_assert!(world.jobs.is_empty());
        prop_assert_eq!(world.storage.runs().len(), usize::from(snapshots));
        prop_assert!(world.storage.is_quiet() && world.storage.snapshots.len() <= 1);
        prop_assert!(!snapshots || world.condition("Snapshot").0);
    }
}
