//! How the registries of a cache are reached: the lists of the object and of the operator's defaults against the
//! hosts its images name.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    annotations::{Annotations, Origin},
    reference::{Reference, RegistryHost},
    request::{Access, Transport},
};

/// How each host is reached, and which of them get no credentials. `credentials`: whether there are some that may travel
/// over plain HTTP.
pub(super) fn access(
    images: &[Reference],
    seen: &Annotations,
    credentials: bool,
    notices: &mut Vec<String>,
) -> (BTreeMap<RegistryHost, Access>, BTreeSet<RegistryHost>) {
    let (plain, unverified) = (&seen.plain_http, &seen.skip_verify);
    let used: BTreeSet<&RegistryHost> = images.iter().map(Reference::host).collect();
    let named = plain.named.keys().chain(unverified.named.keys());
    let hosts: BTreeSet<&RegistryHost> = named.chain(used.iter().copied()).collect();
    let mut access = BTreeMap::new();
    let mut anonymous = BTreeSet::new();
    for host in hosts {
        let (transport, by_name, who) = if let Some(who) = plain.named.get(host) {
            (Transport::PlainHttp, true, who)
        } else if let Some(who) = unverified.named.get(host) {
            (Transport::HttpsUnverified, true, who)
        } else if let Some(who) = &plain.all {
            (Transport::PlainHttp, false, who)
        } else if let Some(who) = &unverified.all {
            (Transport::HttpsUnverified, false, who)
        } else {
            continue;
        };
        let key = who.key;
        access.insert(host.clone(), Access { transport, overridden: who.origin == Origin::Object });
        if plain.covers(host) && unverified.covers(host) && transport == Transport::PlainHttp {
            notices.push(format!(
                "{host} is listed as plain HTTP and as HTTPS without check: plain HTTP counts"
            ));
        }
        if used.is_empty() {
            // No image could be read: that is said, and more would only distract.
        } else if !used.contains(host) {
            if who.origin == Origin::Object {
                notices.push(unused(key, host, &used));
            }
        } else if !by_name {
            anonymous.insert(host.clone());
            notices.push(format!("{key} says all: {host} gets no credentials unless it is named"));
        } else if transport == Transport::PlainHttp && credentials {
            notices.push(format!("{host} is reached over plain HTTP: credentials for it are not protected"));
        }
    }
    (access, anonymous)
}

/// The port is part of the name, and forgotten or added most often.
fn unused(key: &str, host: &RegistryHost, used: &BTreeSet<&RegistryHost>) -> String {
    let name = |host: &RegistryHost| {
        let text = host.as_str();
        let port = text.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        port.map_or(text, |(name, _)| name).to_owned()
    };
    if let Some(other) = used.iter().find(|other| name(other) == name(host)) {
        return format!(
            "{key} names {host}, but the image's registry is {other}: the port counts, so it has no effect; \
             write {other}"
        );
    }
    let images = used.iter().map(|host| host.as_str()).collect::<Vec<_>>().join(", ");
    format!("{key} names {host}, but the images come from {images}: write it as they do")
}
