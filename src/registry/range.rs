//! `Content-Range` of a 206, held against what was asked. Pure.
//! Source: RFC 9110, 14.4.

use std::ops::Range;

use http::{HeaderMap, HeaderValue, header::CONTENT_RANGE};

/// The value of a `Range` header for the half-open range; closed, so that no byte is sent in vain.
pub fn ask(range: &Range<u64>) -> HeaderValue {
    let text = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("bytes=0-"))
}

/// Whether a 206 brings exactly the range that was asked of exactly this blob.
pub fn is_what_was_asked(headers: &HeaderMap, range: &Range<u64>, size: u64) -> bool {
    let mut values = headers.get_all(CONTENT_RANGE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    value.to_str().ok().and_then(parse) == Some((range.start, range.end.saturating_sub(1), size))
}

/// First byte, last byte, size. An unknown size (`*`) cannot be checked, so it counts as wrong.
fn parse(text: &str) -> Option<(u64, u64, u64)> {
    let (range, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |s: &str| s.bytes().all(|b| b.is_ascii_digit()).then(|| s.parse().ok()).flatten();
    Some((number(first)?, number(last)?, number(size)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_range_of_the_exact_blob_is_taken() {
        let check = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_RANGE, value.parse().unwrap());
            }
            is_what_was_asked(&headers, &(5..10), 10)
        };
        assert!(check(&["bytes 5-9/10"]));
        for wrong in [
            "bytes 4-9/10",
            "bytes 5-8/10",
            "bytes 5-9/11",
            "bytes 5-9/*",
            "bytes */10",
            "5-9/10",
            "",
            "bytes +5-9/10",
        ] {
            assert!(!check(&[wrong]), "{wrong}");
        }
        assert!(!check(&[]));
        assert!(!check(&["bytes 5-9/10", "bytes 5-9/10"]));
        assert_eq!(ask(&(5..10)), "bytes=5-9");
    }
}
