//! What the user can write, and what the object answers: the custom resource and its keys.

pub mod image_cache;
pub mod keys;
pub mod snapshot;

pub use image_cache::{ImageCache, ImageCacheSpec, ImageCacheStatus};
