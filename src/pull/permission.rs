//! Dedup is not permission: when may a blob that the store has be used without fetching it?
//!
//! (a) this cache held it from that repository with the same credentials; (b) it belongs to an image that is
//! proved public; (c) that repository, reached without overrides, answers HEAD for it with this cache's
//! credentials. What this cache fetched itself it may ask for by (c) through its own overrides too, so that
//! nothing is fetched twice by one cache. Otherwise the blob is fetched and compared; it is stored once anyway.
//! Pure.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::model::{
    digest::Digest,
    reference::{Reference, RegistryHost},
    request::{CacheKey, PullRequest},
    root::{Root, RootImage},
};

/// A proof that an image is public holds for a week.
const PROOF_LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What is known to be held, and by which right.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    from_repository: BTreeSet<(RegistryHost, String, Digest)>,
    by_this_cache: BTreeSet<Digest>,
    public: BTreeSet<Digest>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// Use it as it is.
    Free,
    /// Use it if one of these images' repositories answers HEAD for it.
    Ask(Vec<usize>),
    /// Fetch it and compare.
    Fetch,
}

impl Holdings {
    /// `fetched`: what earlier attempts of this cache fetched, by their leases.
    pub(super) fn new(
        request: &PullRequest,
        credentials: &str,
        roots: &[Root],
        fetched: impl IntoIterator<Item = Digest>,
        now: Timestamp,
    ) -> Self {
        let mut holdings = Self { by_this_cache: fetched.into_iter().collect(), ..Self::default() };
        for root in roots {
            let own = same_owner(&root.cache, &request.cache);
            for image in &root.images {
                for entry in &image.closure {
                    if own && root.credentials == credentials {
                        holdings.from_repository.insert(place(image, &entry.digest));
                    }
                    if own {
                        holdings.by_this_cache.insert(entry.digest.clone());
                    }
                    if image.public.is_some_and(|proof| now.duration_since(proof) < PROOF_LIFE) {
                        holdings.public.insert(entry.digest.clone());
                    }
                }
            }
        }
        holdings
    }

    /// Whether this cache held it from that repository with the same credentials.
    pub(super) fn held_from(&self, reference: &Reference, digest: &Digest) -> bool {
        let place = (reference.host().clone(), reference.repository().to_owned(), digest.clone());
        self.from_repository.contains(&place)
    }

    /// Images of this very run that were proved public count too.
    pub(super) fn add_public(&mut self, images: &[RootImage]) {
        let public = images.iter().filter(|image| image.public.is_some());
        self.public.extend(public.flat_map(|image| &image.closure).map(|entry| entry.digest.clone()));
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
        let held = |image: &RootImage| self.from_repository.contains(&place(image, digest));
        if self.public.contains(digest) || sources.iter().filter_map(|index| of(&index)).any(held) {
            return Right::Free;
        }
        let own = self.by_this_cache.contains(digest);
        let may_ask = |index: &&usize| of(index).is_some_and(|image| own || !image.overridden);
        match sources.iter().filter(may_ask).copied().collect::<Vec<_>>() {
            askable if askable.is_empty() => Right::Fetch,
            askable => Right::Ask(askable),
        }
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
    use crate::model::{root::EntryKind, samples};

    fn layer() -> Digest {
        Digest::sha256(b"layer")
    }

    fn image(name: &str) -> RootImage {
        samples::image(name, vec![samples::entry("layer", 1, EntryKind::Layer)])
    }

    fn root(cache: &str, credentials: &str, image: RootImage) -> Root {
        Root { credentials: credentials.into(), ..samples::root(cache, 1, vec![image]) }
    }

    fn request(cache: &str) -> PullRequest {
        samples::request(cache, vec![])
    }

    fn right(roots: &[Root], fetched: &[Digest], wanted: RootImage) -> Right {
        let holdings =
            Holdings::new(&request("mine"), "alice", roots, fetched.to_vec(), Timestamp::UNIX_EPOCH);
        holdings.right(&layer(), &[0], &[wanted], true)
    }

    #[test]
    fn what_this_cache_held_from_there_with_these_credentials_is_free() {
        assert_eq!(right(&[root("mine", "alice", image("r.io/a"))], &[], image("r.io/a")), Right::Free);
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
        assert_eq!(right(&[proved(Timestamp::UNIX_EPOCH)], &[], image("r.io/a")), Right::Free);
        let stale = Timestamp::UNIX_EPOCH - PROOF_LIFE;
        assert_eq!(right(&[proved(stale)], &[], image("r.io/a")), Right::Ask(vec![0]));
    }

    #[test]
    fn caches_made_by_hand_are_one_persons() {
        let holdings = Holdings::new(
            &request("local-b"),
            "",
            &[root("local-a", "", image("r.io/a"))],
            [],
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(holdings.right(&layer(), &[0], &[image("r.io/a")], true), Right::Free);
        assert_eq!(
            holdings.right(&layer(), &[0], &[image("r.io/a")], false),
            Right::Fetch,
            "reuse was switched off"
        );
    }
}
