//! Sizes as Kubernetes writes them. Source: `k8s.io/apimachinery/pkg/api/resource`, "Quantity".

/// Bytes, rounded up; `None` for what is no size.
pub fn bytes(text: &str) -> Option<u64> {
    const SUFFIXES: [(&str, u64); 12] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("Pi", 1 << 50),
        ("Ei", 1 << 60),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("P", 1_000_000_000_000_000),
        ("E", 1_000_000_000_000_000_000),
    ];
    let suffix = SUFFIXES.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)));
    let (number, unit) = suffix.unwrap_or((text, 1));
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit);
    }
    // A fraction, an exponent, or thousandths.
    let (number, scale) = number.strip_suffix('m').map_or((number, 1.0), |milli| (milli, 0.001));
    let bytes = (number.parse::<f64>().ok()? * unit as f64 * scale).ceil();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // in range: looked at before
    (bytes >= 0.0 && bytes < u64::MAX as f64).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_kubernetes_writes_them() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("24696061952", Some(24_696_061_952)),
            ("23Gi", Some(23 << 30)),
            ("1.5Gi", Some(3 << 29)),
            ("2k", Some(2000)),
            ("1e3", Some(1000)),
            ("1500m", Some(2)),
            ("16Ei", None),
            ("-1", None),
            ("NaN", None),
            ("much", None),
            ("", None),
        ] {
            assert_eq!(bytes(text), wanted, "{text}");
        }
    }
}
