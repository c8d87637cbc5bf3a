//! What is known of an object's pull secrets, as one answer for the plan.

use super::{
    facts::{Facts, SecretState},
    judge::CacheRequest,
    ledger::versions,
};

pub(super) enum Secrets {
    /// Read and usable; their versions.
    Found(String),
    Unread,
    Missing(String),
}

impl Secrets {
    pub(super) fn of(request: &CacheRequest, facts: &Facts) -> Self {
        let seen: Vec<_> = request.secrets.iter().map(|name| (name, facts.secrets.get(name))).collect();
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
            return Self::Missing(missing.join("; "));
        }
        let read: Option<Vec<_>> = seen.into_iter().map(|(name, state)| state.map(|s| (name, s))).collect();
        read.map_or(Self::Unread, |read| Self::Found(versions(read)))
    }
}
