//! Names that are derived, never invented: the cache's id, and those of its children.

use super::{digest::Digest, request::CacheKey};

/// `imc-` and 20 lower-case letters and digits: a pure function of the object's UID, as long as ECI's ids.
pub fn image_cache_id(uid: &CacheKey) -> String {
    const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let digest = Digest::sha256(uid.as_str().as_bytes());
    let mut number = u128::from_str_radix(&digest.hex()[..32], 16).unwrap_or_default();
    let mut id = String::from("imc-");
    for _ in 0..20 {
        let digit = usize::try_from(number % 36).unwrap_or_default();
        id.push(char::from(ALPHABET[digit]));
        number /= 36;
    }
    id
}

/// The pull Job of one run; people find it by the id the object shows.
pub fn job(uid: &CacheKey, run: u64) -> String {
    format!("{}-{run}", image_cache_id(uid))
}

/// The Secret with the pull request of one run.
pub fn request_secret(uid: &CacheKey, run: u64) -> String {
    format!("{}-request", job(uid, run))
}

/// The Secret with the credentials of one run.
pub fn credentials_secret(uid: &CacheKey, run: u64) -> String {
    format!("{}-credentials", job(uid, run))
}

/// The Job that fills the cache's own volume with one run.
pub fn export_job(uid: &CacheKey, run: u64) -> String {
    format!("{}-export", job(uid, run))
}

/// The volume that is filled, and its snapshot, of one run; people find them by the id the object shows.
pub fn snapshot(uid: &CacheKey, run: u64) -> String {
    job(uid, run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_looks_like_those_of_eci_and_depends_on_the_uid_alone() {
        let uid: CacheKey = "8f14e45f-ceea-467f-a0e6-1c2b3d4e5f60".parse().unwrap();
        let other: CacheKey = "8f14e45f-ceea-467f-a0e6-1c2b3d4e5f61".parse().unwrap();
        let id = image_cache_id(&uid);
        assert_eq!(id, image_cache_id(&uid));
        assert_ne!(id, image_cache_id(&other));
        assert_eq!(id.len(), 24);
        assert!(id[4..].bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{id}");
    }

    #[test]
    fn names_of_children_fit_into_labels() {
        let uid: CacheKey = "8f14e45f-ceea-467f-a0e6-1c2b3d4e5f60".parse().unwrap();
        assert!(credentials_secret(&uid, u64::MAX).len() <= 63);
    }
}
