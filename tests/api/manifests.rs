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
    for folder in ["tests/fixtures/seeds", "examples"] {
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
