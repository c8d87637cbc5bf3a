//! Which cache a person means.

use crate::{
    model::{class::Class, failure::Failure, request::CacheKey},
    store::ListedRoot,
};

/// A key as it is, with or without `local-`; else the cache of that name, one made by hand before a cluster's.
pub(super) fn by_name(name: &str, roots: &[ListedRoot]) -> Result<CacheKey, Failure> {
    let is_key =
        |root: &&ListedRoot| root.cache.as_str() == name || root.cache.as_str() == format!("local-{name}");
    let is_name = |root: &&ListedRoot| root.root.as_ref().is_ok_and(|stored| stored.root.name == *name);
    let keys = |chosen: &dyn Fn(&&ListedRoot) -> bool| -> Vec<CacheKey> {
        let mut keys: Vec<CacheKey> = roots.iter().filter(chosen).map(|root| root.cache.clone()).collect();
        keys.sort();
        keys.dedup();
        keys
    };
    let mut found = keys(&is_key);
    if found.is_empty() {
        found = keys(&is_name);
    }
    if found.iter().any(CacheKey::is_local) {
        found.retain(CacheKey::is_local);
    }
    match found.as_slice() {
        [cache] => Ok(cache.clone()),
        [] => {
            Err(Failure::new(Class::NotFound, format!("no cache {name:?} in the volume: see imagecache ls")))
        }
        many => {
            let keys: Vec<String> = many.iter().map(ToString::to_string).collect();
            let message = format!("{name:?} is the name of several caches, use a key: {}", keys.join(", "));
            Err(Failure::new(Class::InvalidSpec, message))
        }
    }
}
