//! Does it fit? Decided exactly, from manifests, before the first byte of a layer moves. Pure.

use crate::model::{class::Class, failure::Failure, root::RootImage};

/// Numbers in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    /// What the cache holds when complete: every digest once.
    pub logical: u64,
    /// What is not in the store yet.
    pub missing: u64,
    /// What this cache may hold.
    pub limit: Option<u64>,
    /// What the volume has left, and how much of it other running pulls still need.
    pub free: u64,
    pub reserved: u64,
}

const GIB: u64 = 1 << 30;
/// Stays free: roots, leases and what gc writes down need a little, and without gc a full volume stays full.
const SPARE: u64 = 16 << 20;

pub(super) fn check(space: Space, images: &[RootImage]) -> Result<(), Failure> {
    if let Some(limit) = space.limit
        && space.logical > limit
    {
        let needed = space.logical.div_ceil(GIB);
        return Err(Failure::new(
            Class::SizeExceeded,
            format!(
                "the images hold {} bytes and the cache may hold {limit} ({} GiB){}: set the size to {needed} GiB or more",
                space.logical,
                limit / GIB,
                largest(images)
            ),
        ));
    }
    let available = space.free.saturating_sub(space.reserved).saturating_sub(SPARE);
    if space.missing > available {
        return Err(Failure::new(
            Class::NoSpace,
            format!(
                "no space left on device: {} bytes are still to be pulled, and of {} free bytes {} are promised to other pulls and {SPARE} are kept for the store itself",
                space.missing, space.free, space.reserved
            ),
        ));
    }
    Ok(())
}

/// Of many images people want to know which one to look at.
fn largest(images: &[RootImage]) -> String {
    let size = |image: &RootImage| -> u64 { image.closure.iter().map(|entry| entry.size).sum() };
    let image = images.iter().max_by_key(|image| size(image));
    image
        .map(|image| format!("; the largest is {}, {} bytes", image.reference, size(image)))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        root::EntryKind,
        samples::{entry, image},
    };

    #[test]
    fn the_exact_byte_decides() {
        let space =
            Space { logical: 20 * GIB, missing: 5, limit: Some(20 * GIB), free: 9 + SPARE, reserved: 4 };
        assert!(check(space, &[]).is_ok());
        let class = |space| check(space, &[]).unwrap_err().class;
        assert_eq!(class(Space { logical: 20 * GIB + 1, ..space }), Class::SizeExceeded);
        assert_eq!(class(Space { missing: 6, ..space }), Class::NoSpace);
        assert_eq!(class(Space { reserved: 5, ..space }), Class::NoSpace);
        assert!(check(Space { missing: 0, free: 0, ..space }, &[]).is_ok(), "nothing moves");
        assert!(check(Space { limit: None, logical: u64::MAX, ..space }, &[]).is_ok());
    }

    #[test]
    fn too_small_a_cache_is_told_both_numbers_the_largest_image_and_what_to_set() {
        let space = Space { logical: 21 * GIB + 7, missing: 0, limit: Some(20 * GIB), free: 0, reserved: 0 };
        let entry = |size| entry("layer", size, EntryKind::Layer);
        let images = [image("a:1", vec![entry(7)]), image("b:1", vec![entry(21 * GIB)])];
        let message = check(space, &images).unwrap_err().message;
        for part in ["22548578311", "21474836480", "22 GiB", "docker.io/library/b:1, 22548578304 bytes"] {
            assert!(message.contains(part), "{message}");
        }
    }
}
