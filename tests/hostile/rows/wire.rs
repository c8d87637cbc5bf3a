//! Below the registry's language: TCP, TLS, HTTP, and statuses that stay.

use bytes::Bytes;
use imagecache::model::class::Class::{
    BadContent, Network, PlainHttp, RateLimited, ServerError, Timeout, Unsupported,
};

use crate::{
    row::{Row, endless, fails, fine, only, raw, says},
    server::{Opening, Step},
};

const BROKE: &str = "the connection broke before the answer was complete";
const NOT_HTTP: &str = "the server does not speak HTTP/1.1 here";
const TOO_MUCH: &str = "the answer has more or longer headers than is accepted";

fn busy(retry_after: &str) -> Vec<Step> {
    says("429 Too Many Requests", &[&format!("Retry-After: {retry_after}"), DATE], "s3cret")
}

const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT";

pub fn rows() -> Vec<Row> {
    let many = "X-Many: y\r\n".repeat(200);
    let long = format!("X-Long: {}", "y".repeat(1 << 20));
    let again = |line: &str| Step::Endless(Bytes::from(line.repeat(100)));
    vec![
        fails("a reset after the connection is made", Network, "").opening(Opening::Reset, false),
        fails("a reset instead of a TLS handshake", Network, "TLS handshake").opening(Opening::Reset, true),
        fails("a TLS alert", Network, "the TLS handshake failed").opening(Opening::Alert, true),
        fails("bytes that are not TLS on an HTTPS port", PlainHttp, "HTTP response to HTTPS client")
            .opening(Opening::Garbage, true),
        fails("TLS on a port that is listed as plain HTTP", BadContent, NOT_HTTP)
            .opening(Opening::Tls, false),
        fails("no TLS handshake at all", Timeout, "TLS handshake timeout")
            .opening(Opening::Mute, true)
            .slow(),
        fails("no answer at all", Timeout, "waiting for headers").opening(Opening::Mute, false).slow(),
        fails("the end of the connection instead of an answer", Network, BROKE).on("/v2/", vec![]),
        fails("the end of the connection within the headers", Network, BROKE)
            .on("/v2/", only("HTTP/1.1 200 OK\r\nContent-Type: appl")),
        fails("an answer of HTTP/0.9", BadContent, NOT_HTTP)
            .on("/v2/", only("hello, here is your manifest\n")),
        fails("random bytes", BadContent, NOT_HTTP).on("/v2/", only(vec![0, 255, 1, 254, 13, 10, 13, 10])),
        fails("an answer of HTTP/2", BadContent, NOT_HTTP)
            .on("/v2/", only(vec![0, 0, 18, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 128])),
        fails("200 header lines", BadContent, TOO_MUCH).on("/v2/", raw("200 OK", &[many.trim_end()], "")),
        fails("a header line of 1 MiB", BadContent, TOO_MUCH).on("/v2/", raw("200 OK", &[&long], "")),
        fails("header lines without end", BadContent, TOO_MUCH)
            .on("/v2/", vec![Step::Head("HTTP/1.1 200 OK\r\n".into()), again("X: y\r\n")]),
        fails("headers byte by byte", Timeout, "waiting for headers")
            .on("/v2/", vec![Step::Head("HTTP/1.1 200 OK\r\nX: ".into()), Step::Dribble(b'y')])
            .slow(),
        fails("interim answers (100 Continue) without end", BadContent, "does not speak HTTP/1.1")
            .on("/v2/", vec![again("HTTP/1.1 100 Continue\r\n\r\n")])
            .slow(),
        fine("one interim answer (103 Early Hints), then the right one").once(
            "GET /v2/app/blobs/{layer}",
            [
                only("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
                says("200 OK", &[], crate::content::layer()),
            ]
            .concat(),
        ),
        fails("two lengths that differ", BadContent, NOT_HTTP)
            .on("/v2/", raw("200 OK", &["Content-Length: 1", "Content-Length: 2"], "{}")),
        fails("a negative length", BadContent, NOT_HTTP)
            .on("/v2/", raw("200 OK", &["Content-Length: -1"], "")),
        fails("a chunk size that is none", BadContent, "does not speak HTTP/1.1").on(
            "GET /v2/app/blobs/{layer}",
            raw("200 OK", &["Transfer-Encoding: chunked"], "zz\r\nabc\r\n0\r\n\r\n"),
        ),
        fails("429 for ever", RateLimited, "too many requests (HTTP 429)").on("/v2/", busy("1")),
        fails("429 and Retry-After with a number beyond all bounds", RateLimited, "(HTTP 429)")
            .on("/v2/", busy("99999999999999999999999")),
        fails("429 and a negative Retry-After", RateLimited, "(HTTP 429)").on("/v2/", busy("-5")),
        fails("429 and Retry-After in the year 9999", RateLimited, "(HTTP 429)")
            .on("/v2/", busy("Fri, 31 Dec 9999 23:59:59 GMT")),
        fails("429 and Retry-After in the past", RateLimited, "(HTTP 429)")
            .on("/v2/", busy("Sun, 06 Nov 1980 08:49:37 GMT")),
        fine("429 once").once("/v2/", busy("1")),
        fails("503 for ever", ServerError, "(HTTP 503)")
            .on("/v2/", says("503 No", &["Retry-After: 7"], "s3cret")),
        fails("500 and an error body without end", ServerError, "(HTTP 500)")
            .on("/v2/", endless("500 No", &[])),
        fails("400 and an error body with control characters", Unsupported, "(HTTP 400)")
            .on("/v2/", says("400 No", &[], "{\"errors\":[{\"code\":\"\\u001b[31m s3cret\"}]}")),
        fails("400 and an error body of nested lists", Unsupported, "(HTTP 400)")
            .on("/v2/", says("400 No", &[], "[".repeat(60_000))),
        fails("a status that does not exist", Unsupported, "(HTTP 799)")
            .on("/v2/", says("799 What", &[], "")),
        fails("a warning with escape sequences", BadContent, NOT_HTTP).once(
            "GET /v2/app/blobs/{layer}",
            says(
                "200 OK",
                &["Warning: 299 - \"\u{1b}[31mred\"", "Link: </v2/app/blobs/x?n=1>; rel=\"next\""],
                crate::content::layer(),
            ),
        ),
    ]
}
