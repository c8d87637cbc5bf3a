//! What the gateway checks before an operation is looked at, in an implementation of its own.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use imagecache::{model::digest::Digest, ops::clock};
use jiff::Timestamp;
use serde_json::Value;

use super::{Asked, Key, State, api::refuse};

type Refused = (u16, Value);

/// The key that signed the request.
pub(crate) fn check(state: &mut State, asked: &Asked) -> Result<Key, Refused> {
    if asked.headers.contains_key("authorization") { acs3(state, asked) } else { rpc(state, asked) }
}

/// Also for calls that are not signed.
pub(crate) fn fresh(state: &mut State, time: &str, nonce: &str) -> Result<(), Refused> {
    let sent: Timestamp = time.parse().map_err(|_| refuse(400, "InvalidTimeStamp.Format", ""))?;
    let here = clock::now().as_second() + state.ahead;
    if (here - sent.as_second()).abs() > 15 * 60 {
        let says = "Specified time stamp or date value is expired.";
        return Err(refuse(400, "InvalidTimeStamp.Expired", says));
    }
    if nonce.is_empty() || !state.nonces.insert(nonce.to_owned()) {
        return Err(refuse(400, "SignatureNonceUsed", "Specified signature nonce was used already."));
    }
    Ok(())
}

fn known(state: &State, id: &str, token: Option<&String>) -> Result<Key, Refused> {
    let Some(key) = state.keys.get(id) else {
        return Err(refuse(404, "InvalidAccessKeyId.NotFound", "Specified access key is not found."));
    };
    if key.token.as_ref() != token {
        return Err(refuse(
            400,
            "InvalidSecurityToken.MismatchWithAccessKey",
            "Specified SecurityToken mismatches.",
        ));
    }
    Ok(key.clone())
}

fn rpc(state: &mut State, asked: &Asked) -> Result<Key, Refused> {
    let word = |name: &str| asked.query.get(name).map(String::as_str).unwrap_or_default();
    if (word("SignatureMethod"), word("SignatureVersion")) != ("HMAC-SHA1", "1.0") {
        return Err(refuse(
            400,
            "IncompleteSignature",
            "The request signature does not conform to standards.",
        ));
    }
    fresh(state, word("Timestamp"), word("SignatureNonce"))?;
    let key = known(state, word("AccessKeyId"), asked.query.get("SecurityToken"))?;
    let signed = asked.query.iter().chain(&asked.form).filter(|(name, _)| *name != "Signature");
    let sorted: BTreeMap<String, String> =
        signed.map(|(name, value)| (escaped(name), escaped(value))).collect();
    let line: Vec<String> = sorted.iter().map(|(name, value)| [name.as_str(), value].join("=")).collect();
    let words = [asked.method.as_str(), &escaped("/"), &escaped(&line.join("&"))].join("&");
    let with = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, [&key.secret, "&"].concat().as_bytes());
    if STANDARD.encode(hmac::sign(&with, words.as_bytes())) == word("Signature") {
        Ok(key)
    } else {
        Err(refuse(400, "SignatureDoesNotMatch", "Specified signature does not match our calculation."))
    }
}

fn acs3(state: &mut State, asked: &Asked) -> Result<Key, Refused> {
    let bad = || refuse(400, "SignatureDoesNotMatch", "Specified signature does not match our calculation.");
    let header = |name: &str| asked.headers.get(name).map(String::as_str).unwrap_or_default();
    fresh(state, header("x-acs-date"), header("x-acs-signature-nonce"))?;
    let fields: BTreeMap<&str, &str> = header("authorization")
        .strip_prefix("ACS3-HMAC-SHA256 ")
        .ok_or_else(bad)?
        .split(',')
        .filter_map(|field| field.split_once('='))
        .collect();
    let field = |name: &str| fields.get(name).copied().unwrap_or_default();
    let key = known(state, field("Credential"), asked.headers.get("x-acs-security-token"))?;
    let names = field("SignedHeaders");
    let needed = asked.headers.keys().filter(|name| name.starts_with("x-acs-") || *name == "host");
    if needed.clone().any(|name| !names.split(';').any(|signed| signed == name)) {
        return Err(bad());
    }
    let lines: String = names.split(';').map(|name| [name, ":", header(name), "\n"].concat()).collect();
    let empty = Digest::sha256(b"").hex().to_owned();
    let canonical = [asked.method.as_str(), &asked.path, "", &lines, names, &empty].join("\n");
    let words = ["ACS3-HMAC-SHA256", Digest::sha256(canonical.as_bytes()).hex()].join("\n");
    let with = hmac::Key::new(hmac::HMAC_SHA256, key.secret.as_bytes());
    let tag = hmac::sign(&with, words.as_bytes());
    let hex: Vec<String> = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    if hex.concat() == field("Signature") { Ok(key) } else { Err(bad()) }
}

/// RFC 3986, from the form encoding: a space is no plus, a star is encoded, a tilde is not.
fn escaped(text: &str) -> String {
    let form: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
    form.replace('+', "%20").replace('*', "%2A").replace("%7E", "~")
}
