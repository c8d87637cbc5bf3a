//! The whole process under a clock that jumps, by libfaketime: `make test-clock`. It replaces calls of the C library, so
//! the controller has to be linked dynamically for this; the static one asks the kernel by itself.
//! `IMAGECACHE_DYNAMIC` is that binary. Without it nothing is done here.

use std::{env, fs, path::Path};

use serde_json::json;

use crate::{
    kit::{cluster::eventually, kstatus::Status},
    life::{Audit, apply, ready, wait},
    settings::world,
};

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

#[test]
fn a_controller_whose_clock_jumps_deletes_nothing_and_what_really_expired_goes() {
    let Some(binary) = env::var_os("IMAGECACHE_DYNAMIC") else { return };
    assert!(Path::new(LIBRARY).exists(), "apt-get install faketime");
    let mut world = world();
    let clock = world.cluster.dir.join("faketime");
    let jump = |to: &str| {
        // Read at every call, so never half.
        fs::write(clock.with_extension("new"), to).unwrap();
        fs::rename(clock.with_extension("new"), &clock).unwrap();
    };
    jump("+0");
    world.stop_controller();
    world.start_controller_with(Path::new(&binary), |command| {
        command.env("LD_PRELOAD", LIBRARY);
        command.env("FAKETIME_TIMESTAMP_FILE", &clock);
        command.env("FAKETIME_NO_CACHE", "1");
        // Timers are the kernel's: its monotonic clock has to be the process's too.
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    });
    let cluster = &world.cluster;
    let images = ["docker.io/library/nginx:1"];
    let uid = apply(cluster, "clocked", &json!({"images": images, "retentionDays": 30}));
    let before = ready(cluster, "clocked", &uid, &images);

    let mut audit = Audit::from_now(cluster);
    jump("+40d");
    // An edit of something else, so that it is looked at; it asks the server's clock.
    cluster.run(&["annotate", "imagecache", "clocked", "example.com/note=1"]);
    eventually("the controller to ask the API server's clock", || {
        audit
            .entries()
            .iter()
            .any(|(resource, verb, kubectl)| resource == "imagecaches" && verb == "get" && !kubectl)
            .then_some(())
    });
    for note in 2..5 {
        cluster.run(&[
            "annotate",
            "--overwrite",
            "imagecache",
            "clocked",
            &format!("example.com/note={note}"),
        ]);
        let status = wait(cluster, "clocked", "still there", |status| status.phase() == "Ready");
        assert_eq!(status.text("/expireDateTime"), before.text("/expireDateTime"));
        assert_eq!(status.uid(), uid);
    }
    let log = fs::read_to_string(cluster.dir.join("controller.log")).unwrap();
    assert!(!log.contains("ImageCache deleted"), "{log}");

    // Once it really is over, by the right clock.
    jump("+0");
    let past = json!({"status": {"ledger": {"readyAt": "2020-01-01T00:00:00Z"}}}).to_string();
    cluster.run(&["patch", "imagecache", "clocked", "--subresource=status", "--type=merge", "-p", &past]);
    eventually("its end", || cluster.get(&["imagecache", "clocked"]).is_none().then_some(()));
    let gone = |uid: &str| {
        cluster.get(&["imagecache", "clocked"]).is_none_or(|object| Status::of(&object).unwrap().uid() != uid)
    };
    assert!(gone(&uid));
    world.stop_controller();
    world.start_controller();
}
