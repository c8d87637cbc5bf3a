//! Kubernetes events about an `ImageCache`, or about the gc Job. Made directly: kube's recorder keeps the first note of a reason for
//! minutes, and these notes differ. Names are derived, so a repeated request makes no second event.

use jiff::Timestamp;
use k8s_openapi::{
    api::{batch::v1::Job, core::v1::ObjectReference, events::v1::Event as KubeEvent},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Resource as _, api::PostParams};

use super::{Cluster, Error, Why, error::call};
use crate::{
    api::{ImageCache, keys},
    model::{digest::Digest, plan::Event},
};

/// Events of cluster-scoped objects live here.
const NAMESPACE: &str = "default";
/// The API server refuses longer notes.
const MAX_NOTE: usize = 1024;
const MAX_INSTANCE: usize = 128;

/// What an event is about.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    pub name: &'a str,
    pub uid: &'a str,
    pub resource_version: &'a str,
}

impl Cluster {
    /// Best effort: what an event says is in status, too.
    pub async fn publish(&self, about: About<'_>, event: &Event, now: Timestamp) {
        self.create_event(about, render(about, event, now, &self.identity)).await;
    }

    /// The same about a Job of ours: what it says is in the `ConfigMap` of its name, too.
    pub async fn publish_of_job(&self, about: About<'_>, event: &Event, now: Timestamp) {
        let mut made = render(about, event, now, &self.identity);
        let namespace = Some(self.worker.namespace.clone());
        made.metadata.namespace.clone_from(&namespace);
        if let Some(regarding) = &mut made.regarding {
            regarding.namespace = namespace;
            regarding.api_version = Some(Job::api_version(&()).into_owned());
            regarding.kind = Some(Job::kind(&()).into_owned());
        }
        self.create_event(about, made).await;
    }

    async fn create_event(&self, about: About<'_>, made: KubeEvent) {
        let namespace = made.metadata.namespace.clone().unwrap_or_default();
        let api: Api<KubeEvent> = Api::namespaced(self.client.clone(), &namespace);
        let create = call("create event", api.create(&PostParams::default(), &made)).await;
        match create {
            Ok(_) | Err(Error { why: Why::AlreadyExists, .. }) => {}
            Err(error) => tracing::warn!(about = about.name, reason = made.reason, %error, "event lost"),
        }
    }
}

fn render(about: About<'_>, event: &Event, now: Timestamp, identity: &str) -> KubeEvent {
    let facts = [about.uid, about.resource_version, &event.reason, &event.message].join("\n");
    let unique = Digest::sha256(facts.as_bytes());
    KubeEvent {
        metadata: ObjectMeta {
            name: Some(format!("imagecache-{}", &unique.hex()[..16])),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(if event.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(event.reason.clone()),
        note: Some(cut(&event.message, MAX_NOTE)),
        action: Some("Reconcile".to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(ImageCache::api_version(&()).into_owned()),
            kind: Some(ImageCache::kind(&()).into_owned()),
            name: Some(about.name.to_owned()),
            uid: Some(about.uid.to_owned()),
            resource_version: Some(about.resource_version.to_owned()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(format!("{}/controller", keys::GROUP)),
        reporting_instance: Some(cut(identity, MAX_INSTANCE)),
        ..KubeEvent::default()
    }
}

fn cut(text: &str, most: usize) -> String {
    text[..text.floor_char_boundary(most)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: About<'_> = About { name: "shop", uid: "u", resource_version: "7" };

    fn event(message: &str) -> Event {
        Event { warning: true, reason: "Auth".into(), message: message.into() }
    }

    #[test]
    fn the_same_fact_makes_the_same_name_and_another_one_does_not() {
        let name = |message: &str| {
            render(ABOUT, &event(message), Timestamp::UNIX_EPOCH, "me").metadata.name.unwrap()
        };
        assert_eq!(name("denied"), name("denied"));
        assert_ne!(name("denied"), name("denied again"));
    }

    #[test]
    fn long_notes_are_cut_between_characters() {
        let made = render(ABOUT, &event(&"é".repeat(2000)), Timestamp::UNIX_EPOCH, &"i".repeat(300));
        assert!(made.note.unwrap().len() <= MAX_NOTE);
        assert_eq!(made.reporting_instance.unwrap().len(), MAX_INSTANCE);
    }
}
