//! What the pull secrets that a request names say together. Pure.

use std::collections::BTreeMap;

use super::{
    facts::SecretState,
    judge::{CacheRequest, SecretName},
    ledger::versions,
};

pub(super) enum Secrets {
    /// Read and usable; their versions.
    Found(String),
    Unread,
    Missing(String),
}

pub(super) fn look(request: &CacheRequest, read: &BTreeMap<SecretName, SecretState>) -> Secrets {
    let seen: Vec<_> = request.secrets.iter().map(|name| (name, read.get(name))).collect();
    let missing: Vec<String> = seen
        .iter()
        .filter_map(|(name, state)| match state {
            Some(SecretState::Missing) => Some(format!(
                "pull secret {name} does not exist: create it, or correct spec.imagePullSecrets"
            )),
            Some(SecretState::Forbidden) => Some(format!(
                "pull secret {name} may not be used: its owner has not granted it to this cache"
            )),
            Some(SecretState::Unusable(why)) => Some(format!("pull secret {name} cannot be used: {why}")),
            Some(SecretState::Found { .. }) | None => None,
        })
        .collect();
    if !missing.is_empty() {
        return Secrets::Missing(missing.join("; "));
    }
    let read: Option<Vec<_>> = seen.into_iter().map(|(name, state)| state.map(|s| (name, s))).collect();
    read.map_or(Secrets::Unread, |read| Secrets::Found(versions(read)))
}
