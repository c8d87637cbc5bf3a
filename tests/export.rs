//! Caches out of the store and into another, as archives and folders; with the tools that read them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod stores;

use std::{
    cell::Cell,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use imagecache::{
    export::{Import, Imported, export, import},
    gc::{Settings, collect},
    model::{
        class::Class,
        digest::{Algorithm, Digest},
        failure::Failure,
        root::{Entry, EntryKind, Root},
    },
    store::{Store, is_right},
};
use jiff::Timestamp;
use stores::{LAYER, blob_path, key, new_store, put, root};

const NGINX: &str = "docker.io/library/nginx:1";
const APP: &str = "registry.example.com:5000/team/app:v2";

/// A cache of one image.
fn small(store: &Store) -> Root {
    Root { name: "shop".into(), ..root(store, "local-shop", 3, NGINX, "one") }
}

/// A cache of two images, one of them with a layer by SHA-512.
fn shop(store: &Store) -> Root {
    let mut shop = root(store, "local-shop", 3, NGINX, "one");
    let mut second = root(store, "local-shop", 3, APP, "two").images.remove(0);
    second.overridden = true;
    let bytes = b"not a layer that anybody runs";
    let digest = Digest::of(Algorithm::Sha512, bytes);
    let mut ingest = store.ingest(&digest, bytes.len() as u64).unwrap();
    ingest.write(bytes).unwrap();
    ingest.finish().unwrap();
    let size = bytes.len() as u64;
    second.closure.push(Entry { digest, size, kind: EntryKind::Layer, media_type: LAYER.into() });
    shop.images.push(second);
    shop.images[0].public = Some(Timestamp::from_second(1_700_000_000).unwrap());
    shop.name = "shop".into();
    shop
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn read(store: &Store, from: &Path, name: Option<&str>, image: Option<&str>) -> Result<Imported, Failure> {
    let (name, image) = (name.map(str::to_owned), image.map(|image| image.parse().unwrap()));
    import(&Import { store, from, name, image, now: now() }, &|_, _| ())
}

fn write(store: &Store, to: &Path) -> Result<(), Failure> {
    export(store, &key("local-shop"), to, &|_, _| ()).map(drop)
}

fn every_byte_is_right(store: &Store, root: &Root) {
    for (digest, size) in root.closure() {
        let file = store.find(digest, size).unwrap().expect("there");
        assert!(is_right(&file, digest, &|_| {}).unwrap());
    }
}

#[test]
fn a_cache_crosses_to_another_store_with_the_same_digests() {
    let (dir, store) = new_store();
    let shop = small(&store);
    store.link_root(&shop).unwrap();
    for (name, other) in [("shop.tar", new_store()), ("folder", new_store())] {
        let path = dir.path().join(name);
        let steps = Cell::new((0, 0));
        let done = export(&store, &key("local-shop"), &path, &|done, total| {
            assert!(done >= steps.get().0 && done <= total);
            steps.set((done, total));
        });
        assert_eq!(done.unwrap().bytes, shop.size());
        assert_eq!(steps.get(), (shop.size(), shop.size()));

        let imported = read(&other.1, &path, None, None).unwrap();
        assert_eq!((imported.cache.as_str(), imported.run, imported.added), ("local-shop", 1, shop.size()));
        let there = other.1.latest_root(&imported.cache).unwrap().unwrap().root;
        every_byte_is_right(&other.1, &there);
        let (ours, theirs) = (&shop.images[0], &there.images[0]);
        assert_eq!(
            (&ours.digest, &ours.closure, &ours.platforms),
            (&theirs.digest, &theirs.closure, &theirs.platforms)
        );
        assert_eq!((ours.resolved, theirs.public), (theirs.resolved, None), "an archive proves nothing");
        assert_eq!(other.1.leases().unwrap().len() + store.leases().unwrap().len(), 0);

        let again = read(&other.1, &path, Some("again"), None).unwrap();
        assert_eq!((again.cache.as_str(), again.added), ("local-again", 0));
        let back = other.0.path().join("back.tar");
        export(&other.1, &key("local-shop"), &back, &|_, _| ()).unwrap();
        if name == "shop.tar" {
            assert_eq!(fs::read(&back).unwrap(), fs::read(&path).unwrap(), "the same cache is the same file");
        }
    }
}

#[test]
fn long_digests_overrides_and_times_to_come_are_carried_as_they_should_be() {
    let (dir, store) = new_store();
    let mut shop = shop(&store);
    // Its manifest does not name the long layer, so its archive is written by hand below.
    shop.images[1].closure.pop();
    shop.images[0].resolved = now() + jiff::SignedDuration::from_hours(1);
    store.link_root(&shop).unwrap();
    write(&store, &dir.path().join("shop.tar")).unwrap();
    let (_other, other) = new_store();
    let imported = read(&other, &dir.path().join("shop.tar"), None, None).unwrap();
    let images = other.latest_root(&imported.cache).unwrap().unwrap().root.images;
    assert_eq!((images[0].resolved, images[0].overridden), (now(), false), "not later than now");
    assert_eq!((images[1].resolved, images[1].overridden), (shop.images[1].resolved, true));

    let (_dir, long) = new_store();
    let shop = self::shop(&long);
    long.link_root(&shop).unwrap();
    write(&long, &dir.path().join("long.tar")).unwrap();
    let listing = Command::new("tar").arg("-tf").arg(dir.path().join("long.tar")).output().unwrap();
    let listing = String::from_utf8(listing.stdout).unwrap();
    let digest = &shop.images[1].closure[3].digest;
    assert!(listing.contains(&format!("blobs/sha512/{}\n", digest.hex())), "{listing}");
}

#[test]
fn an_export_that_did_not_end_is_finished_and_never_trusted() {
    let (dir, store) = new_store();
    let shop = shop(&store);
    store.link_root(&shop).unwrap();
    let path = dir.path().join("out");
    write(&store, &path).unwrap();
    let error = write(&store, &path).unwrap_err();
    assert!(error.to_string().contains("holds an OCI layout already"), "{error}");

    fs::remove_file(path.join("index.json")).unwrap();
    let (kept, broken) = (&shop.images[0].closure[0].digest, &shop.images[0].closure[1].digest);
    let blob = |digest: &Digest| path.join("blobs/sha256").join(digest.hex());
    let before = fs::metadata(blob(kept)).unwrap().modified().unwrap();
    fs::write(blob(broken), "wrong").unwrap();
    write(&store, &path).unwrap();
    assert_eq!(fs::metadata(blob(kept)).unwrap().modified().unwrap(), before, "not copied again");
    assert_eq!(Digest::sha256(&fs::read(blob(broken)).unwrap()), *broken);
}

#[test]
fn what_is_broken_in_the_store_is_not_exported() {
    let (dir, store) = new_store();
    let shop = shop(&store);
    store.link_root(&shop).unwrap();
    let digest = &shop.images[0].closure[1].digest;
    let path = blob_path(&store, digest);
    let right = fs::read(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, vec![b'x'; right.len()]).unwrap();
    for (name, class) in [("x.tar", Class::BadContent), ("x", Class::BadContent)] {
        let failure = write(&store, &dir.path().join(name)).unwrap_err();
        assert_eq!(failure.class, class);
        assert!(failure.to_string().contains("verify --repair"), "{failure}");
    }
    fs::remove_file(&path).unwrap();
    let failure = write(&store, &dir.path().join("x.tar")).unwrap_err();
    assert!(failure.to_string().contains("is missing in the store"), "{failure}");
    let mut left: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["store", "x"], "no archive, not even a temporary one");
    assert!(!dir.path().join("x/index.json").exists());
    assert!(store.leases().unwrap().is_empty());
}

#[test]
fn an_export_goes_on_while_its_cache_is_removed_and_collected() {
    let (dir, store) = new_store();
    store.link_root(&small(&store)).unwrap();
    let all = Settings { grace: Duration::ZERO, trash: Duration::ZERO, ..Settings::default() };
    let path = dir.path().join("shop.tar");
    export(&store, &key("local-shop"), &path, &|_, _| {
        store.remove_cache(&key("local-shop")).unwrap();
        (0..2).for_each(|_| assert_eq!(collect(&store, None, &all, false).unwrap().taken_out.blobs, 0));
    })
    .unwrap();
    (0..2).for_each(|_| drop(collect(&store, None, &all, false).unwrap()));
    assert_eq!(store.blobs_there().unwrap().len(), 0);
    assert_eq!(read(&store, &path, None, None).unwrap().run, 4, "above the run that was removed");
}

/// A tar archive of these files.
fn archive(path: &Path, files: &[(&str, &[u8])]) {
    let mut builder = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.finish().unwrap();
}

#[test]
fn bad_archives_are_refused_with_a_reason_and_leave_nothing() {
    let (dir, store) = new_store();
    let shop = small(&store);
    store.link_root(&shop).unwrap();
    let folder = dir.path().join("good");
    write(&store, &folder).unwrap();
    let good = |name: &str| fs::read(folder.join(name)).unwrap();
    let (layout, index) = (good("oci-layout"), good("index.json"));
    let blobs: Vec<(String, Vec<u8>)> = shop.images[0]
        .closure
        .iter()
        .map(|entry| format!("blobs/sha256/{}", entry.digest.hex()))
        .map(|name| (name.clone(), good(&name)))
        .collect();
    let base: Vec<(&str, &[u8])> = vec![("oci-layout", &layout), ("index.json", &index)];
    let with = |blobs: &[(String, Vec<u8>)]| -> PathBuf {
        let path = dir.path().join("made.tar");
        let files = blobs.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        archive(&path, &base.iter().copied().chain(files).collect::<Vec<_>>());
        path
    };
    let (_other, other) = new_store();
    let refused = |path: &Path, class: Class, part: &str| {
        let failure = read(&other, path, None, None).unwrap_err();
        assert!(failure.class == class && failure.to_string().contains(part), "{part}: {failure}");
        for folder in ["roots", "leases", "ingest"] {
            assert_eq!(fs::read_dir(other.path().join(folder)).unwrap().count(), 0, "{folder}");
        }
    };
    let changed = |at: usize| {
        let mut blobs = blobs.clone();
        blobs[at].1[0] ^= 1;
        with(&blobs)
    };
    refused(&changed(0), Class::BadContent, "are not what it names");
    refused(&changed(2), Class::BadContent, "its bytes have the digest");
    put(&other, &[0; 1024]);
    refused(&changed(2), Class::BadContent, "are not what it names");
    refused(&with(&blobs[..2]), Class::BadContent, "has not all of any of its platforms");
    let cut = with(&blobs);
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() - 2048]).unwrap();
    refused(&cut, Class::BadContent, "");
    let other_path = dir.path().join("other.tar");
    archive(&other_path, &[("manifest.json", b"[]")]);
    refused(&other_path, Class::BadContent, "skopeo copy docker-archive:");
    fs::write(&other_path, [0x1f, 0x8b, 8, 0]).unwrap();
    refused(&other_path, Class::BadContent, "gunzip it first");
    fs::write(&other_path, vec![b'x'; 4096]).unwrap();
    refused(&other_path, Class::BadContent, "not a tar archive");
    refused(&dir.path().join("absent.tar"), Class::NotFound, "cannot open");
    let text = String::from_utf8(index.clone()).unwrap();
    for (from, to, class, part) in [
        (NGINX, "1", Class::InvalidSpec, "has no name in it: give one with --image"),
        ("\"sha256:", "\"md5:", Class::BadContent, "index.json is not one"),
        (shop.images[0].digest.hex(), &"0".repeat(64), Class::BadContent, "has not all"),
    ] {
        archive(&other_path, &[("oci-layout", &layout), ("index.json", text.replace(from, to).as_bytes())]);
        if class == Class::InvalidSpec {
            let files: Vec<(&str, Vec<u8>)> = blobs.iter().map(|(n, b)| (n.as_str(), b.clone())).collect();
            let index = text.replace(from, to);
            let all: Vec<(&str, &[u8])> =
                [("oci-layout", layout.as_slice()), ("index.json", index.as_bytes())]
                    .into_iter()
                    .chain(files.iter().map(|(n, b)| (*n, b.as_slice())))
                    .collect();
            archive(&other_path, &all);
        }
        refused(&other_path, class, part);
    }
    read(&other, &with(&blobs), None, None).unwrap();
}

#[test]
fn of_an_index_the_platforms_that_are_whole_are_taken() {
    let (dir, store) = new_store();
    let shop = small(&store);
    let manifest = &shop.images[0].closure[0];
    let child = |digest: &Digest, size: u64, arch: &str| {
        serde_json::json!({"mediaType": stores::MANIFEST, "digest": digest, "size": size,
            "platform": {"os": "linux", "architecture": arch}})
    };
    let absent = Digest::sha256(b"the other platform");
    let index =
        serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [child(&manifest.digest, manifest.size, "amd64"), child(&absent, 7, "arm64")]})
        .to_string();
    let digest = put(&store, index.as_bytes());
    let mut whole = shop.clone();
    whole.images[0].digest = digest.clone();
    whole.images[0].media_type = "application/vnd.oci.image.index.v1+json".into();
    let media_type = whole.images[0].media_type.clone();
    whole.images[0]
        .closure
        .insert(0, Entry { digest, size: index.len() as u64, kind: EntryKind::Index, media_type });
    store.link_root(&whole).unwrap();
    write(&store, &dir.path().join("shop.tar")).unwrap();
    let (_other, other) = new_store();
    read(&other, &dir.path().join("shop.tar"), None, None).unwrap();
    let there = other.latest_root(&key("local-shop")).unwrap().unwrap().root.images.remove(0);
    assert_eq!(
        (there.closure, there.platforms),
        (whole.images[0].closure.clone(), whole.images[0].platforms.clone())
    );
}

fn run(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {args:?}: {out}{err}");
    Some(out.into_owned())
}

fn skipped(tool: &str) {
    eprintln!("not tested: there is no {tool} here");
}

/// An archive of a cache whose images every tool may run here.
fn exported(dir: &Path, store: &Store) -> (String, Root) {
    let mut shop = shop(store);
    shop.images[1].closure.pop();
    store.link_root(&shop).unwrap();
    let path = dir.join("shop.tar");
    write(store, &path).unwrap();
    write(store, &dir.join("layout")).unwrap();
    (path.to_str().unwrap().to_owned(), shop)
}

#[test]
fn skopeo_reads_what_is_exported_and_what_it_writes_is_imported() {
    let (dir, store) = new_store();
    let (tar, shop) = exported(dir.path(), &store);
    let layout = dir.path().join("layout").display().to_string();
    for image in &shop.images {
        for source in [format!("oci-archive:{tar}"), format!("oci:{layout}")] {
            let source = format!("{source}:{}", image.reference);
            let Some(raw) = run("skopeo", &["inspect", "--raw", &source]) else { return skipped("skopeo") };
            assert_eq!(Digest::sha256(raw.as_bytes()), image.digest);
        }
    }
    let theirs = dir.path().join("theirs.tar").display().to_string();
    let source = format!("docker-archive:{tar}:{NGINX}");
    run("skopeo", &["--insecure-policy", "inspect", "--config", &source]);
    for (name, image) in [(":nginx:9", None), ("", Some("nginx:9")), (":9", Some("nginx:9"))] {
        let _ = fs::remove_file(&theirs);
        let source = format!("oci-archive:{tar}:{NGINX}");
        run(
            "skopeo",
            &[
                "--insecure-policy",
                "copy",
                "--preserve-digests",
                &source,
                &format!("oci-archive:{theirs}{name}"),
            ],
        );
        let (_other, other) = new_store();
        let imported = read(&other, Path::new(&theirs), None, image).unwrap();
        assert_eq!(imported.cache.as_str(), "local-theirs");
        let image = &imported.images[0];
        assert_eq!(
            (image.reference.to_string().as_str(), &image.digest),
            ("docker.io/library/nginx:9", &shop.images[0].digest)
        );
    }
}

/// Wherever it is: it is no package of Debian's.
fn crane() -> String {
    std::env::var("CRANE").unwrap_or_else(|_| "crane".into())
}

#[test]
fn crane_reads_what_is_exported() {
    let (dir, store) = new_store();
    let shop = small(&store);
    store.link_root(&shop).unwrap();
    let (tar, layout) = (dir.path().join("shop.tar"), dir.path().join("layout"));
    write(&store, &tar).unwrap();
    write(&store, &layout).unwrap();
    let serve = Command::new(crane())
        .args(["registry", "serve", "--address", "127.0.0.1:0"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut registry) = serve else { return skipped("crane") };
    let mut said = String::new();
    // Kept open: it goes on talking.
    let mut log = BufReader::new(registry.stderr.take().unwrap());
    log.read_line(&mut said).unwrap();
    let port = said.trim().rsplit(|c: char| !c.is_ascii_digit()).next().unwrap().to_owned();
    let _registry = Running(registry);
    let target = format!("127.0.0.1:{port}/nginx:1");
    run(&crane(), &["push", layout.to_str().unwrap(), &target]);
    let digest = run(&crane(), &["digest", &target]).unwrap();
    assert_eq!(digest.trim(), shop.images[0].digest.to_string());
    run(&crane(), &["validate", "--tarball", tar.to_str().unwrap()]);
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Daemon {
    _running: Running,
    _dir: tempfile::TempDir,
    socket: String,
}

/// A containerd of our own; nothing where there is none, or no right to run it.
fn containerd() -> Option<Daemon> {
    if !rustix::process::geteuid().is_root() || Command::new("ctr").arg("--version").output().is_err() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let config = format!(
        "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \
         \"io.containerd.internal.v1.opt\", \"io.containerd.nri.v1.nri\"]\n[grpc]\n  address = {:?}\n",
        path("root"),
        path("state"),
        path("s.sock")
    );
    fs::File::create(path("config.toml")).unwrap().write_all(config.as_bytes()).unwrap();
    let mut daemon = Command::new("containerd");
    daemon
        .args(["--config", &path("config.toml"), "--log-level", "error"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = daemon.spawn().ok()?;
    let daemon = Daemon { _running: Running(child), socket: path("s.sock"), _dir: dir };
    let end = Instant::now() + Duration::from_mins(1);
    while !Command::new("ctr").args(["-a", &daemon.socket, "version"]).output().unwrap().status.success() {
        assert!(Instant::now() < end, "containerd does not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    Some(daemon)
}

#[test]
fn containerd_reads_what_is_exported_and_what_it_writes_is_imported() {
    let (dir, store) = new_store();
    let (tar, shop) = exported(dir.path(), &store);
    let Some(daemon) = containerd() else { return skipped("containerd") };
    let ctr = |args: &[&str]| run("ctr", &[&["-a", &daemon.socket], args].concat()).unwrap();
    ctr(&["images", "import", "--no-unpack", "--all-platforms", &tar]);
    let list = ctr(&["images", "list"]);
    for image in &shop.images {
        let line = list.lines().find(|line| line.starts_with(&format!("{} ", image.reference)));
        assert!(line.is_some_and(|line| line.contains(&image.digest.to_string())), "{list}");
    }
    let theirs = dir.path().join("theirs.tar").display().to_string();
    ctr(&["images", "export", "--all-platforms", &theirs, NGINX, APP]);
    let (_other, other) = new_store();
    let imported = read(&other, Path::new(&theirs), Some("back"), None).unwrap();
    let digests: Vec<&Digest> = imported.images.iter().map(|image| &image.digest).collect();
    assert_eq!(digests.len(), 2);
    assert!(shop.images.iter().all(|image| digests.contains(&&image.digest)), "{imported:?}");
}

#[test]
fn the_commands_say_what_they_did() {
    let (dir, store) = new_store();
    store.link_root(&small(&store)).unwrap();
    let (from, to) = (store.path().to_str().unwrap(), dir.path().join("new").display().to_string());
    let tar = dir.path().join("shop.tar").display().to_string();
    let command = |args: &[&str]| run(env!("CARGO_BIN_EXE_imagecache"), args).unwrap();
    let said = command(&["export", from, "--cache", "shop", "--to", &tar]);
    assert!(said.contains("1 image of local-shop, run 3"), "{said}");
    let said = command(&["import", &to, &tar]);
    assert!(said.contains(NGINX) && said.contains("local-shop: ") && said.contains("new"), "{said}");
    let json: serde_json::Value =
        serde_json::from_str(&command(&["import", &to, &tar, "-o", "json"])).unwrap();
    assert_eq!((&json["run"], &json["added"]), (&2.into(), &0.into()));
    assert!(command(&["verify", &to]).contains("every byte is right"));
}
