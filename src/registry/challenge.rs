//! What a registry asks for in `WWW-Authenticate`. Pure.
//! Source: RFC 9110, 11.6.1; distribution, docs/content/spec/auth/token.md.

use http::{HeaderMap, header::WWW_AUTHENTICATE};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    Bearer { realm: String, service: Option<String>, scopes: Vec<String>, error: Option<String> },
    Basic,
}

/// The challenge to answer: Bearer before Basic; others are not for us.
pub fn preferred(headers: &HeaderMap) -> Option<Challenge> {
    let all: Vec<Challenge> = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(parse)
        .collect();
    let bearer = all.iter().find(|c| matches!(c, Challenge::Bearer { .. })).cloned();
    bearer.or_else(|| all.into_iter().next())
}

/// One header may hold several challenges: `Bearer realm="a",service="b", Basic realm="c"`.
fn parse(text: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for item in split_outside_quotes(text) {
        let item = item.trim();
        // `scheme name=value` opens a challenge, `name=value` continues it, `scheme` alone is one without words.
        let before_equals = item.split('=').next().unwrap_or_default().trim_end();
        let (scheme, word) = match before_equals.split_once(' ') {
            Some((scheme, _)) => (Some(scheme), item[scheme.len()..].trim_start()),
            None if item.contains('=') => (None, item),
            None => (Some(item), ""),
        };
        if let Some(scheme) = scheme.filter(|s| !s.is_empty()) {
            found.push((scheme.to_ascii_lowercase(), Vec::new()));
        }
        if let (Some((_, words)), Some((name, value))) = (found.last_mut(), word.split_once('=')) {
            words.push((name.trim().to_ascii_lowercase(), unquote(value.trim())));
        }
    }
    found.into_iter().filter_map(|(scheme, words)| challenge(&scheme, &words)).collect()
}

fn challenge(scheme: &str, words: &[(String, String)]) -> Option<Challenge> {
    let get = |name: &str| words.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: get("realm").filter(|realm| !realm.is_empty())?,
            service: get("service"),
            scopes: get("scope").iter().flat_map(|s| s.split_whitespace()).map(str::to_owned).collect(),
            error: get("error"),
        }),
        _ => None,
    }
}

fn split_outside_quotes(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"') else { return value.to_owned() };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(lines: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(WWW_AUTHENTICATE, line.parse().unwrap());
        }
        preferred(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>, scopes: &[&str], error: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scopes: scopes.iter().map(|s| (*s).to_owned()).collect(),
            error: error.map(Into::into),
        }
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        assert_eq!(
            of(&[
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull,push",error="insufficient_scope""#
            ]),
            Some(bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                &["repository:library/nginx:pull,push"],
                Some("insufficient_scope")
            ))
        );
        assert_eq!(of(&[r#"Basic realm="x, y""#]), Some(Challenge::Basic));
        assert_eq!(of(&["Basic"]), Some(Challenge::Basic));
        assert_eq!(
            of(&["Negotiate", "bearer realm=https://a/t"]),
            Some(bearer("https://a/t", None, &[], None))
        );
        assert_eq!(of(&[r#"Bearer service="no realm""#, "Digest realm=x"]), None);
        assert_eq!(
            of(&[r#"Bearer realm="https://a/t?x=1" , scope="a:b:pull  c:d:pull""#]),
            Some(bearer("https://a/t?x=1", None, &["a:b:pull", "c:d:pull"], None))
        );
    }

    #[test]
    fn bearer_is_preferred_in_one_header_or_in_several() {
        let wanted = Some(bearer("https://a/t", None, &[], None));
        assert_eq!(of(&[r#"Basic realm="r", Bearer realm="https://a/t""#]), wanted);
        assert_eq!(of(&[r#"Basic realm="r""#, r#"Bearer realm="https://a/t""#]), wanted);
    }

    proptest! {
        #[test]
        fn no_header_panics(text in "[ -~]{0,60}") {
            let _ = parse(&text);
        }
    }
}
