//! `imagecache pull`: each cache of the request in turn, progress for people or for scripts, and at the end what
//! is there and what failed.

use std::{io::IsTerminal as _, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    bar::{self, Bars},
    login,
    manifest::{self, Wanted},
    upstream,
};
use crate::{
    cli::{Output, PullArgs},
    model::{
        acr::Logins,
        advice,
        class::{EXIT_STOPPED, EXIT_USAGE},
        failure::Failure,
        report::{Outcome, progress_line},
        request::{Dialect, PullRequest},
    },
    ops::{
        clock,
        out::{print, tell},
    },
    pull::{self, Pull, meter::Meter, pace::Watch},
    registry::CredentialSource,
    store::Store,
};

/// Runs the command and returns the exit status.
pub async fn run(args: PullArgs, stop: CancellationToken) -> u8 {
    let requests = match manifest::requests(&args) {
        Ok(requests) => requests,
        Err(error) => {
            tell(&error.to_string());
            return EXIT_USAGE;
        }
    };
    let mut status = 0;
    for Wanted { request, logins, notices } in requests {
        for notice in notices {
            tell(&format!("{}: {notice}", request.name));
        }
        let ended = tokio::select! {
            ended = one(request, &logins, &args) => ended,
            () = stop.cancelled() => {
                tell("told to stop; what was pulled so far is kept");
                return EXIT_STOPPED;
            }
        };
        // One cache that fails never stops the others; the first failure decides the status.
        if status == 0 {
            status = ended;
        }
    }
    status
}

async fn one(request: PullRequest, logins: &Logins, args: &PullArgs) -> u8 {
    let dialect = request.dialect;
    let name = request.name.clone();
    let prepared = async {
        let lender = login::Lender::begin(logins, args).await?;
        Ok((prepare(request, lender.source(), args)?, lender))
    };
    let outcome = match prepared.await {
        Ok((pull, lender)) => tokio::select! {
            outcome = show(pull, args.output) => outcome,
            never = lender.renew() => match never {},
        },
        Err(failure) => {
            let failure: Failure = failure;
            tell_run(&name, &failure, dialect);
            return failure.class.exit_code();
        }
    };
    for image in &outcome.images {
        let Some(failure) = &image.failure else { continue };
        tell(&format!("{}: {failure}", failure.class));
        if let Some(advice) = advice::advice(failure.class, Some(image.reference.host()), dialect) {
            tell(&format!("  {advice}"));
        }
    }
    match &outcome.failure {
        Some(failure) => {
            if outcome.images.iter().all(|image| image.failure.is_none()) {
                tell_run(&name, failure, dialect);
            }
            failure.class.exit_code()
        }
        None => 0,
    }
}

fn tell_run(name: &str, failure: &Failure, dialect: Dialect) {
    tell(&format!("{name}: {}: {failure}", failure.class));
    if let Some(advice) = advice::advice(failure.class, None, dialect) {
        tell(&format!("  {advice}"));
    }
}

fn prepare(mut request: PullRequest, source: CredentialSource, args: &PullArgs) -> Result<Pull, Failure> {
    let store = Store::create_or_open(&args.volume)?;
    // By hand every pull is a new run, and asks again what tags mean.
    request.run = store.highest_run(&request.cache)?.unwrap_or_default() + 1;
    let config = pull::client_config(&request, source, args.upstream.auth_realm.clone());
    let client = upstream::client(&args.upstream, config)?;
    let credentials = client.credentials().hash();
    let meter = Arc::new(Meter::new(request.images.len()));
    Ok(Pull { request, store, client, credentials, resolve_again: true, meter, now: clock::now() })
}

/// Runs the pull while its progress is shown.
async fn show(pull: Pull, output: Output) -> Outcome {
    let (meter, name, images) = (pull.meter.clone(), pull.request.name.clone(), pull.request.images.clone());
    let bars = (output == Output::Text && std::io::stderr().is_terminal()).then(|| Bars::new(&images));
    let step = if bars.is_some() { Duration::from_millis(100) } else { Duration::from_secs(1) };
    let (mut told, mut watch) = (None, Watch::default());
    let mut tell_progress = || {
        let progress = meter.progress();
        let pace = watch.pace(tokio::time::Instant::now(), &progress);
        if told.as_ref() == Some(&progress) || progress.all.total == 0 {
            return;
        }
        match (&bars, output) {
            (Some(bars), _) => bars.show(&progress),
            (None, Output::Json) => print(&progress_line(&progress, &pace)),
            (None, Output::Text) => tell(&bar::line(&name, &progress, pace.all)),
        }
        told = Some(progress);
    };
    let running = pull.run();
    tokio::pin!(running);
    let outcome = loop {
        tokio::select! {
            outcome = &mut running => break outcome,
            () = tokio::time::sleep(step) => tell_progress(),
        }
    };
    tell_progress();
    if let Some(bars) = &bars {
        bars.end();
    }
    match output {
        Output::Json => print(&serde_json::to_string(&outcome).unwrap_or_default()),
        Output::Text if outcome.failure.is_none() => print(bar::table(&outcome).trim_end()),
        Output::Text => {}
    }
    outcome
}
