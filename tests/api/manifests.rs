//! Manifests as users have them: the clouds' documented ones and our examples are accepted unchanged.

use std::{fs, path::PathBuf};

use crate::{kit::cluster::root, world::world};

fn manifests(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    files.sort();
    files
}

#[test]
fn documented_manifests_and_examples_are_accepted_unchanged() {
    let mut seen = 0;
    for folder in ["tests/fixtures/seeds", "tests/seeds", "examples"] {
        for file in manifests(folder) {
            let text = fs::read_to_string(&file).unwrap();
            if !text.contains("kind: ImageCache") {
                continue;
            }
            let create = ["create", "--dry-run=server", "--validate=strict"];
            let answer = world().cluster.send_text(&text, &create);
            assert!(answer.ok && answer.err.is_empty(), "{}: {}", file.display(), answer.err);
            seen += 1;
        }
    }
    assert!(seen >= 2, "{seen} manifests");
}

#[test]
fn converted_manifests_of_other_clouds_are_accepted() {
    let converted = |path: &PathBuf| path.to_string_lossy().ends_with(".out.yaml");
    let files: Vec<PathBuf> = manifests("tests/fixtures/convert").into_iter().filter(converted).collect();
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let answer = world().cluster.send_text(&text, &["create", "--dry-run=server", "--validate=strict"]);
        assert!(answer.ok && answer.err.is_empty(), "{}: {}", file.display(), answer.err);
    }
}

#[test]
fn the_network_policies_can_be_added_to_the_install() {
    let folder = root().join("config/network-policy");
    let answer = world().cluster.kubectl(&[
        "apply",
        "--dry-run=server",
        "--validate=strict",
        "-k",
        folder.to_str().unwrap(),
    ]);
    assert!(answer.ok && answer.err.is_empty(), "{}", answer.err);
    assert_eq!(
        answer.out.lines().filter(|line| line.starts_with("networkpolicy")).count(),
        5,
        "{}",
        answer.out
    );
}
