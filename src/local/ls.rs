//! `imagecache ls`: what the store holds, what is shared, and what deleting a cache would free.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use serde::Serialize;

use super::table::{Align, columns, human};
use crate::{
    cli::{LsArgs, Output},
    model::{
        account::{Account, Accounts},
        digest::Digest,
        platform::Platform,
        reference::Reference,
        request::CacheKey,
        root::{Root, RootImage},
        text::count,
    },
    ops::out::{print, tell},
    store::{Space, Store, StoreError},
};

/// All sizes are bytes. A digest counts once per cache, and once in the total.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listing {
    pub store: String,
    pub caches: Vec<Cache>,
    /// Roots that cannot be read.
    pub broken: Vec<Broken>,
    pub blobs: usize,
    pub size: u64,
    pub capacity: u64,
    pub free: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cache {
    pub cache: CacheKey,
    pub name: String,
    /// The highest run; older ones that are still there count for what would be freed.
    pub run: u64,
    pub size: u64,
    /// Of these, bytes that other caches need too.
    pub shared: u64,
    pub freed_if_deleted: u64,
    pub missing_blobs: usize,
    pub images: Vec<Image>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    pub reference: Reference,
    pub digest: Digest,
    pub platforms: Vec<Platform>,
    pub size: u64,
    /// Everybody may have it: the mirror serves it to all.
    pub public: bool,
    pub resolved: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Broken {
    pub cache: CacheKey,
    pub run: u64,
    pub reason: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run {} of cache {} cannot be read: {}", self.run, self.cache, self.reason)
    }
}

/// Runs the command and returns the exit status.
pub fn run(args: &LsArgs) -> u8 {
    match ls(&args.volume) {
        Ok(listing) if args.output == Output::Json => print(&listing.to_json()),
        Ok(listing) => print(&listing.to_table()),
        Err(error) => {
            tell(&error.to_string());
            return error.class().exit_code();
        }
    }
    0
}

pub fn ls(volume: &Path) -> Result<Listing, StoreError> {
    let store = Store::open(volume)?;
    let (mut roots, mut broken) = (Vec::new(), Vec::new());
    for listed in store.roots()? {
        match listed.root {
            Ok(stored) => roots.push(stored.root),
            Err(e) => broken.push(Broken { cache: listed.cache, run: listed.run, reason: e.to_string() }),
        }
    }
    let mut missing = BTreeSet::new();
    for (digest, size) in roots.iter().flat_map(Root::closure) {
        if store.find(digest, size)?.is_none() {
            missing.insert(digest.clone());
        }
    }
    Ok(list(store.id(), &roots, broken, &missing, store.space()?))
}

fn list(id: &str, roots: &[Root], broken: Vec<Broken>, missing: &BTreeSet<Digest>, space: Space) -> Listing {
    let accounts = Accounts::of(roots);
    let cache = |account: &Account<'_>| {
        let newest = account.newest;
        Cache {
            cache: newest.cache.clone(),
            name: newest.name.clone(),
            run: newest.run,
            size: account.size,
            shared: account.shared,
            freed_if_deleted: account.freed_if_deleted,
            missing_blobs: newest.closure().keys().filter(|digest| missing.contains(**digest)).count(),
            images: newest.images.iter().map(image).collect(),
        }
    };
    Listing {
        store: id.to_owned(),
        caches: accounts.caches.iter().map(cache).collect(),
        broken,
        blobs: accounts.blobs,
        size: accounts.bytes,
        capacity: space.capacity,
        free: space.free,
    }
}

fn image(image: &RootImage) -> Image {
    Image {
        reference: image.reference.clone(),
        digest: image.digest.clone(),
        platforms: image.platforms.clone(),
        size: image
            .closure
            .iter()
            .map(|entry| (&entry.digest, entry.size))
            .collect::<BTreeMap<_, _>>()
            .values()
            .sum(),
        public: image.public.is_some(),
        resolved: image.resolved.to_string(),
    }
}

impl Listing {
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    pub fn to_table(&self) -> String {
        let mut parts = Vec::new();
        if !self.caches.is_empty() {
            parts.extend([self.caches_table(), "\n".into(), self.images_table(), "\n".into()]);
        }
        parts.extend(self.broken.iter().map(|broken| format!("{broken}\n")));
        let images: usize = self.caches.iter().map(|cache| cache.images.len()).sum();
        parts.push(format!(
            "{}, {}, {} in {}; {} free of {}; store {}\n",
            count(self.caches.len(), "cache"),
            count(images, "image"),
            human(self.size),
            count(self.blobs, "blob"),
            human(self.free),
            human(self.capacity),
            self.store
        ));
        parts.concat()
    }

    fn caches_table(&self) -> String {
        use Align::{Left, Right};
        let header = [
            ("NAME", Left),
            ("CACHE", Left),
            ("RUN", Right),
            ("IMAGES", Right),
            ("SIZE", Right),
            ("SHARED", Right),
            ("FREED IF DELETED", Right),
            ("STATE", Left),
        ];
        let row = |cache: &Cache| {
            let state = match cache.missing_blobs {
                0 => "complete".to_owned(),
                n => format!("{} missing", count(n, "blob")),
            };
            vec![
                cache.name.clone(),
                cache.cache.to_string(),
                cache.run.to_string(),
                cache.images.len().to_string(),
                human(cache.size),
                human(cache.shared),
                human(cache.freed_if_deleted),
                state,
            ]
        };
        columns(&header, &self.caches.iter().map(row).collect::<Vec<_>>())
    }

    fn images_table(&self) -> String {
        use Align::{Left, Right};
        let header = [
            ("IMAGE", Left),
            ("DIGEST", Left),
            ("PLATFORMS", Left),
            ("SIZE", Right),
            ("ACCESS", Left),
            ("CACHE", Left),
        ];
        let row = |(cache, image): (&Cache, &Image)| {
            let platforms: Vec<String> = image.platforms.iter().map(ToString::to_string).collect();
            vec![
                image.reference.to_string(),
                short(&image.digest),
                platforms.join(","),
                human(image.size),
                if image.public { "public" } else { "private" }.to_owned(),
                cache.name.clone(),
            ]
        };
        let images =
            self.caches.iter().flat_map(|cache| cache.images.iter().map(move |image| (cache, image)));
        columns(&header, &images.map(row).collect::<Vec<_>>())
    }
}

/// Enough to tell digests apart by eye; the whole one is in the JSON.
fn short(digest: &Digest) -> String {
    digest.to_string().chars().take(19).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{root::EntryKind, samples};

    fn root(cache: &str, run: u64, blobs: &[(&str, u64)]) -> Root {
        let entry = |(name, size): &(&str, u64)| samples::entry(name, *size, EntryKind::Layer);
        let image = RootImage {
            digest: Digest::sha256(blobs[0].0.as_bytes()),
            platforms: vec!["linux/amd64".parse().unwrap()],
            resolved: "2026-01-02T03:04:05Z".parse().unwrap(),
            ..samples::image(&format!("{cache}:1"), blobs.iter().map(entry).collect())
        };
        Root { name: cache.into(), ..samples::root(&format!("local-{cache}"), run, vec![image]) }
    }

    fn listing() -> Listing {
        let roots = [
            root("web", 1, &[("m0", 8), ("base", 1000), ("old", 500)]),
            root("web", 2, &[("m1", 10), ("base", 1000), ("app", 50)]),
            root("database", 7, &[("m2", 20), ("base", 1000)]),
        ];
        let broken = Broken {
            cache: CacheKey::local("x").unwrap(),
            run: 3,
            reason: "roots/x/3.json: not a root".into(),
        };
        let missing = [Digest::sha256(b"app")].into();
        list("0123", &roots, vec![broken], &missing, Space { capacity: 10 << 30, free: 4 << 30 })
    }

    #[test]
    fn shared_bytes_belong_to_nobody_and_old_runs_are_freed_too() {
        let listing = listing();
        let of = |i: usize| {
            let cache = &listing.caches[i];
            (
                cache.name.as_str(),
                cache.run,
                cache.size,
                cache.shared,
                cache.freed_if_deleted,
                cache.missing_blobs,
            )
        };
        assert_eq!(of(0), ("database", 7, 1020, 1000, 20, 0));
        assert_eq!(of(1), ("web", 2, 1060, 1000, 568, 1));
        assert_eq!((listing.blobs, listing.size), (6, 1588));
    }

    #[test]
    fn the_table_lines_up() {
        let expected = "\
NAME      CACHE           RUN  IMAGES     SIZE  SHARED  FREED IF DELETED  STATE
database  local-database    7       1   1020 B  1000 B              20 B  complete
web       local-web         2       1  1.0 KiB  1000 B             568 B  1 blob missing

IMAGE                         DIGEST               PLATFORMS       SIZE  ACCESS   CACHE
docker.io/library/database:1  sha256:";
        let text = listing().to_table();
        assert!(text.starts_with(expected), "{text}");
        assert!(
            text.ends_with(
                "run 3 of cache local-x cannot be read: roots/x/3.json: not a root\n\
             2 caches, 2 images, 1.6 KiB in 6 blobs; 4.0 GiB free of 10.0 GiB; store 0123\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn json_has_exact_bytes_and_whole_digests() {
        let json: serde_json::Value = serde_json::from_str(&listing().to_json()).unwrap();
        assert_eq!(json["caches"][1]["freedIfDeleted"], 568);
        assert_eq!(json["caches"][1]["images"][0]["digest"], Digest::sha256(b"m1").to_string());
        assert_eq!(json["free"], 4_u64 << 30);
    }
}
