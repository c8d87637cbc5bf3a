//! The store on a real file system, as its writers and readers use it.
#![allow(clippy::unwrap_used)]

mod stores;

use std::{
    fs,
    io::Read,
    iter,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread,
    time::{Duration, SystemTime},
};

use imagecache::{
    model::{
        class::Class,
        digest::{Algorithm, Digest},
    },
    ops::clock,
    store::{Store, StoreError},
};
use jiff::Timestamp;
use stores::{blob_path, key, new_store, put, root};

fn files_in(path: impl AsRef<Path>) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// An hour from now: whatever is there is older.
fn later() -> SystemTime {
    SystemTime::from(clock::now()) + Duration::from_hours(1)
}

#[test]
fn creators_that_race_agree_on_one_id() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/store");
    let ids: Vec<String> = thread::scope(|scope| {
        let all: Vec<_> =
            (0..8).map(|_| scope.spawn(|| Store::create_or_open(&path).unwrap().id().to_owned())).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0] && id.len() == 32), "{ids:?}");
    assert_eq!(Store::open(&path).unwrap().id(), ids[0]);
    assert_eq!(
        files_in(&path),
        [
            "blobs",
            "condemned",
            "index.json",
            "ingest",
            "leases",
            "oci-layout",
            "roots",
            "store.json",
            "trash"
        ]
    );
    assert!(files_in(path.join("ingest")).is_empty(), "the probes clean up");
}

#[test]
fn what_is_no_store_is_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let message = |result: Result<Store, StoreError>| result.unwrap_err().to_string();
    assert!(message(Store::open(dir.path())).contains("not an imagecache store"));
    assert!(message(Store::open(dir.path().join("absent"))).contains("No such file"));

    fs::write(dir.path().join("index.json"), "{}").unwrap();
    assert!(message(Store::create_or_open(dir.path())).contains("belongs to another tool"));
    assert_eq!(files_in(dir.path()), ["index.json"], "nothing of it is touched");

    fs::write(dir.path().join("store.json"), r#"{"format":2,"id":"?","new":true}"#).unwrap();
    for result in [Store::open(dir.path()), Store::create_or_open(dir.path())] {
        let text = message(result);
        assert!(text.contains("format 2") && text.contains("up to 1") && text.contains("newer"), "{text}");
    }
    fs::write(dir.path().join("store.json"), "").unwrap();
    assert!(message(Store::open(dir.path())).contains("cannot be read"));
}

#[test]
fn a_volume_without_the_right_to_write_is_named_with_uid_gid_and_mode() {
    if !rustix::process::geteuid().is_root() {
        return; // needs a second uid to act as
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let volume = dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let exe = std::env::current_exe().unwrap();
    // The same test program as another user, with one test only: the next one.
    let copy = dir.path().join("probe");
    fs::copy(exe, &copy).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65532", "--regid=65532", "--groups=65532"])
        .arg(&copy)
        .args(["--exact", "--nocapture", "--ignored", "as_the_user_of_the_pods"])
        .env("VOLUME", &volume)
        .output();
    let Ok(output) = output else { return };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in ["belongs to uid 0, gid 0, mode 0755", "uid 65532, gid 65532, groups [65532]", "fsGroup"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
#[ignore = "run by the test above, as another user"]
fn as_the_user_of_the_pods() {
    let Ok(volume) = std::env::var("VOLUME") else { return };
    println!("{}", Store::create_or_open(volume).unwrap_err());
}

#[test]
fn folders_take_the_rights_of_an_fs_group_volume() {
    let dir = tempfile::tempdir().unwrap();
    for (volume, made) in [(0o2775, 0o2775), (0o755, 0o755), (0o775, 0o775)] {
        let path = dir.path().join(format!("{volume:o}"));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(volume)).unwrap();
        Store::create_or_open(&path).unwrap();
        for folder in ["roots", "blobs/sha256", "ingest"] {
            assert_eq!(
                fs::metadata(path.join(folder)).unwrap().mode() & 0o7777,
                made,
                "{folder} in {volume:o}"
            );
        }
    }
}

#[test]
fn a_blob_that_came_in_whole_is_read_only_and_present() {
    let (_dir, store) = new_store();
    let digest = put(&store, b"hello, layer");
    store.sync_blobs().unwrap();
    let mut text = String::new();
    store.look(&digest, 12).unwrap().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello, layer");
    assert_eq!(fs::metadata(blob_path(&store, &digest)).unwrap().mode() & 0o7777, 0o444);
    assert!(files_in(store.path().join("ingest")).is_empty());

    let long = Digest::of(Algorithm::Sha512, b"long");
    let mut ingest = store.ingest(&long, 4).unwrap();
    ingest.write(b"long").unwrap();
    ingest.finish().unwrap();
    assert!(store.find(&long, 4).unwrap().is_some());
}

#[test]
fn wrong_content_gets_no_name_and_leaves_nothing() {
    let (_dir, store) = new_store();
    let digest = Digest::sha256(b"right");
    for (text, says) in
        [("rigth", "its bytes have the digest sha256:"), ("righ", "4 bytes, but"), ("", "0 bytes, but")]
    {
        let mut ingest = store.ingest(&digest, 5).unwrap();
        ingest.write(text.as_bytes()).unwrap();
        let error = ingest.finish().unwrap_err();
        assert_eq!(error.class(), Class::BadContent);
        assert!(error.to_string().contains(says), "{error}");
    }
    let mut ingest = store.ingest(&digest, 5).unwrap();
    ingest.write(b"righ").unwrap();
    let error = ingest.write(b"t and more").unwrap_err();
    assert!(error.to_string().contains("more than the 5 bytes"), "{error}");
    assert!(ingest.finish().is_err());
    assert!(store.look(&digest, 5).unwrap().is_none());
    assert!(files_in(store.path().join("ingest")).is_empty());
}

#[test]
fn an_attempt_that_is_given_up_leaves_nothing() {
    let (_dir, store) = new_store();
    let mut ingest = store.ingest(&Digest::sha256(b"x"), 1).unwrap();
    ingest.write(b"x").unwrap();
    assert_eq!(files_in(store.path().join("ingest")).len(), 1);
    drop(ingest);
    assert!(files_in(store.path().join("ingest")).is_empty());
}

#[test]
fn a_blob_of_another_size_or_a_link_is_not_present() {
    let (dir, store) = new_store();
    let digest = put(&store, b"four");
    assert!(store.look(&digest, 5).unwrap().is_none());

    let outside = dir.path().join("outside");
    fs::write(&outside, "link").unwrap();
    let link = Digest::sha256(b"link");
    symlink(&outside, blob_path(&store, &link)).unwrap();
    assert!(store.look(&link, 4).unwrap().is_none(), "a link leads out of the store");
    put(&store, b"link");
    assert!(store.look(&link, 4).unwrap().is_some(), "and is replaced by the real blob");
    assert_eq!(fs::metadata(&outside).unwrap().mode() & 0o222, 0o200, "what it led to is untouched");
}

#[test]
fn a_blob_in_the_trash_is_present_and_a_writer_moves_it_back() {
    let (_dir, store) = new_store();
    let digest = put(&store, b"rescued");
    let trash = store.path().join("trash/0123");
    fs::create_dir(&trash).unwrap();
    let name = trash.join(format!("sha256-{}", digest.hex()));
    fs::rename(blob_path(&store, &digest), &name).unwrap();

    assert!(store.find(&digest, 7).unwrap().is_some());
    assert!(name.exists(), "a reader moves nothing");
    assert!(store.look(&digest, 7).unwrap().is_some());
    assert!(!name.exists() && blob_path(&store, &digest).exists());
}

/// One look sees a blob move at most there and back by each of two gc runs: fewer moves than looks.
#[test]
fn a_blob_that_moves_while_it_is_looked_for_is_found() {
    let (_dir, store) = new_store();
    let digest = put(&store, b"restless");
    let trash = store.path().join("trash/run");
    fs::create_dir(&trash).unwrap();
    let (here, there) = (blob_path(&store, &digest), trash.join(format!("sha256-{}", digest.hex())));
    let start = std::sync::Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            for pace in (0..2000).map(|i| i % 100) {
                start.wait();
                for (from, to) in [(&here, &there), (&there, &here), (&here, &there), (&there, &here)] {
                    fs::rename(from, to).unwrap();
                    (0..pace).for_each(|_| std::hint::spin_loop());
                }
                start.wait();
            }
        });
        let find = |_: &i32| {
            start.wait();
            let found = store.find(&digest, 8).unwrap();
            start.wait();
            found.is_none()
        };
        assert_eq!((0..2000).filter(find).count(), 0);
    });
}

#[test]
fn one_digest_has_one_lock_at_a_time() {
    let (_dir, store) = new_store();
    assert!(store.locks_work().unwrap());
    let digest = Digest::sha256(b"x");
    let held = store.try_lock(&digest).unwrap().unwrap();
    let other = Store::open(store.path()).unwrap();
    assert!(other.try_lock(&digest).unwrap().is_none());
    assert!(other.lock(&digest, || true).unwrap().is_none());
    assert!(other.try_lock(&Digest::sha256(b"y")).unwrap().is_some());
    thread::scope(|scope| {
        let waiter = scope.spawn(|| other.lock(&digest, || false).unwrap().is_some());
        drop(held);
        assert!(waiter.join().unwrap());
    });
}

#[test]
fn a_lock_whose_file_is_removed_all_the_time_still_has_one_holder() {
    let (_dir, store) = new_store();
    let digest = Digest::sha256(b"x");
    let (inside, over, removals) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicUsize::new(0));
    let file = store.path().join(format!("ingest/sha256-{}.lock", digest.hex()));
    thread::scope(|scope| {
        let takers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let _lock = iter::repeat_with(|| store.try_lock(&digest).unwrap()).flatten().next();
                        assert_eq!(inside.fetch_add(1, SeqCst), 0, "two hold it");
                        inside.fetch_sub(1, SeqCst);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !over.load(SeqCst) {
                store.remove_locks(later()).unwrap();
                removals.fetch_add(usize::from(!file.exists()), SeqCst);
            }
        });
        let ended: Vec<_> = takers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        over.store(true, SeqCst);
        assert!(ended.iter().all(Result::is_ok));
    });
    assert!(removals.load(SeqCst) > 0);
    store.remove_locks(later()).unwrap();
    assert_eq!(files_in(store.path().join("ingest")), Vec::<String>::new());
}

#[test]
fn a_lease_is_on_disk_before_anything_is_looked_up_and_gone_at_the_end() {
    let (_dir, store) = new_store();
    let lease = store.lease(&"quickstart".parse().unwrap(), "quickstart run 1").unwrap();
    let leases = store.path().join("leases");
    let name = files_in(&leases).pop().unwrap();
    lease.add(&[(Digest::sha256(b"a"), 10), (Digest::sha256(b"b"), 20)]).unwrap();
    let text = fs::read_to_string(leases.join(&name)).unwrap();
    assert!(text.contains(Digest::sha256(b"b").hex()) && text.contains("quickstart run 1"), "{text}");
    assert!(lease.touch().unwrap());

    fs::remove_file(leases.join(&name)).unwrap();
    assert!(!lease.touch().unwrap(), "the owner learns that it vanished, and goes on");
    lease.add(&[(Digest::sha256(b"c"), 1)]).unwrap();
    assert!(fs::read_to_string(leases.join(&name)).unwrap().contains(Digest::sha256(b"a").hex()));
    lease.release().unwrap();
    assert!(files_in(&leases).is_empty());
}

#[test]
fn the_next_attempt_of_a_cache_takes_over_what_a_failed_one_fetched() {
    let (_dir, store) = new_store();
    let (cache, other) = ("shop".parse().unwrap(), "other".parse().unwrap());
    let (got, wanted) = (Digest::sha256(b"got"), Digest::sha256(b"wanted"));
    let failed = store.lease(&cache, "shop run 1").unwrap();
    failed.add(&[(got.clone(), 10), (wanted, 20)]).unwrap();
    failed.fetched(&got).unwrap();
    drop(failed);

    assert!(
        store.lease(&other, "other run 1").unwrap().fetched_before().is_empty(),
        "nothing of another cache"
    );
    let next = store.lease(&cache, "shop run 2").unwrap();
    assert_eq!(next.fetched_before(), [got].into());
    let leases = store.path().join("leases");
    assert_eq!(files_in(&leases).len(), 1, "one lease a cache is left behind at most");
    next.release().unwrap();
    assert!(files_in(&leases).is_empty());
}

#[test]
fn space_is_spoken_for_by_other_pulls_that_live() {
    let (_dir, store) = new_store();
    let mine = store.lease(&"mine".parse().unwrap(), "mine run 1").unwrap();
    mine.set_to_fetch(1).unwrap();
    let other = store.lease(&"other".parse().unwrap(), "other run 1").unwrap();
    other.set_to_fetch(100).unwrap();
    let dead = store.lease(&"dead".parse().unwrap(), "dead run 1").unwrap();
    dead.set_to_fetch(1000).unwrap();
    let hour_ago = Duration::from_hours(1);
    for name in files_in(store.path().join("leases")) {
        let path = store.path().join("leases").join(name);
        if fs::read_to_string(&path).unwrap().contains("dead") {
            let file = fs::File::options().append(true).open(&path).unwrap();
            file.set_modified(file.metadata().unwrap().modified().unwrap() - hour_ago).unwrap();
        }
    }
    fs::write(store.path().join("leases/newer.json"), "{}").unwrap();
    assert_eq!(mine.reserved_by_others().unwrap(), 100);
    drop(other);
    assert_eq!(mine.reserved_by_others().unwrap(), 0);
    let space = store.space().unwrap();
    assert!(space.free > 0 && space.free <= space.capacity);
}

#[test]
fn a_root_is_linked_once_and_read_back_with_its_digest() {
    let (_dir, store) = new_store();
    let root = root(&store, "local-a", 3, "nginx:1", "one");
    let digest = store.link_root(&root).unwrap();
    assert_eq!(digest, Digest::sha256(&fs::read(store.path().join("roots/local-a/3.json")).unwrap()));
    assert_eq!(files_in(store.path().join("roots/local-a")), ["3.json"]);

    let read = store.latest_root(&key("local-a")).unwrap().unwrap();
    assert_eq!((read.root, read.digest), (root, digest));
    assert!(store.latest_root(&key("local-b")).unwrap().is_none());
    assert!(store.root(&key("local-a"), 2).unwrap().is_none());
    assert_eq!(store.highest_run(&key("local-a")).unwrap(), Some(3));
}

#[test]
fn a_run_that_is_there_is_taken_over_only_with_the_same_content() {
    let (_dir, store) = new_store();
    let first = root(&store, "local-a", 3, "nginx:1", "one");
    let digest = store.link_root(&first).unwrap();

    let mut later = first.clone();
    later.images[0].resolved = Timestamp::from_second(1_800_000_000).unwrap();
    assert_eq!(store.link_root(&later).unwrap(), digest, "the root that is there answers");

    let error = store.link_root(&root(&store, "local-a", 3, "nginx:1", "two")).unwrap_err();
    assert!(error.to_string().contains("run 3 of cache local-a is already in the store with other content"));
    assert_eq!(store.root(&key("local-a"), 3).unwrap().unwrap().root, first, "nothing is overwritten");
}

#[test]
fn a_run_below_a_complete_one_is_refused_by_name() {
    let (_dir, store) = new_store();
    store.link_root(&root(&store, "local-a", 10, "nginx:1", "one")).unwrap();
    let error = store.link_root(&root(&store, "local-a", 9, "nginx:1", "two")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "run 9 of cache local-a is refused: run 10 of this cache is already complete in the store"
    );
    assert!(matches!(error, StoreError::HigherRun { higher: 10, .. }));
    let mut foreign = root(&store, "local-a", 11, "nginx:1", "one");
    foreign.store = "0".repeat(32);
    assert!(store.link_root(&foreign).unwrap_err().to_string().contains("volume was replaced"));
}

#[test]
fn damaged_roots_are_listed_as_such_and_temporary_names_are_not() {
    let (_dir, store) = new_store();
    store.link_root(&root(&store, "local-a", 1, "nginx:1", "one")).unwrap();
    let folder = store.path().join("roots/local-a");
    fs::write(folder.join("2.json"), "{").unwrap();
    fs::write(folder.join("3.json"), r#"{"format":9}"#).unwrap();
    fs::copy(folder.join("1.json"), folder.join("4.json")).unwrap();
    for ignored in [".5.json.abc", "x.json", "05.json", "6.json.tmp"] {
        fs::write(folder.join(ignored), "{").unwrap();
    }
    fs::create_dir(store.path().join("roots/.tmp")).unwrap();
    fs::create_dir(store.path().join("roots/local-empty")).unwrap();

    let roots = store.roots().unwrap();
    let says: Vec<(u64, String)> = roots
        .into_iter()
        .map(|listed| (listed.run, listed.root.map_or_else(|e| e.to_string(), |root| root.root.name)))
        .collect();
    assert_eq!(says.iter().map(|(run, _)| *run).collect::<Vec<_>>(), [1, 2, 3, 4]);
    for ((_, text), part) in says.iter().zip(["local-a", "not a root", "format 9", "holds run 1"]) {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(store.latest_root(&key("local-a")).unwrap().unwrap().root.run, 1);
    assert_eq!(store.highest_run(&key("local-a")).unwrap(), Some(4));
}

#[test]
fn the_index_names_each_image_once_and_the_newest_wins() {
    let (_dir, store) = new_store();
    let old = root(&store, "local-a", 1, "nginx:1", "old");
    let new = root(&store, "local-b", 2, "nginx:1", "new");
    let mut bent = root(&store, "local-c", 3, "nginx:1", "bent");
    bent.images[0].overridden = true;
    for root in [&old, &new, &bent, &root(&store, "local-d", 4, "example.com/team/app:v2", "app")] {
        store.link_root(root).unwrap();
    }
    store.rewrite_index().unwrap();
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(store.path().join("index.json")).unwrap()).unwrap();
    let manifests = index["manifests"].as_array().unwrap();
    let name = |i: usize| manifests[i]["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap();
    assert_eq!(
        (manifests.len(), name(0), name(1)),
        (2, "docker.io/library/nginx:1", "example.com/team/app:v2")
    );
    assert_eq!(manifests[0]["digest"], new.images[0].digest.to_string());
}

#[test]
fn skopeo_reads_the_store_as_an_oci_layout() {
    if Command::new("skopeo").arg("--version").output().is_err() {
        return;
    }
    let (dir, store) = new_store();
    let one = root(&store, "local-a", 1, "nginx:1", "one");
    let pinned = format!("registry.example.com:5000/team/app:v2@{}", one.images[0].digest);
    store.link_root(&one).unwrap();
    store.link_root(&root(&store, "local-b", 1, "registry.example.com:5000/team/app:v1", "two")).unwrap();
    store.link_root(&root(&store, "local-c", 1, &pinned, "one")).unwrap();
    store.rewrite_index().unwrap();
    for name in ["docker.io/library/nginx:1", "registry.example.com:5000/team/app:v1", &pinned] {
        let source = format!("oci:{}:{name}", store.path().display());
        let target = format!("dir:{}", dir.path().join("copy").display());
        for args in [vec!["inspect", &source], vec!["--insecure-policy", "copy", &source, &target]] {
            let output = Command::new("skopeo").args(&args).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{args:?}: {stderr}");
        }
    }
}
