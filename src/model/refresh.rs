//! When the registries are asked anew what the tags mean, and when the proofs that images are public are renewed.
//! Never moves expiry; what is named by digest only is never asked for again. Pure.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    digest::Digest,
    judge::CacheRequest,
    reference::{Reference, Wanted},
    retry::{after, jitter},
};
use crate::api::{image_cache::LedgerRoot, keys};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const SHORTEST: Duration = Duration::from_mins(5);
/// A proof holds for seven days; what is left is for registries that do not answer.
const RENEW_PROOFS: Duration = Duration::from_hours(6 * 24);
/// Roots of an edit that was taken back keep their bytes until a newer root is credited.
const AFTER_TAKING_BACK: Duration = Duration::from_hours(1);
/// Longer values are known by their hash.
const MAX_VALUE: usize = 64;

/// How old an answer of a registry may get: a number and `m`, `h` or `d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval(Duration);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no interval: write a number and m, h or d, from 5m, for example 12h or 7d")]
pub struct IntervalError(String);

impl FromStr for Interval {
    type Err = IntervalError;

    /// As the schema has it: up to four digits, up to three for days.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || IntervalError(text.chars().take(32).collect());
        let unit = text.chars().last().ok_or_else(bad)?;
        let (digits, _) = text.split_at(text.len() - unit.len_utf8());
        let (seconds, most) = match unit {
            'm' => (MINUTE, 4),
            'h' => (HOUR, 4),
            'd' => (DAY, 3),
            _ => return Err(bad()),
        };
        let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        let n: u64 = digits.parse().ok().filter(|_| plain && digits.len() <= most).ok_or_else(bad)?;
        let interval = Duration::from_secs(n * seconds);
        if interval < SHORTEST { Err(bad()) } else { Ok(Self(interval)) }
    }
}

/// The value of the refresh annotation, short enough for the ledger.
pub fn asked(annotations: &BTreeMap<String, String>) -> Option<String> {
    let value = annotations.get(keys::REFRESH)?.trim();
    let plain =
        value.len() <= MAX_VALUE && value.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    Some(if plain { value.to_owned() } else { Digest::sha256(value.as_bytes()).to_string() })
}

pub fn has_tags(images: &[Reference]) -> bool {
    images.iter().any(|image| matches!(image.wanted(), Wanted::Tag(_)))
}

/// What of the content is due next, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub at: Timestamp,
    /// Only proofs: tags keep what they mean.
    pub proofs: bool,
}

pub(super) fn due(root: &LedgerRoot, request: &CacheRequest, uid: &str) -> Option<Due> {
    let proofs = |since: &Option<Time>, period| {
        since.as_ref().map(|since| Due { at: early(since.0, period, root, uid), proofs: true })
    };
    let tags = tags_due(root, request, uid).map(|at| Due { at, proofs: false });
    let (proved, tidied) = (proofs(&root.proved, RENEW_PROOFS), proofs(&root.taken_back, AFTER_TAKING_BACK));
    [tags, proved, tidied].into_iter().flatten().min_by_key(|due| due.at)
}

/// When the interval ends.
pub(super) fn tags_due(root: &LedgerRoot, request: &CacheRequest, uid: &str) -> Option<Timestamp> {
    let Interval(every) = request.refresh_interval.filter(|_| has_tags(&request.images))?;
    let resolved = root.resolved.as_ref().map_or(root.at.0, |time| time.0);
    Some(early(resolved, every, root, uid))
}

/// Caches that were made together are asked about apart: each comes a little early, by a hash of its UID and run.
fn early(since: Timestamp, period: Duration, root: &LedgerRoot, uid: &str) -> Timestamp {
    after(since, period.mul_f64(jitter(uid, root.run)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{ImageCacheSpec, image_cache::Serve},
        model::{judge::judge_spec, settings::Settings},
    };

    fn request(image: &str, every: Option<&str>) -> CacheRequest {
        let spec = ImageCacheSpec {
            images: vec![image.into()],
            refresh_interval: every.map(Into::into),
            serve: Some(Serve::Public),
            ..ImageCacheSpec::default()
        };
        judge_spec(&BTreeMap::new(), &spec, &Settings::default()).0.unwrap()
    }

    fn root(proved: bool) -> LedgerRoot {
        let start = Time(Timestamp::UNIX_EPOCH);
        LedgerRoot {
            run: 1,
            digest: String::new(),
            at: start.clone(),
            mirror_store_id: None,
            inputs: String::new(),
            resolved: Some(start.clone()),
            proved: proved.then_some(start),
            taken_back: None,
        }
    }

    #[test]
    fn intervals_are_a_number_and_a_unit_from_five_minutes() {
        for (text, seconds) in
            [("5m", 300), ("9999m", 599_940), ("12h", 43_200), ("7d", 604_800), ("999d", 86_313_600)]
        {
            assert_eq!(text.parse(), Ok(Interval(Duration::from_secs(seconds))), "{text}");
        }
        for text in [
            "", "m", "4m", "12", "12s", "012h", "-1h", "+1h", "1.5h", "1h30m", "10000h", "1000d", "12 h",
            "５m",
        ] {
            let error = text.parse::<Interval>().unwrap_err().to_string();
            assert!(error.contains("12h or 7d"), "{text}");
        }
    }

    #[test]
    fn a_cache_is_refreshed_before_the_interval_ends_and_not_together_with_others() {
        let request = request("nginx:1", Some("10h"));
        let at = |uid: &str| due(&root(false), &request, uid).unwrap().at.as_second();
        let all: Vec<i64> = (0..100).map(|i| at(&format!("uid-{i}"))).collect();
        assert!(all.iter().all(|at| (8 * 3600..=10 * 3600).contains(at)), "{all:?}");
        let mut apart = all.clone();
        apart.sort_unstable();
        apart.dedup();
        assert!(apart.len() > 95, "{apart:?}");
        assert_eq!(at("uid-1"), at("uid-1"));
    }

    #[test]
    fn digests_are_never_asked_for_again_but_their_proofs_are_renewed_in_time() {
        let pinned = format!("nginx@sha256:{}", "a".repeat(64));
        assert_eq!(due(&root(false), &request(&pinned, Some("5m")), "uid"), None);
        assert_eq!(due(&root(false), &request("nginx:1", None), "uid"), None);
        for image in [pinned.as_str(), "nginx:1"] {
            let due = due(&root(true), &request(image, None), "uid").unwrap();
            let days = due.at.as_second() / 86_400;
            assert!(due.proofs && (4..6).contains(&days), "{days}");
        }
        let often = due(&root(true), &request("nginx:1", Some("1h")), "uid").unwrap();
        assert!(!often.proofs, "a refresh renews the proofs too");
    }

    #[test]
    fn a_long_or_strange_value_is_known_by_its_hash() {
        let asked =
            |value: &str| super::asked(&BTreeMap::from([(keys::REFRESH.to_owned(), value.to_owned())]));
        assert_eq!(asked("2026-08-01T00:00:00Z").as_deref(), Some("2026-08-01T00:00:00Z"));
        for strange in ["x".repeat(1 << 18), "\u{1b}[2J".into(), "\"".into()] {
            let short = asked(&strange).unwrap();
            assert!(short.starts_with("sha256:"), "{short}");
        }
        assert_eq!(super::asked(&BTreeMap::new()), None);
    }
}
