//! What an answer other than success means: class, and a sentence with status and OCI code, never the body.
//! Source: OCI distribution-spec, "Error Codes"; RFC 9110, 10.2.3 (Retry-After).

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;

use super::transport::Answer;
use crate::model::{class::Class, failure::Failure};

/// Reads the body of an answer that is no success, and says what it means. Without a subject.
pub(crate) async fn refusal(answer: Answer) -> Failure {
    let Answer { status, headers, body, .. } = answer;
    let cap = 64 * 1024;
    let code = body.whole(cap).await.ok().and_then(|bytes| oci_code(&bytes));
    failure(status, &headers, code.as_deref())
}

fn failure(status: StatusCode, headers: &HeaderMap, code: Option<&str>) -> Failure {
    let class = match status.as_u16() {
        401 | 403 => Class::Auth,
        404 | 410 => Class::NotFound,
        408 => Class::Timeout,
        429 => Class::RateLimited,
        500..=599 => Class::ServerError,
        300..=399 => Class::BadContent,
        _ => Class::Unsupported,
    };
    let shown = format!("{}{}", status.as_u16(), code.map(|c| format!(" {c}")).unwrap_or_default());
    let reason = match (class, code) {
        (Class::NotFound, Some("NAME_UNKNOWN")) => {
            "not found: the registry does not know the repository".into()
        }
        (Class::NotFound, Some("MANIFEST_UNKNOWN")) => {
            "not found: the repository has no such tag or manifest".into()
        }
        (Class::NotFound, Some("BLOB_UNKNOWN" | "BLOB_UPLOAD_UNKNOWN")) => {
            "not found: the repository has no such blob".into()
        }
        (Class::NotFound, _) => "not found".into(),
        (Class::RateLimited, _) => rate(headers),
        (Class::Auth, _) => match bearer_error(headers) {
            Some(error) => format!("{error}: {}", Class::Auth.phrase()),
            None => Class::Auth.phrase().to_owned(),
        },
        (Class::ServerError, _) => Class::ServerError.phrase().to_owned(),
        (Class::Timeout, _) => "the registry timed out".into(),
        (Class::BadContent, _) => "a redirect that leads nowhere".into(),
        _ => "the registry does not accept the request".into(),
    };
    Failure::new(class, format!("{reason} (HTTP {shown})"))
}

fn rate(headers: &HeaderMap) -> String {
    let remaining = headers.get("ratelimit-remaining").and_then(|v| v.to_str().ok());
    let fine = |text: &&str| {
        text.len() <= 32 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b";=".contains(&b))
    };
    match remaining.filter(fine) {
        Some(remaining) => format!("too many requests, ratelimit-remaining {remaining}"),
        None => "too many requests".into(),
    }
}

/// `insufficient_scope` and its kin, from the challenge.
fn bearer_error(headers: &HeaderMap) -> Option<String> {
    match super::challenge::preferred(headers)? {
        super::challenge::Challenge::Bearer { error: Some(error), .. } => {
            let fine =
                (1..=40).contains(&error.len()) && error.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            fine.then_some(error)
        }
        _ => None,
    }
}

/// The first code of `{"errors":[{"code":...}]}`, if it has the form of one: it ends in messages.
fn oci_code(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        code: String,
    }
    let code = serde_json::from_slice::<Errors>(body).ok()?.errors.into_iter().next()?.code;
    let fine = (1..=40).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    fine.then_some(code)
}

/// How long the registry asks to wait: seconds, or a date held against the answer's own `Date`, so that no clock
/// is compared with another.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    let value = text(header::RETRY_AFTER)?;
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| httpdate::parse_http_date(text).ok();
    date(value)?.duration_since(date(text(header::DATE)?)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_a_class_and_a_sentence_without_the_body() {
        let empty = HeaderMap::new();
        for (status, code, class, text) in [
            (401, Some("UNAUTHORIZED"), Class::Auth, "(HTTP 401 UNAUTHORIZED)"),
            (403, Some("DENIED"), Class::Auth, "pull access denied"),
            (404, Some("NAME_UNKNOWN"), Class::NotFound, "does not know the repository"),
            (404, Some("MANIFEST_UNKNOWN"), Class::NotFound, "no such tag or manifest"),
            (404, None, Class::NotFound, "not found (HTTP 404)"),
            (408, None, Class::Timeout, "408"),
            (429, Some("TOOMANYREQUESTS"), Class::RateLimited, "(HTTP 429 TOOMANYREQUESTS)"),
            (500, None, Class::ServerError, "500"),
            (503, None, Class::ServerError, "503"),
            (304, None, Class::BadContent, "304"),
            (400, None, Class::Unsupported, "400"),
        ] {
            let got = failure(StatusCode::from_u16(status).unwrap(), &empty, code);
            assert_eq!(got.class, class, "{status}");
            assert!(got.message.contains(text), "{}", got.message);
        }
    }

    #[test]
    fn a_code_that_is_no_code_is_not_repeated() {
        assert_eq!(oci_code(br#"{"errors":[{"code":"DENIED","message":"m"}]}"#).as_deref(), Some("DENIED"));
        for body in [&br#"{"errors":[{"code":"\u001b[31mhi"}]}"#[..], br#"{"errors":[]}"#, b"<html>", b""] {
            assert_eq!(oci_code(body), None);
        }
    }

    #[test]
    fn a_retry_date_is_held_against_the_answers_own_date() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers), None);
        headers.insert("retry-after", "7".parse().unwrap());
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(7)));
        headers.insert("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT".parse().unwrap());
        assert_eq!(retry_after(&headers), None);
        headers.insert("date", "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(10)));
    }
}
