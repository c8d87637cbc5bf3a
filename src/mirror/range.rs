//! The `Range` header of one request. Several ranges and other units are answered with the whole blob.
//! Source: RFC 9110, section 14; OCI distribution-spec, "Pulling blobs".

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    Whole,
    /// First and last byte, both within the blob.
    Part(u64, u64),
    Unsatisfiable,
}

pub fn parse(header: &str, size: u64) -> Span {
    let Some(set) = header.trim().strip_prefix("bytes=") else { return Span::Whole };
    let Some((first, last)) = set.trim().split_once('-') else { return Span::Whole };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // A number beyond u64 is beyond every blob.
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    match (first, last, number(first), number(last)) {
        ("", _, _, Some(suffix)) if suffix == 0 || size == 0 => Span::Unsatisfiable,
        ("", _, _, Some(suffix)) => Span::Part(size.saturating_sub(suffix), size - 1),
        (_, "", Some(first), _) if first < size => Span::Part(first, size - 1),
        (_, _, Some(first), Some(last)) if first < size && first <= last => {
            Span::Part(first, last.min(size - 1))
        }
        (_, "", Some(_), _) | (_, _, Some(_), Some(_)) => Span::Unsatisfiable,
        _ => Span::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_those_of_the_distribution_conformance_suite() {
        for (header, size, span) in [
            ("bytes=500-1499", 2000, Span::Part(500, 1499)),
            ("bytes=500-", 2000, Span::Part(500, 1999)),
            ("bytes=-500", 2000, Span::Part(1500, 1999)),
            ("bytes=-5000", 2000, Span::Part(0, 1999)),
            ("bytes=1000-5000", 2000, Span::Part(1000, 1999)),
            ("bytes=0-", 2000, Span::Part(0, 1999)),
            ("bytes=2000-5000", 2000, Span::Unsatisfiable),
            ("bytes=500-0", 2000, Span::Unsatisfiable),
            ("bytes=5000-10000", 2000, Span::Unsatisfiable),
            ("bytes=2000-", 2000, Span::Unsatisfiable),
            ("bytes=-0", 2000, Span::Unsatisfiable),
            ("bytes=0-0", 0, Span::Unsatisfiable),
            ("bytes=99999999999999999999-", 2000, Span::Unsatisfiable),
            ("bytes=0-99999999999999999999", 2000, Span::Part(0, 1999)),
            ("bytes=0-1,5-6", 2000, Span::Whole),
            ("items=0-1", 2000, Span::Whole),
            ("bytes=-", 2000, Span::Whole),
            ("bytes=a-b", 2000, Span::Whole),
            ("bytes=+1-2", 2000, Span::Whole),
        ] {
            assert_eq!(parse(header, size), span, "{header} of {size}");
        }
    }

    proptest! {
        #[test]
        fn a_part_is_never_outside_the_blob(header in "bytes=[0-9]{0,21}-[0-9]{0,21}", size: u64) {
            if let Span::Part(first, last) = parse(&header, size) {
                prop_assert!(first <= last && last < size);
            }
        }
    }
}
