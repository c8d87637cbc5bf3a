//! The export pod's role: fills a cache's own volume from the store, and reports as a worker does.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{
    cli::ExportVolumeArgs,
    export::volume::{Credited, Filled, fill},
    model::{
        class::{Class, EXIT_STOPPED},
        failure::Failure,
        report::{Bytes, Outcome, Pace, Progress, progress_line},
    },
    ops::out::print,
    store::Store,
};

/// How often a moving export says how far it is.
const TELL: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Meter {
    done: AtomicU64,
    total: AtomicU64,
}

/// Runs the export and returns the exit status.
pub async fn run(args: ExportVolumeArgs, stop: CancellationToken) -> u8 {
    let meter = Arc::<Meter>::default();
    let (counted, termination_log, run) = (Arc::clone(&meter), args.termination_log.clone(), args.run);
    let filling = tokio::task::spawn_blocking(move || {
        let store = Store::open(&args.volume)?;
        let credited = Credited { cache: &args.cache, root: &args.root };
        fill(&store, &credited, &args.to, &|done, total| {
            counted.total.store(total, Ordering::Relaxed);
            counted.done.store(done, Ordering::Relaxed);
        })
    });
    let filled: Result<Filled, Failure> = tokio::select! {
        filled = filling => filled.unwrap_or_else(|e| Err(Failure::new(Class::Unknown, e.to_string()))),
        () = tell(&meter) => return EXIT_STOPPED,
        () = stop.cancelled() => return EXIT_STOPPED,
    };
    print(&line(&meter));
    report(&termination_log, &outcome(run, filled))
}

fn outcome(run: u64, filled: Result<Filled, Failure>) -> Outcome {
    let (filled, failure) = match filled {
        Ok(filled) => (Some(filled), None),
        Err(failure) => (None, Some(failure)),
    };
    Outcome {
        run,
        store: filled.as_ref().map(|filled| filled.store.clone()).unwrap_or_default(),
        size: filled.as_ref().map_or(0, |filled| filled.bytes),
        root: filled.map(|filled| filled.root),
        resolved: None,
        proved: None,
        images: Vec::new(),
        failure,
        higher_run: None,
        notices: Vec::new(),
    }
}

fn report(termination_log: &Path, outcome: &Outcome) -> u8 {
    let (lines, termination) = outcome.encode();
    for line in &lines {
        print(line);
    }
    if let Err(error) = std::fs::write(termination_log, termination) {
        tracing::warn!(%error, path = %termination_log.display(), "cannot write the termination message");
    }
    match &outcome.failure {
        None => 0,
        Some(failure) => {
            tracing::error!(class = %failure.class, "{failure}");
            failure.class.exit_code()
        }
    }
}

fn line(meter: &Meter) -> String {
    let (done, total) = (meter.done.load(Ordering::Relaxed), meter.total.load(Ordering::Relaxed));
    let progress = Progress { all: Bytes { done, total, reused: 0 }, images: Vec::new() };
    progress_line(&progress, &Pace::default())
}

/// Progress lines, each only if something moved. Never ends.
async fn tell(meter: &Meter) {
    let mut told = String::new();
    loop {
        tokio::time::sleep(TELL).await;
        let line = line(meter);
        if line != told {
            print(&line);
            told = line;
        }
    }
}
