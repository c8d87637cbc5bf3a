//! Folder = boundary. Which folder may use which, and words that have no place in it, from one table: the map of
//! `src/lib.rs` as a test. Comments and unit tests may speak freely.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

const MAX_LINES: usize = 500;

struct Rule {
    folder: &'static str,
    /// Folders of ours it may use besides itself.
    uses: &'static [&'static str],
    /// Words its code must not hold.
    never: &'static [&'static str],
}

const CLUSTER: &[&str] = &["kube::Client", "kube::Api", "kube::client", "kube::runtime", "kube_runtime"];
const EFFECTS: &[&str] = &[
    "std::fs",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    "std::process",
    "std::thread",
    "std::env::var",
    "std::env::args",
    "SystemTime",
    "Instant",
    "Timestamp::now",
    "tokio",
    "tracing::",
    "rand::",
    "async fn",
];

const RULES: &[Rule] = &[
    Rule { folder: "api", uses: &[], never: EFFECTS },
    Rule { folder: "model", uses: &["api"], never: EFFECTS },
    Rule { folder: "convert", uses: &["model", "api"], never: EFFECTS },
    Rule { folder: "render", uses: &["model", "api"], never: EFFECTS },
    Rule {
        folder: "cluster",
        uses: &["acr", "render", "model", "api", "ops"],
        never: &["axum", "Timestamp::now"],
    },
    Rule {
        folder: "controller",
        uses: &["cluster", "acr", "render", "model", "api", "ops"],
        never: &["Timestamp::now"],
    },
    Rule { folder: "registry", uses: &["model", "ops"], never: &["kube", "Timestamp::now"] },
    Rule { folder: "acr", uses: &["registry", "model", "ops"], never: &["kube", "axum", "Timestamp::now"] },
    Rule { folder: "store", uses: &["model", "ops"], never: &["kube", "hyper", "Timestamp::now"] },
    Rule {
        folder: "pull",
        uses: &["registry", "store", "model", "ops"],
        never: &["kube", "axum", "Timestamp::now"],
    },
    Rule {
        folder: "export",
        uses: &["registry", "store", "model"],
        never: &["kube", "axum", "tokio", "Timestamp::now"],
    },
    Rule { folder: "gc", uses: &["store", "model"], never: &["kube", "axum", "tokio", "Timestamp::now"] },
    Rule { folder: "mirror", uses: &["store", "model", "ops"], never: &["kube", "Timestamp::now"] },
    Rule {
        folder: "local",
        uses: &[
            "acr", "api", "convert", "render", "pull", "gc", "export", "mirror", "registry", "store",
            "model", "ops",
        ],
        never: &["Timestamp::now"],
    },
    Rule { folder: "ops", uses: &[], never: &[] },
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.push(path);
        }
    }
    files
}

/// The code without comments and without what follows the first `#[cfg(test)]`; `use` lists on one line.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The modules of this crate that a piece of code names: `crate::x`, `crate::{x, y::Z}`.
fn named(code: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    let mut names = vec![];
    for rest in code.split("crate::").skip(1) {
        let Some(list) = rest.strip_prefix('{') else {
            names.push(word(rest));
            continue;
        };
        let (mut depth, mut item) = (0, String::new());
        for c in list.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => names.push(word(std::mem::take(&mut item).trim())),
                c if depth == 0 => item.push(c),
                _ => {}
            }
        }
        names.push(word(item.trim()));
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn no_folder_uses_one_above_it() {
    let mut wrong = vec![];
    for rule in RULES {
        for file in sources(&root().join("src").join(rule.folder)) {
            for name in named(&code(&fs::read_to_string(&file).unwrap())) {
                let ours = RULES.iter().any(|other| other.folder == name);
                if ours && name != rule.folder && !rule.uses.contains(&name.as_str()) {
                    wrong.push(format!("{}: uses {name}", file.display()));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn no_folder_does_what_is_not_its_job() {
    let mut wrong = vec![];
    for rule in RULES {
        let pure = rule.never == EFFECTS;
        for file in sources(&root().join("src").join(rule.folder)) {
            let code = code(&fs::read_to_string(&file).unwrap());
            let more = if pure { CLUSTER } else { &[] };
            for word in rule.never.iter().chain(more).filter(|word| holds(&code, word)) {
                wrong.push(format!("{}: {word}", file.display()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// A whole word, so that `kube` is not found in `kubelet`.
fn holds(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back().is_some_and(part);
        let after = code[at + word.len()..].chars().next().is_some_and(part);
        !before && (word.ends_with(':') || !after)
    })
}

#[test]
fn every_folder_has_its_rule() {
    let mut folders: Vec<String> = fs::read_dir(root().join("src"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    folders.retain(|folder| !RULES.iter().any(|rule| rule.folder == folder));
    assert_eq!(folders, Vec::<String>::new());
}

#[test]
fn files_stay_small_enough_to_read() {
    let files = ["src", "tests"].into_iter().flat_map(|folder| sources(&root().join(folder)));
    let long: Vec<String> = files
        .map(|file| (fs::read_to_string(&file).unwrap().lines().count(), file))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, file)| format!("{}: {lines} lines", file.display()))
        .collect();
    assert_eq!(long, Vec::<String>::new());
}

#[test]
fn the_reader_of_imports_reads_them() {
    let text = "use crate::{api::{A, keys}, model::x}; // crate::render\nlet y = crate::store::open();";
    assert_eq!(named(&code(text)), ["api", "model", "store"]);
    assert!(holds("use kube::Client;", "kube") && !holds("the kubelet", "kube"));
}
