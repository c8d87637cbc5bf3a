//! Every input that the fuzz targets know, replayed: what was found once is not found again, and on any compiler.
#![allow(clippy::unwrap_used, clippy::format_push_string)]

mod invariants;

use std::{fs, path::Path};

use proptest::prelude::*;

#[test]
fn no_input_of_the_corpus_breaks_what_its_parser_promises() {
    for (name, check) in invariants::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut inputs = 0;
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            check(&fs::read(entry.unwrap().path()).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "{} is empty", folder.display());
    }
}

#[test]
fn every_target_has_its_program() {
    for (name, _) in invariants::TARGETS {
        let program = format!("fuzz/fuzz_targets/{name}.rs");
        assert!(Path::new(&program).exists(), "{program}");
    }
}

/// Bytes of a seed, some of them changed.
fn changed(seed: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), any::<u8>());
    prop::collection::vec(change, 0..6).prop_map(move |changes| {
        let mut bytes = seed.to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #[test]
    fn nearly_right_input_breaks_nothing_either(
        reference in changed(b"r.example.com:5000/team/app-1:v1.0@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        challenge in changed(br#"Bearer realm="https://a.b/t\"x",service="s, t",scope="a:b:pull  c:d:pull", Basic realm="x""#),
        config in changed(br#"{"auths":{"https://r.io/v1/":{"auth":"dTpwOnE="},"*.io":{"username":"a","password":"b"}}}"#),
    ) {
        invariants::reference(&reference);
        invariants::challenge(&challenge);
        invariants::docker_config(&config);
    }
}
