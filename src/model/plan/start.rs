//! The Job of a run: when it may be made, and what it is asked for.

use std::{collections::BTreeSet, time::Duration};

use super::{Action, Course, StartRun};
use crate::{
    api::image_cache::Serve,
    model::{
        judge::CacheRequest,
        platform::Platform,
        reference::{Reference, RegistryHost},
        request::{PullRequest, Resolve},
        stage::Stage,
    },
};

impl Course<'_> {
    /// The open run has no Job. One is made when the run is written down, the Jobs before it are gone, and a slot
    /// is free.
    pub(super) fn start(&mut self, request: &CacheRequest) -> Stage {
        let hosts: BTreeSet<RegistryHost> = request.images.iter().map(Reference::host).cloned().collect();
        if !self.facts.queue.admits(&hosts, &request.eips, self.settings) {
            self.within(Duration::from_secs(15));
            return Stage::Queued(self.facts.queue.why(&request.eips));
        }
        let written = self.seen.open && self.seen.run == self.ledger.run;
        if !written {
            self.within(Duration::ZERO);
        } else if !self.facts.jobs.is_empty() {
            self.within(Duration::from_secs(10));
        } else {
            let hosts = hosts.difference(&request.anonymous).cloned().collect();
            let start = StartRun {
                request: self.pull_request(request),
                secrets: request.secrets.clone(),
                hosts,
                logins: request.logins.clone(),
                pod: request.pod.clone(),
                eips: request.eips.clone(),
            };
            self.actions.push(Action::StartRun(Box::new(start)));
            self.within(Duration::from_secs(30));
            return Stage::Preparing(self.facts.refused.clone());
        }
        Stage::Preparing(None)
    }

    fn pull_request(&self, request: &CacheRequest) -> PullRequest {
        let object = &self.judged.object;
        let platforms = self.platforms(request);
        PullRequest {
            name: object.name.clone(),
            run: u64::try_from(self.ledger.run).unwrap_or_default(),
            platforms,
            size_limit: Some(request.size_limit),
            access: request.access.clone(),
            reuse: request.reuse,
            public_registries: self.settings.public_registries.clone(),
            credentials_over_http: self.settings.credentials_over_http,
            recheck: self.ledger.root.is_none() && self.ledger.answered,
            resolve: self.resolve(),
            serve_private: request.serve == Serve::Cluster,
            referrers: request.referrers,
            dialect: request.dialect,
            lookup: request.lookup.clone(),
            acr_domains: request.logins.domains(),
            ..PullRequest::new(object.uid.clone(), request.images.clone())
        }
        .with_inputs()
    }

    fn resolve(&self) -> Resolve {
        let number = |run: i64| u64::try_from(run).unwrap_or_default();
        match (&self.ledger.refresh, &self.ledger.root) {
            (Some(refresh), Some(root)) if refresh.proofs && self.ledger.is_refreshing() => {
                Resolve::Proofs(number(root.run))
            }
            _ => Resolve::Since(number(self.ledger.asked)),
        }
    }

    /// What the object says, else what the operator says, else what the nodes are.
    fn platforms(&self, request: &CacheRequest) -> Vec<Platform> {
        let choices = [&request.platforms, &self.settings.platforms, &self.facts.node_platforms];
        let first = choices.into_iter().find(|platforms| !platforms.is_empty());
        first.cloned().unwrap_or_else(|| {
            vec![Platform { os: "linux".to_owned(), architecture: "amd64".to_owned(), variant: None }]
        })
    }
}
