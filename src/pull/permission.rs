//! Dedup is not permission: when may a blob that the store has be used without fetching it?
//!
//! (a) this cache held it from that repository with the same credentials; (b) it belongs to an image that was
//! proved public by a pull that is complete; (c) the registry that the store has it from, reached without overrides,
//! answers HEAD for it in that repository with this cache's credentials. A registry that the store does not have it
//! from is not asked: anybody can run one that says yes to everything, and a manifest of his, public or not, may name
//! what he never had. What this cache fetched itself it may ask for by (c) wherever it likes, so that nothing is fetched
//! twice by one cache. Otherwise the blob is fetched and compared; it is stored once anyway. Pure.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::{
    model::{
        digest::Digest,
        reference::{Reference, RegistryHost},
        report::Right as By,
        request::CacheKey,
        root::{Entry, EntryKind, Root, RootImage},
    },
    store::LeaseFile,
};

/// A proof that an image is public holds for a week.
const PROOF_LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What is known to be held, and by which right.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    from_repository: BTreeSet<(RegistryHost, String, Digest)>,
    by_this_cache: BTreeSet<Digest>,
    public: BTreeSet<Digest>,
    /// Where blobs of the store were fetched, without overrides.
    hosts: BTreeSet<(RegistryHost, Digest)>,
    /// Roots that were read.
    roots: BTreeSet<(CacheKey, u64)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// Use it as it is.
    Free(By),
    /// Use it if one of these images' repositories answers HEAD for it.
    Ask(Vec<usize>),
    /// Fetch it and compare.
    Fetch,
}

impl Holdings {
    /// One root more, if it is new. `now`: proofs are as old as that says.
    pub(super) fn learn_root(&mut self, root: &Root, owner: &Owner<'_>, now: Timestamp) {
        if !self.roots.insert((root.cache.clone(), root.run)) {
            return;
        }
        let own = owner.is(&root.cache);
        for image in &root.images {
            for entry in &image.closure {
                if own && root.credentials == owner.credentials {
                    self.from_repository.insert(place(image, &entry.digest));
                }
                if own {
                    self.by_this_cache.insert(entry.digest.clone());
                }
                if image.public.is_some_and(|proof| now.duration_since(proof) < PROOF_LIFE) {
                    self.public.insert(entry.digest.clone());
                }
                if !image.overridden {
                    self.hosts.insert((image.reference.host().clone(), entry.digest.clone()));
                }
            }
        }
    }

    /// What a pull fetched that has no root yet.
    pub(super) fn learn_lease(&mut self, lease: &LeaseFile, owner: &Owner<'_>) {
        if owner.is(&lease.cache) {
            self.by_this_cache.extend(lease.fetched.iter().cloned());
        }
        for (host, digests) in &lease.hosts {
            self.hosts.extend(digests.iter().map(|digest| (host.clone(), digest.clone())));
        }
    }

    pub(super) fn knows(&self, cache: &CacheKey, run: u64) -> bool {
        self.roots.contains(&(cache.clone(), run))
    }

    pub(super) fn fetched_before(&mut self, digests: impl IntoIterator<Item = Digest>) {
        self.by_this_cache.extend(digests);
    }

    /// Whether this cache held it from that repository with the same credentials.
    pub(super) fn held_from(&self, reference: &Reference, digest: &Digest) -> bool {
        let place = (reference.host().clone(), reference.repository().to_owned(), digest.clone());
        self.from_repository.contains(&place)
    }

    /// The store has it from this image's registry, reached without overrides.
    fn came_from(&self, image: &RootImage, digest: &Digest) -> bool {
        !image.overridden && self.hosts.contains(&(image.reference.host().clone(), digest.clone()))
    }

    /// Of images that upstream gives to everybody, those whose content it gave too; the others are private. With each
    /// of those, a digest that came from elsewhere.
    pub(super) fn open(&self, images: &[RootImage]) -> (Vec<RootImage>, Vec<(Reference, Digest)>) {
        let blobs = |image: &RootImage| -> Vec<Digest> {
            let moved = |entry: &&Entry| matches!(entry.kind, EntryKind::Config | EntryKind::Layer);
            image.closure.iter().filter(moved).map(|entry| entry.digest.clone()).collect()
        };
        let public = || images.iter().filter(|image| image.public.is_some());
        let given: BTreeSet<Digest> = public()
            .flat_map(|image| blobs(image).into_iter().filter(|digest| self.came_from(image, digest)))
            .collect();
        let (mut opened, mut closed) = (images.to_vec(), Vec::new());
        for image in opened.iter_mut().filter(|image| image.public.is_some()) {
            let from_elsewhere = blobs(image)
                .into_iter()
                .find(|digest| !given.contains(digest) && !self.public.contains(digest));
            if let Some(digest) = from_elsewhere {
                image.public = None;
                closed.push((image.reference.clone(), digest));
            }
        }
        (opened, closed)
    }

    /// `sources`: the images of the run that hold the digest.
    pub(super) fn right(
        &self,
        digest: &Digest,
        sources: &[usize],
        images: &[RootImage],
        reuse: bool,
    ) -> Right {
        if !reuse {
            return Right::Fetch;
        }
        let of = |index: &&usize| images.get(**index);
        let has_it = |image: &RootImage| self.came_from(image, digest);
        // A public image may name what its registry never had. Before that is served openly it is fetched there, once.
        let mut open =
            sources.iter().filter_map(|index| of(&index)).filter(|image| image.public.is_some()).peekable();
        if open.peek().is_some() && !self.public.contains(digest) && !open.any(has_it) {
            return Right::Fetch;
        }
        let held = |image: &RootImage| self.from_repository.contains(&place(image, digest));
        if sources.iter().filter_map(|index| of(&index)).any(held) {
            return Right::Free(By::Held);
        }
        if self.public.contains(digest) {
            return Right::Free(By::Public);
        }
        let own = self.by_this_cache.contains(digest);
        let may_ask = |index: &&usize| of(index).is_some_and(|image| own || has_it(image));
        match sources.iter().filter(may_ask).copied().collect::<Vec<_>>() {
            askable if askable.is_empty() => Right::Fetch,
            askable => Right::Ask(askable),
        }
    }
}

/// Whose pull it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner<'a> {
    pub cache: &'a CacheKey,
    /// Hash of the credentials at hand.
    pub credentials: &'a str,
}

impl Owner<'_> {
    fn is(&self, cache: &CacheKey) -> bool {
        same_owner(cache, self.cache)
    }
}

/// By hand one person fills the volume: all `local-*` caches are one.
fn same_owner(a: &CacheKey, b: &CacheKey) -> bool {
    a == b || (a.is_local() && b.is_local())
}

fn place(image: &RootImage, digest: &Digest) -> (RegistryHost, String, Digest) {
    (image.reference.host().clone(), image.reference.repository().to_owned(), digest.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::samples;

    fn layer() -> Digest {
        Digest::sha256(b"layer")
    }

    fn image(name: &str) -> RootImage {
        samples::image(name, vec![samples::entry("layer", 1, EntryKind::Layer)])
    }

    fn root(cache: &str, credentials: &str, image: RootImage) -> Root {
        Root { credentials: credentials.into(), ..samples::root(cache, 1, vec![image]) }
    }

    fn holdings(cache: &str, credentials: &str, roots: &[Root]) -> Holdings {
        let (mut holdings, cache) = (Holdings::default(), cache.parse().unwrap());
        let owner = Owner { cache: &cache, credentials };
        for root in roots {
            holdings.learn_root(root, &owner, Timestamp::UNIX_EPOCH);
        }
        holdings
    }

    fn right(roots: &[Root], fetched: &[Digest], wanted: RootImage) -> Right {
        let mut holdings = holdings("mine", "alice", roots);
        holdings.fetched_before(fetched.to_vec());
        holdings.right(&layer(), &[0], &[wanted], true)
    }

    #[test]
    fn what_this_cache_held_from_there_with_these_credentials_is_free() {
        assert_eq!(
            right(&[root("mine", "alice", image("r.io/a"))], &[], image("r.io/a")),
            Right::Free(By::Held)
        );
    }

    #[test]
    fn other_credentials_another_repository_or_another_cache_must_ask() {
        for held in [
            root("mine", "bob", image("r.io/a")),
            root("mine", "alice", image("r.io/b")),
            root("theirs", "alice", image("r.io/a")),
        ] {
            assert_eq!(right(&[held], &[], image("r.io/a")), Right::Ask(vec![0]));
        }
    }

    #[test]
    fn a_host_that_the_tenant_redefined_proves_nothing_about_anothers_layer() {
        let wanted = RootImage { overridden: true, ..image("r.io/a") };
        assert_eq!(right(&[root("theirs", "alice", image("r.io/a"))], &[], wanted.clone()), Right::Fetch);
        assert_eq!(
            right(&[], &[layer()], wanted),
            Right::Ask(vec![0]),
            "what it fetched itself it may ask for"
        );
    }

    #[test]
    fn a_layer_of_a_public_image_is_free_while_the_proof_is_fresh() {
        let proved = |at| root("theirs", "bob", RootImage { public: Some(at), ..image("hub/x") });
        assert_eq!(right(&[proved(Timestamp::UNIX_EPOCH)], &[], image("r.io/a")), Right::Free(By::Public));
        let stale = Timestamp::UNIX_EPOCH - PROOF_LIFE;
        assert_eq!(right(&[proved(stale)], &[], image("hub/y")), Right::Ask(vec![0]));
        assert_eq!(right(&[proved(stale)], &[], image("r.io/a")), Right::Fetch);
    }

    #[test]
    fn a_registry_that_the_store_does_not_have_a_layer_from_is_not_even_asked() {
        let victims = root("theirs", "alice", image("r.io/private"));
        // Of his own, over verified TLS, public, and it would answer HEAD for anything.
        for public in [None, Some(Timestamp::UNIX_EPOCH)] {
            let attackers = RootImage { public, ..image("evil.io/x") };
            assert_eq!(right(std::slice::from_ref(&victims), &[], attackers), Right::Fetch);
        }
        let led = root("other", "", RootImage { overridden: true, ..image("evil.io/x") });
        assert_eq!(right(&[victims, led], &[], image("evil.io/x")), Right::Fetch, "overrides prove nothing");
    }

    #[test]
    fn an_image_is_public_only_with_what_a_registry_gives_openly() {
        let public = |name: &str| RootImage { public: Some(Timestamp::UNIX_EPOCH), ..image(name) };
        let run = [image("r.io/private"), public("evil.io/x"), public("hub/y")];
        let opened = |roots: &[Root]| -> Vec<bool> {
            let (opened, closed) = holdings("mine", "alice", roots).open(&run);
            assert_eq!(closed.len(), opened.iter().filter(|image| image.public.is_none()).count() - 1);
            opened.iter().map(|image| image.public.is_some()).collect()
        };
        assert_eq!(opened(&[root("mine", "alice", image("r.io/private"))]), [false, false, false]);
        assert_eq!(
            opened(&[root("theirs", "", image("hub/y"))]),
            [false, true, true],
            "then it is no secret"
        );
        let held = holdings("mine", "alice", &[root("mine", "alice", image("r.io/private"))]);
        assert_eq!(held.right(&layer(), &[1, 0], &run, true), Right::Fetch, "from him, once");
        assert_eq!(held.right(&layer(), &[0], &run, true), Right::Free(By::Held));
    }

    #[test]
    fn a_pull_that_has_no_root_yet_says_where_it_fetched_from() {
        let lease = LeaseFile {
            fetched: [layer()].into(),
            hosts: [("r.io".parse().unwrap(), [layer()].into())].into(),
            ..LeaseFile::new(&"theirs".parse().unwrap(), "who")
        };
        let cache = "mine".parse().unwrap();
        let mut holdings = Holdings::default();
        holdings.learn_lease(&lease, &Owner { cache: &cache, credentials: "" });
        let right = |name: &str| holdings.right(&layer(), &[0], &[image(name)], true);
        assert_eq!((right("r.io/a"), right("evil.io/x")), (Right::Ask(vec![0]), Right::Fetch));
    }

    #[test]
    fn caches_made_by_hand_are_one_persons() {
        let holdings = holdings("local-b", "", &[root("local-a", "", image("r.io/a"))]);
        assert_eq!(holdings.right(&layer(), &[0], &[image("r.io/a")], true), Right::Free(By::Held));
        assert_eq!(
            holdings.right(&layer(), &[0], &[image("r.io/a")], false),
            Right::Fetch,
            "reuse was switched off"
        );
    }
}
