//! The shell pattern of one host label: `*`, `?`, `[a-z]`, `[^a-z]`, `\x`. A malformed pattern matches nothing.
//! Source: Go, path/filepath.Match, which the kubelet uses.

pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where the last star stood, and how much of the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, t));
            p += 1;
            continue;
        }
        if let Some(next) = one(&pattern, p, text[t]) {
            (p, t) = (next, t + 1);
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            (p, t) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Where the pattern goes on if its item at `p` takes the character.
fn one(pattern: &[char], p: usize, c: char) -> Option<usize> {
    match pattern.get(p)? {
        '?' => Some(p + 1),
        '\\' => (*pattern.get(p + 1)? == c).then_some(p + 2),
        '[' => {
            let negated = pattern.get(p + 1) == Some(&'^');
            let start = p + 1 + usize::from(negated);
            let end = start + pattern.get(start..)?.iter().position(|c| *c == ']')?;
            let (mut at, mut found) = (start, false);
            while at < end {
                let high = if pattern.get(at + 1) == Some(&'-') && at + 2 < end { at + 2 } else { at };
                found |= (pattern[at]..=pattern[high]).contains(&c);
                at = high + 1;
            }
            (found != negated && end > start).then_some(end + 1)
        }
        other => (*other == c).then_some(p + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, text, found) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("*", "abc", true),
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("*a*b", "xaayb", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[", "[", false),
            ("[]", "", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), found, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern in "[a*?\\[\\]^\\\\-]{0,12}", text in "[ab-]{0,12}") {
            let _ = matches(&pattern, &text);
        }
    }
}
