//! Bytes of layers.

use bytes::Bytes;
use imagecache::model::class::Class::{BadContent, Network, Timeout, Unsupported};

use crate::{
    content::{LAYER_SIZE, layer},
    row::{Row, endless, fails, fine, raw, says},
    server::Step,
};

const LAYER: &str = "GET /v2/app/blobs/{layer}";
const CHUNKED: &str = "Transfer-Encoding: chunked";

fn wrong() -> Bytes {
    layer().iter().map(|byte| byte ^ 1).collect()
}

fn chunked(bytes: &[u8]) -> Bytes {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n0\r\n\r\n"].concat().into()
}

/// A break at 50 000, so that the rest is asked for by range, which is answered so.
fn resumed(row: Row, times: usize, status: &str, headers: &[&str], body: Bytes) -> Row {
    let length = format!("Content-Length: {LAYER_SIZE}");
    row.once(LAYER, raw("200 OK", &[&length], layer().slice(..50_000))).times(
        times,
        LAYER,
        says(status, headers, body),
    )
}

fn partial(row: Row, times: usize, ranges: &[&str]) -> Row {
    resumed(row, times, "206 Partial Content", ranges, layer().slice(50_000..))
}

pub fn rows() -> Vec<Row> {
    let longer = [&layer()[..], b"!"].concat();
    let twice = "Content-Range: bytes 50000-99999/100000";
    let multipart = "Content-Type: multipart/byteranges; boundary=x";
    let gzip = "Content-Encoding: gzip";
    let short = &layer()[..LAYER_SIZE - 1];
    vec![
        fails("a layer with other bytes", BadContent, "digest")
            .on(LAYER, says("200 OK", &[], wrong()))
            .worker(),
        fails(
            "a layer that is longer than its descriptor says",
            BadContent,
            "100001 bytes, the manifest says 100000",
        )
        .on(LAYER, says("200 OK", &[], longer.clone())),
        fails("a layer that is longer, without a length", BadContent, "longer than the 100000 bytes")
            .on(LAYER, raw("200 OK", &[CHUNKED], chunked(&longer))),
        fails(
            "a layer that is shorter than its descriptor says",
            BadContent,
            "99999 bytes, the manifest says 100000",
        )
        .on(LAYER, says("200 OK", &[], Bytes::copy_from_slice(short))),
        fails("a layer that is shorter, in chunks", BadContent, "ended after 99999 of 100000 bytes")
            .on(LAYER, raw("200 OK", &[CHUNKED], chunked(short))),
        fails("a layer without end", BadContent, "longer than the 100000 bytes")
            .on(LAYER, endless("200 OK", &[])),
        fails("a layer that is encoded unasked", BadContent, "Content-Encoding gzip")
            .on(LAYER, says("200 OK", &[gzip], "not as many bytes")),
        fine("a layer until the connection ends, without a length").on(LAYER, raw("200 OK", &[], layer())),
        fails("a connection that breaks within every layer", Network, "broke")
            .on(LAYER, raw("200 OK", &["Content-Length: 100000"], layer().slice(..10))),
        fails("a layer that stops", Timeout, "no progress")
            .on(LAYER, [raw("200 OK", &["Content-Length: 100000"], "x"), vec![Step::Wait]].concat())
            .slow(),
        fails("a layer byte by byte", Timeout, "too slow")
            .on(LAYER, [raw("200 OK", &["Content-Length: 100000"], ""), vec![Step::Dribble(b'x')]].concat())
            .slow(),
        resumed(fine("the whole layer in answer to a range"), 1, "200 OK", &[], layer()),
        partial(fine("a range that begins elsewhere"), 1, &["Content-Range: bytes 49999-99999/100000"]),
        partial(fine("a range that ends elsewhere"), 1, &["Content-Range: bytes 50000-99998/100000"]),
        partial(fine("a range of another size"), 1, &["Content-Range: bytes 50000-99999/200000"]),
        partial(fine("a range of an unknown size"), 1, &["Content-Range: bytes 50000-99999/*"]),
        partial(fine("a range that does not say which"), 1, &[]),
        partial(fine("a range that says it twice"), 1, &[twice, twice]),
        partial(fine("several ranges in one answer (multipart/byteranges)"), 1, &[multipart]),
        partial(
            fails("ranges that are always wrong, also where none was asked for", Network, "another range"),
            usize::MAX,
            &[],
        ),
        resumed(
            fails("416 to a range within the layer", BadContent, "shorter than the 100000 bytes"),
            usize::MAX,
            "416 Range Not Satisfiable",
            &["Content-Range: bytes */5"],
            Bytes::new(),
        ),
        fails("204 instead of a layer", Unsupported, "(HTTP 204)").on(LAYER, raw("204 No Content", &[], "")),
        fails("304 instead of a layer", BadContent, "(HTTP 304)").on(LAYER, raw("304 Not Modified", &[], "")),
    ]
}
