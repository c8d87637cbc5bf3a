//! The commands for people, on real stores.
#![allow(clippy::unwrap_used)]

mod stores;

use std::{fs, os::unix::fs::PermissionsExt, sync::Mutex};

use imagecache::{
    local::{
        ls::ls,
        verify::{Problem, Progress, verify},
    },
    model::{class::Class, digest::Digest},
};
use stores::{blob_path, new_store, root};

#[test]
fn ls_shows_what_two_caches_share() {
    let (_dir, store) = new_store();
    let one = root(&store, "local-one", 1, "nginx:1", "one");
    let two = root(&store, "local-two", 1, "redis:7", "two");
    store.link_root(&one).unwrap();
    store.link_root(&two).unwrap();
    let listing = ls(store.path()).unwrap();
    println!("{}\n{}", listing.to_table(), listing.to_json());
    assert_eq!(listing.caches[0].shared, 1024, "the layer");
    assert_eq!(listing.caches[0].freed_if_deleted, one.size() - 1024);
    assert_eq!(listing.size, one.size() + two.size() - 1024);
    assert!(listing.free > 0);

    fs::remove_file(blob_path(&store, &one.images[0].closure[1].digest)).unwrap();
    assert!(ls(store.path()).unwrap().to_table().contains("1 blob missing"));
}

#[test]
fn ls_of_an_empty_store_says_so_and_of_another_folder_refuses() {
    let (dir, store) = new_store();
    assert!(ls(store.path()).unwrap().to_table().starts_with("0 caches, 0 images, 0 B in 0 blobs; "));
    assert!(ls(dir.path()).unwrap_err().to_string().contains("not an imagecache store"));
}

#[test]
fn verify_finds_every_bad_byte_and_whom_it_hurts_and_changes_nothing() {
    let (_dir, store) = new_store();
    let one = root(&store, "local-one", 1, "nginx:1", "one");
    store.link_root(&one).unwrap();
    store.link_root(&root(&store, "local-two", 1, "redis:7", "two")).unwrap();
    let steps: Mutex<Vec<Progress>> = Mutex::default();
    let fine = verify(store.path(), &|progress| steps.lock().unwrap().push(progress)).unwrap();
    assert_eq!((fine.class(), fine.blobs), (None, 5));
    assert!(fine.to_text().starts_with("every byte is right: 5 blobs, "), "{}", fine.to_text());
    assert_eq!(steps.lock().unwrap().iter().map(|step| step.done).max(), Some(fine.bytes));

    let (config, layer) = (&one.images[0].closure[1].digest, &one.images[0].closure[2].digest);
    fs::remove_file(blob_path(&store, config)).unwrap();
    let path = blob_path(&store, layer);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, vec![1; 1024]).unwrap();
    fs::write(store.path().join("roots/local-two/2.json"), "{").unwrap();

    let found = verify(store.path(), &|_| ()).unwrap();
    println!("{}\n{}", found.to_text(), found.to_json());
    assert_eq!(found.class(), Some(Class::BadContent));
    let problem = |digest: &Digest| found.bad.iter().find(|blob| blob.digest == *digest).unwrap();
    assert_eq!(problem(config).problem, Problem::Missing);
    assert_eq!((problem(layer).problem, problem(layer).repaired), (Problem::WrongBytes, false));
    let hurt: Vec<&str> = problem(layer).used_by.iter().map(|user| user.name.as_str()).collect();
    assert_eq!(hurt, ["local-one", "local-two"]);
    assert_eq!((found.bad.len(), found.broken.len()), (2, 1));
    assert!(path.exists() && found.to_text().contains("verify --repair"));
}
