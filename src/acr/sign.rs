//! Signatures of Alibaba Cloud's API gateway. Pure. RPC-style calls (STS, ACR Enterprise Edition) are signed by
//! HMAC-SHA1, signature version 1.0, as the vendor's credential library does; the one call in ROA style (ACR
//! Personal Edition) by ACS3-HMAC-SHA256, because version 2 of the ROA signature is discontinued.
//! Sources: Alibaba Cloud SDK, "Request body and signature mechanism V2 for RPC-style APIs" and "Request structure
//! and signature V3".

use std::{collections::BTreeMap, fmt, fmt::Write as _};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::model::digest::Digest;

/// An access key, long-lived or temporary.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Keys {
    pub id: String,
    pub secret: String,
    /// Temporary keys have one.
    pub token: Option<String>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// RFC 3986: letters, digits and `-_.~` stay.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// In the order of the names, as both signatures want it.
pub(super) fn query<K: AsRef<str>, V: AsRef<str>>(params: &BTreeMap<K, V>) -> String {
    let pair = |(name, value): (&K, &V)| format!("{}={}", encode(name.as_ref()), encode(value.as_ref()));
    params.iter().map(pair).collect::<Vec<_>>().join("&")
}

/// The parameter `Signature`: it covers those of the query and of the form alike.
pub(super) fn rpc(method: &str, params: &BTreeMap<&str, String>, secret: &str) -> String {
    let words = format!("{method}&%2F&{}", encode(&query(params)));
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, format!("{secret}&").as_bytes());
    STANDARD.encode(hmac::sign(&key, words.as_bytes()))
}

/// A request that `acs3` signs.
pub(super) struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    /// Lower-case names: all that are sent, `host` and `x-acs-content-sha256` included.
    pub headers: &'a BTreeMap<&'a str, String>,
    pub body: &'a [u8],
}

/// The header `Authorization`.
pub(super) fn acs3(request: &Request<'_>, keys: &Keys) -> String {
    let hex = |bytes: &[u8]| Digest::sha256(bytes).hex().to_owned();
    let names = request.headers.keys().copied().collect::<Vec<_>>().join(";");
    let mut headers = String::new();
    for (name, value) in request.headers {
        let _ = writeln!(headers, "{name}:{}", value.trim());
    }
    let Request { method, path, query, body, .. } = request;
    let canonical = format!("{method}\n{path}\n{query}\n{headers}\n{names}\n{}", hex(body));
    let key = hmac::Key::new(hmac::HMAC_SHA256, keys.secret.as_bytes());
    let tag = hmac::sign(&key, format!("ACS3-HMAC-SHA256\n{}", hex(canonical.as_bytes())).as_bytes());
    let mut signature = String::new();
    for byte in tag.as_ref() {
        let _ = write!(signature, "{byte:02x}");
    }
    format!("ACS3-HMAC-SHA256 Credential={},SignedHeaders={names},Signature={signature}", keys.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of the vendor's page on RPC signatures.
    #[test]
    fn an_rpc_signature_is_the_one_of_the_vendors_example() {
        let params: BTreeMap<&str, String> = [
            ("Timestamp", "2016-02-23T12:46:24Z"),
            ("Format", "XML"),
            ("AccessKeyId", "testid"),
            ("Action", "DescribeRegions"),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureNonce", "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf"),
            ("Version", "2014-05-26"),
            ("SignatureVersion", "1.0"),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .into();
        assert_eq!(rpc("GET", &params, "testsecret"), "OLeaidS1JvxuMvnyHOwuJ+uX5qY=");
    }

    /// The fixed-parameter example of the vendor's page on signature V3.
    #[test]
    fn an_acs3_signature_is_the_one_of_the_vendors_example() {
        let headers: BTreeMap<&str, String> = [
            ("host", "ecs.cn-shanghai.aliyuncs.com"),
            ("x-acs-action", "RunInstances"),
            ("x-acs-content-sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("x-acs-date", "2023-10-26T10:22:32Z"),
            ("x-acs-signature-nonce", "3156853299f313e23d1673dc12e1703d"),
            ("x-acs-version", "2014-05-26"),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .into();
        let params = BTreeMap::from([
            ("RegionId", "cn-shanghai"),
            ("ImageId", "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd"),
        ]);
        let request =
            Request { method: "POST", path: "/", query: &query(&params), headers: &headers, body: b"" };
        let keys = Keys { id: "YourAccessKeyId".into(), secret: "YourAccessKeySecret".into(), token: None };
        assert_eq!(
            acs3(&request, &keys),
            "ACS3-HMAC-SHA256 Credential=YourAccessKeyId,SignedHeaders=host;x-acs-action;x-acs-content-sha256;\
             x-acs-date;x-acs-signature-nonce;x-acs-version,\
             Signature=06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"
        );
    }

    #[test]
    fn words_are_encoded_as_the_gateway_decodes_them() {
        assert_eq!(encode("a b*c~d/é:'()"), "a%20b%2Ac~d%2F%C3%A9%3A%27%28%29");
        assert_eq!(
            format!("{:?}", Keys { id: "i".into(), secret: "s3cret".into(), token: None }),
            "Keys(..)"
        );
    }
}
