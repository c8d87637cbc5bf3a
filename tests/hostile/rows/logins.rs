//! Challenges, token services, credentials.

use imagecache::model::class::Class::{Auth, BadContent, ServerError, Timeout, Unsupported};

use crate::{
    row::{Row, endless, fails, fine, only, redirect, says},
    server::Step,
};

const OWN: &str = r#"Bearer realm="{own}/token",service="registry""#;
const TOKEN: &str = "/token";

fn bearer(row: Row) -> Row {
    row.challenge(OWN)
}

/// A token service that answers so.
fn token(row: Row, body: &'static str) -> Row {
    bearer(row).on(TOKEN, says("200 OK", &[], body))
}

fn denied(challenge: &str) -> Vec<Step> {
    says("401 Unauthorized", &[&format!("WWW-Authenticate: {challenge}")], "s3cret")
}

pub fn rows() -> Vec<Row> {
    let long = "x".repeat(70_000);
    let long = format!("Bearer realm=\"https://{long}.example.com/token\"");
    vec![
        bearer(fine("a token service of its own")),
        bearer(fails("401 again and again, with a good token", Auth, "(HTTP 401)")).on("/v2/", denied(OWN)),
        fails("401 again and again, with Basic", Auth, "(HTTP 401)").on("/v2/", denied("Basic realm=\"x\"")),
        fails("401 without a challenge", Auth, "(HTTP 401)")
            .on("/v2/", says("401 Unauthorized", &[], "s3cret")),
        fails("401 with a challenge that nobody knows", Auth, "(HTTP 401)")
            .on("/v2/", denied("Negotiate abc")),
        fails("401 with a challenge that is cut", Auth, "(HTTP 401)").on("/v2/", denied("Bearer realm=\"")),
        fails("403 for good credentials", Auth, "(HTTP 403)").on("/v2/", says("403 No", &[], "s3cret")),
        fails("a token service under another name", Auth, "allow it with --auth-realm")
            .challenge(r#"Bearer realm="{another name}/token""#),
        fails("a token service at a metadata address", Auth, "allow it with --auth-realm")
            .challenge(r#"Bearer realm="http://169.254.169.254/token""#),
        fails("a token service at a metadata address in disguise", Auth, "allow it with --auth-realm")
            .challenge(r#"Bearer realm="http://[::ffff:a9fe:a9fe]/token""#),
        fails("a token service without HTTPS, of a registry with HTTPS", Auth, "not reached by HTTPS")
            .challenge(r#"Bearer realm="http://127.0.0.1:9/token""#)
            .tls(),
        fails("a token service with a user name in its address", Auth, "a user name")
            .challenge(r#"Bearer realm="http://me:s3cret@127.0.0.1:9/token""#),
        fails("a token service that is a file", Auth, "has no host")
            .challenge(r#"Bearer realm="file:///etc/passwd""#),
        fails("a token service without an address", Auth, "no URL").challenge(r#"Bearer realm="not a url""#),
        fails("a token service with a name of 70 KB", BadContent, "longer headers than is accepted")
            .on("/v2/", denied(&long)),
        bearer(fails("a token service that redirects", BadContent, "token service 127.0.0.1"))
            .on(TOKEN, redirect("{other}/token")),
        bearer(fails("a token without end", BadContent, "longer than 65536 bytes"))
            .on(TOKEN, endless("200 OK", &[])),
        bearer(fails("a token of 70 KB", BadContent, "longer than 65536 bytes"))
            .on(TOKEN, says("200 OK", &[], format!("{{\"token\":\"{}\"}}", "x".repeat(70_000)))),
        token(fails("a token that is not JSON", Auth, "the answer holds no token"), "<html>s3cret"),
        token(fails("a token reply without a token", Auth, "the answer holds no token"), "{}"),
        token(fails("a token with a NUL", Auth, "control characters"), r#"{"token":"a\u0000b"}"#),
        token(
            fails("a token with a line break", Auth, "control characters"),
            r#"{"token":"a\r\nX-Evil: s3cret"}"#,
        ),
        token(fails("a token twice", Auth, "the answer holds no token"), r#"{"token":"a","token":"b"}"#),
        token(
            fine("a token that lives for ever, issued in the far future"),
            r#"{"token":"s3cret-token","expires_in":1e300,"issued_at":"9999-01-01T00:00:00Z"}"#,
        ),
        token(
            fine("a token that is older than its life"),
            r#"{"token":"s3cret-token","expires_in":-5,"issued_at":"1970-01-01T00:00:00Z"}"#,
        ),
        bearer(fails("an error without end from the token service", Auth, "(HTTP 403)"))
            .on(TOKEN, endless("403 Forbidden", &[])),
        bearer(fails("503 from the token service", ServerError, "token service 127.0.0.1"))
            .on(TOKEN, says("503 No", &[], "s3cret")),
        bearer(fails("random bytes from the token service", BadContent, "does not speak HTTP/1.1"))
            .on(TOKEN, only(vec![1, 2, 3, 4, 13, 10, 13, 10])),
        bearer(fails("a token that stops", Timeout, "i/o timeout"))
            .on(TOKEN, vec![Step::Head("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{".into()), Step::Wait])
            .slow(),
        fails("a registry at a metadata address by redirect", Unsupported, "never contacted")
            .on("/v2/", redirect("http://169.254.169.254/latest/meta-data")),
    ]
}
