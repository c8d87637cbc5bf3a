//! `imagecache verify [--repair]` as a command: hash, fetch what is bad if wanted, and say how it ended.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use indicatif::ProgressBar;
use tokio_util::sync::CancellationToken;

use super::{
    bar, upstream,
    verify::{Verified, verify},
};
use crate::{
    cli::{Output, VerifyArgs},
    model::{
        class::{Class, EXIT_STOPPED},
        failure::Failure,
    },
    ops::out::{print, tell},
    pull::{meter::Meter, repair::Repair},
    registry::{Client, Config},
    store::Store,
};

/// How often the bar moves while blobs are fetched.
const STEP: Duration = Duration::from_millis(100);

/// Runs the command and returns the exit status.
pub async fn run(args: VerifyArgs, stop: CancellationToken) -> u8 {
    let output = args.output;
    let ended = tokio::select! {
        ended = steps(args) => ended,
        () = stop.cancelled() => {
            tell("told to stop; what was repaired so far stays so");
            return EXIT_STOPPED;
        }
    };
    match ended {
        Ok(verified) => {
            print(&if output == Output::Json { verified.to_json() } else { verified.to_text() });
            verified.class().map_or(0, Class::exit_code)
        }
        Err(failure) => {
            tell(&failure.to_string());
            failure.class.exit_code()
        }
    }
}

async fn steps(args: VerifyArgs) -> Result<Verified, Failure> {
    let volume = args.volume.clone();
    let hashing = tokio::task::spawn_blocking(move || {
        let bar = bar::of_bytes();
        let verified = verify(&volume, &|progress| bar::show(&bar, progress.done, progress.total));
        bar.finish_and_clear();
        verified
    });
    let verified = hashing.await.map_err(|_| Failure::new(Class::Unknown, "the hashing was ended"))??;
    if !args.repair || verified.bad.is_empty() {
        return Ok(verified);
    }
    let config = Config {
        access: upstream::access(&args.upstream),
        credentials: upstream::credentials(&args.upstream),
        auth_realms: args.upstream.auth_realm.clone(),
        ..Config::default()
    };
    let client = upstream::client(&args.upstream, config)?;
    let bar = bar::of_bytes().with_prefix("repair ");
    let repaired = repair(&args.volume, verified, client, &bar).await;
    bar.finish_and_clear();
    repaired
}

/// Fetches what was found to be bad, and notes how that ended.
pub async fn repair(
    volume: &Path,
    mut verified: Verified,
    client: Client,
    bar: &ProgressBar,
) -> Result<Verified, Failure> {
    let bad: BTreeMap<_, _> = verified.bad.iter().map(|blob| (blob.digest.clone(), blob.size)).collect();
    let meter = Arc::new(Meter::new(1));
    let repairing = Repair { store: Store::open(volume)?, client, bad, meter: meter.clone() }.run();
    tokio::pin!(repairing);
    let failures = loop {
        tokio::select! {
            failures = &mut repairing => break failures?,
            () = tokio::time::sleep(STEP) => {
                let all = meter.progress().all;
                bar::show(bar, all.done, all.total);
            }
        }
    };
    for blob in &mut verified.bad {
        blob.failure = failures.get(&blob.digest).cloned();
        blob.repaired = blob.failure.is_none();
    }
    Ok(verified)
}
