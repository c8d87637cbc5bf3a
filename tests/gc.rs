//! gc and removal by hand, on real stores whose files are made old.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod stores;

use std::{collections::BTreeMap, fs, path::Path, process::Command, thread, time::Duration};

use imagecache::{
    gc::{GcError, Settings, collect},
    local::rm::rm,
    model::{
        class::Class,
        collected::Report,
        digest::Digest,
        live::{Credited, LiveList},
    },
    store::{Store, StoreError},
};
use stores::{age, blob_path, key, new_store, put, root};

const HOUR: Duration = Duration::from_hours(1);
const UID: &str = "8f14e45f-ceea-467f-a0e6-1c2b3d4e5f60";

fn gc(store: &Store) -> Report {
    collect(store, None, &Settings::default(), false).unwrap()
}

fn gc_with(store: &Store, list: &LiveList) -> Report {
    collect(store, Some(list), &Settings::default(), false).unwrap()
}

/// Time passes for everything that gc looks at.
fn pass(store: &Store, time: Duration) {
    for folder in ["blobs", "trash", "condemned", "leases", "ingest", "roots"] {
        age(store, folder, time);
    }
}

fn list(store: &Store, last: Option<&Report>, caches: &[(&str, Option<Credited>)]) -> LiveList {
    LiveList {
        store: store.id().to_owned(),
        last_gc: last.map(|report| report.gc.clone()),
        caches: caches.iter().map(|(uid, credited)| (key(uid), credited.clone())).collect(),
    }
}

/// Every path under the store, with its size.
fn tree(store: &Store) -> BTreeMap<String, u64> {
    fn walk(base: &Path, path: &Path, all: &mut BTreeMap<String, u64>) {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            all.insert(
                path.strip_prefix(base).unwrap().display().to_string(),
                if meta.is_dir() { 0 } else { meta.len() },
            );
            if meta.is_dir() {
                walk(base, &path, all);
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(store.path(), store.path(), &mut all);
    all
}

fn whole(store: &Store, cache: &str) -> bool {
    let stored = store.latest_root(&key(cache)).unwrap().expect("a root");
    stored.root.closure().into_iter().all(|(digest, size)| store.find(digest, size).unwrap().is_some())
}

#[test]
fn the_bytes_of_a_removed_cache_go_in_two_runs_and_shared_ones_stay() {
    let (_dir, store) = new_store();
    let gone = root(&store, "local-gone", 1, "nginx:1", "gone");
    store.link_root(&gone).unwrap();
    store.link_root(&root(&store, "local-kept", 1, "redis:7", "kept")).unwrap();
    let before = gc(&store);
    assert_eq!((before.rooted.blobs, before.live_roots, before.freed.bytes), (5, 2, 0));
    let removed = rm(store.path(), &["gone".into()], false).unwrap();
    assert_eq!(removed.unneeded, gone.size() - 1024, "the layer is shared");

    let report = gc(&store);
    assert_eq!((report.young.blobs, report.taken_out.blobs), (2, 0), "within the grace time nothing moves");
    pass(&store, HOUR);
    let report = gc(&store);
    assert_eq!((report.taken_out.blobs, report.waiting.blobs, report.freed.blobs), (2, 2, 0));
    let manifest = &gone.images[0].closure[0];
    assert!(store.find(&manifest.digest, manifest.size).unwrap().is_some(), "a reader still finds it");
    assert!(!blob_path(&store, &manifest.digest).exists());

    assert_eq!(gc(&store).freed.blobs, 0, "not before a quarter of an hour");
    pass(&store, Duration::from_mins(15));
    let report = gc(&store);
    assert_eq!((report.freed.blobs, report.freed.bytes), (2, gone.size() - 1024));
    assert!(store.find(&manifest.digest, manifest.size).unwrap().is_none());
    assert!(whole(&store, "local-kept"));

    pass(&store, 24 * HOUR);
    gc(&store);
    let left: Vec<String> =
        tree(&store).into_keys().filter(|path| path.contains("gone") || path.starts_with("trash/")).collect();
    assert_eq!(left, Vec::<String>::new(), "in the end nothing is left of it");
}

#[test]
fn a_dry_run_tells_what_would_be_and_changes_nothing() {
    let (_dir, store) = new_store();
    put(&store, b"nobody's");
    store.link_root(&root(&store, "local-a", 1, "nginx:1", "one")).unwrap();
    store.link_root(&root(&store, "local-a", 2, "nginx:1", "two")).unwrap();
    pass(&store, HOUR);
    gc(&store);
    put(&store, b"nobody's either");
    pass(&store, HOUR);
    let before = tree(&store);
    let dry = collect(&store, None, &Settings::default(), true).unwrap();
    assert_eq!(tree(&store), before);
    assert!(dry.dry_run && dry.roots[0].removed);
    let wet = gc(&store);
    assert_eq!(wet.freed.blobs, 1);
    assert_eq!(
        Report {
            gc: wet.gc.clone(),
            dry_run: false,
            waiting_until: wet.waiting_until,
            ..same_time(dry, &wet)
        },
        wet
    );
}

/// Clock and free space are the machine's.
fn same_time(report: Report, other: &Report) -> Report {
    Report { at: other.at, free: other.free, capacity: other.capacity, ..report }
}

#[test]
fn what_a_lease_names_stays_until_it_is_stale() {
    let (_dir, store) = new_store();
    let digest = put(&store, b"needed soon");
    let lease = store.lease(&key(UID), "run 1").unwrap();
    lease.add(&[(digest.clone(), 11)]).unwrap();
    age(&store, "blobs", HOUR);
    assert_eq!((gc(&store).leased.blobs, gc(&store).taken_out.blobs), (1, 0));
    age(&store, "leases", 24 * HOUR);
    lease.touch().unwrap();
    assert_eq!(gc(&store).leased.blobs, 1, "an owner that says it lives is believed");
    age(&store, "leases", 24 * HOUR);
    let report = gc(&store);
    assert_eq!((report.stale_leases, report.taken_out.blobs), (1, 1));
    assert!(!lease.touch().unwrap());
    assert!(store.look(&digest, 11).unwrap().is_some(), "and the owner that was only frozen gets it back");
}

#[test]
fn what_cannot_be_read_stops_the_sweep_and_says_why() {
    let (_dir, store) = new_store();
    put(&store, b"nobody's");
    pass(&store, HOUR);
    fs::write(store.path().join("leases/bad.json"), "{").unwrap();
    let report = gc(&store);
    assert_eq!(report.taken_out.blobs, 0);
    assert!(report.refused[0].contains("leases/bad.json: not a lease"), "{:?}", report.refused);
    age(&store, "leases", 24 * HOUR);
    assert_eq!(gc(&store).refused, Vec::<String>::new(), "after a day its owner is gone");
    store.look(&Digest::sha256(b"nobody's"), 8).unwrap();

    // Damaged: it goes like a superseded one, and then the sweep goes on.
    fs::create_dir(store.path().join("roots/local-a")).unwrap();
    fs::write(store.path().join("roots/local-a/1.json"), "{").unwrap();
    let report = gc(&store);
    assert!(report.refused[0].contains("run 1 of cache local-a cannot be read"), "{:?}", report.refused);
    pass(&store, HOUR);
    let report = gc(&store);
    assert!(
        report.refused.is_empty() && report.roots[0].removed && report.taken_out.blobs == 1,
        "{report:?}"
    );

    // Written by a newer version: that one needs it, so it stays, and everything with it.
    store.look(&Digest::sha256(b"nobody's"), 8).unwrap();
    fs::write(store.path().join("roots/local-a/2.json"), r#"{"format":9}"#).unwrap();
    for _ in 0..3 {
        pass(&store, HOUR);
        assert!(gc(&store).refused[0].contains("format 9"));
    }
    assert!(store.path().join("roots/local-a/2.json").exists());
    assert!(blob_path(&store, &Digest::sha256(b"nobody's")).exists());
}

#[test]
fn what_is_needed_again_is_put_back_from_any_run_and_never_over_a_newer_copy() {
    let (_dir, store) = new_store();
    let again = root(&store, "local-a", 1, "nginx:1", "one");
    pass(&store, HOUR);
    assert_eq!(gc(&store).taken_out.blobs, 3);
    let layer = again.images[0].closure[2].digest.clone();
    let trashed = store.list_trash().unwrap().into_iter().find(|blob| blob.digest == layer).unwrap();
    put(&store, &[0; 1024]);
    let fresh = fs::metadata(blob_path(&store, &layer)).unwrap().modified().unwrap();
    store.link_root(&again).unwrap();
    pass(&store, HOUR);
    let report = gc(&store);
    assert_eq!((report.put_back.blobs, report.freed.blobs), (3, 0));
    assert!(whole(&store, "local-a") && store.list_trash().unwrap().is_empty());
    let now = fs::metadata(blob_path(&store, &layer)).unwrap().modified().unwrap();
    assert_eq!(now, fresh - HOUR, "the copy that was fetched is the one that stays");
    assert!(!store.put_back(&trashed).unwrap());
}

#[test]
fn the_age_of_a_move_that_nobody_wrote_down_begins_when_it_is_found() {
    let (_dir, store) = new_store();
    let digest = put(&store, b"killed");
    let trash = store.path().join("trash/0123");
    fs::create_dir(&trash).unwrap();
    fs::rename(blob_path(&store, &digest), trash.join(format!("sha256-{}", digest.hex()))).unwrap();
    pass(&store, 100 * HOUR);
    assert_eq!(gc(&store).freed.blobs, 0);
    pass(&store, Duration::from_mins(15));
    assert_eq!(gc(&store).freed.blobs, 1);
}

#[test]
fn by_hand_no_root_of_the_cluster_is_touched_and_only_the_best_run_of_the_others_lives() {
    let (_dir, store) = new_store();
    for run in 1..=3 {
        store.link_root(&root(&store, UID, run, "nginx:1", "same")).unwrap();
        store.link_root(&root(&store, "local-a", run, "nginx:1", &format!("run {run}"))).unwrap();
    }
    // Run 3 lost a blob: run 2 is what the cache has.
    let lost = store.root(&key("local-a"), 3).unwrap().unwrap().root.images[0].closure[1].digest.clone();
    fs::remove_file(blob_path(&store, &lost)).unwrap();
    for _ in 0..3 {
        gc(&store);
        pass(&store, HOUR);
    }
    let runs = |cache: &str| -> Vec<u64> {
        store
            .list_roots()
            .unwrap()
            .into_iter()
            .filter(|(name, _)| *name == key(cache))
            .map(|(_, run)| run)
            .collect()
    };
    assert_eq!((runs(UID), runs("local-a")), (vec![1, 2, 3], vec![2, 3]));
}

#[test]
fn a_root_of_the_cluster_goes_by_a_list_that_is_newer_than_its_mark() {
    let (_dir, store) = new_store();
    store.link_root(&root(&store, UID, 1, "nginx:1", "one")).unwrap();
    let old = list(&store, None, &[]);
    let first = gc_with(&store, &old);
    assert!(!first.roots[0].removed && first.roots[0].why == "its ImageCache is gone");
    pass(&store, 100 * HOUR);
    assert!(!gc_with(&store, &old).roots[0].removed, "a list that names no run may be older than the mark");
    let unknown = LiveList { last_gc: Some("../../x".into()), ..old.clone() };
    assert!(!gc_with(&store, &unknown).roots[0].removed);
    let newer = list(&store, Some(&first), &[]);
    assert!(collect(&store, Some(&newer), &Settings::default(), true).unwrap().roots[0].removed);
    assert!(gc_with(&store, &newer).roots[0].removed);
    assert!(store.list_roots().unwrap().is_empty());
}

#[test]
fn a_root_that_is_listed_again_loses_its_mark_and_a_younger_mark_waits() {
    let (_dir, store) = new_store();
    let digest = store.link_root(&root(&store, UID, 2, "nginx:1", "two")).unwrap();
    let first = gc_with(&store, &list(&store, None, &[]));
    // It was created after that list: nothing happens to it, whatever late lists say.
    let credited = Some(Credited { run: 2, root: digest });
    let second = gc_with(&store, &list(&store, Some(&first), &[(UID, credited)]));
    assert!(second.roots.is_empty() && store.marks().unwrap().is_empty());
    let third = gc_with(&store, &list(&store, Some(&second), &[]));
    let early = gc_with(&store, &list(&store, Some(&third), &[]));
    assert!(!early.roots[0].removed, "a mark waits ten minutes");
    pass(&store, HOUR);
    // The run that saw the mark without making it does as well.
    assert!(gc_with(&store, &list(&store, Some(&early), &[])).roots[0].removed);
}

#[test]
fn a_list_that_does_not_fit_the_store_harms_nothing() {
    let (_dir, store) = new_store();
    put(&store, b"nobody's");
    store.link_root(&root(&store, UID, 1, "nginx:1", "one")).unwrap();
    pass(&store, HOUR);
    let other = LiveList { store: "0".repeat(32), ..list(&store, None, &[]) };
    let error = collect(&store, Some(&other), &Settings::default(), false).unwrap_err();
    assert!(
        matches!(&error, GcError::OtherStore { .. }) && error.to_string().contains("nothing was touched")
    );

    let credited = Some(Credited { run: 7, root: Digest::sha256(b"x") });
    let report = gc_with(&store, &list(&store, None, &[(UID, credited)]));
    assert!(report.refused[0].contains("run 7 of cache") && report.refused[0].contains("is missing"));
    assert_eq!((report.taken_out.blobs, report.roots.len()), (0, 0));
}

#[test]
fn unfinished_downloads_and_other_remains_go_by_age_and_locks_that_nobody_holds() {
    let (_dir, store) = new_store();
    let (dead, live) = (Digest::sha256(b"dead"), Digest::sha256(b"live"));
    let ingest = store.path().join("ingest");
    for digest in [&dead, &live] {
        for ending in ["0a", "0a.ranges", "lock"] {
            fs::write(ingest.join(format!("sha256-{}.{ending}", digest.hex())), "xyz").unwrap();
        }
    }
    for temporary in ["leases/.a", "condemned/.b", "ingest/.c", "roots/local-a/.1.json.x", ".index.json.y"] {
        fs::create_dir_all(store.path().join("roots/local-a")).unwrap();
        fs::write(store.path().join(temporary), "").unwrap();
    }
    let lease = store.lease(&key(UID), "run 1").unwrap();
    lease.add(&[(live.clone(), 3)]).unwrap();
    let held = store.try_lock(&live).unwrap().unwrap();
    let locks = || tree(&store).into_keys().filter(|path| path.contains(".lock")).collect::<Vec<_>>();
    assert_eq!(gc(&store).unfinished.files, 0);
    assert_eq!(locks().len(), 2, "taken lately");
    age(&store, "ingest", HOUR);
    let report = gc(&store);
    assert_eq!((report.unfinished.files, report.unfinished.bytes), (2, 6));
    assert!(ingest.join(format!("sha256-{}.0a", live.hex())).exists());
    for folder in ["leases", "condemned", "ingest", "roots"] {
        age(&store, folder, 24 * HOUR);
    }
    let index = fs::File::open(store.path().join(".index.json.y")).unwrap();
    index.set_modified(index.metadata().unwrap().modified().unwrap() - 24 * HOUR).unwrap();
    lease.touch().unwrap();
    gc(&store);
    age(&store, "roots", 24 * HOUR);
    gc(&store);
    let left: Vec<String> =
        tree(&store).into_keys().filter(|path| path.contains("/.") || path.starts_with('.')).collect();
    assert_eq!(left, Vec::<String>::new());
    assert!(!store.path().join("roots/local-a").exists());
    assert_eq!(locks(), [format!("ingest/sha256-{}.lock", live.hex())]);
    drop(held);
    gc(&store);
    assert_eq!(locks(), Vec::<String>::new());
    store.link_root(&root(&store, "local-a", 1, "nginx:1", "one")).unwrap();
}

#[test]
fn rm_finds_caches_by_name_and_key_and_removes_all_or_none() {
    let (_dir, store) = new_store();
    for (cache, name) in
        [("local-a", "a"), ("local-x1", "shop"), ("local-x2", "twice"), ("local-x3", "twice"), (UID, "shop")]
    {
        store.link_root(&stores_root(&store, cache, name)).unwrap();
    }
    let says = |names: &[&str], part: &str| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let failure = rm(store.path(), &names, false).unwrap_err();
        assert!(failure.to_string().contains(part), "{failure}");
        failure.class
    };
    assert_eq!(says(&["a", "nothing"], "no cache \"nothing\""), Class::NotFound);
    assert_eq!(says(&["a", "twice"], "local-x2, local-x3"), Class::InvalidSpec);
    assert_eq!(says(&["a", UID], "belongs to an ImageCache of a cluster"), Class::InvalidSpec);
    assert_eq!(store.list_roots().unwrap().len(), 5, "nothing was removed yet");

    let removed = rm(store.path(), &["a".into(), "local-x2".into(), "shop".into()], false).unwrap();
    let keys: Vec<&str> = removed.caches.iter().map(|cache| cache.cache.as_str()).collect();
    assert_eq!(
        keys,
        ["local-a", "local-x1", "local-x2"],
        "the one made by hand is meant before the cluster's"
    );
    rm(store.path(), &[UID.into()], true).unwrap();
    let index = fs::read_to_string(store.path().join("index.json")).unwrap();
    assert_eq!(index.matches("sha256:").count(), 1, "the one that is left: {index}");
}

fn stores_root(store: &Store, cache: &str, name: &str) -> imagecache::model::root::Root {
    imagecache::model::root::Root { name: name.into(), ..root(store, cache, 1, &format!("{cache}:1"), cache) }
}

#[test]
fn a_run_number_never_comes_back_and_a_late_pull_of_a_removed_run_is_refused() {
    let (_dir, store) = new_store();
    let cache = key("local-a");
    let two = root(&store, "local-a", 2, "nginx:1", "two");
    store.link_root(&two).unwrap();
    let leased = store.lease(&cache, "a run 3").unwrap();
    let removed = rm(store.path(), &["a".into()], false).unwrap();
    assert!(removed.caches[0].being_pulled);
    assert!(removed.to_text(store.path()).contains("a pull of local-a may be running"));
    assert_eq!(store.highest_run(&cache).unwrap(), Some(2));
    assert!(store.latest_root(&cache).unwrap().is_none());
    for run in [1, 2] {
        let late = root(&store, "local-a", run, "nginx:1", "two");
        let error = store.link_root(&late).unwrap_err();
        assert!(matches!(error, StoreError::Removed { .. }), "{error}");
        assert!(error.to_string().contains("was removed by hand while run"));
    }
    // Killed between its link and its second look at the note: what it left is no root.
    let folder = store.path().join("roots/local-a");
    fs::write(folder.join("2.json"), serde_json::to_vec(&two).unwrap()).unwrap();
    assert!(store.latest_root(&cache).unwrap().is_none() && store.roots().unwrap().is_empty());
    gc(&store);
    assert!(!folder.join("2.json").exists());
    store.link_root(&root(&store, "local-a", 3, "nginx:1", "three")).unwrap();
    assert!(leased.touch().unwrap(), "the running pull keeps its lease");
    rm(store.path(), &["a".into()], false).unwrap();
    assert_eq!(fs::read_dir(store.path().join("roots/local-a")).unwrap().count(), 1, "one note a cache");
}

#[test]
fn two_collectors_at_once_lose_nothing() {
    let (_dir, store) = new_store();
    let all = Settings {
        grace: Duration::ZERO,
        trash: Duration::ZERO,
        condemned: Duration::ZERO,
        ..Settings::default()
    };
    store.link_root(&root(&store, "local-kept", 1, "nginx:1", "kept")).unwrap();
    for round in 0..20 {
        (0..20_u8).for_each(|n| drop(put(&store, &[round, n])));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| collect(&store, None, &all, false).unwrap());
            }
        });
        assert!(whole(&store, "local-kept"));
    }
    (0..2).for_each(|_| drop(collect(&store, None, &all, false).unwrap()));
    assert_eq!((store.blobs_there().unwrap().len(), store.list_trash().unwrap().len()), (3, 0));
}

#[test]
fn the_command_prints_tables_and_json_and_steps_back_for_another_one() {
    let (_dir, store) = new_store();
    put(&store, b"nobody's");
    pass(&store, HOUR);
    let gc = |args: &[&str]| {
        let path = store.path().to_str().unwrap();
        let output =
            Command::new(env!("CARGO_BIN_EXE_imagecache")).arg("gc").arg(path).args(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let held = store.try_lock_gc().unwrap().unwrap();
    let (status, out, err) = gc(&[]);
    assert!(status == 0 && out.is_empty() && err.contains("another gc is at work"), "{out}{err}");
    drop(held);
    let (status, out, _) = gc(&["--dry-run"]);
    assert!(status == 0 && out.contains("taken out") && out.contains("8 B"), "{out}");

    let parts = list(&store, None, &[(UID, None)]).parts(1);
    let file = store.path().join("live.json");
    fs::write(&file, serde_json::to_vec(&parts[0]).unwrap()).unwrap();
    let (status, out, _) = gc(&["--live", file.to_str().unwrap(), "-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &report["takenOut"]["bytes"]), (0, &8.into()));
    fs::write(&file, "{}").unwrap();
    let (status, _, err) = gc(&["--live", file.to_str().unwrap()]);
    assert!(status == 2 && err.contains("live.json: missing field"), "{err}");
}
