//! One signed call of an API of Alibaba Cloud, within the limits of the registry client. Each has a new nonce and a
//! connection of its own: a request that is sent twice on a broken one would be refused as a replay.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use url::Url;

use super::{
    answer::refusal,
    sign::{self, Keys, Request},
};
use crate::{
    model::{class::Class, digest::Digest, failure::Failure},
    ops::clock,
    registry::{Limits, Names, Origin, Outgoing, Reach, Tls, Transport, target},
};

pub(super) struct Caller(Transport);

/// An operation of an API.
pub(super) struct Operation<'a> {
    /// `https://sts.aliyuncs.com`
    pub endpoint: String,
    pub name: &'static str,
    pub version: &'static str,
    pub params: &'a [(&'static str, &'a str)],
}

impl Caller {
    pub(super) fn new() -> Result<Self, Failure> {
        let limits = Limits { idle_connections: 0, ..Limits::default() };
        Ok(Self(Transport::new(Tls::new(&[])?, Names::default(), limits)))
    }

    /// RPC style: what is common to all calls in the query, what is the operation's own in the form. Without keys it is
    /// not signed.
    pub(super) async fn rpc(&self, operation: Operation<'_>, keys: Option<&Keys>) -> Result<Bytes, Failure> {
        let mut common = BTreeMap::from([
            ("Action", operation.name.to_owned()),
            ("Version", operation.version.to_owned()),
            ("Format", "JSON".to_owned()),
            ("Timestamp", clock::now().to_string()),
            ("SignatureNonce", nonce()),
        ]);
        let form: BTreeMap<&str, &str> = operation.params.iter().copied().collect();
        if let Some(keys) = keys {
            common.insert("AccessKeyId", keys.id.clone());
            common.insert("SignatureMethod", "HMAC-SHA1".to_owned());
            common.insert("SignatureVersion", "1.0".to_owned());
            common.extend(keys.token.clone().map(|token| ("SecurityToken", token)));
            let mut all = common.clone();
            all.extend(form.iter().map(|(name, value)| (*name, (*value).to_owned())));
            common.insert("Signature", sign::rpc("POST", &all, &keys.secret));
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let out = Outgoing {
            method: Method::POST,
            target: format!("/?{}", sign::query(&common)),
            headers,
            body: Bytes::from(sign::query(&form)),
        };
        self.send(&operation, out).await
    }

    /// ROA style, without parameters: `GET path`.
    pub(super) async fn roa(
        &self,
        operation: Operation<'_>,
        path: &'static str,
        keys: &Keys,
    ) -> Result<Bytes, Failure> {
        let url = base(&operation)?;
        let host = url.host_str().unwrap_or_default();
        let mut signed = BTreeMap::from([
            ("host", url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))),
            ("x-acs-action", operation.name.to_owned()),
            ("x-acs-version", operation.version.to_owned()),
            ("x-acs-date", clock::now().to_string()),
            ("x-acs-signature-nonce", nonce()),
            ("x-acs-content-sha256", Digest::sha256(b"").hex().to_owned()),
        ]);
        signed.extend(keys.token.clone().map(|token| ("x-acs-security-token", token)));
        let request = Request { method: "GET", path, query: "", headers: &signed, body: b"" };
        let authorization = sign::acs3(&request, keys);
        let mut headers = HeaderMap::new();
        // The transport writes the host itself.
        for (name, value) in signed.iter().filter(|(name, _)| **name != "host") {
            headers.insert(HeaderName::from_static(name), secret(value)?);
        }
        headers.insert(header::AUTHORIZATION, secret(&authorization)?);
        let out = Outgoing { method: Method::GET, target: path.to_owned(), headers, body: Bytes::new() };
        self.send(&operation, out).await
    }

    async fn send(&self, operation: &Operation<'_>, mut out: Outgoing) -> Result<Bytes, Failure> {
        let url = base(operation)?;
        debug_assert_eq!(target(&url), "/");
        let subject = format!("{} at {}", operation.name, url.host_str().unwrap_or_default());
        out.headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let ask = async {
            let origin = Origin::of(&url, true)?;
            // The operator says where; inside a VPC that is a private address.
            let answer = self.0.send(&origin, Reach::Anywhere, &out).await?;
            let status = answer.status.as_u16();
            let body = answer.body.whole(self.0.limits.token_bytes).await?;
            refusal(status, &body).map_or(Ok(body), Err)
        };
        ask.await.map_err(|failure| failure.of(subject))
    }
}

fn base(operation: &Operation<'_>) -> Result<Url, Failure> {
    Url::parse(&operation.endpoint).map_err(|_| {
        Failure::new(Class::InvalidSpec, format!("{}: its end point is no address", operation.name))
    })
}

fn nonce() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn secret(text: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Failure::new(Class::Auth, "a key or token has characters that no header may have"))?;
    value.set_sensitive(true);
    Ok(value)
}
