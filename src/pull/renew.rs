//! What earlier runs of a cache still answer. The same request with the same credentials and a complete root needs no
//! request at all; a refresh asks for tags again, and never for what is named by digest; proofs that images are public
//! are renewed without touching anything else, and only a refusal takes one back (docs/design.md, "Trust").

use std::collections::BTreeMap;

use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use tokio::task::block_in_place;

use super::{AT_ONCE, Ended, Pull, sizes};
use crate::{
    model::{
        class::Class,
        digest::Digest,
        failure::Failure,
        reference::{Reference, Wanted},
        report::Right,
        request::Resolve,
        root::{Root, RootImage},
    },
    registry::{Client, Publicity},
    store::{Lease, StoreError},
};

/// Younger proofs are not worth a request.
const RENEWED_FROM: SignedDuration = SignedDuration::from_hours(4 * 24);

impl Pull {
    /// The root of an earlier run that answers the request, with its proofs renewed if that is what is asked.
    pub(super) async fn answered_before(&self, roots: &[Root], lease: &Lease) -> Result<Option<Root>, Ended> {
        let answers = |root: &&Root| match self.request.resolve {
            Resolve::Since(run) => root.run >= run && self.is_same(root),
            Resolve::Proofs(run) => root.run == run,
        };
        let own = roots.iter().filter(|root| root.cache == self.request.cache);
        let Some(root) = own.filter(answers).max_by_key(|root| root.run).filter(|_| !self.resolve_again)
        else {
            return Ok(None);
        };
        if !self.is_held(&root.images, lease)? {
            return Ok(None);
        }
        for (index, image) in root.images.iter().enumerate() {
            self.meter.image(index, &image.closure);
            for entry in &image.closure {
                self.meter.gauge(&entry.digest, entry.size).reuse(Right::Held);
            }
        }
        let mut root = root.clone();
        if matches!(self.request.resolve, Resolve::Proofs(_)) {
            root.images = self.renewed(root.images).await?;
        }
        Ok(Some(root))
    }

    /// Images that are named by digest and that this very request brought before: nothing can be new about them.
    pub(super) fn pinned(
        &self,
        roots: &[Root],
        lease: &Lease,
    ) -> Result<BTreeMap<Reference, RootImage>, Ended> {
        let own = roots.iter().filter(|root| root.cache == self.request.cache && self.is_same(root));
        let Some(root) = own.max_by_key(|root| root.run).filter(|_| !self.resolve_again) else {
            return Ok(BTreeMap::new());
        };
        let mut pinned = BTreeMap::new();
        for image in &root.images {
            let by_digest = matches!(image.reference.wanted(), Wanted::Digest(_));
            if by_digest && self.is_held(std::slice::from_ref(image), lease)? {
                pinned.insert(image.reference.clone(), image.clone());
            }
        }
        Ok(pinned)
    }

    fn is_same(&self, root: &Root) -> bool {
        root.inputs == self.request.inputs && root.credentials == self.credentials
    }

    /// Leased, then looked for.
    fn is_held(&self, images: &[RootImage], lease: &Lease) -> Result<bool, StoreError> {
        block_in_place(|| {
            let held = sizes(images);
            lease.add(&held)?;
            for (digest, size) in held {
                if self.store.look(&digest, size)?.is_none() {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    async fn renewed(&self, images: Vec<RootImage>) -> Result<Vec<RootImage>, Ended> {
        let anonymous = self.client.anonymous();
        let (client, now) = (&anonymous, self.now);
        let renewing = images.into_iter().map(|mut image| async move {
            let old = |proof: &Timestamp| now.duration_since(*proof) >= RENEWED_FROM;
            if image.public.as_ref().is_some_and(old) {
                image.public = proof(client, &image.reference, &image.digest, now).await?;
            }
            Ok(image)
        });
        let renewed: Vec<Result<RootImage, Failure>> =
            stream::iter(renewing.collect::<Vec<_>>()).buffered(AT_ONCE).collect().await;
        let (mut images, mut failures) = (Vec::new(), BTreeMap::new());
        for (index, image) in renewed.into_iter().enumerate() {
            match image {
                Ok(image) => images.push(image),
                Err(failure) => {
                    failures.insert(index, failure);
                }
            }
        }
        if failures.is_empty() { Ok(images) } else { Err(Ended::Images(failures)) }
    }
}

/// Everybody may have it: the real host answers for this digest without credentials. No answer is a failure, and no
/// word on whether it is public.
pub(super) async fn proof(
    client: &Client,
    reference: &Reference,
    digest: &Digest,
    now: Timestamp,
) -> Result<Option<Timestamp>, Failure> {
    match client.is_public(reference.host(), reference.repository(), digest).await? {
        Publicity::Proved => Ok(Some(now)),
        Publicity::Denied | Publicity::Unproved => Ok(None),
        Publicity::Absent => Err(Failure::new(Class::NotFound, format!("{digest} is not there any more"))),
    }
}

/// The newest proof this cache has of the same content from the same place.
pub(super) fn known_proof(
    roots: &[Root],
    pull: &Pull,
    reference: &Reference,
    digest: &Digest,
) -> Option<Timestamp> {
    let own = roots.iter().filter(|root| root.cache == pull.request.cache).flat_map(|root| &root.images);
    let place = |image: &&RootImage| {
        let same = image.reference.host() == reference.host()
            && image.reference.repository() == reference.repository();
        same && image.digest == *digest && !image.overridden
    };
    own.filter(place).filter_map(|image| image.public).max()
}
