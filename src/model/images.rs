//! What status says of each image: what its name means now and meant before, what its bytes cost, and why it could not
//! be pulled. What a failed run says of content that is still served is its error, and nothing else.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    judge::CacheRequest,
    plan::Event,
    report::{ImageOutcome, Outcome, ReusedBy},
    text::cut,
};
use crate::api::image_cache::{ImageStatus, Ledger, PreviousDigest, ReusedBytes};

pub(super) const MAX_NAME: usize = 420;
const MAX_ERROR: usize = 300;
/// What a name meant before.
const MAX_PREVIOUS: usize = 5;

pub(super) struct Seen<'a> {
    pub before: &'a [ImageStatus],
    /// The ledger as it was read: whether these images had content.
    pub had: bool,
    pub ledger: &'a Ledger,
    pub request: Option<&'a CacheRequest>,
    pub outcome: Option<&'a Outcome>,
    pub now: Timestamp,
}

impl Seen<'_> {
    pub(super) fn images(&self) -> Vec<ImageStatus> {
        let outcome = self.outcome.filter(|outcome| !outcome.images.is_empty());
        let Some(request) = self.request.filter(|_| outcome.is_none()) else {
            let told = outcome.map(|outcome| outcome.images.iter().map(|image| self.told(image, outcome)));
            return told.map_or_else(|| self.before.to_vec(), |told| self.and_served(told.collect()));
        };
        let failing = self.ledger.failure.is_some()
            || self.ledger.refresh.as_ref().is_some_and(|refresh| refresh.failure.is_some());
        let named = |name: String| {
            let image = self.before(&name).cloned().unwrap_or_default();
            ImageStatus { name, error: image.error.filter(|_| failing), ..image }
        };
        self.and_served(request.images.iter().map(|image| named(cut(&image.to_string(), MAX_NAME))).collect())
    }

    fn before(&self, name: &str) -> Option<&ImageStatus> {
        self.before.iter().find(|image| image.name == name)
    }

    /// While an edit is not complete, what only the old content has is still served, and may be wanted again.
    fn and_served(&self, mut images: Vec<ImageStatus>) -> Vec<ImageStatus> {
        let old = self
            .ledger
            .root
            .as_ref()
            .zip(self.request)
            .filter(|(root, request)| root.inputs != request.inputs);
        if old.is_some() {
            let served = |image: &&ImageStatus| {
                image.digest.is_some() && images.iter().all(|new| new.name != image.name)
            };
            let mut kept: Vec<ImageStatus> = self.before.iter().filter(served).cloned().collect();
            for image in &mut kept {
                image.error = None;
            }
            images.append(&mut kept);
        }
        images
    }

    fn told(&self, image: &ImageOutcome, outcome: &Outcome) -> ImageStatus {
        let name = cut(&image.reference.to_string(), MAX_NAME);
        let old = self.before(&name).cloned().unwrap_or_default();
        let error = image.failure.as_ref().map(|f| cut(&format!("{}: {}", f.class, f.message), MAX_ERROR));
        let digest = image.digest.as_ref().map(ToString::to_string);
        if error.is_some() || self.had && outcome.root.is_none() {
            return ImageStatus { name, error, ..old };
        }
        let resolved = image.resolved.map(Time).or(old.resolved);
        if self.had && digest.is_some() && digest == old.digest {
            // The bytes of this content were counted when they came.
            return ImageStatus { name, resolved, error: None, digest, ..old };
        }
        let mut previous = old.previous;
        if let Some(was) =
            old.digest.as_ref().filter(|was| digest.as_ref().is_some_and(|digest| digest != *was))
        {
            previous.insert(0, PreviousDigest { digest: was.clone(), until: Time(self.now) });
            previous.truncate(MAX_PREVIOUS);
        }
        ImageStatus {
            name,
            digest: digest.or(old.digest),
            size: Some(to_i64(image.size)),
            pulled: Some(to_i64(image.pulled)),
            reused: Some(to_i64(image.reused)),
            reused_by: reused_by(image.reused_by),
            error: None,
            resolved,
            previous,
        }
    }

    /// Names that mean something else than before.
    pub(super) fn changes(&self, images: &[ImageStatus]) -> Vec<Event> {
        let done = self.outcome.is_some_and(|outcome| outcome.root.is_some());
        let change = |image: &ImageStatus| {
            let (old, new) = (self.before(&image.name)?.digest.as_ref()?, image.digest.as_ref()?);
            (done && old != new).then(|| Event {
                warning: false,
                reason: "DigestChanged".to_owned(),
                message: format!("{}: {old} -> {new}", image.name),
            })
        };
        images.iter().filter_map(change).collect()
    }

    /// Whether the run brought this image, or found that its name means something else.
    pub(super) fn is_news(&self, image: &ImageOutcome) -> bool {
        let old =
            self.before(&cut(&image.reference.to_string(), MAX_NAME)).and_then(|old| old.digest.clone());
        !self.had || old != image.digest.as_ref().map(ToString::to_string)
    }
}

fn reused_by(parts: ReusedBy) -> Option<ReusedBytes> {
    let part = |n: u64| (n > 0).then(|| to_i64(n));
    let told = ReusedBytes {
        held: part(parts.held),
        public: part(parts.public),
        asked: part(parts.asked),
        same_pull: part(parts.same_run),
    };
    (told != ReusedBytes::default()).then_some(told)
}

pub(super) fn to_i64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
