//! A cache's own volume: filled from the store, killed and filled again, and read by the commands for people.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod stores;

use std::{cell::RefCell, fs, path::Path, process::Command};

use imagecache::{
    export::volume::{Credited, Filled, fill},
    model::{class::Class, digest::Digest, failure::Failure, report::Outcome, root::Root},
    store::Store,
};
use stores::{blob_path, new_store, root};

const UID: &str = "8f14e45f-ceea-467f-a0e6-1c2b3d4e5f60";
const NGINX: &str = "docker.io/library/nginx:1";

struct World {
    _dir: tempfile::TempDir,
    store: Store,
    root: Root,
    digest: Digest,
    volume: tempfile::TempDir,
}

/// A store with two caches, of which one is exported.
fn world() -> World {
    let (dir, store) = new_store();
    let other = root(&store, "local-other", 1, "docker.io/library/redis:7", "other");
    store.link_root(&other).unwrap();
    let root = Root { name: "shop".into(), ..root(&store, UID, 3, NGINX, "one") };
    let digest = store.link_root(&root).unwrap();
    World { _dir: dir, store, root, digest, volume: tempfile::tempdir().unwrap() }
}

impl World {
    fn fill(&self) -> Result<Filled, Failure> {
        let cache = UID.parse().unwrap();
        fill(&self.store, &Credited { cache: &cache, root: &self.digest }, self.volume.path(), &|_, _| ())
    }

    fn target(&self) -> &Path {
        self.volume.path()
    }
}

fn imagecache(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_imagecache")).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_volume_holds_one_cache_verifies_and_is_an_oci_layout() {
    let world = world();
    fs::create_dir(world.target().join("lost+found")).unwrap();
    let filled = world.fill().unwrap();
    let volume = Store::open(world.target()).unwrap();
    assert_eq!(filled.store, volume.id());
    assert_ne!(volume.id(), world.store.id(), "a store of its own");
    let there = volume.root(&world.root.cache, 3).unwrap().unwrap();
    assert_eq!(there.root, Root { store: volume.id().into(), ..world.root.clone() });
    assert_eq!((volume.list_roots().unwrap().len(), there.digest), (1, filled.root));
    let (status, said) = imagecache(&["verify", world.target().to_str().unwrap(), "-o", "json"]);
    assert_eq!((status, said.contains("\"bad\": []")), (Some(0), true), "{said}");
    let index = fs::read_to_string(world.target().join("index.json")).unwrap();
    assert!(index.contains(NGINX) && index.contains(&world.root.images[0].digest.to_string()), "{index}");
    for folder in ["ingest", "leases", "trash"] {
        assert_eq!(fs::read_dir(world.target().join(folder)).unwrap().count(), 0, "{folder}");
    }
    assert!(world.store.leases().unwrap().is_empty(), "the lease ends with the copy");
}

#[test]
fn what_a_killed_attempt_left_is_hashed_before_it_counts() {
    let world = world();
    world.fill().unwrap();
    let volume = Store::open(world.target()).unwrap();
    // As a power cut might leave it: the right size, other bytes, no root, and a file that nobody finished.
    let (digest, size) = world.root.closure().into_iter().max_by_key(|(_, size)| *size).unwrap();
    let path = blob_path(&volume, digest);
    fs::remove_file(&path).unwrap();
    fs::write(&path, vec![0; usize::try_from(size).unwrap()]).unwrap();
    fs::remove_file(world.target().join(format!("roots/{UID}/3.json"))).unwrap();
    fs::write(world.target().join("ingest/left"), "half").unwrap();
    world.fill().unwrap();
    let (status, _) = imagecache(&["verify", world.target().to_str().unwrap()]);
    assert_eq!(status, Some(0));
    assert_eq!(fs::read_dir(world.target().join("ingest")).unwrap().count(), 0);
}

#[test]
fn a_root_that_is_not_the_credited_one_is_not_exported() {
    let mut world = world();
    world.digest = Digest::sha256(b"another");
    let failure = world.fill().unwrap_err();
    assert_eq!(failure.class, Class::NotFound);
    assert!(!world.target().join("store.json").exists());
}

#[test]
fn wrong_and_missing_bytes_of_the_store_are_found_while_they_are_copied() {
    let world = world();
    let (digest, size) = world.root.closure().into_iter().max_by_key(|(_, size)| *size).unwrap();
    let path = blob_path(&world.store, digest);
    fs::remove_file(&path).unwrap();
    fs::write(&path, vec![7; usize::try_from(size).unwrap()]).unwrap();
    assert_eq!(world.fill().unwrap_err().class, Class::BadContent);
    assert!(Store::open(world.target()).unwrap().list_roots().unwrap().is_empty(), "no root names it");
    fs::remove_file(&path).unwrap();
    let failure = world.fill().unwrap_err();
    assert_eq!(failure.class, Class::NotFound);
    assert!(failure.message.contains(&digest.to_string()));
}

#[test]
fn the_export_pod_reports_as_a_worker_does() {
    let world = world();
    let log = tempfile::NamedTempFile::new().unwrap();
    let run = |digest: &Digest| {
        imagecache(&[
            "export-volume",
            &format!("--volume={}", world.store.path().display()),
            &format!("--to={}", world.target().display()),
            &format!("--cache={UID}"),
            "--run=3",
            &format!("--root={digest}"),
            &format!("--termination-log={}", log.path().display()),
        ])
    };
    let said = |out: &str| Outcome::decode(&fs::read_to_string(log.path()).unwrap(), out, &[]).unwrap();
    let (status, out) = run(&Digest::sha256(b"another"));
    let outcome = said(&out);
    assert_eq!(status, Some(i32::from(Class::NotFound.exit_code())));
    assert_eq!((outcome.run, outcome.root, outcome.failure.unwrap().class), (3, None, Class::NotFound));
    let (status, out) = run(&world.digest);
    let outcome = said(&out);
    assert_eq!((status, outcome.failure), (Some(0), None));
    assert_eq!((outcome.size, outcome.root.is_some()), (world.root.size(), true));
    let progress = imagecache::model::report::last_progress(&out).unwrap();
    assert_eq!((progress.all.done, progress.all.total), (world.root.size(), world.root.size()));
}

fn export(world: &World, variable: &str, value: &str) -> Option<i32> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagecache"));
    command.args(["--log=off", "export-volume", "--run=3", "--termination-log=/dev/null"]);
    command.arg(format!("--volume={}", world.store.path().display()));
    command.arg(format!("--to={}", world.target().display()));
    command.args([format!("--cache={UID}"), format!("--root={}", world.digest)]);
    command.env(variable, value).output().unwrap().status.code()
}

/// What every end leaves: no root that is not whole.
fn is_whole_or_nothing(world: &World, point: u32) -> bool {
    let Ok(volume) = Store::open(world.target()) else { return false };
    let rooted = !volume.list_roots().unwrap().is_empty();
    let (status, said) = imagecache(&["verify", world.target().to_str().unwrap()]);
    assert_eq!(status, Some(0), "at {point}: {said}");
    rooted
}

#[test]
fn an_export_that_dies_at_any_of_its_changes_leaves_nothing_half_and_the_next_one_ends_it() {
    let mut died = 0;
    for point in 1.. {
        let world = world();
        let status = export(&world, "IMAGECACHE_DIE_AT", &point.to_string());
        is_whole_or_nothing(&world, point);
        if status == Some(0) {
            break;
        }
        died += 1;
        assert_eq!(export(&world, "IMAGECACHE_DIE_AT", "0"), Some(0), "after {point}");
        assert!(is_whole_or_nothing(&world, point));
        let (status, _) = imagecache(&["verify", world.store.path().to_str().unwrap()]);
        assert_eq!(status, Some(0), "the store after {point}");
        assert_eq!(fs::read_dir(world.target().join("ingest")).unwrap().count(), 0);
    }
    assert!(died > 20, "{died}");
}

#[test]
fn a_disk_that_is_full_at_any_change_says_so_and_the_next_export_goes_on() {
    let mut refused = 0;
    for point in (1..).step_by(3) {
        let world = world();
        let errno = if point % 2 == 0 { "EDQUOT" } else { "ENOSPC" };
        let status = export(&world, "IMAGECACHE_FAIL_AT", &format!("{point}+:{errno}"));
        is_whole_or_nothing(&world, point);
        if status == Some(0) {
            break;
        }
        refused += 1;
        // The lease is the store's: only its quota is a quota.
        let classes = [Class::NoSpace, Class::Quota].map(|class| Some(i32::from(class.exit_code())));
        assert!(classes.contains(&status), "{point}: {status:?}");
        assert_eq!(export(&world, "IMAGECACHE_DIE_AT", "0"), Some(0), "after {point}");
        assert!(is_whole_or_nothing(&world, point));
    }
    assert!(refused > 5, "{refused}");
}

#[test]
fn progress_goes_up_to_the_whole_and_not_beyond() {
    let world = world();
    let seen = RefCell::new(vec![]);
    let cache = UID.parse().unwrap();
    let credited = Credited { cache: &cache, root: &world.digest };
    fill(&world.store, &credited, world.target(), &|done, total| seen.borrow_mut().push((done, total)))
        .unwrap();
    let seen = seen.into_inner();
    assert!(
        seen.is_sorted() && seen.iter().all(|(done, total)| done <= total && *total == world.root.size())
    );
    assert_eq!(seen.last().unwrap().0, world.root.size());
}
