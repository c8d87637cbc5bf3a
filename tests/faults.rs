//! Disks that are full or fail: the run ends with the right class and says where and what to do, gives its space back,
//! harms no other cache, and the next one succeeds. The store of test builds refuses any change that it is told to
//! (`IMAGECACHE_FAIL_AT`); the tests on real file systems need root (`make test-faults`).
//! `IMAGECACHE_FAULTS=all` tries every change and not some of them.
#![allow(clippy::case_sensitive_file_extension_comparisons)]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod stores;
#[path = "support/registry/mod.rs"]
mod upstream;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use imagecache::{
    model::class::Class,
    store::{Store, is_right},
};
use rand::Rng as _;
use stores::key;
use upstream::Registry;

const MIB: usize = 1 << 20;

fn imagecache(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagecache"));
    command.args(["--log", "imagecache=warn"]).args(args).env_remove("IMAGECACHE_FAIL_AT");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// One connection: blobs come one after the other, the largest first.
fn pull(volume: &Path, registry: &Registry, name: &str, image: &str) -> Command {
    let (host, image) = (registry.host().to_string(), registry.reference(image).to_string());
    let volume = volume.to_str().unwrap();
    let mut command = imagecache(&["pull", "--volume", volume, "--name", name, "--image", &image]);
    command.args(["--plain-http", &host, "--platform", "linux/amd64", "--connections", "1"]);
    command
}

fn succeeds(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", told(&output));
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let next = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    next.take(size / 8).flatten().collect()
}

/// Two images that share a layer. The first has one that is continued after a failure, and small ones.
async fn registry(large: usize) -> Registry {
    let registry = Registry::start().await;
    let shared = noise(1, MIB);
    registry.image("app", "1", "linux/amd64", &[&noise(2, large), &noise(3, 3 * MIB), &shared]);
    registry.image("other", "1", "linux/amd64", &[&noise(4, 2 * MIB), &shared]);
    registry
}

/// Whatever failed: what has a name is right, and every cache that is there is whole.
fn unharmed(volume: &Path, caches: &[&str]) {
    let store = Store::open(volume).unwrap();
    for blob in store.blobs_there().unwrap() {
        let file = store.find(&blob.digest, blob.size).unwrap().unwrap();
        assert!(is_right(&file, &blob.digest, &|_| {}).unwrap(), "{} is bad", blob.digest);
    }
    for cache in caches {
        assert!(store.latest_root(&key(cache)).unwrap().is_some(), "{cache}");
    }
    succeeds(imagecache(&["verify", volume.to_str().unwrap()]));
}

/// Unfinished downloads that nobody could continue. Those that say which ranges are durable are kept for the next run.
fn useless(volume: &Path) -> Vec<String> {
    let names = fs::read_dir(volume.join("ingest")).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let kept = |name: &String| name.ends_with(".ranges") || names.contains(&format!("{name}.ranges"));
    names
        .iter()
        .filter(|name| name.starts_with("sha256-") && !name.ends_with(".lock") && !kept(name))
        .cloned()
        .collect()
}

fn all_of(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with('.')).collect()
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// The class and the words for what a run that meets this error says.
fn expected(errno: &str) -> (Class, &'static str) {
    match errno {
        "ENOSPC" => (Class::NoSpace, "free space on the volume"),
        "EDQUOT" => (Class::Quota, "raise the disk quota"),
        "EROFS" => (Class::Unknown, "mount it read-write"),
        _ => (Class::Unknown, "the kernel's log"),
    }
}

/// The disk refuses the n-th change of a pull, or that and all that follow, for as many n as there are.
async fn at_any_change(errno: &'static str, for_good: bool) {
    let registry = registry(17 * MIB).await;
    tokio::task::spawn_blocking(move || {
        let dir = tempfile::tempdir().unwrap();
        let scene = dir.path().join("scene");
        succeeds(pull(&scene, &registry, "other", "other:1"));
        let step: u32 = if std::env::var_os("IMAGECACHE_FAULTS").is_some() { 1 } else { 16 };
        let (mut at, mut failed) = (1 + rand::rng().random_range(0..step), 0);
        loop {
            let volume = dir.path().join(format!("at-{at}"));
            copy(&scene, &volume);
            let mut command = pull(&volume, &registry, "app", "app:1");
            let script = format!("{at}{}:{errno}", if for_good { "+" } else { "" });
            let output = command.env("IMAGECACHE_FAIL_AT", &script).output().unwrap();
            let text = told(&output);
            if !text.contains("IMAGECACHE_FAIL_AT") {
                assert!(output.status.success(), "{text}");
                break;
            }
            let removable = !for_good || matches!(errno, "ENOSPC" | "EDQUOT");
            if !output.status.success() {
                failed += 1;
                let (class, cure) = expected(errno);
                assert_eq!(output.status.code(), Some(class.exit_code().into()), "{script}: {text}");
                assert!(text.contains(volume.to_str().unwrap()) && text.contains(cure), "{script}: {text}");
                assert!(!removable || useless(&volume).is_empty(), "{script}: {:?}", useless(&volume));
            }
            unharmed(&volume, &["local-other"]);
            succeeds(pull(&volume, &registry, "app", "app:1"));
            unharmed(&volume, &["local-other", "local-app"]);
            assert_eq!(all_of(&volume.join("ingest")), Vec::<String>::new(), "{script}");
            assert_eq!(all_of(&volume.join("leases")), Vec::<String>::new(), "{script}");
            fs::remove_dir_all(&volume).unwrap();
            at += step;
        }
        println!(
            "{errno}, for good: {for_good}: of {} changes tried up to {at}, {failed} ended the pull",
            at.div_ceil(step)
        );
        assert!(at > 60 && failed > 2, "too few: the scene is not what it was");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_space_for_one_change() {
    at_any_change("ENOSPC", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_space_from_one_change_on() {
    at_any_change("ENOSPC", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_quota_from_one_change_on() {
    at_any_change("EDQUOT", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_change_fails_and_what_was_to_be_durable_is_lost() {
    at_any_change("EIO", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_fails_from_one_change_on() {
    at_any_change("EIO", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_volume_turns_read_only() {
    at_any_change("EROFS", true).await;
}

/// Wherever a part of a pull breaks down, the pull ends, and what it leaves is as good as after a kill.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_pull_breaks_down() {
    let registry = registry(17 * MIB).await;
    tokio::task::spawn_blocking(move || {
        let dir = tempfile::tempdir().unwrap();
        let step: u32 = if std::env::var_os("IMAGECACHE_FAULTS").is_some() { 1 } else { 4 };
        let mut at = 1 + rand::rng().random_range(0..step);
        loop {
            let volume = dir.path().join(format!("at-{at}"));
            let mut command = pull(&volume, &registry, "app", "app:1");
            let child = command.env("IMAGECACHE_FAIL_AT", format!("{at}:PANIC")).spawn().unwrap();
            let output = ends(child);
            let text = told(&output);
            if !text.contains("IMAGECACHE_FAIL_AT") {
                assert!(output.status.success(), "{text}");
                break;
            }
            succeeds(pull(&volume, &registry, "app", "app:1"));
            unharmed(&volume, &["local-app"]);
            fs::remove_dir_all(&volume).unwrap();
            at += step;
        }
        assert!(at > 60, "too few: the scene is not what it was");
    })
    .await
    .unwrap();
}

/// What a process says that must end by itself. A generous limit tells one that waits for ever.
fn ends(child: Child) -> Output {
    let pid = rustix::process::Pid::from_child(&child);
    let (over, told) = std::sync::mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        let late =
            told.recv_timeout(Duration::from_mins(2)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if late {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        late
    });
    let output = child.wait_with_output().unwrap();
    drop(over);
    assert!(!guard.join().unwrap(), "it never ended: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Collectors that are refused one change, or that and all that follow, take nothing that is needed, and the next ones
/// find their way.
#[tokio::test(flavor = "multi_thread")]
async fn gc_meets_a_full_disk_or_one_that_fails() {
    let registry = registry(MIB).await;
    tokio::task::spawn_blocking(move || {
        let dir = tempfile::tempdir().unwrap();
        let scene = dir.path().join("scene");
        succeeds(pull(&scene, &registry, "other", "other:1"));
        let kept = Store::open(&scene).unwrap().blobs_there().unwrap().len();
        succeeds(pull(&scene, &registry, "app", "app:1"));
        succeeds(pull(&scene, &registry, "app", "app:1"));
        succeeds(imagecache(&["rm", scene.to_str().unwrap(), "app"]));
        let gc = |volume: &Path| {
            imagecache(&["gc", volume.to_str().unwrap(), "--grace", "0", "--unsafe-no-waiting"])
        };
        let step: u32 = if std::env::var_os("IMAGECACHE_FAULTS").is_some() { 1 } else { 4 };
        for script in ["ENOSPC", "+ENOSPC", "EIO", "+EIO"] {
            let (on, errno) = script.strip_prefix('+').map_or(("", script), |errno| ("+", errno));
            let mut at = 1 + rand::rng().random_range(0..step);
            loop {
                let volume = dir.path().join("volume");
                copy(&scene, &volume);
                let output =
                    gc(&volume).env("IMAGECACHE_FAIL_AT", format!("{at}{on}:{errno}")).output().unwrap();
                let text = told(&output);
                if !text.contains("IMAGECACHE_FAIL_AT") {
                    break;
                }
                unharmed(&volume, &["local-other"]);
                (0..3).for_each(|_| succeeds(gc(&volume)));
                unharmed(&volume, &["local-other"]);
                assert_eq!(
                    Store::open(&volume).unwrap().blobs_there().unwrap().len(),
                    kept,
                    "{script} at {at}"
                );
                fs::remove_dir_all(&volume).unwrap();
                at += step;
            }
            println!("gc, {errno}{on}: {} changes", at - 1);
            assert!(at > 8, "too few: the scene is not what it was");
            fs::remove_dir_all(dir.path().join("volume")).unwrap();
        }
    })
    .await
    .unwrap();
}

/// Unmounted when dropped.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(args: &[&str]) -> Self {
        let mount = Self(tempfile::tempdir().unwrap());
        let status = Command::new("mount").args(args).arg(mount.path()).status().unwrap();
        assert!(status.success(), "mount {args:?} needs root, and a kernel that has it");
        mount
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

/// A disk of so many MiB, as a file in this folder, without a journal.
fn ext4(folder: &Path, size: usize) -> Mount {
    let image = folder.join("disk");
    fs::File::create(&image).unwrap().set_len((size * MIB) as u64).unwrap();
    let made =
        Command::new("mkfs.ext4").args(["-q", "-E", "nodiscard", "-O", "^has_journal"]).arg(&image).status();
    assert!(made.unwrap().success());
    Mount::new(&["-o", "loop", image.to_str().unwrap()])
}

/// Lets a pull come so far, then goes on.
async fn begun(registry: &Registry, child: &mut Child, bytes: usize) {
    let until = registry.served() + bytes as u64;
    while registry.served() < until {
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn fails(child: Child, errno: &str, volume: &Path) {
    let output = child.wait_with_output().unwrap();
    let (class, cure) = expected(errno);
    let text = told(&output);
    assert_eq!(output.status.code(), Some(class.exit_code().into()), "{text}");
    assert!(text.contains(volume.to_str().unwrap()) && text.contains(cure), "{text}");
    println!("{text}");
    assert_eq!(useless(volume), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: make test-faults"]
async fn a_volume_that_another_program_fills() {
    let registry = registry(20 * MIB).await;
    let mount = Mount::new(&["-t", "tmpfs", "-o", "size=64m", "none"]);
    let volume = mount.path().join("store");
    succeeds(pull(&volume, &registry, "other", "other:1"));
    registry.throttle(10 * MIB as u64);
    let mut child = pull(&volume, &registry, "app", "app:1").spawn().unwrap();
    begun(&registry, &mut child, 2 * MIB).await;
    let ballast = mount.path().join("ballast");
    assert!(fs::write(&ballast, vec![0; 64 * MIB]).is_err());
    fails(child, "ENOSPC", &volume);
    unharmed(&volume, &["local-other"]);
    fs::remove_file(ballast).unwrap();
    succeeds(pull(&volume, &registry, "app", "app:1"));
    unharmed(&volume, &["local-other", "local-app"]);
    assert_eq!(all_of(&volume.join("ingest")), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: make test-faults"]
async fn a_thin_disk_that_has_less_than_it_says() {
    let registry = registry(40 * MIB).await;
    // The file system believes in 200 MiB, the medium below has a tenth of it. The kernel calls that ENOSPC,
    // and tells it to writes or to a sync.
    let medium = Mount::new(&["-t", "tmpfs", "-o", "size=20m", "none"]);
    let disk = ext4(medium.path(), 200);
    let volume = disk.path().join("store");
    succeeds(pull(&volume, &registry, "other", "other:1"));
    fails(pull(&volume, &registry, "app", "app:1").spawn().unwrap(), "ENOSPC", &volume);
    unharmed(&volume, &["local-other"]);
    let grown = Command::new("mount").args(["-o", "remount,size=200m"]).arg(medium.path()).status().unwrap();
    assert!(grown.success());
    succeeds(pull(&volume, &registry, "app", "app:1"));
    unharmed(&volume, &["local-other", "local-app"]);
    assert_eq!(all_of(&volume.join("ingest")), Vec::<String>::new());
}
