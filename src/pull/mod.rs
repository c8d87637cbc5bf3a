//! The worker: a request in, the store filled, progress out. The order of the steps is the protocol of
//! `docs/store.md`, "Pull".

mod commit;
mod download;
mod fetch;
mod fill;
pub mod meter;
pub mod pace;
mod permission;
mod plan;
mod preflight;
mod queue;
mod receive;
mod referrers;
mod renew;
pub mod repair;
mod resolve;
pub mod worker;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use tokio::task::block_in_place;

use fetch::Fetcher;
use meter::Meter;
use permission::{Holdings, Owner};
use resolve::Resolved;

use crate::{
    model::{
        class::Class,
        digest::Digest,
        failure::Failure,
        reference::{Reference, RegistryHost},
        report::{ImageOutcome, Outcome, ReusedBy},
        request::{Access, PullRequest},
        root::{ROOT_FORMAT, Root, RootImage},
    },
    registry::{Client, Config, CredentialSource},
    store::{self, Lease, Store, StoreError},
};

/// Images resolved, and small documents put into the store, at one time.
const AT_ONCE: usize = 16;
/// How often the closure is looked at again after the root; what a collector took meanwhile is fetched again.
const LAST_LOOKS: usize = 5;
/// How often a lease says that its owner lives.
const TOUCH: Duration = Duration::from_mins(1);

/// A pull, ready to run.
pub struct Pull {
    pub request: PullRequest,
    pub store: Store,
    pub client: Client,
    /// Hash of the credentials at hand, and never a credential.
    pub credentials: String,
    /// Ask upstream what tags mean, even if this very request was answered before.
    pub resolve_again: bool,
    pub meter: Arc<Meter>,
    pub now: Timestamp,
}

/// Why a run ended early: of itself, or of images by their index.
enum Ended {
    Run(Failure),
    HigherRun(u64, Failure),
    Images(BTreeMap<usize, Failure>),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Run(failure)
    }
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::HigherRun { higher: run, .. } | StoreError::RunTaken { run, .. } => {
                Self::HigherRun(run, error.into())
            }
            error => Self::Run(error.into()),
        }
    }
}

impl Pull {
    /// Runs to the end. Failures are part of the outcome: the caller reports them.
    pub async fn run(self) -> Outcome {
        let mut outcome = Outcome {
            run: self.request.run,
            store: self.store.id().to_owned(),
            root: None,
            size: 0,
            resolved: None,
            proved: None,
            images: self.request.images.iter().map(untouched).collect(),
            failure: None,
            higher_run: None,
            notices: Vec::new(),
        };
        match self.steps(&mut outcome).await {
            Ok(root) => outcome.root = Some(root),
            Err(Ended::Run(failure)) => outcome.failure = Some(failure),
            Err(Ended::HigherRun(run, failure)) => {
                outcome.higher_run = Some(run);
                outcome.failure = Some(failure);
            }
            Err(Ended::Images(failures)) => {
                for (index, failure) in failures {
                    if let Some(image) = outcome.images.get_mut(index) {
                        image.failure = Some(named(failure, &image.reference));
                    }
                }
                // The first image that failed decides.
                outcome.failure = outcome.images.iter().find_map(|image| image.failure.clone());
            }
        }
        outcome.notices.extend(self.client.notices());
        outcome
    }

    async fn steps(&self, outcome: &mut Outcome) -> Result<Digest, Ended> {
        let request = &self.request;
        let lease = Arc::new(block_in_place(|| {
            self.store.lease(&request.cache, &format!("{} run {}", request.name, request.run))
        })?);
        let listed = block_in_place(|| self.store.roots())?;
        let roots: Vec<Root> =
            listed.into_iter().filter_map(|listed| listed.root.ok()).map(|stored| stored.root).collect();

        let wrong = self.wrong(&roots, &lease)?;
        let (before, pinned) = if wrong.is_empty() {
            (self.answered_before(&roots, &lease).await?, self.pinned(&roots, &lease)?)
        } else {
            (None, BTreeMap::new())
        };
        // What is taken over whole stays what it was pulled for, and with.
        let (inputs, credentials) = before.as_ref().map_or_else(
            || (self.request.inputs.clone(), self.credentials.clone()),
            |root| (root.inputs.clone(), root.credentials.clone()),
        );
        let before = before.map(|root| root.images);
        let done = before.iter().flat_map(|images| sizes(images)).map(|(digest, _)| digest).collect();
        let holdings = self.holdings(&roots, &lease);
        let (images, documents) = match before {
            Some(images) => (images, BTreeMap::new()),
            None => self.resolve_all(&lease, &holdings, &roots, &pinned).await?,
        };
        let fetcher = Arc::new(Fetcher {
            store: self.store.clone(),
            client: self.client.clone(),
            lease: lease.clone(),
            holdings: Mutex::new(holdings),
            credentials: self.credentials.clone(),
            now: self.now,
            documents,
            images,
            reuse: request.reuse,
            wrong,
            done: Mutex::new(done),
            cache: request.cache.clone(),
            commits: commit::Commits::default(),
            blocks: Mutex::default(),
            no_ranges: Mutex::default(),
        });
        self.preflight(&fetcher, &lease)?;
        let filled = {
            let filling = self.fill(&fetcher, (&inputs, &credentials));
            tokio::pin!(filling);
            loop {
                tokio::select! {
                    filled = &mut filling => break filled,
                    () = tokio::time::sleep(TOUCH) => {
                        let all = self.meter.progress().all;
                        block_in_place(|| lease.set_to_fetch(all.total - all.done))?;
                    }
                }
            }
        };
        let (images, closed) = fetcher.recorded();
        self.account(outcome, &images);
        outcome.notices.extend(closed.iter().map(|(reference, digest)| {
            format!(
                "{reference} is kept as a private image: its registry did not give {digest}, which came from elsewhere"
            )
        }));
        let root = filled?;
        let held: Vec<Digest> = sizes(&fetcher.images).into_iter().map(|(digest, _)| digest).collect();
        drop(fetcher);
        // Nobody else holds it: released here, before success is reported.
        if let Some(lease) = Arc::into_inner(lease) {
            block_in_place(|| lease.release())?;
        }
        // The cache is complete: what is left to do is no reason to pull it again.
        if let Err(error) = block_in_place(|| self.store.tidy(&held).and(self.store.rewrite_index())) {
            tracing::warn!(%error, "the pull is complete, but its leftovers or index.json are not as they should be");
        }
        Ok(root)
    }

    fn holdings(&self, roots: &[Root], lease: &Lease) -> Holdings {
        let mut holdings = Holdings::default();
        holdings.fetched_before(lease.fetched_before());
        let owner = Owner { cache: &self.request.cache, credentials: &self.credentials };
        for root in roots {
            holdings.learn_root(root, &owner, self.now);
        }
        holdings
    }

    /// When content was lost: what this cache held and the store still has, but with wrong bytes.
    fn wrong(&self, roots: &[Root], lease: &Lease) -> Result<BTreeSet<Digest>, Ended> {
        let mut wrong = BTreeSet::new();
        if !self.request.recheck {
            return Ok(wrong);
        }
        block_in_place(|| {
            for root in roots.iter().filter(|root| root.cache == self.request.cache) {
                let held = sizes(&root.images);
                lease.add(&held)?;
                for (digest, size) in held {
                    let Some(file) = self.store.look(&digest, size)? else { continue };
                    if !store::is_right(&file, &digest, &|_| {}).unwrap_or(false) {
                        wrong.insert(digest);
                    }
                }
            }
            Ok(wrong)
        })
    }

    /// Every image, in parallel. All that fail are told at once, before a byte of a layer moves.
    async fn resolve_all(
        &self,
        lease: &Lease,
        holdings: &Holdings,
        roots: &[Root],
        pinned: &BTreeMap<Reference, RootImage>,
    ) -> Result<(Vec<RootImage>, BTreeMap<Digest, bytes::Bytes>), Ended> {
        let walker = resolve::Resolver {
            client: &self.client,
            request: &self.request,
            store: &self.store,
            holdings,
            pull: self,
            roots,
            pinned,
            now: self.now,
        };
        let walker = &walker;
        let resolving = self.request.images.iter().enumerate().map(|(index, reference)| async move {
            let resolved = resolve::resolve(walker, reference).await;
            if let Ok(resolved) = &resolved {
                self.meter.image(index, &resolved.image.closure);
            }
            resolved
        });
        let resolved: Vec<Result<Resolved, Failure>> =
            stream::iter(resolving).buffered(AT_ONCE).collect().await;
        let (mut images, mut documents, mut failures) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for (index, resolved) in resolved.into_iter().enumerate() {
            match resolved {
                Ok(resolved) => {
                    images.push(resolved.image);
                    documents.extend(resolved.documents);
                }
                Err(failure) => {
                    failures.insert(index, failure);
                }
            }
        }
        if !failures.is_empty() {
            return Err(Ended::Images(failures));
        }
        if let Some((index, digest)) = plan::contradiction(&images) {
            let failure = Failure::new(
                Class::BadContent,
                format!("its manifest gives {digest} another size than another image's does"),
            );
            return Err(Ended::Images(BTreeMap::from([(index, failure)])));
        }
        block_in_place(|| lease.add(&sizes(&images)))?;
        Ok((images, documents))
    }

    fn preflight(&self, fetcher: &Fetcher, lease: &Lease) -> Result<(), Ended> {
        block_in_place(|| {
            let mut missing = 0;
            for (digest, size) in sizes(&fetcher.images) {
                if self.store.look(&digest, size)?.is_none() {
                    missing += size;
                }
            }
            lease.set_to_fetch(missing)?;
            let space = preflight::Space {
                logical: sizes(&fetcher.images).iter().map(|(_, size)| size).sum(),
                missing,
                limit: self.request.size_limit,
                free: self.store.space()?.free,
                reserved: lease.reserved_by_others()?,
            };
            preflight::check(space, &fetcher.images)?;
            Ok(())
        })
    }

    /// Blobs, then the root, then the last look that makes the root true.
    async fn fill(
        &self,
        fetcher: &Arc<Fetcher>,
        (inputs, credentials): (&str, &str),
    ) -> Result<Digest, Ended> {
        fill::all(fetcher, &self.meter).await.map_err(Ended::Images)?;
        block_in_place(|| self.store.sync_blobs())?;
        let mut left = self.missing(fetcher)?;
        if !left.is_empty() {
            fill::all(fetcher, &self.meter).await.map_err(Ended::Images)?;
            block_in_place(|| self.store.sync_blobs())?;
        }
        let root = Root {
            format: ROOT_FORMAT,
            cache: self.request.cache.clone(),
            name: self.request.name.clone(),
            run: self.request.run,
            inputs: inputs.to_owned(),
            credentials: credentials.to_owned(),
            store: self.store.id().to_owned(),
            serve_private: self.request.serve_private,
            images: fetcher.recorded().0,
        };
        let digest = block_in_place(|| self.store.link_root(&root))?;
        for _ in 0..LAST_LOOKS {
            left = self.missing(fetcher)?;
            if left.is_empty() {
                block_in_place(|| self.store.sync_blobs())?;
                return Ok(digest);
            }
            fill::all(fetcher, &self.meter).await.map_err(Ended::Images)?;
        }
        let names: Vec<String> = left.iter().take(3).map(ToString::to_string).collect();
        Err(Failure::new(
            Class::Unknown,
            format!("content goes missing from the store while it is filled: {}", names.join(", ")),
        )
        .into())
    }

    fn missing(&self, fetcher: &Fetcher) -> Result<Vec<Digest>, StoreError> {
        block_in_place(|| {
            let mut missing = Vec::new();
            for (digest, size) in sizes(&fetcher.images) {
                if self.store.look(&digest, size)?.is_none() {
                    missing.push(digest);
                }
            }
            Ok(missing)
        })
    }

    /// What moved, for whom: the first image that holds a blob pulled it, for the others it was there.
    fn account(&self, outcome: &mut Outcome, images: &[RootImage]) {
        let moved_by = plan::moved_by(images);
        for (index, (image, told)) in images.iter().zip(&mut outcome.images).enumerate() {
            told.digest = Some(image.digest.clone());
            told.public = image.public.is_some();
            told.resolved = Some(image.resolved);
            told.size = image.closure.iter().map(|entry| entry.size).sum();
            (told.pulled, told.reused_by) = (0, ReusedBy::default());
            for entry in &image.closure {
                let right = self.meter.gauge(&entry.digest, entry.size).reused_by();
                let part = match right {
                    _ if moved_by.get(&entry.digest) != Some(&index) => &mut told.reused_by.same_run,
                    Some(right) => told.reused_by.of(right),
                    None => &mut told.pulled,
                };
                *part += entry.size;
            }
            told.reused = told.size - told.pulled;
        }
        outcome.resolved = images.iter().map(|image| image.resolved).min();
        outcome.proved = images.iter().filter_map(|image| image.public).min();
        outcome.size = sizes(images).iter().map(|(_, size)| size).sum();
    }
}

/// The registry client's settings for a request.
pub fn client_config(
    request: &PullRequest,
    credentials: CredentialSource,
    auth_realms: Vec<(RegistryHost, String)>,
) -> Config {
    Config {
        access: request
            .access
            .iter()
            .map(|(h, a)| (h.clone(), Access { overridden: request.overridden(h), ..*a }))
            .collect(),
        credentials,
        credentials_over_http: request.credentials_over_http,
        auth_realms: [auth_realms, request.acr_realms()].concat(),
        public_registries: request.public_registries.clone(),
        lookup: request.lookup.clone(),
        ..Config::default()
    }
}

/// A failure of an image names the image, once.
fn named(failure: Failure, reference: &Reference) -> Failure {
    if failure.message.starts_with(&reference.to_string()) { failure } else { failure.of(reference) }
}

fn untouched(reference: &Reference) -> ImageOutcome {
    ImageOutcome {
        reference: reference.clone(),
        digest: None,
        size: 0,
        pulled: 0,
        reused: 0,
        reused_by: ReusedBy::default(),
        public: false,
        resolved: None,
        failure: None,
    }
}

/// Every digest once, with its size.
fn sizes(images: &[RootImage]) -> Vec<(Digest, u64)> {
    let entries = images.iter().flat_map(|image| &image.closure);
    entries.map(|entry| (entry.digest.clone(), entry.size)).collect::<BTreeMap<_, _>>().into_iter().collect()
}
