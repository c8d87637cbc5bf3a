//! What to fetch, in which order and from where. Pure.

use std::collections::BTreeMap;

use crate::model::{
    digest::Digest,
    root::{EntryKind, RootImage},
};

/// One blob of the run, however many images hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blob {
    pub digest: Digest,
    pub size: u64,
    /// Indexes of the images that hold it, in the order of the request. Each may be asked: a blob that one
    /// repository denies may be readable in another.
    pub images: Vec<usize>,
}

/// Configs and layers, each once, largest first: the long ones decide when a pull ends, and small ones fill the
/// gaps. Images that everybody may have are asked first: what the mirror serves openly has to come from a registry
/// that gives it openly.
pub(super) fn blobs(images: &[RootImage]) -> Vec<Blob> {
    let mut by_digest: BTreeMap<&Digest, Blob> = BTreeMap::new();
    for (index, image) in images.iter().enumerate() {
        for entry in image.closure.iter().filter(|e| matches!(e.kind, EntryKind::Config | EntryKind::Layer)) {
            let new = || Blob { digest: entry.digest.clone(), size: entry.size, images: Vec::new() };
            by_digest.entry(&entry.digest).or_insert_with(new).images.push(index);
        }
    }
    let mut blobs: Vec<Blob> = by_digest.into_values().collect();
    for blob in &mut blobs {
        blob.images.sort_by_key(|index| images[*index].public.is_none());
    }
    blobs.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.digest.cmp(&b.digest)));
    blobs
}

/// Two entries of one digest must agree on its size, or one of them lies.
pub(super) fn contradiction(images: &[RootImage]) -> Option<(usize, &Digest)> {
    let mut sizes: BTreeMap<&Digest, u64> = BTreeMap::new();
    for (index, image) in images.iter().enumerate() {
        for entry in &image.closure {
            if *sizes.entry(&entry.digest).or_insert(entry.size) != entry.size {
                return Some((index, &entry.digest));
            }
        }
    }
    None
}

/// Who moved a blob's bytes for whom: the first image that holds it pulled it, for the others it was there.
pub(super) fn moved_by(images: &[RootImage]) -> BTreeMap<&Digest, usize> {
    let mut first = BTreeMap::new();
    for (index, image) in images.iter().enumerate() {
        for entry in &image.closure {
            first.entry(&entry.digest).or_insert(index);
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::samples::{entry, image};

    #[test]
    fn a_shared_layer_is_fetched_once_and_the_largest_goes_first() {
        use EntryKind::{Layer, Manifest};
        let images = [
            image("a", vec![entry("ma", 1, Manifest), entry("small", 5, Layer), entry("base", 100, Layer)]),
            image("b", vec![entry("mb", 1, Manifest), entry("base", 100, Layer), entry("huge", 900, Layer)]),
        ];
        let plan = blobs(&images);
        assert_eq!(plan.iter().map(|b| b.size).collect::<Vec<_>>(), [900, 100, 5]);
        assert_eq!(plan[1].images, [0, 1]);
        assert_eq!(moved_by(&images)[&Digest::sha256(b"base")], 0);
    }

    #[test]
    fn a_digest_with_two_sizes_is_a_lie() {
        use EntryKind::Layer;
        let images =
            [image("a", vec![entry("base", 100, Layer)]), image("b", vec![entry("base", 99, Layer)])];
        assert_eq!(contradiction(&images), Some((1, &Digest::sha256(b"base"))));
        assert_eq!(contradiction(&images[..1]), None);
    }
}
