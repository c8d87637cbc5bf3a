//! What images share is fetched once: within one cache, and from another one where that is allowed. The registry's
//! log, the status and `imagecache ls` agree.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

use crate::{
    kit::cluster::command,
    world::{
        image::{Blob, Image},
        plain_cache,
        registry::{Kind, Registry},
        world,
    },
};

/// `imagecache ls` of the store, on the machine.
fn ls() -> Value {
    let program = env!("CARGO_BIN_EXE_imagecache");
    let answer = command(Command::new(program).arg("ls").arg(world().store()).args(["-o", "json"]));
    serde_json::from_str(&answer.succeeded("imagecache ls")).unwrap()
}

#[test]
fn twenty_images_that_share_layers_are_fetched_blob_by_blob() {
    let world = world();
    let _shared = world.shared();
    let registry = Registry::start("twenty.test");
    let base = Blob::named("twenty-base", 2 << 20);
    let pair = |i: usize| Blob::named(&format!("twenty-pair-{}", i / 2), 200_000);
    let own = |i: usize| Blob::named(&format!("twenty-own-{i}"), 100_000);
    let images: Vec<Image> = (0..20).map(|i| Image::of(vec![base.clone(), pair(i), own(i)])).collect();
    let mut names = Vec::new();
    for (i, image) in images.iter().enumerate() {
        let repository = format!("twenty/app-{i}");
        world.storage.put(&repository, "1", image);
        names.push(registry.image(&repository, "1"));
    }
    world.apply(&plain_cache("twenty", &names));
    let ready = world.wait_ready("twenty");

    for image in &images {
        for blob in image.layers.iter().chain([&image.config]) {
            assert_eq!(
                registry.fetches(&blob.digest),
                [(200, blob.size().unsigned_abs())],
                "{}",
                blob.digest
            );
        }
    }
    let all: Vec<&Blob> = images.iter().flat_map(Image::blobs).collect();
    let each_once: BTreeSet<(&str, i64)> =
        all.iter().map(|blob| (blob.digest.as_str(), blob.size())).collect();
    let once: i64 = each_once.iter().map(|(_, size)| size).sum();
    let sum = |field: &str| -> i64 {
        ready.list("images").iter().map(|image| image[field].as_i64().unwrap()).sum()
    };
    assert_eq!(ready.number("/size"), once);
    assert_eq!(sum("size"), images.iter().map(Image::size).sum::<i64>());
    assert_eq!(sum("pulled"), once);
    assert_eq!(sum("pulled") + sum("reused"), sum("size"));
    for (image, told) in images.iter().zip(ready.list("images")) {
        assert_eq!(told["digest"], image.manifest.digest.as_str());
    }
    let listed = ls();
    let listed = listed["caches"].as_array().unwrap().iter().find(|cache| cache["cache"] == ready.uid());
    let listed = listed.expect("the cache in ls");
    assert_eq!(listed["size"].as_i64(), Some(once), "{listed}");
}

#[test]
fn a_second_cache_reuses_the_layers_of_a_public_image() {
    let world = world();
    let _shared = world.shared();
    let registry = Registry::start_at("public.test", 5000, Kind::default());
    let base = Blob::named("public-base", 2 << 20);
    for i in ["1", "2"] {
        let own = Blob::named(&format!("public-{i}"), 100_000);
        world.storage.put(&format!("public/app-{i}"), "1", &Image::of(vec![base.clone(), own]));
    }
    world.apply(&plain_cache("public-1", &[registry.image("public/app-1", "1")]));
    world.wait_ready("public-1");
    world.apply(&plain_cache("public-2", &[registry.image("public/app-2", "1")]));
    let second = world.wait_ready("public-2");
    assert_eq!(registry.fetches(&base.digest).len(), 1);
    assert_eq!(second.number("/images/0/reused"), base.size());
}
