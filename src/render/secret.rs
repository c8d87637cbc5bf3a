//! The two Secrets of a run. The request never changes once written; the credentials do, when the pull secrets
//! do: short-lived tokens are renewed there, and the kubelet brings the change into the running pod's folder.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};

use super::{Run, child};
use crate::model::{names, request::PullRequest};

/// The file name in the request Secret.
pub const REQUEST_FILE: &str = "request.json";

/// What the worker shall do. Nothing secret is in it; it is a Secret because images' names may tell enough.
pub fn request(request: &PullRequest, namespace: &str) -> Result<Secret, serde_json::Error> {
    let run = run_of(request);
    let text = serde_json::to_vec(request)?;
    Ok(Secret {
        metadata: child(run, namespace, names::request_secret(run.cache, run.number)),
        immutable: Some(true),
        data: Some([(REQUEST_FILE.to_owned(), ByteString(text))].into()),
        type_: Some("Opaque".to_owned()),
        string_data: None,
    })
}

/// The file of password-free logins, after those of the pull secrets by its name.
pub const LOGIN_FILE: &str = "login.json";

/// Docker configuration files, in the order of the object's pull secrets, and the one of password-free logins. None
/// is fine: the pull is anonymous.
pub fn credentials(run: Run<'_>, namespace: &str, files: Vec<Vec<u8>>, login: Option<Vec<u8>>) -> Secret {
    let named = |(i, file): (usize, Vec<u8>)| (format!("{i:02}.json"), ByteString(file));
    let mut data: BTreeMap<String, ByteString> = files.into_iter().enumerate().map(named).collect();
    data.extend(login.map(|login| (LOGIN_FILE.to_owned(), ByteString(login))));
    Secret {
        metadata: child(run, namespace, names::credentials_secret(run.cache, run.number)),
        immutable: None,
        data: Some(data),
        type_: Some("Opaque".to_owned()),
        string_data: None,
    }
}

pub(super) fn run_of(request: &PullRequest) -> Run<'_> {
    Run { cache: &request.cache, name: &request.name, number: request.run }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::keys, render::job::tests::sample_request};

    #[test]
    fn the_request_is_immutable_and_reads_back_as_it_was() {
        let wanted = sample_request();
        let secret = request(&wanted, "ns").unwrap();
        assert_eq!(secret.immutable, Some(true));
        let read: PullRequest = serde_json::from_slice(&secret.data.unwrap()[REQUEST_FILE].0).unwrap();
        assert_eq!(read, wanted);
    }

    #[test]
    fn credentials_keep_the_order_of_the_pull_secrets_and_can_be_renewed() {
        let wanted = sample_request();
        let files: Vec<Vec<u8>> = (0..11_u8).map(|i| vec![i]).collect();
        let secret = credentials(run_of(&wanted), "ns", files, Some(vec![11]));
        assert_eq!(secret.immutable, None);
        let order: Vec<u8> = secret.data.unwrap().into_values().map(|file| file.0[0]).collect();
        assert_eq!(order, (0..12).collect::<Vec<u8>>());
    }

    #[test]
    fn children_are_found_by_labels_and_go_with_their_cache() {
        let wanted = sample_request();
        for meta in [
            request(&wanted, "ns").unwrap().metadata,
            credentials(run_of(&wanted), "ns", vec![], None).metadata,
        ] {
            let owner = &meta.owner_references.unwrap()[0];
            assert_eq!(
                (owner.kind.as_str(), owner.api_version.as_str()),
                ("ImageCache", "eci.alibabacloud.com/v1")
            );
            assert_eq!((owner.uid.as_str(), owner.controller), (wanted.cache.as_str(), Some(true)));
            let labels = meta.labels.unwrap();
            assert_eq!(labels[keys::CACHE_UID_LABEL], wanted.cache.as_str());
            assert_eq!(labels[keys::RUN_LABEL], "3");
        }
    }
}
