//! Where redirects lead.

use imagecache::model::class::Class::{Auth, BadContent, Network, Unsupported};

use crate::{
    content::layer,
    row::{Row, fails, fine, redirect, says},
};

const LAYER: &str = "/v2/app/blobs/{layer}";
const NOT_FOLLOWED: &str = "a redirect that is not followed";

fn to(name: &'static str, says: &'static str, address: &str) -> Row {
    fails(name, BadContent, says).on(LAYER, redirect(address))
}

fn never(name: &'static str, address: &str) -> Row {
    fails(name, Unsupported, "never contacted").on(LAYER, redirect(address))
}

pub fn rows() -> Vec<Row> {
    let expired = || {
        says("403 Forbidden", &[], "<Code>AccessDenied</Code><Message>Request has expired s3cret</Message>")
    };
    vec![
        fine("a redirect to another host, which sees no credential")
            .on(LAYER, redirect("{other}/store?signature=1"))
            .there("/", says("200 OK", &[], layer())),
        to("a redirect from https down to http", "from https to http", "{other}/store").tls(),
        to("a redirect to itself", "too many redirects", "{own}/v2/app/blobs/{layer}"),
        fails("redirects between two hosts without end", BadContent, "too many redirects")
            .on(LAYER, redirect("{other}/store"))
            .there("/", redirect("/elsewhere")),
        never("a redirect to a metadata address", "http://169.254.169.254/latest"),
        never("a redirect to a metadata address written as one number", "http://2852039166/latest"),
        never("a redirect to a metadata address in IPv6", "http://[fd00:ec2::254]/latest"),
        never("a redirect to a metadata address mapped into IPv6", "http://[::ffff:169.254.169.254]/latest"),
        never("a redirect to a metadata address through NAT64", "http://[64:ff9b::a9fe:a9fe]/latest"),
        never("a redirect to Alibaba Cloud's metadata address", "http://100.100.100.200/latest"),
        never("a redirect to a link-local address", "http://[fe80::1]/"),
        never("a redirect to no address", "http://0.0.0.0/"),
        to("a redirect with a user name", "it carries a user name", "http://me:s3cret@127.0.0.1:9/"),
        to("a redirect to a file", NOT_FOLLOWED, "file:///etc/passwd"),
        to("a redirect to another protocol", "neither https nor http", "gopher://127.0.0.1/"),
        to("a redirect to nothing that is an address", "it is no URL", "http://[::"),
        fails("a redirect without an address", BadContent, "a redirect that leads nowhere")
            .on(LAYER, says("307 Temporary Redirect", &[], "")),
        fails("a redirect to a port where nobody listens", Network, "redirected to 127.0.0.1")
            .on(LAYER, redirect("http://127.0.0.1:9/")),
        fails("a store that asks for a login", Auth, "redirected to 127.0.0.1")
            .on(LAYER, redirect("{other}/store?signature=1"))
            .there("/", says("401 No", &[r#"WWW-Authenticate: Basic realm="store""#], "s3cret")),
        fails("a store that denies every signature", Auth, "redirected to 127.0.0.1")
            .on(LAYER, redirect("{other}/store?signature=1"))
            .there("/", expired()),
        fine("a signature that is out of date: another one is asked for")
            .once(LAYER, redirect("{other}/store?old"))
            .on(LAYER, redirect("{other}/store?new"))
            .there("old", expired())
            .there("/", says("200 OK", &[], layer())),
    ]
}
