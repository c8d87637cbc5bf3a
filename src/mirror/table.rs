//! What is answered: the roots of the store, as a table. Dedup is not permission, so content is found only under
//! a repository whose recorded closure has it, and only if everybody may have it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::Timestamp;

use super::route::{Page, Repository, Wanted};
use crate::{
    model::{
        digest::Digest,
        reference::RegistryHost,
        request::CacheKey,
        root::{Entry, EntryKind, Referrer, Referrers, Root, RootImage},
    },
    store::StoredRoot,
};

/// What the operator decided.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Serve what is not proved public as well.
    pub serve_private: bool,
    /// Hosts whose tags count although they were resolved through a setting of a cache.
    pub public_registries: Vec<RegistryHost>,
}

#[derive(Debug, Default)]
pub struct Table {
    /// By path, then by host: a request may name the path alone.
    repositories: HashMap<String, BTreeMap<RegistryHost, Contents>>,
    images: Vec<Image>,
}

#[derive(Debug, Default)]
struct Contents {
    /// When it was resolved, by which image, and what it means.
    tags: BTreeMap<String, (Timestamp, usize, Digest)>,
    /// Lists of referrers, by what they refer to.
    referrers: HashMap<Digest, (Timestamp, usize)>,
    digests: HashMap<Digest, Vec<usize>>,
}

#[derive(Debug)]
struct Image {
    entries: HashMap<Digest, Entry>,
    referrers: Option<Referrers>,
}

impl Image {
    fn is_whole(&self, lost: &impl Fn(&Digest) -> bool) -> bool {
        !self.entries.keys().any(lost)
    }
}

impl Table {
    pub fn build(roots: &[Arc<StoredRoot>], policy: &Policy) -> Self {
        let mut table = Self::default();
        let newest = newest_run_of_each_image(roots);
        // Whether a cache's private images are open is what its newest run says.
        let mut highest: HashMap<&CacheKey, &Root> = HashMap::new();
        for stored in roots {
            let root = highest.entry(&stored.root.cache).or_insert(&stored.root);
            if stored.root.run > root.run {
                *root = &stored.root;
            }
        }
        for (root, image) in
            roots.iter().flat_map(|root| root.root.images.iter().map(|image| (&root.root, image)))
        {
            // A later run of the same cache knows better whether the image is still public.
            let judge = newest.get(&of(root, image)).map_or(image, |(_, judge)| *judge);
            let opened = highest.get(&root.cache).is_some_and(|root| root.serve_private);
            if judge.public.is_some() || policy.serve_private || opened {
                table.add(image, policy);
            }
        }
        table
    }

    fn add(&mut self, image: &RootImage, policy: &Policy) {
        let (host, path) = (image.reference.host(), image.reference.repository());
        let contents = self.repositories.entry(path.to_owned()).or_default().entry(host.clone()).or_default();
        let index = self.images.len();
        for entry in &image.closure {
            contents.digests.entry(entry.digest.clone()).or_default().push(index);
        }
        let listed = policy.public_registries.contains(host) && !image.led;
        let tag_counts = !image.overridden || listed;
        // With a digest in the reference the tag is only a label.
        let tag = image.reference.tag().filter(|_| image.reference.digest().is_none());
        let more = image.referrers.iter().flat_map(|referrers| &referrers.tags);
        let tags = tag.map(|tag| (tag, &image.digest)).into_iter();
        for (tag, digest) in tags.chain(more.map(|(tag, digest)| (&**tag, digest))).filter(|_| tag_counts) {
            let newest = || (image.resolved, index, digest.clone());
            let known = contents.tags.entry(tag.to_owned()).or_insert_with(newest);
            if image.resolved > known.0 {
                *known = newest();
            }
        }
        // A list is a word of upstream's that changes, as a tag is.
        for subject in image.referrers.iter().flat_map(|r| r.of.keys()).filter(|_| tag_counts) {
            let newest = contents.referrers.entry(subject.clone()).or_insert((image.resolved, index));
            if image.resolved > newest.0 {
                *newest = (image.resolved, index);
            }
        }
        let entries = image.closure.iter().map(|entry| (entry.digest.clone(), entry.clone())).collect();
        self.images.push(Image { entries, referrers: image.referrers.clone() });
    }

    /// A manifest or index, if the whole image is there: some clients choose a mirror once, by the manifest.
    pub fn manifest<'a>(
        &'a self,
        repository: &Repository,
        wanted: &Wanted,
        lost: impl Fn(&Digest) -> bool,
    ) -> Option<&'a Entry> {
        let entry = |index: usize, digest: &Digest| {
            let image = &self.images[index];
            let entry = image.entries.get(digest)?;
            let manifest = matches!(entry.kind, EntryKind::Index | EntryKind::Manifest);
            (manifest && image.is_whole(&lost)).then_some(entry)
        };
        match wanted {
            Wanted::Tag(tag) => {
                let (_, index, digest) = self.contents(repository, true).next()?.tags.get(tag)?;
                entry(*index, digest)
            }
            Wanted::Digest(digest) => self
                .contents(repository, false)
                .filter_map(|contents| contents.digests.get(digest))
                .flatten()
                .find_map(|index| entry(*index, digest)),
        }
    }

    /// What refers to a digest, as upstream said when somebody asked; nothing where nobody did: "none" would be a lie.
    pub fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        lost: impl Fn(&Digest) -> bool,
    ) -> Option<&[Referrer]> {
        let of = |contents: &'_ Contents| contents.referrers.get(subject).copied();
        let (_, index) = self.contents(repository, false).find_map(of)?;
        let image = self.images.get(index).filter(|image| image.is_whole(&lost))?;
        image.referrers.as_ref()?.of.get(subject).map(Vec::as_slice)
    }

    pub fn blob<'a>(
        &'a self,
        repository: &Repository,
        digest: &Digest,
        lost: impl Fn(&Digest) -> bool,
    ) -> Option<&'a Entry> {
        let index =
            *self.contents(repository, false).find_map(|contents| contents.digests.get(digest)?.first())?;
        self.images[index].entries.get(digest).filter(|_| !lost(digest))
    }

    /// The tags of a repository, sorted; and whether there are more.
    pub fn tags<'a>(&'a self, repository: &Repository, page: &Page) -> Option<(Vec<&'a str>, bool)> {
        let tags = &self.contents(repository, true).next()?.tags;
        let mut rest =
            tags.keys().map(String::as_str).filter(|tag| page.last.as_deref().is_none_or(|l| *tag > l));
        let listed: Vec<&str> = rest.by_ref().take(page.n.unwrap_or(usize::MAX)).collect();
        Some((listed, page.n != Some(0) && rest.next().is_some()))
    }

    /// A request that names no host means every upstream that has the path; `exactly` wants a host.
    fn contents<'a, 'r>(
        &'a self,
        repository: &'r Repository,
        exactly: bool,
    ) -> impl Iterator<Item = &'a Contents> + use<'a, 'r> {
        let wanted = repository.host.as_ref();
        let hosts = self.repositories.get(&repository.path).into_iter().flatten();
        hosts
            .filter(move |(host, _)| wanted.map_or(!exactly, |wanted| *host == wanted))
            .map(|(_, contents)| contents)
    }
}

type ImageOf<'a> = (&'a CacheKey, &'a RegistryHost, &'a str, &'a Digest);

fn of<'a>(root: &'a Root, image: &'a RootImage) -> ImageOf<'a> {
    (&root.cache, image.reference.host(), image.reference.repository(), &image.digest)
}

fn newest_run_of_each_image(roots: &[Arc<StoredRoot>]) -> HashMap<ImageOf<'_>, (u64, &RootImage)> {
    let mut newest: HashMap<ImageOf<'_>, (u64, &RootImage)> = HashMap::new();
    for (root, image) in
        roots.iter().flat_map(|root| root.root.images.iter().map(|image| (&root.root, image)))
    {
        let known = newest.entry(of(root, image)).or_insert((root.run, image));
        // Of two names for one image in one run, the proof of either is a proof for the digest.
        if (root.run, image.public) > (known.0, known.1.public) {
            *known = (root.run, image);
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::samples;

    fn digest(text: &str) -> Digest {
        Digest::sha256(text.as_bytes())
    }

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn image(reference: &str, content: &str, resolved: i64) -> RootImage {
        let entry = |name: String, kind| Entry {
            media_type: format!("application/{name}"),
            ..samples::entry(&name, 1, kind)
        };
        let closure = vec![
            entry(format!("{content}-manifest"), EntryKind::Manifest),
            entry(format!("{content}-layer"), EntryKind::Layer),
        ];
        RootImage {
            digest: digest(&format!("{content}-manifest")),
            resolved: time(resolved),
            public: Some(time(resolved)),
            ..samples::image(reference, closure)
        }
    }

    fn root(cache: &str, run: u64, images: Vec<RootImage>) -> Arc<StoredRoot> {
        Arc::new(StoredRoot { root: samples::root(cache, run, images), digest: digest("root") })
    }

    fn repository(host: Option<&str>, path: &str) -> Repository {
        Repository { host: host.map(|host| host.parse().unwrap()), path: path.into(), by_query: false }
    }

    fn hub(path: &str) -> Repository {
        repository(Some("docker.io"), path)
    }

    fn tag<'a>(table: &'a Table, repository: &Repository) -> Option<&'a Entry> {
        table.manifest(repository, &Wanted::Tag("1".into()), |_| false)
    }

    #[test]
    fn content_is_found_only_under_its_own_repository() {
        let images = vec![image("team/a:1", "a", 1), image("example.com/team/b:1", "b", 1)];
        let table = Table::build(&[root("c", 1, images)], &Policy::default());
        let layer = digest("a-layer");
        assert!(table.blob(&hub("team/a"), &layer, |_| false).is_some());
        assert!(
            table.blob(&repository(None, "team/a"), &layer, |_| false).is_some(),
            "the path alone is enough"
        );
        for elsewhere in
            [hub("team/b"), repository(Some("example.com"), "team/a"), repository(None, "team/b")]
        {
            assert!(table.blob(&elsewhere, &layer, |_| false).is_none(), "{elsewhere:?}");
        }
        let manifest = Wanted::Digest(digest("a-manifest"));
        assert!(table.manifest(&hub("team/a"), &manifest, |_| false).is_some());
        assert!(
            table.manifest(&hub("team/a"), &Wanted::Digest(layer), |_| false).is_none(),
            "a layer is no manifest"
        );
        assert!(tag(&table, &repository(None, "team/a")).is_none(), "a tag needs the upstream's name");
    }

    #[test]
    fn what_is_not_proved_public_needs_the_operators_word() {
        let private = RootImage { public: None, ..image("team/a:1", "a", 1) };
        let roots = [root("c", 1, vec![private])];
        let open = Policy { serve_private: true, ..Policy::default() };
        for (policy, served) in [(Policy::default(), false), (open, true)] {
            let table = Table::build(&roots, &policy);
            assert_eq!(tag(&table, &hub("team/a")).is_some(), served);
            assert_eq!(table.blob(&hub("team/a"), &digest("a-layer"), |_| false).is_some(), served);
            assert_eq!(table.tags(&hub("team/a"), &Page::default()).is_some(), served);
        }
    }

    #[test]
    fn a_cache_opens_its_private_images_and_its_newest_run_decides() {
        let private = RootImage { public: None, ..image("team/a:1", "a", 1) };
        let stored = |run, serve_private| {
            let closed = root("c", run, vec![private.clone()]);
            Arc::new(StoredRoot {
                root: Root { serve_private, ..closed.root.clone() },
                digest: closed.digest.clone(),
            })
        };
        let served = |roots: &[_]| tag(&Table::build(roots, &Policy::default()), &hub("team/a")).is_some();
        assert!(served(&[stored(1, false), stored(2, true)]));
        assert!(!served(&[stored(1, true), stored(2, false)]));
    }

    #[test]
    fn a_later_run_of_the_cache_takes_publicity_back_and_another_cache_does_not() {
        let public = image("team/a:1", "a", 1);
        let private = RootImage { public: None, ..image("team/a:1", "a", 2) };
        let served = |roots: &[_]| tag(&Table::build(roots, &Policy::default()), &hub("team/a")).is_some();
        assert!(!served(&[root("c", 1, vec![public.clone()]), root("c", 2, vec![private.clone()])]));
        assert!(served(&[root("c", 1, vec![public]), root("d", 2, vec![private])]));
    }

    #[test]
    fn the_newest_resolution_of_a_tag_wins_and_a_bent_one_only_for_listed_hosts() {
        let old = root("c", 1, vec![image("team/a:1", "old", 10)]);
        let new = root("d", 1, vec![image("team/a:1", "new", 20)]);
        let bent = root("e", 1, vec![RootImage { overridden: true, ..image("team/a:1", "bent", 30) }]);
        let pinned = image(&format!("team/a:1@{}", digest("pin-manifest")), "pin", 40);
        let roots = [new, old, bent, root("f", 1, vec![pinned])];
        let table = Table::build(&roots, &Policy::default());
        assert_eq!(tag(&table, &hub("team/a")).unwrap().digest, digest("new-manifest"));
        let by_digest = Wanted::Digest(digest("bent-manifest"));
        assert!(table.manifest(&hub("team/a"), &by_digest, |_| false).is_some());
        let listed = Policy { public_registries: vec!["docker.io".parse().unwrap()], ..Policy::default() };
        let table = Table::build(&roots, &listed);
        assert_eq!(tag(&table, &hub("team/a")).unwrap().digest, digest("bent-manifest"));
        // A cache that says where the listed name leads may lead it to a host of its own.
        let led = RootImage { overridden: true, led: true, ..image("team/a:1", "led", 50) };
        let table = Table::build(&[&roots[..], &[root("g", 1, vec![led])]].concat(), &listed);
        assert_eq!(tag(&table, &hub("team/a")).unwrap().digest, digest("bent-manifest"));
    }

    #[test]
    fn an_image_with_a_lost_blob_has_no_manifest_here() {
        let table = Table::build(&[root("c", 1, vec![image("team/a:1", "a", 1)])], &Policy::default());
        let lost = |d: &Digest| *d == digest("a-layer");
        assert!(table.manifest(&hub("team/a"), &Wanted::Tag("1".into()), lost).is_none());
        assert!(table.manifest(&hub("team/a"), &Wanted::Digest(digest("a-manifest")), lost).is_none());
        assert!(table.blob(&hub("team/a"), &digest("a-layer"), lost).is_none());
        assert!(table.blob(&hub("team/a"), &digest("a-manifest"), lost).is_some());
    }

    #[test]
    fn lists_of_referrers_and_the_tags_beside_them_follow_the_rules_of_tags() {
        let subject = digest("a-manifest");
        let listed = |resolved, overridden, name: &str| {
            let referrer = Referrer {
                media_type: "m".into(),
                digest: digest("a-layer"),
                size: 1,
                artifact_type: Some(name.into()),
                annotations: BTreeMap::new(),
            };
            let referrers = Referrers {
                of: [(subject.clone(), vec![referrer])].into(),
                tags: [("sha256-a.sig".to_owned(), subject.clone())].into(),
            };
            RootImage { referrers: Some(referrers), overridden, ..image("team/a:1", "a", resolved) }
        };
        let kind = |table: &Table, repository: Repository| {
            let list = table.referrers(&repository, &subject, |_| false)?;
            list[0].artifact_type.clone()
        };
        let bent = root("e", 1, vec![listed(30, true, "bent")]);
        let table = Table::build(
            &[
                root("c", 1, vec![listed(10, false, "old")]),
                root("d", 1, vec![listed(20, false, "new")]),
                bent.clone(),
                root("f", 1, vec![image("team/a:1", "a", 99)]),
            ],
            &Policy::default(),
        );
        assert_eq!(kind(&table, hub("team/a")).as_deref(), Some("new"));
        assert_eq!(kind(&table, hub("team/b")), None);
        assert!(table.referrers(&hub("team/a"), &digest("a-layer"), |_| false).is_none(), "nobody asked");
        let lost = |d: &Digest| *d == digest("a-layer");
        assert!(table.referrers(&hub("team/a"), &subject, lost).is_none());
        assert_eq!(table.tags(&hub("team/a"), &Page::default()).unwrap().0, ["1", "sha256-a.sig"]);
        let public = Policy { public_registries: vec!["docker.io".parse().unwrap()], ..Policy::default() };
        for (policy, found) in [(Policy::default(), None), (public, Some("bent"))] {
            let table = Table::build(std::slice::from_ref(&bent), &policy);
            assert_eq!(kind(&table, hub("team/a")).as_deref(), found);
        }
        let private = RootImage { public: None, ..listed(1, false, "private") };
        assert_eq!(
            kind(&Table::build(&[root("p", 1, vec![private])], &Policy::default()), hub("team/a")),
            None
        );
    }

    #[test]
    fn tags_are_listed_in_pages() {
        let images = ["c", "a", "b"].map(|t| image(&format!("team/a:{t}"), t, 1));
        let table = Table::build(&[root("c", 1, images.to_vec())], &Policy::default());
        let page = |n, last: Option<&str>| Page { n, last: last.map(str::to_owned) };
        let list = |page| table.tags(&hub("team/a"), &page).unwrap();
        assert_eq!(list(page(None, None)), (vec!["a", "b", "c"], false));
        assert_eq!(list(page(Some(2), None)), (vec!["a", "b"], true));
        assert_eq!(list(page(Some(2), Some("b"))), (vec!["c"], false));
        assert_eq!(list(page(Some(0), None)), (vec![], false));
    }
}
