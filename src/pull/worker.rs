//! The worker as the pod of a Job: files in, report lines and a termination message out.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Pull, client_config, meter::Meter, pace::Watch};
use crate::{
    model::{
        class::{Class, EXIT_STOPPED},
        failure::Failure,
        report::{Outcome, progress_line},
        request::PullRequest,
    },
    ops::{clock, out::print},
    registry::{Client, CredentialSource},
    store::Store,
};

/// How often a moving pull says how far it is.
const TELL: Duration = Duration::from_secs(1);

pub struct WorkerConfig<'a> {
    pub request: &'a Path,
    /// A folder of Docker configuration files.
    pub credentials: &'a Path,
    pub volume: &'a Path,
    pub termination_log: &'a Path,
    pub auth_realms: Vec<(crate::model::reference::RegistryHost, String)>,
}

/// Runs the request and returns the exit status.
pub async fn run(config: WorkerConfig<'_>, stop: CancellationToken) -> u8 {
    let meter = Arc::new(Meter::default());
    let pulling = async {
        match prepare(&config, meter.clone()) {
            Ok(pull) => pull.run().await,
            Err(error) => not_begun(error.0.as_ref(), error.1),
        }
    };
    let mut watch = Watch::default();
    let outcome = tokio::select! {
        outcome = pulling => outcome,
        () = tell(&meter, &mut watch) => return EXIT_STOPPED,
        () = stop.cancelled() => return EXIT_STOPPED,
    };
    let done = meter.progress();
    print(&progress_line(&done, &watch.pace(Instant::now(), &done)));
    let (lines, termination) = outcome.encode();
    for line in &lines {
        print(line);
    }
    if let Err(error) = std::fs::write(config.termination_log, termination) {
        tracing::warn!(%error, path = %config.termination_log.display(), "cannot write the termination message");
    }
    match outcome.failure {
        None => 0,
        Some(failure) => {
            tracing::error!(class = %failure.class, "{failure}");
            failure.class.exit_code()
        }
    }
}

fn prepare(
    config: &WorkerConfig<'_>,
    meter: Arc<Meter>,
) -> Result<Pull, Box<(Option<PullRequest>, Failure)>> {
    let invalid = |e: &dyn std::fmt::Display| {
        Failure::new(Class::Unknown, format!("{}: {e}", config.request.display()))
    };
    let bytes = std::fs::read(config.request).map_err(|e| Box::new((None, invalid(&e))))?;
    let request: PullRequest = serde_json::from_slice(&bytes).map_err(|e| Box::new((None, invalid(&e))))?;
    let started = || {
        let store = Store::create_or_open(config.volume)?;
        let source = CredentialSource::Files(vec![config.credentials.to_owned()]);
        let client = Client::new(client_config(&request, source, config.auth_realms.clone()))?;
        Ok((store, client))
    };
    match started() {
        Ok((store, client)) => {
            let credentials = client.credentials().hash();
            meter.expect(request.images.len());
            Ok(Pull { request, store, client, credentials, resolve_again: false, meter, now: clock::now() })
        }
        Err(failure) => Err(Box::new((Some(request), failure))),
    }
}

/// The outcome of a run that could not even begin.
fn not_begun(request: Option<&PullRequest>, failure: Failure) -> Outcome {
    Outcome {
        run: request.map_or(0, |request| request.run),
        store: String::new(),
        root: None,
        size: 0,
        resolved: None,
        proved: None,
        images: request
            .map(|request| request.images.iter().map(super::untouched).collect())
            .unwrap_or_default(),
        failure: Some(failure),
        higher_run: None,
        notices: Vec::new(),
    }
}

/// Progress lines, each only if something moved. Never ends.
async fn tell(meter: &Meter, watch: &mut Watch) {
    let mut told = None;
    loop {
        tokio::time::sleep(TELL).await;
        let progress = meter.progress();
        let pace = watch.pace(Instant::now(), &progress);
        if told.as_ref() != Some(&progress) {
            print(&progress_line(&progress, &pace));
            told = Some(progress);
        }
    }
}
