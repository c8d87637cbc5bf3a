//! The benches work, on a corpus so small that it says nothing about speed, and what they count holds.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

fn is_there(program: &str, word: &str) -> bool {
    Command::new(program).arg(word).output().is_ok()
}

/// Runs one bench and returns its report. The programs of `bench/*.rs` are there when `cargo test` built everything.
fn bench(work: &Path, name: &str, more: &[&str]) -> Value {
    let mut command = Command::new("bench/run.py");
    command
        .args([name, "--corpus", "tiny", "--rounds", "1", "--no-peers", "--memory", "", "--work"])
        .arg(work);
    command.args(["--ours", env!("CARGO_BIN_EXE_imagecache")]).args(more);
    if let Some(parts) = parts() {
        command.arg("--parts").arg(parts);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&fs::read(work.join(format!("{name}.json"))).unwrap()).unwrap()
}

fn parts() -> Option<PathBuf> {
    let parts = Path::new(env!("CARGO_BIN_EXE_imagecache")).with_file_name("examples").join("parts");
    parts.exists().then_some(parts)
}

/// The verdict on every goal whose name begins so.
fn verdicts<'a>(report: &'a Value, begin: &str) -> Vec<&'a Value> {
    let goals = report["goals"].as_array().unwrap().iter();
    goals.filter(|goal| goal["name"].as_str().unwrap().starts_with(begin)).map(|goal| &goal["met"]).collect()
}

#[test]
fn every_bench_runs_and_its_counts_of_requests_and_memory_hold() {
    if !is_there("docker-registry", "--version") || !is_there("python3", "--version") {
        eprintln!("left out: docker-registry or python3 is not there");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path();

    let pull = bench(work, "pull", &["--only", "tls"]);
    assert_eq!(pull["rows"][0]["case"], "tls", "{pull}");
    assert_eq!(pull["limits"]["tls"].is_object(), parts().is_some(), "{pull}");
    assert_eq!(verdicts(&pull, "tls: peak RSS"), [true], "{pull}");

    let noop = bench(work, "noop", &[]);
    assert_eq!(verdicts(&noop, "same request: requests"), [true], "{noop}");
    assert_eq!(verdicts(&noop, "tags again: HEADs per image"), [true], "{noop}");
    assert_eq!(verdicts(&noop, "tags again: requests that are not HEADs"), [true], "{noop}");

    let overlap = bench(work, "overlap", &["--only", "near"]);
    assert_eq!(overlap["rows"].as_array().unwrap().len(), 1, "{overlap}");

    let rss = bench(work, "rss", &["--layer-mib", "32"]);
    assert_eq!(verdicts(&rss, "0.03125 GiB layer"), [true, true], "{rss}");

    if parts().is_some() {
        let verify = bench(work, "verify", &[]);
        assert_eq!(verify["rows"].as_array().unwrap().len(), 2, "{verify}");
    }
    let left: Vec<String> =
        fs::read_dir(work).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let kept = |name: &String| {
        name == "log" || name == "corpus-tiny" || Path::new(name).extension().is_some_and(|end| end == "json")
    };
    assert!(left.iter().all(kept), "left behind: {left:?}");
}
